//! The Ethos-U runner: with Arm's compiler, named by `LATHE_VELA`, and with programs that pretend to be it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use lathe_latency_db::{Measurement, Outcome, Protocol, Provenance};
use lathe_runners::{Accelerator, EthosURunner, EthosUSettings, Job, Runner, RunnerError};
use lathe_spaces::{
    DartsSkeleton, GraphBuilder, Level, NetworkOptions, OpSpec, Precision, Shape, Space, Stem, Workload,
};

const RULES: Protocol = Protocol { timeout_seconds: 60.0, ..Protocol::SCREENING };

/// The real compiler; where it is absent, the test says so. `cargo xtask test` installs it.
fn vela() -> Option<PathBuf> {
    let path = std::env::var_os("LATHE_VELA").map(PathBuf::from);
    if path.is_none() {
        assert!(std::env::var_os("CI").is_none(), "LATHE_VELA is not set: run `cargo xtask test`");
        eprintln!("skipped: LATHE_VELA is not set (run `cargo xtask npu-tools`)");
    }
    path
}

fn settings(vela: PathBuf, accelerator: &str) -> EthosUSettings {
    EthosUSettings { vela: Some(vela), ..EthosUSettings::new("npu", accelerator.parse().unwrap()) }
}

fn darts() -> Space {
    Space::darts(DartsSkeleton { stem: Stem::Cifar, width: 8, layers: 3, resolution: 16, classes: 10 })
}

fn workloads() -> Vec<Workload> {
    let space = darts();
    let graph = space.network(&space.published()[0].1, NetworkOptions::default()).unwrap();
    let network = Workload::new("network", Level::Network, graph);
    let parts = space.workloads().unwrap().into_iter().step_by(15);
    parts.chain([network]).map(|workload| workload.at(Precision::Int8)).collect()
}

fn relu() -> Workload {
    let mut builder = GraphBuilder::new();
    let input = builder.input("input", Shape::new(1, 4, 8, 8)).unwrap();
    let output = builder.add("relu", OpSpec::Relu, &[input]).unwrap();
    Workload::new("relu", Level::Operator, builder.finish(&[output]).unwrap()).at(Precision::Int8)
}

fn run(runner: &mut EthosURunner, workloads: &[Workload], rules: Protocol) -> Vec<Measurement> {
    let mut rows = Vec::new();
    let job = Job::new("test", rules, 1);
    runner
        .run(workloads, &job, &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

#[test]
fn the_compiler_estimates_operators_and_networks_the_same_each_time() {
    let Some(vela) = vela() else { return };
    let workloads = workloads();
    let mut fingerprints = Vec::new();
    let mut latencies = Vec::new();
    for accelerator in ["u55-128", "u65-512", "u85-1024"] {
        let mut runner = EthosURunner::start(settings(vela.clone(), accelerator)).unwrap();
        assert_eq!(runner.provenance(), Provenance::CompilerEstimate);
        assert!(runner.device().max_khz.unwrap() >= 100_000, "{:?}", runner.device());
        let rows = run(&mut runner, &workloads, RULES);
        let labels = |rows: &[Measurement]| rows.iter().map(|row| row.label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(&rows), workloads.iter().map(|w| w.label.clone()).collect::<Vec<_>>());
        for row in &rows {
            assert_eq!((row.outcome, &row.error), (Outcome::Ok, &None), "{}", row.label);
            assert_eq!((row.samples_ns.len(), row.provenance), (1, Provenance::CompilerEstimate));
            assert!(row.samples_ns[0] > 0 && row.flags.is_empty() && row.peak_rss_kb > 0, "{row:?}");
        }
        let samples = |rows: &[Measurement]| rows.iter().map(|row| row.samples_ns[0]).collect::<Vec<_>>();
        if fingerprints.is_empty() {
            assert_eq!(samples(&rows), samples(&run(&mut runner, &workloads, RULES)));
        }
        fingerprints.push(runner.device().fingerprint());
        latencies.push(*samples(&rows).last().unwrap());
    }
    fingerprints.sort();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 3);
    assert!(latencies[0] > latencies[1], "a U55 is slower than a U65: {latencies:?}");
}

#[test]
fn layers_add_up_to_the_network() {
    let Some(vela) = vela() else { return };
    let runner = EthosURunner::start(settings(vela, "u55-128")).unwrap();
    let workload = workloads().pop().unwrap();
    let estimate = runner.estimate(&workload, None, Duration::from_mins(1)).unwrap().unwrap();
    let sum: u64 = estimate.layers.iter().map(|layer| layer.cycles).sum();
    let ratio = sum as f64 / estimate.cycles as f64;
    assert!((0.99..1.01).contains(&ratio), "{ratio}");
    assert!(estimate.macs >= workload.graph.macs());
    assert!(estimate.layers.iter().all(|layer| (0.0..=1.0).contains(&layer.utilization)));
    let use_of_all = estimate.utilization(runner.accelerator().macs_per_cycle());
    assert!((0.0..1.0).contains(&use_of_all), "{use_of_all}");
}

#[test]
fn single_precision_is_refused_with_a_hint() {
    let Some(vela) = vela() else { return };
    let mut runner = EthosURunner::start(settings(vela, "u55-128")).unwrap();
    let job = Job::new("test", RULES, 1);
    let error = runner
        .run(&[relu().at(Precision::Fp32)], &job, &mut |_| ControlFlow::Continue(()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("precision = \"int8\""), "{error}");
}

#[test]
fn other_clocks_are_another_device() {
    let Some(vela) = vela() else { return };
    let usual = EthosURunner::start(settings(vela.clone(), "u55-128")).unwrap();
    let slower = EthosUSettings {
        config: Some("Arm/vela.ini".into()),
        system_config: Some("Ethos_U55_Deep_Embedded".into()),
        memory_mode: Some("Shared_Sram".into()),
        ..settings(vela.clone(), "u55-128")
    };
    // The compiler's own file is named by a path inside its package, which is no file of ours.
    assert!(matches!(EthosURunner::start(slower.clone()), Err(RunnerError::File { .. })));
    let slower = EthosURunner::start(EthosUSettings { config: None, ..slower }).unwrap();
    assert_ne!(usual.device().fingerprint(), slower.device().fingerprint());
    assert!(slower.device().max_khz < usual.device().max_khz);
    let unknown =
        EthosUSettings { system_config: Some("No_Such_System".into()), ..settings(vela, "u55-128") };
    let error = EthosURunner::start(unknown).unwrap_err().to_string();
    assert!(error.contains("No_Such_System"), "{error}");
}

const SUMMARY: &str = "system_config,memory_mode,core_clock,batch_size,inference_time,sram_memory_used,\
    dram_memory_used,nn_macs,cycles_npu,cycles_total\nS,M,500000000.0,1,0.001,10.0,0.0,5,490000,500000";
const LAYERS: &str =
    "Original Operator,Target,Op Cycles,MAC Count,Util% (MAC),Name\\nRelu,NPU,500000,5,1.0,a";
const MIXED: &str = "Original Operator,Target,Op Cycles,MAC Count,Util% (MAC),Name\\nRelu,NPU,500000,5,1.0,a\\nPad,CPU,0,0,0,the.pad";

/// A program that says its version and compiles the runner's first, small network; what it does with
/// every further one is `then`.
fn pretender(folder: &Path, then: &str) -> PathBuf {
    let path = folder.join("vela");
    let summary = SUMMARY.replace('\n', "\\n");
    let text = format!(
        "#!/bin/sh\n\
         if [ \"$1\" = --version ]; then echo 9.8.7; exit 0; fi\n\
         good() {{ mkdir results; printf '%b' '{summary}' > results/n_summary_S.csv; printf '%b' \"$1\" > results/n_per-layer.csv; }}\n\
         if mkdir '{first}' 2>/dev/null; then good '{LAYERS}'; exit 0; fi\n{then}\n",
        first = folder.join("first").display()
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn whatever_the_compiler_does_is_an_outcome_and_never_a_latency() {
    let cases = [
        (format!("good '{LAYERS}'"), Outcome::Ok, ""),
        (format!("good '{MIXED}'"), Outcome::Unsupported, "the.pad"),
        ("echo 'cannot do Relu' >&2; exit 1".into(), Outcome::Unsupported, "cannot do Relu"),
        ("exit 0".into(), Outcome::Crash, "wrote no summary"),
        ("mkdir results".into(), Outcome::Crash, "expected one summary"),
        (format!("good '{LAYERS}'; rm results/n_per*"), Outcome::Crash, "expected one table of layers"),
        ("good 'Name,Target\\na,NPU'".into(), Outcome::Crash, "no column `Original Operator`"),
        (
            format!("good '{LAYERS}'; sed -i s/0.001/0.0/ results/n_summary*"),
            Outcome::Crash,
            "nothing runs on the NPU",
        ),
        (format!("good '{LAYERS}'; echo x,y >> results/n_summary_S.csv"), Outcome::Crash, "fields"),
        ("kill -9 $$".into(), Outcome::Crash, "signal 9"),
        ("sleep 60 & sleep 60".into(), Outcome::Timeout, "killed"),
        ("head -c 3000000 /dev/zero | tr '\\0' x; exit 3".into(), Outcome::Unsupported, "xxx"),
    ];
    for (then, outcome, words) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut runner = EthosURunner::start(settings(pretender(folder.path(), &then), "u55-128")).unwrap();
        assert_eq!(runner.device().engine.version, "9.8.7");
        let seconds = if outcome == Outcome::Timeout { 0.3 } else { 30.0 };
        let rows = run(&mut runner, &[relu()], Protocol { timeout_seconds: seconds, ..RULES });
        let [row] = &rows[..] else { panic!("{then}: {} rows", rows.len()) };
        let message = row.error.clone().unwrap_or_default();
        assert_eq!(row.outcome, outcome, "{then}: {message}");
        assert!(message.contains(words), "{then}: {message}");
        assert!(message.len() < 2000);
        assert_eq!(row.samples_ns.is_empty(), outcome != Outcome::Ok, "{then}");
    }
}

#[test]
fn operators_on_the_cpu_can_be_accepted_and_make_another_device() {
    let folder = tempfile::tempdir().unwrap();
    let strict = settings(pretender(folder.path(), &format!("good '{MIXED}'")), "u55-128");
    let fingerprint = EthosURunner::start(strict.clone()).unwrap().device().fingerprint();
    let mut runner = EthosURunner::start(EthosUSettings { allow_cpu: true, ..strict }).unwrap();
    assert_ne!(runner.device().fingerprint(), fingerprint);
    let rows = run(&mut runner, &[relu()], RULES);
    assert_eq!((rows[0].outcome, rows[0].samples_ns.as_slice()), (Outcome::Ok, &[1_000_000][..]));
}

#[test]
fn a_sink_that_has_enough_stops_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let mut runner =
        EthosURunner::start(settings(pretender(folder.path(), &format!("good '{LAYERS}'")), "u55-128"))
            .unwrap();
    let mut count = 0;
    let many = vec![relu(); 500];
    runner
        .run(&many, &Job::new("test", RULES, 1), &mut |_| {
            count += 1;
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!(count, 1);
}

#[test]
fn a_missing_compiler_says_how_to_get_it() {
    let absent = settings("/nonexistent/vela".into(), "u55-128");
    let error = EthosURunner::start(absent).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/vela") && error.contains("cargo xtask npu-tools"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("vela");
    fs::write(&other, "#!/bin/sh\necho this is something else\n").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    let error = EthosURunner::start(settings(other, "u55-128")).unwrap_err().to_string();
    assert!(error.contains("does not say its version"), "{error}");
    assert_eq!(Accelerator::all().count(), 11);
}
