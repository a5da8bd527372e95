//! Latencies of the zoo beside its counts.

use std::collections::{BTreeMap, BTreeSet};

use lathe_latency_db::{Measurement, Provenance, Summary};
use lathe_search::proxies::kendall;
use lathe_spaces::{Graph, Precision, Workload, WorkloadId, ZooNetwork};
use miette::Report;
use serde_json::{Value, json};

use super::directions::Direction;
use crate::{
    arguments::Format,
    failure::failed,
    terminal::{data, table},
};

/// One network on one device.
struct Row<'a> {
    network: &'a ZooNetwork,
    /// As its authors' code counts: before it is folded.
    graph: Graph,
    /// Bytes of a number.
    width: u64,
    outcome: String,
    /// What went wrong.
    message: Option<String>,
    summary: Option<Summary>,
}

/// Prints, for each device, every network with its counts and its latency; then how well counts rank
/// latencies, the spread of arithmetic per second, and the ratios of the pairs.
pub fn print(
    measured: &[Measurement],
    networks: &[(&ZooNetwork, Workload)],
    size: Option<[usize; 2]>,
    pairs: &[Direction],
    format: Format,
) -> Result<(), Report> {
    let devices: BTreeSet<(String, String, Provenance)> = measured
        .iter()
        .map(|row| (row.device.name.clone(), row.device.fingerprint(), row.provenance))
        .collect();
    for (name, fingerprint, provenance) in devices {
        let mine = measured.iter().filter(|row| row.device.fingerprint() == fingerprint);
        let best = best(mine.filter(|row| row.provenance == provenance));
        let mut rows = Vec::new();
        for (network, workload) in networks {
            let row = best.get(&workload.id());
            rows.push(Row {
                network,
                graph: network.graph(size).map_err(failed)?,
                width: match workload.precision {
                    Precision::Int8 => 1,
                    _ => 4,
                },
                message: row.filter(|row| !row.usable()).and_then(|row| row.error.clone()),
                outcome: row.map_or_else(|| "not timed".into(), |row| row.outcome.to_string()),
                summary: row.filter(|row| row.usable()).and_then(|row| row.summary()),
            });
        }
        let ratios: Vec<(&Direction, Option<[f64; 3]>)> = pairs
            .iter()
            .map(|pair| {
                let of = |workload: &Workload| {
                    best.get(&workload.id()).filter(|row| row.usable()).and_then(|row| row.summary())
                };
                (pair, of(&pair.first).zip(of(&pair.second)).map(|(first, second)| ratio(&first, &second)))
            })
            .collect();
        let device = json!({ "name": name, "fingerprint": fingerprint, "provenance": provenance });
        if format == Format::Json {
            data(&serde_json::to_string_pretty(&as_json(&device, &rows, &ratios)).map_err(failed)?);
        } else {
            data(&format!("{name} ({provenance})\n"));
            as_text(&rows, &ratios);
        }
    }
    Ok(())
}

/// Of several rows of a workload the usable one with the most samples.
fn best<'a>(rows: impl Iterator<Item = &'a Measurement>) -> BTreeMap<WorkloadId, &'a Measurement> {
    let mut best: BTreeMap<WorkloadId, &Measurement> = BTreeMap::new();
    let rank = |row: &Measurement| (row.usable(), row.samples_ns.len());
    for row in rows {
        let found = best.entry(row.workload.clone()).or_insert(row);
        if rank(row) > rank(found) {
            *found = row;
        }
    }
    best
}

/// Ratio of medians, and of the ends of their intervals against each other.
fn ratio(first: &Summary, second: &Summary) -> [f64; 3] {
    let of = |a: f64, b: f64| a / b.max(1e-9);
    [of(first.median.0, second.median.0), of(first.low.0, second.high.0), of(first.high.0, second.low.0)]
}

/// Pairs of multiply-accumulates, parameters and microseconds.
fn points(rows: &[Row<'_>]) -> Vec<[f64; 3]> {
    let timed = rows.iter().filter_map(|row| Some((row, row.summary.as_ref()?)));
    timed
        .map(|(row, summary)| [row.graph.macs() as f64, row.graph.parameter_count() as f64, summary.median.0])
        .collect()
}

/// Kendall's τ of two columns; `None` where nothing can be ordered.
fn order(points: &[[f64; 3]], [one, other]: [usize; 2]) -> Option<f64> {
    let pairs: Vec<(f64, f64)> = points.iter().map(|point| (point[one], point[other])).collect();
    (pairs.len() > 1).then(|| kendall(&pairs))
}

/// Least and greatest multiply-accumulates per nanosecond, which are billions per second.
fn rates(points: &[[f64; 3]]) -> Option<[f64; 2]> {
    let rates = points.iter().map(|[macs, _, micros]| macs / micros.max(1e-9) / 1e3);
    rates.fold(None, |ends, rate| {
        Some(ends.map_or([rate; 2], |[least, most]: [f64; 2]| [least.min(rate), most.max(rate)]))
    })
}

fn macs_ratio(pair: &Direction) -> f64 {
    pair.first.graph.macs() as f64 / pair.second.graph.macs().max(1) as f64
}

fn as_json(device: &Value, rows: &[Row<'_>], ratios: &[(&Direction, Option<[f64; 3]>)]) -> Value {
    let points = points(rows);
    let networks: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.network.name, "parameters": row.graph.parameter_count(), "macs": row.graph.macs(),
                "bytes_moved": row.graph.bytes_moved(row.width), "published": row.network.published,
                "peak_activation_bytes": row.graph.peak_activation_bytes(row.width),
                "outcome": row.outcome, "message": row.message, "summary": row.summary,
            })
        })
        .collect();
    let pairs: Vec<Value> = ratios
        .iter()
        .map(|(pair, ratio)| {
            json!({
                "pair": pair.title, "published": pair.published, "macs_ratio": macs_ratio(pair),
                "time_ratio": ratio.map(|[ratio, ..]| ratio),
                "time_ratio_interval": ratio.map(|[_, low, high]| [low, high]),
            })
        })
        .collect();
    json!({
        "device": device, "networks": networks, "directions": pairs,
        "kendall_tau_of_macs": order(&points, [0, 2]),
        "kendall_tau_of_parameters": order(&points, [1, 2]),
        "gmac_per_second": rates(&points),
    })
}

fn as_text(rows: &[Row<'_>], ratios: &[(&Direction, Option<[f64; 3]>)]) {
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let macs = row.graph.macs() as f64;
            let latency = row.summary.as_ref().map_or_else(
                || row.outcome.clone(),
                |summary| {
                    let [median, low, high] = [summary.median, summary.low, summary.high].map(|t| t.0 / 1e3);
                    format!("{median:.2} [{low:.2}, {high:.2}]")
                },
            );
            let rate = row.summary.as_ref().map_or_else(String::new, |summary| {
                format!("{:.1}", macs / summary.median.0.max(1e-9) / 1e3)
            });
            vec![
                row.network.name.clone(),
                format!("{:.3}", row.graph.parameter_count() as f64 / 1e6),
                format!("{:.2}", macs / 1e6),
                format!("{:.1}", row.graph.bytes_moved(row.width) as f64 / 1e6),
                format!("{:.1}", row.graph.peak_activation_bytes(row.width) as f64 / 1e6),
                latency,
                rate,
            ]
        })
        .collect();
    let header = ["network", "param. M", "MMAC", "MB moved", "peak MB", "ms [95 %]", "GMAC/s"];
    data(&table(&header, &lines));
    let points = points(rows);
    if let (Some(macs), Some(parameters)) = (order(&points, [0, 2]), order(&points, [1, 2])) {
        data(&format!("\nKendall's tau with latency: MACs {macs:.2}, parameters {parameters:.2}"));
    }
    if let Some([least, most]) = rates(&points) {
        data(&format!("GMAC/s: {least:.1} to {most:.1}"));
    }
    if ratios.is_empty() {
        return;
    }
    let lines: Vec<Vec<String>> = ratios
        .iter()
        .map(|(pair, ratio)| {
            let time = ratio.map_or_else(
                || "not timed".into(),
                |[ratio, low, high]| format!("{ratio:.2} [{low:.2}, {high:.2}]"),
            );
            vec![pair.title.clone(), format!("{:.2}", macs_ratio(pair)), time]
        })
        .collect();
    data("");
    data(&table(&["pair", "MACs", "time"], &lines));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_compared_pair_by_pair() {
        let points = [[1.0, 3.0, 10.0], [2.0, 1.0, 20.0], [3.0, 2.0, 30.0]];
        assert_eq!(order(&points, [0, 2]), Some(1.0));
        // One of three pairs agrees.
        assert!((order(&points, [1, 2]).unwrap_or(9.0) + 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(order(&points[..1], [0, 2]), None);
        // 1 multiply-accumulate in 10 microseconds is 0.0001 billion per second.
        assert_eq!(rates(&points), Some([1e-4, 1e-4]));
    }
}
