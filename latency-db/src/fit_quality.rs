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
