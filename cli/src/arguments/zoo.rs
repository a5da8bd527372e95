//! `lathe zoo`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Format, MeasureArguments, PrecisionChoice, ProtocolChoice, ShowFormat};

/// `lathe zoo`.
#[derive(Debug, Args)]
pub struct ZooArguments {
    /// What to do
    #[command(subcommand)]
    pub command: ZooCommand,
}

/// A network of the zoo and its input.
#[derive(Debug, Args)]
pub struct ZooChoice {
    /// Name of a network (see `lathe zoo list`), or a file of your own in the same form (FILE.toml)
    #[arg(value_name = "NETWORK")]
    pub network: String,
    /// Rows and columns of the input, in place of the file's
    #[arg(long, value_name = "N")]
    pub resolution: Option<usize>,
}

/// What to do with the zoo.
#[derive(Debug, Subcommand)]
pub enum ZooCommand {
    /// All published networks: input, parameters, multiply-accumulates
    List {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// A network: its counts beside the published ones, and its blocks
    Show {
        /// Network
        #[command(flatten)]
        choice: ZooChoice,
        /// Its file, to copy and change
        #[arg(long, conflicts_with = "format")]
        file: bool,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// All kinds of blocks that a network can be made of, and their parameters
    Blocks {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Write a network as ONNX, folded, with random weights
    Export {
        /// Network
        #[command(flatten)]
        choice: ZooChoice,
        /// File; an existing one is never overwritten
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Seed of the weights
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// As it is trained: batch norms, residual convolutions and expanded blocks stay
        #[arg(long)]
        unfolded: bool,
    },
    /// Time networks on one or several devices, and compare latency with counts
    Measure(ZooMeasureArguments),
}

/// `lathe zoo measure`.
#[derive(Debug, Args)]
#[command(
    after_help = "Rows go into the latency database, as those of `lathe measure`. Networks are folded \
                        before they are timed.\n\n  \
                        lathe zoo measure --device local\n  \
                        lathe zoo measure shvit-s1 mine.toml --device phone --directions\n  \
                        lathe zoo measure --device local --device npu --precision fp32 --precision int8 --format markdown"
)]
pub struct ZooMeasureArguments {
    /// Networks or files; all networks of the zoo where none is named
    #[arg(value_name = "NETWORK")]
    pub networks: Vec<String>,
    /// Device to time on; can be given several times
    #[arg(long, value_name = "NAME", required = true)]
    pub device: Vec<String>,
    /// Rows and columns of the inputs, in place of the files'
    #[arg(long, value_name = "N")]
    pub resolution: Option<usize>,
    /// Time also pairs of blocks whose order is published: fused and plain bottlenecks by width, one
    /// head and several, collapsed and expanded
    #[arg(long)]
    pub directions: bool,
    /// Numeric type; can be given several times. Networks with operators that have no integers are said, and the others timed
    #[arg(long, value_enum, default_value = "fp32")]
    pub precision: Vec<PrecisionChoice>,
    /// Latency database
    #[arg(long, value_name = "DIR")]
    pub database: Option<PathBuf>,
    /// Rules of timing
    #[arg(long, value_enum)]
    pub protocol: Option<ProtocolChoice>,
    /// Least measured seconds per network, in place of the rules'
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Seed of the order of timing
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Time only what the database doesn't know of the device
    #[arg(long)]
    pub only_missing: bool,
    /// Say what would be timed and for how long, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ShowFormat,
}

impl ZooMeasureArguments {
    /// The same words for `lathe measure`, whose campaign this is.
    pub fn measuring(&self) -> MeasureArguments {
        MeasureArguments {
            config: None,
            directory: None,
            database: self.database.clone(),
            device: self.device.clone(),
            space: None,
            skeleton: super::SkeletonChoice { width: None, layers: None, resolution: None, classes: None },
            networks: 0,
            network: Vec::new(),
            precision: self.precision.first().copied(),
            protocol: self.protocol,
            seconds: self.seconds,
            seed: self.seed,
            only_missing: self.only_missing,
            dry_run: self.dry_run,
            format: if self.format == ShowFormat::Json { Format::Json } else { Format::Text },
        }
    }
}
