//! One latency per operation and position, for devices of which much is known.

use super::{
    PredictorError,
    encoding::{Codes, Encoding},
};
use crate::linear::Square;

/// Ridge penalty per sample of a device with many samples: enough to settle what no sample tells
/// apart (an operation's latency can move from one position to all others), too little to bias.
const PENALTY: f64 = 1e-3;

/// A sum of one latency per position, fitted by least squares of relative errors.
#[derive(Clone, Debug)]
pub(super) struct Additive {
    /// Mean latency of the samples, milliseconds.
    pub mean: f64,
    /// In units of the mean.
    pub intercept: f64,
    /// In units of the mean; one per position and operation.
    pub table: Vec<f64>,
}

impl Additive {
    pub(super) fn fit(
        encoding: &Encoding,
        device: &str,
        codes: &[&Codes],
        latencies: &[f64],
    ) -> Result<Self, PredictorError> {
        check(device, codes.len(), latencies)?;
        let operations = encoding.choices().len();
        let columns = encoding.columns();
        let mean = latencies.iter().sum::<f64>() / latencies.len() as f64;
        // Column 0 is the intercept; a row has a single one per position, so the Gram matrix is sparse
        // to build.
        let mut gram = Square::zeros(columns + 1);
        let mut rhs = vec![0.0; columns + 1];
        for (codes, latency) in codes.iter().zip(latencies) {
            let scale = mean / latency;
            let hot = hot(codes, operations);
            for &i in &hot {
                rhs[i] += scale;
                for &j in &hot {
                    gram.row_mut(i)[j] += scale * scale;
                }
            }
        }
        let penalty = PENALTY * latencies.len() as f64 / columns as f64;
        for i in 1..=columns {
            gram.row_mut(i)[i] += penalty;
        }
        let singular = || PredictorError::Singular { device: device.to_owned() };
        let mut solution = gram.cholesky().ok_or_else(singular)?.solve(&rhs);
        let table = solution.split_off(1);
        Ok(Self { mean, intercept: solution[0], table })
    }

    /// Predicted latency in milliseconds.
    pub(super) fn predict(&self, codes: &Codes) -> f64 {
        self.mean * (self.intercept + look_up(&self.table, codes))
    }
}

/// Columns that are one: the intercept's and one per position.
fn hot(codes: &Codes, operations: usize) -> Vec<usize> {
    let columns = codes.0.iter().enumerate();
    std::iter::once(0)
        .chain(columns.map(|(position, &code)| 1 + position * operations + usize::from(code)))
        .collect()
}

/// Sum of the entries of a table of (position, operation) that an architecture picks.
pub(super) fn look_up(table: &[f64], codes: &Codes) -> f64 {
    let operations = table.len() / codes.0.len();
    codes
        .0
        .iter()
        .zip(table.chunks_exact(operations))
        .map(|(&code, entries)| entries[usize::from(code)])
        .sum()
}

/// Least measured architectures of any model.
const LEAST: usize = 5;

/// Enough samples, all of them latencies.
pub(super) fn check(device: &str, codes: usize, latencies: &[f64]) -> Result<(), PredictorError> {
    if codes != latencies.len() {
        let reason = format!("{codes} architectures came with {} latencies", latencies.len());
        return Err(PredictorError::Shape { reason });
    }
    if latencies.len() < LEAST {
        let (device, got) = (device.to_owned(), latencies.len());
        return Err(PredictorError::TooFew { device, got, needed: LEAST });
    }
    match latencies.iter().enumerate().find(|(_, value)| !value.is_finite() || **value <= 0.0) {
        Some((index, &value)) => Err(PredictorError::Latency { device: device.to_owned(), index, value }),
        None => Ok(()),
    }
}
