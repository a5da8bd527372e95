//! Rank correlations with intervals.

use lathe_latency_db::spearman;
use lathe_spaces::Stream;
use rand::RngExt as _;
use rayon::prelude::*;
use serde::Serialize;

/// Resamples of the bootstrap.
const RESAMPLES: u64 = 1000;

/// How far two orders agree.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Spearman's rank correlation.
    pub spearman: f64,
    /// Its 95 % interval.
    pub spearman_95: [f64; 2],
    /// Kendall's tau-b.
    pub kendall: f64,
    /// Its 95 % interval.
    pub kendall_95: [f64; 2],
}

/// Rank correlations of pairs; intervals are the 2.5 and 97.5 % quantiles over 1,000 resamples of the pairs
/// (Efron 1979), the same whatever the number of threads.
pub fn agreement(pairs: &[(f64, f64)], seed: u64) -> Agreement {
    let of = |pairs: &[(f64, f64)]| {
        let (left, right): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        (spearman(&left, &right), kendall(pairs))
    };
    let resample = |index| {
        let mut stream = Stream::new(seed, "bootstrap", index);
        let drawn: Vec<(f64, f64)> =
            pairs.iter().map(|_| pairs[stream.random_range(0..pairs.len())]).collect();
        of(&drawn)
    };
    let (spearman, kendall) = of(pairs);
    let (spearmans, kendalls): (Vec<f64>, Vec<f64>) = (0..RESAMPLES).into_par_iter().map(resample).unzip();
    Agreement { spearman, spearman_95: interval(spearmans), kendall, kendall_95: interval(kendalls) }
}

fn interval(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [0.025, 0.975].map(|share| values[((values.len() - 1) as f64 * share).round() as usize])
}

/// Kendall's tau-b: concordant less discordant pairs, over the geometric mean of the pairs that differ
/// on each side. Zero if one side is constant.
pub fn kendall(pairs: &[(f64, f64)]) -> f64 {
    let (mut score, mut left, mut right) = (0i64, 0i64, 0i64);
    for (index, first) in pairs.iter().enumerate() {
        for second in &pairs[index + 1..] {
            let a = first.0.total_cmp(&second.0) as i64;
            let b = first.1.total_cmp(&second.1) as i64;
            score += a * b;
            left += a * a;
            right += b * b;
        }
    }
    let norm = (left as f64 * right as f64).sqrt();
    if norm > 0.0 { score as f64 / norm } else { 0.0 }
}
