//! What was timed, and what is believed of the rest.
//!
//! Runners make [`Measurement`]s, the [`Store`] keeps them all as Parquet, [`fit`] composes operator
//! latencies into network latencies, and the search sees nothing but the resulting [`CostTable`].
//!
//! ```
//! use lathe_latency_db::Summary;
//!
//! // Three processes timed the same workload; samples are nanoseconds.
//! let samples = [1_010_000, 1_000_000, 1_020_000, 1_050_000, 1_040_000, 1_060_000, 1_000_000, 1_010_000, 9_990_000];
//! let summary = Summary::of(&samples, &[3, 3, 3]).ok_or("no samples")?;
//! assert_eq!(summary.median.to_string(), "1.020 ms");
//! assert!(summary.low <= summary.median && summary.median <= summary.high);
//! assert_eq!(summary.outliers, 1);
//! # Ok::<(), &str>(())
//! ```
#![cfg_attr(
    not(feature = "store"),
    allow(rustdoc::broken_intra_doc_links, reason = "the store is not built")
)]

mod atomic_file;
#[cfg(feature = "store")]
mod columns;
mod composition;
mod cost_table;
mod cost_table_batch;
mod device;
mod execution;
#[cfg(feature = "store")]
mod export;
mod filter;
mod fit;
mod fit_error;
mod fit_quality;
#[cfg(feature = "store")]
mod journal;
pub mod kernels;
mod latency_csv;
mod latency_table;
mod latency_table_error;
mod linear;
mod lookup_table;
mod measurement;
mod model_file;
mod nnls;
mod parts;
pub mod predictor;
mod quality;
#[cfg(test)]
mod sample_rows;
#[cfg(feature = "store")]
mod store;
#[cfg(feature = "store")]
mod store_error;
mod summary;
mod table_file;
#[cfg(feature = "store")]
mod workload_files;

pub use cost_table::{CostError, CostTable, Prediction, SlotCosts, Source};
pub use device::{Device, Engine, Tier};
pub use execution::Execution;
pub use filter::Filter;
pub use fit::{FitOptions, Fitted, fit, spearman};
pub use fit_error::FitError;
pub use fit_quality::{FitQuality, FoldPoint};
#[cfg(feature = "store")]
pub use journal::Journal;
pub use latency_table::{LatencyTable, TableLayout, TableOptions};
pub use latency_table_error::LatencyTableError;
pub use lookup_table::{
    Dialect, Figures, Imported, LookupTable, LookupTableError, Maps, OperatorKey, Spread, Unusable,
};
pub use measurement::{
    MachineState, Measurement, Outcome, Protocol, Provenance, Published, QualityFlag, Rejected,
};
pub use model_file::{ModelFileError, ModelKind, model_kind};
pub use quality::{Conditions, drifted, quality};
#[cfg(feature = "store")]
pub use store::{Store, read_measurements, write_measurements};
#[cfg(feature = "store")]
pub use store_error::StoreError;
pub use summary::Summary;
pub use table_file::TableHeader;
