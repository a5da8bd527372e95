//! One measured workload.

use std::{collections::BTreeMap, fmt};

use lathe_spaces::{Level, Micros, Precision, WorkloadId};
use serde::{Deserialize, Serialize};

use crate::{Device, Execution, Summary, summary::median_of};

/// Where a latency comes from. Kinds never mix in a fit unless the user says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// Timed on the silicon that it speaks of.
    Measured,
    /// Taken from a published table, not measured by Lathe.
    Published,
    /// Timed under an emulator: functional only.
    Emulated,
    /// Estimated by a vendor's compiler.
    CompilerEstimate,
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Measured => "measured",
            Self::Published => "published",
            Self::Emulated => "emulated",
            Self::CompilerEstimate => "compiler estimate",
        })
    }
}

/// How a workload ended. A failure is a result: it is stored and shown, and never fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Timed, with the expected output.
    Ok,
    /// The device had not enough memory.
    OutOfMemory,
    /// The deadline passed.
    Timeout,
    /// The engine does not know an operator, or refused the model.
    Unsupported,
    /// The process died or the connection broke.
    Crash,
    /// It ran, but its output is not the reference's.
    WrongOutput,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::OutOfMemory => "out of memory",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
            Self::Crash => "crash",
            Self::WrongOutput => "wrong output",
        })
    }
}

/// A reason to doubt a measurement that is otherwise kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QualityFlag {
    /// More than one sample in twenty is an outlier as [`Summary::outliers`] defines it.
    ManyOutliers,
    /// The medians of the processes differ by more than 5 %.
    ProcessesDisagree,
    /// The warm-up ended at its limit without settling.
    NotWarm,
    /// The frequency fell below 95 % of what it was at the start.
    Throttled,
    /// Other work ran on the machine: load more than 0.5 above the pinned cores, or a hypervisor took
    /// more than 1 % of the time.
    BusyMachine,
    /// The interleaved reference workload drifted by more than 3 %.
    ReferenceDrift,
    /// The engine could not be pinned to the wanted cores.
    NotPinned,
    /// The device had not cooled down to within 2 °C of its temperature at the start when the time limit
    /// for waiting was over.
    NotCool,
    /// The frequency governor changed while it was measured.
    GovernorChanged,
    /// Nodes ran on another provider than the asked one ([`Execution::elsewhere`]).
    Fallback,
}

/// State of the machine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineState {
    /// Wall-clock time, RFC 3339.
    pub at: String,
    /// Current frequency of the pinned cores in kilohertz, where the system tells.
    pub current_khz: Vec<u64>,
    /// Thermal zones in thousandths of a degree Celsius.
    pub temperature_millicelsius: BTreeMap<String, i64>,
    /// Load average over one minute.
    pub load_average: Option<f64>,
    /// Ticks that a hypervisor took from this machine since its start.
    pub steal_ticks: Option<u64>,
    /// Battery charge in percent, where there is a battery.
    pub battery_percent: Option<f64>,
    /// Whether that battery is being charged, or full on a charger.
    #[serde(default)]
    pub charging: Option<bool>,
    /// Frequency governor of each pinned core, where the system has one.
    #[serde(default)]
    pub governors: Vec<String>,
    /// State of each cooling device (fans, and the limits that the system puts on processors); zero is
    /// off.
    #[serde(default)]
    pub cooling: BTreeMap<String, i64>,
}

/// The rules a measurement was made by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// Least number of samples over all processes.
    pub min_runs: usize,
    /// Least measured time in seconds over all processes.
    pub min_seconds: f64,
    /// Process launches per workload.
    pub processes: usize,
    /// Least warm-up runs.
    pub warmup_runs: usize,
    /// Least warm-up time in seconds.
    pub warmup_seconds: f64,
    /// Longest time one workload may take in one process, in seconds.
    pub timeout_seconds: f64,
    /// How often a batch is timed again, later, because the reference workload drifted by more than 3 %.
    #[serde(default)]
    pub retries: usize,
    /// Longest wait before a batch for the device to cool down to its temperature at the start, in
    /// seconds.
    #[serde(default)]
    pub cool_down_seconds: f64,
}

impl Protocol {
    /// Screening: at least 50 runs and one second, three processes.
    pub const SCREENING: Self = Self {
        min_runs: 50,
        min_seconds: 1.0,
        processes: 3,
        warmup_runs: 10,
        warmup_seconds: 0.5,
        timeout_seconds: 120.0,
        retries: 2,
        cool_down_seconds: 120.0,
    };
    /// Reference: at least 1,024 runs and sixty seconds (`MLPerf` Mobile's rule), three processes.
    pub const REFERENCE: Self = Self {
        min_runs: 1024,
        min_seconds: 60.0,
        timeout_seconds: 600.0,
        cool_down_seconds: 600.0,
        ..Self::SCREENING
    };
}

/// An attempt that doesn't count: the reference workload, timed before, between and after, drifted by
/// more than 3 %, and another attempt drifted less.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// Drift of the reference workload, relative and signed.
    pub drift: f64,
    /// Wall-clock time before its first process, RFC 3339.
    pub at: String,
    /// Every sample in nanoseconds, in order, over all processes.
    pub samples_ns: Vec<u64>,
    /// How many of the samples each process made, in order.
    pub samples_per_process: Vec<usize>,
}

/// What a published table says of a latency besides its mean, which is the record's only sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Name of the table.
    pub source: String,
    /// Standard deviation, where the table has one.
    pub standard_deviation: Option<Micros>,
    /// Number of runs behind the mean, where the table has one.
    pub count: Option<u64>,
}

/// One workload timed on one device, with all its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Unique name of this record: a retry of the same job writes the same name.
    pub id: String,
    /// What was timed.
    pub workload: WorkloadId,
    /// Human-readable name of the workload.
    pub label: String,
    /// What part of a network it is.
    pub level: Level,
    /// Numeric type.
    pub precision: Precision,
    /// Multiply-accumulates of the workload.
    pub macs: u64,
    /// Device.
    pub device: Device,
    /// Where the number comes from.
    pub provenance: Provenance,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong, if anything did.
    pub error: Option<String>,
    /// Every sample in nanoseconds, in order, over all processes.
    pub samples_ns: Vec<u64>,
    /// How many of the samples each process made, in order.
    pub samples_per_process: Vec<usize>,
    /// Runs per sample (operators below 50 µs are timed in batches; a sample is the time per run).
    pub batch: usize,
    /// Warm-up runs over all processes.
    pub warmup_runs: usize,
    /// Time to load the model, median over processes, in nanoseconds.
    pub load_ns: u64,
    /// Time of the very first run, median over processes, in nanoseconds.
    pub first_run_ns: u64,
    /// Peak resident memory of the agent in kilobytes, maximum over processes.
    pub peak_rss_kb: u64,
    /// Largest deviation of the output's sums from the reference, relative.
    pub output_error: Option<f64>,
    /// Rules.
    pub protocol: Protocol,
    /// State of the machine before the first process.
    pub before: MachineState,
    /// State of the machine after the last process.
    pub after: MachineState,
    /// Reasons for doubt.
    pub flags: Vec<QualityFlag>,
    /// Version of the agent.
    pub agent: String,
    /// Campaign that asked for it (one `lathe measure`, or one run).
    pub campaign: String,
    /// Earlier and later attempts at the same workload that were rejected, with all their samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
    /// What else its source says of it, if it was not measured but taken from a published table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
    /// How the engine executed it, where that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
}

impl Measurement {
    /// Whether it can stand for the workload's latency: it ended well and has samples.
    pub fn usable(&self) -> bool {
        self.outcome == Outcome::Ok && !self.samples_ns.is_empty()
    }

    /// Summary of its samples; `None` when it is not usable.
    pub fn summary(&self) -> Option<Summary> {
        if self.usable() { Summary::of(&self.samples_ns, &self.samples_per_process) } else { None }
    }

    /// Median of its samples, without the cost of an interval; `None` when it is not usable.
    pub fn median(&self) -> Option<Micros> {
        if self.usable() { median_of(&self.samples_ns) } else { None }
    }
}
