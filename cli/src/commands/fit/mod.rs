//! `lathe fit`: the second stage of a run, or a model of a device.

mod kernels;
mod table;

use std::path::PathBuf;

use lathe_latency_db::Protocol;
use lathe_search::Stage;
use lathe_spaces::{Precision, Workload};
use miette::Report;

use crate::{
    arguments::{FitArguments, Format, StageArguments},
    campaign::Campaign,
    commands::run,
    devices::{self, DeviceRunner},
    interrupt,
    terminal::{self, Terminal, duration, table as columns},
};

/// The database of a stranger who names none.
const DATABASE: &str = ".lathe/latency-db";

/// Runs the command.
pub fn run(arguments: &FitArguments, terminal: Terminal) -> Result<u8, Report> {
    match (&arguments.config, &arguments.device) {
        (Some(config), _) => {
            let (config, directory) = (config.clone(), arguments.directory.clone());
            let stage = StageArguments { config, directory, database: arguments.database.clone() };
            run::stage(&stage, Stage::Fit, terminal)
        }
        (None, Some(device)) => {
            let learning = Learning::new(arguments, device, terminal)?;
            match &arguments.sources {
                Some(sources) => table::learn(&learning, sources),
                None => kernels::learn(&learning),
            }
        }
        (None, None) => Err(miette::miette!("failed to fit: expected CONFIG or --device")),
    }
}

/// A device that is being learned.
struct Learning<'a> {
    arguments: &'a FitArguments,
    device: &'a str,
    database: PathBuf,
    out: PathBuf,
    protocol: Protocol,
    precision: Precision,
    terminal: Terminal,
}

impl<'a> Learning<'a> {
    fn new(arguments: &'a FitArguments, device: &'a str, terminal: Terminal) -> Result<Self, Report> {
        let kind = if arguments.sources.is_some() { "table" } else { "kernels" };
        let out = arguments.out.clone().unwrap_or_else(|| PathBuf::from(format!("{device}-{kind}.json")));
        if out.exists() && !arguments.dry_run {
            // Found out now, not after an hour of timing.
            return Err(miette::miette!(
                help = "name another one with --out, or remove it first",
                "failed to write the model {}: the file exists",
                out.display()
            ));
        }
        if arguments.budget > 0 && arguments.space.is_none() && arguments.network.is_empty() {
            return Err(miette::miette!(
                help = "say what it is for: --space darts|nas201|fbnet, or --network FILE.onnx",
                "failed to spend a budget of {} measurements: there is nothing to choose from",
                arguments.budget
            ));
        }
        let screening = Protocol::SCREENING;
        // Who asks for less timing than half a second of warm-up wants less of that, too.
        let warmup_seconds = screening.warmup_seconds.min(arguments.seconds / 2.0);
        let protocol = Protocol { min_seconds: arguments.seconds, warmup_seconds, ..screening };
        let database = arguments.database.clone().unwrap_or_else(|| DATABASE.into());
        let precision = arguments.precision.into();
        Ok(Self { arguments, device, database, out, protocol, precision, terminal })
    }

    fn runner(&self) -> Result<DeviceRunner, Report> {
        devices::start(self.device, 1, None)
    }

    fn campaign(&self) -> Result<Campaign<'_>, Report> {
        Ok(Campaign {
            name: "fit",
            database: &self.database,
            protocol: self.protocol,
            seed: self.arguments.seed,
            stop: interrupt::watch(self.terminal)?,
            again: false,
            title: "measure",
            terminal: self.terminal,
        })
    }

    /// What would be timed.
    fn show(&self, workloads: &[Workload]) {
        if self.arguments.format == Format::Json {
            for workload in workloads {
                let value = serde_json::json!({
                    "workload": workload.id(), "label": workload.label, "level": workload.level,
                });
                terminal::data(&value.to_string());
            }
            return;
        }
        let rows: Vec<Vec<String>> = workloads
            .iter()
            .map(|workload| vec![workload.id().0, workload.level.to_string(), workload.label.clone()])
            .collect();
        terminal::data(&columns(&["workload", "level", "label"], &rows));
        let each = self.protocol.min_seconds + self.protocol.warmup_seconds * self.protocol.processes as f64;
        terminal::data(&format!("at least {}", duration(each * workloads.len() as f64)));
    }
}
