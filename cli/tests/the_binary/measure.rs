//! `lathe measure` on several devices, and `lathe db compare`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fixture::{Fixture, TINY, stderr};

fn json_lines(text: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(text).into_iter().map(Result::unwrap).collect()
}

/// A second device that is this machine, too, bound to its first core.
fn with_twin() -> Fixture {
    let fixture = Fixture::new(TINY);
    // A folder of its own: its lease would keep the devices of other tests waiting.
    let folder = fixture.path("twin").display().to_string();
    let words = ["device", "add", "twin", "--local", "--launch", "taskset -c 0", "--tier", "edge-cpu"];
    fixture.succeed(&[&words[..], &["--directory", &folder]].concat());
    let words = ["space", "export", "darts", "PC_DARTS_cifar", "--width", "4", "--layers", "3"];
    fixture.succeed(&[&words[..], &["--resolution", "8", "--file", "net.onnx"]].concat());
    fixture
}

#[test]
fn a_network_file_is_timed_on_two_devices_and_compared() {
    let fixture = with_twin();
    let words = ["measure", "--device", "local", "--device", "twin", "--network", "net.onnx"];
    let quick = [&words[..], &["--seconds", "0.05"]].concat();
    let table = fixture.succeed(&quick);
    for expected in ["net", "twin", "edge CPU", "measured", "ok", "peak memory"] {
        assert!(table.contains(expected), "{expected} is not in:\n{table}");
    }
    let rows = json_lines(&fixture.succeed(&["db", "list", "--format", "json"]));
    assert_eq!(rows.len(), 2);
    let compared = json_lines(&fixture.succeed(&["db", "compare", "--format", "json"]));
    let names: BTreeSet<&str> = compared.iter().map(|row| row["device_name"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["local", "twin"]));
    for row in &compared {
        assert_eq!(row["outcome"], "ok");
        assert!(row["load_us"].as_f64().unwrap() > 0.0 && row["first_run_us"].as_f64().unwrap() > 0.0);
        assert!(row["summary"]["median"].as_f64().unwrap() > 0.0 && row["peak_rss_kb"].as_u64().unwrap() > 0);
    }
    let one = json_lines(&fixture.succeed(&["db", "compare", "--device", "twin", "--format", "json"]));
    assert_eq!((one.len(), &one[0]["tier"]), (1, &"edge_cpu".into()));

    // Nothing is missing now; without --only-missing it is timed anew.
    fixture.succeed(&[&quick[..], &["--only-missing"]].concat());
    assert_eq!(json_lines(&fixture.succeed(&["db", "list", "--format", "json"])).len(), 2);
    fixture.succeed(&quick);
    assert_eq!(json_lines(&fixture.succeed(&["db", "list", "--format", "json"])).len(), 4);
}

#[test]
fn a_dry_run_tells_what_is_missing_on_each_device_and_for_how_long() {
    let fixture = with_twin();
    let dry = |extra: &[&str]| {
        let words = ["measure", "run.toml", "--device", "local", "--device", "twin", "--only-missing"];
        json_lines(&fixture.succeed(&[&words[..], &["--dry-run", "--format", "json"], extra].concat()))
    };
    let plans = dry(&[]);
    assert_eq!(plans.len(), 2);
    let count = plans[0]["missing"].as_array().unwrap().len();
    assert!(count > 10 && plans[1]["missing"].as_array().unwrap().len() == count, "{plans:?}");
    let seconds = plans[0]["estimated_seconds"].as_f64().unwrap();
    assert!(seconds > 0.0);
    let longer = dry(&["--seconds", "2"])[0]["estimated_seconds"].as_f64().unwrap();
    assert!(longer > seconds + 2.0 * count as f64 - 1e-6, "{longer} against {seconds}");

    fixture.succeed(&["measure", "run.toml", "--device", "twin", "--only-missing", "--seconds", "0"]);
    let left: Vec<usize> = dry(&[]).iter().map(|plan| plan["missing"].as_array().unwrap().len()).collect();
    assert_eq!(left.iter().sum::<usize>(), count, "only the other device lacks them: {left:?}");
}

#[test]
fn one_device_that_can_not_be_reached_does_not_stop_the_other() {
    let fixture = with_twin();
    std::fs::write(fixture.path("key"), "no key").unwrap();
    std::fs::write(fixture.path("hosts"), "").unwrap();
    let away =
        ["device", "add", "away", "--ssh", "me@127.0.0.1:1", "--identity", "key", "--known-hosts", "hosts"];
    fixture.succeed(&away);
    let words =
        ["measure", "--device", "away", "--device", "local", "--network", "net.onnx", "--seconds", "0.05"];
    let output = fixture.lathe(&words);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("measure on away") && text.contains("127.0.0.1:1"), "{text}");
    assert_eq!(json_lines(&fixture.succeed(&["db", "list", "--format", "json"])).len(), 1);
}

#[test]
fn what_can_not_be_timed_is_refused_with_what_to_do() {
    let fixture = Fixture::new("");
    std::fs::write(fixture.path("bad.onnx"), b"not a model").unwrap();
    for (words, code, expected) in [
        (vec!["measure"], 2, "CONFIG"),
        (vec!["measure", "--device", "local"], 1, "--space"),
        (vec!["measure", "--device", "local", "--network", "none.onnx"], 1, "none.onnx"),
        (vec!["measure", "--device", "local", "--network", "bad.onnx"], 1, "bad.onnx"),
        (vec!["measure", "--device", "pi", "--space", "nas201"], 1, "lathe device add pi"),
        (vec!["measure", "--device", "local", "--space", "nas201", "--seconds=-1"], 1, "--seconds"),
        (vec!["db", "compare", "--device", "pi"], 1, "--database"),
    ] {
        let output = fixture.lathe(&words);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
        assert!(text.contains(expected), "{words:?}: {expected} is not in:\n{text}");
    }
}
