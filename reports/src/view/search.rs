//! How the search went, epoch by epoch.

use serde::Serialize;

use super::{Section, plural};
use crate::{
    history::{History, SearchEpoch},
    quantity::{duration, latency, percent, significant},
};

/// The search's epochs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SearchView {
    /// How far it is.
    pub progress: String,
    /// Epochs before the architecture parameters move.
    pub warmup: Option<String>,
    /// Time, and how much of it was spent waiting for data.
    pub time: String,
    /// Why it ended before its last epoch.
    pub stopped: Option<String>,
    /// The last epoch, number by number.
    pub last: Vec<(&'static str, String)>,
    /// Raw series for figures; x is the epoch from 1.
    #[serde(skip)]
    pub series: SearchSeries,
}

/// Points (epoch, value); what is missing or no number is left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct SearchSeries {
    pub epochs: usize,
    pub train_loss: Vec<(f64, f64)>,
    pub valid_loss: Vec<(f64, f64)>,
    pub train_accuracy: Vec<(f64, f64)>,
    pub valid_accuracy: Vec<(f64, f64)>,
    /// Microseconds.
    pub expected: Vec<(f64, f64)>,
    /// Microseconds.
    pub derived: Vec<(f64, f64)>,
    /// Microseconds.
    pub target: Option<f64>,
    pub lambda: Vec<(f64, f64)>,
    /// Skip connections and all operations without weights of the network derived now, in the first kind of cell.
    pub skips: Vec<(f64, f64)>,
    pub parameter_free: Vec<(f64, f64)>,
    pub eigenvalue: Vec<(f64, f64)>,
}

pub(super) fn search(history: &History) -> Section<SearchView> {
    let Some(last) = history.epochs.last() else {
        return Section::Missing("The search has not finished an epoch yet.".into());
    };
    let done = history.epochs.len();
    let progress = if done < last.epochs {
        format!("{done} of {} are in the record.", plural(last.epochs, "epoch"))
    } else {
        format!("All {} are in the record.", plural(last.epochs, "epoch"))
    };
    let resting = history.epochs.iter().take_while(|epoch| epoch.valid_loss.is_none()).count();
    let seconds: f64 = history.epochs.iter().map(|epoch| epoch.seconds).sum();
    let waited: f64 = history.epochs.iter().map(|epoch| epoch.seconds * epoch.data_wait).sum();
    let share = if seconds > 0.0 { waited / seconds } else { 0.0 };
    let mut table = vec![
        ("training loss", significant(last.train_loss)),
        ("training set", history.measure.text(last.train_accuracy)),
    ];
    table.extend(last.valid_loss.map(|loss| ("loss on the architecture half", significant(loss))));
    table.extend(last.valid_accuracy.map(|share| ("architecture half", history.measure.text(share))));
    table.extend(last.expected.map(|time| ("expected latency (predicted)", latency(time))));
    table.extend(last.derived.map(|time| ("latency of the network derived now (predicted)", latency(time))));
    table.push(("λ", significant(last.lambda)));
    Section::Ready(SearchView {
        progress,
        warmup: (resting > 0).then(|| {
            let epochs = plural(resting, "epoch");
            format!("In the first {epochs} only the weights are trained: the architecture parameters rest.")
        }),
        time: format!("{} of training, {} of it waiting for data.", duration(seconds), percent(share, 1)),
        stopped: history.stopped_early.as_ref().map(|(epoch, criterion, value, limit, kept)| {
            format!(
                "Stopped after epoch {} to escape a collapse ({criterion}: {}, limit {}); the architecture parameters are those of epoch {}.",
                epoch + 1,
                significant(*value),
                significant(*limit),
                kept + 1
            )
        }),
        last: table,
        series: series(history),
    })
}

fn series(history: &History) -> SearchSeries {
    // Paths have neither skip connections to drift to nor a λ that moves.
    let cells = history.paths.is_none();
    let of = |value: &dyn Fn(&SearchEpoch) -> Option<f64>| {
        let points =
            history.epochs.iter().filter_map(|epoch| Some((epoch.epoch as f64 + 1.0, value(epoch)?)));
        points.filter(|(_, value)| value.is_finite()).collect::<Vec<_>>()
    };
    SearchSeries {
        epochs: history.epochs.iter().map(|epoch| epoch.epochs).max().unwrap_or_default(),
        train_loss: of(&|epoch| Some(epoch.train_loss)),
        valid_loss: of(&|epoch| epoch.valid_loss),
        train_accuracy: of(&|epoch| Some(epoch.train_accuracy)),
        valid_accuracy: of(&|epoch| epoch.valid_accuracy),
        expected: of(&|epoch| epoch.expected.map(|time| time.0)),
        derived: of(&|epoch| epoch.derived.map(|time| time.0)),
        target: history.target.as_ref().and_then(|facts| facts.target).map(|target| target.0),
        lambda: of(&|epoch| cells.then_some(epoch.lambda)),
        skips: of(&|epoch| epoch.signs.first().filter(|_| cells).map(|signs| signs.skips as f64)),
        parameter_free: of(&|epoch| {
            epoch.signs.first().filter(|_| cells).map(|signs| signs.parameter_free as f64)
        }),
        eigenvalue: of(&|epoch| epoch.eigenvalue),
    }
}
