//! `lathe bench networks`: random networks timed end to end, and how well a few of them predict the
//! others.

use std::collections::BTreeMap;

use lathe_latency_db::{
    Measurement, Protocol,
    kernels::{
        Fusion, TimedGraph,
        benchmark::{NetworkBenchmarkRow, benchmark},
    },
};
use lathe_runners::{LocalRunner, LocalSettings};
use lathe_spaces::{DartsSkeleton, Level, NetworkOptions, Space, Stem, Stream, Workload};
use miette::Report;

use crate::{
    arguments::{BenchNetworksArguments, ShowFormat, SpaceKind},
    campaign::{Campaign, distinct},
    exit_codes,
    failure::failed,
    interrupt,
    terminal::{self, Terminal, table},
};

/// Classes of the FBNet networks.
const FBNET_CLASSES: usize = 100;

/// Runs the command.
pub fn run(arguments: &BenchNetworksArguments, terminal: Terminal) -> Result<u8, Report> {
    let plans: Vec<(Space, Vec<Workload>)> = arguments
        .spaces
        .iter()
        .map(|kind| {
            let space = space(*kind, arguments);
            networks(&space, arguments).map(|networks| (space, networks))
        })
        .collect::<Result<_, Report>>()?;
    let all: Vec<Workload> = plans.iter().flat_map(|(_, networks)| networks.iter().cloned()).collect();
    let campaign = Campaign {
        name: "bench-networks",
        database: &arguments.database,
        protocol: Protocol {
            min_seconds: arguments.seconds,
            processes: 2,
            warmup_seconds: 0.2,
            ..Protocol::SCREENING
        },
        seed: arguments.seed,
        stop: interrupt::watch(terminal)?,
        again: false,
        title: "measure",
        terminal,
    };
    let mut runner = LocalRunner::start(LocalSettings::new("local")).map_err(failed)?;
    let Some(rows) = campaign.time(&mut runner, &all)? else { return Ok(exit_codes::INTERRUPTED) };
    for (space, networks) in plans {
        print(&space.name, &figures(&networks, &rows, arguments, terminal)?, arguments.format)?;
    }
    Ok(exit_codes::OK)
}

fn space(kind: SpaceKind, arguments: &BenchNetworksArguments) -> Space {
    match kind {
        SpaceKind::Darts => Space::darts(DartsSkeleton {
            stem: Stem::Cifar,
            width: arguments.width,
            layers: arguments.layers,
            resolution: 32,
            classes: 10,
        }),
        SpaceKind::Nas201 => Space::nas201(lathe_spaces::Nas201Skeleton {
            width: arguments.width,
            cells: arguments.layers,
            resolution: 32,
            classes: 10,
        }),
        SpaceKind::Fbnet => Space::fbnet(arguments.resolution, FBNET_CLASSES),
    }
}

/// Random networks of a space, each once.
fn networks(space: &Space, arguments: &BenchNetworksArguments) -> Result<Vec<Workload>, Report> {
    // Small spaces repeat themselves.
    let tries = 4 * arguments.count as u64;
    let sampled = (0..tries).map(|index| {
        let genotype = space.sample(&mut Stream::new(arguments.seed, "bench networks", index));
        let graph = space.network(&genotype, NetworkOptions::default()).map_err(failed)?;
        Ok(Workload::new(format!("{} {index}", space.name), Level::Network, graph))
    });
    let mut networks = distinct(sampled.collect::<Result<Vec<_>, Report>>()?);
    networks.truncate(arguments.count);
    Ok(networks)
}

/// Rows of figures, and how many of the measurements are flagged.
fn figures(
    networks: &[Workload],
    rows: &[Measurement],
    arguments: &BenchNetworksArguments,
    terminal: Terminal,
) -> Result<(Vec<NetworkBenchmarkRow>, usize), Report> {
    let workloads: BTreeMap<_, _> =
        networks.iter().map(|workload| (workload.id(), workload.clone())).collect();
    let graphs = TimedGraph::of(rows, &workloads, &Fusion::common()).map_err(failed)?;
    let flagged = rows.iter().filter(|row| workloads.contains_key(&row.workload) && !row.flags.is_empty());
    let mut figures = Vec::new();
    for &training in &arguments.samples {
        let mut bar = terminal.bar("predict", 0);
        let rows = benchmark(&graphs, training, arguments.repeats, arguments.seed, &mut |done, total| {
            bar.set(done, total, &format!("from {training} networks"));
        });
        bar.done();
        figures.extend(rows.map_err(failed)?);
    }
    Ok((figures, flagged.count()))
}

fn print(
    space: &str,
    (rows, flagged): &(Vec<NetworkBenchmarkRow>, usize),
    format: ShowFormat,
) -> Result<(), Report> {
    if format == ShowFormat::Json {
        for row in rows {
            let mut value = serde_json::to_value(row).map_err(failed)?;
            value["space"] = space.into();
            value["flagged_measurements"] = (*flagged).into();
            terminal::data(&value.to_string());
        }
        return Ok(());
    }
    let percent = |value: f64| format!("{:.1}", value * 100.0);
    let header = [
        "space",
        "method",
        "training",
        "repeats",
        "median error, %",
        "within ±5 %",
        "within ±10 %",
        "inside the 90 % interval, %",
        "its width, %",
        "noise floor, %",
        "flagged",
    ];
    let cells = rows.iter().map(|row| {
        vec![
            space.to_owned(),
            row.method.to_owned(),
            row.training.to_string(),
            row.repeats.to_string(),
            format!("{:.2}", row.median_relative_error * 100.0),
            percent(row.within_five_percent),
            percent(row.within_ten_percent),
            row.coverage_90.map_or("–".into(), percent),
            row.interval_width.map_or("–".into(), percent),
            format!("{:.2}", row.noise_floor * 100.0),
            flagged.to_string(),
        ]
    });
    let cells: Vec<Vec<String>> = cells.collect();
    if format == ShowFormat::Text {
        terminal::data(&table(&header, &cells));
        return Ok(());
    }
    terminal::data(&format!("| {} |\n|{}", header.join(" | "), "---|".repeat(header.len())));
    for row in cells {
        terminal::data(&format!("| {} |", row.join(" | ")));
    }
    Ok(())
}
