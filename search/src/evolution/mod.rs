//! Discrete multi-objective search: over genotypes of any space, or over the rows of a table.
//!
//! Every algorithm asks a [`Candidates`] for points and an [`Evaluator`] for their scores, and ends when
//! the evaluator's budget of different points is spent. Objectives are minimised. The same seed gives the
//! same points whatever evaluates them, and however many threads it has.

mod aging;
mod candidates;
mod evaluator;
mod hypervolume;
mod nsga2;
mod pareto;
mod random_search;
mod row_set;

pub use aging::{AgingSettings, aging_evolution};
pub use candidates::Candidates;
pub use evaluator::{Archive, Evaluate, Evaluator, Score};
pub use hypervolume::hypervolume;
pub use nsga2::{Nsga2Settings, nsga2};
pub use pareto::{crowding_distances, dominates, non_dominated_ranks, pareto_front};
pub use random_search::random_search;
pub use row_set::{RowIndex, RowSet};

/// Rounds without a point that is new, after which a search gives up on a set that it has exhausted.
const STALLED: usize = 50;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
