//! How the candidates were trained.

use lathe_search::Origin;
use serde::Serialize;

use super::Section;
use crate::{
    history::History,
    quantity::{Quantity, significant},
};

/// Training of every candidate that has begun.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Training {
    pub rows: Vec<TrainingRow>,
    /// Largest number of epochs.
    #[serde(skip)]
    pub epochs: usize,
}

/// One candidate.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TrainingRow {
    pub name: String,
    #[serde(skip)]
    pub origin: Origin,
    /// Epochs done, of how many.
    pub progress: String,
    /// After the last epoch.
    pub loss: String,
    /// After the last epoch, on training images.
    pub train_accuracy: String,
    pub test_accuracy: Option<Quantity>,
    #[serde(skip)]
    pub losses: Vec<(f64, f64)>,
    #[serde(skip)]
    pub accuracies: Vec<(f64, f64)>,
}

pub(super) fn training(history: &History) -> Section<Training> {
    let rows: Vec<TrainingRow> = history
        .candidates
        .iter()
        .filter_map(|candidate| {
            let last = candidate.epochs.last()?;
            let points = |value: &dyn Fn(&crate::history::TrainEpoch) -> f64| {
                let points = candidate.epochs.iter().map(|epoch| (epoch.epoch as f64 + 1.0, value(epoch)));
                points.filter(|(_, value)| value.is_finite()).collect::<Vec<_>>()
            };
            Some(TrainingRow {
                name: candidate.name.clone(),
                origin: candidate.origin,
                progress: format!("{} of {}", candidate.epochs.len(), last.epochs),
                loss: significant(last.loss),
                train_accuracy: history.measure.text(last.accuracy),
                test_accuracy: candidate.trained.map(|(value, images)| history.measure.of(value, images)),
                losses: points(&|epoch| epoch.loss),
                accuracies: points(&|epoch| epoch.accuracy),
            })
        })
        .collect();
    if rows.is_empty() {
        return Section::Missing("No candidate has finished an epoch of training yet.".into());
    }
    let epochs =
        history.candidates.iter().flat_map(|candidate| &candidate.epochs).map(|epoch| epoch.epochs).max();
    Section::Ready(Training { rows, epochs: epochs.unwrap_or_default() })
}
