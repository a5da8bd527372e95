//! What was measured of the zoo, as tables for a document.

use lathe_latency_db::Provenance;

use super::figures::{Column, Ranks, Row, macs_ratio, rate};
use crate::terminal::{data, latency, markdown};

/// Counts, then a latency for every device and numeric type that timed any network; ranks; ratios of pairs.
pub fn print(columns: &[Column<'_>]) {
    // A type that a device doesn't compute in says nothing.
    let timed = |column: &&Column<'_>| column.rows.iter().any(|row| row.summary.is_some());
    let columns: Vec<&Column<'_>> = columns.iter().filter(timed).collect();
    for column in &columns {
        let device = &column.device;
        data(&format!(
            "- *{}*: {}, {} thread(s), {} {}, {}; fingerprint {}.",
            title(column),
            device.model,
            device.threads,
            device.engine.name,
            device.engine.version,
            device.os,
            device.fingerprint()
        ));
    }
    data("");
    let Some(first) = columns.first() else { return };
    let titles: Vec<String> = columns.iter().map(|column| title(column)).collect();
    let mut header =
        vec!["network", "parameters", "MMAC", "bytes moved, fp32, MB", "peak activations, fp32, MB"];
    header.extend(titles.iter().map(String::as_str));
    let rate = format!("GMAC/s, {}", titles.first().map_or("", String::as_str));
    header.extend([rate.as_str(), "published"]);
    let lines: Vec<Vec<String>> =
        (0..first.rows.len()).map(|index| line(&columns, &first.rows[index], index)).collect();
    data(&markdown(&header, &lines));
    data("");
    ranks(&columns);
    pairs(&columns);
}

/// `local fp32`, `ethos int8, estimated`.
fn title(column: &Column<'_>) -> String {
    let plain = format!("{} {}", column.device.name, column.precision);
    match column.provenance {
        Provenance::Measured => plain,
        other => format!("{plain}, {other}"),
    }
}

fn line(columns: &[&Column<'_>], row: &Row<'_>, index: usize) -> Vec<String> {
    let megabytes = |bytes: u64| format!("{:.2}", bytes as f64 / 1e6);
    let macs = row.graph.macs() as f64;
    let mut cells = vec![
        row.network.name.clone(),
        row.graph.parameter_count().to_string(),
        format!("{:.2}", macs / 1e6),
        megabytes(row.graph.bytes_moved(4)),
        megabytes(row.graph.peak_activation_bytes(4)),
    ];
    for column in columns {
        let row = &column.rows[index];
        cells.push(
            row.summary
                .as_ref()
                .map_or_else(|| format!("– ({})", row.outcome), |time| latency(time, column.provenance)),
        );
    }
    cells.push(
        row.summary.as_ref().map_or_else(|| "–".into(), |time| format!("{:.1}", rate(macs, time.median.0))),
    );
    cells.push(row.network.published.clone().unwrap_or_else(|| "–".into()));
    cells
}

fn ranks(columns: &[&Column<'_>]) {
    let header = ["latencies", "networks", "τ of MACs", "τ of parameters", "τ of bytes moved", "GMAC/s"];
    let show = |tau: Option<f64>| tau.map_or_else(|| "–".into(), |tau| format!("{tau:.2}"));
    let mut lines = Vec::new();
    for column in columns {
        let all = (Ranks::of(&column.rows, |_| true), "all");
        let classifiers = (Ranks::of_classifiers(&column.rows), "classifiers and backbones");
        for (ranks, which) in [all, classifiers] {
            lines.push(vec![
                title(column),
                format!("{} ({which})", ranks.networks),
                show(ranks.macs),
                show(ranks.parameters),
                show(ranks.bytes_moved),
                ranks.gmac_per_second.map_or_else(
                    || "–".into(),
                    |[least, most]| format!("{least:.1} … {most:.1} (× {:.1})", most / least.max(1e-12)),
                ),
            ]);
        }
    }
    data(&markdown(&header, &lines));
}

fn pairs(columns: &[&Column<'_>]) {
    let Some(first) = columns.first().filter(|column| !column.ratios.is_empty()) else { return };
    let titles: Vec<String> = columns.iter().map(|column| format!("time, {}", title(column))).collect();
    let mut header = vec!["pair", "MACs"];
    header.extend(titles.iter().map(String::as_str));
    header.push("what is published");
    let lines: Vec<Vec<String>> = first
        .ratios
        .iter()
        .enumerate()
        .map(|(index, (pair, _))| {
            let mut cells = vec![pair.title.clone(), format!("{:.2}", macs_ratio(pair))];
            for column in columns {
                cells.push(column.ratios[index].1.map_or_else(
                    || "–".into(),
                    |[ratio, low, high]| match column.provenance {
                        // One number each, without samples.
                        Provenance::CompilerEstimate => format!("{ratio:.2}"),
                        _ => format!("{ratio:.2} [{low:.2} … {high:.2}]"),
                    },
                ));
            }
            cells.push(pair.published.into());
            cells
        })
        .collect();
    data("");
    data(&markdown(&header, &lines));
}
