//! A predictor of one device that leans on tables of others, with what it rests on.

use std::path::Path;

use lathe_spaces::Micros;
use serde::{Deserialize, Serialize};

use super::{Codes, Encoding, PredictorError, Prior, TablePredictor};
use crate::{Device, ModelFileError, ModelKind, Prediction, Provenance, fit::spearman, model_file};

/// A [`TablePredictor`] of a device, and the architectures that were measured on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableModel {
    space: String,
    choices: Vec<String>,
    predictor: TablePredictor,
    /// Codes with milliseconds.
    measured: Vec<(Codes, f64)>,
}

/// Leave-one-out errors of the measured architectures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableValidation {
    /// Median of |predicted / measured − 1|.
    pub median_relative_error: f64,
    /// Share within ±10 %.
    pub within_ten_percent: f64,
    /// Rank correlation of predictions and measurements.
    pub spearman: f64,
    /// Median relative half-width of the intervals of the measurements themselves.
    pub noise_floor: f64,
}

/// Where a table model comes from, written above it in its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableModelHeader {
    /// Version of Lathe that fitted it.
    pub version: String,
    /// When, RFC 3339.
    pub created: String,
    /// Device that was measured.
    pub device: Device,
    /// Where its own latencies come from.
    pub provenance: Provenance,
    /// Architectures measured on it.
    pub rows: usize,
    /// The table of the other devices.
    pub table: String,
    /// Columns of it that were sources.
    pub sources: Vec<String>,
    /// How much each group of features of the prior is believed.
    pub shares: Vec<(String, f64)>,
    /// Errors on what was left out.
    pub validation: TableValidation,
}

impl TableModel {
    /// Fits the latencies (milliseconds) of some architectures of `space`, with the relative half-width
    /// of their intervals in `noise`.
    ///
    /// # Errors
    /// See [`TablePredictor::fit`].
    pub fn fit(
        space: &str,
        prior: &Prior,
        codes: &[&Codes],
        latencies: &[f64],
        noise: &[f64],
    ) -> Result<(Self, TableValidation), PredictorError> {
        let predictor = TablePredictor::fit(prior, codes, latencies)?;
        let errors = predictor.leave_one_out();
        let predicted: Vec<f64> =
            errors.iter().zip(latencies).map(|(error, latency)| latency * (1.0 - error)).collect();
        let validation = TableValidation {
            median_relative_error: median(errors.iter().map(|error| error.abs()).collect()),
            within_ten_percent: errors.iter().filter(|error| error.abs() <= 0.1).count() as f64
                / errors.len() as f64,
            spearman: spearman(&predicted, latencies),
            noise_floor: median(noise.to_vec()),
        };
        let measured =
            codes.iter().zip(latencies).map(|(codes, latency)| ((*codes).clone(), *latency)).collect();
        let choices = prior.encoding().choices().to_vec();
        Ok((Self { space: space.to_owned(), choices, predictor, measured }, validation))
    }

    /// The predictor inside.
    pub const fn predictor(&self) -> &TablePredictor {
        &self.predictor
    }

    /// Name of the space.
    pub fn space(&self) -> &str {
        &self.space
    }

    /// Whether architectures in this encoding are what the model knows.
    pub fn fits(&self, encoding: &Encoding) -> bool {
        let width = self.measured.first().map_or(0, |(codes, _)| codes.as_slice().len());
        self.choices == encoding.choices() && width == encoding.width()
    }

    /// Predicts an architecture. A measured one is answered by its measurement, with the predictor's
    /// interval: the spread of single measurements is not in the file.
    pub fn predict(&self, codes: &Codes) -> Prediction {
        let interval = self.predictor.interval(codes);
        let measured = self.measured.iter().find(|(known, _)| known == codes);
        let mean = measured.map_or(interval.mean, |(_, latency)| *latency);
        let shift = mean - interval.mean;
        Prediction {
            mean: Micros::from_millis(mean),
            // Of a normal distribution with this interval.
            sigma: Micros::from_millis((interval.high - interval.low) / 2.0 / 1.645),
            low: Micros::from_millis((interval.low + shift).max(0.0)),
            high: Micros::from_millis(interval.high + shift),
            source: self.predictor.source(codes),
        }
    }

    /// Writes the model with its header as JSON; never over an existing file.
    ///
    /// # Errors
    /// [`ModelFileError`]
    pub fn save(&self, path: &Path, header: &TableModelHeader) -> Result<(), ModelFileError> {
        model_file::save(path, ModelKind::Table, header, self)
    }

    /// Reads a file that [`TableModel::save`] wrote.
    ///
    /// # Errors
    /// [`ModelFileError`]
    pub fn load(path: &Path) -> Result<(Self, TableModelHeader), ModelFileError> {
        let (header, model) = model_file::load(path, ModelKind::Table)?;
        Ok((model, header))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
