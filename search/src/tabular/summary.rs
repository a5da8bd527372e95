//! Means and spreads over seeds.

use serde::{Deserialize, Serialize};

use super::{
    belief::Knowledge,
    draw::{Algorithm, Outcome},
};

/// A limit counts as clearly broken above this factor.
const CLEARLY: f64 = 1.05;

/// A figure over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// The tenth part is below.
    pub p10: f64,
    /// The tenth part is above.
    pub p90: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let quantile = |share: f64| values[((count - 1.0) * share).round() as usize];
        Self { mean, std: variance.sqrt(), p10: quantile(0.1), p90: quantile(0.9) }
    }
}

/// The point that a hypervolume is measured from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Milliseconds: the limit, or the slowest architecture of the device.
    pub latency_ms: f64,
    /// Accuracy of the median architecture.
    pub accuracy: f64,
}

/// One way to search, on one device and for one limit, over all seeds. Shares are from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchRow {
    /// Device column.
    pub target: String,
    /// Milliseconds; null where the whole front was searched for.
    pub limit_ms: Option<f64>,
    /// Share of the architectures that meet the limit.
    pub meet_the_limit: Option<f64>,
    /// Who chose what was evaluated.
    pub algorithm: Algorithm,
    /// Where latencies came from.
    pub latency: Knowledge,
    /// Architectures whose accuracy could be looked up.
    pub budget: usize,
    /// How many were, mean.
    pub evaluations: f64,
    /// Measurements of the device, mean.
    pub measurements: f64,
    /// Searches.
    pub seeds: u64,
    /// Accuracy of the most accurate architecture that meets the limit.
    pub optimum: f64,
    /// Accuracy of the choice; null where there is no limit.
    pub accuracy: Option<Spread>,
    /// Optimum less accuracy of the choice, and never below zero: a choice that breaks the limit is counted
    /// as no better than the optimum. In units of the accuracy.
    pub regret: Option<Spread>,
    /// Share of the choices whose latency is above the limit.
    pub broken: Option<f64>,
    /// Share of the choices whose latency is above the limit by more than 5 %.
    pub broken_by_5_percent: Option<f64>,
    /// Hypervolume of the front that was returned (true latencies and accuracies) over that of the exact
    /// front.
    pub hypervolume: Spread,
    /// Where hypervolumes are measured from.
    pub reference: Reference,
}

impl SearchRow {
    pub(super) fn with(mut self, outcomes: &[Outcome]) -> Self {
        let of = |value: fn(&Outcome) -> f64| Spread::of(outcomes.iter().map(value).collect());
        let mean =
            |value: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(value).sum::<f64>() / outcomes.len() as f64;
        self.evaluations = mean(&|outcome| outcome.evaluations);
        self.measurements = mean(&|outcome| outcome.measurements);
        self.hypervolume = of(|outcome| outcome.hypervolume);
        if self.limit_ms.is_some() {
            self.accuracy = Some(of(|outcome| outcome.accuracy));
            self.regret = Some(of(|outcome| outcome.regret));
            self.broken = Some(mean(&|outcome| f64::from(u8::from(outcome.ratio > 1.0))));
            self.broken_by_5_percent = Some(mean(&|outcome| f64::from(u8::from(outcome.ratio > CLEARLY))));
        }
        self
    }

    pub(super) const NOTHING: Spread = Spread { mean: 0.0, std: 0.0, p10: 0.0, p90: 0.0 };
}

/// One way to search over all devices and limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchSummary {
    /// Who chose what was evaluated.
    pub algorithm: Algorithm,
    /// Where latencies came from.
    pub latency: Knowledge,
    /// Architectures whose accuracy could be looked up.
    pub budget: usize,
    /// Mean regret over devices, limits and seeds.
    pub regret: Option<f64>,
    /// The largest mean regret of a device and limit.
    pub worst_regret: Option<f64>,
    /// Devices with limits whose mean regret is at most 0.3.
    pub within_0_3: usize,
    /// Devices with limits.
    pub cases: usize,
    /// Share of choices that break the limit.
    pub broken: Option<f64>,
    /// Share of choices that break it by more than 5 %.
    pub broken_by_5_percent: Option<f64>,
    /// Mean hypervolume of the searches for a whole front, over that of the exact front.
    pub hypervolume: Option<f64>,
}

impl SearchSummary {
    /// One per algorithm, knowledge and budget, in the order of the rows.
    pub(super) fn of(rows: &[SearchRow]) -> Vec<Self> {
        let mut kinds: Vec<(Algorithm, Knowledge, usize)> = Vec::new();
        for row in rows {
            let kind = (row.algorithm, row.latency, row.budget);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds.into_iter().map(|kind| Self::of_kind(rows, kind)).collect()
    }

    fn of_kind(rows: &[SearchRow], kind: (Algorithm, Knowledge, usize)) -> Self {
        let rows: Vec<&SearchRow> =
            rows.iter().filter(|row| (row.algorithm, row.latency, row.budget) == kind).collect();
        let mean = |value: &dyn Fn(&SearchRow) -> Option<f64>| {
            let values: Vec<f64> = rows.iter().filter_map(|row| value(row)).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let regrets: Vec<f64> = rows.iter().filter_map(|row| Some(row.regret?.mean)).collect();
        let (algorithm, latency, budget) = kind;
        Self {
            algorithm,
            latency,
            budget,
            regret: mean(&|row| Some(row.regret?.mean)),
            worst_regret: regrets.iter().copied().reduce(f64::max),
            within_0_3: regrets.iter().filter(|regret| **regret <= 0.3).count(),
            cases: regrets.len(),
            broken: mean(&|row| row.broken),
            broken_by_5_percent: mean(&|row| row.broken_by_5_percent),
            hypervolume: mean(&|row| row.limit_ms.is_none().then_some(row.hypervolume.mean)),
        }
    }
}
