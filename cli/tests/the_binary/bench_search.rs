//! `lathe bench search`, on a small table of someone's own.

use std::{fs, path::Path, process::Stdio, thread::sleep, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    bench_predictor::{refusal, tables},
    fixture::{Fixture, stderr},
};

const SEARCH: [&str; 16] = [
    "bench",
    "search",
    "--latency",
    "latency.csv",
    "--accuracy",
    "accuracy.csv",
    "--column",
    "accuracy",
    "--targets",
    "phone_b",
    "--budgets",
    "20,60",
    "--seeds",
    "3",
    "--samples",
    "8",
];

fn printed(fixture: &Fixture, more: &[&str], threads: &str) -> Value {
    let words = [&SEARCH[..], more, &["--format", "json", "--quiet"]].concat();
    let output = fixture.command(&words).env("RAYON_NUM_THREADS", threads).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn searches_are_judged_by_the_exact_optimum_the_same_with_any_number_of_threads() {
    let fixture = tables();
    let one = printed(&fixture, &["--limits-ms", "20,25"], "1");
    assert_eq!(one, printed(&fixture, &["--limits-ms", "20,25"], "3"));
    assert_eq!((one["column"].as_str(), one["samples"].as_u64()), (Some("accuracy"), Some(8)));
    let rows = one["rows"].as_array().unwrap();
    // Two limits and the front; four algorithms, three sources of latencies, two budgets.
    assert_eq!(rows.len(), 3 * 4 * 3 * 2);
    assert_eq!(one["summary"].as_array().unwrap().len(), 4 * 3 * 2);
    for row in rows {
        let measurements = row["measurements"].as_f64().unwrap();
        let most = if row["latency"] == "oracle" { 0.0 } else { 8.0 };
        assert!(measurements <= most, "{row}");
        assert!(row["evaluations"].as_f64() <= row["budget"].as_f64(), "{row}");
        assert!((0.0..=1.0 + 1e-9).contains(&row["hypervolume"]["mean"].as_f64().unwrap()), "{row}");
        if row["limit_ms"].is_null() {
            assert!(row["regret"].is_null() && row["broken"].is_null(), "{row}");
        } else {
            assert!(row["regret"]["mean"].as_f64().unwrap() >= 0.0, "{row}");
        }
        if row["latency"] == "oracle" && row["limit_ms"].is_number() {
            assert_eq!(row["broken"].as_f64(), Some(0.0), "{row}");
            assert!(row["accuracy"]["p90"].as_f64() <= row["optimum"].as_f64(), "{row}");
        }
    }
    let of = |algorithm: &str, latency: &str| {
        let is =
            |row: &&Value| row["algorithm"] == algorithm && row["latency"] == latency && row["budget"] == 60;
        one["summary"].as_array().unwrap().iter().find(is).unwrap()["regret"].as_f64().unwrap()
    };
    assert!(of("guided", "oracle") <= of("random", "oracle"), "{}", one["summary"]);
    // The other phone tells all there is to know of this one.
    assert!(of("guided", "predictor") < 0.6, "{}", one["summary"]);
}

#[test]
fn limits_are_quantiles_where_none_are_named_and_parts_can_be_asked_for() {
    let fixture = tables();
    let parts = ["--algorithms", "guided", "--knowledge", "predictor", "--sources", "phone_a"];
    let got = printed(&fixture, &parts, "2");
    let rows = got["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6 * 2);
    let shares: Vec<f64> = rows.iter().step_by(2).filter_map(|row| row["meet_the_limit"].as_f64()).collect();
    assert_eq!(shares.len(), 5);
    for (share, quantile) in shares.iter().zip([0.1, 0.3, 0.5, 0.7, 0.9]) {
        assert!((share - quantile).abs() < 0.02, "{shares:?}");
    }
    let output =
        fixture.command(&[&SEARCH[..], &parts, &["--format", "markdown"]].concat()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("| algorithm | latency | budget |") && text.contains("| phone_b | front |"),
        "{text}"
    );
    let output = fixture.command(&[&SEARCH[..], &parts].concat()).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("algorithm  latency"));
}

#[test]
fn what_is_wrong_with_a_table_or_an_option_is_said() {
    let fixture = tables();
    let with = |more: &[&str]| refusal(&fixture, &[&SEARCH[..8], more].concat());
    let text = with(&["--targets", "phone_c"]);
    assert!(text.contains("`phone_c`") && text.contains("did you mean `phone_"), "{text}");
    let text = with(&["--budgets", "20", "--limits-ms", "0.5"]);
    assert!(text.contains("no architecture meets 0.5 ms") && text.contains("the fastest takes"), "{text}");
    assert!(with(&["--limits-ms=-1"]).contains("a positive number of milliseconds, got -1"));
    assert!(with(&["--limits-ms", "NaN"]).contains("got NaN"));
    assert!(with(&["--budgets", "0"]).contains("evaluated architectures from 1"));
    assert!(with(&["--seeds", "0"]).contains("at least one seed"));
    assert!(with(&["--samples", "1"]).contains("at least 5 measurements, got --samples 1"));
    let text = with(&["--budgets", "500"]);
    assert!(text.contains("195 architectures") && text.contains("(500)"), "{text}");
    let text = with(&["--targets", "phone_a", "--sources", "phone_a"]);
    assert!(text.contains("no source device is left"), "{text}");
    let mut words = SEARCH;
    words[7] = "acuracy";
    let text = refusal(&fixture, &words);
    assert!(
        text.contains("find the column `acuracy`") && text.contains("--column is one of accuracy"),
        "{text}"
    );
    words[7] = "cifar100_test_200ep";
    let text = refusal(&fixture, &words);
    assert!(text.contains("is a test accuracy"), "{text}");
}

#[test]
fn gaps_are_left_out_and_an_architecture_twice_is_refused() {
    let fixture = tables();
    let table = fs::read_to_string(fixture.path("latency.csv")).unwrap();
    let mut lines: Vec<String> = table.lines().map(str::to_owned).collect();
    // No latency, zero and no number at all: three rows of the target less.
    for (line, value) in [(10, ""), (11, "0"), (12, "NaN")] {
        let mut cells: Vec<&str> = lines[line].split(',').collect();
        cells[2] = value;
        lines[line] = cells.join(",");
    }
    fs::write(fixture.path("latency.csv"), lines.join("\n")).unwrap();
    let text = refusal(&fixture, &[&SEARCH[..10], &["--budgets", "194"]].concat());
    assert!(text.contains("192 architectures"), "{text}");
    lines.push(lines[5].clone());
    fs::write(fixture.path("latency.csv"), lines.join("\n")).unwrap();
    let text = refusal(&fixture, &SEARCH);
    assert!(text.contains("rows 5 and 201 are the same architecture"), "{text}");
}

#[test]
fn columns_that_are_no_devices_do_no_harm() {
    let fixture = tables();
    let table = fs::read_to_string(fixture.path("latency.csv")).unwrap();
    let lines = table
        .lines()
        .enumerate()
        .map(|(line, text)| format!("{text},{}", if line == 0 { "empty,note" } else { ",as measured" }));
    fs::write(fixture.path("latency.csv"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    let words =
        [&SEARCH[..8], &["--budgets", "20", "--seeds", "1", "--algorithms", "random", "--format", "json"]];
    let output = fixture.command(&words.concat()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut targets: Vec<&str> =
        printed["rows"].as_array().unwrap().iter().map(|row| row["target"].as_str().unwrap()).collect();
    targets.dedup();
    assert_eq!(targets, ["contrary", "phone_a", "phone_b"]);
}

#[test]
fn an_interruption_ends_it_cleanly() {
    let fixture = tables();
    let words = [&SEARCH[..12], &["--seeds", "100000"]].concat();
    let child = fixture.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    sleep(Duration::from_secs(2));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(output.stdout.is_empty() && stderr(&output).contains("interrupted"), "{}", stderr(&output));
}

#[test]
fn ten_measurements_and_two_hundred_accuracies_come_near_the_optimum_of_the_benchmark() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let (latency, accuracy) = (data.join("nb201_latency.parquet"), data.join("nb201_accuracy.parquet"));
    if !latency.exists() || !accuracy.exists() {
        eprintln!("skipped: {} has no tables of NAS-Bench-201", data.display());
        return;
    }
    let (latency, accuracy) = (latency.to_str().unwrap(), accuracy.to_str().unwrap());
    let words = ["bench", "search", "--latency", latency, "--accuracy", accuracy, "--targets", "titanx_256"];
    let more = ["--budgets", "200", "--seeds", "4", "--algorithms", "random,guided", "--format", "json"];
    let fixture = Fixture::new("");
    let output = fixture.command(&[&words[..], &more].concat()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |algorithm: &str, latency: &str, key: &str| {
        let is = |row: &&Value| row["algorithm"] == algorithm && row["latency"] == latency;
        printed["summary"].as_array().unwrap().iter().find(is).unwrap()[key].as_f64().unwrap()
    };
    assert!(of("guided", "predictor", "regret") < 0.3, "{}", printed["summary"]);
    assert!(of("guided", "predictor", "regret") < 0.3 * of("random", "predictor", "regret"));
    // Multiply-accumulates order this device's latencies badly (rank correlation .68).
    assert!(of("guided", "predictor", "hypervolume") > 1.05 * of("guided", "macs", "hypervolume"));
}
