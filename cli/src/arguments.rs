//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::devices::{SshAddress, check_name};

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
    /// Stage 1: time the space's operators and some networks on the device
    Measure(MeasureArguments),
    /// Stage 2: fit the latency predictor and settle the target
    Fit(StageArguments),
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
    /// Print the networks of a run, finished or not: accuracy, latency, size
    Show(ShowArguments),
    /// Look at search spaces: size, workloads, samples, counts, ONNX files
    Space(SpaceArguments),
    /// Look at the device
    Device(DeviceArguments),
    /// Look into the latency database
    Db(DbArguments),
    /// Make figures that can be compared: predictors on tables of latencies
    Bench(BenchArguments),
}

impl Command {
    /// Whether libtorch works in this command.
    pub const fn trains(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Search(_) | Self::Retrain(_) | Self::Export(_) | Self::Verify(_))
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
}

/// `lathe measure`.
#[derive(Debug, Args)]
pub struct MeasureArguments {
    /// Where
    #[command(flatten)]
    pub stage: StageArguments,
    /// Time only what the database doesn't know of this device (in place of `measure.reuse`)
    #[arg(long)]
    pub only_missing: bool,
    /// Say what would be timed, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// How to print the plan of a dry run
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `lathe report`.
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Directory of the run, or its configuration file
    pub run: PathBuf,
}

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
    /// Which
    #[arg(value_enum, value_name = "SPACE")]
    pub kind: SpaceKind,
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

/// How lists are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people
    #[default]
    Text,
    /// JSON for programs
    Json,
}

/// `lathe device`.
#[derive(Debug, Args)]
pub struct DeviceArguments {
    /// What to do
    #[command(subcommand)]
    pub command: DeviceCommand,
}

/// Which device, and how it is used.
#[derive(Debug, Args)]
pub struct DeviceChoice {
    /// Name of the device: `local` is this machine, others are added by `lathe device add`
    #[arg(default_value = "local")]
    pub name: String,
    /// Threads of the engine
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Cores to pin to, as in 0,1; chosen by the runner if absent
    #[arg(long, value_delimiter = ',')]
    pub cpus: Option<Vec<usize>>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// How a new device is reached and used. docs/DEVICES.md tells how to set one up.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("way").required(true))]
pub struct DeviceEntry {
    /// Name: letters, digits, - and _
    #[arg(value_parser = device_name)]
    pub name: String,
    /// Reach it by SSH
    #[arg(long, group = "way", value_name = "USER@HOST[:PORT]", requires = "identity")]
    pub ssh: Option<SshAddress>,
    /// Reach it by adb; the serial can be left out if one device is attached
    #[arg(long, group = "way", value_name = "SERIAL", num_args = 0..=1, default_missing_value = "")]
    pub adb: Option<String>,
    /// It is this machine, with a launch prefix or an agent of its own
    #[arg(long, group = "way")]
    pub local: bool,
    /// Private key for SSH, or `agent` for the keys of the ssh-agent
    #[arg(long, value_name = "KEY", requires = "ssh")]
    pub identity: Option<PathBuf>,
    /// File with the host's key; `~/.ssh/known_hosts` if absent
    #[arg(long, value_name = "FILE", requires = "ssh")]
    pub known_hosts: Option<PathBuf>,
    /// Words before the agent's own, as in "taskset -c 3"
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub launch: Option<String>,
    /// Its latencies are an emulator's, never to be called measured (a prefix with qemu says so itself)
    #[arg(long)]
    pub emulated: bool,
    /// Folder on the device, absolute; if absent `.cache/lathe` in the home, on Android
    /// `/data/local/tmp/lathe`
    #[arg(long, value_name = "DIR")]
    pub directory: Option<String>,
    /// Agent built for the device; that of this machine if absent
    #[arg(long, value_name = "FILE")]
    pub agent: Option<PathBuf>,
    /// ONNX Runtime's library for the device; that of this machine if absent
    #[arg(long, value_name = "FILE")]
    pub library: Option<PathBuf>,
    /// Replace the device that has this name
    #[arg(long)]
    pub replace: bool,
}

fn device_name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

/// What to do with a device.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Give a device a name, so that `[device]` of a configuration can use it
    Add(Box<DeviceEntry>),
    /// List the devices that have a name
    List {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Forget a device; its measurements stay in the database
    Remove {
        /// Name of the device
        name: String,
    },
    /// Show what the device is and its fingerprint
    Probe {
        /// Device
        #[command(flatten)]
        device: DeviceChoice,
    },
    /// Find the smallest difference that the device can tell apart (A/A test)
    Noise {
        /// Device
        #[command(flatten)]
        device: DeviceChoice,
        /// Pairs of measurements of the same network
        #[arg(long, default_value_t = 20)]
        pairs: usize,
        /// Least seconds per measurement
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
}

/// `lathe db`.
#[derive(Debug, Args)]
pub struct DbArguments {
    /// The database
    #[arg(long, value_name = "DIR", default_value = ".lathe/latency-db", global = true)]
    pub database: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub command: DbCommand,
}

/// Which rows.
#[derive(Debug, Default, Args)]
pub struct RowChoice {
    /// Only this device (fingerprint or alias)
    #[arg(long)]
    pub device: Option<String>,
    /// Only this campaign
    #[arg(long)]
    pub campaign: Option<String>,
    /// Only this level
    #[arg(long, value_enum)]
    pub level: Option<LevelChoice>,
}

/// Level of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LevelChoice {
    /// Choices of a space
    Operator,
    /// Parts that every network of a space has
    Fixed,
    /// Whole networks
    Network,
}

/// What to do with the database.
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// One line per measurement
    List {
        /// Rows
        #[command(flatten)]
        rows: RowChoice,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Devices and how many rows each has
    Devices {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Everything about one measurement
    Show {
        /// Identifier of the measurement or of the workload, or the beginning of one
        id: String,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Write rows to a file: .csv, .json, .jsonl or .parquet
    Export {
        /// File; an existing one is never overwritten
        file: PathBuf,
        /// Rows
        #[command(flatten)]
        rows: RowChoice,
    },
}

/// `lathe bench`.
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// What to do
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What to benchmark.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Latency predictors with few measurements of a device, on a table of architectures × devices
    #[command(
        after_help = "The table is a Parquet or CSV file with one row per architecture and one column of \
                            milliseconds per device; `arch` (or `arch_index`) names cells of NAS-Bench-201, `op_idx` \
                            (or `ops`) the operations of FBNet networks. Numbers that are missing, zero or negative \
                            are left out.\n\n\
                            Methods: lathe (transfer from the sources, random samples), lathe_designed (the same on \
                            samples chosen to tell most), ridge_onehot (no sources), scale_and_shift (from the best \
                            proxy; refuses when none orders architectures as the target does), flops (nb201)."
    )]
    Predictor(BenchPredictorArguments),
}

/// `lathe bench predictor`.
#[derive(Debug, Args)]
pub struct BenchPredictorArguments {
    /// Table of latencies, .parquet or .csv
    #[arg(long, value_name = "FILE")]
    pub table: PathBuf,
    /// Space of its architectures
    #[arg(long, value_enum)]
    pub space: TableSpace,
    /// Devices to transfer from, as in a,b; all columns but those of the target's device (whatever the
    /// batch size behind its name) if absent
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    pub sources: Option<Vec<String>>,
    /// Devices to predict, as in a,b; every column in turn if absent
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    pub targets: Option<Vec<String>>,
    /// Which rows are for fitting and which for testing
    #[arg(long, value_enum, default_value_t)]
    pub protocol: TableProtocolChoice,
    /// Numbers of measurements of the target
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", default_values_t = [10, 20, 50])]
    pub samples: Vec<usize>,
    /// Draws of samples per target
    #[arg(long, default_value_t = 20)]
    pub seeds: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Spaces that published tables are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableSpace {
    /// NAS-Bench-201
    Nb201,
    /// FBNet's 22 positions
    Fbnet,
}

/// Which rows of a table are for fitting and which for testing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TableProtocolChoice {
    /// Samples from rows 0-899, test on rows 900-1899, both without the slowest and the fastest tenth
    Help,
    /// Samples from all rows, test on the others; 800 random rows of every source
    #[default]
    All,
}
