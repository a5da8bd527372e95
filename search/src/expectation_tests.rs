//! How good the expectation is, by numbers: what it was found to be before it was built, checked again.

#![allow(clippy::unwrap_used, reason = "tests")]

use lathe_latency_db::CostTable;
use lathe_spaces::{Micros, Space, Stream};
use rand::{Rng, RngExt as _};

use crate::{Scores, derive_unconstrained, expected_latency, fixtures, objective::inclusion};

/// A draw from the standard normal distribution (Box & Muller 1958).
fn normal(random: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
}

#[test]
fn inclusion_is_that_of_four_hundred_thousand_draws() {
    // Five edges, as the last node of a DARTS cell has; the two with the largest logit + Gumbel noise are kept.
    let logits = [-0.5, 0.1, 1.4, 0.9, -2.0];
    let draws = 400_000;
    let mut random = Stream::new(1, "test expectation", 0);
    let mut counts = [0usize; 5];
    for _ in 0..draws {
        let noisy = logits.map(|logit| logit - (-(1.0 - random.random::<f64>()).ln()).ln());
        let largest = |but: Option<usize>| {
            let items = (0..5).filter(|item| Some(*item) != but);
            items.max_by(|&a, &b| noisy[a].total_cmp(&noisy[b])).unwrap()
        };
        let first = largest(None);
        counts[first] += 1;
        counts[largest(Some(first))] += 1;
    }
    let errors = inclusion(&logits, 2).into_iter().zip(counts);
    let errors: Vec<f64> = errors.map(|(exact, count)| exact - count as f64 / f64::from(draws)).collect();
    // A share of 400,000 draws has a standard deviation of at most 0.8e-3.
    let size = (errors.iter().map(|error| error * error).sum::<f64>() / 5.0).sqrt();
    assert!(size < 1e-3 && errors.iter().all(|error| error.abs() < 2.5e-3), "{errors:?}");
}

/// Costs as a processor has them: a skip connection is nearly free, a large convolution costs a hundred of it.
fn table(space: &Space) -> CostTable {
    let mut table = fixtures::table(space, 1);
    table.fixed = Micros::ZERO;
    for (choice, cost) in table.slots.iter_mut().flat_map(|slot| slot.choices.iter_mut()) {
        let typical = match choice.as_str() {
            "skip_connect" => 0.5,
            "sep_conv_3x3" => 60.0,
            "sep_conv_5x5" => 100.0,
            "dil_conv_3x3" => 30.0,
            "dil_conv_5x5" => 50.0,
            _ => 8.0,
        };
        // No two edges cost the same: 0.8 to 1.25 times.
        *cost = Micros(typical * (0.8 + 0.45 * cost.0 / 100.0));
    }
    table
}

/// Over many networks of one sharpness: median of expected / deployed, mean |expected / deployed − 1|, and the
/// correlation of the two.
fn quality(space: &Space, scale: f64, temperature: f64) -> [f64; 3] {
    let (table, mut pairs) = (table(space), Vec::new());
    for seed in 0..300 {
        let mut random = Stream::new(seed, "test expectation", 1);
        let mut scores = Scores::uniform(space);
        for logit in scores.alpha.iter_mut().flatten().chain(&mut scores.beta) {
            *logit = scale * normal(&mut random);
        }
        let deployed = table.mean(space, &derive_unconstrained(space, &scores)).unwrap().0;
        pairs.push((expected_latency(space, &scores, &table, temperature).0, deployed));
    }
    let count = pairs.len() as f64;
    let mut ratios: Vec<f64> = pairs.iter().map(|(expected, deployed)| expected / deployed).collect();
    ratios.sort_by(f64::total_cmp);
    let error = ratios.iter().map(|ratio| (ratio - 1.0).abs()).sum::<f64>() / count;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(&|pair| pair.0), mean(&|pair| pair.1));
    let product = mean(&|pair| (pair.0 - x) * (pair.1 - y));
    let spread = [mean(&|pair| (pair.0 - x).powi(2)), mean(&|pair| (pair.1 - y).powi(2))];
    [ratios[ratios.len() / 2], error, product / (spread[0] * spread[1]).sqrt()]
}

#[test]
fn at_a_low_temperature_the_expectation_is_what_ships() {
    let space = fixtures::darts();
    let mut last = f64::INFINITY;
    for (scale, band, least) in [(0.3, 0.16, 0.85), (1.0, 0.10, 0.93), (3.0, 0.04, 0.98), (10.0, 0.02, 0.99)]
    {
        let [median, error, correlation] = quality(&space, scale, 0.1);
        assert!(
            (median - 1.0).abs() < 0.02,
            "logits of {scale}: expected / deployed is {median} at the median"
        );
        assert!(error < band && error < last, "logits of {scale}: mean error {error}");
        assert!(correlation > least, "logits of {scale}: correlation {correlation}");
        last = error;
    }
    // The relaxation that a search begins with says much less of the one network.
    assert!(quality(&space, 1.0, 1.0)[1] > 2.0 * quality(&space, 1.0, 0.1)[1]);
}
