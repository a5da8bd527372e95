//! `lathe measure`: the first stage of a run, or workloads timed on one or several devices.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use lathe_latency_db::{Device, Filter, Measurement, Protocol, Store};
use lathe_runners::Runner;
use lathe_spaces::{Level, Precision, Workload, decode_onnx};
use miette::Report;

use crate::{
    arguments::{Format, MeasureArguments, ProtocolChoice},
    campaign::{self, Campaign, distinct},
    commands::{compare, run, space},
    config::Config,
    devices, exit_codes,
    failure::failed,
    interrupt,
    run::fit_networks,
    stages::measure::parts_and_networks,
    terminal::{self, Terminal, duration, table},
};

/// The database of a stranger who names none.
const DATABASE: &str = ".lathe/latency-db";
/// What a process costs besides timing: launch, loading, checking the output. In seconds.
const LAUNCH_SECONDS: f64 = 0.2;
/// Workloads that share their references.
const BATCH: f64 = 8.0;

/// Runs the command.
pub fn run(arguments: &MeasureArguments, terminal: Terminal) -> Result<u8, Report> {
    match &arguments.config {
        Some(config) if arguments.device.is_empty() => run::measure(config, arguments, terminal),
        _ => on_devices(arguments, terminal),
    }
}

/// What would be timed on a device.
pub struct Plan {
    /// Device.
    pub device: Device,
    /// Workloads.
    pub workloads: Vec<Workload>,
    /// Estimated time.
    pub seconds: f64,
}

impl Plan {
    /// Prints it.
    pub fn show(&self, format: Format) -> Result<(), Report> {
        let Self { device, workloads, seconds } = self;
        if format == Format::Json {
            let rows: Vec<_> = workloads
                .iter()
                .map(|workload| {
                    serde_json::json!({
                        "workload": workload.id(), "label": workload.label, "level": workload.level,
                    })
                })
                .collect();
            let plan = serde_json::json!({
                "device": device.fingerprint(), "name": device.name, "missing": rows, "estimated_seconds": seconds,
            });
            terminal::data(&serde_json::to_string_pretty(&plan).map_err(failed)?);
            return Ok(());
        }
        let rows: Vec<Vec<String>> = workloads
            .iter()
            .map(|workload| vec![workload.id().0, workload.level.to_string(), workload.label.clone()])
            .collect();
        if !rows.is_empty() {
            terminal::data(&table(&["workload", "level", "label"], &rows));
        }
        terminal::data(&format!(
            "{} workloads are missing on {}: about {} of its time",
            rows.len(),
            device.name,
            duration(*seconds)
        ));
        Ok(())
    }
}

/// How long a device is busy with these workloads: warm-up, runs and launches of every process, and the
/// references between them. A workload that another device has timed is taken to be as slow here.
pub fn estimated_seconds(workloads: &[Workload], rules: &Protocol, store: &Store) -> Result<f64, Report> {
    let wanted = workloads.iter().map(Workload::id).collect();
    let known = store.load(&Filter { workloads: Some(wanted), ..Filter::default() }).map_err(failed)?;
    let mut medians: BTreeMap<_, f64> = BTreeMap::new();
    for row in &known {
        if let Some(median) = row.median() {
            let seconds = median.0 / 1e6;
            medians
                .entry(row.workload.clone())
                .and_modify(|slow| *slow = slow.max(seconds))
                .or_insert(seconds);
        }
    }
    let processes = rules.processes.max(1) as f64;
    let one = |workload: &Workload| {
        let run = medians.get(&workload.id()).copied().unwrap_or(0.0);
        let warm_up = rules.warmup_seconds.max(rules.warmup_runs as f64 * run);
        rules.min_seconds.max(rules.min_runs as f64 * run) + processes * (warm_up + LAUNCH_SECONDS)
    };
    let references = (workloads.len() as f64 / BATCH).ceil() * (processes + 1.0) * (0.2 + LAUNCH_SECONDS);
    Ok(workloads.iter().map(one).sum::<f64>() + references)
}

/// Everything that the devices' threads share.
struct Order<'a> {
    arguments: &'a MeasureArguments,
    workloads: Vec<Workload>,
    protocol: Protocol,
    threads: usize,
    database: PathBuf,
    name: String,
    stop: &'a AtomicBool,
    terminal: Terminal,
}

/// How a device's part ended.
enum End {
    Done(Vec<Measurement>),
    Planned(Box<Plan>),
    Interrupted,
}

fn on_devices(arguments: &MeasureArguments, terminal: Terminal) -> Result<u8, Report> {
    let (mut rows, code) = timed(&Order::new(arguments, terminal)?)?;
    if rows.iter().any(|row| row.level == Level::Network) {
        rows.retain(|row| row.level == Level::Network);
    }
    if !rows.is_empty() {
        compare::print(&rows, arguments.format)?;
    }
    Ok(code)
}

/// Times workloads as `lathe measure` does; every row that the database then has of them on these devices,
/// and an exit code.
pub fn workloads(
    arguments: &MeasureArguments,
    workloads: Vec<Workload>,
    terminal: Terminal,
) -> Result<(Vec<Measurement>, u8), Report> {
    timed(&Order::of(arguments, None, workloads, terminal)?)
}

fn timed(order: &Order<'_>) -> Result<(Vec<Measurement>, u8), Report> {
    let (arguments, terminal) = (order.arguments, order.terminal);
    let mut machines: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for name in &arguments.device {
        if seen.insert(name) {
            machines.entry(devices::machine(name)?).or_default().push(name);
        }
    }
    let ends: Vec<(&str, Result<End, Report>)> = thread::scope(|scope| {
        let threads: Vec<_> = machines
            .values()
            .map(|names| {
                let work = move || names.iter().map(|name| (*name, order.on(name))).collect::<Vec<_>>();
                (names[0], scope.spawn(work))
            })
            .collect();
        let died = |name| vec![(name, Err(miette::miette!("its thread died; please report this")))];
        threads.into_iter().flat_map(|(name, thread)| thread.join().unwrap_or_else(|_| died(name))).collect()
    });
    let mut rows = Vec::new();
    let mut code = exit_codes::OK;
    for (name, end) in ends {
        match end {
            Ok(End::Planned(plan)) => plan.show(arguments.format)?,
            Ok(End::Done(timed)) => {
                let known: BTreeSet<_> = timed.iter().map(|row| &row.workload).collect();
                let failures = timed.iter().filter(|row| !row.usable()).count();
                let again = timed.iter().filter(|row| !row.rejected.is_empty()).count();
                terminal.say(&format!(
                    "{name}: {} workloads are known, {failures} of the rows are failures, {again} were timed more than once",
                    known.len()
                ));
                rows.extend(timed);
            }
            Ok(End::Interrupted) => code = exit_codes::INTERRUPTED,
            Err(report) => {
                // The other devices' rows are good.
                Terminal::error(&report.wrap_err(format!("failed to measure on {name}")));
                code = code.max(exit_codes::DEVICE_FAILED);
            }
        }
    }
    Ok((rows, code))
}

impl<'a> Order<'a> {
    fn new(arguments: &'a MeasureArguments, terminal: Terminal) -> Result<Self, Report> {
        let config = arguments.config.as_deref().map(run::load).transpose()?.map(|(_, config)| config);
        let precision = match (arguments.precision, &config) {
            (Some(choice), _) => choice.into(),
            (None, Some(config)) => config.measure.precision,
            (None, None) => Precision::default(),
        };
        let workloads = match (&config, arguments.space) {
            (Some(config), _) => {
                let space = config.space();
                let networks = fit_networks(&space, config.measure.networks as u64, config.seed);
                parts_and_networks(&space, &networks, precision)?
            }
            (None, Some(kind)) => {
                let space = space::build(kind, arguments.skeleton);
                let networks = fit_networks(&space, arguments.networks, arguments.seed);
                parts_and_networks(&space, &networks, precision)?
            }
            (None, None) => {
                let networks = arguments.network.iter().map(|path| Ok(network_of(path)?.at(precision)));
                distinct(networks.collect::<Result<Vec<_>, Report>>()?)
            }
        };
        if workloads.is_empty() {
            return Err(miette::miette!(
                help = "name a CONFIG, --space darts|nas201|fbnet, or --network FILE.onnx",
                "failed to measure: there is nothing to time"
            ));
        }
        Self::of(arguments, config, workloads, terminal)
    }

    fn of(
        arguments: &'a MeasureArguments,
        config: Option<Config>,
        workloads: Vec<Workload>,
        terminal: Terminal,
    ) -> Result<Self, Report> {
        let mut protocol = match (arguments.protocol, &config) {
            (Some(ProtocolChoice::Reference), _) => Protocol::REFERENCE,
            (Some(ProtocolChoice::Screening), _) | (None, None) => Protocol::SCREENING,
            (None, Some(config)) => config.measure.protocol,
        };
        if let Some(seconds) = arguments.seconds {
            if !(0.0..=3600.0).contains(&seconds) {
                return Err(miette::miette!("failed to measure: --seconds expects 0 to 3600, got {seconds}"));
            }
            protocol.min_seconds = seconds;
            // Who asks for less timing than half a second of warm-up wants less of that, too.
            protocol.warmup_seconds = protocol.warmup_seconds.min(seconds / 2.0);
        }
        let stamp: String = crate::run::now().chars().filter(char::is_ascii_alphanumeric).collect();
        let database = arguments
            .database
            .clone()
            .or_else(|| config.as_ref().map(|config| config.database.clone()))
            .unwrap_or_else(|| DATABASE.into());
        Ok(Self {
            arguments,
            workloads,
            protocol,
            threads: config.map_or(1, |config| config.device.threads),
            database,
            // Rows of the same name would be taken for a retry.
            name: if arguments.only_missing { "measure".to_owned() } else { format!("measure-{stamp}") },
            stop: interrupt::watch(terminal)?,
            terminal,
        })
    }

    /// One device's part.
    fn on(&self, name: &str) -> Result<End, Report> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(End::Interrupted);
        }
        let mut runner = devices::start(name, self.threads, None)?;
        let mut workloads = self.for_device(&runner);
        if self.arguments.dry_run {
            let store = Store::open(&self.database).map_err(failed)?;
            if self.arguments.only_missing {
                let fingerprint = runner.device().fingerprint();
                campaign::take_over(&store, &self.database, &fingerprint, &self.name)?;
                let known = store.measured(&fingerprint).map_err(failed)?;
                workloads.retain(|workload| !known.contains(&workload.id()));
            }
            let seconds = estimated_seconds(&workloads, &self.protocol, &store)?;
            let device = runner.device().clone();
            return Ok(End::Planned(Box::new(Plan { device, workloads, seconds })));
        }
        let campaign = Campaign {
            name: &self.name,
            database: &self.database,
            protocol: self.protocol,
            seed: self.arguments.seed,
            stop: self.stop,
            again: !self.arguments.only_missing,
            title: name,
            terminal: self.terminal,
        };
        Ok(campaign.time(&mut runner, &workloads)?.map_or(End::Interrupted, End::Done))
    }

    /// The workloads in numbers that a device computes with. If there are none, all: it says what it needs.
    fn for_device(&self, runner: &impl Runner) -> Vec<Workload> {
        let computes = |workload: &&Workload| runner.computes(workload.precision);
        let some: Vec<Workload> = self.workloads.iter().filter(computes).cloned().collect();
        if some.is_empty() { self.workloads.clone() } else { some }
    }
}

/// The network of an ONNX file.
fn network_of(path: &Path) -> Result<Workload, Report> {
    let bytes =
        fs::read(path).map_err(|error| miette::miette!("failed to read {}: {error}", path.display()))?;
    let decoded =
        decode_onnx(&bytes).map_err(|error| miette::miette!("failed to read {}: {error}", path.display()))?;
    if !decoded.unknown.is_empty() {
        let unknown: Vec<String> = decoded.unknown.iter().map(ToString::to_string).collect();
        return Err(miette::miette!(
            "failed to time {}: it has operators that Lathe does not know: {}",
            path.display(),
            unknown.join(", ")
        ));
    }
    let label = path.file_stem().map_or_else(|| "network".into(), |stem| stem.to_string_lossy().into_owned());
    Ok(Workload::new(label, Level::Network, decoded.graph))
}
