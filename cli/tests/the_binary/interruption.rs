//! `kill -9` and Ctrl-C at any time, then `--resume`: the same end as without them.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Stdio},
    thread::sleep,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::fixture::{Fixture, TINY, events, of_kind};

/// Events whose content doesn't depend on the clock, without the fields that do.
fn outcome(run: &Path) -> Vec<Value> {
    let mut events = events(run);
    events.retain(|event| {
        ["fitted", "target", "epoch", "candidate", "train_epoch", "trained", "exported"]
            .contains(&event["event"].as_str().unwrap())
    });
    for event in &mut events {
        let object = event.as_object_mut().unwrap();
        for key in ["seconds", "data_wait"] {
            object.remove(key);
        }
    }
    events
}

fn start(fixture: &Fixture, directory: &str, database: &str) -> Child {
    fixture
        .command(&["run", "run.toml", "--resume", "--directory", directory, "--database", database])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the record has grown by `lines`, or the process ended.
fn grown(child: &mut Child, run: &Path, lines: usize) -> bool {
    let count =
        || fs::read(run.join("record.jsonl")).map_or(0, |text| text.split(|byte| *byte == b'\n').count());
    let before = count();
    while count() < before + lines {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        sleep(Duration::from_millis(5));
    }
    true
}

/// Runs that are killed again and again, in databases of their own.
const CUTS: [&str; 3] = ["cut", "cut-again", "cut-once-more"];

/// Kills a run by Ctrl-C and kill -9 in turn, at other places each time, and resumes it until it ends; how often it was
/// started.
fn interruptions(fixture: &Fixture, name: &str) -> u64 {
    let run = fixture.path(name);
    let database = format!("{name}-db");
    let mut attempts = 0;
    loop {
        attempts += 1;
        assert!(attempts < 60, "the run does not get on");
        let mut child = start(fixture, name, &database);
        let lines = 1 + attempts % 3;
        if !grown(&mut child, &run, lines as usize) {
            let status = child.wait().unwrap();
            assert!(matches!(status.code(), Some(0 | 3)), "attempt {attempts} ended with {status}");
            return attempts;
        }
        sleep(Duration::from_millis((attempts * 37) % 120));
        let signal = if attempts % 2 == 0 { Signal::SIGKILL } else { Signal::SIGINT };
        let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal);
        let status = child.wait().unwrap();
        assert!(matches!(status.code(), None | Some(0 | 3 | 130)), "attempt {attempts}: {status}");
        if matches!(status.code(), Some(0 | 3)) {
            return attempts;
        }
    }
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_like_one_that_is_not() {
    let fixture = Fixture::new(TINY);
    // Both runs begin with the same measurements, each in a database of its own: what the first one
    // adds at its end must not change what the second one fits.
    fixture.succeed(&["measure", "run.toml", "--directory", "first", "--database", "whole-db"]);
    for copy in CUTS {
        for folder in ["", "workloads"] {
            let database = fixture.path(&format!("{copy}-db"));
            let (from, to) = (fixture.path("whole-db").join(folder), database.join(folder));
            fs::create_dir(&to).unwrap();
            for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
                if entry.path().is_file() {
                    fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
                }
            }
        }
    }
    let whole = fixture.lathe(&["run", "run.toml", "--directory", "whole", "--database", "whole-db"]);
    assert!(matches!(whole.status.code(), Some(0 | 3)), "{}", crate::fixture::stderr(&whole));

    // Where other programs have the processor, a run may end before it was killed often enough: then the next one.
    let cut = CUTS.into_iter().find(|cut| interruptions(&fixture, cut) > 5);
    let cut = cut.expect("no run was interrupted more than five times");
    let run = fixture.path(cut);
    let database = format!("{cut}-db");

    assert_eq!(outcome(&fixture.path("whole")), outcome(&run));
    let scores = |run: &str| fs::read(fixture.path(run).join("scores.json")).unwrap();
    assert_eq!(scores("whole"), scores(cut));
    let weights = |run: &str| fs::read(fixture.path(run).join("export/searched.safetensors")).unwrap();
    assert_eq!(weights("whole"), weights(cut));

    let list = fixture.succeed(&["db", "list", "--format", "json", "--database", &database]);
    let ids: Vec<Value> =
        list.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
    let unique: BTreeSet<String> = ids.iter().map(ToString::to_string).collect();
    assert_eq!(ids.len(), unique.len(), "a row is doubled");
}

#[test]
fn killing_the_measurement_loses_no_row_and_doubles_none() {
    let fixture = Fixture::new(TINY);
    let run = fixture.path("runs/tiny");
    let journal = run.join("measure.jsonl");
    let rows = || fs::read_to_string(&journal).map_or(0, |text| text.lines().count());
    let mut kept = 0;
    for _ in 0..3 {
        let mut child = start(&fixture, "runs/tiny", ".lathe/latency-db");
        while rows() < kept + 4 && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(5));
        }
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(rows() >= kept + 4, "rows were lost: {kept} before, {} now", rows());
        kept = rows();
    }
    fixture.succeed(&["measure", "run.toml"]);
    assert!(!journal.exists());
    let list = fixture.succeed(&["db", "list", "--format", "json"]);
    let workloads: Vec<String> = list
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["workload"].to_string())
        .collect();
    let unique: BTreeSet<&String> = workloads.iter().collect();
    assert_eq!(workloads.len(), unique.len(), "a workload was timed twice");
    assert_eq!(of_kind(&events(&run), "device").len(), 1);
}
