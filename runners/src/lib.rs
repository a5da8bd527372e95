//! Who times it: the device agent and what drives it.
//!
//! The agent (`lathe-agent`, feature `agent`) is a small program that runs on the device, one process
//! per workload and launch. It loads an engine's library, pins itself, warms up, times, checks the output and
//! answers with one JSON line. A [`Runner`] prepares the jobs, launches the agent and turns answers
//! and accidents into [`Measurement`](lathe_latency_db::Measurement)s: a workload that failed is a
//! result, only a device that can no longer be used is an error.
//!
//! The library that is linked here never loads an engine: only the agent does.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use lathe_latency_db::Protocol;
//! use lathe_runners::{Job, LocalRunner, LocalSettings, Runner};
//! use lathe_spaces::{GraphBuilder, Level, OpSpec, Shape, Workload};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut builder = GraphBuilder::new();
//! let input = builder.input("input", Shape::new(1, 16, 32, 32))?;
//! let output = builder.add("relu", OpSpec::Relu, &[input])?;
//! let workload = Workload::new("relu 16x32x32", Level::Operator, builder.finish(&[output])?);
//!
//! let mut runner = LocalRunner::start(LocalSettings::new("local"))?;
//! let job = Job::new("example", Protocol::SCREENING, 1);
//! runner.run(&[workload], &job, &mut |measurement| {
//!     eprintln!("{}: {:?}", measurement.label, measurement.summary().map(|summary| summary.median));
//!     ControlFlow::Continue(())
//! })?;
//! # Ok(())
//! # }
//! ```

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the device agent needs a 64-bit target: its samples are nanoseconds in 64 bits");

#[cfg(any(feature = "agent", feature = "static-agent"))]
mod agent;
mod agent_runner;
mod child;
#[cfg(any(feature = "agent", feature = "static-agent"))]
mod clock;
mod clusters;
mod cool_down;
#[cfg(any(feature = "agent", feature = "static-agent"))]
mod engine;
mod engine_choice;
mod engine_library;
mod error;
mod ethos_u;
mod find;
mod fusion;
mod hexadecimal;
mod local;
mod machine;
mod noise;
mod numbers;
mod output_sums;
mod protocol;
mod record;
mod reference;
mod remote;
mod runner;
mod schedule;
mod timing;
mod transport;

#[cfg(any(feature = "agent", feature = "static-agent"))]
pub use agent::agent_main;
pub use clusters::CoreCluster;
pub use engine_choice::{EngineChoice, EngineName, ExecutedPrecision, LibraryFile, ModelFormat};
pub use error::RunnerError;
pub use ethos_u::{Accelerator, Estimate, EthosURunner, EthosUSettings, Layer};
pub use fusion::{FusionPair, empty_run, fusion_pairs};
pub use local::{LocalRunner, LocalSettings};
pub use machine::{DeviceFacts, device_facts, machine_state};
pub use noise::{Noise, noise};
pub use numbers::NUMBERS_SEED;
pub use output_sums::OutputSums;
pub use protocol::{
    AgentSettings, Answer, CheckRequest, EvaluateRequest, MeasureAnswer, MeasureRequest, PROTOCOL_VERSION,
    Placement, ProbeAnswer, ProbeRequest,
};
pub use remote::{
    AgentlessRunner, AgentlessSettings, BenchmarkProgram, ProgramFile, RemoteRunner, RemoteSettings,
};
pub use runner::{Job, Runner};
pub use transport::{
    AdbSettings, AdbTransport, Exit, Finished, LocalTransport, Transport, TransportError, adb_devices,
    join_words, quote, split_words,
};
#[cfg(feature = "ssh")]
pub use transport::{SshIdentity, SshSettings, SshTransport};
