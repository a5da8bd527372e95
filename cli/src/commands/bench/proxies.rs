//! `lathe bench proxies`: how well scores of untrained networks order them.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use lathe_latency_db::{LatencyTable, LatencyTableError};
use lathe_search::{
    DataError, DataSettings, DataSource, Dataset,
    proxies::{Proxy, ProxyBenchmarkError, ProxyOptions, ProxyRow, proxy_benchmark},
};
use miette::Report;
use serde::Serialize;

use super::table_space;
use crate::{
    arguments::{BenchProxiesArguments, Format, ProxyChoice, TableSpace},
    exit_codes,
    failure::failed,
    interrupt,
    terminal::{self, Terminal, table},
};

/// Side of NAS-Bench-201's images.
const RESOLUTION: usize = 32;

/// What is printed as JSON.
#[derive(Serialize)]
struct Printed<'p> {
    version: &'static str,
    seed: u64,
    /// Images of NASWOT's batch, if it had one.
    batch: Option<usize>,
    rows: &'p [ProxyRow],
}

/// Runs the benchmark and prints one row per proxy and column of accuracies.
pub fn run(arguments: &BenchProxiesArguments, terminal: Terminal) -> Result<u8, Report> {
    let space = table_space::space(TableSpace::Nb201);
    let accuracies = LatencyTable::read(&arguments.accuracy, &space).map_err(failed)?;
    let options = ProxyOptions {
        columns: arguments.column.clone(),
        networks: arguments.networks,
        proxies: proxies(arguments, terminal)?,
        seed: arguments.seed,
    };
    let batch = match &arguments.images {
        Some(folder) if options.proxies.contains(&Proxy::Naswot) => {
            Some(images(folder, arguments).map_err(failed)?)
        }
        _ => None,
    };
    let stop = interrupt::watch(terminal)?;
    let bar = Mutex::new(terminal.bar("bench", arguments.networks));
    let with_batch = batch.is_some();
    let rows = proxy_benchmark(&accuracies, &options, batch, stop, &|done, total| {
        bar.lock().unwrap_or_else(PoisonError::into_inner).set(done, total, "");
    });
    bar.into_inner().unwrap_or_else(PoisonError::into_inner).done();
    let rows = match rows {
        Err(ProxyBenchmarkError::Interrupted) => {
            terminal.say("interrupted: nothing is printed, since figures would be of some networks only");
            return Ok(exit_codes::INTERRUPTED);
        }
        // The same reader as of latencies, but what it did not find is no device.
        Err(ProxyBenchmarkError::Table(LatencyTableError::Device { path, device, hint })) => {
            return Err(miette::miette!(
                "failed to find the column `{device}` in {}: {hint}",
                path.display()
            ));
        }
        rows => rows.map_err(failed)?,
    };
    if arguments.format == Format::Json {
        let batch = with_batch.then_some(arguments.batch);
        let printed =
            Printed { version: env!("CARGO_PKG_VERSION"), seed: arguments.seed, batch, rows: &rows };
        terminal::data(&serde_json::to_string_pretty(&printed).map_err(failed)?);
    } else {
        terminal::data(&text(&rows));
    }
    Ok(exit_codes::OK)
}

fn proxies(arguments: &BenchProxiesArguments, terminal: Terminal) -> Result<Vec<Proxy>, Report> {
    let without_images = arguments.images.is_none();
    let Some(choices) = &arguments.proxies else {
        if without_images {
            terminal.say("naswot is left out: it needs images (--images)");
        }
        let given = |proxy: &Proxy| !(without_images && *proxy == Proxy::Naswot);
        return Ok(Proxy::ALL.into_iter().filter(given).collect());
    };
    if without_images && choices.contains(&ProxyChoice::Naswot) {
        return Err(miette::miette!(
            help = "name a folder of images with --images",
            "failed to score by `naswot`: it needs images"
        ));
    }
    let proxy = |choice: &ProxyChoice| Proxy::from(*choice);
    Ok(choices.iter().map(proxy).collect())
}

/// A batch of training images, equally many of every class as far as that goes.
fn images(folder: &Path, arguments: &BenchProxiesArguments) -> Result<Dataset, DataError> {
    let path = folder.to_owned();
    let source = if folder.join("data_batch_1.bin").is_file() {
        DataSource::Cifar10 { path }
    } else {
        DataSource::ImageFolder { path }
    };
    let settings = DataSettings {
        source,
        resolution: RESOLUTION,
        train_images: Some(arguments.batch),
        test_images: Some(1),
    };
    Dataset::load(&settings, arguments.seed, &|_, _| {})
}

fn text(rows: &[ProxyRow]) -> String {
    let figure = |value: f64, [low, high]: [f64; 2]| format!("{value:.2} [{low:.2}, {high:.2}]");
    let cells = |row: &ProxyRow| {
        vec![
            row.proxy.name().to_owned(),
            row.column.clone(),
            figure(row.agreement.spearman, row.agreement.spearman_95),
            figure(row.agreement.kendall, row.agreement.kendall_95),
            format!("{:.3}", row.seconds),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    table(&["proxy", "column", "Spearman", "Kendall", "s"], &rows)
}
