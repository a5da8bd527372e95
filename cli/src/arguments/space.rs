//! `lathe space`, and the words for a space.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Format;

/// `lathe space`.
#[derive(Debug, Args)]
pub struct SpaceArguments {
    /// What to do
    #[command(subcommand)]
    pub command: SpaceCommand,
}

/// A space and its skeleton; what is left out is as published.
#[derive(Debug, Args)]
pub struct SpaceChoice {
    /// Which: darts, nas201, fbnet, one of `lathe space list`, or a file like theirs
    #[arg(value_name = "SPACE")]
    pub name: String,
    /// Skeleton
    #[command(flatten)]
    pub skeleton: SkeletonChoice,
}

/// The skeleton of a space; what is left out is as published.
#[derive(Clone, Copy, Debug, Args)]
pub struct SkeletonChoice {
    /// Channels of the first cells
    #[arg(long)]
    pub width: Option<usize>,
    /// Cells (nas201: cells per stage)
    #[arg(long)]
    pub layers: Option<usize>,
    /// Side of the square input; above 64 the DARTS space gets its ImageNet stem
    #[arg(long)]
    pub resolution: Option<usize>,
    /// Classes
    #[arg(long)]
    pub classes: Option<usize>,
}

/// Search spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SpaceKind {
    /// Normal and reduction cells of DARTS and PC-DARTS
    Darts,
    /// NAS-Bench-201
    Nas201,
    /// FBNet's 22 positions
    Fbnet,
}

/// What to do with a space.
#[derive(Debug, Subcommand)]
pub enum SpaceCommand {
    /// The spaces there are
    List {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print the file of a stage-wise space, to be copied and edited
    File {
        /// Which
        name: String,
    },
    /// Its size, its choices, how much there is to time
    Show {
        /// Space
        #[command(flatten)]
        space: SpaceChoice,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Everything that must be timed to know the space, without repeats
    Workloads {
        /// Space
        #[command(flatten)]
        space: SpaceChoice,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Random networks, one a line
    Sample {
        /// Space
        #[command(flatten)]
        space: SpaceChoice,
        /// How many
        #[arg(long, short = 'n', default_value_t = 1)]
        count: u64,
        /// Seed
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Parameters, multiply-accumulates, bytes and peak memory of a network
    Count {
        /// Space
        #[command(flatten)]
        space: SpaceChoice,
        /// Genotype in its paper's text form, or the name of a published one (PC_DARTS_cifar)
        genotype: String,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Write a network as ONNX, with random weights: to time it elsewhere
    Export {
        /// Space
        #[command(flatten)]
        space: SpaceChoice,
        /// Genotype in its paper's text form, or the name of a published one
        genotype: String,
        /// File; an existing one is never overwritten
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Seed of the weights
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
}
