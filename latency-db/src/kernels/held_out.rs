//! How good a kernel model is on networks that it had not seen.

use lathe_spaces::Micros;

use super::{Fusion, KernelError, KernelModel, TimedGraph};
use crate::{
    FitQuality, FoldPoint, Measurement,
    fit::{deal, quality_of},
    nnls::nnls,
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

/// The same figures for what counting says: latency = a + b · multiply-accumulates, neither negative, fitted to the
/// relative errors of the other networks. What a model of kernels must beat.
///
/// # Errors
/// [`KernelError::Singular`] if the networks have no multiply-accumulates.
pub fn held_out_by_macs(
    graphs: &[TimedGraph],
    measurements: &[Measurement],
    folds: usize,
    seed: u64,
) -> Result<FitQuality, KernelError> {
    let macs = |graph: &TimedGraph| graph.kernels.iter().map(|kernel| kernel.macs).sum::<f64>();
    over_folds(graphs, measurements, "multiply-accumulates alone", [folds as u64, seed], |kept, held| {
        let mut gram = vec![vec![0.0; 2]; 2];
        let mut rhs = vec![0.0; 2];
        for graph in kept.iter().filter(|graph| graph.network) {
            let row = [1.0, macs(graph)].map(|value| value / graph.latency.0);
            for i in 0..2 {
                rhs[i] += row[i];
                for j in 0..2 {
                    gram[i][j] += row[i] * row[j];
                }
            }
        }
        let found = nnls(&gram, &rhs).ok_or(KernelError::Singular)?;
        Ok(held.iter().map(|graph| found[0] + found[1] * macs(graph)).collect())
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
        let name = "kernels: arithmetic, traffic, launches, Gaussian process";
        over_folds(graphs, measurements, name, [folds as u64, seed], |kept, held| {
            let model = Self::fit(kept, fusion)?;
            Ok(held.iter().map(|graph| model.predict_kernels(&graph.kernels).prediction.mean.0).collect())
        })
    }
}
