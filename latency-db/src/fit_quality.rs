//! How good a predictor is on networks that it has not seen.

use lathe_spaces::Micros;
use serde::{Deserialize, Serialize};

use crate::Summary;

/// One measured network and what the predictor said of it when it was held out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoldPoint {
    /// Name of the network.
    pub label: String,
    /// Measured median and interval.
    pub measured: Summary,
    /// Prediction by a fit that had not seen it.
    pub predicted: Micros,
    /// Sum of the medians of its parts, each timed alone; absent in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Micros>,
}

/// How good a fitted predictor is on networks that it had not seen (k-fold).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitQuality {
    /// Name of the model.
    pub model: String,
    /// Number of folds.
    pub folds: usize,
    /// Median of |predicted / measured − 1|.
    pub median_relative_error: f64,
    /// Share of networks within ±10 %.
    pub within_ten_percent: f64,
    /// Spearman's rank correlation.
    pub spearman: f64,
    /// Mean regret of choosing by prediction: how much slower the predicted-fastest of each fold is
    /// than the fastest, relative. With leave-one-out a fold holds one network and leaves no choice:
    /// then all held-out networks count as one fold.
    pub selection_regret: f64,
    /// The device's own noise: median relative half-width of the networks' intervals.
    pub noise_floor: f64,
    /// The networks.
    pub points: Vec<FoldPoint>,
}

impl FitQuality {
    /// Sum of the parts over the whole, as measured: least, median and greatest of the networks. A ratio
    /// above one says that operators cost more alone than inside a network.
    pub fn parts_over_whole(&self) -> Option<[f64; 3]> {
        let mut ratios: Vec<f64> =
            self.points.iter().filter_map(|point| Some(point.parts?.0 / point.measured.median.0)).collect();
        ratios.sort_by(f64::total_cmp);
        Some([*ratios.first()?, ratios[ratios.len() / 2], *ratios.last()?])
    }
}
