//! `lathe bench selection`: the most accurate architecture under a latency limit, with few measurements.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use lathe_latency_db::{
    LatencyTable, LatencyTableError,
    predictor::selection_benchmark::{SelectionOptions, SelectionRow, overall, selection_benchmark},
};
use lathe_spaces::Space;
use miette::Report;

use super::table_space;
use crate::{
    arguments::{BenchSelectionArguments, Format},
    exit_codes,
    failure::failed,
    terminal::{self, Terminal, table},
};

/// Runs the benchmark and prints one row per target, method and limit, and one per method over all.
pub fn run(arguments: &BenchSelectionArguments, terminal: Terminal) -> Result<u8, Report> {
    let space = table_space::space(arguments.space);
    let latencies = LatencyTable::read(&arguments.latency, &space).map_err(failed)?;
    let options = SelectionOptions {
        sources: arguments.sources.clone(),
        targets: arguments.targets.clone(),
        limits: arguments.limits.clone(),
        samples: arguments.samples,
        seeds: arguments.seeds,
        safety: arguments.safety,
        accuracies: accuracies(arguments, &space, &latencies)?,
        macs: table_space::macs(arguments.space, &space, &latencies)?,
    };
    let targets = options.targets.as_ref().map_or_else(|| latencies.devices().count(), Vec::len);
    let bar = Mutex::new(terminal.bar("bench", targets * arguments.seeds as usize));
    let mut rows = selection_benchmark(&latencies, &options, &|done, total| {
        bar.lock().unwrap_or_else(PoisonError::into_inner).set(done, total, "");
    })
    .map_err(failed)?;
    bar.into_inner().unwrap_or_else(PoisonError::into_inner).done();
    rows.extend(overall(&rows));
    if arguments.format == Format::Json {
        terminal::data(&serde_json::to_string_pretty(&rows).map_err(failed)?);
    } else {
        terminal::data(&text(&rows));
    }
    Ok(exit_codes::OK)
}

/// Accuracy of every row of the table of latencies.
fn accuracies(
    arguments: &BenchSelectionArguments,
    space: &Space,
    latencies: &LatencyTable,
) -> Result<Vec<Option<f64>>, Report> {
    let table = LatencyTable::read(&arguments.accuracy, space).map_err(failed)?;
    let column = table.latencies(&arguments.column).map_err(|error| match error {
        // The same reader, but what it did not find is no device.
        LatencyTableError::Device { path, device, hint } => {
            miette::miette!("failed to find the column `{device}` in {}: {hint}", path.display())
        }
        error => failed(error),
    })?;
    let known: BTreeMap<_, _> = table.codes().iter().zip(column).collect();
    Ok(latencies.codes().iter().map(|codes| known.get(codes).copied().copied().flatten()).collect())
}

fn text(rows: &[SelectionRow]) -> String {
    let percent =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{:.2}", 100.0 * value));
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.target.clone(),
                row.method.clone(),
                row.limit_ms.map_or_else(|| "all".to_owned(), |limit| format!("{limit:.3}")),
                format!("{}/{}", row.cases - row.without_choice, row.cases),
                percent(row.accuracy_of_oracle),
                percent(row.broken),
                percent(row.broken_by_5_percent),
                if row.limit_ms.is_some() { row.noise_floor.to_string() } else { "-".to_owned() },
            ]
        })
        .collect();
    let header =
        ["target", "method", "limit ms", "choices", "% of oracle", "broken %", "by > 5 %", "noise floor"];
    table(&header, &rows)
}
