//! How good a kernel model is on networks that it had not seen.

use lathe_spaces::Micros;

use super::{
    Fusion, Kernel, KernelError, KernelModel, TimedGraph,
    model::{columns, dot, physical, whole},
};
use crate::{
    FitQuality, FoldPoint, Measurement,
    fit::{deal, quality_of},
    parts::pooled,
};

/// Whole networks with their folds, and predictions that were made without them.
fn over_folds(
    graphs: &[TimedGraph],
    measurements: &[Measurement],
    name: &str,
    [folds, seed]: [u64; 2],
    predict: impl Fn(&[TimedGraph], &[&TimedGraph]) -> Result<Vec<f64>, KernelError>,
) -> Result<FitQuality, KernelError> {
    let best = pooled(&measurements.iter().collect::<Vec<_>>());
    let summary = |graph: &TimedGraph| best.get(&graph.id).and_then(|row| row.summary());
    let networks: Vec<&TimedGraph> =
        graphs.iter().filter(|graph| graph.network && summary(graph).is_some()).collect();
    let folds = deal(networks.len(), folds as usize, seed, "folds of a kernel model");
    let mut predicted = vec![0.0; networks.len()];
    for fold in 0..=folds.iter().copied().max().unwrap_or(0) {
        let places: Vec<usize> = (0..networks.len()).filter(|&place| folds[place] == fold).collect();
        let held: Vec<&TimedGraph> = places.iter().map(|&place| networks[place]).collect();
        let left_out = |graph: &TimedGraph| held.iter().any(|other| other.id == graph.id);
        let kept: Vec<TimedGraph> = graphs.iter().filter(|graph| !left_out(graph)).cloned().collect();
        for (place, value) in places.into_iter().zip(predict(&kept, &held)?) {
            predicted[place] = value;
        }
    }
    let point = |(graph, predicted): (&&TimedGraph, &f64)| {
        let label = graph.label.clone();
        Some(FoldPoint { label, measured: summary(graph)?, predicted: Micros(*predicted), parts: None })
    };
    let points = networks.iter().zip(&predicted).filter_map(point).collect();
    Ok(quality_of(name.into(), points, &folds))
}

/// What a simpler fit knows of a network's kernels: what the one before it knows, and one thing more. None knows more
/// than sums over the network; all are fitted to the relative errors of the other networks, without a negative term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Latency = a + b · multiply-accumulates.
    Macs,
    /// And bytes of activations and of weights.
    Bytes,
    /// And steps ([`Kernel::steps`]).
    Parallelism,
    /// Each of these by family of operators, and the number of kernels.
    Kinds,
}

impl Knowledge {
    /// All, the least first.
    pub const ALL: [Self; 4] = [Self::Macs, Self::Bytes, Self::Parallelism, Self::Kinds];

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Macs => "multiply-accumulates alone",
            Self::Bytes => "and bytes moved",
            Self::Parallelism => "and parallelism",
            Self::Kinds => "and kinds of operators",
        }
    }

    fn predict(self, kept: &[&TimedGraph], held: &[&TimedGraph]) -> Result<Vec<f64>, KernelError> {
        fn line<const COLUMNS: usize>(
            kept: &[&TimedGraph],
            held: &[&TimedGraph],
            columns: impl Fn(&Kernel) -> [f64; COLUMNS],
        ) -> Result<Vec<f64>, KernelError> {
            let found = physical(kept, &vec![1.0; kept.len()], &columns).ok_or(KernelError::Singular)?;
            Ok(held.iter().map(|graph| dot(&found, &whole(&graph.kernels, &columns))).collect())
        }
        let features = |kernel: &Kernel| {
            let [_, macs, read, written, weights, steps] = kernel.features();
            [0.0, macs, read + written, weights, steps]
        };
        match self {
            Self::Macs => line(kept, held, |kernel| [0.0, features(kernel)[1]]),
            Self::Bytes => line(kept, held, |kernel| {
                let [_, macs, moved, weights, _] = features(kernel);
                [0.0, macs, moved, weights]
            }),
            Self::Parallelism => line(kept, held, features),
            Self::Kinds => line(kept, held, columns),
        }
    }
}

/// The figures of [`KernelModel::held_out`] for a simpler fit, on the same networks and folds: what a model of kernels
/// must beat.
///
/// # Errors
/// [`KernelError::Singular`] if nothing can be solved.
pub fn held_out_by(
    knowledge: Knowledge,
    graphs: &[TimedGraph],
    measurements: &[Measurement],
    folds: usize,
    seed: u64,
) -> Result<FitQuality, KernelError> {
    over_folds(graphs, measurements, knowledge.name(), [folds as u64, seed], |kept, held| {
        let networks: Vec<&TimedGraph> = kept.iter().filter(|graph| graph.network).collect();
        knowledge.predict(&networks, held)
    })
}

impl KernelModel {
    /// Figures of merit over whole networks: each is predicted by a model that was fitted without its fold. Parts by
    /// themselves are in every fit. `measurements`: what the graphs were made of.
    ///
    /// # Errors
    /// As [`KernelModel::fit`].
    pub fn held_out(
        graphs: &[TimedGraph],
        measurements: &[Measurement],
        fusion: &Fusion,
        folds: usize,
        seed: u64,
    ) -> Result<FitQuality, KernelError> {
        let name = "kernels: arithmetic, traffic, steps, launches, Gaussian process";
        over_folds(graphs, measurements, name, [folds as u64, seed], |kept, held| {
            let model = Self::fit(kept, fusion)?;
            Ok(held.iter().map(|graph| model.predict_kernels(&graph.kernels).prediction.mean.0).collect())
        })
    }
}
