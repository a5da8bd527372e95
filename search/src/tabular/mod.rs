//! Searches on tables of architectures × (latencies, accuracies), judged by exact optima.
//!
//! Accuracies are paid for one architecture at a time, latencies by a few measurements of the device; what
//! a search chose is then compared with what someone would choose who knows everything.

mod additive;
mod belief;
mod benchmark;
mod draw;
mod error;
mod finalists;
mod guided;
mod standing;
mod summary;
mod surrogate;
mod target;

pub use additive::column_costs;
pub use belief::Knowledge;
pub use benchmark::{SearchBenchmark, SearchOptions, search_benchmark};
pub use draw::Algorithm;
pub use error::TabularError;
pub use standing::Standing;
pub use summary::{Reference, SearchRow, SearchSummary, Spread};
