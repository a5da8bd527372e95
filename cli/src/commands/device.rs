//! `lathe device`.

use std::ops::ControlFlow;

use lathe_latency_db::{Device, Protocol};
use lathe_runners::{LocalRunner, LocalSettings, Runner, noise};
use lathe_spaces::{DartsSkeleton, Level, NetworkOptions, Space, Stem, Workload};
use miette::Report;

use crate::{
    arguments::{DeviceArguments, DeviceChoice, DeviceCommand, Format},
    exit_codes,
    failure::failed,
    terminal::{self, Terminal, table},
};

/// Runs the subcommand.
pub fn run(arguments: &DeviceArguments, terminal: Terminal) -> Result<u8, Report> {
    match &arguments.command {
        DeviceCommand::Probe { device } => probe(device),
        DeviceCommand::Noise { device, pairs, seconds } => measure_noise(device, *pairs, *seconds, terminal),
    }
}

fn start(choice: &DeviceChoice) -> Result<LocalRunner, Report> {
    LocalRunner::start(LocalSettings {
        name: choice.name.clone(),
        agent: None,
        onnxruntime: None,
        cpus: choice.cpus.clone(),
        threads: choice.threads,
        state_root: "/".into(),
    })
    .map_err(failed)
}

fn probe(choice: &DeviceChoice) -> Result<u8, Report> {
    let runner = start(choice)?;
    let device = runner.device();
    match choice.format {
        Format::Json => {
            let value = serde_json::json!({
                "fingerprint": device.fingerprint(), "provenance": runner.provenance(), "device": device,
            });
            terminal::data(&serde_json::to_string_pretty(&value).map_err(failed)?);
        }
        Format::Text => terminal::data(&describe(device, &runner.provenance().to_string())),
    }
    Ok(exit_codes::OK)
}

/// Two columns about a device.
pub fn describe(device: &Device, provenance: &str) -> String {
    let absent = || "the system does not tell".to_owned();
    let cpus: Vec<String> = device.pinned_cpus.iter().map(ToString::to_string).collect();
    let rows = [
        ("fingerprint", device.fingerprint()),
        ("latencies", provenance.to_owned()),
        ("model", device.model.clone()),
        ("architecture", device.architecture.clone()),
        ("cores", device.cores.to_string()),
        ("memory", format!("{} MiB", device.memory_kb / 1024)),
        ("system", format!("{}, kernel {}", device.os, device.kernel)),
        ("pinned to", format!("core {}", cpus.join(", "))),
        ("governor", device.governor.clone().unwrap_or_else(absent)),
        ("frequency", device.max_khz.map_or_else(absent, |khz| format!("up to {} MHz", khz / 1000))),
        ("threads", device.threads.to_string()),
        (
            "engine",
            format!("{} {}, provider {}", device.engine.name, device.engine.version, device.engine.provider),
        ),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(key, value)| vec![key.into(), value]).collect();
    table(&["device", &device.name], &rows)
}

fn measure_noise(
    choice: &DeviceChoice,
    pairs: usize,
    seconds: f64,
    terminal: Terminal,
) -> Result<u8, Report> {
    let mut runner = start(choice)?;
    // A small network of the best-known space: a few hundred microseconds on most processors.
    let skeleton = DartsSkeleton { stem: Stem::Cifar, width: 8, layers: 3, resolution: 32, classes: 10 };
    let space = Space::darts(skeleton);
    let Some((name, genotype)) = space.published().into_iter().next() else {
        return Err(miette::miette!("failed to test the noise: the space has no published network"));
    };
    let graph = space.network(&genotype, NetworkOptions::default()).map_err(failed)?;
    let workload = Workload::new(name, Level::Network, graph);
    let protocol = Protocol { min_seconds: seconds, processes: 1, ..Protocol::SCREENING };
    let mut bar = terminal.bar("A/A test", pairs);
    let noise = noise(&mut runner, &workload, &protocol, pairs, 0, &mut |done| {
        bar.set(done, pairs, "the same network, twice each time");
        ControlFlow::Continue(())
    });
    bar.done();
    // Nothing breaks the test off here: Ctrl-C ends the program, and there is nothing to lose.
    let Some(noise) = noise.map_err(failed)? else { return Ok(exit_codes::INTERRUPTED) };
    match choice.format {
        Format::Json => {
            let value = serde_json::json!({
                "device": runner.device().fingerprint(), "pairs": noise.pairs,
                "smallest_difference": noise.smallest_difference, "drift": noise.drift, "ratios": noise.ratios,
            });
            terminal::data(&serde_json::to_string_pretty(&value).map_err(failed)?);
        }
        Format::Text => terminal::data(&format!(
            "{}: differences below {:.2} % can't be told apart ({} pairs; drift over the test {:+.2} %)",
            runner.device().name,
            noise.smallest_difference * 100.0,
            noise.pairs,
            noise.drift * 100.0
        )),
    }
    Ok(exit_codes::OK)
}
