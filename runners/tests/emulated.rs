//! The agent for 64-bit ARM with ONNX Runtime for 64-bit ARM, under QEMU's user-mode emulation.
//! `cargo xtask test` builds the one and fetches the other where Debian's cross compiler and QEMU are
//! installed; in CI they must be.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{ops::ControlFlow, path::PathBuf};

use lathe_latency_db::{Measurement, Outcome, Protocol, Provenance};
use lathe_runners::{
    Job, LocalRunner, LocalSettings, LocalTransport, RemoteRunner, RemoteSettings, Runner, RunnerError,
};
use lathe_spaces::{
    DartsSkeleton, GraphBuilder, Level, NetworkOptions, OpSpec, Shape, Space, Stem, Weights, Workload,
    encode_onnx, seeded_input,
};

const RULES: Protocol = Protocol {
    min_runs: 2,
    min_seconds: 0.0,
    processes: 1,
    warmup_runs: 1,
    warmup_seconds: 0.0,
    timeout_seconds: 300.0,
    retries: 0,
    cool_down_seconds: 0.0,
};

/// Nothing (with a printed reason) where there is no emulator. In CI there must be one.
fn emulated() -> Option<RemoteSettings> {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let parts = (from("LATHE_AGENT_AARCH64"), from("ORT_DYLIB_PATH_AARCH64"), from("LATHE_AARCH64_PREFIX"));
    let (Some(agent), Some(library), Some(prefix)) = parts else {
        assert!(std::env::var_os("CI").is_none(), "LATHE_AGENT_AARCH64 is not set: run `cargo xtask test`");
        eprintln!("skipped: there is no emulated ARM agent (cargo xtask test says what is missing)");
        return None;
    };
    Some(RemoteSettings {
        agent: Some(agent),
        library: Some(library),
        launch: vec!["qemu-aarch64-static".into(), "-L".into(), prefix.display().to_string()],
        ..RemoteSettings::new("arm")
    })
}

fn start(settings: RemoteSettings) -> (tempfile::TempDir, Result<RemoteRunner, RunnerError>) {
    let folder = tempfile::tempdir().unwrap();
    let directory = Some(folder.path().display().to_string());
    let runner = RemoteRunner::start(RemoteSettings { directory, ..settings }, Box::new(LocalTransport));
    (folder, runner)
}

fn operator(label: &str, op: OpSpec) -> Workload {
    let mut builder = GraphBuilder::new();
    let input = builder.input("input", Shape::new(1, 8, 12, 12)).unwrap();
    let output = builder.add("op", op, &[input]).unwrap();
    Workload::new(label, Level::Operator, builder.finish(&[output]).unwrap())
}

fn conv(kernel: usize, stride: usize, dilation: usize, groups: usize) -> OpSpec {
    let padding = dilation * (kernel - 1) / 2;
    OpSpec::Conv2d { out_channels: 8, kernel, stride, padding, dilation, groups, bias: true }
}

/// Operators of several kinds and a network of the DARTS space.
fn workloads() -> Vec<Workload> {
    let skeleton = DartsSkeleton { stem: Stem::Cifar, width: 4, layers: 3, resolution: 16, classes: 10 };
    let space = Space::darts(skeleton);
    let (name, genotype) = space.published().swap_remove(0);
    let network = space.network(&genotype, NetworkOptions::default()).unwrap();
    vec![
        operator("conv 3x3", conv(3, 1, 1, 1)),
        operator("conv 5x5 stride 2", conv(5, 2, 1, 1)),
        operator("depthwise, dilated", conv(3, 1, 2, 8)),
        operator("max pool", OpSpec::MaxPool { kernel: 3, stride: 1, padding: 1 }),
        operator("batch norm", OpSpec::BatchNorm { affine: true }),
        Workload::new(name, Level::Network, network),
    ]
}

fn run(runner: &mut dyn Runner, workloads: &[Workload]) -> Vec<Measurement> {
    let mut rows = Vec::new();
    let job = Job::new("test", RULES, 1);
    runner
        .run(workloads, &job, &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

#[test]
fn an_emulated_arm_agent_computes_what_this_machine_does_and_its_rows_say_emulated() {
    let Some(settings) = emulated() else { return };
    let (_folder, runner) = start(settings);
    let mut arm = runner.unwrap();
    assert_eq!((arm.device().architecture.as_str(), arm.provenance()), ("aarch64", Provenance::Emulated));
    assert!(arm.device().model.contains("0xd08"), "{}", arm.device().model);
    let mut here = LocalRunner::start(LocalSettings::new("here")).unwrap();
    assert_ne!(arm.device().fingerprint(), here.device().fingerprint());

    let workloads = workloads();
    let rows = run(&mut arm, &workloads);
    assert_eq!(rows.len(), workloads.len());
    for row in &rows {
        assert_eq!((row.outcome, &row.error), (Outcome::Ok, &None), "{}", row.label);
        assert_eq!(row.provenance, Provenance::Emulated);
        assert!(!row.samples_ns.is_empty());
    }

    // Number by number, not only their sums.
    let folder = tempfile::tempdir().unwrap();
    for workload in &workloads {
        let file = folder.path().join("model.onnx");
        let weights = Weights::seeded(&workload.graph, 2);
        std::fs::write(&file, encode_onnx(&workload.graph, &weights).unwrap()).unwrap();
        let shape = workload.graph.input_shape().unwrap();
        let image = seeded_input(shape, 3);
        let theirs = arm.evaluate(&file, &image, shape).unwrap();
        let ours = here.evaluate(&file, &image, shape).unwrap();
        let scale = ours.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        assert_eq!(theirs.len(), ours.len());
        for (theirs, ours) in theirs.iter().zip(&ours) {
            assert!((theirs - ours).abs() <= 1e-5 * scale, "{}: {theirs} and {ours}", workload.label);
        }
    }
}

#[test]
fn an_agent_or_a_library_for_another_processor_is_refused_before_it_is_pushed() {
    let Some(settings) = emulated() else { return };
    for (launch, option) in [(Vec::new(), "--agent"), (settings.launch.clone(), "--library")] {
        // Without the emulator the agent is wrong for this machine; with it the library of this machine is.
        let library = if launch.is_empty() { settings.library.clone() } else { None };
        let (folder, result) = start(RemoteSettings { launch, library, ..settings.clone() });
        let error = result.unwrap_err();
        assert!(matches!(error, RunnerError::Architecture { .. }), "{error}");
        assert!(error.to_string().contains(option), "{error}");
        let agents = std::fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().join("lathe-agent").is_file());
        assert_eq!(agents.count(), 0, "{option}");
    }
}
