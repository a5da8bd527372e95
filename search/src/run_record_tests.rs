#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;

use lathe_spaces::Micros;

use super::*;
use crate::{Origin, StopReason};

fn started() -> Event {
    Event::Started {
        name: "run".into(),
        at: "2026-01-01T00:00:00Z".into(),
        version: "0.1.0".into(),
        seed: 1,
        config_sha256: "ab".into(),
    }
}

fn stage(stage: Stage, finished: bool, at: &str) -> Event {
    let at = at.into();
    if finished {
        Event::StageFinished { stage, at, seconds: 1.5 }
    } else {
        Event::StageStarted { stage, at }
    }
}

fn trained(candidate: &str, epoch: usize, train_loss: f64) -> Event {
    Event::TrainEpoch {
        candidate: candidate.into(),
        epoch,
        epochs: 3,
        train_loss,
        train_accuracy: 0.5,
        seconds: 1.0,
    }
}

fn candidate(name: &str) -> Event {
    Event::Candidate {
        name: name.into(),
        signs: Vec::new(),
        preselected: None,
        origin: Origin::Random,
        genotype: "α".into(),
        predicted: None,
        parameters: 1,
        macs: 2,
        peak_activation_bytes: 3,
    }
}

fn epoch(epoch: usize) -> Event {
    Event::Epoch {
        epoch,
        epochs: 3,
        train_loss: 1.0,
        train_accuracy: 0.5,
        valid_loss: None,
        valid_accuracy: None,
        expected: None,
        lambda: 0.0,
        limits: Vec::new(),
        temperature: 1.0,
        genotype: "g".into(),
        derived: None,
        signs: Vec::new(),
        eigenvalue: None,
        arch: Vec::new(),
        seconds: 1.0,
        data_wait: 0.0,
    }
}

fn finished(stop: StopReason) -> Event {
    Event::Finished { at: "later".into(), stop }
}

#[test]
fn each_kind_of_event_is_kept_once_per_identity() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.jsonl");
    let mut record = RunRecord::open(&path).unwrap();
    let target =
        |micros| Event::Target { target: Some(Micros(micros)), reachable: [Micros(1.0), Micros(9.0)] };
    let exported = |name: &str| Event::Exported { candidate: name.into(), files: Vec::new() };
    let tested = |name: &str, accuracy| Event::Trained {
        candidate: name.into(),
        test_accuracy: accuracy,
        test_images: 10,
        validation_accuracy: None,
        validation_images: None,
    };
    let different = [
        started(),
        target(5.0),
        stage(Stage::Search, false, "a"),
        stage(Stage::Search, true, "a"),
        stage(Stage::Derive, false, "a"),
        epoch(0),
        epoch(1),
        candidate("a"),
        candidate("b"),
        trained("a", 0, 1.0),
        trained("a", 1, 1.0),
        trained("b", 0, 1.0),
        tested("a", 0.5),
        tested("b", 0.5),
        exported("a"),
        exported("b"),
        finished(StopReason::Completed),
    ];
    for event in &different {
        assert!(record.push(event.clone()).unwrap(), "{event:?}");
    }
    // The same again, some with other values: the first one counts.
    for event in &different {
        assert!(!record.push(event.clone()).unwrap(), "{event:?}");
    }
    assert!(!record.push(target(6.0)).unwrap());
    assert!(!record.push(stage(Stage::Search, true, "b")).unwrap());
    assert!(!record.push(trained("a", 1, 2.0)).unwrap());
    assert!(!record.push(tested("a", 0.6)).unwrap());
    assert_eq!(record.events(), different);
    assert_eq!(RunRecord::open(&path).unwrap().events(), different);
}

#[test]
fn resumptions_and_interruptions_may_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let mut record = RunRecord::open(&folder.path().join("record.jsonl")).unwrap();
    let resumed = Event::Resumed { at: "now".into() };
    for _ in 0..2 {
        assert!(record.push(resumed.clone()).unwrap());
        assert!(record.push(finished(StopReason::Interrupted)).unwrap());
    }
    assert!(record.push(finished(StopReason::Completed)).unwrap());
    assert_eq!(record.events().len(), 5);
}

#[test]
fn finished_asks_for_the_end_of_a_stage() {
    let folder = tempfile::tempdir().unwrap();
    let mut record = RunRecord::open(&folder.path().join("record.jsonl")).unwrap();
    record.push(stage(Stage::Fit, false, "a")).unwrap();
    assert!(!record.finished(Stage::Fit));
    record.push(stage(Stage::Fit, true, "b")).unwrap();
    assert!(record.finished(Stage::Fit) && !record.finished(Stage::Search));
}

#[test]
fn a_kill_at_any_byte_of_the_last_line_neither_loses_nor_doubles_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.jsonl");
    let events = [started(), candidate("a"), trained("a", 0, 1.0)];
    let mut record = RunRecord::open(&path).unwrap();
    for event in &events {
        record.push(event.clone()).unwrap();
    }
    drop(record);
    let whole = fs::read(&path).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
    for length in last..=whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let mut record = RunRecord::open(&path).unwrap();
        let kept = if length == whole.len() { 3 } else { 2 };
        assert_eq!(record.events(), &events[..kept], "cut to {length} bytes");
        // The resumed run tells the event again.
        assert_eq!(record.push(events[2].clone()).unwrap(), kept == 2);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn a_bad_line_is_an_error_with_its_number_and_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.jsonl");
    let good = serde_json::to_string(&started()).unwrap();
    for bad in ["not json at all", "{\"event\":\"unheard_of\"}", "", "{\"event\":\"epoch\",\"epo"] {
        let text = format!("{good}\n{bad}\n{good}\n");
        fs::write(&path, &text).unwrap();
        let error = RunRecord::open(&path).unwrap_err();
        assert!(matches!(error, RecordError::Line { line: 2, .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("record.jsonl") && message.contains(bad), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "the file is left alone");
    }
}

#[test]
fn an_unusable_place_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent/record.jsonl");
    let error = RunRecord::open(&path).unwrap_err();
    assert!(matches!(error, RecordError::Io { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("absent/record.jsonl") && message.contains("hint: "), "{message}");
}

/// `/dev/full` refuses every write as a full disk does.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error_and_the_event_can_be_pushed_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.jsonl");
    let mut record = RunRecord::open(&path).unwrap();
    record.push(started()).unwrap();
    let disk = std::mem::replace(&mut record.file, OpenOptions::new().write(true).open("/dev/full").unwrap());
    let error = record.push(candidate("a")).unwrap_err();
    assert!(error.to_string().contains("record.jsonl"), "{error}");
    assert_eq!(record.events().len(), 1);
    record.file = disk;
    assert!(record.push(candidate("a")).unwrap());
    drop(record);
    assert_eq!(RunRecord::open(&path).unwrap().events(), [started(), candidate("a")]);
}
