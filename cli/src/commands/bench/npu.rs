//! `lathe bench npu`: operators and networks on several NPUs, as their compiler estimates them.

use std::{ops::ControlFlow, time::Duration};

use lathe_latency_db::spearman;
use lathe_runners::{Accelerator, Estimate, EthosURunner, EthosUSettings, Runner};
use lathe_spaces::{Level, NetworkOptions, Precision, Space, Stream, Workload};
use miette::Report;

use crate::{
    arguments::{BenchNpuArguments, ShowFormat},
    campaign::distinct,
    commands::space,
    exit_codes,
    failure::failed,
    interrupt,
    terminal::{self, Terminal, table},
};

/// How long the compiler may take for one network.
const DEADLINE: Duration = Duration::from_mins(10);

/// What one accelerator makes of all workloads.
struct Column {
    accelerator: Accelerator,
    /// What was assumed of its clock and memories.
    assumed: String,
    results: Vec<Result<Estimate, String>>,
}

/// Runs the command.
pub fn run(arguments: &BenchNpuArguments, terminal: Terminal) -> Result<u8, Report> {
    let space = space::build(arguments.space, arguments.skeleton);
    let workloads = workloads(&space, arguments)?;
    let stop = interrupt::watch(terminal)?;
    let mut columns = Vec::new();
    for &accelerator in &arguments.accelerators {
        let settings =
            EthosUSettings { vela: arguments.vela.clone(), ..EthosUSettings::new("npu", accelerator) };
        let runner = EthosURunner::start(settings).map_err(failed)?;
        let mut bar = terminal.bar(&accelerator.to_string(), workloads.len());
        let mut results = Vec::with_capacity(workloads.len());
        let done = runner.estimates(&workloads, DEADLINE, &mut |result| {
            results.push(result);
            bar.set(results.len(), workloads.len(), &workloads[results.len() - 1].label);
            if stop.load(std::sync::atomic::Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        bar.done();
        done.map_err(failed)?;
        if results.len() < workloads.len() {
            return Ok(exit_codes::INTERRUPTED);
        }
        let engine = &runner.device().engine;
        let assumed = format!("{} {}: {}", engine.name, engine.version, engine.provider);
        columns.push(Column { accelerator, assumed, results });
    }
    print(&workloads, &columns, arguments.format)?;
    Ok(exit_codes::OK)
}

/// Operators and fixed parts, published networks, random ones.
fn workloads(space: &Space, arguments: &BenchNpuArguments) -> Result<Vec<Workload>, Report> {
    let mut all = space.workloads().map_err(failed)?;
    let published = space.published().into_iter().map(|(name, genotype)| (name.to_owned(), genotype));
    let random = (0..arguments.count).map(|index| {
        let genotype = space.sample(&mut Stream::new(arguments.seed, "bench npu", index));
        (format!("random {index}"), genotype)
    });
    for (label, genotype) in published.chain(random) {
        let graph = space.network(&genotype, NetworkOptions::default()).map_err(failed)?;
        all.push(Workload::new(label, Level::Network, graph));
    }
    Ok(distinct(all.into_iter().map(|workload| workload.at(Precision::Int8))))
}

fn print(workloads: &[Workload], columns: &[Column], format: ShowFormat) -> Result<(), Report> {
    if format == ShowFormat::Json {
        for column in columns {
            for (workload, result) in workloads.iter().zip(&column.results) {
                terminal::data(&json(workload, column, result)?);
            }
        }
        return Ok(());
    }
    let mut header = vec!["workload".to_owned(), "MMAC".to_owned()];
    for column in columns {
        let name = column.accelerator;
        header.extend([format!("{name}, k cycles"), "ms".into(), "MACs used, %".into()]);
    }
    let cells = |index: usize| {
        let workload = &workloads[index];
        let mut cells = vec![workload.label.clone(), format!("{:.3}", workload.graph.macs() as f64 / 1e6)];
        for column in columns {
            cells.extend(match &column.results[index] {
                Ok(estimate) => [
                    format!("{:.1}", estimate.cycles as f64 / 1e3),
                    format!("{:.4}", milliseconds(estimate)),
                    format!("{:.1}", used(workload, column, estimate) * 100.0),
                ],
                Err(_) => ["–"; 3].map(str::to_owned),
            });
        }
        cells
    };
    let rows: Vec<Vec<String>> = (0..workloads.len()).map(cells).collect();
    tabulate(&header, &rows, format);
    let (header, rows) = summary(workloads, columns);
    tabulate(&header, &rows, format);
    let (header, rows) = orders(workloads, columns);
    tabulate(&header, &rows, format);
    for column in columns {
        terminal::data(&format!("- {}", column.assumed));
        for (workload, result) in workloads.iter().zip(&column.results) {
            if let Err(message) = result {
                terminal::data(&format!("  - {}: {message}", workload.label));
            }
        }
    }
    Ok(())
}

fn json(workload: &Workload, column: &Column, result: &Result<Estimate, String>) -> Result<String, Report> {
    let mut value = serde_json::json!({
        "workload": workload.id(), "label": workload.label, "level": workload.level,
        "macs": workload.graph.macs(), "accelerator": column.accelerator.name(), "assumed": column.assumed,
    });
    match result {
        Ok(estimate) => {
            value["cycles"] = estimate.cycles.into();
            value["cycles_npu"] = estimate.cycles_npu.into();
            value["milliseconds"] = milliseconds(estimate).into();
            value["mac_utilization"] = used(workload, column, estimate).into();
        }
        Err(message) => value["error"] = message.as_str().into(),
    }
    serde_json::to_string(&value).map_err(failed)
}

/// Per accelerator: how the order of cycles agrees with that of multiply-accumulates.
fn summary(workloads: &[Workload], columns: &[Column]) -> (Vec<String>, Vec<Vec<String>>) {
    let header =
        ["accelerator", "operators: ρ(MACs, cycles)", "networks: ρ(MACs, cycles)", "networks: MACs used, %"];
    let rows = columns.iter().map(|column| {
        let correlation = |network: bool| {
            let (macs, cycles): (Vec<f64>, Vec<f64>) = estimates(workloads, column)
                .filter(|(workload, _)| (workload.level == Level::Network) == network)
                .map(|(workload, estimate)| (workload.graph.macs() as f64, estimate.cycles as f64))
                .unzip();
            format!("{:.3}", spearman(&macs, &cycles))
        };
        let mut uses: Vec<f64> = estimates(workloads, column)
            .filter(|(workload, _)| workload.level == Level::Network)
            .map(|(workload, estimate)| used(workload, column, estimate) * 100.0)
            .collect();
        uses.sort_by(f64::total_cmp);
        let [low, high] = [uses.first(), uses.last()].map(|end| end.copied().unwrap_or(f64::NAN));
        vec![
            column.accelerator.to_string(),
            correlation(false),
            correlation(true),
            format!("{low:.1} to {high:.1}"),
        ]
    });
    (header.map(str::to_owned).to_vec(), rows.collect())
}

/// Per pair of accelerators: how they order networks, and what the one with more multipliers is slower at.
fn orders(workloads: &[Workload], columns: &[Column]) -> (Vec<String>, Vec<Vec<String>>) {
    let header = ["pair", "networks: ρ(ms, ms)", "slower on the larger one", "most of all"];
    let mut rows = Vec::new();
    for (index, first) in columns.iter().enumerate() {
        for second in &columns[index + 1..] {
            let (small, large) = if first.accelerator.macs_per_cycle() <= second.accelerator.macs_per_cycle()
            {
                (first, second)
            } else {
                (second, first)
            };
            let both: Vec<(&Workload, f64, f64)> = workloads
                .iter()
                .zip(small.results.iter().zip(&large.results))
                .filter_map(|(workload, (small, large))| {
                    Some((workload, milliseconds(small.as_ref().ok()?), milliseconds(large.as_ref().ok()?)))
                })
                .collect();
            let networks = || both.iter().filter(|(workload, ..)| workload.level == Level::Network);
            let (left, right): (Vec<f64>, Vec<f64>) =
                networks().map(|(_, small, large)| (*small, *large)).unzip();
            let slower = both.iter().filter(|(_, small, large)| large > small);
            let worst = slower.clone().max_by(|a, b| (a.2 / a.1).total_cmp(&(b.2 / b.1)));
            rows.push(vec![
                format!("{}, {}", small.accelerator, large.accelerator),
                format!("{:.3}", spearman(&left, &right)),
                format!("{} of {}", slower.count(), both.len()),
                worst.map_or_else(
                    || "–".to_owned(),
                    |(workload, small, large)| format!("{}: {:.2} times", workload.label, large / small),
                ),
            ]);
        }
    }
    (header.map(str::to_owned).to_vec(), rows)
}

fn estimates<'a>(
    workloads: &'a [Workload],
    column: &'a Column,
) -> impl Iterator<Item = (&'a Workload, &'a Estimate)> {
    workloads
        .iter()
        .zip(&column.results)
        .filter_map(|(workload, result)| Some((workload, result.as_ref().ok()?)))
}

fn milliseconds(estimate: &Estimate) -> f64 {
    estimate.nanoseconds as f64 / 1e6
}

/// Share of the multipliers that convolutions and linear layers use over the whole time.
fn used(workload: &Workload, column: &Column, estimate: &Estimate) -> f64 {
    let peak = estimate.cycles as f64 * column.accelerator.macs_per_cycle() as f64;
    workload.graph.macs() as f64 / peak
}

fn tabulate(header: &[String], rows: &[Vec<String>], format: ShowFormat) {
    if format == ShowFormat::Markdown {
        terminal::data(&format!("| {} |\n|{}", header.join(" | "), "---|".repeat(header.len())));
        for row in rows {
            terminal::data(&format!("| {} |", row.join(" | ")));
        }
        terminal::data("");
        return;
    }
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    terminal::data(&table(&header, rows));
}
