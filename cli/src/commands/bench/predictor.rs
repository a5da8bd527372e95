//! `lathe bench predictor`: how good latency predictors are on a table of architectures × devices.

use std::sync::Mutex;

use lathe_latency_db::{
    LatencyTable,
    predictor::benchmark::{BenchmarkOptions, BenchmarkRow, TableProtocol, benchmark, throughput},
};
use miette::Report;

use super::table_space;
use crate::{
    arguments::{BenchPredictorArguments, Format, TableProtocolChoice},
    exit_codes,
    failure::failed,
    terminal::{self, Terminal, table},
};

/// Runs the benchmark and prints one row per target, method and number of samples.
pub fn run(arguments: &BenchPredictorArguments, terminal: Terminal) -> Result<u8, Report> {
    let space = table_space::space(arguments.space);
    let latencies = LatencyTable::read(&arguments.table, &space).map_err(failed)?;
    let macs = table_space::macs(arguments.space, &space, &latencies)?;
    let options = BenchmarkOptions {
        sources: arguments.sources.clone(),
        targets: arguments.targets.clone(),
        protocol: match arguments.protocol {
            TableProtocolChoice::Help => TableProtocol::Help,
            TableProtocolChoice::All => TableProtocol::All,
        },
        samples: arguments.samples.clone(),
        seeds: arguments.seeds,
        macs,
    };
    let targets = options.targets.as_ref().map_or_else(|| latencies.devices().count(), Vec::len);
    let bar = Mutex::new(terminal.bar("bench", targets * arguments.seeds as usize));
    let rows = benchmark(&latencies, &options, &|done, total| {
        if let Ok(mut bar) = bar.lock() {
            bar.set(done, total, "");
        }
    })
    .map_err(failed)?;
    if let Ok(bar) = bar.into_inner() {
        bar.done();
    }
    let million = throughput(&latencies).map_err(failed)? / 1e6;
    terminal.say(&format!(
        "{million:.0} million predictions per second of the encoded architectures on {} thread(s)",
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    ));
    if arguments.format == Format::Json {
        terminal::data(&serde_json::to_string_pretty(&rows).map_err(failed)?);
    } else {
        terminal::data(&text(&rows));
    }
    Ok(exit_codes::OK)
}

fn text(rows: &[BenchmarkRow]) -> String {
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let percent =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}", 100.0 * value));
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.target.clone(),
                row.method.clone(),
                row.samples.to_string(),
                figure(row.spearman_mean),
                figure(row.spearman_sd),
                percent(row.within_5_percent),
                percent(row.within_10_percent),
                percent(row.selection_regret),
                percent(row.coverage_90),
                format!("{}/{}", row.seeds, row.seeds + row.refused),
                row.noise_floor.to_string(),
            ]
        })
        .collect();
    let header = [
        "target",
        "method",
        "samples",
        "spearman",
        "sd",
        "±5 %",
        "±10 %",
        "regret %",
        "inside 90 %",
        "seeds",
        "noise floor",
    ];
    table(&header, &rows)
}
