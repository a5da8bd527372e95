//! The static agent, whose engine is tract: this machine's, and 64-bit ARM's under QEMU without any file
//! of an ARM system. `cargo xtask static-peer` builds both; it takes too long for every test run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{ops::ControlFlow, path::PathBuf};

use lathe_latency_db::{Measurement, Outcome, Protocol, Provenance};
use lathe_runners::{
    EngineChoice, EngineName, Job, LocalRunner, LocalSettings, LocalTransport, RemoteRunner, RemoteSettings,
    Runner, RunnerError,
};
use lathe_spaces::{
    DartsSkeleton, GraphBuilder, Level, NetworkOptions, OpSpec, Precision, Shape, Space, Stem, Stream,
    Weights, Workload, encode_onnx, seeded_input,
};

const RULES: Protocol = Protocol {
    min_runs: 3,
    min_seconds: 0.0,
    processes: 2,
    warmup_runs: 1,
    warmup_seconds: 0.0,
    timeout_seconds: 300.0,
    retries: 0,
    cool_down_seconds: 0.0,
};

fn agent(variable: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: {variable} is not set (cargo xtask static-peer)");
    }
    found
}

fn tract() -> EngineChoice {
    EngineChoice::new(EngineName::Tract)
}

fn here() -> Option<LocalSettings> {
    let agent = agent("LATHE_AGENT_STATIC")?;
    Some(LocalSettings { agent: Some(agent), engine: tract(), ..LocalSettings::new("static") })
}

fn operator(label: &str, op: OpSpec) -> Workload {
    let mut builder = GraphBuilder::new();
    let input = builder.input("input", Shape::new(1, 8, 12, 12)).unwrap();
    let output = builder.add("op", op, &[input]).unwrap();
    Workload::new(label, Level::Operator, builder.finish(&[output]).unwrap())
}

/// Operators, and a network of each of two spaces.
fn workloads() -> Vec<Workload> {
    let skeleton = DartsSkeleton { stem: Stem::Cifar, width: 4, layers: 3, resolution: 16, classes: 10 };
    let darts = Space::darts(skeleton);
    let fbnet = Space::fbnet(32, 10);
    let published = darts.published().swap_remove(0).1;
    let random = fbnet.sample(&mut Stream::new(1, "static", 0));
    let network = |label: &str, space: &Space, genotype| {
        let graph = space.network(genotype, NetworkOptions::default()).unwrap();
        Workload::new(label, Level::Network, graph)
    };
    vec![
        operator("max pool", OpSpec::MaxPool { kernel: 3, stride: 1, padding: 1 }),
        operator(
            "average pool",
            OpSpec::AvgPool { kernel: 3, stride: 2, padding: 1, count_include_pad: false },
        ),
        operator("depthwise, dilated", OpSpec::depthwise(8, 5, 2, 2)),
        network("darts", &darts, &published),
        network("fbnet", &fbnet, &random),
    ]
}

fn run(runner: &mut dyn Runner, workloads: &[Workload]) -> Vec<Measurement> {
    let mut rows = Vec::new();
    runner
        .run(workloads, &Job::new("test", RULES, 1), &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

fn assert_measured(rows: &[Measurement], provenance: Provenance) {
    assert_eq!(rows.len(), workloads().len());
    for row in rows {
        assert_eq!((row.outcome, &row.error), (Outcome::Ok, &None), "{}", row.label);
        assert_eq!((row.provenance, row.samples_per_process.len()), (provenance, 2), "{}", row.label);
        let execution = row.execution.as_ref().unwrap();
        assert_eq!(execution.precision.as_deref(), Some("f32"));
        assert!(execution.nodes["cpu"] > 0, "{execution:?}");
    }
}

/// Number by number, against ONNX Runtime on this machine.
fn assert_equal_numbers(mut evaluate: impl FnMut(&std::path::Path, &[f32], Shape) -> Vec<f32>) {
    let mut reference = LocalRunner::start(LocalSettings::new("reference")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for workload in workloads() {
        let file = folder.path().join("model.onnx");
        let weights = Weights::seeded(&workload.graph, 2);
        std::fs::write(&file, encode_onnx(&workload.graph, &weights).unwrap()).unwrap();
        let shape = workload.graph.input_shape().unwrap();
        let image = seeded_input(shape, 3);
        let theirs = evaluate(&file, &image, shape);
        let ours = reference.evaluate(&file, &image, shape).unwrap();
        let scale = ours.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        assert_eq!(theirs.len(), ours.len(), "{}", workload.label);
        for (theirs, ours) in theirs.iter().zip(&ours) {
            assert!((theirs - ours).abs() <= 1e-5 * scale, "{}: {theirs} and {ours}", workload.label);
        }
    }
}

#[test]
fn it_measures_here_without_any_library_and_computes_what_onnxruntime_does() {
    let Some(settings) = here() else { return };
    let program = std::fs::read(settings.agent.as_ref().unwrap()).unwrap();
    let interpreter = b"/ld-linux";
    assert!(!program.windows(interpreter.len()).any(|words| words == interpreter), "it is not static");
    let mut runner = LocalRunner::start(settings).unwrap();
    let engine = runner.device().engine.clone();
    assert_eq!((engine.name.as_str(), engine.provider.as_str()), ("tract", "cpu"));
    assert!(engine.version.contains('.') && engine.library_sha256.len() == 64, "{engine:?}");
    assert_measured(&run(&mut runner, &workloads()), Provenance::Measured);
    assert_equal_numbers(|file, image, shape| runner.evaluate(file, image, shape).unwrap());
}

#[test]
fn the_one_for_arm_runs_where_there_is_no_arm_system_and_is_pushed_once() {
    let Some(agent) = agent("LATHE_AGENT_STATIC_AARCH64") else { return };
    let folder = tempfile::tempdir().unwrap();
    let settings = RemoteSettings {
        agent: Some(agent),
        engine: tract(),
        launch: vec!["qemu-aarch64-static".into()],
        directory: Some(folder.path().display().to_string()),
        ..RemoteSettings::new("arm")
    };
    let mut runner = RemoteRunner::start(settings, Box::new(LocalTransport)).unwrap();
    assert_eq!(runner.device().architecture, "aarch64");
    let large = |entry: std::io::Result<std::fs::DirEntry>| {
        let files = std::fs::read_dir(entry.unwrap().path()).into_iter().flatten();
        files.filter(|file| file.as_ref().unwrap().metadata().unwrap().len() > 1_000_000).count()
    };
    let pushed: usize = std::fs::read_dir(folder.path()).unwrap().map(large).sum();
    assert_eq!(pushed, 1, "agent and engine are one file");
    assert_measured(&run(&mut runner, &workloads()), Provenance::Emulated);
    assert_equal_numbers(|file, image, shape| runner.evaluate(file, image, shape).unwrap());
}

#[test]
fn what_it_can_not_do_is_said() {
    let Some(settings) = here() else { return };
    let start = |settings| LocalRunner::start(settings).unwrap_err().to_string();
    let threads = start(LocalSettings { threads: 2, cpus: Some(vec![0, 1]), ..settings.clone() });
    assert!(threads.contains("one thread"), "{threads}");
    let library = LocalSettings { library: Some("/some/library.so".into()), ..settings.clone() };
    let error = LocalRunner::start(library).unwrap_err();
    assert!(matches!(error, RunnerError::LibraryInside { .. }), "{error}");
    let other = start(LocalSettings { engine: EngineChoice::default(), ..settings.clone() });
    assert!(other.contains("--engine tract"), "{other}");

    // Integers: either tract computes them or it says which node it doesn't know; never a wrong row.
    let mut runner = LocalRunner::start(settings).unwrap();
    let int8 = operator("conv", OpSpec::conv(8, 3, 1)).at(Precision::Int8);
    let rows = run(&mut runner, &[int8]);
    match rows[0].outcome {
        Outcome::Ok => assert_eq!(rows[0].error, None),
        outcome => assert!(outcome == Outcome::Unsupported && rows[0].error.is_some(), "{:?}", rows[0].error),
    }
}
