//! What can go wrong with predictors made from tables.

use thiserror::Error;

/// What can go wrong with predictors made from tables. The messages complete "failed to …".
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum PredictorError {
    /// Every architecture must have the same positions.
    #[error(
        "predict latencies in the space `{space}`: its architectures choose their edges, and only spaces where every \
         position always carries an operation (nas-bench-201, fbnet) have a fixed encoding"
    )]
    Space {
        /// Name of the space.
        space: String,
    },
    /// A genotype of another space.
    #[error("encode an architecture: {reason}")]
    Genotype {
        /// What is wrong with it.
        reason: String,
    },
    /// Too little to fit.
    #[error("fit a latency predictor{}: {got} measured architectures, and {needed} are needed", of(device))]
    TooFew {
        /// Whose latencies; empty if unnamed.
        device: String,
        /// How many there are.
        got: usize,
        /// The least.
        needed: usize,
    },
    /// Not a latency.
    #[error(
        "fit a latency predictor{}: sample {index} is {value} ms; latencies are positive and finite",
        of(device)
    )]
    Latency {
        /// Whose latencies; empty if unnamed.
        device: String,
        /// Which sample, from 0.
        index: usize,
        /// What stands there.
        value: f64,
    },
    /// As many architectures as latencies, all of the same encoding.
    #[error("fit a latency predictor: {reason}")]
    Shape {
        /// What does not fit.
        reason: String,
    },
    /// The proxy orders architectures otherwise than the target.
    #[error(
        "transfer latencies from `{proxy}` by scale and shift: its order and the target's have a leave-one-out rank \
         correlation of {correlation:.2}, and {needed:.2} is needed; a proxy this unlike makes predictions worse than none: \
         measure more, or use the hierarchical predictor, which can ignore it"
    )]
    UnlikeProxy {
        /// The best of the proxies.
        proxy: String,
        /// Spearman correlation of its leave-one-out predictions with the measurements.
        correlation: f64,
        /// The least that is accepted.
        needed: f64,
    },
    /// A matrix that should be positive definite is not, to rounding.
    #[error(
        "fit a latency predictor{}: the equations are singular; are the latencies spread over many magnitudes?",
        of(device)
    )]
    Singular {
        /// Whose latencies; empty if unnamed.
        device: String,
    },
}

fn of(device: &str) -> String {
    if device.is_empty() { String::new() } else { format!(" of `{device}`") }
}
