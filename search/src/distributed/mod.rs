//! Several processes that train one network.

use thiserror::Error;

/// Why the other processes could not be reached.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct CollectiveError(pub String);

/// Sums over the processes of a data-parallel training.
pub trait Collective: Send + Sync + std::fmt::Debug {
    /// Number of this process.
    fn rank(&self) -> usize;
    /// Number of processes.
    fn size(&self) -> usize;
    /// Replaces every value by its sum over all processes; all call it in the same order.
    fn sum(&self, values: &mut [f64]) -> Result<(), CollectiveError>;
}
