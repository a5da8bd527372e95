//! A run in the space of NAS-Bench-201, and the benchmark that judges such searches by tables.

use std::{fmt::Write as _, fs};

use serde_json::Value;

use crate::{
    bench_predictor::refusal,
    fixture::{Fixture, TINY, events, of_kind, stderr},
};

/// The smallest run in this space, with a target far above its networks.
fn tiny() -> String {
    TINY.replace("target_quantile = 0.9", "target_ms = 50")
        .replace(
            "width = 4\nlayers = 3\nresolution = 8",
            "kind = \"nas201\"\nwidth = 4\ncells = 1\nresolution = 8",
        )
        .replace("width = 4\nlayers = 3\npartial", "width = 4\ncells = 1\npartial")
        .replace("published = [\"PC_DARTS_cifar\"]\n", "")
}

#[test]
fn a_run_goes_from_measuring_to_the_report_and_is_resumed() {
    let fixture = Fixture::steady(&tiny());
    let output = fixture.lathe(&["run", "run.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let run = fixture.path("runs/tiny");
    let all = events(&run);
    assert_eq!(of_kind(&all, "epoch").len(), 3);
    let names: Vec<&str> =
        of_kind(&all, "candidate").iter().map(|event| event["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["searched", "random-0"]);
    for event in of_kind(&all, "verified") {
        assert!(event["max_output_error"].as_f64().unwrap() < 1e-4, "{event}");
    }
    assert_eq!(of_kind(&all, "trained").len(), 2);
    let target = of_kind(&all, "target")[0]["target"].as_f64().unwrap();
    let searched = of_kind(&all, "candidate")[0];
    assert!(searched["genotype"].as_str().unwrap().starts_with('|'), "{searched}");
    assert!(searched["predicted"]["mean"].as_f64().unwrap() <= target, "{searched}");
    for file in ["cost-table.json", "export/searched.onnx", "export/searched.pt", "report.html"] {
        assert!(run.join(file).is_file(), "{file} is missing");
    }
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(report.contains("searched") && report.contains("nor_conv_3x3"));

    // Cut off after the first epoch and without a checkpoint: searched again, to the same end.
    let scores = fs::read(run.join("scores.json")).unwrap();
    let record = fs::read_to_string(run.join("record.jsonl")).unwrap();
    let lines: Vec<&str> = record.lines().collect();
    let first = lines.iter().position(|line| line.contains("\"event\":\"epoch\"")).unwrap();
    fs::write(run.join("record.jsonl"), lines[..=first].join("\n") + "\n").unwrap();
    fs::remove_dir_all(run.join("checkpoint")).unwrap();
    fs::remove_file(run.join("scores.json")).unwrap();
    fixture.succeed(&["search", "run.toml"]);
    assert_eq!(fs::read(run.join("scores.json")).unwrap(), scores);
    assert_eq!(of_kind(&events(&run), "epoch").len(), 3);
}

#[test]
fn what_does_not_fit_the_space_is_told_with_its_place() {
    let config = tiny()
        .replace(
            "cells = 1\npartial_channels = 2",
            "layers = 3\npartial_channels = 3\nimplementation = \"fused\"",
        )
        .replace("auxiliary = 0.0", "auxiliary = 0.4");
    let output = Fixture::steady(&config).lathe(&["run", "run.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output).replace(['\n', '│'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "`supernet.layers`: supernets of nas201 have `cells` per stage",
        "K = 3 does not divide the supernet's width of 4",
        "`supernet.implementation`: expected one of grouped, plain, got \"fused\"",
        "only networks of darts have an auxiliary classifier",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
    }
}

/// Tables of all cells on two devices, made up: a convolution is slow and accurate.
fn with_tables(config: &str) -> Fixture {
    let fixture = Fixture::steady(config);
    let (mut latency, mut accuracy) = ("arch,phone_a,phone_b\n".to_owned(), "arch,val\n".to_owned());
    let operations = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"];
    let costs = [0.0, 0.1, 2.0, 5.0, 1.0];
    for code in 0..15_625usize {
        let pick = |place: u32| code / 5usize.pow(place) % 5;
        let edge = |place: u32, from: usize| format!("|{}~{from}", operations[pick(place)]);
        let text = format!(
            "{}|+{}{}|+{}{}{}|",
            edge(0, 0),
            edge(1, 0),
            edge(2, 1),
            edge(3, 0),
            edge(4, 1),
            edge(5, 2)
        );
        let sum: f64 = (0..6).map(|place| costs[pick(place)]).sum();
        let slow = 7.0 + 2.0 * sum + 0.1 * (code % 7) as f64;
        writeln!(latency, "{text},{},{slow}", 3.0 + sum).unwrap();
        writeln!(accuracy, "{text},{}", 50.0 + sum + 0.3 * (code % 11) as f64).unwrap();
    }
    fs::write(fixture.path("latency.csv"), latency).unwrap();
    fs::write(fixture.path("accuracy.csv"), accuracy).unwrap();
    fixture
}

const BENCH: [&str; 16] = [
    "bench",
    "nas201",
    "--config",
    "run.toml",
    "--latency",
    "latency.csv",
    "--device",
    "phone_b",
    "--accuracy",
    "accuracy.csv",
    "--column",
    "val",
    "--seeds",
    "2",
    "--samples",
    "12",
];

#[test]
fn searches_are_judged_by_tables_and_not_made_twice() {
    let config = tiny()
        .replace("target_ms = 50", "target_quantile = 0.5")
        .replace("width = 4\ncells = 1\nresolution = 8\n", "")
        .replace("train_images = 120", "train_images = 20")
        .replace("epochs = 3", "epochs = 2");
    let fixture = with_tables(&config);
    let words = [&BENCH[..], &["--format", "json"]].concat();
    let first: Value = serde_json::from_str(&fixture.succeed(&words)).unwrap();
    let rows = first["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let standing = &row["standing"];
        let quantile = standing["quantile"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&quantile), "{row}");
        assert_eq!(row["beats_the_median"], standing["accuracy"].as_f64() > standing["median"].as_f64());
        let free = row["way"] == "free";
        assert_eq!(row["met"].is_null(), free, "{row}");
        assert!(row["measurements"].as_u64().unwrap() >= if free { 0 } else { 13 }, "{row}");
    }
    assert_eq!(first["summary"][0]["searches"], 2);
    let found = fixture.path("runs/bench-nas201/seed-3-target/found.json");
    let before = fs::metadata(&found).unwrap().modified().unwrap();
    let again: Value = serde_json::from_str(&fixture.succeed(&words)).unwrap();
    assert_eq!(first, again);
    assert_eq!(fs::metadata(&found).unwrap().modified().unwrap(), before, "a search was made again");

    let other = refusal(&fixture, &[&BENCH[..14], &["--samples", "13"]].concat());
    assert!(other.contains("is of another configuration, device or number of samples"), "{other}");
    let text = fixture.succeed(&[&BENCH[..], &["--quiet"]].concat());
    assert!(text.starts_with("target ") && text.contains("beat median"), "{text}");
}

#[test]
fn what_tables_cannot_judge_is_refused() {
    let fixture = with_tables(&tiny());
    let small = refusal(&fixture, &BENCH);
    assert!(small.contains("a width of 16, 5 cells per stage"), "{small}");
    let darts = Fixture::steady(TINY);
    assert!(refusal(&darts, &BENCH).contains("kind = \"nas201\""));
}
