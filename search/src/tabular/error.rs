//! What can go wrong with searches on tables.

use lathe_latency_db::{
    LatencyTableError,
    predictor::{PredictorError, benchmark::BenchmarkError},
};
use lathe_spaces::SpaceError;
use thiserror::Error;

/// What can go wrong with searches on tables. The messages complete "failed to …".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TabularError {
    /// The table of latencies.
    #[error(transparent)]
    Table(#[from] LatencyTableError),
    /// Sources of a target.
    #[error(transparent)]
    Sources(#[from] BenchmarkError),
    /// A network can't be built.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// A predictor.
    #[error("search on `{target}`: cannot {source}")]
    Predictor {
        /// Device column.
        target: String,
        /// Why not.
        source: PredictorError,
    },
    /// An option that asks for nothing.
    #[error("search on tables: {reason}")]
    Options {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Too little to search in.
    #[error(
        "search on `{target}`: {rows} architectures have a latency and an accuracy, and at least the largest budget \
         ({budget}) and more than the {samples} measurements are needed; ask for smaller --budgets"
    )]
    TooShort {
        /// Device column.
        target: String,
        /// Joined rows.
        rows: usize,
        /// Largest budget.
        budget: usize,
        /// Measurements.
        samples: usize,
    },
    /// A limit that no architecture meets.
    #[error(
        "search on `{target}`: no architecture meets {limit_ms} ms, the fastest takes {fastest_ms:.4} ms\n\
         hint: leave --limits-ms out to use five quantiles of every device's latencies"
    )]
    Limit {
        /// Device column.
        target: String,
        /// The limit.
        limit_ms: f64,
        /// The fastest architecture.
        fastest_ms: f64,
    },
    /// The user asked to stop.
    #[error("finish: it was interrupted")]
    Interrupted,
}
