//! `lathe fit` and `lathe predict`.

use std::path::PathBuf;

use clap::Args;

use super::{Format, PrecisionChoice, SkeletonChoice, SpaceKind};

/// `lathe fit`.
#[derive(Debug, Args)]
#[command(after_help = "With CONFIG: fit the cost table of a run.\n\
                  Without: fit a model of kernels to everything that the database knows of a device, to predict any \
                  network with `lathe predict`. With --budget N it first times the N networks of a space, or the N \
                  kernels of ONNX files, that the model knows least about:\n\n  \
                  lathe fit --device local --detect-fusion --budget 20 --space darts --width 16 --layers 8\n  \
                  lathe fit --device local --budget 20 --network a.onnx --network b.onnx --out local-2.json\n\n\
                  With --sources TABLE: fit architectures of one space to a few measurements and what a table says of \
                  other devices (docs/PREDICTOR.md):\n\n  \
                  lathe fit --device local --budget 20 --space nas201 --sources nb201_latency.parquet")]
pub struct FitArguments {
    /// Configuration file, or the directory of a run
    #[arg(value_name = "CONFIG", required_unless_present = "device", conflicts_with = "device")]
    pub config: Option<PathBuf>,
    /// Directory of the run, in place of the configuration's
    #[arg(long, value_name = "DIR", requires = "config")]
    pub directory: Option<PathBuf>,
    /// Latency database, in place of the configuration's
    #[arg(long, value_name = "DIR")]
    pub database: Option<PathBuf>,
    /// Device to learn, by alias or fingerprint
    #[arg(long)]
    pub device: Option<String>,
    /// Time this many workloads first, those that tell most
    #[arg(long, value_name = "N", requires = "device", default_value_t = 0)]
    pub budget: usize,
    /// Time networks of this space
    #[arg(long, value_enum, requires = "device", conflicts_with = "network")]
    pub space: Option<SpaceKind>,
    /// Skeleton of the space
    #[command(flatten)]
    pub skeleton: SkeletonChoice,
    /// Time kernels of this ONNX file, and the like of them; can be given several times
    #[arg(long, value_name = "FILE", requires = "device")]
    pub network: Vec<PathBuf>,
    /// Table of other devices' latencies for the same space (.parquet or .csv): learn from them, too; the model
    /// then knows this space only
    #[arg(long, value_name = "TABLE", requires_all = ["device", "space"])]
    pub sources: Option<PathBuf>,
    /// Columns of that table, as in a,b; all of them if absent
    #[arg(long, value_delimiter = ',', value_name = "DEVICES", requires = "sources")]
    pub columns: Option<Vec<String>>,
    /// Time pairs of operators first, to see which of them the engine runs as one
    #[arg(long, requires = "device", conflicts_with = "sources")]
    pub detect_fusion: bool,
    /// Numeric type of what is timed and learned from
    #[arg(long, value_enum, default_value_t, requires = "device")]
    pub precision: PrecisionChoice,
    /// Least measured seconds per workload
    #[arg(long, requires = "device", default_value_t = 1.0)]
    pub seconds: f64,
    /// Seed of the candidates and of the order of timing
    #[arg(long, requires = "device", default_value_t = 0)]
    pub seed: u64,
    /// Say what would be timed, and stop
    #[arg(long, requires = "budget")]
    pub dry_run: bool,
    /// Fit times of an emulator, which are latencies of nothing
    #[arg(long, requires = "device")]
    pub allow_emulated: bool,
    /// File of the model; an existing one is never overwritten [default: DEVICE-kernels.json or DEVICE-table.json]
    #[arg(long, value_name = "FILE", requires = "device")]
    pub out: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `lathe predict`.
#[derive(Debug, Args)]
#[command(after_help = "lathe predict model.onnx --device local\n\
                  lathe predict PC_DARTS_cifar --space darts --width 16 --layers 8 --device local")]
pub struct PredictArguments {
    /// ONNX file, or (with --space) a genotype in its paper's text form or by its published name
    #[arg(value_name = "GENOTYPE|MODEL.onnx")]
    pub network: String,
    /// Device, by alias or fingerprint
    #[arg(long)]
    pub device: String,
    /// Space of the genotype
    #[arg(long, value_enum)]
    pub space: Option<SpaceKind>,
    /// Skeleton of the space
    #[command(flatten)]
    pub skeleton: SkeletonChoice,
    /// Latency database to fit from
    #[arg(long, value_name = "DIR", default_value = ".lathe/latency-db")]
    pub database: PathBuf,
    /// Model that `lathe fit --device` wrote, in place of the database
    #[arg(long, value_name = "FILE", conflicts_with = "database")]
    pub model: Option<PathBuf>,
    /// Numeric type of the measurements to fit from; a model of --model has its own
    #[arg(long, value_enum, default_value_t, conflicts_with = "model")]
    pub precision: PrecisionChoice,
    /// Predict the known part of a file that has unknown operators
    #[arg(long)]
    pub ignore_unknown: bool,
    /// Predict from times of an emulator, which are latencies of nothing
    #[arg(long)]
    pub allow_emulated: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}
