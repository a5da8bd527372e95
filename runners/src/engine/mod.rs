//! Engines, loaded into this process: one process, one engine, one model.
//!
//! An engine is a file beside this one with two types: one that implements [`LoadedEngine`] and one that
//! implements [`LoadedModel`], a name in [`crate::EngineName`] and an arm in [`load`].
//!
//! Two agents are built: one whose engines are libraries of the device (feature `agent`), and a static one
//! with its only engine inside (feature `static-agent`).

mod failure;
#[cfg(feature = "agent")]
mod litert;
#[cfg(feature = "agent")]
mod onnxruntime;
#[cfg(feature = "agent")]
mod openvino;
#[cfg(feature = "static-agent")]
mod tract;

use std::path::Path;

use lathe_latency_db::{Engine, Execution};
use lathe_spaces::Shape;

use crate::{AgentSettings, EngineName, Placement};
pub(crate) use failure::Failure;

/// An engine that is ready to load models.
pub(crate) trait LoadedEngine {
    /// Name, version, digest of the library and provider, as a device's fingerprint has them.
    fn identity(&self) -> Result<Engine, Failure>;

    /// The providers that the library has, as words of [`EngineName::providers`].
    fn providers(&self) -> Result<Vec<String>, Failure>;

    /// Which provider takes which node of a model.
    fn check(&self, model: &Path) -> Result<Vec<Placement>, Failure>;

    /// Loads a model of one input, ready to be bound. A model that the engine refuses is
    /// [`lathe_latency_db::Outcome::Unsupported`]; so is one with nodes that the provider doesn't
    /// execute, unless that is allowed, and the message names them.
    fn create(&self, model: &Path) -> Result<Box<dyn LoadedModel>, Failure>;
}

/// A model that is ready to run.
pub(crate) trait LoadedModel {
    /// Binds an input (copied) and memory for the outputs, so that a run allocates neither.
    fn bind(&mut self, shape: Shape, input: Vec<f32>) -> Result<(), Failure>;

    /// Runs once; the outputs stay where they are.
    fn run(&mut self) -> Result<(), Failure>;

    /// Runs once and copies the first output.
    fn run_for_output(&mut self) -> Result<Vec<f32>, Failure>;

    /// How it is executed: what can be seen of it. Called when nothing is timed any more; it may load
    /// the model once more and run it.
    fn execution(&mut self) -> Result<Execution, Failure>;
}

/// Loads the chosen engine's library.
pub(crate) fn load(settings: &AgentSettings) -> Result<Box<dyn LoadedEngine>, Failure> {
    settings.engine.check().map_err(|message| Failure::crash("choose an engine", message))?;
    match settings.engine.name {
        #[cfg(feature = "agent")]
        EngineName::Onnxruntime => Ok(Box::new(onnxruntime::OnnxRuntime::load(settings)?)),
        #[cfg(feature = "agent")]
        EngineName::Openvino => Ok(Box::new(openvino::OpenVino::load(settings)?)),
        #[cfg(feature = "agent")]
        EngineName::Litert => Ok(Box::new(litert::LiteRtEngine::load(settings)?)),
        #[cfg(feature = "static-agent")]
        EngineName::Tract => Ok(Box::new(tract::Tract::load(settings)?)),
        #[allow(unreachable_patterns, reason = "an agent with every feature has every engine")]
        other => Err(absent(other)),
    }
}

/// An engine that this agent was built without.
fn absent(name: EngineName) -> Failure {
    let (has, hint) = match name.library() {
        None => ("opens libraries of engines", "build one that has it with `cargo xtask agent --static`"),
        Some(_) => ("has tract inside and opens no library", "--engine tract, or `cargo xtask agent`"),
    };
    Failure::crash(
        "choose an engine",
        format!("this agent {has}, {} is not in it (hint: {hint})", name.title()),
    )
}
