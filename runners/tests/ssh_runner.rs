//! The remote runner over SSH: a real agent, and connections that break at the worst moments.

#![cfg(feature = "ssh")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod peers;

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use lathe_latency_db::{Outcome, Protocol, Provenance};
use lathe_runners::{
    Job, LocalRunner, LocalSettings, RemoteRunner, RemoteSettings, Runner, RunnerError, TransportError,
};
use lathe_spaces::{
    GraphBuilder, Level, OpSpec, Shape, Weights, Workload, encode_onnx, evaluate, seeded_input,
};
use nix::sys::signal::Signal;
use peers::{
    fake::{FakeAgent, assert_whole, processes_with, run, workloads},
    sshd::Sshd,
};

fn from_environment(name: &str) -> PathBuf {
    let value = std::env::var_os(name).unwrap_or_else(|| {
        panic!("{name} is not set: run `cargo xtask test`, which prepares what these tests need")
    });
    PathBuf::from(value)
}

/// Waits until a note of the agent is there.
fn wait_for(path: &std::path::Path, lines: usize) {
    let until = Instant::now() + Duration::from_mins(1);
    while fs::read_to_string(path).unwrap_or_default().lines().count() < lines {
        assert!(Instant::now() < until, "the agent was never launched");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A good agent that takes a second, so that things can happen in the middle.
fn slow() -> FakeAgent {
    FakeAgent::new("echo x >> \"$folder/launches\"; sleep 1; echo \"$answer\"")
}

#[test]
fn the_real_agent_measures_over_ssh_as_it_does_here() {
    let Some(sshd) = Sshd::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let settings = RemoteSettings {
        agent: Some(from_environment("LATHE_AGENT")),
        library: Some(from_environment("ORT_DYLIB_PATH")),
        directory: Some(folder.path().display().to_string()),
        ..RemoteSettings::new("loopback")
    };
    let mut remote = RemoteRunner::start(settings.clone(), Box::new(sshd.transport())).unwrap();
    let mut local = LocalRunner::start(LocalSettings {
        agent: settings.agent.clone(),
        library: settings.library.clone(),
        ..LocalSettings::new("loopback")
    })
    .unwrap();
    // The engine's version is read from the same bytes, the facts by the agent: it is the same device.
    assert_eq!(remote.device(), local.device());
    assert_eq!(remote.provenance(), Provenance::Measured);

    let mut builder = GraphBuilder::new();
    let input = builder.input("input", Shape::new(1, 4, 8, 8)).unwrap();
    let relu = builder.add("relu", OpSpec::Relu, &[input]).unwrap();
    let pooled = builder.add("pooled", OpSpec::GlobalAvgPool, &[relu]).unwrap();
    let output = builder.add("out", OpSpec::Linear { out_features: 3, bias: true }, &[pooled]).unwrap();
    let graph = builder.finish(&[output]).unwrap();
    let workload = Workload::new("small", Level::Network, graph.clone());
    let protocol = Protocol {
        min_runs: 6,
        min_seconds: 0.02,
        processes: 2,
        warmup_runs: 3,
        warmup_seconds: 0.01,
        timeout_seconds: 30.0,
        retries: 0,
        cool_down_seconds: 0.0,
    };
    let mut rows = Vec::new();
    remote
        .run(&[workload], &Job::new("test", protocol, 1), &mut |row| {
            rows.push(row);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let [row] = &rows[..] else { panic!("{} rows", rows.len()) };
    assert_eq!((row.outcome, &row.error), (Outcome::Ok, &None));
    assert!(row.samples_per_process.len() == 2 && row.output_error.unwrap() < 1e-3, "{row:?}");
    assert!(row.before.load_average.is_some(), "the state was read on the device");

    let weights = Weights::seeded(&graph, 5);
    let model = folder.path().join("mine.onnx");
    fs::write(&model, encode_onnx(&graph, &weights).unwrap()).unwrap();
    let shape = graph.input_shape().unwrap();
    let image = seeded_input(shape, 3);
    let there = remote.evaluate(&model, &image, shape).unwrap();
    assert_eq!(there, local.evaluate(&model, &image, shape).unwrap());
    let expected = evaluate(&graph, &weights, &image).unwrap();
    assert!(there.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{there:?} {expected:?}");
    fs::write(&model, b"not a model").unwrap();
    let error = remote.evaluate(&model, &image, shape).unwrap_err().to_string();
    assert!(error.starts_with("evaluate a model with the device agent: load the model:"), "{error}");
}

#[test]
fn a_connection_that_is_cut_mid_run_costs_no_row_and_no_second_launch() {
    let Some(sshd) = Sshd::start() else { return };
    let agent = slow();
    let mut runner = agent.start(sshd.transport());
    let (rows, result) = thread::scope(|scope| {
        let running = scope.spawn(|| run(&mut runner, &workloads(2), 30.0));
        for launch in 1..=4 {
            wait_for(&agent.path("launches"), launch);
            thread::sleep(Duration::from_millis(100));
            assert!(sshd.signal_connections(Signal::SIGKILL) > 0);
        }
        running.join().unwrap()
    });
    result.unwrap();
    assert_whole(&agent, &rows, 2);
}

#[test]
fn a_server_that_is_away_for_a_while_is_waited_for_and_its_finished_job_is_fetched() {
    let Some(mut sshd) = Sshd::start() else { return };
    let agent = slow();
    let mut runner = agent.start(sshd.transport());
    let (rows, result) = thread::scope(|scope| {
        let running = scope.spawn(|| run(&mut runner, &workloads(1), 30.0));
        wait_for(&agent.path("launches"), 1);
        sshd.vanish();
        // Longer than the job takes.
        thread::sleep(Duration::from_secs(3));
        sshd.start_again();
        running.join().unwrap()
    });
    result.unwrap();
    assert_whole(&agent, &rows, 1);
}

#[test]
fn a_device_that_does_not_come_back_is_unreachable_and_the_measured_rows_are_kept() {
    let Some(mut sshd) = Sshd::start() else { return };
    let agent = FakeAgent::new(
        "echo x >> \"$folder/launches\"; [ $(wc -l < \"$folder/launches\") -gt 16 ] && sleep 2; echo \"$answer\"",
    );
    let settings = RemoteSettings { patience: Duration::from_secs(1), ..agent.settings() };
    let mut runner = RemoteRunner::start(settings, Box::new(sshd.transport())).unwrap();
    let (rows, result) = thread::scope(|scope| {
        let running = scope.spawn(|| run(&mut runner, &workloads(9), 30.0));
        wait_for(&agent.path("launches"), 17);
        sshd.vanish();
        running.join().unwrap()
    });
    assert_eq!(rows.len(), 8, "the first group is whole");
    let error = result.unwrap_err();
    assert!(matches!(error, RunnerError::Unreachable { .. }), "{error}");
    assert!(error.device_failure().unwrap().contains("--resume"), "{error}");
}

#[test]
fn a_frozen_connection_is_replaced_and_the_job_is_fetched() {
    let Some(sshd) = Sshd::start() else { return };
    let agent = slow();
    let settings = RemoteSettings { patience: Duration::from_secs(2), ..agent.settings() };
    let mut runner = RemoteRunner::start(settings, Box::new(sshd.transport())).unwrap();
    let (rows, result) = thread::scope(|scope| {
        let running = scope.spawn(|| run(&mut runner, &workloads(1), 3.0));
        wait_for(&agent.path("launches"), 1);
        assert!(sshd.signal_connections(Signal::SIGSTOP) > 0);
        running.join().unwrap()
    });
    sshd.signal_connections(Signal::SIGCONT);
    result.unwrap();
    assert_whole(&agent, &rows, 1);
}

#[test]
fn a_frozen_device_is_given_up_at_the_deadline() {
    let Some(sshd) = Sshd::start() else { return };
    let agent = slow();
    let settings = RemoteSettings { patience: Duration::from_secs(2), ..agent.settings() };
    let mut runner = RemoteRunner::start(settings, Box::new(sshd.transport())).unwrap();
    let (rows, result) = thread::scope(|scope| {
        let running = scope.spawn(|| run(&mut runner, &workloads(1), 2.0));
        wait_for(&agent.path("launches"), 1);
        assert!(sshd.signal_connections(Signal::SIGSTOP) > 0);
        sshd.signal_listener(Signal::SIGSTOP);
        running.join().unwrap()
    });
    drop(runner);
    sshd.signal_listener(Signal::SIGCONT);
    sshd.signal_connections(Signal::SIGCONT);
    assert_eq!(rows.len(), 0);
    let error = result.unwrap_err();
    let RunnerError::Unreachable { last, .. } = &error else { panic!("{error}") };
    assert!(matches!(last, TransportError::Silent { .. }), "{error}");
    assert!(error.to_string().contains("frozen"), "{error}");
}

#[test]
fn a_host_key_that_changes_mid_run_stops_it_at_once() {
    let Some(mut sshd) = Sshd::start() else { return };
    let agent = slow();
    let mut runner = agent.start(sshd.transport());
    sshd.new_host_key("other", "ed25519");
    let (_, result) = thread::scope(|scope| {
        let running = scope.spawn(|| run(&mut runner, &workloads(1), 30.0));
        wait_for(&agent.path("launches"), 1);
        sshd.vanish();
        sshd.restart_with("other");
        running.join().unwrap()
    });
    let error = result.unwrap_err();
    assert!(
        matches!(error, RunnerError::Transport(TransportError::ChangedHost { .. })),
        "a changed key is not tried again: {error}"
    );
    assert_eq!(error.device_failure(), None);
}

#[test]
fn a_run_that_is_broken_off_leaves_nothing_running_and_the_device_free() {
    let Some(mut sshd) = Sshd::start() else { return };
    let agent = FakeAgent::new("echo x >> \"$folder/launches\"; sleep 61000004; echo \"$answer\"");
    let settings = RemoteSettings { patience: Duration::from_secs(1), ..agent.settings() };
    let mut runner = RemoteRunner::start(settings, Box::new(sshd.transport())).unwrap();
    // The launcher disappears without a word, as when it is killed: what it started ends by itself, and
    // the lease with it.
    thread::scope(|scope| {
        let running = scope.spawn(|| run(&mut runner, &workloads(1), 600.0));
        wait_for(&agent.path("launches"), 1);
        sshd.vanish();
        let (_, result) = running.join().unwrap();
        assert!(matches!(result, Err(RunnerError::Unreachable { .. })));
    });
    drop(runner);
    let until = Instant::now() + Duration::from_mins(1);
    while processes_with("sleep 61000004") > 0 || agent.path("device/lease").exists() {
        assert!(Instant::now() < until, "it still runs, or the device is still leased");
        thread::sleep(Duration::from_millis(100));
    }
}
