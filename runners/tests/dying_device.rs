//! A device that dies in the middle, in every way that was thought of. The agent is a shell script that
//! answers the probe and the reference workload, and misbehaves on everything else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{fs, ops::ControlFlow, os::unix::fs::PermissionsExt, path::Path};

use lathe_latency_db::{Engine, MachineState, Measurement, Outcome, Protocol, QualityFlag};
use lathe_runners::{
    Answer, DeviceFacts, Job, LocalRunner, LocalSettings, MeasureAnswer, PROTOCOL_VERSION, ProbeAnswer,
    Runner, RunnerError,
};
use lathe_spaces::{GraphBuilder, Level, OpSpec, Shape, Workload};

fn probe_answer() -> Answer {
    Answer::Probe(Box::new(ProbeAnswer {
        version: PROTOCOL_VERSION,
        agent: "fake".into(),
        facts: DeviceFacts {
            model: "fake".into(),
            architecture: "none".into(),
            cores: 1,
            memory_kb: 1,
            os: "none".into(),
            kernel: "none".into(),
            governor: None,
            max_khz: None,
            clusters: Vec::new(),
        },
        engine: Engine {
            name: "fake".into(),
            version: "0".into(),
            library_sha256: String::new(),
            provider: "cpu".into(),
        },
        providers: vec!["cpu".into()],
        pinned_cpus: vec![0],
        state: MachineState::default(),
    }))
}

fn measured() -> Answer {
    Answer::Measured(Box::new(MeasureAnswer {
        agent: "fake".into(),
        outcome: Outcome::Ok,
        message: None,
        samples_ns: vec![1000; 10],
        batch: 1,
        warmup_runs: 10,
        settled: true,
        load_ns: 1,
        first_run_ns: 1,
        peak_rss_kb: 1,
        output: None,
        output_error: Some(0.0),
        execution: None,
        pinned_cpus: vec![0],
        before: MachineState::default(),
        after: MachineState::default(),
    }))
}

/// Writes the script; `$answer` is a good answer, `behaviour` is what it does with a workload.
fn script(folder: &Path, behaviour: &str) -> LocalSettings {
    script_with_reference(folder, "", behaviour)
}

/// As [`script`]; `reference` comes before the answer to the reference workload.
fn script_with_reference(folder: &Path, reference: &str, behaviour: &str) -> LocalSettings {
    let agent = folder.join("agent.sh");
    let library = folder.join("library");
    let text = format!(
        "#!/bin/sh\nfolder='{}'\nanswer='{}'\nread -r line\n[ \"$1\" = probe ] && {{ echo '{}'; exit 0; }}\n\
         case \"$line\" in *'\"label\":\"reference\"'*) {} {reference} echo \"$answer\"; exit 0;; esac\n{behaviour}\n",
        folder.display(),
        serde_json::to_string(&measured()).unwrap(),
        serde_json::to_string(&probe_answer()).unwrap(),
        "[ -e \"$folder/dead\" ] && exit 7;",
    );
    fs::write(&agent, text).unwrap();
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&library, b"").unwrap();
    LocalSettings {
        agent: Some(agent),
        library: Some(library),
        cpus: Some(vec![0]),
        ..LocalSettings::new("fake")
    }
}

fn workloads(count: usize) -> Vec<Workload> {
    (1..=count)
        .map(|side| {
            let mut builder = GraphBuilder::new();
            let input = builder.input("input", Shape::new(1, 1, side, side)).unwrap();
            let output = builder.add("relu", OpSpec::Relu, &[input]).unwrap();
            Workload::new(format!("relu{side}"), Level::Operator, builder.finish(&[output]).unwrap())
        })
        .collect()
}

fn run(
    settings: LocalSettings,
    workloads: &[Workload],
    timeout_seconds: f64,
) -> (Vec<Measurement>, Result<(), RunnerError>) {
    run_again(settings, workloads, timeout_seconds, 0)
}

/// As [`run`], with batches timed again when the reference drifts.
fn run_again(
    settings: LocalSettings,
    workloads: &[Workload],
    timeout_seconds: f64,
    retries: usize,
) -> (Vec<Measurement>, Result<(), RunnerError>) {
    let mut runner = LocalRunner::start(settings).unwrap();
    let protocol = Protocol {
        min_runs: 1,
        min_seconds: 0.0,
        processes: 2,
        warmup_runs: 1,
        warmup_seconds: 0.0,
        timeout_seconds,
        retries,
        cool_down_seconds: 0.0,
    };
    let job = Job::new("test", protocol, 1);
    let mut rows = Vec::new();
    let result = runner.run(workloads, &job, &mut |row| {
        rows.push(row);
        ControlFlow::Continue(())
    });
    (rows, result)
}

/// One workload on a device that behaves like this: its outcome and error.
fn one(behaviour: &str, timeout_seconds: f64) -> (Outcome, String) {
    let folder = tempfile::tempdir().unwrap();
    let (rows, result) = run(script(folder.path(), behaviour), &workloads(1), timeout_seconds);
    result.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].usable(), rows[0].outcome == Outcome::Ok);
    (rows[0].outcome, rows[0].error.clone().unwrap_or_default())
}

#[test]
fn a_killed_agent_is_a_crash_with_the_signal_and_its_last_words() {
    let (outcome, error) = one("echo 'about to die' >&2; kill -KILL $$", 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(
        error.contains("SIGKILL") && error.contains("memory") && error.contains("about to die"),
        "{error}"
    );
    let (outcome, error) = one("kill -SEGV $$", 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("SIGSEGV"), "{error}");
}

#[test]
fn an_agent_that_never_ends_is_killed_with_its_children() {
    // `sleep` is a child that holds the pipes: only killing the whole group ends it.
    let (outcome, error) = one("sleep 600; echo never", 0.5);
    assert_eq!(outcome, Outcome::Timeout);
    assert!(error.contains("0.5 s"), "{error}");
}

#[test]
fn garbage_silence_and_an_exit_code_are_crashes_that_say_what_came() {
    let (outcome, error) = one("echo 'Segmentation fault, or so'", 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("Segmentation fault, or so"), "{error}");
    let (outcome, error) = one("exit 9", 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("exit code 9"), "{error}");
    let (outcome, error) = one("echo \"$answer\"; echo \"$answer\"", 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("more than one line"), "{error}");
}

#[test]
fn three_megabytes_of_complaints_do_not_block_anything() {
    let flood = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo last words >&2";
    let (outcome, _) = one(&format!("{flood}; echo \"$answer\""), 20.0);
    assert_eq!(outcome, Outcome::Ok);
    let (outcome, error) = one(&format!("{flood}; exit 3"), 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("last words") && error.len() < 6000, "{}", error.len());
}

#[test]
fn one_bad_workload_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let behaviour = "case \"$line\" in *relu2*) kill -KILL $$;; esac; echo \"$answer\"";
    let (rows, result) = run(script(folder.path(), behaviour), &workloads(3), 20.0);
    result.unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let expected = if row.label == "relu2" { Outcome::Crash } else { Outcome::Ok };
        assert_eq!(row.outcome, expected, "{}", row.label);
        assert_eq!(row.samples_ns.len(), if expected == Outcome::Ok { 20 } else { 0 });
    }
}

#[test]
fn a_device_that_no_longer_runs_the_reference_is_lost_and_the_measured_rows_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    // Nine workloads are two groups of two rounds: it dies in the second one.
    let behaviour = "echo x >> \"$folder/count\"; [ $(wc -l < \"$folder/count\") -ge 17 ] && touch \"$folder/dead\"; echo \"$answer\"";
    let (rows, result) = run(script(folder.path(), behaviour), &workloads(9), 20.0);
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|row| row.outcome == Outcome::Ok));
    let error = result.unwrap_err();
    assert!(matches!(error, RunnerError::DeviceLost { outcome: Outcome::Crash, .. }), "{error}");
    assert!(error.to_string().contains("exit code 7"), "{error}");
}

/// Counts the reference's processes as `$n`; those for which the condition holds take a tenth longer.
fn slow_references(condition: &str) -> String {
    format!(
        "echo x >> \"$folder/references\"; n=$(wc -l < \"$folder/references\"); \
         {condition} && answer=$(echo \"$answer\" | sed 's/1000/1100/g');"
    )
}

#[test]
fn a_batch_during_which_the_reference_drifts_is_timed_again_later_and_its_samples_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let behaviour = "echo x >> \"$folder/count\"; echo \"$answer\"";
    let settings = script_with_reference(folder.path(), &slow_references("[ $n -eq 2 ]"), behaviour);
    // Nine workloads are a batch of eight and one of one; each attempt has three references.
    let (rows, result) = run_again(settings, &workloads(9), 20.0, 2);
    result.unwrap();
    assert_eq!(rows.len(), 9);
    let labels: std::collections::BTreeSet<&str> = rows.iter().map(|row| row.label.as_str()).collect();
    assert_eq!(labels.len(), 9, "every workload once");
    assert!(rows[0].rejected.is_empty(), "the other batch comes first");
    for row in &rows[1..] {
        assert_eq!(row.rejected.len(), 1);
        assert!((row.rejected[0].drift - 0.1).abs() < 1e-9, "{}", row.rejected[0].drift);
        assert_eq!((row.rejected[0].samples_ns.len(), row.samples_ns.len()), (20, 20));
    }
    assert!(rows.iter().all(|row| !row.flags.contains(&QualityFlag::ReferenceDrift)));
    let launches = fs::read_to_string(folder.path().join("count")).unwrap().lines().count();
    assert_eq!(launches, 2 * (8 + 8 + 1));
}

#[test]
fn without_retries_the_rows_are_flagged_and_a_device_that_always_drifts_is_not_timed_forever() {
    let folder = tempfile::tempdir().unwrap();
    let settings = script_with_reference(folder.path(), &slow_references("[ $n -eq 2 ]"), "echo \"$answer\"");
    let (rows, result) = run_again(settings, &workloads(2), 20.0, 0);
    result.unwrap();
    assert!(rows.iter().all(|row| row.flags.contains(&QualityFlag::ReferenceDrift)), "{rows:?}");
    assert!(rows.iter().all(|row| row.rejected.is_empty() && row.usable()));

    let folder = tempfile::tempdir().unwrap();
    let behaviour = "echo x >> \"$folder/count\"; echo \"$answer\"";
    let settings = script_with_reference(folder.path(), &slow_references("[ $((n % 3)) -eq 2 ]"), behaviour);
    // Five batches: two are timed twice in vain, the other three once.
    let (rows, result) = run_again(settings, &workloads(40), 20.0, 1);
    result.unwrap();
    assert_eq!(rows.len(), 40);
    assert_eq!(rows.iter().filter(|row| row.rejected.len() == 1).count(), 16);
    assert!(rows.iter().all(|row| row.flags.contains(&QualityFlag::ReferenceDrift)));
    let launches = fs::read_to_string(folder.path().join("count")).unwrap().lines().count();
    assert_eq!(launches, 2 * (40 + 16));
}

#[test]
fn rows_that_wait_for_another_attempt_are_kept_when_the_device_dies() {
    let folder = tempfile::tempdir().unwrap();
    // The first batch drifts; the device dies in the second one.
    let behaviour = "echo x >> \"$folder/count\"; \
                     [ $(wc -l < \"$folder/count\") -ge 17 ] && touch \"$folder/dead\"; echo \"$answer\"";
    let settings = script_with_reference(folder.path(), &slow_references("[ $n -eq 2 ]"), behaviour);
    let (rows, result) = run_again(settings, &workloads(9), 20.0, 2);
    assert!(matches!(result, Err(RunnerError::DeviceLost { .. })));
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|row| row.usable() && row.flags.contains(&QualityFlag::ReferenceDrift)));
}

#[test]
fn the_sink_stops_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut runner = LocalRunner::start(script(folder.path(), "echo \"$answer\"")).unwrap();
    let job = Job::new("test", Protocol { processes: 1, ..Protocol::SCREENING }, 1);
    let mut rows = 0;
    runner
        .run(&workloads(3), &job, &mut |_| {
            rows += 1;
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!(rows, 1);
}
