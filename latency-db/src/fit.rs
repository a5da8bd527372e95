//! A predictor fitted end to end.

use std::collections::{BTreeMap, BTreeSet};

use lathe_spaces::{Genotype, Level, Micros, NetworkOptions, Precision, Space, Stream, Workload, WorkloadId};
use rand::seq::SliceRandom;

use crate::{
    CostTable, FitError, FitQuality, FoldPoint, Measurement, Provenance, SlotCosts, Summary,
    composition::{Coefficients, Setting, compose},
    parts::{Features, PartWorkloads, Pool, pooled},
};

/// Networks that a fit needs at least.
const LEAST_NETWORKS: usize = 5;
/// Below this number every network is a fold by itself.
const LEAVE_ONE_OUT_BELOW: usize = 10;
/// Folds of the cross-validation that chooses a model, inside a training set.
const INNER_FOLDS: usize = 5;

/// How to fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitOptions {
    /// Folds that the error is estimated with; below ten networks each is a fold by itself.
    pub folds: usize,
    /// Seed of the folds.
    pub seed: u64,
    /// Fit although the measurements are of different provenance. The table then carries the
    /// weakest of them.
    pub allow_mixed_provenance: bool,
    /// Fit times that were taken under an emulator.
    pub allow_emulated: bool,
    /// Numeric type of the rows that count; others are as if they weren't there.
    pub precision: Precision,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            folds: 5,
            seed: 0,
            allow_mixed_provenance: false,
            allow_emulated: false,
            precision: Precision::Fp32,
        }
    }
}

/// A fitted predictor.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// What the search sees.
    pub table: CostTable,
    /// Error on networks that it had not seen.
    pub quality: FitQuality,
    /// Coefficients of the composition: scales per choice and of the fixed part, then microseconds
    /// per operator and per network.
    pub coefficients: Vec<(String, f64)>,
}

struct Network {
    label: String,
    features: Features,
    summary: Summary,
}

impl Network {
    fn measured(&self) -> f64 {
        self.summary.median.0
    }
}

/// Fits a cost table to measured operators and measured networks of one device.
///
/// A network's latency is modelled as a scale times the sum of its operators' medians, plus a scale
/// times the fixed part, plus a cost per operator, plus a constant, none of them negative (kernel
/// composition as in nn-Meter, `MobiSys` 2021; fitting by non-negative least squares of the
/// relative error). Whether operators share a scale, and how strongly scales are pulled to 1, is
/// chosen by cross-validation. The error in `quality` is of networks that neither the fit nor that
/// choice had seen; the table itself is fitted to all. The model is linear in the picks, so the
/// table's entries reproduce it exactly.
///
/// `networks` are matched to measurements by the identity of their deployed graph; those without a
/// usable measurement are left out, and so are measurements that no part needs. Of several
/// measurements of a workload the usable one with the most samples counts.
pub fn fit(
    space: &Space,
    networks: &[(String, Genotype)],
    measurements: &[Measurement],
    options: &FitOptions,
) -> Result<Fitted, FitError> {
    if options.folds < 2 {
        return Err(FitError::Folds { folds: options.folds });
    }
    let workloads = PartWorkloads::of(space, options.precision)?;
    let mut asked: BTreeMap<WorkloadId, (&String, &Genotype)> = BTreeMap::new();
    let mut order = Vec::new();
    for (label, genotype) in networks {
        let graph = space.network(genotype, NetworkOptions::default())?.without_auxiliary();
        let id = Workload::new(label.as_str(), Level::Network, graph).at(options.precision).id();
        if asked.insert(id.clone(), (label, genotype)).is_none() {
            order.push(id);
        }
    }
    let mut needed = workloads.ids();
    needed.extend(asked.keys().cloned());
    let relevant: Vec<&Measurement> =
        measurements.iter().filter(|row| needed.contains(&row.workload)).collect();
    check_one_device(&relevant)?;
    check_provenance(&relevant, options)?;
    let best = pooled(&relevant);
    let parts = workloads.measured(&Pool::of(&best))?;
    let measured: Vec<Network> = order
        .iter()
        .filter_map(|id| {
            let (label, genotype) = asked.get(id)?;
            let summary = best.get(id)?.summary()?;
            Some(Network { label: (*label).clone(), features: parts.features(space, genotype), summary })
        })
        .collect();
    if measured.len() < LEAST_NETWORKS {
        return Err(FitError::TooFewNetworks {
            found: measured.len(),
            asked: order.len(),
            needed: LEAST_NETWORKS,
        });
    }

    let (folds, predicted) = held_out(&measured, options)?;
    let all: Vec<&Network> = measured.iter().collect();
    let (setting, coefficients) = train(&all, options.seed).ok_or_else(|| degenerate(&measured[0]))?;
    let quality = quality(setting, &measured, &folds, &predicted);
    let slots = parts
        .slots
        .iter()
        .map(|(slot, choices)| SlotCosts {
            slot: *slot,
            choices: choices
                .iter()
                .map(|(choice, part)| (choice.clone(), Micros(coefficients.cost(choice, *part))))
                .collect(),
        })
        .collect();
    let ratios: Vec<f64> =
        measured.iter().zip(&predicted).map(|(network, predicted)| network.measured() / predicted).collect();
    let medians = || measured.iter().map(Network::measured);
    let table = CostTable {
        space: space.name.clone(),
        device: relevant.first().map(|row| row.device.fingerprint()).unwrap_or_default(),
        provenance: best.values().map(|row| row.provenance).max().unwrap_or(Provenance::Measured),
        fixed: Micros(coefficients.fixed_cost(parts.fixed)),
        slots,
        relative_sigma: root_mean_square(ratios.iter().map(|ratio| ratio - 1.0)),
        ratio_quantiles: conformal(&ratios),
        measured_range: [
            Micros(medians().fold(f64::INFINITY, f64::min)),
            Micros(medians().fold(0.0, f64::max)),
        ],
    };
    Ok(Fitted { table, quality, coefficients: coefficients.named() })
}

fn check_one_device(rows: &[&Measurement]) -> Result<(), FitError> {
    let devices: BTreeMap<String, &str> =
        rows.iter().map(|row| (row.device.fingerprint(), row.device.name.as_str())).collect();
    if devices.len() > 1 {
        let devices = devices.iter().map(|(fingerprint, name)| format!("{fingerprint} `{name}`")).collect();
        return Err(FitError::MixedDevices { devices });
    }
    Ok(())
}

fn check_provenance(rows: &[&Measurement], options: &FitOptions) -> Result<(), FitError> {
    let kinds: BTreeSet<_> = rows.iter().filter(|row| row.usable()).map(|row| row.provenance).collect();
    if kinds.contains(&Provenance::Emulated) && !options.allow_emulated {
        return Err(FitError::Emulated);
    }
    if kinds.len() > 1 && !options.allow_mixed_provenance {
        return Err(FitError::MixedProvenance { kinds: kinds.iter().map(ToString::to_string).collect() });
    }
    Ok(())
}

fn degenerate(network: &Network) -> FitError {
    FitError::Degenerate { network: network.label.clone() }
}

/// A fold for each of `count` networks: shuffled, then dealt in turn.
pub(crate) fn deal(count: usize, folds: usize, seed: u64, purpose: &str) -> Vec<usize> {
    let folds = if count < LEAVE_ONE_OUT_BELOW { count } else { folds.min(count) };
    let mut dealt: Vec<usize> = (0..count).map(|place| place % folds).collect();
    dealt.shuffle(&mut Stream::new(seed, purpose, count as u64));
    dealt
}

/// Predictions by fits that had not seen the network, in microseconds, and the fold of each.
fn held_out(networks: &[Network], options: &FitOptions) -> Result<(Vec<usize>, Vec<f64>), FitError> {
    let folds = deal(networks.len(), options.folds, options.seed, "folds of a fit");
    let mut predicted = vec![0.0; networks.len()];
    for fold in 0..=folds.iter().copied().max().unwrap_or(0) {
        let training: Vec<&Network> = networks
            .iter()
            .zip(&folds)
            .filter(|(_, other)| **other != fold)
            .map(|(network, _)| network)
            .collect();
        let fitted = train(&training, options.seed);
        for (place, network) in networks.iter().enumerate().filter(|(place, _)| folds[*place] == fold) {
            let (_, coefficients) = fitted.as_ref().ok_or_else(|| degenerate(network))?;
            predicted[place] = coefficients.predict(&network.features);
            if !(predicted[place].is_finite() && predicted[place] > 0.0) {
                return Err(degenerate(network));
            }
        }
    }
    Ok((folds, predicted))
}

/// The whole procedure on a training set: choose a setting by cross-validation, fit it to all.
fn train(networks: &[&Network], seed: u64) -> Option<(Setting, Coefficients)> {
    let pairs: Vec<(&Features, f64)> =
        networks.iter().map(|network| (&network.features, network.measured())).collect();
    let folds = deal(pairs.len(), INNER_FOLDS, seed, "folds of a choice of model");
    let mut best: Option<(f64, Setting)> = None;
    for setting in Setting::candidates() {
        let Some(error) = inner_error(setting, &pairs, &folds) else { continue };
        // On a tie the stiffer setting, which comes first, stays.
        if best.is_none_or(|(least, _)| error < least) {
            best = Some((error, setting));
        }
    }
    let (_, setting) = best?;
    Some((setting, compose(setting, &pairs)?))
}

/// Mean relative error of a setting on the held-out parts of a training set.
fn inner_error(setting: Setting, pairs: &[(&Features, f64)], folds: &[usize]) -> Option<f64> {
    let mut total = 0.0;
    for fold in 0..=folds.iter().copied().max()? {
        let part = |inside: bool| {
            pairs
                .iter()
                .zip(folds)
                .filter(move |(_, other)| (**other == fold) == inside)
                .map(|(pair, _)| *pair)
        };
        let coefficients = compose(setting, &part(false).collect::<Vec<_>>())?;
        total += part(true)
            .map(|(features, measured)| (coefficients.predict(features) / measured - 1.0).abs())
            .sum::<f64>();
    }
    Some(total / pairs.len() as f64)
}

fn quality(setting: Setting, networks: &[Network], folds: &[usize], predicted: &[f64]) -> FitQuality {
    let point = |(network, predicted): (&Network, &f64)| FoldPoint {
        label: network.label.clone(),
        measured: network.summary,
        predicted: Micros(*predicted),
        parts: Some(Micros(network.features.sum())),
    };
    quality_of(setting.name(), networks.iter().zip(predicted).map(point).collect(), folds)
}

/// Figures of merit of held-out networks, each with its fold.
pub(crate) fn quality_of(model: String, points: Vec<FoldPoint>, folds: &[usize]) -> FitQuality {
    let measured: Vec<f64> = points.iter().map(|point| point.measured.median.0).collect();
    let predicted: Vec<f64> = points.iter().map(|point| point.predicted.0).collect();
    let error = |(predicted, measured): (&f64, &f64)| (predicted / measured - 1.0).abs();
    let errors: Vec<f64> = predicted.iter().zip(&measured).map(error).collect();
    let within = errors.iter().filter(|error| **error <= 0.1).count();
    let noise = |point: &FoldPoint| (point.measured.high - point.measured.low) / point.measured.median / 2.0;
    let noise = points.iter().map(noise).collect();
    let count = folds.iter().copied().max().map_or(0, |last| last + 1);
    FitQuality {
        model,
        folds: count,
        median_relative_error: median(errors.clone()),
        within_ten_percent: within as f64 / errors.len().max(1) as f64,
        spearman: spearman(&predicted, &measured),
        selection_regret: selection_regret(&measured, &predicted, folds, count),
        noise_floor: median(noise),
        points,
    }
}

/// Mean over folds of how much slower the predicted-fastest is than the fastest.
fn selection_regret(measured: &[f64], predicted: &[f64], folds: &[usize], count: usize) -> f64 {
    let alone = count == measured.len();
    let groups = if alone { 1 } else { count };
    let regret = |group: usize| {
        let members = || (0..measured.len()).filter(move |&place| alone || folds[place] == group);
        let chosen = members().min_by(|&left, &right| predicted[left].total_cmp(&predicted[right]))?;
        let fastest = members().map(|place| measured[place]).min_by(f64::total_cmp)?;
        Some(measured[chosen] / fastest - 1.0)
    };
    let regrets: Vec<f64> = (0..groups).filter_map(regret).collect();
    regrets.iter().sum::<f64>() / regrets.len().max(1) as f64
}

/// 5 % and 95 % quantiles of held-out ratios, with the finite-sample correction of conformal
/// prediction (Lei et al., JASA 2018, §2.2): the ⌈0.95·(n+1)⌉-th smallest of n and its mirror image,
/// the extremes when n is too small for that. The ratios come from several fits and not from one, so
/// the coverage is about, not at least, 90 %.
fn conformal(ratios: &[f64]) -> [f64; 2] {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = ((sorted.len() as f64 + 1.0) * 0.95).ceil() as usize;
    let rank = rank.clamp(1, sorted.len());
    [sorted[sorted.len() - rank], sorted[rank - 1]]
}

fn root_mean_square(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    (values.map(|value| value * value).sum::<f64>() / count).sqrt()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// Spearman's rank correlation; ties share their mean rank. Zero if one side is constant.
pub fn spearman(left: &[f64], right: &[f64]) -> f64 {
    let left = ranks(left);
    let right = ranks(right);
    let middle = (left.len() as f64 - 1.0) / 2.0;
    let product =
        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - middle) * (b - middle)).sum::<f64>();
    let norm = (product(&left, &left) * product(&right, &right)).sqrt();
    if norm > 0.0 { product(&left, &right) / norm } else { 0.0 }
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: f64| {
        let below = values.iter().filter(|&&other| other < value).count() as f64;
        let equal = values.iter().filter(|&&other| other.total_cmp(&value).is_eq()).count() as f64;
        below + (equal - 1.0) / 2.0
    };
    values.iter().map(|&value| rank(value)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::float_cmp, reason = "tests")]
#[path = "fit_tests.rs"]
mod tests;
