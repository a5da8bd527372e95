//! Where the latency goes.

use serde::Serialize;

use super::Section;
use crate::{
    history::{CandidateHistory, History},
    quantity::{Quantity, latency, percent},
};

/// Latency per kind of operation.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shares {
    /// Network of the bar chart.
    pub network: String,
    /// Its operations, largest first.
    pub rows: Vec<ShareRow>,
    /// Sum of the shares, and what was measured.
    pub sum: String,
    /// Operations of all networks: columns of the table.
    pub operations: Vec<String>,
    /// All networks.
    pub networks: Vec<NetworkShares>,
}

/// One kind of operation in one network.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ShareRow {
    pub operation: String,
    #[serde(skip)]
    pub micros: f64,
    pub time: String,
    pub share: String,
}

/// One network.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NetworkShares {
    pub name: String,
    /// Microseconds per operation, in the order of [`Shares::operations`].
    #[serde(skip)]
    pub micros: Vec<f64>,
    /// The same as shares of the sum, in words; a dash where the network lacks the operation.
    pub shares: Vec<String>,
    pub measured: Quantity,
}

pub(super) fn shares(history: &History, headline: Option<&str>) -> Section<Shares> {
    let known = |candidate: &&CandidateHistory| {
        candidate.verified.as_ref().is_some_and(|verified| !verified.shares.is_empty())
    };
    let named =
        history.candidates.iter().filter(known).find(|candidate| Some(candidate.name.as_str()) == headline);
    let Some(shown) = named.or_else(|| history.candidates.iter().find(known)) else {
        return Section::Missing("No network has been verified on the device yet.".into());
    };
    let Some(verified) = &shown.verified else {
        return Section::Missing("No network has been verified on the device yet.".into());
    };
    let sum: f64 = verified.shares.iter().map(|(_, time)| time.0).sum();
    let mut rows: Vec<ShareRow> = verified
        .shares
        .iter()
        .map(|(operation, time)| ShareRow {
            operation: operation.clone(),
            micros: time.0,
            time: latency(*time),
            share: percent(time.0 / sum, 1),
        })
        .collect();
    rows.sort_by(|a, b| b.micros.total_cmp(&a.micros));
    let operations = operations(history);
    Section::Ready(Shares {
        network: shown.name.clone(),
        sum: format!(
            "The shares add up to the prediction, {}; the whole network was timed at {} ({}).",
            shown.predicted.as_ref().map(Quantity::predicted).map_or_else(
                || latency(lathe_spaces::Micros(sum)),
                |predicted| with_interval(&predicted, "90\u{a0}%")
            ),
            Quantity::measured(&verified.latency).text,
            Quantity::measured(&verified.latency)
                .interval
                .map_or_else(String::new, |range| format!("95\u{a0}%: {range}"))
        ),
        rows,
        networks: history
            .candidates
            .iter()
            .filter(known)
            .filter_map(|known| network(known, &operations))
            .collect(),
        operations,
    })
}

fn with_interval(quantity: &Quantity, level: &str) -> String {
    match &quantity.interval {
        Some(interval) => format!("{} ({level}: {interval})", quantity.text),
        None => quantity.text.clone(),
    }
}

/// All operations; those that take most time over all networks come first.
fn operations(history: &History) -> Vec<String> {
    let mut sums: Vec<(String, f64)> = Vec::new();
    for (operation, time) in
        history.candidates.iter().filter_map(|c| c.verified.as_ref()).flat_map(|v| &v.shares)
    {
        match sums.iter_mut().find(|(name, _)| name == operation) {
            Some((_, sum)) => *sum += time.0,
            None => sums.push((operation.clone(), time.0)),
        }
    }
    sums.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    sums.into_iter().map(|(name, _)| name).collect()
}

fn network(candidate: &CandidateHistory, operations: &[String]) -> Option<NetworkShares> {
    let verified = candidate.verified.as_ref()?;
    let sum: f64 = verified.shares.iter().map(|(_, time)| time.0).sum();
    let time = |operation: &String| {
        verified.shares.iter().find(|(name, _)| name == operation).map(|(_, time)| time.0)
    };
    Some(NetworkShares {
        name: candidate.name.clone(),
        micros: operations.iter().map(|operation| time(operation).unwrap_or_default()).collect(),
        shares: operations
            .iter()
            .map(|operation| time(operation).map_or_else(|| "–".into(), |time| percent(time / sum, 1)))
            .collect(),
        measured: Quantity::measured(&verified.latency),
    })
}
