//! Devices without an agent, driven through a stand-in that prints what the stock programs' sources print.
//! The programs themselves have not been run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{fs, ops::ControlFlow, os::unix::fs::PermissionsExt, path::Path};

use lathe_latency_db::{Measurement, Outcome, Protocol, Provenance};
use lathe_runners::{
    AgentlessRunner, AgentlessSettings, BenchmarkProgram, Job, LocalTransport, ProgramFile, Runner,
    RunnerError,
};
use lathe_spaces::{GraphBuilder, Level, OpSpec, Shape, Workload};

const RULES: Protocol = Protocol {
    min_runs: 6,
    min_seconds: 0.0,
    processes: 2,
    warmup_runs: 2,
    warmup_seconds: 0.0,
    timeout_seconds: 3.0,
    retries: 0,
    cool_down_seconds: 0.0,
};

/// `onnxruntime_perf_test`: in the mode `duration` it makes three runs, in the mode `times` as many as it
/// is told. The model must be a file with content.
const PERF_TEST: &str = include_str!("peers/onnxruntime_perf_test.sh");

/// `benchmark_model`, when its options are as they should be.
const BENCHMARK_MODEL: &str = r#"#!/bin/sh
model=${1#--graph=}
[ -s "$model" ] && [ "$2 $3 $5" = '--num_threads=1 --warmup_runs=2 --num_runs=3' ] || exit 3
echo 'INFO: count=2 first=20 curr=12 min=12 max=20 avg=16 std=4'
echo 'INFO: count=7 first=11 curr=9 min=9 max=12 avg=10.5 std=1'
echo 'INFO: Inference timings in us: Init: 400, First inference: 20, Warmup (avg): 16, Inference (avg): 10.5'
"#;

fn relu(channels: usize) -> Workload {
    let mut builder = GraphBuilder::new();
    let input = builder.input("input", Shape::new(1, channels, 4, 4)).unwrap();
    let output = builder.add("relu", OpSpec::Relu, &[input]).unwrap();
    Workload::new(format!("relu {channels}"), Level::Operator, builder.finish(&[output]).unwrap())
}

fn settings(folder: &Path, program: BenchmarkProgram, script: &str) -> AgentlessSettings {
    let file = folder.join("program");
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    AgentlessSettings {
        directory: Some(folder.join("device").display().to_string()),
        ..AgentlessSettings::new("board", program, ProgramFile::Here(file))
    }
}

fn measure(settings: AgentlessSettings, workloads: &[Workload]) -> Vec<Measurement> {
    let mut runner = AgentlessRunner::start(settings, Box::new(LocalTransport)).unwrap();
    let mut rows = Vec::new();
    let mut sink = |row| {
        rows.push(row);
        ControlFlow::Continue(())
    };
    runner.run(workloads, &Job::new("test", RULES, 1), &mut sink).unwrap();
    rows
}

#[test]
fn perf_test_gives_every_run_and_is_asked_again_for_more() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), BenchmarkProgram::OnnxruntimePerfTest, PERF_TEST);
    let rows = measure(settings, &[relu(2), relu(3)]);
    assert_eq!(rows.len(), 2);
    for row in &rows {
        assert_eq!((row.outcome, row.error.as_deref()), (Outcome::Ok, None));
        assert_eq!(row.samples_ns, [3_000_000, 4_000_000, 5_000_000, 3_000_000, 4_000_000, 5_000_000]);
        assert_eq!((row.samples_per_process.as_slice(), row.batch), (&[3, 3][..], 1));
        assert_eq!((row.load_ns, row.first_run_ns, row.peak_rss_kb), (15_300_000, 2_000_000, 2000));
        assert_eq!((row.output_error, row.provenance), (None, Provenance::Measured));
        assert!(row.agent.contains("output not checked"), "{}", row.agent);
        assert_eq!(row.device.engine.name, "onnxruntime_perf_test");
        assert_eq!(row.device.engine.library_sha256.len(), 64);
    }
    let models = fs::read_dir(folder.path().join("device/models")).map_or(0, Iterator::count);
    assert_eq!(models, 0, "no model and no file of runs stays");
}

#[test]
fn benchmark_model_gives_a_mean_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), BenchmarkProgram::BenchmarkModel, BENCHMARK_MODEL);
    let there = AgentlessSettings {
        file: ProgramFile::OnDevice(folder.path().join("program").display().to_string()),
        launch: vec!["env".into(), "A=qemu".into()],
        emulated: true,
        ..settings.clone()
    };
    let pushed = measure(settings, &[relu(2)]).remove(0);
    assert_eq!((pushed.samples_ns.as_slice(), pushed.batch), (&[10_500, 10_500][..], 7));
    assert_eq!((pushed.warmup_runs, pushed.load_ns), (4, 400_000));
    assert!(pushed.agent.contains("mean of 7 runs"), "{}", pushed.agent);
    let found = measure(there, &[relu(2)]).remove(0);
    assert_eq!(found.device.engine, pushed.device.engine, "the same program by another way");
    assert_eq!(found.provenance, Provenance::Emulated);
}

#[test]
fn accidents_are_outcomes_that_quote_the_program() {
    let outcome = |mode: &str| {
        let folder = tempfile::tempdir().unwrap();
        let settings = AgentlessSettings {
            launch: vec!["env".into(), format!("MODE={mode}")],
            ..settings(folder.path(), BenchmarkProgram::OnnxruntimePerfTest, PERF_TEST)
        };
        let row = measure(settings, &[relu(2)]).remove(0);
        assert!(row.samples_ns.is_empty(), "{mode}");
        assert_eq!(row.summary(), None, "{mode}");
        (row.outcome, row.error.unwrap())
    };
    for (mode, expected, words) in [
        ("garbage", Outcome::Crash, "Segmentation imminent"),
        ("killed", Outcome::Crash, "SEGV; it last wrote: last words"),
        ("refused", Outcome::Crash, "exit code 1; it last wrote: Load model failed"),
        ("endless", Outcome::Timeout, "no end after 3.0 s"),
    ] {
        let (got, message) = outcome(mode);
        assert_eq!(got, expected, "{message}");
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn what_cannot_work_is_refused_at_the_start_or_is_unsupported() {
    let folder = tempfile::tempdir().unwrap();
    let good = settings(folder.path(), BenchmarkProgram::OnnxruntimePerfTest, PERF_TEST);
    let error = |settings| AgentlessRunner::start(settings, Box::new(LocalTransport)).unwrap_err();
    let absent = ProgramFile::OnDevice("/nonexistent/program".to_owned());
    let message = error(AgentlessSettings { file: absent, ..good.clone() }).to_string();
    assert!(message.contains("/nonexistent/program can't be read"), "{message}");
    let absent = ProgramFile::Here(folder.path().join("absent"));
    assert!(matches!(error(AgentlessSettings { file: absent, ..good.clone() }), RunnerError::File { .. }));
    let foreign = folder.path().join("foreign");
    let mut header = b"\x7fELF\x02\x01".to_vec();
    header.resize(64, 0);
    header[18] = 243;
    fs::write(&foreign, header).unwrap();
    let foreign = AgentlessSettings { file: ProgramFile::Here(foreign), ..good.clone() };
    let message = error(foreign).to_string();
    assert!(message.contains("built for riscv64") && message.contains("--program"), "{message}");
    let crowded = AgentlessSettings { threads: 2, cpus: vec![1, 1], ..good };
    assert!(matches!(error(crowded), RunnerError::Threads { threads: 2, available: 1 }));
}
