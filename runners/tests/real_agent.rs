//! The real agent with the real ONNX Runtime. `cargo xtask test` builds the one and fetches the other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    fs,
    io::{Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lathe_latency_db::{Measurement, Outcome, Protocol, Provenance, QualityFlag};
use lathe_runners::{
    AgentSettings, Answer, EngineChoice, Job, LocalRunner, LocalSettings, MeasureRequest, OutputSums,
    PROTOCOL_VERSION, Runner, RunnerError, noise,
};
use lathe_spaces::{
    DartsSkeleton, Graph, GraphBuilder, Level, Nas201Skeleton, NetworkOptions, OpSpec, Precision, Shape,
    Space, Stem, Stream, Weights, Workload, encode_onnx, evaluate, seeded_input,
};

const RULES: Protocol = Protocol {
    min_runs: 6,
    min_seconds: 0.02,
    processes: 2,
    warmup_runs: 3,
    warmup_seconds: 0.01,
    timeout_seconds: 30.0,
    retries: 0,
    cool_down_seconds: 0.0,
};

fn from_environment(name: &str) -> PathBuf {
    let value = std::env::var_os(name).unwrap_or_else(|| {
        panic!("{name} is not set: run `cargo xtask test`, which prepares what these tests need")
    });
    PathBuf::from(value)
}

fn settings() -> LocalSettings {
    LocalSettings {
        agent: Some(from_environment("LATHE_AGENT")),
        library: Some(from_environment("ORT_DYLIB_PATH")),
        ..LocalSettings::new("test")
    }
}

fn conv(out_channels: usize, stride: usize) -> OpSpec {
    OpSpec::Conv2d { out_channels, kernel: 3, stride, padding: 1, dilation: 1, groups: 1, bias: false }
}

fn network() -> Graph {
    let mut builder = GraphBuilder::new();
    let input = builder.input("input", Shape::new(1, 3, 16, 16)).unwrap();
    let conv1 = builder.add("conv1", conv(8, 1), &[input]).unwrap();
    let norm = builder.add("norm", OpSpec::BatchNorm { affine: true }, &[conv1]).unwrap();
    let relu = builder.add("relu", OpSpec::Relu, &[norm]).unwrap();
    let conv2 = builder.add("conv2", conv(8, 1), &[relu]).unwrap();
    let sum = builder.add("sum", OpSpec::Add, &[relu, conv2]).unwrap();
    let pooled = builder.add("pooled", OpSpec::GlobalAvgPool, &[sum]).unwrap();
    let classifier =
        builder.add("classifier", OpSpec::Linear { out_features: 10, bias: true }, &[pooled]).unwrap();
    builder.finish(&[classifier]).unwrap()
}

fn relu() -> Graph {
    let mut builder = GraphBuilder::new();
    let input = builder.input("input", Shape::new(1, 4, 8, 8)).unwrap();
    let output = builder.add("relu", OpSpec::Relu, &[input]).unwrap();
    builder.finish(&[output]).unwrap()
}

fn run(runner: &mut LocalRunner, workloads: &[Workload]) -> Vec<Measurement> {
    let job = Job::new("test", RULES, 3);
    let mut rows = Vec::new();
    runner
        .run(workloads, &job, &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

#[test]
fn an_operator_and_a_network_are_timed_with_all_their_samples() {
    let mut runner = LocalRunner::start(settings()).unwrap();
    let device = runner.device().clone();
    assert_eq!((device.name.as_str(), device.threads, device.pinned_cpus.len()), ("test", 1, 1));
    assert!(device.cores > 0 && device.memory_kb > 0, "{device:?}");
    assert_eq!(device.engine.name, "onnxruntime");
    assert!(device.engine.version.split('.').all(|part| part.parse::<u32>().is_ok()), "{:?}", device.engine);
    assert_eq!(device.engine.library_sha256.len(), 64);
    assert_eq!(runner.provenance(), Provenance::Measured);

    let workloads =
        [Workload::new("relu", Level::Operator, relu()), Workload::new("network", Level::Network, network())];
    let mut rows = run(&mut runner, &workloads);
    rows.sort_by(|a, b| b.label.cmp(&a.label));
    assert_eq!(rows.len(), 2);
    for (row, workload) in rows.iter().zip(&workloads) {
        assert_eq!((row.outcome, &row.error), (Outcome::Ok, &None));
        assert_eq!((&row.workload, &row.label), (&workload.id(), &workload.label));
        assert_eq!(row.samples_per_process.len(), 2);
        assert!(row.samples_per_process.iter().all(|&count| count >= 3));
        assert_eq!(row.samples_per_process.iter().sum::<usize>(), row.samples_ns.len());
        assert!(row.samples_ns.iter().all(|&sample| sample > 0));
        assert!(row.warmup_runs >= 20 && row.load_ns > 0 && row.first_run_ns > 0 && row.peak_rss_kb > 1000);
        assert!(row.output_error.unwrap() < 1e-3);
        assert!(row.before.at < row.after.at);
        assert!(row.before.load_average.is_some());
        assert!(!row.flags.contains(&QualityFlag::NotPinned));
        assert!(row.summary().is_some() && row.usable());
        assert_eq!((row.device.fingerprint(), row.campaign.as_str()), (device.fingerprint(), "test"));
    }
    // A ReLU on 256 numbers takes far less than 50 µs on anything that runs these tests.
    assert!(rows[0].batch > 1);
    assert_ne!(rows[0].id, rows[1].id);
    let again = run(&mut runner, &workloads[..1]);
    assert_eq!(again[0].id, rows[0].id, "a retry of the same job has the same name");
}

#[test]
fn integers_are_timed_and_compute_what_the_reference_says() {
    let mut runner = LocalRunner::start(settings()).unwrap();
    let stem = Stem::Cifar;
    let spaces = [
        Space::darts(DartsSkeleton { stem, width: 8, layers: 3, resolution: 16, classes: 10 }),
        Space::nas201(Nas201Skeleton { width: 8, cells: 1, resolution: 16, classes: 10 }),
    ];
    let mut workloads: Vec<Workload> = Vec::new();
    for space in &spaces {
        workloads.extend(space.workloads().unwrap());
        let genotype = space.sample(&mut Stream::new(1, "integers", 0));
        let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
        workloads.push(Workload::new("network", Level::Network, graph));
    }
    let fbnet = Space::fbnet(32, 10);
    workloads.extend(fbnet.workloads().unwrap().into_iter().step_by(20));
    let workloads: Vec<Workload> =
        workloads.into_iter().map(|workload| workload.at(Precision::Int8)).collect();
    let rules = Protocol { min_runs: 2, min_seconds: 0.001, processes: 1, warmup_runs: 1, ..RULES };
    let mut rows = Vec::new();
    runner
        .run(&workloads, &Job::new("integers", rules, 3), &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(rows.len(), workloads.len());
    for row in &rows {
        assert_eq!((row.outcome, &row.error), (Outcome::Ok, &None), "{}", row.label);
        assert_eq!(row.precision, Precision::Int8);
    }
}

#[test]
fn a_model_file_gives_the_numbers_of_the_reference_image_by_image() {
    let mut runner = LocalRunner::start(settings()).unwrap();
    let graph = network();
    let weights = Weights::seeded(&graph, 5);
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("network.onnx");
    fs::write(&model, encode_onnx(&graph, &weights).unwrap()).unwrap();
    let shape = graph.input_shape().unwrap();
    let images: Vec<Vec<f32>> = (0..3).map(|seed| seeded_input(shape, seed)).collect();
    let outputs = runner.evaluate(&model, &images.concat(), shape).unwrap();
    let expected: Vec<f32> =
        images.iter().flat_map(|image| evaluate(&graph, &weights, image).unwrap()).collect();
    assert_eq!(outputs.len(), expected.len());
    for (got, want) in outputs.iter().zip(&expected) {
        assert!((got - want).abs() < 1e-4, "{got} instead of {want}");
    }
    let half = &images[0][..100];
    assert!(matches!(
        runner.evaluate(&model, half, shape),
        Err(RunnerError::Inputs { expected: 768, got: 100 })
    ));
    fs::write(&model, b"not a model").unwrap();
    let error = runner.evaluate(&model, &images[0], shape).unwrap_err().to_string();
    assert!(error.starts_with("evaluate a model with the device agent: load the model:"), "{error}");
}

/// Sends one request to the agent and returns its answer.
fn ask(mode: &str, request: &MeasureRequest) -> Answer {
    let mut child = Command::new(from_environment("LATHE_AGENT"))
        .arg(mode)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}", serde_json::to_string(request).unwrap()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn request(model: &Path, expected: OutputSums) -> MeasureRequest {
    MeasureRequest {
        settings: AgentSettings {
            version: PROTOCOL_VERSION,
            engine: EngineChoice::default(),
            provider_library: None,
            library: from_environment("ORT_DYLIB_PATH"),
            cpus: Vec::new(),
            threads: 1,
            state_root: "/".into(),
            memory_kb: None,
        },
        label: "network".into(),
        model: model.to_owned(),
        shape: Shape::new(1, 3, 16, 16),
        input_seed: 1,
        expected,
        tolerance: 1e-3,
        protocol: RULES,
        inspect: false,
    }
}

#[test]
fn a_wrong_output_an_unreadable_model_and_a_missing_library_are_told_apart() {
    let graph = network();
    let weights = Weights::seeded(&graph, 1);
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("network.onnx");
    fs::write(&model, encode_onnx(&graph, &weights).unwrap()).unwrap();
    let output = evaluate(&graph, &weights, &seeded_input(Shape::new(1, 3, 16, 16), 1)).unwrap();
    let right = OutputSums::of(&output).unwrap();

    let Answer::Measured(answer) = ask("measure", &request(&model, right)) else { panic!("not measured") };
    assert_eq!((answer.outcome, answer.message), (Outcome::Ok, None));

    let wrong = OutputSums { sum: right.sum + 0.01 * right.absolute, ..right };
    let Answer::Measured(answer) = ask("measure", &request(&model, wrong)) else { panic!("not measured") };
    assert_eq!(answer.outcome, Outcome::WrongOutput);
    let error = answer.output_error.unwrap();
    assert!(error > 0.005 && error < 0.02, "{error}");
    assert!(answer.message.unwrap().contains("expected"));

    let garbage = folder.path().join("garbage.onnx");
    fs::write(&garbage, b"\x08garbage that is no protobuf").unwrap();
    let Answer::Failed { outcome, message } = ask("measure", &request(&garbage, right)) else {
        panic!("ran garbage")
    };
    assert_eq!(outcome, Outcome::Unsupported, "{message}");
    assert!(message.starts_with("load the model:"), "{message}");

    let mut lacking = request(&model, right);
    lacking.settings.library = folder.path().join("libonnxruntime.so");
    let Answer::Failed { message, .. } = ask("measure", &lacking) else { panic!("ran without a library") };
    assert!(message.contains("libonnxruntime.so is not a file"), "{message}");

    let mut newer = request(&model, right);
    newer.settings.version = PROTOCOL_VERSION + 1;
    let Answer::Failed { message, .. } = ask("measure", &newer) else { panic!("spoke an unknown version") };
    assert!(message.contains("protocol version"), "{message}");
}

#[test]
fn a_library_that_is_none_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libonnxruntime.so");
    fs::write(&library, b"no library").unwrap();
    let error =
        LocalRunner::start(LocalSettings { library: Some(library), ..settings() }).unwrap_err().to_string();
    assert!(error.starts_with("probe the device with the device agent: load ONNX Runtime:"), "{error}");
}

#[test]
fn a_core_that_can_not_be_had_stops_the_start() {
    let error = LocalRunner::start(LocalSettings { cpus: Some(vec![1000]), ..settings() }).unwrap_err();
    assert!(matches!(error, RunnerError::Pin { ref wanted, .. } if *wanted == [1000]), "{error}");
}

#[test]
fn facts_and_states_come_from_the_given_tree() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("proc/cpuinfo", "processor : 0\nmodel name : Fake Processor\n");
    write("proc/loadavg", "9.50 1.0 1.0 1/1 1\n");
    write("sys/class/thermal/thermal_zone0/temp", "51000\n");
    let mut runner =
        LocalRunner::start(LocalSettings { state_root: folder.path().to_owned(), ..settings() }).unwrap();
    assert_eq!((runner.device().model.as_str(), runner.device().cores), ("Fake Processor", 1));
    let rows = run(&mut runner, &[Workload::new("relu", Level::Operator, relu())]);
    assert_eq!(rows[0].before.load_average, Some(9.5));
    assert_eq!(rows[0].after.temperature_millicelsius.values().collect::<Vec<_>>(), [&51_000]);
    assert!(rows[0].flags.contains(&QualityFlag::BusyMachine), "{:?}", rows[0].flags);
}

#[test]
fn a_warm_device_is_waited_for_and_cores_come_from_the_named_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let zone = "sys/class/thermal/thermal_zone0/temp";
    write("proc/cpuinfo", "processor : 0\nmodel name : Fake\n\nprocessor : 1\n");
    write("sys/devices/system/cpu/cpu0/cpu_capacity", "1024\n");
    write("sys/devices/system/cpu/cpu1/cpu_capacity", "250\n");
    write(zone, "40000");
    let big = LocalSettings { state_root: root.clone(), cluster: Some("big".to_owned()), ..settings() };
    let mut runner = LocalRunner::start(big.clone()).unwrap();
    let device = runner.device();
    assert_eq!((device.pinned_cpus.as_slice(), device.cluster.as_deref()), (&[0][..], Some("big")));
    let error = LocalRunner::start(LocalSettings { cluster: Some("prime".to_owned()), ..big }).unwrap_err();
    assert!(error.to_string().contains("little (cores [1]), big (cores [0])"), "{error}");

    let workloads = [Workload::new("relu", Level::Operator, relu())];
    write(zone, "55000");
    let job = |seconds| Job::new("test", Protocol { processes: 1, cool_down_seconds: seconds, ..RULES }, 3);
    let mut flags = Vec::new();
    let mut time = |runner: &mut LocalRunner, seconds: f64| {
        runner
            .run(&workloads, &job(seconds), &mut |row| {
                flags.push(row.flags.contains(&QualityFlag::NotCool));
                ControlFlow::Continue(())
            })
            .unwrap();
    };
    time(&mut runner, 0.0);
    let cooler = root.join(zone);
    let fan = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        fs::write(cooler, "41000").unwrap();
    });
    time(&mut runner, 60.0);
    fan.join().unwrap();
    assert_eq!(flags, [true, false]);
}

#[test]
fn the_noise_test_pairs_a_workload_with_itself() {
    let mut runner = LocalRunner::start(settings()).unwrap();
    let workload = Workload::new("relu", Level::Operator, relu());
    let rules = Protocol { processes: 1, ..RULES };
    let mut done = Vec::new();
    let result = noise(&mut runner, &workload, &rules, 2, 1, &mut |pairs| {
        done.push(pairs);
        ControlFlow::Continue(())
    });
    let result = result.unwrap().unwrap();
    assert_eq!(done, [1, 2]);
    let broken_off = noise(&mut runner, &workload, &rules, 2, 1, &mut |_| ControlFlow::Break(()));
    assert!(broken_off.unwrap().is_none());
    assert_eq!((result.pairs, result.ratios.len()), (2, 2));
    assert!(result.smallest_difference >= 0.0 && result.drift.is_finite());
    assert!(matches!(
        noise(&mut runner, &workload, &rules, 1, 1, &mut |_| ControlFlow::Continue(())),
        Err(RunnerError::Noise(_))
    ));
}

#[test]
fn an_agent_whose_launcher_is_gone_dies() {
    let mut child = Command::new(from_environment("LATHE_AGENT"))
        .args(["measure", "--watch-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let graph = network();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("network.onnx");
    fs::write(&model, encode_onnx(&graph, &Weights::seeded(&graph, 1)).unwrap()).unwrap();
    let mut long = request(&model, OutputSums { sum: 0.0, absolute: 1.0, projected: 0.0, elements: 10 });
    long.protocol.min_seconds = 600.0;
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}", serde_json::to_string(&long).unwrap()).unwrap();
    drop(stdin);
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(output, "");
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_wrong_use_of_the_agent_is_explained() {
    let agent = from_environment("LATHE_AGENT");
    let run = |words: &[&str]| Command::new(&agent).args(words).stdin(Stdio::null()).output().unwrap();
    assert!(String::from_utf8(run(&["--help"]).stdout).unwrap().contains("Usage: lathe-agent <MODE>"));
    assert!(String::from_utf8(run(&["--version"]).stdout).unwrap().starts_with("lathe-agent "));
    for words in [&["dance"][..], &[], &["measure"]] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        assert!(String::from_utf8(output.stderr).unwrap().contains("hint: see lathe-agent --help"));
    }
}
