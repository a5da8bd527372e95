//! How far measurements can be trusted: the agent beside ONNX Runtime's own Python interface, and
//! campaigns repeated.

use std::{
    io::Write,
    ops::ControlFlow,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use lathe_latency_db::{Measurement, Outcome, Protocol};
use lathe_runners::{Job, LocalRunner, LocalSettings, Runner};
use lathe_spaces::{
    DartsSkeleton, Level, Micros, NetworkOptions, Space, Stem, Stream, Weights, Workload, encode_onnx,
};
use miette::Report;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{
    arguments::{BenchMeasurementArguments, ShowFormat},
    exit_codes,
    failure::failed,
    interrupt,
    terminal::{self, Terminal, table},
};

const SCRIPT: &str = include_str!("onnxruntime_timing.py");

/// Runs the benchmark.
pub fn run(arguments: &BenchMeasurementArguments, terminal: Terminal) -> Result<u8, Report> {
    let stop = interrupt::watch(terminal)?;
    let mut runner = LocalRunner::start(LocalSettings::new("local")).map_err(failed)?;
    let networks = networks()?;
    let bench = Bench { arguments, terminal, stop, networks };
    if let Some(python) = &arguments.python {
        let Some(rows) = bench.compare(&mut runner, python)? else { return Ok(exit_codes::INTERRUPTED) };
        print(&rows, arguments.format)?;
    }
    if arguments.campaigns > 0 {
        let Some(mut rows) = bench.campaigns(&mut runner, "quiet")? else {
            return Ok(exit_codes::INTERRUPTED);
        };
        if arguments.neighbour {
            let neighbour = Neighbour::start(runner.device().pinned_cpus.as_slice(), runner.device().cores)?;
            let disturbed = bench.campaigns(&mut runner, "neighbour")?;
            drop(neighbour);
            let Some(disturbed) = disturbed else { return Ok(exit_codes::INTERRUPTED) };
            rows.extend(disturbed);
        }
        print(&rows, arguments.format)?;
    }
    Ok(exit_codes::OK)
}

struct Bench<'a> {
    arguments: &'a BenchMeasurementArguments,
    terminal: Terminal,
    stop: &'a AtomicBool,
    networks: Vec<Workload>,
}

/// Two networks of the DARTS space and one of FBNet's: from under one to some tens of milliseconds on a
/// processor of today.
fn networks() -> Result<Vec<Workload>, Report> {
    let darts = |width, layers| {
        Space::darts(DartsSkeleton { stem: Stem::Cifar, width, layers, resolution: 32, classes: 10 })
    };
    let mut networks = Vec::new();
    for (label, space) in
        [("darts 8x5", darts(8, 5)), ("darts 16x8", darts(16, 8)), ("fbnet 96", Space::fbnet(96, 100))]
    {
        let genotype = space.sample(&mut Stream::new(0, "bench measurement", 0));
        let graph = space.network(&genotype, NetworkOptions::default()).map_err(failed)?;
        networks.push(Workload::new(label, Level::Network, graph));
    }
    Ok(networks)
}

/// What the script answers.
#[derive(Deserialize)]
struct PythonAnswer {
    version: String,
    samples_ns: Vec<u64>,
}

impl Bench<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn rules(&self, processes: usize) -> Protocol {
        let warmup_seconds = Protocol::SCREENING.warmup_seconds.min(self.arguments.seconds / 2.0);
        Protocol { processes, min_seconds: self.arguments.seconds, warmup_seconds, ..Protocol::SCREENING }
    }

    /// Agent and Python in turns, the order swapped in every other round; a row per network.
    fn compare(&self, runner: &mut LocalRunner, python: &Path) -> Result<Option<Vec<Comparison>>, Report> {
        let rounds = self.arguments.rounds.max(1);
        let folder = tempfile::tempdir().map_err(failed)?;
        let script = folder.path().join("onnxruntime_timing.py");
        std::fs::write(&script, SCRIPT).map_err(failed)?;
        let rules = Protocol { retries: 0, ..self.rules(1) };
        let mut bar = self.terminal.bar("compare", rounds * self.networks.len());
        let mut rows = Vec::new();
        for (index, network) in self.networks.iter().enumerate() {
            let model = folder.path().join("network.onnx");
            let bytes = encode_onnx(&network.graph, &Weights::seeded(&network.graph, 0)).map_err(failed)?;
            std::fs::write(&model, bytes).map_err(failed)?;
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                bar.set(index * rounds + round, rounds * self.networks.len(), &network.label);
                if self.stopped() {
                    return Ok(None);
                }
                for agent in [round % 2 == 0, round % 2 == 1] {
                    if agent {
                        let job = Job::new("bench", rules, round as u64);
                        ours.push(median_of(&time(runner, std::slice::from_ref(network), &job)?[0])?);
                    } else {
                        theirs.push(Self::time_in_python(runner, python, &script, &model, &rules)?);
                    }
                }
            }
            let mut ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
            let ratio = median(&mut ratios);
            rows.push(Comparison {
                network: network.label.clone(),
                agent_us: median(&mut ours),
                python_us: median(&mut theirs),
                ratio,
                least_ratio: ratios[0],
                greatest_ratio: ratios[ratios.len() - 1],
                rounds,
            });
        }
        bar.done();
        Ok(Some(rows))
    }

    /// Median in microseconds.
    fn time_in_python(
        runner: &LocalRunner,
        python: &Path,
        script: &Path,
        model: &Path,
        rules: &Protocol,
    ) -> Result<f64, Report> {
        let device = runner.device();
        let request = serde_json::json!({
            "model": model, "cpus": device.pinned_cpus, "threads": device.threads,
            "warmup_runs": rules.warmup_runs, "warmup_seconds": rules.warmup_seconds,
            "min_runs": rules.min_runs, "min_seconds": rules.min_seconds,
        });
        let launch = |error| miette::miette!("failed to run {}: {error}", python.display());
        let mut child = Command::new(python)
            .arg(script)
            .env("ORT_DISABLE_TELEMETRY", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(launch)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A Python that dies early says why on standard error.
            let _ = stdin.write_all(request.to_string().as_bytes());
        }
        let output = child.wait_with_output().map_err(launch)?;
        let version = &device.engine.version;
        let hint = format!(
            "it needs numpy and onnxruntime: {} -m pip install numpy onnxruntime=={version}",
            python.display()
        );
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let last = words.lines().last().unwrap_or("no message").to_owned();
            return Err(miette::miette!(help = hint, "failed to time with {}: {last}", python.display()));
        }
        let answer: PythonAnswer = serde_json::from_slice(&output.stdout)
            .map_err(|error| miette::miette!("failed to understand {}: {error}", python.display()))?;
        if answer.version != *version {
            return Err(miette::miette!(
                help = hint,
                "failed to compare with {}: its onnxruntime is {}, the agent's is {version}",
                python.display(),
                answer.version
            ));
        }
        let mut micros: Vec<f64> = answer.samples_ns.iter().map(|&nanos| nanos as f64 / 1e3).collect();
        Ok(median(&mut micros))
    }

    /// The networks in several campaigns one after the other; a row per network.
    fn campaigns(&self, runner: &mut LocalRunner, conditions: &str) -> Result<Option<Vec<Repeated>>, Report> {
        let count = self.arguments.campaigns;
        let mut bar = self.terminal.bar("campaigns", count);
        let mut campaigns: Vec<Vec<Measurement>> = Vec::new();
        for campaign in 0..count {
            bar.set(campaign, count, conditions);
            if self.stopped() {
                return Ok(None);
            }
            let job = Job::new(format!("bench-{campaign}"), self.rules(3), campaign as u64);
            campaigns.push(time(runner, &self.networks, &job)?);
        }
        bar.done();
        let mut rows = Vec::new();
        for network in &self.networks {
            let id = network.id();
            let of_network: Vec<&Measurement> =
                campaigns.iter().flatten().filter(|row| row.workload == id).collect();
            let mut medians = of_network.iter().map(|row| median_of(row)).collect::<Result<Vec<_>, _>>()?;
            let middle = median(&mut medians);
            let spread = (medians[medians.len() - 1] - medians[0]) / middle;
            let flagged = of_network.iter().filter(|row| !row.flags.is_empty()).count();
            let again = of_network.iter().filter(|row| !row.rejected.is_empty()).count();
            rows.push(Repeated {
                conditions: conditions.to_owned(),
                network: network.label.clone(),
                median_us: middle,
                spread,
                campaigns: of_network.len(),
                flagged,
                timed_again: again,
            });
        }
        Ok(Some(rows))
    }
}

/// Rows in the order of the workloads.
fn time(runner: &mut LocalRunner, workloads: &[Workload], job: &Job) -> Result<Vec<Measurement>, Report> {
    let mut rows = Vec::new();
    runner
        .run(workloads, job, &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })
        .map_err(failed)?;
    Ok(rows)
}

/// Median in microseconds.
fn median_of(row: &Measurement) -> Result<f64, Report> {
    match row.median() {
        Some(median) if row.outcome == Outcome::Ok => Ok(median.0),
        _ => Err(miette::miette!(
            "failed to time {}: {} ({})",
            row.label,
            row.outcome,
            row.error.as_deref().unwrap_or("no message")
        )),
    }
}

/// Sorts, and gives the middle one, the mean of two; there is at least one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
}

/// A thread that keeps a core busy until it is dropped.
struct Neighbour {
    stop: std::sync::Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Neighbour {
    /// On the first core that nothing is pinned to.
    fn start(pinned: &[usize], cores: usize) -> Result<Self, Report> {
        let free = (0..cores).find(|core| !pinned.contains(core));
        let core = free.ok_or_else(|| miette::miette!("failed to load another core: there is none"))?;
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let seen = std::sync::Arc::clone(&stop);
        let work = move || {
            let mut set = CpuSet::new();
            // Where it can't be pinned, the system's scheduler keeps it off the busy core.
            let _ = set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
            // More than the caches hold, so that memory is shared, too.
            let mut numbers = vec![1.0_f32; 1 << 24];
            while !seen.load(Ordering::Relaxed) {
                for number in &mut numbers {
                    *number = number.mul_add(1.000_1, 0.1);
                }
                std::hint::black_box(&numbers);
            }
        };
        Ok(Self { stop, thread: Some(thread::spawn(work)) })
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A row of figures.
trait Figures: Serialize {
    const HEADER: &'static [&'static str];

    fn cells(&self) -> Vec<String>;
}

/// A network, timed by the agent and by Python in turns.
#[derive(Serialize)]
struct Comparison {
    network: String,
    /// Median over the rounds of a round's median, microseconds.
    agent_us: f64,
    python_us: f64,
    /// Median over the rounds of agent / Python.
    ratio: f64,
    least_ratio: f64,
    greatest_ratio: f64,
    rounds: usize,
}

impl Figures for Comparison {
    const HEADER: &'static [&'static str] =
        &["network", "rounds", "agent", "Python", "agent / Python", "in the rounds"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.network.clone(),
            self.rounds.to_string(),
            Micros(self.agent_us).to_string(),
            Micros(self.python_us).to_string(),
            format!("{:.3}", self.ratio),
            format!("{:.3} … {:.3}", self.least_ratio, self.greatest_ratio),
        ]
    }
}

/// A network in repeated campaigns.
#[derive(Serialize)]
struct Repeated {
    conditions: String,
    network: String,
    /// Median of the campaigns' medians, microseconds.
    median_us: f64,
    /// (Greatest − least) / median of the campaigns' medians.
    spread: f64,
    campaigns: usize,
    /// Rows with a reason for doubt.
    flagged: usize,
    /// Rows whose batch was timed more than once.
    timed_again: usize,
}

impl Figures for Repeated {
    const HEADER: &'static [&'static str] = &[
        "conditions",
        "network",
        "campaigns",
        "median",
        "spread of the medians, %",
        "flagged rows",
        "timed again",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.conditions.clone(),
            self.network.clone(),
            self.campaigns.to_string(),
            Micros(self.median_us).to_string(),
            format!("{:.1}", self.spread * 100.0),
            self.flagged.to_string(),
            self.timed_again.to_string(),
        ]
    }
}

fn print<F: Figures>(rows: &[F], format: ShowFormat) -> Result<(), Report> {
    if format == ShowFormat::Json {
        for row in rows {
            terminal::data(&serde_json::to_string(row).map_err(failed)?);
        }
        return Ok(());
    }
    let cells: Vec<Vec<String>> = rows.iter().map(Figures::cells).collect();
    if format == ShowFormat::Text {
        terminal::data(&format!("{}\n", table(F::HEADER, &cells)));
        return Ok(());
    }
    terminal::data(&format!("| {} |\n|{}", F::HEADER.join(" | "), "---|".repeat(F::HEADER.len())));
    for row in cells {
        terminal::data(&format!("| {} |", row.join(" | ")));
    }
    terminal::data("");
    Ok(())
}
