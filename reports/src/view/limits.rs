//! What the network was held to: what the space reaches, what was expected, derived and measured.

use lathe_latency_db::FitQuality;
use lathe_search::{LimitEpoch, LimitRange};
use serde::Serialize;

use super::Provenances;
use crate::{
    history::{History, OtherVerified},
    quantity::{fixed, percent},
};

/// All limits, and the latencies on further devices.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Limits {
    pub rows: Vec<LimitRow>,
    /// How far the predictors of further devices can be believed, a sentence each.
    pub fits: Vec<String>,
    /// How far the expectation was from what would have been derived, at the end of the search.
    pub bias: Vec<String>,
    /// Measurements during the search.
    pub probes: Vec<String>,
    /// The networks on further devices.
    pub elsewhere: Vec<Elsewhere>,
}

/// One quantity.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LimitRow {
    pub name: String,
    pub reachable: String,
    pub at_most: Option<String>,
    /// Expected at the end of the search, by prediction.
    pub expected: Option<String>,
    /// Of the network derived without regard to limits at the end of the search, by prediction.
    pub derived: Option<String>,
    /// What measurements during the search add to both; `None` if there were none.
    pub correction: Option<String>,
    pub lambda: Option<String>,
}

/// One network on one more device.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Elsewhere {
    pub network: String,
    pub device: String,
    pub target: Option<String>,
    pub predicted: String,
    /// With its interval, where it has one.
    pub latency: String,
    /// `measured`, `emulated`, `estimated`.
    pub origin: &'static str,
    pub meets: Option<bool>,
}

/// `None` if the record tells of no limit.
pub(super) fn limits(history: &History) -> Option<Limits> {
    if history.limits.is_empty() {
        return None;
    }
    let last = history.epochs.last().map_or(&[][..], |epoch| &epoch.limits);
    let row = |range: &LimitRange| {
        let [least, most] = range.reachable.map(|value| range.quantity.show(value));
        let end = last.iter().find(|end| end.limit == range.limit);
        LimitRow {
            name: range.limit.clone(),
            reachable: format!("{least} to {most}"),
            at_most: range.at_most.map(|value| range.quantity.show(value)),
            expected: end.map(|end| range.quantity.show(end.expected)),
            derived: end.map(|end| range.quantity.show(end.derived)),
            correction: end.filter(|end| end.correction.abs() > 0.0).map(|end| {
                let sign = if end.correction < 0.0 { '−' } else { '+' };
                format!("{sign}{}", range.quantity.show(end.correction.abs()))
            }),
            lambda: end.map(|end| format!("{:.3}", end.lambda)),
        }
    };
    let bias = |end: &LimitEpoch| {
        let percent = (end.expected / end.derived - 1.0) * 100.0;
        format!(
            "{}: expected {percent:+.1}\u{a0}% against the network that would have been derived",
            end.limit
        )
    };
    let probe = |(epoch, name, predicted, measured): &(usize, String, f64, f64)| {
        let error = (measured / predicted - 1.0) * 100.0;
        let origin = origin(history, name);
        format!("after epoch {} on {name}: {origin} {error:+.1}\u{a0}% against its prediction", epoch + 1)
    };
    let fit = |(name, (quality, simpler)): (&String, &(FitQuality, Vec<FitQuality>))| {
        let simpler = simpler.iter().map(|simpler| {
            let error = percent(simpler.median_relative_error, 1);
            format!(", {}: {error}", simpler.model)
        });
        let simpler = simpler.collect::<String>();
        format!(
            "Prediction on {name}: half of {} held-out networks are closer to their {} latency than {}, rank \
             correlation {}{simpler}.",
            quality.points.len(),
            origin(history, name),
            percent(quality.median_relative_error, 1),
            fixed(quality.spearman, 3),
        )
    };
    Some(Limits {
        fits: history.other_qualities.iter().map(fit).collect(),
        rows: history.limits.iter().map(row).collect(),
        bias: last.iter().filter(|end| end.derived > 0.0).map(bias).collect(),
        probes: history.probes.iter().map(probe).collect(),
        elsewhere: history.elsewhere.iter().map(|row| elsewhere(history, row)).collect(),
    })
}

/// How the latencies of a device were come by; those of a name that is none of the further devices are the first
/// one's.
fn origin(history: &History, device: &str) -> &'static str {
    let first = || history.device.as_ref().map(|facts| facts.provenance);
    Provenances::of(history.other_provenances.get(device).copied().or_else(first)).word
}

fn elsewhere(history: &History, row: &OtherVerified) -> Elsewhere {
    let target = history.other_targets.get(&row.device).copied();
    let latency = row.latency;
    let origin = origin(history, &row.device);
    Elsewhere {
        network: row.network.clone(),
        device: row.device.clone(),
        target: target.map(|target| target.to_string()),
        predicted: row.predicted.mean.to_string(),
        latency: if origin == "estimated" {
            // One number, without samples.
            latency.median.to_string()
        } else {
            format!("{} [{} … {}]", latency.median, latency.low, latency.high)
        },
        origin,
        meets: target.map(|target| latency.median <= target),
    }
}
