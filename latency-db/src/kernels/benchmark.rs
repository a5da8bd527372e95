//! How well a few timed networks predict the others.

use lathe_spaces::Stream;
use rand::seq::SliceRandom;
use serde::Serialize;

use super::{Fusion, Kernel, KernelError, KernelModel, TimedGraph, next_networks};

/// Share of the networks that are tested.
const TEST: f64 = 0.2;
/// Least number of networks.
const LEAST: usize = 20;

/// Figures of one method at one number of training networks, over all repeats.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkBenchmarkRow {
    /// `kernel_model`, fitted to random networks; `kernel_model_designed`, fitted to those that
    /// [`next_networks`] chose; `macs`, a line in multiply-accumulates fitted to relative errors of the
    /// random ones.
    pub method: &'static str,
    /// Networks that each fit saw.
    pub training: usize,
    /// Random splits into pool and test.
    pub repeats: usize,
    /// Tests over all of them.
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

impl Errors {
    fn push(&mut self, network: &TimedGraph, predicted: f64) {
        self.relative.push((predicted / network.latency.0 - 1.0).abs());
    }

    fn of_model(&mut self, model: &KernelModel, test: &[&TimedGraph]) {
        for network in test {
            let answer = model.predict_kernels(&network.kernels).prediction;
            self.push(network, answer.mean.0);
            self.covered += usize::from((answer.low.0..=answer.high.0).contains(&network.latency.0));
            self.widths.push((answer.high - answer.low).0 / answer.mean.0);
        }
    }
}

/// Sets a random fifth of the networks aside, fits on `training` of the others and tests on that
/// fifth; `repeats` times.
///
/// # Errors
/// [`KernelError::TooFew`] with fewer than twenty networks, or with too few for `training`, and what a
/// fit may say.
pub fn benchmark(
    networks: &[TimedGraph],
    training: usize,
    repeats: usize,
    seed: u64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<NetworkBenchmarkRow>, KernelError> {
    let tested = (networks.len() as f64 * TEST).round() as usize;
    let needed = LEAST.max((training as f64 / (1.0 - TEST)).ceil() as usize);
    if networks.len() < needed {
        return Err(KernelError::TooFew { needed, got: networks.len() });
    }
    let (mut random, mut designed, mut macs) = (Errors::default(), Errors::default(), Errors::default());
    for repeat in 0..repeats {
        let mut order: Vec<&TimedGraph> = networks.iter().collect();
        order.shuffle(&mut Stream::new(seed, "splits of timed networks", repeat as u64));
        let (test, pool) = order.split_at(tested);
        let known: Vec<TimedGraph> = pool[..training].iter().map(|network| (*network).clone()).collect();
        random.of_model(&KernelModel::fit(&known, &Fusion::common())?, test);
        let line = Line::fit(&known);
        for network in test {
            macs.push(network, line.at(network));
        }
        let kernels: Vec<Vec<Kernel>> = pool.iter().map(|network| network.kernels.clone()).collect();
        let chosen = next_networks(&[], &kernels, training).into_iter().map(|index| pool[index].clone());
        designed.of_model(&KernelModel::fit(&chosen.collect::<Vec<_>>(), &Fusion::common())?, test);
        progress(repeat + 1, repeats);
    }
    let noise_floor = median(networks.iter().map(|network| network.noise).collect());
    let row = |method, errors: Errors| {
        let tested = errors.relative.len();
        let within = |limit: f64| {
            errors.relative.iter().filter(|error| **error <= limit).count() as f64 / tested as f64
        };
        let intervals = !errors.widths.is_empty();
        NetworkBenchmarkRow {
            method,
            training,
            repeats,
            tested,
            within_five_percent: within(0.05),
            within_ten_percent: within(0.10),
            coverage_90: intervals.then(|| errors.covered as f64 / tested as f64),
            interval_width: intervals.then(|| median(errors.widths)),
            median_relative_error: median(errors.relative),
            noise_floor,
        }
    };
    Ok(vec![row("kernel_model", random), row("kernel_model_designed", designed), row("macs", macs)])
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
