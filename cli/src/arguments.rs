//! The command line.

mod bench;
mod database;
mod device;
mod front;
mod learn;
mod measure;
mod space;
mod table;
mod zoo;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lathe_spaces::Precision;

pub use bench::{
    AlgorithmChoice, BenchArguments, BenchCommand, BenchMeasurementArguments, BenchNas201Arguments,
    BenchNetworksArguments, BenchNpuArguments, BenchPredictorArguments, BenchProxiesArguments,
    BenchSearchArguments, BenchSelectionArguments, KnowledgeChoice, ProxyChoice, TableProtocolChoice,
};
pub use database::{DbArguments, DbCommand, LevelChoice, RowChoice};
pub use device::{AgentlessProgram, DeviceArguments, DeviceChoice, DeviceCommand, DeviceEntry};
pub use front::FrontArguments;
pub use learn::{FitArguments, PredictArguments};
pub use measure::{MeasureArguments, ProtocolChoice};
pub use space::{SkeletonChoice, SpaceArguments, SpaceChoice, SpaceCommand, SpaceKind};
pub use table::{ExportLayout, TableArguments, TableCommand, TableLayoutChoice, TableReading, TableSpace};
pub use zoo::{ZooArguments, ZooChoice, ZooCommand, ZooMeasureArguments};

/// Searches neural networks that are accurate and fast on your device: latency is measured, not
/// guessed from multiply-adds.
#[derive(Debug, Parser)]
#[command(
    name = "lathe",
    version,
    max_term_width = 100,
    after_help = "Start with: lathe run examples/demo.toml\n\n\
                  Exit status: 0 done, 1 failed, 2 wrong command line or configuration, 3 no network \
                  meets the target, 4 the device failed, 130 interrupted (go on with --resume)."
)]
pub struct Arguments {
    /// Say nothing but errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Do everything, from measuring to the report
    Run(RunArguments),
    /// Search under several targets at once, share what can be shared, and show the front
    Front(FrontArguments),
    /// Stage 1: time the space's operators and some networks on the device
    Measure(MeasureArguments),
    /// Stage 2: fit the latency predictor and settle the target; without CONFIG, learn a device
    Fit(FitArguments),
    /// Predict the latency of a network: a genotype, or any ONNX file
    Predict(PredictArguments),
    /// Stage 3: train the supernet under the target
    Search(StageArguments),
    /// Stage 4: derive the network that meets the target, and draw the baselines
    Derive(StageArguments),
    /// Stage 5: train the candidates from scratch
    Retrain(StageArguments),
    /// Stage 6: write them as ONNX, TorchScript, safetensors and genotype JSON
    Export(StageArguments),
    /// Stage 7: run the exported files on the device, compare outputs, measure
    Verify(StageArguments),
    /// Stage 8: write report.html; works at any time, on unfinished runs too
    Report(ReportArguments),
    /// Print the networks of a run, finished or not, or what a study came to
    Show(ShowArguments),
    /// Look at search spaces: size, workloads, samples, counts, ONNX files
    Space(SpaceArguments),
    /// Published mobile networks, made of blocks: list, show, time, export; files of your own, too
    Zoo(ZooArguments),
    /// Look at the device
    Device(DeviceArguments),
    /// Look into the latency database
    Db(DbArguments),
    /// Read, convert, import and export tables of latencies that people already have
    Table(TableArguments),
    /// Make figures that can be compared: predictors on tables of latencies
    Bench(BenchArguments),
}

impl Command {
    /// Whether libtorch works in this command.
    pub const fn trains(&self) -> bool {
        matches!(
            self,
            Self::Run(_)
                | Self::Front(_)
                | Self::Search(_)
                | Self::Retrain(_)
                | Self::Export(_)
                | Self::Verify(_)
        )
    }
}

/// Where a run is described.
#[derive(Debug, Args)]
pub struct StageArguments {
    /// Configuration file, or the directory of a run
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
    /// Directory of the run, in place of the configuration's
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Latency database, in place of the configuration's
    #[arg(long, value_name = "DIR")]
    pub database: Option<PathBuf>,
}

/// `lathe run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Where
    #[command(flatten)]
    pub stage: StageArguments,
    /// Go on with a run that was stopped; it ends as if it had not been
    #[arg(long)]
    pub resume: bool,
    /// Repeat search and training with so many seeds, from the configuration's on: mean, spread, and
    /// the best one by held-out images
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub seeds: Option<u16>,
}

/// `lathe report`.
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Directory of the run, or its configuration file
    pub run: PathBuf,
}

/// `lathe show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// Directory of the run, or its configuration file
    pub run: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ShowFormat,
}

/// How a run is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ShowFormat {
    /// A table for people
    #[default]
    Text,
    /// A table for a document, with device and genotypes
    Markdown,
    /// JSON for programs
    Json,
}

/// Numeric type of weights and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PrecisionChoice {
    /// 32-bit floating point
    #[default]
    Fp32,
    /// 8-bit integers
    Int8,
}

impl From<PrecisionChoice> for Precision {
    fn from(choice: PrecisionChoice) -> Self {
        match choice {
            PrecisionChoice::Fp32 => Self::Fp32,
            PrecisionChoice::Int8 => Self::Int8,
        }
    }
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people
    #[default]
    Text,
    /// JSON for programs
    Json,
}
