//! Which architectures are worth measuring.

use lathe_spaces::Stream;
use rand::seq::SliceRandom;

use super::{encoding::Codes, prior::Prior};
use crate::linear::dot;

/// Candidates that are looked at.
const LOOKED_AT: usize = 2000;
/// Variance of the noise, relative to that of the latencies.
const NOISE: f64 = 0.01;

/// The next `count` architectures to measure, as indices into `candidates`, the most telling first:
/// greedy Bayesian D-optimality, that is, always the architecture whose latency is least certain given
/// those chosen before it and those `measured` already, with all groups of features of the prior
/// weighed alike. More than 2,000 candidates are thinned at random. The same seed chooses the same;
/// what is measured already is not chosen, and nothing is chosen twice.
pub fn select_next(
    prior: &Prior,
    measured: &[&Codes],
    candidates: &[&Codes],
    count: usize,
    seed: u64,
) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.shuffle(&mut Stream::new(seed, "candidates of a design", 0));
    order.retain(|&index| !measured.contains(&candidates[index]));
    order.truncate(LOOKED_AT);
    // Measured architectures come first in the list, and are taken first.
    let codes: Vec<&Codes> =
        measured.iter().copied().chain(order.iter().map(|&index| candidates[index])).collect();
    let scale = (1.0 / prior.blocks.len().max(1) as f64).sqrt();
    let features: Vec<Vec<f64>> = codes
        .iter()
        .map(|codes| {
            let blocks = prior.blocks.iter().flat_map(|block| block.features(codes));
            std::iter::once(1.0).chain(blocks.map(|feature| scale * feature)).collect()
        })
        .collect();
    let mut variances: Vec<f64> = features.iter().map(|features| dot(features, features)).collect();
    // Rows of the Cholesky factor: covariance with each chosen one, over its standard deviation.
    let mut factors: Vec<Vec<f64>> = vec![Vec::new(); codes.len()];
    let mut taken = vec![false; codes.len()];
    let mut chosen = Vec::new();
    for step in 0..measured.len() + count.min(order.len()) {
        let uncertain = |&index: &usize| {
            !taken[index] && !chosen.iter().any(|&other: &usize| codes[other] == codes[index])
        };
        let next = if step < measured.len() {
            Some(step)
        } else {
            let free = (measured.len()..codes.len()).filter(uncertain);
            free.max_by(|&left, &right| variances[left].total_cmp(&variances[right]))
        };
        let Some(next) = next else { break };
        taken[next] = true;
        if step >= measured.len() {
            chosen.push(next);
        }
        let pivot = (variances[next] + NOISE).sqrt();
        let (row, base) = (factors[next].clone(), features[next].clone());
        for (index, factor) in factors.iter_mut().enumerate() {
            let value = (dot(&features[index], &base) - dot(factor, &row)) / pivot;
            factor.push(value);
            variances[index] = (variances[index] - value * value).max(0.0);
        }
    }
    chosen.into_iter().map(|index| order[index - measured.len()]).collect()
}
