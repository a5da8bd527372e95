//! A model of one space, from few measurements on the device and a table of other devices.

use std::path::Path;

use lathe_latency_db::{
    LatencyTable, Measurement, Store,
    predictor::{Codes, Prior, TableModel, TableModelHeader, select_next},
};
use lathe_runners::Runner;
use lathe_spaces::{Level, NetworkOptions, Precision, Space, Stream, Workload};
use miette::Report;
use rand::seq::SliceRandom;

use super::Learning;
use crate::{arguments::Format, commands::space, exit_codes, failure::failed, run::now, terminal};

/// Architectures of the table that a budget is spent on.
const CANDIDATES: usize = 1000;

/// Times the architectures that tell most, fits the model and writes it.
pub fn learn(learning: &Learning<'_>, path: &Path) -> Result<u8, Report> {
    let arguments = learning.arguments;
    let Some(kind) = arguments.space else {
        return Err(miette::miette!("failed to fit: --sources needs --space"));
    };
    let space = space::build(kind, arguments.skeleton);
    let table = LatencyTable::read(path, &space).map_err(failed)?;
    let sources = match &arguments.columns {
        Some(columns) => columns.clone(),
        None => table.devices().map(str::to_owned).collect(),
    };
    let devices: Vec<_> =
        sources.iter().map(|name| table.source(name)).collect::<Result<_, _>>().map_err(failed)?;
    let population: Vec<&Codes> = table.codes().iter().collect();
    let prior = Prior::new(table.encoding(), &population, &devices).map_err(failed)?;

    let mut runner = learning.runner()?;
    let device = runner.device().clone();
    let candidates = candidates(&space, &table, arguments.seed, learning.precision)?;
    let store = Store::open(&learning.database).map_err(failed)?;
    let known = store.measured(&device.fingerprint()).map_err(failed)?;
    let (measured, open): (Vec<&Candidate<'_>>, Vec<&Candidate<'_>>) =
        candidates.iter().partition(|candidate| known.contains(&candidate.workload.id()));
    let codes = |candidates: &[&Candidate<'_>]| -> Vec<Codes> {
        candidates.iter().map(|candidate| candidate.codes.clone()).collect()
    };
    let (measured_codes, open_codes) = (codes(&measured), codes(&open));
    let chosen = select_next(
        &prior,
        &measured_codes.iter().collect::<Vec<_>>(),
        &open_codes.iter().collect::<Vec<_>>(),
        arguments.budget,
        arguments.seed,
    );
    let next: Vec<Workload> = chosen.iter().map(|&index| open[index].workload.clone()).collect();
    if arguments.dry_run {
        learning.show(&next);
        return Ok(exit_codes::OK);
    }
    let all: Vec<&Candidate<'_>> =
        measured.iter().copied().chain(chosen.iter().map(|&index| open[index])).collect();
    let workloads: Vec<Workload> = all.iter().map(|candidate| candidate.workload.clone()).collect();
    let Some(rows) = learning.campaign()?.time(&mut runner, &workloads)? else {
        return Ok(exit_codes::INTERRUPTED);
    };
    let timed = Timed::of(&all, &rows);
    let (model, validation) =
        TableModel::fit(&space.name, &prior, &timed.codes, &timed.latencies, &timed.noise).map_err(failed)?;
    let header = TableModelHeader {
        version: env!("CARGO_PKG_VERSION").into(),
        created: now(),
        device,
        provenance: runner.provenance(),
        rows: timed.codes.len(),
        table: path.display().to_string(),
        sources,
        shares: model.predictor().shares().to_vec(),
        validation,
    };
    model.save(&learning.out, &header).map_err(failed)?;
    tell(learning, &header);
    Ok(exit_codes::OK)
}

/// An architecture that may be timed.
struct Candidate<'a> {
    codes: &'a Codes,
    workload: Workload,
}

/// Random architectures of the table that compute something; the same for the same seed.
fn candidates<'a>(
    space: &Space,
    table: &'a LatencyTable,
    seed: u64,
    precision: Precision,
) -> Result<Vec<Candidate<'a>>, Report> {
    let mut rows: Vec<usize> =
        (0..table.codes().len()).filter(|row| table.encoding().connected(&table.codes()[*row])).collect();
    rows.shuffle(&mut Stream::new(seed, "candidates of a table", 0));
    rows.truncate(CANDIDATES);
    let candidate = |row: usize| {
        let genotype = &table.genotypes()[row];
        let graph = space.network(genotype, NetworkOptions::default()).map_err(failed)?;
        let workload = Workload::new(space.format(genotype), Level::Network, graph).at(precision);
        Ok(Candidate { codes: &table.codes()[row], workload })
    };
    rows.into_iter().map(candidate).collect()
}

/// What was timed, in milliseconds, with the relative half-widths of the intervals.
#[derive(Default)]
struct Timed<'a> {
    codes: Vec<&'a Codes>,
    latencies: Vec<f64>,
    noise: Vec<f64>,
}

impl<'a> Timed<'a> {
    fn of(candidates: &[&Candidate<'a>], rows: &[Measurement]) -> Self {
        let mut timed = Self::default();
        for candidate in candidates {
            let id = candidate.workload.id();
            let usable = rows.iter().filter(|row| row.workload == id && row.usable());
            let best = usable.max_by_key(|row| (row.samples_ns.len(), row.id.clone()));
            if let Some(summary) = best.and_then(Measurement::summary) {
                timed.codes.push(candidate.codes);
                timed.latencies.push(summary.median.millis());
                timed.noise.push((summary.high - summary.low).0 / 2.0 / summary.median.0);
            }
        }
        timed
    }
}

fn tell(learning: &Learning<'_>, header: &TableModelHeader) {
    let found = header.validation;
    if learning.arguments.format == Format::Json {
        let value = serde_json::json!({
            "model": learning.out, "device": header.device.fingerprint(), "architectures": header.rows,
            "sources": header.sources, "validation": found,
        });
        terminal::data(&value.to_string());
        return;
    }
    let mut shares = header.shares.clone();
    shares.sort_by(|left, right| right.1.total_cmp(&left.1));
    let believed: Vec<String> =
        shares.iter().take(3).map(|(name, share)| format!("{name} {:.0} %", share * 100.0)).collect();
    terminal::data(&format!(
        "{}: {} architectures on {}, {} sources; each predicted from the others: median error {:.1} %, {:.0} % within \
         ±10 %, Spearman {:.3}; noise floor {:.1} %; believed most: {}",
        learning.out.display(),
        header.rows,
        header.device.name,
        header.sources.len(),
        found.median_relative_error * 100.0,
        found.within_ten_percent * 100.0,
        found.spearman,
        found.noise_floor * 100.0,
        believed.join(", "),
    ));
}
