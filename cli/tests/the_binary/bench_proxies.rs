//! `lathe bench proxies`, on a small table of someone's own.

use std::fs;

use serde_json::Value;

use crate::{
    bench_predictor::{refusal, tables},
    fixture::{Fixture, stderr},
};

const PROXIES: [&str; 10] = [
    "bench",
    "proxies",
    "--accuracy",
    "accuracy.csv",
    "--column",
    "accuracy",
    "--networks",
    "6",
    "--format",
    "json",
];

fn rows(fixture: &Fixture, more: &[&str], threads: &str) -> Vec<Value> {
    let words = [&PROXIES[..], more].concat();
    let output = fixture.command(&words).env("RAYON_NUM_THREADS", threads).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    printed["rows"].as_array().unwrap().clone()
}

/// CIFAR-10's binary version with four images per file, of noise.
fn images(fixture: &Fixture) {
    let names = (1..=5).map(|file| format!("data_batch_{file}.bin")).chain(["test_batch.bin".to_owned()]);
    fs::create_dir(fixture.path("images")).unwrap();
    let mut state = 1_u32;
    for name in names {
        let mut bytes = Vec::new();
        for label in 0..4 {
            bytes.push(label);
            bytes.extend((0..3072).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            }));
        }
        fs::write(fixture.path("images").join(name), bytes).unwrap();
    }
}

#[test]
fn every_proxy_is_held_against_the_accuracies_the_same_with_any_number_of_threads() {
    let fixture = tables();
    images(&fixture);
    let with_images = ["--images", "images", "--batch", "4"];
    let one = rows(&fixture, &with_images, "1");
    let names: Vec<&str> = one.iter().map(|row| row["proxy"].as_str().unwrap()).collect();
    assert_eq!(names, ["parameters", "macs", "synflow", "naswot", "zen_score"]);
    for (row, again) in one.iter().zip(rows(&fixture, &with_images, "3")) {
        assert_eq!(row["agreement"], again["agreement"], "{row}");
        assert_eq!((row["networks"].as_u64(), row["column"].as_str()), (Some(6), Some("accuracy")));
        let [low, high] = [0, 1].map(|end| row["agreement"]["spearman_95"][end].as_f64().unwrap());
        let found = row["agreement"]["spearman"].as_f64().unwrap();
        assert!(-1.0 <= low && low <= found && found <= high && high <= 1.0, "{row}");
    }
    // The table's accuracies follow the costs of operations, 3 × 3 convolutions first.
    assert!(one[1]["agreement"]["spearman"].as_f64().unwrap() > 0.5, "{}", one[1]);
}

#[test]
fn what_cannot_be_compared_is_said() {
    let fixture = tables();
    let left = rows(&fixture, &["--proxies", "macs,parameters"], "2");
    assert_eq!(left.len(), 2);
    let with = |more: &[&str]| refusal(&fixture, &[&PROXIES[..], more].concat());
    let text = with(&["--proxies", "naswot"]);
    assert!(text.contains("`naswot`: it needs images") && text.contains("--images"), "{text}");
    let text = with(&["--images", "nowhere"]);
    assert!(text.contains("nowhere") && text.contains("no such folder"), "{text}");
    let mut words = PROXIES;
    words[7] = "201";
    let text = refusal(&fixture, &words);
    assert!(text.contains("draw 201 networks: 200 rows"), "{text}");
    words[5] = "accuracies";
    let text = refusal(&fixture, &words);
    assert!(text.contains("the column `accuracies`") && text.contains("did you mean `accuracy`"), "{text}");
}
