//! `lathe device`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use lathe_latency_db::Tier;
use lathe_runners::{Accelerator, EngineName, ExecutedPrecision};

use super::{Format, SkeletonChoice, SpaceKind};
use crate::devices::{Kilobytes, SshAddress, check_name};

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
    /// Engine that executes on it: onnxruntime, openvino, litert, or tract, which is in the static agent
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
