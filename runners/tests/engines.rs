//! Engines and execution providers with their real libraries. `cargo xtask test` fetches `OpenVINO`;
//! `cargo xtask engines-peer` fetches the rest too. What isn't there is skipped, and says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    fs,
    io::Write,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lathe_latency_db::{Measurement, Outcome, Protocol, Provenance, QualityFlag};
use lathe_runners::{
    AgentSettings, Answer, EngineChoice, EngineName, ExecutedPrecision, Job, LocalRunner, LocalSettings,
    MeasureRequest, OutputSums, PROTOCOL_VERSION, Runner, RunnerError,
};
use lathe_spaces::{
    Graph, GraphBuilder, Level, OpSpec, Precision, Shape, Weights, Workload, encode_onnx, encode_tflite,
    evaluate, seeded_input,
};

const RULES: Protocol = Protocol {
    min_runs: 6,
    min_seconds: 0.02,
    processes: 2,
    warmup_runs: 3,
    warmup_seconds: 0.01,
    timeout_seconds: 60.0,
    retries: 0,
    cool_down_seconds: 0.0,
};

/// A file or folder that a task of the set-up names. In CI the ones that `cargo xtask test` fetches must
/// be there.
fn peer(variable: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).map(PathBuf::from);
    if found.is_none() {
        assert!(
            !["LATHE_OPENVINO", "LATHE_LITERT"].contains(&variable) || std::env::var_os("CI").is_none(),
            "{variable} is not set: run `cargo xtask test`"
        );
        eprintln!("skipped: {variable} is not set (cargo xtask test, cargo xtask engines-peer)");
    }
    found
}

fn needed(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable);
    PathBuf::from(value.unwrap_or_else(|| panic!("{variable} is not set: run `cargo xtask test`")))
}

fn settings(engine: EngineChoice, library: PathBuf) -> LocalSettings {
    LocalSettings {
        agent: Some(needed("LATHE_AGENT")),
        engine,
        library: Some(library),
        ..LocalSettings::new("test")
    }
}

fn onnxruntime(provider: &str) -> EngineChoice {
    EngineChoice { provider: provider.into(), ..EngineChoice::default() }
}

fn conv(out_channels: usize) -> OpSpec {
    OpSpec::Conv2d { out_channels, kernel: 3, stride: 1, padding: 1, dilation: 1, groups: 1, bias: false }
}

/// Enough work for bfloat16 to show in the output.
fn network() -> Graph {
    let mut builder = GraphBuilder::new();
    let input = builder.input("input", Shape::new(1, 16, 24, 24)).unwrap();
    let conv1 = builder.add("conv1", conv(32), &[input]).unwrap();
    let relu = builder.add("relu", OpSpec::Relu, &[conv1]).unwrap();
    let conv2 = builder.add("conv2", conv(32), &[relu]).unwrap();
    let pooled = builder.add("pooled", OpSpec::GlobalAvgPool, &[conv2]).unwrap();
    let classifier =
        builder.add("classifier", OpSpec::Linear { out_features: 10, bias: true }, &[pooled]).unwrap();
    builder.finish(&[classifier]).unwrap()
}

fn run(runner: &mut LocalRunner) -> Measurement {
    let workload = Workload::new("network", Level::Network, network());
    let mut rows = Vec::new();
    runner
        .run(&[workload], &Job::new("test", RULES, 3), &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })
        .unwrap();
    rows.pop().unwrap()
}

/// Runs [`network`] once; the largest difference from the reference interpreter, relative to the largest
/// number.
fn deviation(runner: &mut LocalRunner) -> f32 {
    let graph = network();
    let weights = Weights::seeded(&graph, 2);
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("network.onnx");
    fs::write(&model, encode_onnx(&graph, &weights).unwrap()).unwrap();
    let shape = graph.input_shape().unwrap();
    let input = seeded_input(shape, 7);
    let expected = evaluate(&graph, &weights, &input).unwrap();
    let output = runner.evaluate(&model, &input, shape).unwrap();
    assert_eq!(output.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    output.iter().zip(&expected).map(|(got, want)| (got - want).abs() / largest).fold(0.0, f32::max)
}

#[test]
fn onnxruntime_says_which_nodes_it_executed_and_in_what() {
    let mut runner = LocalRunner::start(settings(EngineChoice::default(), needed("ORT_DYLIB_PATH"))).unwrap();
    assert!(runner.providers().contains(&"cpu".to_owned()), "{:?}", runner.providers());
    let row = run(&mut runner);
    assert_eq!((row.outcome, &row.error), (Outcome::Ok, &None));
    let execution = row.execution.unwrap();
    assert_eq!(execution.nodes.keys().collect::<Vec<_>>(), ["cpu"]);
    assert!(execution.nodes["cpu"] >= 3, "{execution:?}");
    assert_eq!(execution.precision.as_deref(), Some("f32"));
    assert!(execution.elsewhere.is_empty() && execution.notes[0].contains("Conv 2"), "{execution:?}");
}

#[test]
fn exact_integers_belong_to_the_device_where_the_processor_saturates_sums() {
    let runner = LocalRunner::start(settings(EngineChoice::default(), needed("ORT_DYLIB_PATH"))).unwrap();
    // The kernel's list of the processor's features, which the agent doesn't look at.
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap();
    let has = |flag| flags.split_whitespace().any(|word| word == flag);
    let saturates = cfg!(target_arch = "x86_64") && !has("avx512_vnni") && !has("avx_vnni");
    let expected = if saturates { "cpu, exact integers" } else { "cpu" };
    assert_eq!(runner.device().engine.provider, expected);
}

#[test]
fn a_network_that_is_a_constant_is_measured_like_any_other() {
    let mut builder = GraphBuilder::new();
    let input = builder.input("input", Shape::new(1, 4, 8, 8)).unwrap();
    let zero = builder.add("none", OpSpec::Zero { stride: 1 }, &[input]).unwrap();
    let output = builder.add("pooled", OpSpec::GlobalAvgPool, &[zero]).unwrap();
    let workload = Workload::new("cut off", Level::Network, builder.finish(&[output]).unwrap());
    let mut runner = LocalRunner::start(settings(EngineChoice::default(), needed("ORT_DYLIB_PATH"))).unwrap();
    let mut rows = Vec::new();
    runner
        .run(&[workload], &Job::new("test", RULES, 3), &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((rows[0].outcome, &rows[0].error), (Outcome::Ok, &None));
    let execution = rows[0].execution.as_ref().unwrap();
    assert!(execution.nodes.is_empty() && execution.notes[0].contains("constant"), "{execution:?}");
}

#[test]
fn openvino_computes_in_what_it_was_asked_for() {
    let Some(library) = peer("LATHE_OPENVINO") else { return };
    let choice = EngineChoice::new(EngineName::Openvino);
    let mut runner = LocalRunner::start(settings(choice.clone(), library.clone())).unwrap();
    let engine = runner.device().engine.clone();
    assert_eq!((engine.name.as_str(), engine.provider.as_str()), ("openvino", "cpu"));
    assert!(engine.version.starts_with("20") && engine.library_sha256.len() == 64, "{engine:?}");
    let fingerprint = runner.device().fingerprint();
    let row = run(&mut runner);
    assert_eq!((row.outcome, &row.error), (Outcome::Ok, &None));
    assert_eq!(row.samples_per_process.len(), 2);
    let execution = row.execution.unwrap();
    assert_eq!(execution.precision.as_deref(), Some("f32"));
    assert_eq!(execution.notes, ["devices cpu, threads 1"]);
    assert!(deviation(&mut runner) < 1e-5);

    let choice = EngineChoice { precision: ExecutedPrecision::Bf16, ..choice };
    let mut runner = LocalRunner::start(settings(choice, library)).unwrap();
    assert_ne!(runner.device().fingerprint(), fingerprint, "bf16 is another device to compare with");
    let row = run(&mut runner);
    // What is read back is what was compiled: a processor without bfloat16 says f32, and computes in it.
    let coarse = deviation(&mut runner) > 1e-5;
    match row.execution.as_ref().and_then(|execution| execution.precision.as_deref()) {
        Some("bf16") => assert!(coarse && row.outcome == Outcome::Ok, "{:?}", row.error),
        Some("f32") => assert!(!coarse),
        other => panic!("{other:?} instead of bf16 or f32"),
    }
}

#[test]
fn a_device_that_openvino_lacks_and_a_library_of_another_engine_are_named() {
    let message = |engine: EngineChoice, library: PathBuf| {
        LocalRunner::start(settings(engine, library)).unwrap_err().to_string()
    };
    let openvino = EngineChoice::new(EngineName::Openvino);
    let text = message(openvino.clone(), needed("ORT_DYLIB_PATH"));
    assert!(text.contains("it is ONNX Runtime's (hint: --engine onnxruntime)"), "{text}");
    let text = message(onnxruntime("nnapi"), needed("ORT_DYLIB_PATH"));
    assert!(text.contains("was built without `nnapi`; it has cpu"), "{text}");
    let text = message(onnxruntime("cuda"), needed("ORT_DYLIB_PATH"));
    assert!(text.contains("expected one of cpu, xnnpack"), "{text}");
    let Some(library) = peer("LATHE_OPENVINO") else { return };
    let text = message(EngineChoice { provider: "npu".into(), ..openvino }, library.clone());
    assert!(text.contains("there is no `npu` here; it has cpu"), "{text}");
    let file = fs::read_dir(&library)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("libopenvino_c.so"))
        .unwrap();
    let text = message(EngineChoice::default(), file);
    assert!(text.contains("it is OpenVINO's (hint: --engine openvino)"), "{text}");
}

#[test]
fn a_model_that_openvino_can_not_read_is_unsupported() {
    let Some(library) = peer("LATHE_OPENVINO") else { return };
    let mut runner = LocalRunner::start(settings(EngineChoice::new(EngineName::Openvino), library)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("unknown.onnx");
    fs::write(&model, with_unknown_operator()).unwrap();
    let shape = network().input_shape().unwrap();
    let error = runner.evaluate(&model, &seeded_input(shape, 1), shape).unwrap_err().to_string();
    assert!(error.contains("load the model:") && error.contains("Rely"), "{error}");
    let error = runner.check(&model).unwrap_err().to_string();
    assert!(error.contains("onnxruntime tells node by node"), "{error}");
}

/// [`network`] with an operator that no engine knows: the same number of letters, so that the file stays
/// well-formed.
fn with_unknown_operator() -> Vec<u8> {
    let graph = network();
    let mut bytes = encode_onnx(&graph, &Weights::seeded(&graph, 2)).unwrap();
    let at = bytes.windows(4).position(|window| window == b"Relu").unwrap();
    bytes[at..at + 4].copy_from_slice(b"Rely");
    bytes
}

#[test]
fn every_node_of_a_network_runs_on_the_provider_that_was_asked_for() {
    let Some(library) = peer("LATHE_ORT_OPENVINO") else { return };
    let mut runner = LocalRunner::start(settings(onnxruntime("openvino"), library)).unwrap();
    assert_eq!(runner.providers(), ["cpu", "openvino"]);
    assert_eq!(runner.device().engine.provider, "openvino");
    let row = run(&mut runner);
    assert_eq!((row.outcome, &row.error), (Outcome::Ok, &None));
    let execution = row.execution.unwrap();
    assert_eq!(execution.nodes.keys().collect::<Vec<_>>(), ["openvino"], "{execution:?}");
    assert_eq!(execution.precision, None, "what it computes in isn't seen from outside");
    assert!(!row.flags.contains(&QualityFlag::Fallback));
    assert!(deviation(&mut runner) < 1e-4);
}

/// One field of a protobuf message that has a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(length < 128);
    [&[number << 3 | 2, length], content].concat()
}

/// An ONNX file of two nodes, of which the second, a determinant, is one that accelerators don't have.
fn determinant() -> Vec<u8> {
    let node = |from: &str, to: &str, name: &str, operator: &str| {
        let parts = [(1, from), (2, to), (3, name), (4, operator)];
        field(1, &parts.map(|(number, text)| field(number, text.as_bytes())).concat())
    };
    let value = |number: u8, name: &str, extents: &[u8]| {
        let dimensions: Vec<u8> = extents.iter().flat_map(|&extent| field(1, &[1 << 3, extent])).collect();
        let tensor = [vec![1 << 3, 1], field(2, &dimensions)].concat();
        field(number, &[field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat())
    };
    let graph = [
        node("x", "a", "relu", "Relu"),
        node("a", "y", "det", "Det"),
        field(2, b"g"),
        value(11, "x", &[1, 2, 4, 4]),
        value(12, "y", &[1, 2]),
    ]
    .concat();
    // Version 8 of the format, version 17 of its operators.
    [vec![1 << 3, 8], field(7, &graph), field(8, &[2 << 3, 17])].concat()
}

fn measure(settings: &LocalSettings, model: &Path, expected: OutputSums) -> Answer {
    let request = MeasureRequest {
        settings: AgentSettings {
            version: PROTOCOL_VERSION,
            engine: settings.engine.clone(),
            library: library_in(settings.library.as_ref().unwrap()),
            provider_library: None,
            cpus: Vec::new(),
            threads: 1,
            state_root: "/".into(),
            memory_kb: None,
        },
        label: "determinant".into(),
        model: model.to_owned(),
        shape: Shape::new(1, 2, 4, 4),
        input_seed: 1,
        expected,
        tolerance: 1e-3,
        protocol: RULES,
        inspect: true,
    };
    let mut child = Command::new(settings.agent.as_ref().unwrap())
        .arg("measure")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}", serde_json::to_string(&request).unwrap()).unwrap();
    drop(stdin);
    serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
}

fn library_in(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.to_string_lossy().contains("libonnxruntime.so")).max().unwrap()
}

#[test]
fn a_node_that_falls_back_is_named_and_only_measured_if_that_is_allowed() {
    let Some(library) = peer("LATHE_ORT_OPENVINO") else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("determinant.onnx");
    fs::write(&model, determinant()).unwrap();
    let shape = Shape::new(1, 2, 4, 4);
    let cpu = settings(EngineChoice::default(), needed("ORT_DYLIB_PATH"));
    let mut plain = LocalRunner::start(cpu).unwrap();
    let output = plain.evaluate(&model, &seeded_input(shape, 1), shape).unwrap();
    let expected = OutputSums::of(&output).unwrap();

    let strict = settings(onnxruntime("openvino"), library.clone());
    let Answer::Failed { outcome, message } = measure(&strict, &model, expected) else { panic!("measured") };
    assert_eq!(outcome, Outcome::Unsupported);
    assert!(message.contains("execute the model on openvino:"), "{message}");
    assert!(message.contains("det (Det) on cpu") && message.contains("--allow-fallback"), "{message}");

    let lenient = EngineChoice { allow_fallback: true, ..onnxruntime("openvino") };
    let answer = measure(&settings(lenient, library.clone()), &model, expected);
    let Answer::Measured(answer) = answer else { panic!("{answer:?}") };
    assert_eq!((answer.outcome, &answer.message), (Outcome::Ok, &None));
    let execution = answer.execution.unwrap();
    assert!(execution.nodes["cpu"] >= 1, "{execution:?}");
    assert!(execution.elsewhere.contains(&"det (Det) on cpu".to_owned()), "{execution:?}");

    let mut runner = LocalRunner::start(strict).unwrap();
    let placements = runner.check(&model).unwrap();
    let nodes: Vec<&str> = placements.iter().map(|placement| placement.node.as_str()).collect();
    assert_eq!(nodes, ["relu", "det"]);
    assert_eq!(placements[1].provider, "cpu");
}

#[test]
fn hexagon_s_compiler_takes_the_nodes_that_it_knows() {
    let (Some(library), Some(plugin)) = (peer("LATHE_ORT_NEWER"), peer("LATHE_QNN")) else { return };
    let settings = LocalSettings {
        provider_library: Some(plugin.clone()),
        ..settings(onnxruntime("qnn"), library.clone())
    };
    let mut runner = LocalRunner::start(settings.clone()).unwrap();
    assert_eq!(runner.provenance(), Provenance::Emulated);
    assert!(runner.providers().contains(&"qnn".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("network.onnx");
    let graph = network();
    fs::write(&model, encode_onnx(&graph, &Weights::seeded(&graph, 2)).unwrap()).unwrap();
    let placements = runner.check(&model).unwrap();
    fs::write(&model, determinant()).unwrap();
    let providers: Vec<String> =
        runner.check(&model).unwrap().into_iter().map(|placement| placement.provider).collect();
    assert_eq!(providers, ["qnn", "cpu"], "the determinant isn't Hexagon's");
    assert!(placements.len() >= 5, "{placements:?}");
    assert!(placements.iter().all(|placement| placement.provider == "qnn"), "{placements:?}");
    assert!(placements.iter().any(|placement| placement.operator == "Conv"), "{placements:?}");

    // Times of an emulator are none: the reference workload isn't timed, and no row comes of it.
    let workload = Workload::new("network", Level::Network, network());
    let mut rows = 0;
    let error = runner
        .run(&[workload], &Job::new("test", RULES, 3), &mut |_| {
            rows += 1;
            ControlFlow::Continue(())
        })
        .unwrap_err();
    assert!(matches!(error, RunnerError::DeviceLost { outcome: Outcome::Unsupported, .. }), "{error}");
    assert!(error.to_string().contains("lathe device check"), "{error}");
    assert_eq!(rows, 0);

    let missing = LocalSettings { provider_library: Some(folder.path().join("none.so")), ..settings };
    let error = LocalRunner::start(missing).unwrap_err().to_string();
    assert!(error.contains("none.so: it is not a file"), "{error}");
}

#[test]
fn litert_computes_floats_and_integers_and_says_who_took_them() {
    let Some(library) = peer("LATHE_LITERT") else { return };
    let mut runner =
        LocalRunner::start(settings(EngineChoice::new(EngineName::Litert), library.clone())).unwrap();
    let engine = runner.device().engine.clone();
    assert_eq!((engine.name.as_str(), engine.provider.as_str()), ("litert", "cpu"));
    assert!(engine.version.starts_with("2.") && engine.library_sha256.len() == 64, "{engine:?}");

    let workload = Workload::new("network", Level::Network, network());
    let spatial = {
        let mut builder = GraphBuilder::new();
        let input = builder.input("input", Shape::new(2, 5, 7, 9)).unwrap();
        let output = builder.add("conv", conv(6), &[input]).unwrap();
        Workload::new("conv", Level::Operator, builder.finish(&[output]).unwrap())
    };
    let workloads = [
        workload.clone(),
        workload.at(Precision::Int8),
        spatial.clone(),
        spatial.clone().at(Precision::Int8),
    ];
    let mut rows = Vec::new();
    let job = Job::new("test", RULES, 3);
    runner
        .run(&workloads, &job, &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(rows.len(), workloads.len());
    for row in rows {
        assert_eq!((row.outcome, &row.error), (Outcome::Ok, &None), "{}", row.label);
        let execution = row.execution.unwrap();
        let expected = if row.precision == Precision::Int8 { "i8" } else { "f32" };
        assert_eq!(execution.precision.as_deref(), Some(expected));
        assert!(
            execution.nodes["cpu"] > 0 && execution.notes[0].contains("XNNPACK took all"),
            "{execution:?}"
        );
    }

    // Number by number, channels first again, two images.
    let graph = spatial.graph;
    let weights = Weights::seeded(&graph, 2);
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("conv.tflite");
    fs::write(&model, encode_tflite(&graph, &weights).unwrap()).unwrap();
    let shape = graph.input_shape().unwrap();
    let image = seeded_input(shape, 7);
    let expected = evaluate(&graph, &weights, &image).unwrap();
    let output = runner.evaluate(&model, &image, shape).unwrap();
    assert_eq!(output.len(), expected.len());
    assert!(output.iter().zip(&expected).all(|(got, want)| (got - want).abs() < 1e-4), "{output:?}");

    // A file of another format, and one of a library of another engine.
    let other = folder.path().join("conv.onnx");
    fs::write(&other, encode_onnx(&graph, &weights).unwrap()).unwrap();
    let error = runner.evaluate(&other, &image, shape).unwrap_err().to_string();
    assert!(error.contains("no TFLite model"), "{error}");
    let wrong = LocalRunner::start(settings(EngineChoice::new(EngineName::Litert), needed("ORT_DYLIB_PATH")));
    let error = wrong.unwrap_err().to_string();
    assert!(error.contains("--engine onnxruntime"), "{error}");
}

#[test]
fn an_agent_says_which_engine_is_not_in_it() {
    let settings = LocalSettings {
        agent: Some(needed("LATHE_AGENT")),
        engine: EngineChoice::new(EngineName::Tract),
        ..LocalSettings::new("test")
    };
    let error = LocalRunner::start(settings).unwrap_err().to_string();
    assert!(error.contains("tract is not in it") && error.contains("cargo xtask agent --static"), "{error}");
}
