//! `lathe db`.

use std::path::Path;

use lathe_latency_db::{Execution, Filter, MachineState, Measurement, Store};
use lathe_spaces::Level;
use miette::Report;

use crate::{
    arguments::{DbArguments, DbCommand, Format, LevelChoice, RowChoice},
    commands::{compare, device::describe},
    exit_codes,
    failure::failed,
    terminal::{self, Terminal, table},
};

/// Runs the subcommand.
pub fn run(arguments: &DbArguments, terminal: Terminal) -> Result<u8, Report> {
    let store = open(&arguments.database)?;
    match &arguments.command {
        DbCommand::List { rows, format } => list(&store, rows, *format)?,
        DbCommand::Compare { device, level, format } => {
            let mut devices = Vec::new();
            for wanted in device {
                devices.push(fingerprint(&store, wanted)?);
            }
            let rows = store.load(&Filter { level: Some(level_of(*level)), ..Filter::default() });
            let mut rows = rows.map_err(failed)?;
            rows.retain(|row| devices.is_empty() || devices.contains(&row.device.fingerprint()));
            compare::print(&rows, *format)?;
            if rows.is_empty() {
                terminal.say(&format!(
                    "no rows of level `{}` here; the levels are operator, fixed and network (--level)",
                    level_of(*level)
                ));
            }
        }
        DbCommand::Devices { format } => devices(&store, *format)?,
        DbCommand::Show { id, format } => show(&store, id, *format)?,
        DbCommand::Export { file, rows } => {
            let filter = filter(&store, rows)?;
            let count = store.export(&filter, file).map_err(failed)?;
            terminal.say(&format!("{count} rows written to {}", file.display()));
        }
    }
    Ok(exit_codes::OK)
}

/// The store of a database that is there already.
pub fn open(database: &Path) -> Result<Store, Report> {
    if !database.is_dir() {
        return Err(miette::miette!(
            help = "name it with --database, or fill it with `lathe measure CONFIG`",
            "failed to open the latency database {}: there is no such directory",
            database.display()
        ));
    }
    Store::open(database).map_err(failed)
}

fn filter(store: &Store, rows: &RowChoice) -> Result<Filter, Report> {
    let level = rows.level.map(level_of);
    let mut filter = Filter { campaign: rows.campaign.clone(), level, ..Filter::default() };
    if let Some(wanted) = &rows.device {
        filter.device = Some(fingerprint(store, wanted)?);
    }
    Ok(filter)
}

const fn level_of(choice: LevelChoice) -> Level {
    match choice {
        LevelChoice::Operator => Level::Operator,
        LevelChoice::Fixed => Level::Fixed,
        LevelChoice::Network => Level::Network,
    }
}

/// The fingerprint of a device that is given by its fingerprint or its alias.
pub fn fingerprint(store: &Store, wanted: &str) -> Result<String, Report> {
    let devices = store.devices().map_err(failed)?;
    let found: Vec<&String> = devices
        .iter()
        .filter(|(fingerprint, device, _)| fingerprint == wanted || device.name == *wanted)
        .map(|(fingerprint, ..)| fingerprint)
        .collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(miette::miette!(
            help = "`lathe db devices` lists what is there",
            "failed to find the device \"{wanted}\""
        )),
        many => Err(miette::miette!(
            help = "name one of them by its fingerprint",
            "failed to choose the device \"{wanted}\": the alias stands for {many:?}"
        )),
    }
}

fn list(store: &Store, rows: &RowChoice, format: Format) -> Result<(), Report> {
    let rows = store.load(&filter(store, rows)?).map_err(failed)?;
    if format == Format::Json {
        for row in &rows {
            terminal::data(&summary_json(row));
        }
        return Ok(());
    }
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let latency = row.summary().map_or_else(
                || row.outcome.to_string(),
                |summary| format!("{} [{} … {}]", summary.median, summary.low, summary.high),
            );
            let id: String = row.id.chars().take(12).collect();
            vec![
                id,
                row.device.name.clone(),
                row.provenance.to_string(),
                row.level.to_string(),
                latency,
                row.samples_ns.len().to_string(),
                row.flags.len().to_string(),
                row.label.clone(),
            ]
        })
        .collect();
    let header = ["id", "device", "kind", "level", "median [95 %]", "samples", "flags", "label"];
    terminal::data(&table(&header, &lines));
    Ok(())
}

fn summary_json(row: &Measurement) -> String {
    serde_json::json!({
        "id": row.id, "workload": row.workload, "label": row.label, "level": row.level,
        "device": row.device.fingerprint(), "device_name": row.device.name, "provenance": row.provenance,
        "outcome": row.outcome, "summary": row.summary(), "flags": row.flags, "campaign": row.campaign,
        "published": row.published,
    })
    .to_string()
}

fn devices(store: &Store, format: Format) -> Result<(), Report> {
    let devices = store.devices().map_err(failed)?;
    if format == Format::Json {
        for (fingerprint, device, rows) in &devices {
            let value = serde_json::json!({"fingerprint": fingerprint, "device": device, "rows": rows});
            terminal::data(&value.to_string());
        }
        return Ok(());
    }
    let lines: Vec<Vec<String>> = devices
        .iter()
        .map(|(fingerprint, device, rows)| {
            let engine = format!("{} {}", device.engine.name, device.engine.version);
            vec![fingerprint.clone(), device.name.clone(), device.model.clone(), engine, rows.to_string()]
        })
        .collect();
    terminal::data(&table(&["fingerprint", "alias", "model", "engine", "rows"], &lines));
    Ok(())
}

fn show(store: &Store, id: &str, format: Format) -> Result<(), Report> {
    let rows = store.load(&Filter::default()).map_err(failed)?;
    let found: Vec<&Measurement> =
        rows.iter().filter(|row| row.id.starts_with(id) || row.workload.0.starts_with(id)).collect();
    if found.is_empty() {
        return Err(miette::miette!(
            help = "`lathe db list` shows what is there",
            "failed to find \"{id}\": no measurement and no workload begins with it"
        ));
    }
    for row in found {
        match format {
            Format::Json => terminal::data(&serde_json::to_string(row).map_err(failed)?),
            Format::Text => terminal::data(&show_one(row)),
        }
    }
    Ok(())
}

fn words(words: &[String]) -> String {
    if words.is_empty() { "not told".to_owned() } else { words.join(", ") }
}

fn megahertz(state: &MachineState) -> String {
    let values: Vec<String> = state.current_khz.iter().map(|khz| format!("{} MHz", khz / 1000)).collect();
    words(&values)
}

fn degrees(state: &MachineState) -> String {
    let value = |(zone, millis): (&String, &i64)| format!("{zone} {:.1} °C", *millis as f64 / 1000.0);
    words(&state.temperature_millicelsius.iter().map(value).collect::<Vec<_>>())
}

fn battery(state: &MachineState) -> String {
    match (state.battery_percent, state.charging) {
        (Some(percent), Some(true)) => format!("{percent:.0} %, charging"),
        (Some(percent), Some(false)) => format!("{percent:.0} %, not charging"),
        (Some(percent), None) => format!("{percent:.0} %"),
        (None, _) => "none".to_owned(),
    }
}

fn show_one(row: &Measurement) -> String {
    let mut rows: Vec<(&str, String)> = vec![
        ("workload", row.workload.to_string()),
        ("label", row.label.clone()),
        ("level", row.level.to_string()),
        ("precision", row.precision.to_string()),
        ("outcome", row.outcome.to_string()),
        ("campaign", row.campaign.clone()),
    ];
    if let Some(error) = &row.error {
        rows.push(("error", error.clone()));
    }
    if let Some(summary) = row.summary() {
        rows.extend([
            ("median", format!("{} [{} … {}]", summary.median, summary.low, summary.high)),
            ("min", summary.min.to_string()),
            ("p90", summary.p90.to_string()),
            ("p99", summary.p99.to_string()),
            ("MAD", summary.mad.to_string()),
            ("samples", format!("{} in {} processes", summary.count, row.samples_per_process.len())),
            ("outliers", summary.outliers.to_string()),
        ]);
    }
    if let Some(published) = &row.published {
        let spread =
            published.standard_deviation.map_or_else(|| "unknown".into(), |spread| spread.to_string());
        let count = published.count.map_or_else(|| "an unknown number of".into(), |count| count.to_string());
        rows.push(("published in", published.source.clone()));
        rows.push(("published spread", format!("standard deviation {spread} over {count} runs")));
        rows.push(("note", "taken from a published table, not measured by Lathe".to_owned()));
    }
    let flags: Vec<String> = row.flags.iter().map(|flag| format!("{flag:?}")).collect();
    let flags = if flags.is_empty() { "none".to_owned() } else { flags.join(", ") };
    rows.extend([
        ("load", lathe_spaces::Micros::from_nanos(row.load_ns as f64).to_string()),
        ("first run", lathe_spaces::Micros::from_nanos(row.first_run_ns as f64).to_string()),
        ("peak memory", format!("{} KiB", row.peak_rss_kb)),
        (
            "output error",
            row.output_error.map_or_else(|| "not checked".into(), |error| format!("{error:.1e}")),
        ),
        ("executed", row.execution.as_ref().map_or_else(|| "not looked at".into(), executed)),
        ("flags", flags),
        ("attempts", format!("{} ({} rejected)", row.rejected.len() + 1, row.rejected.len())),
        (
            "governor",
            format!("{} before, {} after", words(&row.before.governors), words(&row.after.governors)),
        ),
        ("frequency", format!("{} before, {} after", megahertz(&row.before), megahertz(&row.after))),
        ("temperature", format!("{} before, {} after", degrees(&row.before), degrees(&row.after))),
        ("battery", battery(&row.before)),
        ("load average", format!("{:?} before, {:?} after", row.before.load_average, row.after.load_average)),
        ("timed at", format!("{} to {}", row.before.at, row.after.at)),
    ]);
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(key, value)| vec![key.into(), value]).collect();
    format!("{}\n{}\n", table(&["measurement", &row.id], &rows), describe(&row.device, row.provenance))
}

/// One line about what the engine did.
fn executed(execution: &Execution) -> String {
    let mut parts: Vec<String> =
        execution.nodes.iter().map(|(provider, nodes)| format!("{nodes} nodes on {provider}")).collect();
    parts.extend(execution.precision.iter().map(|precision| format!("in {precision}")));
    parts.extend(execution.elsewhere.iter().cloned());
    parts.extend(execution.notes.iter().cloned());
    parts.join("; ")
}
