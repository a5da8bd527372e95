//! `lathe bench search`: searches on tables, judged by exact optima.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Mutex, PoisonError},
};

use lathe_latency_db::{LatencyTable, predictor::Codes};
use lathe_search::tabular::{
    Algorithm, Knowledge, SearchOptions, SearchRow, SearchSummary, Spread, TabularError, search_benchmark,
};
use miette::Report;
use serde::Serialize;

use super::table_space;
use crate::{
    arguments::{AlgorithmChoice, BenchSearchArguments, KnowledgeChoice, ShowFormat, TableSpace},
    exit_codes,
    failure::failed,
    interrupt,
    terminal::{self, Terminal, table},
};

/// What is printed as JSON.
#[derive(Serialize)]
struct Printed<'p> {
    version: &'static str,
    /// Column of accuracies: what was chosen by and what is reported.
    column: &'p str,
    samples: usize,
    seeds: u64,
    /// Numbers of architectures whose accuracy could be looked up.
    budgets: &'p [usize],
    summary: &'p [SearchSummary],
    rows: &'p [SearchRow],
}

/// Runs the benchmark and prints one row per way to search, and one per device, limit and way.
pub fn run(arguments: &BenchSearchArguments, terminal: Terminal) -> Result<u8, Report> {
    let space = table_space::space(TableSpace::Nb201);
    let latencies = LatencyTable::read(&arguments.latency, &space).map_err(failed)?;
    let accuracies = LatencyTable::read(&arguments.accuracy, &space).map_err(failed)?;
    once(&latencies, &arguments.latency)?;
    once(&accuracies, &arguments.accuracy)?;
    let options = SearchOptions {
        sources: arguments.sources.clone(),
        targets: arguments.targets.clone(),
        limits_ms: arguments.limits_ms.clone(),
        samples: arguments.samples,
        budgets: arguments.budgets.clone(),
        seeds: arguments.seeds,
        accuracies: joined(arguments, &accuracies, &latencies)?,
        algorithms: arguments.algorithms.iter().map(|choice| algorithm(*choice)).collect(),
        knowledge: arguments.knowledge.iter().map(|choice| knowledge(*choice)).collect(),
    };
    let stop = interrupt::watch(terminal)?;
    let targets = options.targets.as_ref().map_or_else(|| latencies.devices().count(), Vec::len);
    let bar = Mutex::new(terminal.bar("bench", targets * arguments.seeds as usize));
    let benchmark = search_benchmark(&latencies, &options, stop, &|done, total| {
        bar.lock().unwrap_or_else(PoisonError::into_inner).set(done, total, "");
    });
    bar.into_inner().unwrap_or_else(PoisonError::into_inner).done();
    let benchmark = match benchmark {
        Err(TabularError::Interrupted) => {
            terminal.say(
                "interrupted: nothing is printed, since figures would be of some devices and seeds only",
            );
            return Ok(exit_codes::INTERRUPTED);
        }
        benchmark => benchmark.map_err(failed)?,
    };
    match arguments.format {
        ShowFormat::Json => {
            let printed = Printed {
                version: env!("CARGO_PKG_VERSION"),
                column: &arguments.column,
                samples: arguments.samples,
                seeds: arguments.seeds,
                budgets: &arguments.budgets,
                summary: &benchmark.summary,
                rows: &benchmark.rows,
            };
            terminal::data(&serde_json::to_string_pretty(&printed).map_err(failed)?);
        }
        ShowFormat::Text => {
            let (header, rows) = summary(&benchmark.summary);
            terminal::data(&format!("{}\n", table(&header, &rows)));
            let (header, rows) = details(&benchmark.rows);
            terminal::data(&table(&header, &rows));
        }
        ShowFormat::Markdown => {
            let (header, rows) = summary(&benchmark.summary);
            terminal::data(&format!("{}\n", terminal::markdown(&header, &rows)));
            let (header, rows) = details(&benchmark.rows);
            terminal::data(&terminal::markdown(&header, &rows));
        }
    }
    Ok(exit_codes::OK)
}

const fn algorithm(choice: AlgorithmChoice) -> Algorithm {
    match choice {
        AlgorithmChoice::Random => Algorithm::Random,
        AlgorithmChoice::Aging => Algorithm::Aging,
        AlgorithmChoice::Nsga2 => Algorithm::Nsga2,
        AlgorithmChoice::Guided => Algorithm::Guided,
    }
}

const fn knowledge(choice: KnowledgeChoice) -> Knowledge {
    match choice {
        KnowledgeChoice::Predictor => Knowledge::Predictor,
        KnowledgeChoice::Macs => Knowledge::Macs,
        KnowledgeChoice::Oracle => Knowledge::Oracle,
    }
}

/// Every architecture once: which of two rows would count?
pub(super) fn once(table: &LatencyTable, path: &Path) -> Result<(), Report> {
    let mut seen: BTreeMap<&Codes, usize> = BTreeMap::new();
    for (row, codes) in table.codes().iter().enumerate() {
        if let Some(first) = seen.insert(codes, row) {
            return Err(miette::miette!(
                "failed to join {}: its rows {} and {} are the same architecture, {}",
                path.display(),
                first + 1,
                row + 1,
                table.space().format(&table.genotypes()[row])
            ));
        }
    }
    Ok(())
}

/// Accuracy of every row of the table of latencies.
fn joined(
    arguments: &BenchSearchArguments,
    accuracies: &LatencyTable,
    latencies: &LatencyTable,
) -> Result<Vec<Option<f64>>, Report> {
    let (name, path) = (&arguments.column, arguments.accuracy.display());
    if name.split(['_', '-', '.']).any(|word| word.eq_ignore_ascii_case("test")) {
        return Err(miette::miette!(
            help = "name a column of validation accuracies with --column",
            "failed to search by the column `{name}` of {path}: it is a test accuracy, and nothing is chosen by those"
        ));
    }
    looked_up(name, &arguments.accuracy, accuracies, latencies)
}

/// A column of accuracies, for every row of the table of latencies.
pub(super) fn looked_up(
    name: &str,
    path: &Path,
    accuracies: &LatencyTable,
    latencies: &LatencyTable,
) -> Result<Vec<Option<f64>>, Report> {
    let Ok(column) = accuracies.latencies(name) else {
        let columns: BTreeSet<&str> = accuracies.devices().collect();
        let columns: Vec<&str> = columns.into_iter().collect();
        return Err(miette::miette!(
            help = format!("--column is one of {}", columns.join(", ")),
            "failed to find the column `{name}` in {}",
            path.display()
        ));
    };
    let known: BTreeMap<&Codes, Option<f64>> =
        accuracies.codes().iter().zip(column.iter().copied()).collect();
    Ok(latencies.codes().iter().map(|codes| known.get(codes).copied().flatten()).collect())
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}", 100.0 * value))
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

fn summary(rows: &[SearchSummary]) -> ([&'static str; 9], Vec<Vec<String>>) {
    let cells = |row: &SearchSummary| {
        vec![
            row.algorithm.name().to_owned(),
            row.latency.name().to_owned(),
            row.budget.to_string(),
            figure(row.regret),
            figure(row.worst_regret),
            format!("{}/{}", row.within_0_3, row.cases),
            percent(row.broken),
            percent(row.broken_by_5_percent),
            percent(row.hypervolume),
        ]
    };
    let header = [
        "algorithm",
        "latency",
        "budget",
        "regret",
        "worst",
        "regret ≤ 0.3",
        "broken %",
        "by > 5 %",
        "hypervolume of the front %",
    ];
    (header, rows.iter().map(cells).collect())
}

fn details(rows: &[SearchRow]) -> ([&'static str; 10], Vec<Vec<String>>) {
    let spread = |value: Option<Spread>| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{:.2} ± {:.2}", value.mean, value.std))
    };
    let cells = |row: &SearchRow| {
        vec![
            row.target.clone(),
            row.limit_ms.map_or_else(|| "front".to_owned(), |limit| format!("{limit:.3}")),
            row.algorithm.name().to_owned(),
            row.latency.name().to_owned(),
            row.budget.to_string(),
            spread(row.accuracy),
            spread(row.regret),
            percent(row.broken),
            percent(row.broken_by_5_percent),
            percent(Some(row.hypervolume.mean)),
        ]
    };
    let header = [
        "target",
        "limit ms",
        "algorithm",
        "latency",
        "budget",
        "accuracy",
        "regret",
        "broken %",
        "by > 5 %",
        "hypervolume %",
    ];
    (header, rows.iter().map(cells).collect())
}
