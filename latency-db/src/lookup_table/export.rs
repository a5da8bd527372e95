//! Measured operators as a look-up table.

use std::collections::BTreeMap;

use lathe_spaces::{Graph, WorkloadId};

use super::{Dialect, Figures, LookupTable, OperatorKey, Spread};
use crate::{Measurement, Outcome};

impl LookupTable {
    /// The measured operators that this dialect has a name for, by name, and how many others have a
    /// graph but no name. Several records of an operator are pooled sample by sample; a record out of a
    /// published table keeps that table's spread and count.
    ///
    /// Records hold no graphs: `graphs` are those that may have been measured. Records of imported
    /// tables need none, their labels name them, which the identity of the workload proves.
    ///
    /// # Errors
    /// The operator for which a published figure meets another record, in words.
    pub fn of_measurements(
        rows: &[Measurement],
        graphs: &BTreeMap<WorkloadId, Graph>,
        dialect: Dialect,
    ) -> Result<(Self, usize), String> {
        let mut found: BTreeMap<String, (OperatorKey, Vec<&Measurement>)> = BTreeMap::new();
        let mut nameless = std::collections::BTreeSet::new();
        for row in rows.iter().filter(|row| row.usable() && row.outcome == Outcome::Ok) {
            match key_of(row, graphs, dialect) {
                Some(key) => {
                    found.entry(key.to_string()).or_insert_with(|| (key, Vec::new())).1.push(row);
                }
                None => {
                    nameless.insert(&row.workload);
                }
            }
        }
        let mut table = Vec::new();
        for (name, (key, rows)) in found {
            table.push((key, figures(&rows).map_err(|reason| format!("{name}: {reason}"))?));
        }
        let table = Self::new(table).map_err(|(_, reason)| reason)?;
        Ok((table, nameless.len()))
    }
}

fn key_of(row: &Measurement, graphs: &BTreeMap<WorkloadId, Graph>, dialect: Dialect) -> Option<OperatorKey> {
    if let Some(graph) = graphs.get(&row.workload) {
        return OperatorKey::of_graph(graph, dialect);
    }
    let named: OperatorKey = row.label.parse().ok()?;
    [Dialect::Ofa, Dialect::ProxylessNas]
        .into_iter()
        .filter_map(|own| named.workload(own).ok())
        .find(|workload| workload.id() == row.workload)
        .and_then(|workload| OperatorKey::of_graph(&workload.graph, dialect))
}

fn figures(rows: &[&Measurement]) -> Result<Figures, String> {
    if let Some(published) = rows.iter().find_map(|row| row.published.as_ref()) {
        let [row] = rows else {
            return Err(format!(
                "{} records, one of them published in {}; choose a campaign",
                rows.len(),
                published.source
            ));
        };
        let mean_ms = row.median().unwrap_or_default().millis();
        let spread = published.standard_deviation.map(|deviation| Spread::Deviation(deviation.millis()));
        return Ok(Figures { mean_ms, spread, count: published.count });
    }
    let samples = || rows.iter().flat_map(|row| &row.samples_ns).map(|&nanos| nanos as f64 / 1e6);
    let count = samples().count();
    let mean_ms = samples().sum::<f64>() / count as f64;
    let variance = samples().map(|sample| (sample - mean_ms).powi(2)).sum::<f64>() / count as f64;
    Ok(Figures { mean_ms, spread: Some(Spread::Deviation(variance.sqrt())), count: Some(count as u64) })
}
