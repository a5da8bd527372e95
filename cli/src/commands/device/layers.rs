//! `lathe device layers`: where the cycles of a network go.

use std::time::Duration;

use lathe_runners::{Estimate, EthosURunner, Runner};
use lathe_spaces::{Level, Precision, Workload};
use miette::Report;

use crate::{
    arguments::{Format, SkeletonChoice, SpaceKind},
    commands::predict::{Wanted, network},
    devices::{self, DeviceRunner},
    exit_codes,
    failure::failed,
    terminal::{self, Terminal, table},
};

/// How long the compiler may take for one network.
const DEADLINE: Duration = Duration::from_mins(10);

/// What is asked for.
pub struct Request<'a> {
    /// Device.
    pub name: &'a str,
    /// ONNX file, or a genotype.
    pub network: &'a str,
    /// Space of the genotype.
    pub space: Option<SpaceKind>,
    /// Its skeleton.
    pub skeleton: SkeletonChoice,
    /// How to print.
    pub format: Format,
}

/// Runs the command.
pub fn run(request: &Request<'_>, terminal: Terminal) -> Result<u8, Report> {
    let DeviceRunner::EthosU(runner) = devices::start(request.name, 1, None)? else {
        return Err(miette::miette!(
            help = "for a device that runs networks: `lathe predict` shows the share of each kernel",
            "failed to show the layers on {}: no compiler estimates this device",
            request.name
        ));
    };
    let wanted = Wanted { network: request.network, space: request.space, skeleton: request.skeleton };
    let (graph, _) = network(&wanted, false, terminal)?;
    let workload = Workload::new(request.network, Level::Network, graph).at(Precision::Int8);
    let estimate = runner.estimate(&workload, None, DEADLINE).map_err(failed)?.map_err(|message| {
        miette::miette!("failed to estimate {} on {}: {message}", request.network, request.name)
    })?;
    match request.format {
        Format::Json => terminal::data(&json(&runner, &estimate)?),
        Format::Text => show(request, &runner, &estimate),
    }
    Ok(exit_codes::OK)
}

fn json(runner: &EthosURunner, estimate: &Estimate) -> Result<String, Report> {
    let layers: Vec<serde_json::Value> = estimate
        .layers
        .iter()
        .map(|layer| {
            serde_json::json!({
                "name": layer.name, "operator": layer.operator, "on_npu": layer.on_npu, "cycles": layer.cycles,
                "milliseconds": milliseconds(estimate, layer.cycles), "macs": layer.macs,
                "mac_utilization": layer.utilization,
            })
        })
        .collect();
    let value = serde_json::json!({
        "device": runner.device().fingerprint(), "provenance": runner.provenance(),
        "cycles": estimate.cycles, "cycles_npu": estimate.cycles_npu,
        "milliseconds": estimate.nanoseconds as f64 / 1e6, "macs": estimate.macs,
        "mac_utilization": estimate.utilization(runner.accelerator().macs_per_cycle()),
        "memory_kibibytes": estimate.memory_kibibytes, "layers": layers,
    });
    serde_json::to_string_pretty(&value).map_err(failed)
}

fn show(request: &Request<'_>, runner: &EthosURunner, estimate: &Estimate) {
    let sum: u64 = estimate.layers.iter().map(|layer| layer.cycles).sum();
    let rows: Vec<Vec<String>> = estimate
        .layers
        .iter()
        .map(|layer| {
            vec![
                layer.name.clone(),
                if layer.on_npu { layer.operator.clone() } else { format!("{} (CPU)", layer.operator) },
                layer.cycles.to_string(),
                format!("{:.4}", milliseconds(estimate, layer.cycles)),
                format!("{:.1} %", layer.cycles as f64 / sum.max(1) as f64 * 100.0),
                if layer.macs > 0 { format!("{:.1} %", layer.utilization * 100.0) } else { String::new() },
            ]
        })
        .collect();
    terminal::data(&table(&["layer", "operator", "cycles", "ms", "share", "MACs used"], &rows));
    terminal::data(&format!(
        "{} on {}, compiler estimate: {:.3} ms, {} cycles at {:.0} MHz ({} of them computing), {:.1} % of the \
         multipliers used, {:.0} KiB",
        request.network,
        runner.device().model,
        estimate.nanoseconds as f64 / 1e6,
        estimate.cycles,
        estimate.clock_hertz / 1e6,
        estimate.cycles_npu,
        estimate.utilization(runner.accelerator().macs_per_cycle()) * 100.0,
        estimate.memory_kibibytes,
    ));
}

fn milliseconds(estimate: &Estimate, cycles: u64) -> f64 {
    cycles as f64 / estimate.clock_hertz * 1e3
}
