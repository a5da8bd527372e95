//! What stops a runner.

use std::{io, path::PathBuf};

use lathe_latency_db::Outcome;
use thiserror::Error;

/// Why a device can't be used (any more). The messages complete "failed to …".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunnerError {
    /// No agent program.
    #[error(
        "find the device agent: {tried} is not a file (hint: build it with `cargo xtask agent`, or set LATHE_AGENT to it)"
    )]
    AgentMissing {
        /// Where it was looked for.
        tried: String,
    },
    /// No ONNX Runtime.
    #[error(
        "find ONNX Runtime: {tried} (hint: fetch it with `cargo xtask setup`, or set ORT_DYLIB_PATH to libonnxruntime.so)"
    )]
    LibraryMissing {
        /// Where it was looked for.
        tried: String,
    },
    /// The agent can't be launched.
    #[error("launch the device agent {}: {source}", path.display())]
    Launch {
        /// Program.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The agent didn't answer a request that isn't a measurement.
    #[error("{action} with the device agent: {message}")]
    Agent {
        /// What was wanted of it.
        action: &'static str,
        /// What happened.
        message: String,
    },
    /// More threads than cores to run them on.
    #[error("choose cores for {threads} threads: there are {available} to choose from")]
    Threads {
        /// Wanted threads.
        threads: usize,
        /// Cores.
        available: usize,
    },
    /// Cores that were asked for and can't be had.
    #[error(
        "pin the device agent to cores {wanted:?}: it runs on {got:?} (hint: name cores of the affinity mask, or none)"
    )]
    Pin {
        /// Wanted.
        wanted: Vec<usize>,
        /// Got.
        got: Vec<usize>,
    },
    /// The device answered before and doesn't now.
    #[error("go on measuring: the reference workload ended with `{outcome}`, the device is lost: {message}")]
    DeviceLost {
        /// How the reference workload ended.
        outcome: Outcome,
        /// What was seen.
        message: String,
    },
    /// The reference workload or its expected output can't be made.
    #[error("prepare the reference workload: {0}")]
    Reference(String),
    /// Inputs that don't fill whole images.
    #[error("evaluate the model on {got} numbers: an input has {expected}, and whole inputs are needed")]
    Inputs {
        /// Elements of one input.
        expected: usize,
        /// Elements that were given.
        got: usize,
    },
    /// A test of the noise that can't be judged.
    #[error("test the noise of the device: {0}")]
    Noise(String),
    /// Files that travel between runner and agent.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}
