//! What can go wrong with a kernel model.

use thiserror::Error;

/// What can go wrong with a kernel model. The messages complete "failed to …".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Nothing, or almost nothing, to learn from.
    #[error("fit the kernel model: it needs at least {needed} timed graphs, got {got}")]
    TooFew {
        /// Least number.
        needed: usize,
        /// What there is.
        got: usize,
    },
    /// A latency that is not a positive number.
    #[error("fit the kernel model: graph `{label}` has a latency of {micros} µs")]
    Latency {
        /// Graph.
        label: String,
        /// Its latency.
        micros: f64,
    },
    /// The measurements have several provenances.
    #[error("fit the kernel model: the measurements are of different kinds ({})", kinds.join(", "))]
    MixedProvenance {
        /// The kinds.
        kinds: Vec<String>,
    },
    /// The measurements have several precisions.
    #[error("fit the kernel model: the measurements are of different precisions ({})", precisions.join(", "))]
    MixedPrecision {
        /// The precisions.
        precisions: Vec<String>,
    },
    /// The timed networks take several numbers of images at once: latency and throughput are not one quantity.
    #[error(
        "fit the kernel model: the networks take different numbers of images at once ({}); hint: time all of them at one batch size",
        batches.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    MixedBatch {
        /// Images per run, from the fewest on.
        batches: Vec<usize>,
    },
    /// The numbers don't determine a model.
    #[error("fit the kernel model: the least-squares problem has no solution")]
    Singular,
}
