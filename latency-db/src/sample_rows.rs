//! Measurements for tests.

use lathe_spaces::{Graph, GraphBuilder, Level, OpSpec, Precision, Shape, WorkloadId};

use crate::{Device, Engine, MachineState, Measurement, Outcome, Protocol, Provenance};

pub(crate) fn device() -> Device {
    Device {
        name: "bench".into(),
        model: "Test processor".into(),
        architecture: "x86_64".into(),
        cores: 2,
        memory_kb: 8_000_000,
        os: "Debian 13".into(),
        kernel: "6.12".into(),
        pinned_cpus: vec![1],
        governor: Some("performance".into()),
        max_khz: Some(3_000_000),
        threads: 1,
        engine: Engine {
            name: "onnxruntime".into(),
            version: "1.24.1".into(),
            library_sha256: "00".into(),
            provider: "cpu".into(),
        },
        memory_limit_kb: None,
        cluster: None,
        tier: None,
    }
}

/// Sixty samples of two processes around `nanos`.
pub(crate) fn row(id: &str, nanos: u64) -> Measurement {
    let state = |at: &str| MachineState {
        at: at.into(),
        current_khz: vec![3_000_000],
        temperature_millicelsius: [("cpu".to_owned(), 41_000)].into(),
        load_average: Some(0.25),
        steal_ticks: Some(7),
        battery_percent: None,
        ..MachineState::default()
    };
    Measurement {
        id: id.into(),
        workload: WorkloadId(format!("workload-{id}")),
        label: format!("conv \"{id}\", 3x3"),
        level: Level::Operator,
        precision: Precision::Fp32,
        macs: 123,
        device: device(),
        provenance: Provenance::Measured,
        outcome: Outcome::Ok,
        error: None,
        samples_ns: (0..60).map(|sample| nanos + sample % 5).collect(),
        samples_per_process: vec![30, 30],
        batch: 4,
        warmup_runs: 20,
        load_ns: 5_000,
        first_run_ns: 9_000,
        peak_rss_kb: 30_000,
        output_error: Some(1e-7),
        protocol: Protocol::SCREENING,
        before: state("2026-01-01T10:00:00Z"),
        after: state("2026-01-01T10:00:10Z"),
        flags: vec![],
        agent: "0.1.0".into(),
        campaign: "campaign".into(),
        rejected: Vec::new(),
        published: None,
        execution: None,
    }
}

/// A graph on so many images at once.
pub(crate) fn at_batch(graph: &Graph, images: usize) -> Graph {
    let mut builder = GraphBuilder::new();
    for node in graph.nodes() {
        let added = if node.op == OpSpec::Input {
            builder.input(&node.name, Shape { n: images, ..node.shape })
        } else {
            builder.add(&node.name, node.op, &node.inputs)
        };
        added.unwrap_or_else(|error| unreachable!("{error}"));
    }
    builder.finish(graph.outputs()).unwrap_or_else(|error| unreachable!("{error}"))
}
