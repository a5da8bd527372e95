//! What runner and agent say to each other: one JSON line in, one JSON line out.

use std::path::PathBuf;

use lathe_latency_db::{Engine, Execution, MachineState, Outcome, Protocol};
use lathe_spaces::Shape;
use serde::{Deserialize, Serialize};

use crate::{DeviceFacts, EngineChoice, OutputSums};

/// Version of the lines; runner and agent of different versions refuse each other.
pub const PROTOCOL_VERSION: u32 = 2;

/// What every request says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSettings {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub version: u32,
    /// Engine, and what is asked of it.
    pub engine: EngineChoice,
    /// The engine's library.
    pub library: PathBuf,
    /// A library that brings ONNX Runtime an execution provider, beside the ones that are built in.
    pub provider_library: Option<PathBuf>,
    /// Cores to be pinned to; none: not pinned.
    pub cpus: Vec<usize>,
    /// Threads that the engine may use.
    pub threads: usize,
    /// Where `proc` and `sys` are looked for (`/`).
    pub state_root: PathBuf,
    /// Most memory that the agent may hold for data, in kilobytes; as much as there is if absent.
    pub memory_kb: Option<u64>,
}

/// `lathe-agent probe`: what is this device? And `lathe-agent state`: how is it now?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRequest {
    /// Common part.
    pub settings: AgentSettings,
}

/// `lathe-agent measure`: time one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasureRequest {
    /// Common part.
    pub settings: AgentSettings,
    /// Name of the workload, for messages.
    pub label: String,
    /// ONNX file with one input.
    pub model: PathBuf,
    /// Shape of the input.
    pub shape: Shape,
    /// Seed of the input ([`lathe_spaces::seeded_input`]).
    pub input_seed: u64,
    /// What the first output must add up to.
    pub expected: OutputSums,
    /// Largest allowed deviation from it, relative.
    pub tolerance: f64,
    /// Rules; numbers over all processes are divided by the number of processes.
    pub protocol: Protocol,
    /// Whether it shall also be said how the engine executed it; that costs another load and run, after
    /// what is timed.
    pub inspect: bool,
}

/// `lathe-agent evaluate`: run a model on given inputs, one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateRequest {
    /// Common part.
    pub settings: AgentSettings,
    /// ONNX file with one input.
    pub model: PathBuf,
    /// Shape of one input.
    pub shape: Shape,
    /// File of little-endian 32-bit floats: whole inputs, one after the other.
    pub inputs: PathBuf,
    /// File that the first outputs are written to, in the same form.
    pub outputs: PathBuf,
}

/// `lathe-agent check`: which provider takes which node of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// Common part.
    pub settings: AgentSettings,
    /// ONNX file with one input.
    pub model: PathBuf,
}

/// Where one node of a model, as the file has it, is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Name of the node.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// The provider that takes it: the asked one, or the one it falls back to.
    pub provider: String,
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To `probe`.
    Probe(Box<ProbeAnswer>),
    /// To `state`.
    State(Box<MachineState>),
    /// To `measure`: it ran, perhaps with a wrong output.
    Measured(Box<MeasureAnswer>),
    /// To `evaluate`: the output file is written.
    Evaluated {
        /// Inputs that were run.
        inputs: usize,
    },
    /// To `check`.
    Checked {
        /// All nodes, in the order in which they are executed.
        placements: Vec<Placement>,
    },
    /// To any request that couldn't be fulfilled.
    Failed {
        /// Kind of failure.
        outcome: Outcome,
        /// What happened.
        message: String,
    },
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// [`PROTOCOL_VERSION`] of the agent.
    pub version: u32,
    /// Version of the agent program.
    pub agent: String,
    /// Facts about the machine.
    pub facts: DeviceFacts,
    /// Engine that was loaded.
    pub engine: Engine,
    /// Execution providers that the engine has.
    pub providers: Vec<String>,
    /// Cores that the agent runs on, as read back from the system.
    pub pinned_cpus: Vec<usize>,
    /// State of the machine.
    pub state: MachineState,
}

/// One process' timing of one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureAnswer {
    /// Version of the agent program.
    pub agent: String,
    /// [`Outcome::Ok`] or [`Outcome::WrongOutput`].
    pub outcome: Outcome,
    /// What is wrong, if anything is.
    pub message: Option<String>,
    /// Nanoseconds per run, in order.
    pub samples_ns: Vec<u64>,
    /// Runs per sample.
    pub batch: usize,
    /// Warm-up runs.
    pub warmup_runs: usize,
    /// Whether the warm-up settled before its limit.
    pub settled: bool,
    /// Time to create the session.
    pub load_ns: u64,
    /// Time of the first run.
    pub first_run_ns: u64,
    /// Peak resident memory of the process in kilobytes.
    pub peak_rss_kb: u64,
    /// What the output added up to; absent if that isn't finite.
    pub output: Option<OutputSums>,
    /// Largest relative deviation from the expected sums; absent if the output isn't finite.
    pub output_error: Option<f64>,
    /// How the engine executed it, if that was asked for.
    pub execution: Option<Execution>,
    /// Cores that the process ran on, as read back from the system.
    pub pinned_cpus: Vec<usize>,
    /// State of the machine before.
    pub before: MachineState,
    /// State of the machine after.
    pub after: MachineState,
}
