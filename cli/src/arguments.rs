//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lathe_latency_db::{
    Tier,
    predictor::selection_benchmark::{DEFAULT_SAFETY, Limit},
};
use lathe_runners::{Accelerator, EngineName, ExecutedPrecision};
use lathe_spaces::Precision;

use crate::devices::{Kilobytes, SshAddress, check_name};

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
    /// Print the networks of a run, finished or not: accuracy, latency, size
    Show(ShowArguments),
    /// Look at search spaces: size, workloads, samples, counts, ONNX files
    Space(SpaceArguments),
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
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
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
    /// It is this Ethos-U, estimated by Arm's compiler vela: u55-128, u65-512, u85-1024, …
    #[arg(long, group = "way", value_name = "ACCELERATOR")]
    pub ethos_u: Option<Accelerator>,
    /// What its compiler is told
    #[command(flatten)]
    pub compiler: CompilerEntry,
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
    /// Engine that executes on it: onnxruntime or openvino
    #[arg(long, default_value_t)]
    pub engine: EngineName,
    /// The engine's library for the device, or the folder that holds it and what it needs; that of this
    /// machine if absent
    #[arg(long, value_name = "PATH")]
    pub library: Option<PathBuf>,
    /// Cluster of cores to choose from: `little`, `middle` or `big`; `lathe device probe` shows what there is
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Kind of device, for comparisons
    #[arg(long, value_enum)]
    pub tier: Option<TierChoice>,
    /// Most memory that the agent may hold for data, as in 200M: larger networks end as out of memory
    #[arg(long, value_name = "AMOUNT")]
    pub memory: Option<Kilobytes>,
    /// Execution provider: cpu, xnnpack, nnapi, coreml, qnn, openvino; of openvino cpu, gpu, npu
    #[arg(long, default_value = "cpu", value_name = "WORD")]
    pub provider: String,
    /// Library that brings onnxruntime the provider, if it isn't built in; on this machine only
    #[arg(long, value_name = "FILE", requires = "local", conflicts_with = "launch")]
    pub provider_library: Option<PathBuf>,
    /// Measure networks too that the provider executes in part only; their rows are flagged
    #[arg(long)]
    pub allow_fallback: bool,
    /// Numeric type that the engine is asked to compute in: f32, bf16 or f16
    #[arg(long, default_value_t, value_name = "TYPE")]
    pub precision: ExecutedPrecision,
    /// What is driven where no agent can run
    #[command(flatten)]
    pub agentless: AgentlessEntry,
    /// Replace the device that has this name
    #[arg(long)]
    pub replace: bool,
}

/// A stock benchmark program in place of an agent.
#[derive(Debug, Args)]
pub struct AgentlessEntry {
    /// Drive this stock benchmark program in place of an agent
    #[arg(long, value_enum, value_name = "PROGRAM", id = "agentless_program", conflicts_with = "ethos_u")]
    pub agentless: Option<AgentlessProgram>,
    /// The program, on this machine, built for the device
    #[arg(long, value_name = "FILE", requires = "agentless_program")]
    pub program: Option<PathBuf>,
    /// The program where it is on the device already
    #[arg(long, value_name = "PATH", requires = "agentless_program", conflicts_with = "program")]
    pub program_on_device: Option<String>,
}

/// Stock benchmark programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AgentlessProgram {
    /// TensorFlow Lite's
    #[value(name = "benchmark_model")]
    BenchmarkModel,
    /// ONNX Runtime's
    #[value(name = "onnxruntime_perf_test")]
    OnnxruntimePerfTest,
}

/// Kinds of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TierChoice {
    /// A phone or tablet
    Phone,
    /// The processor of a small board
    EdgeCpu,
    /// An accelerator on a small board: GPU or NPU
    EdgeAccelerator,
    /// A desktop computer or a server
    Server,
}

impl From<TierChoice> for Tier {
    fn from(choice: TierChoice) -> Self {
        match choice {
            TierChoice::Phone => Self::Phone,
            TierChoice::EdgeCpu => Self::EdgeCpu,
            TierChoice::EdgeAccelerator => Self::EdgeAccelerator,
            TierChoice::Server => Self::Server,
        }
    }
}

/// What the compiler of an Ethos-U is told.
#[derive(Debug, Args)]
pub struct CompilerEntry {
    /// The compiler; `$LATHE_VELA` or `vela` on the search path if absent
    #[arg(long, value_name = "FILE", requires = "ethos_u")]
    pub vela: Option<PathBuf>,
    /// The compiler's configuration file of clocks and memories; its own if absent
    #[arg(long, value_name = "FILE", requires = "ethos_u")]
    pub vela_config: Option<PathBuf>,
    /// Section of that file for the system; the compiler's default if absent
    #[arg(long, value_name = "NAME", requires = "ethos_u")]
    pub system_config: Option<String>,
    /// Section of that file for the use of memory; the compiler's default if absent
    #[arg(long, value_name = "NAME", requires = "ethos_u")]
    pub memory_mode: Option<String>,
    /// Accept networks of which some operators stay on the CPU, whose time is then left out
    #[arg(long, requires = "ethos_u")]
    pub allow_cpu: bool,
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
    /// Say which nodes of a network the device's execution provider takes; nothing is timed
    Check {
        /// Name of the device
        name: String,
        /// ONNX file with one input
        model: PathBuf,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show what a compiler says of a network, layer by layer: cycles, time, share, use of the multipliers
    Layers {
        /// Name of the device
        name: String,
        /// ONNX file, or (with --space) a genotype in its paper's text form or by its published name
        #[arg(value_name = "GENOTYPE|MODEL.onnx")]
        network: String,
        /// Space of the genotype
        #[arg(long, value_enum)]
        space: Option<SpaceKind>,
        /// Skeleton of the space
        #[command(flatten)]
        skeleton: SkeletonChoice,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
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
    /// Workloads on several devices side by side: how each ended, load time, first run, median, memory
    Compare {
        /// Device (fingerprint or alias); can be given several times; all of them if absent
        #[arg(long, value_name = "DEVICE")]
        device: Vec<String>,
        /// Only this level
        #[arg(long, value_enum, default_value = "network")]
        level: LevelChoice,
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

/// `lathe table`.
#[derive(Debug, Args)]
#[command(
    after_help = "Layouts of tables of architectures x devices: wide (a row per architecture, a column per device), \
                        long (a row per architecture and device: arch, arch_index or op_idx; device; batch if it \
                        matters; latency_ms), both .csv or .parquet; hw-nas-bench (its .pickle); help (its folder \
                        data/nasbench201 or data/fbnet). Operator look-up tables are YAML as once-for-all and \
                        ProxylessNAS read it. The layout is detected; nothing in a pickle is ever executed."
)]
pub struct TableArguments {
    /// What to do
    #[command(subcommand)]
    pub command: TableCommand,
}

/// What to do with a table.
#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// What a file holds: layout, space, rows, devices, gaps, range, and what cannot be used
    Show {
        /// Table, or HELP's data folder
        file: PathBuf,
        /// How to read it
        #[command(flatten)]
        reading: TableReading,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Write a table of architectures x devices as wide .csv or .parquet
    Convert {
        /// Table, or HELP's data folder
        input: PathBuf,
        /// File; an existing one is never overwritten
        output: PathBuf,
        /// How to read it
        #[command(flatten)]
        reading: TableReading,
    },
    /// Put the operators of a look-up table (YAML of once-for-all or proxylessnas) into the database
    Import {
        /// Look-up table
        file: PathBuf,
        /// Name of the device that it is of
        #[arg(long, value_name = "NAME")]
        device: String,
        /// Database
        #[arg(long, default_value = ".lathe/latency-db", value_name = "DIR")]
        database: PathBuf,
    },
    /// Write measurements as a table: networks as csv, operators as ofa or proxylessnas
    Export {
        /// File; an existing one is never overwritten
        file: PathBuf,
        /// What to write
        #[arg(long, value_enum)]
        layout: ExportLayout,
        /// Device (fingerprint or alias); several for csv
        #[arg(long, required = true, value_name = "DEVICE")]
        device: Vec<String>,
        /// Database
        #[arg(long, default_value = ".lathe/latency-db", value_name = "DIR")]
        database: PathBuf,
        /// Only this campaign
        #[arg(long)]
        campaign: Option<String>,
        /// Space whose networks or operators were measured; needed for all but imported operators
        #[arg(long, value_enum)]
        space: Option<SpaceKind>,
        /// Skeleton of the space
        #[command(flatten)]
        skeleton: SkeletonChoice,
        /// Seed of the run whose random networks were measured (csv)
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// File with one genotype a line, for networks that no run drew (csv)
        #[arg(long, value_name = "FILE")]
        genotypes: Option<PathBuf>,
    },
}

/// What a table does not say of itself.
#[derive(Debug, Args)]
pub struct TableReading {
    /// Layout, in place of what the content says
    #[arg(long, value_enum)]
    pub layout: Option<TableLayoutChoice>,
    /// Space of its architectures, in place of what its columns say
    #[arg(long, value_enum)]
    pub space: Option<TableSpace>,
    /// Data set, for HW-NAS-Bench's pickle (cifar10 if absent)
    #[arg(long)]
    pub dataset: Option<String>,
}

/// How a table is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableLayoutChoice {
    /// A row per architecture, a column per device
    Wide,
    /// A row per architecture and device
    Long,
    /// The pickle of HW-NAS-Bench
    HwNasBench,
    /// A data folder of HELP
    Help,
    /// An operator look-up table of once-for-all or proxylessnas
    Lookup,
}

/// What an export writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportLayout {
    /// Networks x devices, in milliseconds (the median)
    Csv,
    /// Operators, under the names of once-for-all
    Ofa,
    /// Operators, under the names of proxylessnas
    Proxylessnas,
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
    /// How far latencies can be trusted: agent against ONNX Runtime's Python, and repeated campaigns
    #[command(
        after_help = "Agent and Python time the same file in turns, on the same core, with the same settings of the \
                            engine. The spread of a network's medians is (greatest - least) / median over the campaigns."
    )]
    Measurement(BenchMeasurementArguments),
    /// Latency predictors with few measurements of a device, on a table of architectures × devices
    #[command(
        after_help = "The table is a Parquet or CSV file with one row per architecture and one column of \
                            milliseconds per device; `arch` (or `arch_index`) names cells of NAS-Bench-201, `op_idx` \
                            (or `ops`) the operations of FBNet networks. Numbers that are missing, zero or negative \
                            are left out.\n\n\
                            Methods:\n  \
                            lathe            transfer from the sources, on random samples of the target\n  \
                            lathe_designed   the same, on the samples that tell most\n  \
                            ridge_onehot     one latency per position and operation, no sources\n  \
                            scale_and_shift  a line through the best single source; refuses when none orders\n                   \
                            architectures as the target does\n  \
                            flops            a line through the multiply-accumulates (nb201)\n  \
                            gbdt_900         gradient-boosted trees on up to 900 rows of the target, no sources\n\n\
                            Figures are means over seeds. The noise floor is what no predictor can be better than; \
                            a table with one measurement per architecture only shows it where the clock is coarse."
    )]
    Predictor(BenchPredictorArguments),
    /// The kernel model on this machine: random networks timed end to end, a few predict the others
    #[command(
        after_help = "What the database has is not timed again: an interrupted benchmark goes on. Use a quiet machine; \
                      250 networks of each space take about 20 minutes."
    )]
    Networks(BenchNetworksArguments),
    /// Operators and networks of a space on several Ethos-U, as their compiler estimates them
    Npu(BenchNpuArguments),
    /// The most accurate architecture under a latency limit, chosen with few measurements of a device
    #[command(
        after_help = "Both tables are Parquet or CSV files as `lathe bench predictor` reads them; rows are joined by \
                            architecture. Every method has the same number of measurements, and chooses what it believes \
                            to meet the limit with the probability --safety.\n\n\
                            Methods:\n  \
                            lathe            transfer from the sources, on random samples of the target\n  \
                            lathe_designed   the same, on the samples that tell most\n  \
                            lathe_verified   the same on random samples, where up to four of the measurements are spent\n                   \
                            on what is about to be chosen\n  \
                            scale_and_shift  a line through the best single source\n  \
                            macs             a line through the multiply-accumulates (nb201)\n\n\
                            Accuracy is relative to the choice of someone who knows all latencies; choices that break \
                            the limit count as no better than that one."
    )]
    Selection(BenchSelectionArguments),
    /// Searches with few measurements and few evaluated architectures, judged by the exact optimum
    #[command(
        after_help = "Both tables are Parquet or CSV files as `lathe bench predictor` reads them, of NAS-Bench-201; rows are \
                            joined by architecture. --column is the accuracy that searches look up, one architecture at a \
                            time, and the one that is reported; a column of test accuracies is refused.\n\n\
                            Algorithms:\n  \
                            random     architectures drawn among those that seem to meet the limit\n  \
                            aging      regularised evolution\n  \
                            nsga2      NSGA-II\n  \
                            guided     a surrogate of the accuracy and the latency predictor choose what is next\n\n\
                            Latencies:\n  \
                            predictor  --samples measurements of the device, and tables of other devices\n  \
                            macs       a line through the multiply-accumulates, through as many measurements\n  \
                            oracle     every latency of the device, for comparison\n\n\
                            Half of the measurements are made before a search (five at least), the others are spent on \
                            what it finds. Regret is in units of the accuracy; a choice that breaks the limit counts as no \
                            better than the optimum. Hypervolumes are relative to that of the exact front, from the limit (or the \
                            slowest architecture) and the accuracy of the median architecture on."
    )]
    Search(BenchSearchArguments),
}

/// `lathe bench search`.
#[derive(Debug, Args)]
pub struct BenchSearchArguments {
    /// Table of latencies, .parquet or .csv
    #[arg(long, value_name = "FILE")]
    pub latency: PathBuf,
    /// Table of accuracies of the same architectures, .parquet or .csv
    #[arg(long, value_name = "FILE")]
    pub accuracy: PathBuf,
    /// Column of accuracies
    #[arg(long, value_name = "NAME", default_value = "cifar100_val_200ep")]
    pub column: String,
    /// Devices to transfer from, as in a,b; all columns but those of the target's device if absent
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    pub sources: Option<Vec<String>>,
    /// Devices to search for, as in a,b; every column in turn if absent
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    pub targets: Option<Vec<String>>,
    /// Limits of every target; if absent, those that 10, 30, 50, 70 and 90 % of its architectures meet
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS")]
    pub limits_ms: Option<Vec<f64>>,
    /// Measurements of the target
    #[arg(long, default_value_t = 10)]
    pub samples: usize,
    /// Numbers of architectures whose accuracy is looked up
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", default_values_t = [50, 200, 1000])]
    pub budgets: Vec<usize>,
    /// Searches of each kind
    #[arg(long, default_value_t = 100)]
    pub seeds: u64,
    /// Algorithms, as in guided,random
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES", default_values = ["random", "aging", "nsga2", "guided"])]
    pub algorithms: Vec<AlgorithmChoice>,
    /// Where latencies come from, as in predictor,macs
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES", default_values = ["predictor", "macs", "oracle"])]
    pub knowledge: Vec<KnowledgeChoice>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ShowFormat,
}

/// Who chooses what is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AlgorithmChoice {
    /// Chance
    Random,
    /// Regularised evolution
    Aging,
    /// NSGA-II
    Nsga2,
    /// Predictors of accuracy and latency
    Guided,
}

/// Where latencies come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KnowledgeChoice {
    /// A few measurements and tables of other devices
    Predictor,
    /// A line through the multiply-accumulates
    Macs,
    /// Every latency of the device
    Oracle,
}

/// `lathe bench measurement`.
#[derive(Debug, Args)]
pub struct BenchMeasurementArguments {
    /// Python that has onnxruntime of the agent's version, and numpy; without it the comparison is left out
    #[arg(long, value_name = "PROGRAM")]
    pub python: Option<PathBuf>,
    /// Rounds of the comparison: in each the agent and Python time every network once
    #[arg(long, default_value_t = 11)]
    pub rounds: usize,
    /// Campaigns whose medians are compared; 0 leaves them out
    #[arg(long, default_value_t = 5)]
    pub campaigns: usize,
    /// The same campaigns again while a neighbour keeps another core busy
    #[arg(long)]
    pub neighbour: bool,
    /// Least measured seconds per network and campaign or process
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ShowFormat,
}

/// `lathe bench networks`.
#[derive(Debug, Args)]
pub struct BenchNetworksArguments {
    /// Spaces of the networks
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["darts", "fbnet"])]
    pub spaces: Vec<SpaceKind>,
    /// Networks per space
    #[arg(long, default_value_t = 250)]
    pub count: usize,
    /// Numbers of training networks; a random fifth of all is set aside for the test
    #[arg(long, value_delimiter = ',', default_values_t = [20, 50, 200])]
    pub samples: Vec<usize>,
    /// Random splits per number of training networks
    #[arg(long, default_value_t = 20)]
    pub repeats: usize,
    /// Least measured seconds per network, over two processes
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// Channels of the first DARTS cells
    #[arg(long, default_value_t = 8)]
    pub width: usize,
    /// Cells of the DARTS networks
    #[arg(long, default_value_t = 5)]
    pub layers: usize,
    /// Side of the FBNet networks' input
    #[arg(long, default_value_t = 64)]
    pub resolution: usize,
    /// Seed of the networks and of the splits
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Latency database
    #[arg(long, value_name = "DIR", default_value = ".lathe/latency-db")]
    pub database: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ShowFormat,
}

/// `lathe bench npu`.
#[derive(Debug, Args)]
pub struct BenchNpuArguments {
    /// Accelerators to compare
    #[arg(long, value_delimiter = ',', default_values = ["u55-128", "u65-512", "u85-1024"])]
    pub accelerators: Vec<Accelerator>,
    /// The compiler; `$LATHE_VELA` or `vela` on the search path if absent
    #[arg(long, value_name = "FILE")]
    pub vela: Option<PathBuf>,
    /// Space of operators and networks
    #[arg(long, value_enum, default_value = "darts")]
    pub space: SpaceKind,
    /// Skeleton of the space
    #[command(flatten)]
    pub skeleton: SkeletonChoice,
    /// Random networks, beside the published ones
    #[arg(long, default_value_t = 20)]
    pub count: u64,
    /// Seed of the random networks
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ShowFormat,
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

/// `lathe bench selection`.
#[derive(Debug, Args)]
pub struct BenchSelectionArguments {
    /// Table of latencies, .parquet or .csv
    #[arg(long, value_name = "FILE")]
    pub latency: PathBuf,
    /// Table of accuracies of the same architectures, .parquet or .csv
    #[arg(long, value_name = "FILE")]
    pub accuracy: PathBuf,
    /// Column of accuracies
    #[arg(long, value_name = "NAME", default_value = "cifar100_val_200ep")]
    pub column: String,
    /// Space of the architectures
    #[arg(long, value_enum, default_value = "nb201")]
    pub space: TableSpace,
    /// Devices to transfer from, as in a,b; all columns but those of the target's device if absent
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    pub sources: Option<Vec<String>>,
    /// Devices to choose for, as in a,b; every column in turn if absent
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    pub targets: Option<Vec<String>>,
    /// Limits, as milliseconds or as the share of the device's architectures that meet it (25%)
    #[arg(long, value_delimiter = ',', value_name = "LIMITS", default_values = ["25%", "50%", "75%"], value_parser = limit)]
    pub limits: Vec<Limit>,
    /// Measurements of the target
    #[arg(long, default_value_t = 10)]
    pub samples: usize,
    /// Draws of samples per target
    #[arg(long, default_value_t = 20)]
    pub seeds: u64,
    /// Probability with which a choice should meet its limit, from 0.5 to below 1
    #[arg(long, default_value_t = DEFAULT_SAFETY)]
    pub safety: f64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `7.5` is milliseconds, `25%` a share of the device's architectures.
fn limit(text: &str) -> Result<Limit, String> {
    let number = |text: &str| {
        let value = text.trim().parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0);
        value.ok_or_else(|| "expected milliseconds (7.5) or a share of the architectures (25%)".to_owned())
    };
    match text.strip_suffix('%') {
        Some(percent) => Ok(Limit::Quantile(number(percent)? / 100.0)),
        None => Ok(Limit::Milliseconds(number(text)?)),
    }
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
