//! `lathe table`: tables of latencies that people already have, in and out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use lathe_latency_db::{
    Dialect, Filter, LatencyTable, LookupTable, Measurement, Store, TableLayout, TableOptions,
};
use lathe_spaces::{
    Genotype, Graph, Level, Micros, Nas201Skeleton, NetworkOptions, Skeleton, Space, Stream, Workload,
    WorkloadId,
};
use miette::Report;

use crate::{
    arguments::{
        ExportLayout, Format, TableArguments, TableCommand, TableLayoutChoice, TableReading, TableSpace,
    },
    commands::{db, space::build},
    exit_codes,
    failure::failed,
    terminal::{self, Terminal, table},
};

/// Random networks of a run that a label `fit-N` may mean.
const FIT: &str = "fit-networks";

/// Runs the subcommand.
pub fn run(arguments: &TableArguments, terminal: Terminal) -> Result<u8, Report> {
    match &arguments.command {
        TableCommand::Show { file, reading, format } if is_lookup(file, reading) => {
            show_lookup(file, *format)?;
        }
        TableCommand::Show { file, reading, format } => show(&open(file, reading)?, file, *format)?,
        TableCommand::Convert { input, output, reading } => {
            if is_lookup(input, reading) {
                return Err(miette::miette!(
                    help = "`lathe table import` puts its operators into the latency database",
                    "failed to convert {}: a look-up table has operators, not architectures",
                    input.display()
                ));
            }
            let table = open(input, reading)?;
            table.write(output).map_err(failed)?;
            let devices = table.devices().count();
            let rows = table.genotypes().len();
            terminal
                .say(&format!("{rows} architectures x {devices} devices written to {}", output.display()));
        }
        TableCommand::Import { file, device, database } => import(file, device, database, terminal)?,
        TableCommand::Export { .. } => export(&arguments.command, terminal)?,
    }
    Ok(exit_codes::OK)
}

/// Whether a file is one of operators: it was said so, or its name ends as YAML does.
fn is_lookup(file: &Path, reading: &TableReading) -> bool {
    let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    reading.layout.map_or(yaml, |layout| layout == TableLayoutChoice::Lookup)
}

fn open(file: &Path, reading: &TableReading) -> Result<LatencyTable, Report> {
    let layout = reading.layout.and_then(|layout| match layout {
        TableLayoutChoice::Wide => Some(TableLayout::Wide),
        TableLayoutChoice::Long => Some(TableLayout::Long),
        TableLayoutChoice::HwNasBench => Some(TableLayout::HwNasBench),
        TableLayoutChoice::Help => Some(TableLayout::Help),
        TableLayoutChoice::Lookup => None,
    });
    let space = reading.space.map(|space| match space {
        TableSpace::Nb201 => {
            Space::nas201(Nas201Skeleton { width: 16, cells: 5, resolution: 32, classes: 10 })
        }
        TableSpace::Fbnet => Space::fbnet(224, 1000),
    });
    LatencyTable::open(file, &TableOptions { space, layout, dataset: reading.dataset.clone() })
        .map_err(failed)
}

fn show(latencies: &LatencyTable, file: &Path, format: Format) -> Result<(), Report> {
    let rows = latencies.genotypes().len();
    let connected = latencies.codes().iter().filter(|codes| latencies.encoding().connected(codes)).count();
    let distinct = latencies.codes().iter().collect::<BTreeSet<_>>().len();
    let mut lines = Vec::new();
    let mut devices = Vec::new();
    for device in latencies.devices() {
        let values = latencies.latencies(device).map_err(failed)?;
        let known = || values.iter().flatten().copied();
        let missing = rows - known().count();
        let range = known().fold(None, |range: Option<(f64, f64)>, value| {
            Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        });
        let [low, high, first] =
            [range.map(|range| range.0), range.map(|range| range.1), values.first().copied().flatten()];
        devices.push(serde_json::json!({
            "device": device, "missing": missing, "low_ms": low, "high_ms": high, "first_ms": first,
        }));
        let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        lines.push(vec![device.to_owned(), missing.to_string(), cell(low), cell(high), cell(first)]);
    }
    let layout = latencies.layout().to_string();
    let (space, file) = (&latencies.space().name, file.display().to_string());
    if format == Format::Json {
        let value = serde_json::json!({
            "file": file, "layout": layout, "space": space, "rows": rows, "repeated_rows": rows - distinct,
            "disconnected_rows": rows - connected, "devices": devices,
        });
        terminal::data(&value.to_string());
        return Ok(());
    }
    let mut facts = vec![
        vec!["layout".to_owned(), layout],
        vec!["space".to_owned(), space.clone()],
        vec!["architectures".to_owned(), rows.to_string()],
        vec!["devices".to_owned(), lines.len().to_string()],
        vec!["repeated architectures".to_owned(), (rows - distinct).to_string()],
    ];
    if connected < rows {
        let cells = rows - connected;
        facts.push(vec![
            "of little use".to_owned(),
            format!("{cells} cells whose input and output are not connected: they compute a constant"),
        ]);
    }
    terminal::data(&table(&["table", &file], &facts));
    terminal::data("");
    terminal::data(&table(&["device", "missing", "least, ms", "most, ms", "first row, ms"], &lines));
    Ok(())
}

fn show_lookup(file: &Path, format: Format) -> Result<(), Report> {
    let lookup = LookupTable::read(file).map_err(failed)?;
    let imported = lookup.import("any", "any");
    let means = || lookup.rows().iter().map(|(_, figures)| figures.mean_ms);
    let (low, high) = (means().fold(f64::INFINITY, f64::min), means().fold(0.0, f64::max));
    let dialect = lookup.dialect().map_or_else(|| "either".to_owned(), |dialect| dialect.to_string());
    if format == Format::Json {
        let unusable: Vec<_> = imported
            .unusable
            .iter()
            .map(|unusable| serde_json::json!({"key": unusable.key.to_string(), "reason": unusable.reason}))
            .collect();
        let value = serde_json::json!({
            "file": file.display().to_string(), "layout": "lookup", "grammar": dialect, "rows": lookup.rows().len(),
            "low_ms": low, "high_ms": high, "importable": imported.measurements.len(), "unusable": unusable,
        });
        terminal::data(&value.to_string());
        return Ok(());
    }
    let facts = [
        ("layout", "operator look-up table".to_owned()),
        ("grammar", dialect),
        ("operators", lookup.rows().len().to_string()),
        ("range", format!("{} to {}", Micros::from_millis(low), Micros::from_millis(high))),
        ("importable", imported.measurements.len().to_string()),
    ];
    let facts: Vec<Vec<String>> = facts.into_iter().map(|(key, value)| vec![key.into(), value]).collect();
    terminal::data(&table(&["table", &file.display().to_string()], &facts));
    if !imported.unusable.is_empty() {
        let lines: Vec<Vec<String>> = imported
            .unusable
            .iter()
            .map(|unusable| vec![unusable.key.to_string(), unusable.reason.clone()])
            .collect();
        terminal::data("");
        terminal::data(&table(&["not importable", "because"], &lines));
    }
    Ok(())
}

fn import(file: &Path, device: &str, database: &Path, terminal: Terminal) -> Result<(), Report> {
    let lookup = LookupTable::read(file).map_err(failed)?;
    let source = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let imported = lookup.import(device, &source);
    for unusable in &imported.unusable {
        terminal.say(&format!("not imported: {}: {}", unusable.key, unusable.reason));
    }
    if imported.measurements.is_empty() {
        return Err(miette::miette!(
            "failed to import {}: none of its {} operators can be said by Lathe",
            file.display(),
            lookup.rows().len()
        ));
    }
    let store = Store::open(database).map_err(failed)?;
    store.remember(&imported.workloads).map_err(failed)?;
    store.append(&format!("published-{source}"), &imported.measurements).map_err(failed)?;
    terminal.say(&format!(
        "{} of {} operators of {device} are in {} (taken from a published table, not measured by Lathe)",
        imported.measurements.len(),
        lookup.rows().len(),
        database.display()
    ));
    Ok(())
}

fn export(command: &TableCommand, terminal: Terminal) -> Result<(), Report> {
    let TableCommand::Export { file, layout, device, database, campaign, space, skeleton, seed, genotypes } =
        command
    else {
        return Ok(());
    };
    let store = db::open(database)?;
    let space = space.map(|kind| build(kind, *skeleton));
    let mut rows = BTreeMap::new();
    for name in device {
        let fingerprint = db::fingerprint(&store, name)?;
        let filter = Filter { device: Some(fingerprint), campaign: campaign.clone(), ..Filter::default() };
        rows.insert(name.clone(), store.load(&filter).map_err(failed)?);
    }
    let dialect = match layout {
        ExportLayout::Csv => {
            let space = space.ok_or_else(|| {
                miette::miette!(
                    help = "name it: --space nas201",
                    "failed to export networks: of which space?"
                )
            })?;
            let networks = Networks { space: &space, seed: *seed, genotypes: genotypes.as_deref() };
            return networks.export(&rows, file, terminal);
        }
        ExportLayout::Ofa => Dialect::Ofa,
        ExportLayout::Proxylessnas => Dialect::ProxylessNas,
    };
    let [rows] = rows.values().collect::<Vec<_>>()[..] else {
        return Err(miette::miette!("failed to export operators: a look-up table is of one device"));
    };
    let kept = store.workloads().map_err(failed)?;
    let mut graphs: BTreeMap<WorkloadId, Graph> =
        kept.into_iter().map(|(id, workload)| (id, workload.graph)).collect();
    if let Some(space) = &space {
        let workloads = space.workloads().map_err(failed)?;
        graphs.extend(workloads.into_iter().map(|workload| (workload.id(), workload.graph)));
    }
    let operators: Vec<Measurement> =
        rows.iter().filter(|row| row.level != Level::Network).cloned().collect();
    let (lookup, others) = LookupTable::of_measurements(&operators, &graphs, dialect)
        .map_err(|reason| miette::miette!("failed to export {}: {reason}", file.display()))?;
    if lookup.rows().is_empty() {
        return Err(miette::miette!(
            help = "say which space was measured (--space fbnet, with its --resolution and --classes); `lathe db list` \
                    shows what there is",
            "failed to export {}: none of {others} measured operators has a name in tables of {dialect}",
            file.display()
        ));
    }
    lookup.write(file).map_err(failed)?;
    let hint = if space.is_none() && others > 0 { " (or need --space to be recognised)" } else { "" };
    terminal.say(&format!(
        "{} operators written to {}; {others} others have no name in tables of {dialect}{hint}",
        lookup.rows().len(),
        file.display()
    ));
    Ok(())
}

/// Networks that may have been measured.
struct Networks<'a> {
    space: &'a Space,
    seed: u64,
    genotypes: Option<&'a Path>,
}

impl Networks<'_> {
    fn export(
        &self,
        rows: &BTreeMap<String, Vec<Measurement>>,
        file: &Path,
        terminal: Terminal,
    ) -> Result<(), Report> {
        if matches!(self.space.skeleton, Skeleton::Darts(_)) {
            return Err(miette::miette!(
                help = "`lathe db export` writes all measurements, of any space",
                "failed to export networks: tables of architectures are of nas201 or fbnet, whose cells keep all edges"
            ));
        }
        let networks = |rows: &[Measurement]| -> Vec<Measurement> {
            rows.iter().filter(|row| row.level == Level::Network && row.usable()).cloned().collect()
        };
        let measured: BTreeMap<&String, Vec<Measurement>> =
            rows.iter().map(|(device, rows)| (device, networks(rows))).collect();
        let known = self.known(&measured.values().flatten().collect::<Vec<_>>())?;
        let mut devices: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
        let mut order: Vec<&WorkloadId> = Vec::new();
        let mut strangers = BTreeSet::new();
        for row in measured.values().flatten() {
            if !known.contains_key(&row.workload) {
                strangers.insert(&row.workload);
            } else if !order.contains(&&row.workload) {
                order.push(&row.workload);
            }
        }
        if order.is_empty() {
            return Err(miette::miette!(
                help = "the networks are recognised by --space with its sizes, and for random ones of FBNet by --seed \
                        or --genotypes FILE",
                "failed to export {}: none of {} measured networks is known",
                file.display(),
                strangers.len()
            ));
        }
        for (device, rows) in &measured {
            // Of several measurements of a network the one with most samples counts.
            let latency = |workload: &WorkloadId| {
                let rows = rows.iter().filter(|row| row.workload == *workload);
                let best = rows.max_by_key(|row| row.samples_ns.len());
                best.and_then(Measurement::median).map(Micros::millis)
            };
            devices.insert((*device).clone(), order.iter().map(|workload| latency(workload)).collect());
        }
        let genotypes = order.iter().filter_map(|workload| known.get(workload).cloned()).collect();
        let table = LatencyTable::new(self.space, genotypes, devices).map_err(failed)?;
        table.write(file).map_err(failed)?;
        terminal.say(&format!(
            "{} networks x {} devices written to {}; {} measured networks are not known",
            order.len(),
            rows.len(),
            file.display(),
            strangers.len()
        ));
        Ok(())
    }

    /// Genotypes by the identity of their networks: those of the file, those that labels name, and, if
    /// some are still unknown, all of NAS-Bench-201. A wrong guess does no harm: only the very same
    /// network has the identity.
    fn known(&self, measured: &[&Measurement]) -> Result<BTreeMap<WorkloadId, Genotype>, Report> {
        let mut genotypes: Vec<Genotype> = Vec::new();
        if let Some(file) = self.genotypes {
            let text = fs::read_to_string(file)
                .map_err(|error| miette::miette!("failed to read {}: {error}", file.display()))?;
            for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                genotypes.push(self.space.parse(line).map_err(|error| {
                    miette::miette!("failed to read {}, line {}: {error}", file.display(), index + 1)
                })?);
            }
        }
        for row in measured {
            let drawn = row.label.strip_prefix("fit-").and_then(|index| index.parse().ok());
            if let Some(index) = drawn {
                genotypes.push(self.space.sample(&mut Stream::new(self.seed, FIT, index)));
            } else if let Ok(genotype) = self.space.parse(&row.label) {
                genotypes.push(genotype);
            }
        }
        let mut wanted: BTreeMap<&WorkloadId, u64> =
            measured.iter().map(|row| (&row.workload, row.macs)).collect();
        let mut known = BTreeMap::new();
        self.find(genotypes.into_iter(), &mut wanted, &mut known)?;
        if matches!(self.space.skeleton, Skeleton::Nas201(_)) && !wanted.is_empty() {
            self.find(self.space.enumerate().map_err(failed)?, &mut wanted, &mut known)?;
        }
        Ok(known)
    }

    /// Moves the networks of these genotypes from what is wanted to what is known.
    fn find(
        &self,
        genotypes: impl Iterator<Item = Genotype>,
        wanted: &mut BTreeMap<&WorkloadId, u64>,
        known: &mut BTreeMap<WorkloadId, Genotype>,
    ) -> Result<(), Report> {
        for genotype in genotypes {
            let graph = self.space.network(&genotype, NetworkOptions::default()).map_err(failed)?;
            // The identity takes far longer than a count.
            let macs = graph.macs();
            if wanted.values().any(|&wanted| wanted == macs) {
                let id = Workload::new("", Level::Network, graph).id();
                if wanted.remove(&id).is_some() {
                    known.insert(id, genotype);
                }
            }
            if wanted.is_empty() {
                break;
            }
        }
        Ok(())
    }
}
