//! `lathe measure`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Format, PrecisionChoice, SkeletonChoice, SpaceKind};

/// `lathe measure`.
#[derive(Debug, Args)]
#[command(after_help = "With CONFIG alone: the first stage of its run, on its device.\n\
                  With --device: time workloads on one or several devices and put them into the database, no run needed. \
                  Devices on different machines work at the same time, each with its own line of progress; two that are \
                  the same machine take turns. What is timed: the operators and networks of CONFIG, or those of --space, \
                  or the networks of ONNX files:\n\n  \
                  lathe measure examples/demo.toml --device local --device pi --only-missing --dry-run\n  \
                  lathe measure --device pi --device phone --space darts --width 16 --layers 8 --networks 20\n  \
                  lathe measure --device phone --network mobilenet.onnx --protocol reference\n\n\
                  `lathe db compare` shows the devices side by side.")]
pub struct MeasureArguments {
    /// Configuration file, or the directory of a run
    #[arg(value_name = "CONFIG", required_unless_present = "device")]
    pub config: Option<PathBuf>,
    /// Directory of the run, in place of the configuration's
    #[arg(long, value_name = "DIR", requires = "config", conflicts_with = "device")]
    pub directory: Option<PathBuf>,
    /// Latency database, in place of the configuration's
    #[arg(long, value_name = "DIR")]
    pub database: Option<PathBuf>,
    /// Device to time on; can be given several times
    #[arg(long, value_name = "NAME")]
    pub device: Vec<String>,
    /// Time the operators of this space, its published networks and --networks random ones
    #[arg(long, value_enum, requires = "device", conflicts_with_all = ["config", "network"])]
    pub space: Option<SpaceKind>,
    /// Skeleton of the space
    #[command(flatten)]
    pub skeleton: SkeletonChoice,
    /// Random networks of the space
    #[arg(long, value_name = "N", requires = "space", default_value_t = 0)]
    pub networks: u64,
    /// Time the network of this ONNX file, with seeded weights; can be given several times
    #[arg(long, value_name = "FILE", requires = "device", conflicts_with = "config")]
    pub network: Vec<PathBuf>,
    /// Numeric type; that of CONFIG, else fp32
    #[arg(long, value_enum, requires = "device")]
    pub precision: Option<PrecisionChoice>,
    /// Rules of timing; those of CONFIG, else screening
    #[arg(long, value_enum, requires = "device")]
    pub protocol: Option<ProtocolChoice>,
    /// Least measured seconds per workload, in place of the rules'
    #[arg(long, requires = "device")]
    pub seconds: Option<f64>,
    /// Seed of the random networks and of the order of timing
    #[arg(long, requires = "device", default_value_t = 0)]
    pub seed: u64,
    /// Time only what the database doesn't know of the device (for a run: in place of `measure.reuse`)
    #[arg(long)]
    pub only_missing: bool,
    /// Say what would be timed and for how long, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Rules of timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProtocolChoice {
    /// At least 50 runs and one second
    Screening,
    /// At least 1,024 runs and sixty seconds
    Reference,
}
