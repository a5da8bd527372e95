//! `lathe bench predictor` and `lathe bench selection`, on a small table of someone's own.

use std::{fmt::Write as _, fs};

use serde_json::Value;

use crate::fixture::{Fixture, stderr};

/// Operations of NAS-Bench-201, and what each costs on two devices that are alike, and on one that is the
/// other way round.
const OPERATIONS: [(&str, f64, f64); 5] = [
    ("none", 0.0, 9.0),
    ("skip_connect", 0.2, 7.0),
    ("nor_conv_1x1", 1.5, 4.0),
    ("nor_conv_3x3", 4.0, 0.5),
    ("avg_pool_3x3", 1.0, 5.0),
];

/// A folder with `latency.csv` (devices `phone_a`, `phone_b`, `contrary`) and `accuracy.csv` of 200 cells.
pub fn tables() -> Fixture {
    let fixture = Fixture::new("");
    let mut latency = String::from("arch,phone_a,phone_b,contrary\n");
    let mut accuracy = String::from("arch,accuracy\n");
    for cell in 0..200_usize {
        let picks: Vec<usize> = (0..6).map(|edge| (cell * 7919 + 31) / 5_usize.pow(edge) % 5).collect();
        let name = |edge: usize| OPERATIONS[picks[edge]].0;
        let arch = format!(
            "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|",
            name(0),
            name(1),
            name(2),
            name(3),
            name(4),
            name(5)
        );
        let sum: f64 = picks.iter().map(|&pick| OPERATIONS[pick].1).sum();
        let other: f64 = picks.iter().map(|&pick| OPERATIONS[pick].2).sum();
        let wobble = 1.0 + 0.01 * f64::from(u8::try_from(cell * 37 % 11).unwrap());
        writeln!(latency, "{arch},{:.4},{:.4},{:.4}", 3.0 + sum, (5.0 + 2.1 * sum) * wobble, 2.0 + other)
            .unwrap();
        writeln!(accuracy, "{arch},{:.3}", 50.0 + sum).unwrap();
    }
    fs::write(fixture.path("latency.csv"), latency).unwrap();
    fs::write(fixture.path("accuracy.csv"), accuracy).unwrap();
    fixture
}

const PREDICTOR: [&str; 14] = [
    "bench",
    "predictor",
    "--table",
    "latency.csv",
    "--space",
    "nb201",
    "--protocol",
    "all",
    "--samples",
    "10",
    "--seeds",
    "2",
    "--format",
    "json",
];

fn rows(fixture: &Fixture, words: &[&str]) -> Vec<Value> {
    let output = fixture.command(words).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn refusal(fixture: &Fixture, words: &[&str]) -> String {
    let output = fixture.command(words).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    // Long messages are wrapped at the terminal's width.
    stderr(&output).split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}

fn of<'r>(rows: &'r [Value], target: &str, method: &str) -> &'r Value {
    rows.iter().find(|row| row["target"] == target && row["method"] == method).unwrap()
}

#[test]
fn a_table_of_ones_own_gives_one_row_per_target_method_and_number_of_samples() {
    let fixture = tables();
    let rows = rows(&fixture, &[&PREDICTOR[..], &["--targets", "phone_b"]].concat());
    let methods: Vec<&str> = rows.iter().map(|row| row["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["lathe", "ridge_onehot", "scale_and_shift", "flops", "lathe_designed", "gbdt_900"]);
    let lathe = of(&rows, "phone_b", "lathe");
    assert_eq!((lathe["samples"].as_u64(), lathe["seeds"].as_u64()), (Some(10), Some(2)));
    assert_eq!(lathe["noise_floor"]["kind"], "unknown");
    assert!(lathe["spearman_mean"].as_f64().unwrap() > 0.9, "{lathe}");
    assert!(lathe["coverage_90"].as_f64().is_some());
    // Five of the cells are disconnected; a tenth of the others is the test.
    let trees = of(&rows, "phone_b", "gbdt_900");
    assert_eq!((trees["samples"].as_u64(), trees["refused"].as_u64()), (Some(175), Some(0)));
}

#[test]
fn a_proxy_that_is_none_is_refused_and_the_rest_goes_on() {
    let fixture = tables();
    let words = [&PREDICTOR[..], &["--targets", "phone_b", "--sources", "contrary"]].concat();
    let rows = rows(&fixture, &words);
    let transfer = of(&rows, "phone_b", "scale_and_shift");
    assert_eq!((transfer["refused"].as_u64(), transfer["seeds"].as_u64()), (Some(2), Some(0)));
    assert!(transfer["spearman_mean"].is_null());
    assert!(of(&rows, "phone_b", "lathe")["spearman_mean"].is_number());
}

#[test]
fn what_is_wrong_with_a_table_or_an_option_is_said() {
    let fixture = tables();
    let with = |more: &[&str]| refusal(&fixture, &[&PREDICTOR[..], more].concat());
    let text = with(&["--targets", "phone_c"]);
    assert!(text.contains("`phone_c`") && text.contains("did you mean `phone_"), "{text}");
    let text = with(&["--sources", "toaster"]);
    assert!(text.contains("`toaster`") && text.contains("it has contrary, phone_a, phone_b"), "{text}");
    let mut words = PREDICTOR;
    words[9] = "195";
    let text = refusal(&fixture, &words);
    assert!(text.contains("195 samples and at least 10 test rows are wanted"), "{text}");
    fs::write(fixture.path("latency.csv"), "cell,phone_a\nx,1.0\n").unwrap();
    let text = with(&[]);
    assert!(text.contains("no column names the architectures") && text.contains("cell, phone_a"), "{text}");
    fs::write(fixture.path("latency.csv"), "arch,phone_a\n|none~0|,1.0\n").unwrap();
    let text = with(&[]);
    assert!(text.contains("column `arch`, row 1"), "{text}");
}

#[test]
fn choices_under_a_limit_are_held_against_perfect_knowledge() {
    let fixture = tables();
    let words = [
        "bench",
        "selection",
        "--latency",
        "latency.csv",
        "--accuracy",
        "accuracy.csv",
        "--column",
        "accuracy",
        "--targets",
        "phone_b",
        "--limits",
        "50%,25",
        "--seeds",
        "2",
    ];
    let rows = rows(&fixture, &[&words[..], &["--format", "json"]].concat());
    // Five methods under two limits, and each over all.
    assert_eq!(rows.len(), 5 * 2 + 5);
    for row in &rows {
        let share = |key: &str| row[key].as_f64().is_none_or(|value| (0.0..=1.0).contains(&value));
        assert!(share("accuracy_of_oracle") && share("broken") && share("broken_by_5_percent"), "{row}");
    }
    assert_eq!(rows[1]["limit_ms"], 25.0);
    let verified = of(&rows, "all", "lathe_verified");
    assert!(verified["accuracy_of_oracle"].as_f64().unwrap() > 0.97, "{verified}");
    let text = fixture.command(&words).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("noise floor") && text.contains("not known"), "{text}");
    let wrong = |more: &[&str]| refusal(&fixture, &[&words[..], more].concat());
    let mut misspelt = words;
    misspelt[7] = "acuracy";
    let text = refusal(&fixture, &misspelt);
    assert!(
        text.contains("find the column `acuracy`") && text.contains("did you mean `accuracy`?"),
        "{text}"
    );
    assert!(wrong(&["--safety", "1"]).contains("from 0.5 to below 1"));
    let text = wrong(&["--samples", "200"]);
    assert!(text.contains("195 rows to draw samples from") && text.contains("200 samples"), "{text}");
    let mut bad = words;
    bad[11] = "soon";
    let output = fixture.command(&bad).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("share of the architectures (25%)"), "{}", stderr(&output));
}
