//! What went wrong with an engine.

use lathe_latency_db::Outcome;

/// What went wrong, and which kind of outcome that is.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Kind.
    pub(crate) outcome: Outcome,
    /// What happened.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into() }
    }

    /// Something that isn't the model's fault.
    pub(crate) fn crash(action: &str, error: impl std::fmt::Display) -> Self {
        Self::new(Outcome::Crash, format!("{action}: {error}"))
    }

    /// A failure of the engine: out of memory if it says so, else `otherwise`.
    pub(crate) fn engine(otherwise: Outcome, action: &str, message: &str) -> Self {
        let lower = message.to_lowercase();
        let memory =
            ["bad_alloc", "bad allocation", "failed to allocate", "out of memory", "allocation failed"];
        let outcome =
            if memory.iter().any(|words| lower.contains(words)) { Outcome::OutOfMemory } else { otherwise };
        Self { outcome, message: format!("{action}: {message}") }
    }
}
