//! What an additive model leaves over.

use serde::{Deserialize, Serialize};

use super::{BoostedTrees, Codes, PredictorError};
use crate::linear::dot;

/// Fewer samples can't tell interactions from noise.
const LEAST_SAMPLES: usize = 100;
/// Folds of the cross-validation that decides.
const FOLDS: usize = 5;
/// Share by which the error must fall.
const LEAST_GAIN: f64 = 0.05;

/// Ratio of the latency to what the additive model says of it, by boosted trees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Interactions {
    trees: BoostedTrees,
}

impl Interactions {
    /// Fits the ratio to samples with their relative leave-one-out errors, and returns it with the errors
    /// that are left; `None` where cross-validation finds no gain, or there are too few samples.
    pub(super) fn fit(
        operations: usize,
        codes: &[&Codes],
        errors: &[f64],
    ) -> Result<Option<(Self, Vec<f64>)>, PredictorError> {
        if codes.len() < LEAST_SAMPLES || errors.iter().any(|error| *error > 0.9) {
            return Ok(None);
        }
        let ratios: Vec<f64> = errors.iter().map(|error| 1.0 / (1.0 - error)).collect();
        let mut left = vec![0.0; ratios.len()];
        for fold in 0..FOLDS {
            let inside: Vec<usize> = (0..ratios.len()).filter(|row| row % FOLDS != fold).collect();
            let known: Vec<f64> = inside.iter().map(|&row| ratios[row]).collect();
            let picked: Vec<&Codes> = inside.iter().map(|&row| codes[row]).collect();
            let trees = BoostedTrees::fit(operations, &picked, &known)?;
            for row in (fold..ratios.len()).step_by(FOLDS) {
                left[row] = 1.0 - trees.predict(codes[row]) / ratios[row];
            }
        }
        if dot(&left, &left).sqrt() > (1.0 - LEAST_GAIN) * dot(errors, errors).sqrt() {
            return Ok(None);
        }
        Ok(Some((Self { trees: BoostedTrees::fit(operations, codes, &ratios)? }, left)))
    }

    /// Factor on what the additive model says.
    pub(super) fn ratio(&self, codes: &Codes) -> f64 {
        self.trees.predict(codes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_spaces::{Nas201Skeleton, Space, Stream};
    use rand::RngExt;

    use super::*;
    use crate::predictor::{Encoding, Prior, TablePredictor};

    /// Cells of NAS-Bench-201 with a latency that is additive but for one interaction.
    fn device(count: u64, interaction: f64) -> (Encoding, Vec<Codes>, Vec<f64>) {
        let space = Space::nas201(Nas201Skeleton { width: 16, cells: 5, resolution: 32, classes: 10 });
        let encoding = Encoding::of(&space).unwrap();
        let codes: Vec<Codes> = (0..count)
            .map(|index| encoding.encode(&space.sample(&mut Stream::new(0, "codes", index))).unwrap())
            .collect();
        let latency = |(index, codes): (usize, &Codes)| {
            let sum: f64 = codes.0[..6].iter().map(|&code| 5.0 + f64::from(code)).sum();
            let both = codes.0[0] == 3 && codes.0[5] == 2 || codes.0[1] == 3 && codes.0[3] == 2;
            let noise = Stream::new(0, "noise", index as u64).random_range(0.99..1.01);
            sum * noise * if both { 1.0 + interaction } else { 1.0 }
        };
        let latencies = codes.iter().enumerate().map(latency).collect();
        (encoding, codes, latencies)
    }

    fn error(interaction: f64) -> (f64, bool, f64) {
        let (encoding, codes, latencies) = device(700, interaction);
        let all: Vec<&Codes> = codes.iter().collect();
        let prior = Prior::new(&encoding, &all, &[]).unwrap();
        let (train, test) = all.split_at(500);
        let predictor = TablePredictor::fit(&prior, train, &latencies[..500]).unwrap();
        let ratios: Vec<(f64, f64)> = test
            .iter()
            .zip(&latencies[500..])
            .map(|(codes, latency)| {
                let interval = predictor.interval(codes);
                let inside = (interval.low..=interval.high).contains(latency);
                ((interval.mean / latency - 1.0).abs(), f64::from(u8::from(inside)))
            })
            .collect();
        let mean = |pick: fn(&(f64, f64)) -> f64| ratios.iter().map(pick).sum::<f64>() / ratios.len() as f64;
        (mean(|pair| pair.0), predictor.interacts(), mean(|pair| pair.1))
    }

    #[test]
    fn an_interaction_is_learned_and_an_additive_device_has_none() {
        let (with, found, covered) = error(0.3);
        assert!(found && with < 0.02, "{found} {with}");
        assert!(covered > 0.8, "{covered}");
        let (without, found, _) = error(0.0);
        assert!(!found && without < 0.01, "{without}");
    }

    #[test]
    fn few_samples_tell_nothing() {
        let (encoding, codes, latencies) = device(60, 0.3);
        let all: Vec<&Codes> = codes.iter().collect();
        let prior = Prior::new(&encoding, &all, &[]).unwrap();
        assert!(!TablePredictor::fit(&prior, &all, &latencies).unwrap().interacts());
    }
}
