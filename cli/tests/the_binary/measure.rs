//! `lathe measure` on several devices, and `lathe db compare`.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use lathe_spaces::{GraphBuilder, OpSpec, Shape, Weights, encode_onnx};
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
fn a_dry_run_counts_what_a_killed_campaign_has_timed() {
    let fixture = with_twin();
    let dry = || {
        let words = ["measure", "run.toml", "--device", "local", "--only-missing", "--dry-run"];
        let text = fixture.succeed(&[&words[..], &["--format", "json"]].concat());
        json_lines(&text)[0]["missing"].as_array().unwrap().len()
    };
    let count = dry();
    let journaled = || {
        let files = fixture.path(".lathe/latency-db").read_dir().unwrap().map(|entry| entry.unwrap().path());
        let journal = files.into_iter().find(|path| path.to_string_lossy().ends_with(".measuring.jsonl"));
        journal.map_or(0, |path| std::fs::read_to_string(path).unwrap().lines().count())
    };
    let words = ["measure", "run.toml", "--device", "local", "--only-missing", "--seconds", "0.1"];
    let mut child = fixture.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while journaled() == 0 {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it was killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let timed = journaled();
    assert!(timed > 0 && timed < count, "{timed} of {count}");
    assert_eq!(dry(), count - timed);
    assert_eq!((dry(), journaled()), (count - timed, 0), "the rows are in the database now");
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

#[test]
fn under_a_memory_limit_a_large_network_is_out_of_memory_and_a_small_one_is_timed() {
    let fixture = with_twin();
    let folder = fixture.path("small").display().to_string();
    let words = ["device", "add", "small", "--local", "--memory", "160M", "--directory", &folder];
    fixture.succeed(&words);
    // Input and output are 128 MiB each.
    let mut builder = GraphBuilder::new();
    let input = builder.input("input", Shape::new(1, 32, 1024, 1024)).unwrap();
    let output = builder.add("relu", OpSpec::Relu, &[input]).unwrap();
    let graph = builder.finish(&[output]).unwrap();
    let file = encode_onnx(&graph, &Weights::seeded(&graph, 0)).unwrap();
    std::fs::write(fixture.path("large.onnx"), file).unwrap();
    let words = ["measure", "--device", "small", "--network", "net.onnx", "--network", "large.onnx"];
    let table = fixture.succeed(&[&words[..], &["--seconds", "0.05"]].concat());
    assert!(table.contains("out of memory"), "{table}");
    let rows = json_lines(&fixture.succeed(&["db", "compare", "--format", "json"]));
    let outcome = |label: &str| {
        rows.iter().find(|row| row["label"] == label).unwrap_or_else(|| panic!("{label} is missing"))["outcome"].clone()
    };
    assert_eq!((outcome("net"), outcome("large")), ("ok".into(), "out_of_memory".into()));
    let small = fixture.succeed(&["device", "probe", "small"]);
    assert!(small.contains("limited to 160 MiB"), "{small}");
}

/// The wall clock of everything, this program, the device's shell and the agent, jumps by a day in the
/// middle: deadlines, leases and samples use clocks that can't be set.
#[test]
fn a_clock_that_jumps_costs_nothing() {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !std::path::Path::new(LIBRARY).exists() {
        assert!(std::env::var_os("CI").is_none(), "{LIBRARY} is missing: install faketime");
        eprintln!("skipped: {LIBRARY} is missing (Debian package faketime)");
        return;
    }
    let fixture = with_twin();
    let clock = fixture.path("clock");
    std::fs::write(&clock, "+0\n").unwrap();
    let mut command =
        fixture.command(&["measure", "run.toml", "--device", "twin", "--seconds", "0.1", "--format", "json"]);
    command
        .env("LD_PRELOAD", LIBRARY)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let jump = std::thread::spawn(move || {
        for shift in ["+1d", "-1d", "+400d"] {
            std::thread::sleep(std::time::Duration::from_secs(3));
            std::fs::write(&clock, format!("{shift}\n")).unwrap();
        }
    });
    let output = command.output().unwrap();
    jump.join().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let rows = json_lines(&fixture.succeed(&["db", "list", "--format", "json"]));
    let workloads: BTreeSet<&str> = rows.iter().map(|row| row["workload"].as_str().unwrap()).collect();
    assert_eq!(workloads.len(), rows.len(), "each once");
    for row in &rows {
        assert_eq!(row["outcome"], "ok");
        let median = row["summary"]["median"].as_f64().unwrap();
        assert!(median > 0.0 && median < 1e6, "{median} µs");
    }
    let days: BTreeSet<String> = json_lines(&fixture.succeed(&["db", "show", "", "--format", "json"]))
        .iter()
        .map(|row| row["before"]["at"].as_str().unwrap().chars().take(10).collect())
        .collect();
    assert!(days.len() > 1, "the clock did not jump while it was measured: {days:?}");
}

#[test]
fn times_of_an_emulator_enter_no_fit_unless_they_are_forced() {
    let fixture = with_twin();
    let folder = fixture.path("emulator").display().to_string();
    let words = ["device", "add", "emulator", "--local", "--emulated", "--directory", &folder];
    fixture.succeed(&words);
    fixture.succeed(&["measure", "--device", "emulator", "--network", "net.onnx", "--seconds", "0"]);
    assert!(fixture.succeed(&["db", "compare"]).contains("emulated"));
    for words in [&["fit", "--device", "emulator"][..], &["predict", "net.onnx", "--device", "emulator"]] {
        let refused = fixture.lathe(words);
        let text = stderr(&refused);
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains("--allow-emulated"), "{words:?}: {text}");
        // With the force the refusal is gone; one network may still be too little for a model.
        let forced = fixture.lathe(&[words, &["--allow-emulated"]].concat());
        assert!(!stderr(&forced).contains("under an emulator"), "{}", stderr(&forced));
    }
}

#[test]
fn where_no_agent_can_run_a_stock_benchmark_program_is_driven() {
    let fixture = with_twin();
    // A stand-in that prints what ONNX Runtime's program prints.
    let program = include_str!("../../../runners/tests/peers/onnxruntime_perf_test.sh");
    std::fs::write(fixture.path("perf_test"), program).unwrap();
    let folder = fixture.path("board").display().to_string();
    let add = ["device", "add", "board", "--local", "--directory", &folder, "--agentless"];
    let with = |words: &[&str]| fixture.lathe(&[&add[..], words].concat());
    for (words, code, expected) in [
        (&["perf"][..], 2, "benchmark_model"),
        (&["onnxruntime_perf_test"], 1, "--program-on-device"),
        (&["onnxruntime_perf_test", "--program", "no/such"], 1, "no/such"),
        (&["onnxruntime_perf_test", "--program-on-device", "here"], 1, "absolute"),
        (&["onnxruntime_perf_test", "--program", "perf_test", "--memory", "1G"], 1, "memory"),
    ] {
        let output = with(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{words:?}: {}", stderr(&output));
    }
    let output = with(&["onnxruntime_perf_test", "--program", "perf_test"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(fixture.succeed(&["device", "list"]).contains("onnxruntime_perf_test"));
    let table = fixture.succeed(&["measure", "--device", "board", "--network", "net.onnx", "--seconds", "0"]);
    assert!(table.contains("board"), "{table}");
    let rows = json_lines(&fixture.succeed(&["db", "show", "", "--format", "json"]));
    assert_eq!(rows.len(), 1);
    assert!(rows[0]["agent"].as_str().unwrap().contains("output not checked"), "{}", rows[0]["agent"]);
}
