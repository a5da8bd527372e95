//! How good a kernel model is on networks that it had not seen.

use lathe_spaces::Micros;

use super::{Fusion, KernelError, KernelModel, TimedGraph};
use crate::{
    FitQuality, FoldPoint, Measurement,
    fit::{deal, quality_of},
    parts::pooled,
};

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
        let best = pooled(&measurements.iter().collect::<Vec<_>>());
        let summary = |graph: &TimedGraph| best.get(&graph.id).and_then(|row| row.summary());
        let networks: Vec<&TimedGraph> =
            graphs.iter().filter(|graph| graph.network && summary(graph).is_some()).collect();
        let folds = deal(networks.len(), folds, seed, "folds of a kernel model");
        let mut predicted = vec![0.0; networks.len()];
        for fold in 0..=folds.iter().copied().max().unwrap_or(0) {
            let held = |graph: &TimedGraph| {
                networks.iter().zip(&folds).any(|(other, of)| *of == fold && other.id == graph.id)
            };
            let kept: Vec<TimedGraph> = graphs.iter().filter(|graph| !held(graph)).cloned().collect();
            let model = Self::fit(&kept, fusion)?;
            for (place, graph) in networks.iter().enumerate().filter(|(place, _)| folds[*place] == fold) {
                predicted[place] = model.predict_kernels(&graph.kernels).prediction.mean.0;
            }
        }
        let point = |(graph, predicted): (&&TimedGraph, &f64)| {
            let label = graph.label.clone();
            Some(FoldPoint { label, measured: summary(graph)?, predicted: Micros(*predicted), parts: None })
        };
        let points = networks.iter().zip(&predicted).filter_map(point).collect();
        Ok(quality_of("kernels: arithmetic, traffic, launches, Gaussian process".into(), points, &folds))
    }
}
