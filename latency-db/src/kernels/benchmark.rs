//! How well a few timed networks predict the others.

use lathe_spaces::Stream;
use rand::seq::SliceRandom;
use serde::Serialize;

use super::{Fusion, KernelError, KernelModel, TimedGraph};

/// Folds where too few networks are left for a test.
const FOLDS: usize = 10;
/// Least share of the networks that a test must have.
const LEAST_TEST: f64 = 0.15;
/// Least number of networks.
const LEAST: usize = 20;

/// Figures of one method at one number of training networks, over all splits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkBenchmarkRow {
    /// `kernel_model`, or `macs`: a line in multiply-accumulates, fitted to relative errors.
    pub method: &'static str,
    /// Networks that each fit saw.
    pub training: usize,
    /// Splits into training and test.
    pub splits: usize,
    /// Tests over all splits.
    pub tested: usize,
    /// Median of |predicted / measured − 1|.
    pub median_relative_error: f64,
    /// Share within ±5 %.
    pub within_five_percent: f64,
    /// Share within ±10 %.
    pub within_ten_percent: f64,
    /// Share of measurements inside the 90 % interval, for methods that give one.
    pub coverage_90: Option<f64>,
    /// Median width of the interval, relative to the prediction.
    pub interval_width: Option<f64>,
    /// Median over the networks of the relative half-width of their measurements' own 95 % intervals:
    /// errors below it can't be told from noise.
    pub noise_floor: f64,
}

#[derive(Default)]
struct Errors {
    relative: Vec<f64>,
    covered: usize,
    widths: Vec<f64>,
}

/// Fits on `training` random networks and tests on all others, `repeats` times. Where fewer than 15 %
/// of the networks would be left, every network is tested once in ten folds, and `training` in the
/// rows is what a fold has.
///
/// # Errors
/// [`KernelError::TooFew`] below twenty networks, and what a fit may say.
pub fn benchmark(
    networks: &[TimedGraph],
    training: usize,
    repeats: usize,
    seed: u64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<NetworkBenchmarkRow>, KernelError> {
    if networks.len() < LEAST {
        return Err(KernelError::TooFew { needed: LEAST, got: networks.len() });
    }
    let splits = splits(networks.len(), training, repeats, seed);
    let (mut model_errors, mut line_errors) = (Errors::default(), Errors::default());
    for (done, (train, test)) in splits.iter().enumerate() {
        let known: Vec<TimedGraph> = train.iter().map(|&index| networks[index].clone()).collect();
        let model = KernelModel::fit(&known, &Fusion::common())?;
        let line = Line::fit(&known);
        for network in test.iter().map(|&index| &networks[index]) {
            let latency = network.latency.0;
            let answer = model.predict_kernels(&network.kernels).prediction;
            model_errors.relative.push((answer.mean.0 / latency - 1.0).abs());
            model_errors.covered += usize::from((answer.low.0..=answer.high.0).contains(&latency));
            model_errors.widths.push((answer.high - answer.low).0 / answer.mean.0);
            line_errors.relative.push((line.at(network) / latency - 1.0).abs());
        }
        progress(done + 1, splits.len());
    }
    let noise_floor = median(networks.iter().map(|network| network.noise).collect());
    let training = splits.first().map_or(0, |(train, _)| train.len());
    let row = |method, errors: Errors, intervals: bool| {
        let tested = errors.relative.len();
        let within = |limit: f64| {
            errors.relative.iter().filter(|error| **error <= limit).count() as f64 / tested as f64
        };
        NetworkBenchmarkRow {
            method,
            training,
            splits: splits.len(),
            tested,
            within_five_percent: within(0.05),
            within_ten_percent: within(0.10),
            coverage_90: intervals.then(|| errors.covered as f64 / tested as f64),
            interval_width: intervals.then(|| median(errors.widths)),
            median_relative_error: median(errors.relative),
            noise_floor,
        }
    };
    Ok(vec![row("kernel_model", model_errors, true), row("macs", line_errors, false)])
}

/// Indices for training and for testing.
fn splits(networks: usize, training: usize, repeats: usize, seed: u64) -> Vec<(Vec<usize>, Vec<usize>)> {
    let shuffled = |purpose, index| {
        let mut order: Vec<usize> = (0..networks).collect();
        order.shuffle(&mut Stream::new(seed, purpose, index));
        order
    };
    if (networks.saturating_sub(training) as f64) < LEAST_TEST * networks as f64 {
        let order = shuffled("folds of timed networks", 0);
        let place = |test: bool, fold: usize| {
            let of_fold = order.iter().enumerate().filter(move |(place, _)| (place % FOLDS == fold) == test);
            of_fold.map(|(_, &index)| index).collect()
        };
        return (0..FOLDS).map(|fold| (place(false, fold), place(true, fold))).collect();
    }
    let split = |repeat| {
        let mut train = shuffled("splits of timed networks", repeat as u64);
        let test = train.split_off(training);
        (train, test)
    };
    (0..repeats).map(split).collect()
}

/// Latency as a line in multiply-accumulates, fitted to relative errors.
struct Line {
    base: f64,
    slope: f64,
}

impl Line {
    fn fit(graphs: &[TimedGraph]) -> Self {
        let [mut one, mut x, mut xx, mut y, mut xy] = [0.0; 5];
        for graph in graphs {
            let (work, latency) = (work(graph), graph.latency.0);
            let weight = 1.0 / (latency * latency);
            one += weight;
            x += weight * work;
            xx += weight * work * work;
            y += weight * latency;
            xy += weight * work * latency;
        }
        let determinant = one * xx - x * x;
        if determinant.abs() < 1e-12 * one * xx {
            return Self { base: y / one, slope: 0.0 };
        }
        Self { base: (y * xx - x * xy) / determinant, slope: (one * xy - x * y) / determinant }
    }

    fn at(&self, graph: &TimedGraph) -> f64 {
        self.base + self.slope * work(graph)
    }
}

/// Multiply-accumulates.
fn work(graph: &TimedGraph) -> f64 {
    graph.kernels.iter().map(|kernel| kernel.macs).sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
