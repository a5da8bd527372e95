//! Sums over processes, and the single process that needs none.

use super::CollectiveError;

/// Sums over the processes of a data-parallel training.
///
/// All processes call the same functions in the same order with equally many values; each returns when
/// all have called it, with values equal to the last bit everywhere.
pub trait Collective: Send + Sync + std::fmt::Debug {
    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes, at least 1.
    fn size(&self) -> usize;

    /// Replaces every value by its sum over all processes.
    fn sum(&self, values: &mut [f64]) -> Result<(), CollectiveError>;

    /// [`sum`](Self::sum) in single precision.
    fn sum_f32(&self, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// Everybody gets rank 0's values.
    fn broadcast(&self, values: &mut [f64]) -> Result<(), CollectiveError>;
}

/// The only process of a training: every sum is its own values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _: &mut [f64]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn sum_f32(&self, _: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn broadcast(&self, _: &mut [f64]) -> Result<(), CollectiveError> {
        Ok(())
    }
}
