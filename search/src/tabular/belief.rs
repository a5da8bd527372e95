//! What is believed of latencies after some were measured.

use std::collections::BTreeMap;

use lathe_latency_db::predictor::{PredictorError, TablePredictor, line, relative_spread};
use serde::{Deserialize, Serialize};

use super::{surrogate::normal_probability, target::Target};

/// Where latencies come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Knowledge {
    /// Lathe's predictor: a few measurements of the device and tables of others.
    Predictor,
    /// A line through the multiply-accumulates, through as many measurements.
    Macs,
    /// Every latency of the device, for comparison.
    Oracle,
}

impl Knowledge {
    /// All, in the order of the output.
    pub const ALL: [Self; 3] = [Self::Predictor, Self::Macs, Self::Oracle];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Predictor => "predictor",
            Self::Macs => "macs",
            Self::Oracle => "oracle",
        }
    }
}

/// Errors of a predictor, as a share, before anything was measured, and how many measurements that counts for:
/// the errors of five architectures are too often all small.
const PRIOR_SPREAD: f64 = 0.1;
const PRIOR_COUNT: f64 = 5.0;

fn cautious(spread: f64, measurements: usize) -> f64 {
    let count = measurements as f64;
    let sum = count * spread * spread + PRIOR_COUNT * PRIOR_SPREAD * PRIOR_SPREAD;
    (sum / (count + PRIOR_COUNT)).sqrt()
}

/// Latencies in milliseconds as they are believed, with what was measured.
#[derive(Clone, Debug)]
pub(super) struct Belief {
    pub means: Vec<f64>,
    /// Standard deviation of the truth around a mean, as a share of it.
    spread: f64,
    pub measured: BTreeMap<usize, f64>,
}

impl Belief {
    /// Believes what this knowledge says after these rows were measured.
    pub(super) fn new(
        target: &Target<'_>,
        knowledge: Knowledge,
        measured: BTreeMap<usize, f64>,
    ) -> Result<Self, PredictorError> {
        let latencies: Vec<f64> = measured.values().copied().collect();
        let (mut means, spread) = match knowledge {
            Knowledge::Oracle => (target.latencies.clone(), 0.0),
            Knowledge::Predictor => {
                let codes: Vec<_> = measured.keys().map(|&row| target.codes[row]).collect();
                let predictor = TablePredictor::fit(&target.prior, &codes, &latencies)?;
                let means = target.codes.iter().map(|codes| predictor.predict(codes)).collect();
                (means, relative_spread(predictor.leave_one_out()))
            }
            Knowledge::Macs => {
                let macs: Vec<f64> = measured.keys().map(|&row| target.macs[row]).collect();
                let error = |sample: usize| {
                    let (scale, shift) = line(&macs, &latencies, Some(sample))?;
                    Some(1.0 - (scale * macs[sample] + shift) / latencies[sample])
                };
                let errors: Option<Vec<f64>> = (0..macs.len()).map(error).collect();
                let fitted = line(&macs, &latencies, None).zip(errors);
                let ((scale, shift), errors) =
                    fitted.ok_or(PredictorError::Singular { device: target.name.to_owned() })?;
                // A line that falls far to the left of its points crosses zero.
                let least = latencies.iter().copied().fold(f64::INFINITY, f64::min) / 10.0;
                let means = target.macs.iter().map(|macs| (scale * macs + shift).max(least)).collect();
                (means, relative_spread(&errors))
            }
        };
        let spread = if knowledge == Knowledge::Oracle { 0.0 } else { cautious(spread, measured.len()) };
        for (&row, &latency) in &measured {
            means[row] = latency;
        }
        Ok(Self { means, spread, measured })
    }

    /// Probability that a row meets a limit in milliseconds.
    pub(super) fn meets(&self, row: usize, limit_ms: f64) -> f64 {
        let mean = self.means[row];
        if self.spread <= 0.0 || self.measured.contains_key(&row) {
            return f64::from(u8::from(mean <= limit_ms));
        }
        normal_probability((limit_ms / mean - 1.0) / self.spread)
    }

    /// [`Belief::meets`] of every row.
    pub(super) fn meets_all(&self, limit_ms: f64) -> Vec<f64> {
        (0..self.means.len()).map(|row| self.meets(row, limit_ms)).collect()
    }
}
