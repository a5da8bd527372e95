//! How small a difference a device can show.

use std::ops::ControlFlow;

use lathe_latency_db::{Measurement, Outcome, Protocol};
use lathe_spaces::Workload;

use crate::{Job, Runner, RunnerError};

/// Result of an A/A test: the same workload measured twice, many times over.
#[derive(Clone, Debug, PartialEq)]
pub struct Noise {
    /// Smallest relative difference that is not noise: the 95 % quantile of |ratio − 1|, interpolated
    /// between order statistics. A difference below it is one that two measurements of the same
    /// workload show in one case of twenty or more.
    pub smallest_difference: f64,
    /// Number of pairs.
    pub pairs: usize,
    /// Median of A over median of B, per pair, in order.
    pub ratios: Vec<f64>,
    /// Relative change of the latency over the test: the median slope between any two pairs
    /// (Theil–Sen) times the number of steps, over the median of all.
    pub drift: f64,
}

/// Measures `workload` against itself, `pairs` times, A and B interleaved. `after_pair` gets the number
/// of pairs done and may break off; then there is no result.
///
/// Fails with fewer than two pairs, or if a measurement fails.
pub fn noise(
    runner: &mut dyn Runner,
    workload: &Workload,
    protocol: &Protocol,
    pairs: usize,
    seed: u64,
    after_pair: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Noise>, RunnerError> {
    if pairs < 2 {
        return Err(RunnerError::Noise(format!("{pairs} pairs are too few, at least 2 are needed")));
    }
    let both = [workload.clone(), workload.clone()];
    let mut medians = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        // What drifts is what is looked for: nothing is timed again.
        let rules = Protocol { retries: 0, ..*protocol };
        let job = Job::new(format!("noise-{pair}"), rules, seed.wrapping_add(pair as u64));
        let mut rows: Vec<Measurement> = Vec::with_capacity(2);
        runner.run(&both, &job, &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })?;
        let mut of_pair = Vec::with_capacity(2);
        for row in &rows {
            match row.summary() {
                Some(summary) if row.outcome == Outcome::Ok => of_pair.push(summary.median.0),
                _ => {
                    let why = row.error.clone().unwrap_or_else(|| "no samples".to_owned());
                    return Err(RunnerError::Noise(format!(
                        "`{}` ended with `{}`: {why}",
                        row.label, row.outcome
                    )));
                }
            }
        }
        match of_pair[..] {
            [a, b] => medians.push((a, b)),
            _ => return Err(RunnerError::Noise(format!("pair {pair} gave {} measurements", of_pair.len()))),
        }
        if after_pair(pair + 1).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(assess(&medians)))
}

/// Judges the medians of the pairs.
fn assess(medians: &[(f64, f64)]) -> Noise {
    let ratios: Vec<f64> = medians.iter().map(|(a, b)| a / b).collect();
    let mut distances: Vec<f64> = ratios.iter().map(|ratio| (ratio - 1.0).abs()).collect();
    let levels: Vec<f64> = medians.iter().map(|(a, b)| f64::midpoint(*a, *b)).collect();
    let mut slopes = Vec::new();
    for (first, earlier) in levels.iter().enumerate() {
        for (second, later) in levels.iter().enumerate().skip(first + 1) {
            slopes.push((later - earlier) / (second - first) as f64);
        }
    }
    let steps = medians.len().saturating_sub(1) as f64;
    let mut sorted = levels;
    let drift = quantile(&mut slopes, 0.5) * steps / quantile(&mut sorted, 0.5);
    Noise { smallest_difference: quantile(&mut distances, 0.95), pairs: medians.len(), ratios, drift }
}

/// Quantile with linear interpolation between order statistics; NaN of nothing.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let position = share * last as f64;
    let lower = position.floor() as usize;
    let upper = (lower + 1).min(last);
    values[lower] + (values[upper] - values[lower]) * (position - lower as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_pairs_have_no_noise_and_a_trend_is_drift() {
        let medians: Vec<(f64, f64)> = (0..11).map(|pair| f64::from(100 + pair)).map(|x| (x, x)).collect();
        let noise = assess(&medians);
        assert!(noise.smallest_difference.abs() < 1e-12);
        assert!((noise.drift - 10.0 / 105.0).abs() < 1e-12, "{}", noise.drift);
    }

    #[test]
    fn the_smallest_difference_is_a_high_quantile_of_both_directions() {
        let medians: Vec<(f64, f64)> = (0..=20)
            .map(|pair| (100.0 + f64::from(pair) * if pair % 2 == 0 { 1.0 } else { -1.0 }, 100.0))
            .collect();
        let noise = assess(&medians);
        assert!((noise.smallest_difference - 0.19).abs() < 1e-9, "{}", noise.smallest_difference);
        assert_eq!((noise.pairs, noise.ratios.len()), (21, 21));
    }
}
