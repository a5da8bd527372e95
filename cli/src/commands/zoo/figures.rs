//! Latencies of the zoo beside its counts.

use std::collections::{BTreeMap, BTreeSet};

use lathe_latency_db::{Device, Measurement, Provenance, Summary};
use lathe_search::proxies::kendall;
use lathe_spaces::{Graph, Precision, Workload, WorkloadId, ZooNetwork};
use miette::Report;
use serde::Serialize;
use serde_json::{Value, json};

use super::{directions::Direction, workload};
use crate::{
    failure::failed,
    terminal::{data, table},
};

/// One network on one device.
pub struct Row<'a> {
    pub network: &'a ZooNetwork,
    /// As its authors' code counts: before it is folded.
    pub graph: Graph,
    /// Bytes of a number.
    pub width: u64,
    pub outcome: String,
    /// What went wrong.
    pub message: Option<String>,
    pub summary: Option<Summary>,
}

/// All networks and pairs on one device in one numeric type.
pub struct Column<'a> {
    pub device: Device,
    pub provenance: Provenance,
    pub precision: Precision,
    pub rows: Vec<Row<'a>>,
    /// Medians' ratio of each pair, and its interval, where both were timed.
    pub ratios: Vec<(&'a Direction, Option<[f64; 3]>)>,
}

/// What was measured, device by device and type by type.
pub fn columns<'a>(
    measured: &[Measurement],
    networks: &'a [ZooNetwork],
    size: Option<[usize; 2]>,
    precisions: &BTreeSet<Precision>,
    pairs: &'a [Direction],
) -> Result<Vec<Column<'a>>, Report> {
    let mut devices: BTreeMap<(String, String, Provenance), &Device> = BTreeMap::new();
    for row in measured {
        let key = (row.device.name.clone(), row.device.fingerprint(), row.provenance);
        devices.entry(key).or_insert(&row.device);
    }
    let mut columns = Vec::new();
    for ((_, fingerprint, provenance), device) in devices {
        let mine = measured.iter().filter(|row| row.device.fingerprint() == fingerprint);
        let best = best(mine.filter(|row| row.provenance == provenance));
        for &precision in precisions {
            let of = |workload: &Workload| {
                let row = best.get(&workload.clone().at(precision).id())?;
                row.usable().then(|| row.summary()).flatten()
            };
            let mut rows = Vec::new();
            for network in networks {
                let workload = workload(network, size)?.at(precision);
                let row = best.get(&workload.id());
                rows.push(Row {
                    network,
                    graph: network.graph(size).map_err(failed)?,
                    width: if precision == Precision::Int8 { 1 } else { 4 },
                    message: row.filter(|row| !row.usable()).and_then(|row| row.error.clone()),
                    outcome: row.map_or_else(|| "not timed".into(), |row| row.outcome.to_string()),
                    summary: row.filter(|row| row.usable()).and_then(|row| row.summary()),
                });
            }
            let ratio = |pair: &Direction| {
                of(&pair.first).zip(of(&pair.second)).map(|(first, second)| ratio(&first, &second))
            };
            let ratios = pairs.iter().map(|pair| (pair, ratio(pair))).collect();
            columns.push(Column { device: device.clone(), provenance, precision, rows, ratios });
        }
    }
    // What was timed stands before what was estimated.
    columns.sort_by_key(|column| column.provenance != Provenance::Measured);
    Ok(columns)
}

/// One JSON document for each device and type.
pub fn print_json(columns: &[Column<'_>]) -> Result<(), Report> {
    for column in columns {
        data(&serde_json::to_string_pretty(&as_json(column)).map_err(failed)?);
    }
    Ok(())
}

/// Tables for people, for each device and type.
pub fn print_text(columns: &[Column<'_>]) {
    for column in columns {
        data(&format!("{} ({}), {}\n", column.device.name, column.provenance, column.precision));
        as_text(&column.rows, &column.ratios);
    }
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

/// How counts order the latencies of some networks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ranks {
    /// Networks that were timed.
    pub networks: usize,
    /// Kendall's τ of multiply-accumulates with latency; `None` where nothing can be ordered.
    pub macs: Option<f64>,
    /// Of parameters.
    pub parameters: Option<f64>,
    /// Of bytes moved.
    pub bytes_moved: Option<f64>,
    /// Least and greatest multiply-accumulates per nanosecond, which are billions per second.
    pub gmac_per_second: Option<[f64; 2]>,
}

impl Ranks {
    /// Of those networks that `wanted` takes.
    pub fn of(rows: &[Row<'_>], wanted: impl Fn(&Row<'_>) -> bool) -> Self {
        let timed: Vec<(&Row<'_>, f64)> = rows
            .iter()
            .filter(|row| wanted(row))
            .filter_map(|row| Some((row, row.summary.as_ref()?.median.0)))
            .collect();
        let order = |count: &dyn Fn(&Row<'_>) -> f64| {
            let pairs: Vec<(f64, f64)> = timed.iter().map(|(row, micros)| (count(row), *micros)).collect();
            order(&pairs)
        };
        let rates: Vec<f64> =
            timed.iter().map(|(row, micros)| rate(row.graph.macs() as f64, *micros)).collect();
        Self {
            networks: timed.len(),
            macs: order(&|row| row.graph.macs() as f64),
            parameters: order(&|row| row.graph.parameter_count() as f64),
            bytes_moved: order(&|row| row.graph.bytes_moved(row.width) as f64),
            gmac_per_second: rates
                .iter()
                .copied()
                .reduce(f64::min)
                .zip(rates.iter().copied().reduce(f64::max))
                .map(<[f64; 2]>::from),
        }
    }

    /// Of the networks that end in one value per class or in a feature map of a classifier: without those that
    /// restore resolution or read images of 1,024 rows, whose few weights serve many positions.
    pub fn of_classifiers(rows: &[Row<'_>]) -> Self {
        Self::of(rows, |row| {
            let positions = row.graph.output_shape();
            let side = row.graph.input_shape().map_or(0, |shape| shape.h.max(shape.w));
            positions.h * 8 < side && side < 1024
        })
    }
}

/// Kendall's τ; `None` where nothing can be ordered.
fn order(pairs: &[(f64, f64)]) -> Option<f64> {
    (pairs.len() > 1).then(|| kendall(pairs))
}

/// Multiply-accumulates per nanosecond.
pub fn rate(macs: f64, micros: f64) -> f64 {
    macs / micros.max(1e-9) / 1e3
}

/// Ratio of a pair's multiply-accumulates.
pub fn macs_ratio(pair: &Direction) -> f64 {
    pair.first.graph.macs() as f64 / pair.second.graph.macs().max(1) as f64
}

fn as_json(column: &Column<'_>) -> Value {
    let Column { device, provenance, precision, rows, ratios } = column;
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
    let ranks = Ranks::of(rows, |_| true);
    json!({
        "device": { "name": device.name, "fingerprint": device.fingerprint(), "provenance": provenance },
        "precision": precision, "networks": networks, "directions": pairs,
        "kendall_tau_of_macs": ranks.macs, "kendall_tau_of_parameters": ranks.parameters,
        "kendall_tau_of_bytes_moved": ranks.bytes_moved, "gmac_per_second": ranks.gmac_per_second,
        "classifiers_alone": Ranks::of_classifiers(rows),
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
            let rate = row
                .summary
                .as_ref()
                .map_or_else(String::new, |summary| format!("{:.1}", rate(macs, summary.median.0)));
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
    let ranks = Ranks::of(rows, |_| true);
    if let (Some(macs), Some(parameters), Some(bytes)) = (ranks.macs, ranks.parameters, ranks.bytes_moved) {
        data(&format!(
            "\nKendall's tau with latency: MACs {macs:.2}, parameters {parameters:.2}, bytes moved {bytes:.2}"
        ));
    }
    if let Some([least, most]) = ranks.gmac_per_second {
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
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_spaces::Micros;

    use super::*;

    #[test]
    fn ranks_are_compared_pair_by_pair() {
        assert_eq!(order(&[(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]), Some(1.0));
        // One of three pairs agrees.
        let tau = order(&[(3.0, 10.0), (1.0, 20.0), (2.0, 30.0)]);
        assert!((tau.unwrap_or(9.0) + 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(order(&[(1.0, 10.0)]), None);
        // 1 multiply-accumulate in 10 microseconds is 0.0001 billion per second.
        assert!((rate(1.0, 10.0) - 1e-4).abs() < 1e-18);
    }

    #[test]
    fn classifiers_are_told_from_what_restores_resolution() {
        let networks = ["shvit-s1", "mobiledet-cpu", "hgnetv2-atto", "sesr-m3", "tinyvit-5m-sam"];
        let networks = networks.map(|name| ZooNetwork::named(name).map(Result::unwrap).unwrap());
        let row = |network| Row {
            network,
            graph: ZooNetwork::graph(network, None).unwrap(),
            width: 4,
            outcome: "ok".into(),
            message: None,
            summary: Some(Summary { median: Micros(5.0), ..summary() }),
        };
        let rows: Vec<Row<'_>> = networks.iter().map(row).collect();
        assert_eq!(Ranks::of_classifiers(&rows).networks, 3);
        assert_eq!(Ranks::of(&rows, |_| true).networks, 5);
    }

    fn summary() -> Summary {
        Summary::of(&[5_000; 5], &[5]).unwrap()
    }
}
