//! Latencies of whole architectures from few measurements on the device and many on others.
//!
//! [`TablePredictor`] needs no graph and no operator measurements, only which operation stands at which
//! position; [`Prior`] holds what other devices teach; [`select_next`] says which architectures are worth
//! measuring.

mod additive;
pub mod benchmark;
mod encoding;
mod interactions;
mod noise_floor;
mod predictor_error;
mod prior;
mod safety;
mod scale_and_shift;
mod selection;
pub mod selection_benchmark;
mod table_model;
mod table_predictor;
mod trees;

pub use encoding::{Codes, Encoding};
pub use noise_floor::NoiseFloor;
pub use predictor_error::PredictorError;
pub use prior::{Prior, SourceDevice};
pub use safety::relative_spread;
use safety::safety_factor;
pub use scale_and_shift::{ScaleAndShift, line};
pub use selection::select_next;
pub use table_model::{TableModel, TableModelHeader, TableValidation};
pub use table_predictor::{Interval, TablePredictor};
pub use trees::BoostedTrees;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod predictor_tests;
