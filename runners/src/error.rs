//! What stops a runner.

use std::{
    io,
    path::{Path, PathBuf},
};

use lathe_latency_db::Outcome;
use lathe_spaces::Precision;
use thiserror::Error;

use crate::{EngineName, TransportError};

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
    /// No library of the engine.
    #[error(
        "find {}: {tried} (hint: fetch it with `cargo xtask setup`, or set {variable} to {stem})",
        name.title()
    )]
    LibraryMissing {
        /// Engine.
        name: EngineName,
        /// The environment variable that names its library.
        variable: &'static str,
        /// How the file's name begins.
        stem: &'static str,
        /// Where it was looked for.
        tried: String,
    },
    /// A library for an engine that has none.
    #[error(
        "use {} as the library of {}: it is compiled into the agent (hint: leave out --library)",
        path.display(), name.title()
    )]
    LibraryInside {
        /// Engine.
        name: EngineName,
        /// The file.
        path: PathBuf,
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
    /// A cluster of cores that the device doesn't have.
    #[error("choose cores of {device}: {message}")]
    Cluster {
        /// Device.
        device: String,
        /// What there is.
        message: String,
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
    /// The way to the device.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The connection was lost and didn't come back.
    #[error(
        "go on measuring on {peer}: the connection is lost, {:.0} s of trying did not bring it back: failed to {last} (hint: what was measured is kept; when the device is back, go on with --resume)",
        after.as_secs_f64()
    )]
    Unreachable {
        /// Device.
        peer: String,
        /// How long was tried.
        after: std::time::Duration,
        /// What the last try met.
        last: TransportError,
    },
    /// Somebody else measures on the device.
    #[error(
        "use {peer}: {owner} is measuring on it (hint: two at a time would disturb each other; its lease ends {seconds} s from now unless it is renewed)"
    )]
    Busy {
        /// Device.
        peer: String,
        /// Who.
        owner: String,
        /// Seconds until the lease expires.
        seconds: u64,
    },
    /// The lease ran out and somebody else took the device.
    #[error("go on measuring on {peer}: {owner} took the device over in the meantime")]
    TakenOver {
        /// Device.
        peer: String,
        /// Who.
        owner: String,
    },
    /// A file for another processor.
    #[error("use {} on {peer}: it is built for {got}, the device runs {expected} (hint: name one for {expected}, as in `lathe device add … {option} FILE`)", path.display())]
    Architecture {
        /// File on this machine.
        path: PathBuf,
        /// Device.
        peer: String,
        /// Architecture of the file.
        got: String,
        /// Architecture of the device.
        expected: String,
        /// Option that names another file.
        option: &'static str,
    },
    /// Programs that the device must have.
    #[error("use {peer}: it has no {} (hint: these come with util-linux and coreutils, toybox or busybox)", missing.join(", no "))]
    Tools {
        /// Device.
        peer: String,
        /// Names.
        missing: Vec<String>,
    },
    /// No room.
    #[error(
        "write {path} on {peer}: its disk is full, {free_kb} kB are free and {needed_kb} kB are needed (hint: make room, or name a folder on another disk with --directory)"
    )]
    DiskFull {
        /// File on the device.
        path: String,
        /// Device.
        peer: String,
        /// Free kilobytes.
        free_kb: u64,
        /// Kilobytes of the file.
        needed_kb: u64,
    },
    /// No compiler for the NPU.
    #[error(
        "find the Ethos-U compiler: {tried} (hint: install it with `cargo xtask npu-tools`, or name it with --vela or LATHE_VELA)"
    )]
    VelaMissing {
        /// Where it was looked for.
        tried: String,
    },
    /// A compiler for the NPU that doesn't do its work.
    #[error("use the Ethos-U compiler {}: {message}", program.display())]
    Vela {
        /// Program.
        program: PathBuf,
        /// What happened.
        message: String,
    },
    /// Numbers that the device doesn't compute with.
    #[error(
        "estimate `{label}` on {device}: it computes with int8 only, the workload is {got} (hint: set `precision = \"int8\"` under `[measure]`, or give --precision int8)"
    )]
    Precision {
        /// Device.
        device: String,
        /// Workload.
        label: String,
        /// Its precision.
        got: Precision,
    },
    /// A device that doesn't answer as it should.
    #[error("understand {peer}: {message}")]
    Answer {
        /// Device.
        peer: String,
        /// What came.
        message: String,
    },
}

impl RunnerError {
    /// Whether the device failed while it was measured, so that what was measured before is all there is
    /// until it comes back: what it was like, for the record. Every other error needs a person.
    pub fn device_failure(&self) -> Option<String> {
        match self {
            Self::DeviceLost { outcome, message } => Some(format!("{outcome}: {message}")),
            Self::Unreachable { .. } => Some(format!("failed to {self}")),
            _ => None,
        }
    }

    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}
