//! Workloads on several devices side by side.

use std::collections::BTreeMap;

use lathe_latency_db::{Measurement, Summary};
use lathe_spaces::{Micros, WorkloadId};
use miette::Report;

use crate::{
    arguments::Format,
    failure::failed,
    terminal::{data, table},
};

/// Characters of a label that a table shows.
const LABEL: usize = 40;

/// Prints, for each workload, how it ended on each device: tier, kind of number, load time, first run,
/// warm median with interval, peak memory. Of several rows of one workload on one device the usable one
/// with the most samples counts; a failure stands where nothing better is.
pub fn print(rows: &[Measurement], format: Format) -> Result<(), Report> {
    let best = best(rows);
    if format == Format::Json {
        for row in best.values().flat_map(BTreeMap::values) {
            let value = serde_json::json!({
                "workload": row.workload, "label": row.label, "level": row.level, "precision": row.precision,
                "tier": row.device.tier, "device": row.device.fingerprint(), "device_name": row.device.name,
                "provenance": row.provenance, "outcome": row.outcome, "error": row.error,
                "load_us": row.load_ns as f64 / 1e3, "first_run_us": row.first_run_ns as f64 / 1e3,
                "summary": row.summary(), "peak_rss_kb": row.peak_rss_kb, "flags": row.flags,
            });
            data(&serde_json::to_string(&value).map_err(failed)?);
        }
        return Ok(());
    }
    let lines: Vec<Vec<String>> = best.values().flat_map(lines).collect();
    let header = [
        "workload",
        "tier",
        "device",
        "kind",
        "outcome",
        "load",
        "first run",
        "warm median [95 %]",
        "peak memory",
        "flags",
    ];
    data(&table(&header, &lines));
    Ok(())
}

type Devices<'a> = BTreeMap<(Option<lathe_latency_db::Tier>, String, String), &'a Measurement>;

/// Per workload, by device: tier, alias, fingerprint.
fn best(rows: &[Measurement]) -> BTreeMap<(String, WorkloadId), Devices<'_>> {
    let mut labels: BTreeMap<&WorkloadId, &String> = BTreeMap::new();
    let mut best: BTreeMap<(String, WorkloadId), Devices<'_>> = BTreeMap::new();
    let rank = |row: &Measurement| (row.usable(), row.samples_ns.len(), row.id.clone());
    for row in rows {
        // One computation may have been timed under several labels.
        let label = (*labels.entry(&row.workload).or_insert(&row.label)).clone();
        let device = (row.device.tier, row.device.name.clone(), row.device.fingerprint());
        best.entry((label, row.workload.clone()))
            .or_default()
            .entry(device)
            .and_modify(|known| {
                if rank(row) > rank(known) {
                    *known = row;
                }
            })
            .or_insert(row);
    }
    best
}

fn lines(devices: &Devices<'_>) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for (index, ((tier, name, _), row)) in devices.iter().enumerate() {
        let label: String = row.label.chars().take(LABEL).collect();
        let nanos =
            |value: u64| if value > 0 { Micros::from_nanos(value as f64).to_string() } else { "–".into() };
        lines.push(vec![
            if index == 0 { label } else { String::new() },
            tier.map_or_else(|| "–".to_owned(), |tier| tier.to_string()),
            name.clone(),
            row.provenance.to_string(),
            row.outcome.to_string(),
            nanos(row.load_ns),
            nanos(row.first_run_ns),
            row.summary().map_or_else(|| "–".to_owned(), interval),
            if row.peak_rss_kb > 0 { format!("{} MiB", row.peak_rss_kb / 1024) } else { "–".to_owned() },
            row.flags.len().to_string(),
        ]);
    }
    lines
}

fn interval(summary: Summary) -> String {
    format!("{} [{} … {}]", summary.median, summary.low, summary.high)
}
