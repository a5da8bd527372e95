//! Kernels' latencies, their sum, and how sure both are.

use std::collections::BTreeMap;

use lathe_spaces::{Graph, Micros, Precision, Workload, WorkloadId};
use serde::{Deserialize, Serialize};

use super::{
    Fusion, Kernel, KernelError, TimedGraph, kernel,
    residual::{Levels, Residual, Shares},
};
use crate::{Prediction, Source, nnls::nnls};

/// Least number of timed graphs.
const LEAST: usize = 8;
/// Folds of the validation.
const FOLDS: usize = 10;
/// Up to this number of graphs every fold chooses its levels anew: with few graphs, levels that were
/// chosen with the held-out ones make errors look smaller than they are.
const NESTED: usize = 100;
/// Intervals are wider by this over the number of held-out graphs, as a share: the features were settled
/// with all graphs at hand. The same rule as for tables of architectures.
const WIDENING: f64 = 4.0;
/// How far outside the measured range a kernel's size may be before it counts as extrapolated.
const SLACK: f64 = 1.1;
/// Families of operators with coefficients of their own.
const FAMILIES: [&str; 6] = ["conv", "dwconv", "gconv", "linear", "pool", "other"];
/// Physical features per family: arithmetic, memory traffic, steps.
const PER_FAMILY: usize = 3;
/// One for the run, one per kernel, one for weights, then the families'.
const COLUMNS: usize = 3 + FAMILIES.len() * PER_FAMILY;

/// Error on networks that the fit had not seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Held-out graphs.
    pub graphs: usize,
    /// Whether they are networks; with fewer than eight networks, parts by themselves are held out too.
    pub networks: bool,
    /// Folds.
    pub folds: usize,
    /// Median of |predicted / measured − 1|.
    pub median_relative_error: f64,
    /// Share within ±5 %.
    pub within_five_percent: f64,
    /// Share within ±10 %.
    pub within_ten_percent: f64,
    /// Median relative half-width of the intervals of the measurements themselves.
    pub noise_floor: f64,
}

/// A model of a device, to predict any graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelModel {
    /// Rules by which graphs are cut.
    pub fusion: Fusion,
    /// Error on held-out graphs.
    pub validation: Validation,
    /// Held-out errors per kernel kind: mean of |relative error| weighted by the kind's share.
    pub kind_errors: BTreeMap<String, f64>,
    mean: Vec<f64>,
    residual: Residual,
    /// Conformal factor of the standard deviation for 90 %.
    quantile: f64,
    /// Smallest and largest size (macs, read, written, weights) of each kind.
    ranges: BTreeMap<String, [[f64; 2]; 4]>,
    /// Smallest and largest latency of the training networks.
    latencies: [f64; 2],
    /// Medians with their relative half-width, by identity of the workload.
    measured: BTreeMap<WorkloadId, [f64; 2]>,
}

/// What one kernel contributes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelShare {
    /// Name of its first node.
    pub name: String,
    /// Kind.
    pub kind: String,
    /// Its part of the latency.
    pub latency: Micros,
    /// Whether it is of a kind and size that was measured.
    pub source: Source,
}

/// A prediction with where it goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphPrediction {
    /// The answer.
    pub prediction: Prediction,
    /// Per kernel, in the graph's order.
    pub kernels: Vec<KernelShare>,
    /// What is not any kernel's: the run itself and interactions. May be negative.
    pub rest: Micros,
}

fn family(kernel: &Kernel) -> usize {
    let named = |name: &str| FAMILIES.iter().position(|family| *family == name).unwrap_or(FAMILIES.len() - 1);
    let head = kernel.kind.split('+').next().unwrap_or_default();
    for name in ["dwconv", "gconv", "conv", "linear"] {
        if head.starts_with(name) {
            return named(name);
        }
    }
    named(if head.contains("pool") { "pool" } else { "other" })
}

pub(super) fn columns(kernel: &Kernel) -> [f64; COLUMNS] {
    let [one, macs, read, written, weights, steps] = kernel.features();
    let mut columns = [0.0; COLUMNS];
    columns[1] = one;
    columns[2] = weights;
    let start = 3 + family(kernel) * PER_FAMILY;
    columns[start] = macs;
    columns[start + 1] = read + written;
    columns[start + 2] = steps;
    columns
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The fitted numbers, without validation.
struct Core {
    mean: Vec<f64>,
    residual: Residual,
}

/// Non-negative least squares on relative errors; `weights` per graph. The first column is one per graph.
pub(super) fn physical<const COLUMNS: usize>(
    graphs: &[&TimedGraph],
    weights: &[f64],
    columns: impl Fn(&Kernel) -> [f64; COLUMNS],
) -> Option<Vec<f64>> {
    let mut gram = vec![vec![0.0; COLUMNS]; COLUMNS];
    let mut rhs = vec![0.0; COLUMNS];
    for (graph, weight) in graphs.iter().zip(weights) {
        let row = whole(&graph.kernels, &columns);
        for i in 0..COLUMNS {
            let a = row[i] / graph.latency.0;
            rhs[i] += weight * a;
            for j in 0..COLUMNS {
                gram[i][j] += weight * a * row[j] / graph.latency.0;
            }
        }
    }
    // A pinch of ridge, in units of each column, keeps unused and parallel columns harmless.
    for (i, row) in gram.iter_mut().enumerate() {
        row[i] += row[i] * 1e-4 + 1e-12;
    }
    nnls(&gram, &rhs)
}

/// Columns of a whole graph: one, and the sums over its kernels.
pub(super) fn whole<const COLUMNS: usize>(
    kernels: &[Kernel],
    columns: impl Fn(&Kernel) -> [f64; COLUMNS],
) -> [f64; COLUMNS] {
    let mut row = [0.0; COLUMNS];
    row[0] = 1.0;
    for kernel in kernels {
        for (sum, value) in row.iter_mut().zip(columns(kernel)) {
            *sum += value;
        }
    }
    row
}

impl Core {
    fn fit(graphs: &[&TimedGraph], levels: Option<Levels>) -> Option<Self> {
        let networks = graphs.iter().filter(|graph| graph.network).count();
        // Kernels by themselves run in a warm cache and pay for a run each: beside networks they count less.
        let noise: Vec<f64> =
            graphs.iter().map(|graph| if graph.network || networks == 0 { 1.0 } else { 25.0 }).collect();
        let weights: Vec<f64> = noise.iter().map(|noise| 1.0 / noise).collect();
        let mean = physical(graphs, &weights, columns)?;
        let mut rows = Vec::with_capacity(graphs.len());
        let mut residuals = Vec::with_capacity(graphs.len());
        for graph in graphs {
            let (sum, shares) = shares(&mean, &graph.kernels);
            residuals.push(graph.latency.0 / sum - 1.0);
            rows.push(shares);
        }
        let residual = Residual::fit(&rows, &residuals, &noise, levels)?;
        Some(Self { mean, residual })
    }

    /// Mean and standard deviation.
    fn predict(&self, kernels: &[Kernel]) -> [f64; 2] {
        let (sum, shares) = shares(&self.mean, kernels);
        let [change, sigma] = self.residual.predict(&shares);
        // A network is never faster than a tenth of what the arithmetic takes.
        [sum * (1.0 + change).max(0.1), sum * sigma]
    }
}

/// Physical sum and the share of each kind and signature in it.
fn shares(mean: &[f64], kernels: &[Kernel]) -> (f64, Shares) {
    let parts: Vec<f64> = kernels.iter().map(|kernel| dot(mean, &columns(kernel))).collect();
    let sum = (mean[0] + parts.iter().sum::<f64>()).max(1e-6);
    let mut shares = Shares::default();
    for (kernel, part) in kernels.iter().zip(parts) {
        shares.add(kernel, part / sum);
    }
    (sum, shares)
}

impl KernelModel {
    /// Fits a model to timed graphs: whole networks, kernels by themselves, or both.
    ///
    /// A graph's latency is a non-negative sum of its kernels' arithmetic, traffic, steps and launches, fitted
    /// to relative errors, times what a Gaussian process says of its kinds, its very kernels and their
    /// mixture; each of these levels is used as far as leave-one-out says that it helps. The 90 %
    /// interval is conformal: the quantile of the errors, each in units of its own standard deviation,
    /// of graphs held out in ten folds.
    ///
    /// # Errors
    /// [`KernelError`] with fewer than eight graphs, or latencies that are none.
    pub fn fit(graphs: &[TimedGraph], fusion: &Fusion) -> Result<Self, KernelError> {
        if graphs.len() < LEAST {
            return Err(KernelError::TooFew { needed: LEAST, got: graphs.len() });
        }
        let strange = |graph: &&TimedGraph| !(graph.latency.0.is_finite() && graph.latency.0 > 0.0);
        if let Some(graph) = graphs.iter().find(strange) {
            return Err(KernelError::Latency { label: graph.label.clone(), micros: graph.latency.0 });
        }
        // The order of the rows must not matter.
        let mut all: Vec<&TimedGraph> = graphs.iter().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id).then_with(|| a.label.cmp(&b.label)));
        let networks = all.iter().filter(|graph| graph.network).count();
        let judged = |graph: &TimedGraph| graph.network || networks < LEAST;
        let core = Core::fit(&all, None).ok_or(KernelError::Singular)?;
        let mut scores = Vec::new();
        let mut errors = Vec::new();
        let mut by_kind: BTreeMap<String, [f64; 2]> = BTreeMap::new();
        let folds = FOLDS.min(all.len());
        for fold in 0..folds {
            let kept: Vec<&TimedGraph> =
                all.iter().enumerate().filter(|(place, _)| place % folds != fold).map(|(_, g)| *g).collect();
            let levels = (all.len() > NESTED).then_some(core.residual.levels);
            let other = Core::fit(&kept, levels).ok_or(KernelError::Singular)?;
            for graph in all.iter().skip(fold).step_by(folds) {
                let [mean, sigma] = other.predict(&graph.kernels);
                let error = (mean / graph.latency.0 - 1.0).abs();
                for (kind, share) in shares(&core.mean, &graph.kernels).1.kinds {
                    let sums = by_kind.entry(kind).or_default();
                    sums[0] += share * error;
                    sums[1] += share;
                }
                if judged(graph) {
                    scores.push((graph.latency.0 - mean).abs() / sigma.max(1e-12));
                    errors.push(error);
                }
            }
        }
        scores.sort_by(f64::total_cmp);
        let rank = (0.9 * (scores.len() + 1) as f64).ceil() as usize;
        let widening = 1.0 + WIDENING / scores.len() as f64;
        let quantile = scores[rank.clamp(1, scores.len()) - 1] * widening;
        let share =
            |limit: f64| errors.iter().filter(|error| **error <= limit).count() as f64 / errors.len() as f64;
        let validation = Validation {
            graphs: errors.len(),
            networks: networks >= LEAST,
            folds,
            median_relative_error: median(errors.clone()),
            within_five_percent: share(0.05),
            within_ten_percent: share(0.10),
            noise_floor: median(all.iter().filter(|g| judged(g)).map(|graph| graph.noise).collect()),
        };
        let mut latencies = [f64::INFINITY, 0.0_f64];
        let mut ranges: BTreeMap<String, [[f64; 2]; 4]> = BTreeMap::new();
        let mut measured = BTreeMap::new();
        for graph in &all {
            if judged(graph) {
                latencies = [latencies[0].min(graph.latency.0), latencies[1].max(graph.latency.0)];
            }
            measured.insert(graph.id.clone(), [graph.latency.0, graph.noise]);
            for kernel in &graph.kernels {
                let range = ranges.entry(kernel.kind.clone()).or_insert([[f64::MAX, 0.0]; 4]);
                for (range, size) in range.iter_mut().zip(sizes(kernel)) {
                    *range = [range[0].min(size), range[1].max(size)];
                }
            }
        }
        let kind_errors =
            by_kind.into_iter().map(|(kind, [sum, weight])| (kind, sum / weight.max(1e-12))).collect();
        Ok(Self {
            fusion: fusion.clone(),
            validation,
            kind_errors,
            mean: core.mean,
            residual: core.residual,
            quantile,
            ranges,
            latencies,
            measured,
        })
    }

    /// Predicts a graph. The very graph, if it was measured, is answered by its measurement.
    pub fn predict(&self, graph: &Graph) -> GraphPrediction {
        let workload = Workload::new("", lathe_spaces::Level::Network, graph.clone());
        let kernels = kernel::split(graph, &self.fusion);
        let mut answer = self.predict_kernels(&kernels);
        // Of one precision, whichever: a model never mixes them.
        let measured = [Precision::Fp32, Precision::Int8]
            .into_iter()
            .find_map(|precision| self.measured.get(&workload.clone().at(precision).id()));
        if let Some(&[median, noise]) = measured {
            // The interval of a median is 95 %; it is at least as wide as one of 90 %.
            let before = answer.prediction.mean.0.max(1e-9);
            answer.prediction = Prediction {
                mean: Micros(median),
                sigma: Micros(median * noise / 1.96),
                low: Micros(median * (1.0 - noise)),
                high: Micros(median * (1.0 + noise)),
                source: Source::Measured,
            };
            for share in &mut answer.kernels {
                share.latency = share.latency * (median / before);
            }
            answer.rest = answer.rest * (median / before);
        }
        answer
    }

    /// Predicts a graph that is cut into kernels already.
    pub fn predict_kernels(&self, kernels: &[Kernel]) -> GraphPrediction {
        let core = Core { mean: self.mean.clone(), residual: self.residual.clone() };
        let [mean, sigma] = core.predict(kernels);
        let mut sum = 0.0;
        let mut inside = true;
        let shares: Vec<KernelShare> = kernels
            .iter()
            .map(|kernel| {
                let change = self.residual.kernel(&kernel.kind, &kernel.signature);
                let latency = dot(&self.mean, &columns(kernel)) * (1.0 + change).max(0.0);
                sum += latency;
                let known = self.knows(kernel);
                inside &= known;
                let source = if known { Source::Interpolated } else { Source::Extrapolated };
                KernelShare {
                    name: kernel.name.clone(),
                    kind: kernel.kind.clone(),
                    latency: Micros(latency),
                    source,
                }
            })
            .collect();
        inside &= (self.latencies[0] / SLACK..=self.latencies[1] * SLACK).contains(&mean);
        let half = self.quantile * sigma;
        let prediction = Prediction {
            mean: Micros(mean),
            sigma: Micros(sigma),
            low: Micros((mean - half).max(0.0)),
            high: Micros(mean + half),
            source: if inside { Source::Interpolated } else { Source::Extrapolated },
        };
        GraphPrediction { prediction, kernels: shares, rest: Micros(mean - sum) }
    }

    /// Whether kernels of this kind and about this size were measured.
    pub fn knows(&self, kernel: &Kernel) -> bool {
        self.ranges.get(&kernel.kind).is_some_and(|ranges| {
            ranges
                .iter()
                .zip(sizes(kernel))
                .all(|([low, high], size)| (low / SLACK..=high * SLACK).contains(&size))
        })
    }

    /// Computes what a file doesn't hold.
    pub(super) fn restore(&mut self) -> bool {
        // Files of before steps were counted: there they cost nothing.
        let before = 3 + FAMILIES.len() * 2;
        if self.mean.len() == before {
            for family in 1..=FAMILIES.len() {
                self.mean.insert(2 + family * PER_FAMILY, 0.0);
            }
        }
        self.mean.len() == COLUMNS && self.residual.restore()
    }
}

fn sizes(kernel: &Kernel) -> [f64; 4] {
    [kernel.macs, kernel.read, kernel.written, kernel.weights]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
