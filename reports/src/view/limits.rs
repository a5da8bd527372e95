//! What the network was held to: what the space reaches, what was expected, derived and measured.

use lathe_search::{LimitEpoch, LimitRange};
use serde::Serialize;

use crate::history::{History, OtherVerified};

/// All limits, and what was measured on further devices.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Limits {
    pub rows: Vec<LimitRow>,
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
    /// Expected at the end of the search, with its correction by measurement if there was one.
    pub expected: Option<String>,
    /// Of the network derived without regard to limits at the end of the search.
    pub derived: Option<String>,
    pub lambda: Option<String>,
}

/// One network on one more device.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Elsewhere {
    pub network: String,
    pub device: String,
    pub target: Option<String>,
    pub predicted: String,
    pub measured: String,
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
            expected: end.map(|end| range.quantity.show(end.expected + end.correction)),
            derived: end.map(|end| range.quantity.show(end.derived)),
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
        format!("after epoch {} on {name}: measured {error:+.1}\u{a0}% against its prediction", epoch + 1)
    };
    Some(Limits {
        rows: history.limits.iter().map(row).collect(),
        bias: last.iter().filter(|end| end.derived > 0.0).map(bias).collect(),
        probes: history.probes.iter().map(probe).collect(),
        elsewhere: history.elsewhere.iter().map(|row| elsewhere(history, row)).collect(),
    })
}

fn elsewhere(history: &History, row: &OtherVerified) -> Elsewhere {
    let target = history.other_targets.get(&row.device).copied();
    let latency = row.latency;
    Elsewhere {
        network: row.network.clone(),
        device: row.device.clone(),
        target: target.map(|target| target.to_string()),
        predicted: row.predicted.mean.to_string(),
        measured: format!("{} [{} … {}]", latency.median, latency.low, latency.high),
        meets: target.map(|target| latency.median <= target),
    }
}
