//! A latency predictor for a device of which few architectures are measured.

use std::collections::BTreeSet;

use lathe_spaces::Stream;
use rand::RngExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    PredictorError,
    additive::{check, look_up},
    encoding::Codes,
    interactions::Interactions,
    prior::{Prior, mark},
    safety_factor,
};
use crate::linear::{Square, dot};
use crate::{Source, fit::spearman};

/// Settings of the prior that are tried, and as many more that have a proxy if there are sources.
const CANDIDATES: u64 = 200;
/// Share of the settings that switch a group of features off.
const OFF: f64 = 0.3;
/// The same beside a proxy.
const OFF_BESIDE_PROXY: f64 = 0.7;
/// Decimal logarithm of the variance of a proxy's feature.
const PROXY_VARIANCE: (f64, f64) = (-0.5, 1.0);
/// Decimal logarithm of the variance of a group of features, relative to the variance of the latencies.
const VARIANCE: (f64, f64) = (-3.5, 0.7);
/// Decimal logarithm of the noise's standard deviation, relative to that of the latencies.
const NOISE: (f64, f64) = (-2.6, -0.5);
/// Noise of the settings that are one proxy scaled and shifted and nothing else, as in [`super::ScaleAndShift`].
const COPY_NOISE: [f64; 2] = [0.03, 0.2];
/// Variance of their proxy's feature: next to no prior on the scale.
const COPY_VARIANCE: f64 = 10.0;
/// Weight of each of them, where the others have one: they have two free numbers, and leave-one-out
/// does not see how much less they can go wrong.
const COPY_WEIGHT: f64 = 100.0;
/// Least rank correlation of their leave-one-out predictions with the measurements.
const COPY_CORRELATION: f64 = 0.7;
/// Variance of the mean latency, relative to its square: next to no prior.
const MEAN_VARIANCE: f64 = 10.0;
/// Power of the likelihood of the leave-one-out errors by which settings are weighed. The errors of one
/// device depend on each other, so they count as half as many. Chosen, with the other constants here,
/// by leaving devices out on the tables of `docs/benchmarks/predictor.md`.
const TEMPER: f64 = 0.5;
/// With more samples than this, settings are weighed on that many of them, and the best few are fitted
/// on all.
const WEIGHED: usize = 100;
/// How many those few are.
const REFITTED: usize = 4;
/// Share of cases in which intervals should hold the truth.
const COVERAGE: f64 = 0.9;

/// Intervals are wider by this over the number of samples, as a share: settings are chosen by the very
/// errors that intervals are made of, and the fewer samples, the more that flatters.
const WIDENING: f64 = 4.0;

/// A prediction further than this beyond the samples' range, as a share, is extrapolated.
const RANGE_MARGIN: f64 = 0.1;

/// A predicted latency with its 90 % interval, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Prediction.
    pub mean: f64,
    /// Upper end.
    pub high: f64,
}

/// A sum of one latency per (position, operation), which is the posterior mean of a Gaussian linear
/// model under a [`Prior`], averaged over settings of that prior. Errors count relative to the latency
/// everywhere. Settings are weighed by their leave-one-out errors, in closed form: for the kernel matrix
/// `A` (rows and columns divided by the latencies, noise on the diagonal), the relative error without a
/// sample is `(A⁻¹1)ᵢ / (A⁻¹)ᵢᵢ` (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006,
/// eq. 5.12).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TablePredictor {
    intercept: f64,
    table: Vec<f64>,
    /// Relative errors of each sample when predicted without it.
    errors: Vec<f64>,
    /// Conformal quantile of |error| relative to the prediction.
    quantile: f64,
    /// Share of the variance that each group of features has a priori, averaged over settings.
    shares: Vec<(String, f64)>,
    /// What was measured, in order.
    samples: BTreeSet<Codes>,
    /// Least and greatest latency of the samples, milliseconds.
    range: (f64, f64),
    /// Whether each (position, operation) occurs in a sample or a source.
    seen: Vec<bool>,
    /// What the sum leaves over, where cross-validation says that it can be told.
    interactions: Option<Interactions>,
}

/// One setting of a prior.
#[derive(Clone, Debug)]
struct Setting {
    variances: Vec<f64>,
    /// One source that the target is mostly a scaled and shifted copy of, and the variance of that.
    proxy: Option<(usize, f64)>,
    noise: f64,
    /// Logarithm of its weight before anything is measured.
    belief: f64,
}

/// A setting, fitted.
struct Candidate {
    setting: Setting,
    /// `A⁻¹·1`, with the rows' scales taken out.
    dual: Vec<f64>,
    errors: Vec<f64>,
}

impl TablePredictor {
    /// Fits the latencies (milliseconds) that were measured of some architectures of a device.
    ///
    /// # Errors
    /// [`PredictorError`] with fewer than 5 samples, or one that is no latency.
    pub fn fit(prior: &Prior, codes: &[&Codes], latencies: &[f64]) -> Result<Self, PredictorError> {
        check("", codes.len(), latencies)?;
        let data = Data::new(prior, codes, latencies);
        let settings = settings(prior.blocks.len(), prior.source_features().map_or(0, |(_, count)| count));
        let singular = || PredictorError::Singular { device: String::new() };
        let candidates: Vec<Candidate> = if codes.len() <= WEIGHED {
            settings.into_iter().filter_map(|setting| data.solve(setting)).collect()
        } else {
            // The samples come in any order: a shuffled part of them stands for all.
            let part = Data::new(prior, &spread(codes), &spread(latencies));
            let mut few: Vec<Candidate> =
                settings.into_iter().filter_map(|setting| part.solve(setting)).collect();
            few.sort_by(|left, right| square(&left.errors).total_cmp(&square(&right.errors)));
            few.truncate(REFITTED);
            // With so many samples, what was believed before counts for nothing.
            let again = |candidate: Candidate| data.solve(Setting { belief: 0.0, ..candidate.setting });
            few.into_iter().filter_map(again).collect()
        };
        if candidates.is_empty() {
            return Err(singular());
        }
        let mut predictor = data.average(prior, codes, &candidates);
        let operations = prior.encoding.choices().len();
        if let Some((interactions, errors)) = Interactions::fit(operations, codes, &predictor.errors)? {
            predictor.interactions = Some(interactions);
            predictor.quantile = conformal(&errors);
            predictor.errors = errors;
        }
        Ok(predictor)
    }

    /// Predicted latency in milliseconds.
    pub fn predict(&self, codes: &Codes) -> f64 {
        let sum = (self.intercept + look_up(&self.table, codes)).max(0.0);
        self.interactions.as_ref().map_or(sum, |interactions| sum * interactions.ratio(codes))
    }

    /// Whether the sum is corrected for interactions of positions. That needs a hundred samples, and a
    /// cross-validated error that falls by a twentieth.
    pub const fn interacts(&self) -> bool {
        self.interactions.is_some()
    }

    /// Predicted latency with its interval. From the errors of the samples, each predicted without
    /// itself, as conformal prediction does; with fewer than 9 samples none would be wide enough, and
    /// the largest error is taken.
    pub fn interval(&self, codes: &Codes) -> Interval {
        let mean = self.predict(codes);
        Interval { low: (mean * (1.0 - self.quantile)).max(0.0), mean, high: mean * (1.0 + self.quantile) }
    }

    /// How the prediction is come by. [`Source::Measured`]: the architecture is one of the samples (the
    /// prediction is still the model's, which smooths what was measured). [`Source::Extrapolated`]: an
    /// operation at a position occurs neither in the samples nor in a source, or the prediction is more
    /// than a tenth below the fastest or above the slowest sample.
    pub fn source(&self, codes: &Codes) -> Source {
        if self.samples.contains(codes) {
            return Source::Measured;
        }
        let operations = self.seen.len() / codes.0.len();
        let columns = self.seen.chunks_exact(operations).zip(&codes.0);
        let is_known = columns.into_iter().all(|(entries, &code)| entries[usize::from(code)]);
        let (low, high) = (self.range.0 * (1.0 - RANGE_MARGIN), self.range.1 * (1.0 + RANGE_MARGIN));
        if is_known && (low..=high).contains(&self.predict(codes)) {
            Source::Interpolated
        } else {
            Source::Extrapolated
        }
    }

    /// Factor on a prediction that the truth stays below with probability `level` (0.5 to below 1), from
    /// the errors of the samples, each predicted without itself.
    pub fn safety_factor(&self, level: f64) -> f64 {
        safety_factor(&self.errors, level)
    }

    /// Predicted latencies of many architectures in milliseconds, on all of rayon's threads.
    pub fn predict_all(&self, codes: &[Codes]) -> Vec<f64> {
        codes.par_iter().with_min_len(1024).map(|codes| self.predict(codes)).collect()
    }

    /// Relative errors `(measured − predicted) / measured` of the samples, each predicted without it.
    pub fn leave_one_out(&self) -> &[f64] {
        &self.errors
    }

    /// How much each group of features of the [`Prior`] is believed, as its share of the variance; groups
    /// at zero were switched off. They sum to one, less what settings without any group weigh.
    pub fn shares(&self) -> &[(String, f64)] {
        &self.shares
    }
}

/// Up to [`WEIGHED`] of the items, evenly over the list.
fn spread<T: Copy>(items: &[T]) -> Vec<T> {
    (0..WEIGHED).map(|index| items[index * items.len() / WEIGHED]).collect()
}

fn square(errors: &[f64]) -> f64 {
    dot(errors, errors) / errors.len() as f64
}

/// Settings to try, the same in every fit: predictions depend on the samples alone.
fn settings(blocks: usize, sources: usize) -> Vec<Setting> {
    let one = |index| {
        let mut stream = Stream::new(0, "settings of a latency prior", index);
        let mut between = |(low, high): (f64, f64)| 10_f64.powf(stream.random_range(low..high));
        let noise = between(NOISE);
        let variances: Vec<f64> = (0..blocks).map(|_| between(VARIANCE)).collect();
        let proxy = (index >= CANDIDATES).then(|| (index as usize % sources, between(PROXY_VARIANCE)));
        let off = if proxy.is_some() { OFF_BESIDE_PROXY } else { OFF };
        let on = |variance| if stream.random_bool(off) { 0.0 } else { variance };
        Setting { variances: variances.into_iter().map(on).collect(), proxy, noise, belief: 0.0 }
    };
    let count = if sources == 0 { CANDIDATES } else { 2 * CANDIDATES };
    let copies = (0..sources).flat_map(|source| {
        COPY_NOISE.map(|noise| Setting {
            variances: vec![0.0; blocks],
            proxy: Some((source, COPY_VARIANCE)),
            noise,
            belief: COPY_WEIGHT.ln(),
        })
    });
    (0..count).map(one).chain(copies).collect()
}

/// Samples in the units of the fit.
struct Data {
    mean: f64,
    /// Standard deviation of the latencies over their mean.
    deviation: f64,
    /// Latencies over their mean.
    latencies: Vec<f64>,
    /// Features of the samples, by group.
    features: Vec<Vec<Vec<f64>>>,
    /// Inner products of the features, by group, in units of the latencies' variance.
    kernels: Vec<Square>,
    /// Index of the group with one feature per source, and how many those are.
    sources: Option<(usize, usize)>,
}

impl Data {
    fn new(prior: &Prior, codes: &[&Codes], latencies: &[f64]) -> Self {
        let count = latencies.len();
        let mean = latencies.iter().sum::<f64>() / count as f64;
        let squares = latencies.iter().map(|latency| (latency / mean - 1.0).powi(2)).sum::<f64>();
        // Samples that are all alike leave no scale: then a thousandth of the mean is one.
        let deviation = (squares / count as f64).sqrt().max(1e-3);
        Self::with_units(prior, codes, latencies, mean, deviation)
    }

    fn with_units(prior: &Prior, codes: &[&Codes], latencies: &[f64], mean: f64, deviation: f64) -> Self {
        let count = latencies.len();
        let latencies: Vec<f64> = latencies.iter().map(|latency| latency / mean).collect();
        let features: Vec<Vec<Vec<f64>>> = prior
            .blocks
            .iter()
            .map(|block| codes.iter().map(|codes| block.features(codes)).collect())
            .collect();
        let kernels = features
            .iter()
            .map(|features| {
                let mut kernel = Square::zeros(count);
                for i in 0..count {
                    for j in 0..=i {
                        let product = dot(&features[i], &features[j]) * deviation * deviation;
                        let entry = product / (latencies[i] * latencies[j]);
                        kernel.row_mut(i)[j] = entry;
                        kernel.row_mut(j)[i] = entry;
                    }
                }
                kernel
            })
            .collect();
        Self { mean, deviation, latencies, features, kernels, sources: prior.source_features() }
    }

    fn solve(&self, setting: Setting) -> Option<Candidate> {
        let count = self.latencies.len();
        let mut matrix = Square::zeros(count);
        for (kernel, variance) in self.kernels.iter().zip(&setting.variances) {
            if *variance > 0.0 {
                for (total, entry) in matrix.values.iter_mut().zip(&kernel.values) {
                    *total += variance * entry;
                }
            }
        }
        if let (Some((source, variance)), Some((group, sources))) = (setting.proxy, self.sources) {
            // All sources together have unit variance; one alone shall have it too.
            let scale = (variance * sources as f64).sqrt() * self.deviation;
            let features: Vec<f64> = self.features[group]
                .iter()
                .zip(&self.latencies)
                .map(|(features, latency)| scale * features[source] / latency)
                .collect();
            for (i, left) in features.iter().enumerate() {
                for (entry, right) in matrix.row_mut(i).iter_mut().zip(&features) {
                    *entry += left * right;
                }
            }
        }
        for i in 0..count {
            for j in 0..count {
                matrix.row_mut(i)[j] += MEAN_VARIANCE / (self.latencies[i] * self.latencies[j]);
            }
            matrix.row_mut(i)[i] += (setting.noise * self.deviation).powi(2);
        }
        let lower = matrix.cholesky()?;
        let solution = lower.solve(&vec![1.0; count]);
        let errors: Vec<f64> =
            solution.iter().zip(lower.inverse_diagonal()).map(|(value, diagonal)| value / diagonal).collect();
        let dual: Vec<f64> =
            solution.iter().zip(&self.latencies).map(|(value, latency)| value / latency).collect();
        let finite = dual.iter().chain(&errors).all(|value| value.is_finite());
        // One that orders the samples otherwise is no proxy (as `ScaleAndShift` refuses it).
        let left_out = || -> Vec<f64> {
            errors.iter().zip(&self.latencies).map(|(error, latency)| (1.0 - error) * latency).collect()
        };
        if setting.belief > 0.0 && spearman(&left_out(), &self.latencies) < COPY_CORRELATION {
            return None;
        }
        finite.then_some(Candidate { setting, dual, errors })
    }

    /// Adds to the coefficients of the sources what proxies contribute.
    fn add_proxies(&self, candidates: &[Candidate], weights: &[f64], coefficients: &mut [f64]) {
        let Some((group, sources)) = self.sources else { return };
        for (candidate, weight) in candidates.iter().zip(weights) {
            if let Some((source, variance)) = candidate.setting.proxy {
                let features = self.features[group].iter().map(|features| features[source]);
                let product: f64 = features.zip(&candidate.dual).map(|(feature, dual)| feature * dual).sum();
                let scale = variance * sources as f64 * self.deviation * self.deviation;
                coefficients[source] += weight * scale * product;
            }
        }
    }

    /// The average of the candidates, weighed by their leave-one-out errors.
    fn average(&self, prior: &Prior, codes: &[&Codes], candidates: &[Candidate]) -> TablePredictor {
        let count = self.latencies.len();
        let weights = weights(candidates, None);
        let (mut intercept, mut table) = (0.0, vec![0.0; prior.encoding.columns()]);
        let mut shares = vec![0.0; prior.blocks.len()];
        for (index, block) in prior.blocks.iter().enumerate() {
            // Coefficients of all candidates first: they share the features.
            let is_sources = self.sources.is_some_and(|(group, _)| group == index);
            let mut dual = vec![0.0; count];
            for (candidate, weight) in candidates.iter().zip(&weights) {
                let variance = candidate.setting.variances[index];
                let proxy = candidate.setting.proxy.map_or(0.0, |(_, variance)| variance);
                let total: f64 = candidate.setting.variances.iter().sum::<f64>() + proxy;
                let variance_of_proxy = if is_sources { proxy } else { 0.0 };
                shares[index] += weight * (variance + variance_of_proxy) / total.max(f64::MIN_POSITIVE);
                for (sum, value) in dual.iter_mut().zip(&candidate.dual) {
                    *sum += weight * variance * self.deviation * self.deviation * value;
                }
            }
            let mut coefficients = vec![0.0; self.features[index][0].len()];
            for (features, dual) in self.features[index].iter().zip(&dual) {
                for (coefficient, feature) in coefficients.iter_mut().zip(features) {
                    *coefficient += dual * feature;
                }
            }
            if is_sources {
                self.add_proxies(candidates, &weights, &mut coefficients);
            }
            block.collapse(&coefficients, &mut intercept, &mut table);
        }
        for (candidate, weight) in candidates.iter().zip(&weights) {
            intercept += weight * MEAN_VARIANCE * candidate.dual.iter().sum::<f64>();
        }
        // The weight of a candidate must not depend on the very error that it is to foretell.
        let errors: Vec<f64> = (0..count)
            .map(|sample| {
                let weights = self::weights(candidates, Some(sample));
                candidates
                    .iter()
                    .zip(weights)
                    .map(|(candidate, weight)| weight * candidate.errors[sample])
                    .sum()
            })
            .collect();
        let mut seen = prior.seen.clone();
        for codes in codes {
            mark(&mut seen, codes);
        }
        let extreme = |pick: fn(f64, f64) -> f64, start: f64| {
            self.mean * self.latencies.iter().copied().fold(start, pick)
        };
        TablePredictor {
            samples: codes.iter().copied().cloned().collect(),
            range: (extreme(f64::min, f64::INFINITY), extreme(f64::max, 0.0)),
            seen,
            interactions: None,
            intercept: intercept * self.mean,
            table: table.into_iter().map(|entry| entry * self.mean).collect(),
            quantile: conformal(&errors),
            errors,
            shares: prior.blocks.iter().map(|block| block.name.to_owned()).zip(shares).collect(),
        }
    }
}

/// Weights that sum to one: the likelihood of the leave-one-out errors under a normal distribution of
/// unknown variance, `(Σ error²)^(−n/2)`, tempered, times what was believed of the setting before; without the error of one sample if so asked.
fn weights(candidates: &[Candidate], without: Option<usize>) -> Vec<f64> {
    let score = |candidate: &Candidate| {
        let all = dot(&candidate.errors, &candidate.errors);
        let left_out = without.map_or(0.0, |sample| candidate.errors[sample].powi(2));
        let count = candidate.errors.len() - usize::from(without.is_some());
        // Rounding can leave a little less than nothing.
        candidate.setting.belief - TEMPER * 0.5 * count as f64 * (all - left_out).max(1e-30).ln()
    };
    let scores: Vec<f64> = candidates.iter().map(score).collect();
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - best).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// The error relative to the prediction that [`COVERAGE`] of new cases stay below, from errors relative
/// to the measurement: the ⌈(n + 1)·coverage⌉-th smallest, widened.
fn conformal(errors: &[f64]) -> f64 {
    let of_prediction = |error: &f64| (error / (1.0 - error).max(1e-3)).abs();
    let mut scores: Vec<f64> = errors.iter().map(of_prediction).collect();
    scores.sort_by(f64::total_cmp);
    let rank = ((scores.len() + 1) as f64 * COVERAGE).ceil() as usize;
    scores[rank.clamp(1, scores.len()) - 1] * (1.0 + WIDENING / scores.len() as f64)
}

/// Leave-one-out errors of one setting by the formula, and by fitting without each sample in turn.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(super) fn leave_one_out_twice(
    prior: &Prior,
    codes: &[&Codes],
    latencies: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let variances = vec![0.1; prior.blocks.len()];
    let data = Data::new(prior, codes, latencies);
    let setting = Setting { variances, proxy: None, noise: 0.1, belief: 0.0 };
    let errors = data.solve(setting.clone()).unwrap().errors;
    let again = (0..codes.len()).map(|left_out| {
        let without = |index: &usize| *index != left_out;
        let rest: Vec<usize> = (0..codes.len()).filter(without).collect();
        let codes_left: Vec<&Codes> = rest.iter().map(|&index| codes[index]).collect();
        let latencies_left: Vec<f64> = rest.iter().map(|&index| latencies[index]).collect();
        // The same units as with all samples: they are part of the setting.
        let part = Data::with_units(prior, &codes_left, &latencies_left, data.mean, data.deviation);
        let candidate = part.solve(setting.clone()).unwrap();
        let predictor = part.average(prior, &codes_left, &[candidate]);
        1.0 - predictor.predict(codes[left_out]) / latencies[left_out]
    });
    (errors, again.collect())
}
