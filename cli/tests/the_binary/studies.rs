//! `lathe front` and `lathe run --seeds`: several runs that share what they can.

use std::fs;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::fixture::{Fixture, TINY, events, of_kind, stderr};

/// Two targets, far above the tiny networks.
const FRONT: [&str; 16] = [
    "front",
    "run.toml",
    "--targets-ms",
    "40,60",
    "--seeds",
    "2",
    "--compare",
    "macs,unconstrained",
    "--evolve",
    "8",
    "--evolve-images",
    "40",
    "--evolve-proxy",
    "synflow",
    "--directory",
    "study",
];

fn summary(fixture: &Fixture) -> Value {
    serde_json::from_str(&fs::read_to_string(fixture.path("study/summary.json")).unwrap()).unwrap()
}

#[test]
fn a_front_shares_measurements_fit_and_warm_up_and_compares_all_networks() {
    let fixture = Fixture::steady(TINY);
    let output = fixture.lathe(&FRONT);
    assert!(output.status.success(), "{}", stderr(&output));
    // One measurement for all: no member timed an operator.
    let measured = events(&fixture.path("study/measured"));
    assert_eq!(of_kind(&measured, "device").len(), 1);
    for seed in ["seed-1", "seed-2"] {
        let mut warm = Vec::new();
        for (name, trained) in [
            ("unconstrained", 3),
            ("latency-40.000ms", 1),
            ("latency-60.000ms", 1),
            ("macs-40.000ms", 1),
            ("macs-60.000ms", 1),
            ("evolved-40.000ms", 1),
            ("evolved-60.000ms", 1),
        ] {
            let run = fixture.path("study").join(seed).join(name);
            let events = events(&run);
            assert_eq!(of_kind(&events, "trained").len(), trained, "{seed} {name}");
            assert_eq!(of_kind(&events, "shared").len(), 1, "{seed} {name}");
            assert_eq!(of_kind(&events, "fitted")[0], of_kind(&measured, "fitted")[0], "{seed} {name}");
            assert!(run.join("report.html").is_file());
            assert!(of_kind(&events, "trained")[0]["validation_accuracy"].is_f64());
            if let Some(first) = of_kind(&events, "epoch").first() {
                warm.push((first["train_loss"].as_f64().unwrap().to_bits(), first["genotype"].to_string()));
            } else {
                let bred = &of_kind(&events, "bred")[0];
                assert_eq!((bred["evaluations"].as_u64(), bred["images"].as_u64()), (Some(8), Some(40)));
            }
        }
        assert_eq!(warm.len(), 5);
        warm.dedup();
        assert_eq!(warm.len(), 1, "the members of {seed} did not begin with one warm-up");
    }
    let summary = summary(&fixture);
    let networks = summary["networks"].as_array().unwrap();
    assert_eq!(networks.len(), 2 * (3 + 6));
    for network in networks {
        assert!(network["latencies"]["local (1 thread)"]["median"].as_f64().unwrap() > 0.0, "{network}");
    }
    let chosen = |approach: &str| {
        networks.iter().filter(|network| network["approach"] == approach && network["chosen"] == true).count()
    };
    assert_eq!((chosen("latency"), chosen("unconstrained")), (2, 1), "one of the seeds per target");
    let page = fs::read_to_string(fixture.path("study/study.html")).unwrap();
    for text in ["Hypervolume", "unconstrained", "evolved", "random", "PC_DARTS_cifar"] {
        assert!(page.contains(text), "{text}");
    }
    let table = fixture.succeed(&["show", "study", "--format", "markdown"]);
    assert!(table.contains("| latency | 40.000 ms | 2 |"), "{table}");

    // A finished study is not repeated, a resumed one must be the same, a new one needs a new place.
    let rows = |text: &str| text.lines().filter(|line| line.contains("member ")).count();
    let again = fixture.lathe(&[&FRONT[..], &["--resume"]].concat());
    assert!(again.status.success() && rows(&stderr(&again)) == 0, "{}", stderr(&again));
    let exists = fixture.lathe(&FRONT);
    assert_eq!(exists.status.code(), Some(1));
    assert!(stderr(&exists).contains("holds a study already"), "{}", stderr(&exists));
    let other = FRONT.map(|word| if word == "40,60" { "40,70" } else { word });
    let changed = fixture.lathe(&[&other[..], &["--resume"]].concat());
    assert!(stderr(&changed).contains("begun with other"), "{}", stderr(&changed));
}

#[test]
fn an_interrupted_study_goes_on_and_ends_like_one_that_was_not() {
    let genotypes = |fixture: &Fixture| -> Vec<String> {
        let summary = summary(fixture);
        let networks = summary["networks"].as_array().unwrap().iter();
        networks.map(|network| format!("{} {}", network["genotype"], network["test_accuracy"])).collect()
    };
    let words = ["run", "run.toml", "--seeds", "2", "--directory", "study"];
    let free = TINY.replace("target_quantile = 0.9\n", "");
    let whole = Fixture::steady(&free);
    whole.succeed(&words);
    let broken = Fixture::steady(&free);
    let mut child = broken.command(&words).stderr(std::process::Stdio::null()).spawn().unwrap();
    // In the search of the second seed.
    let second = broken.path("study/seed-2/unconstrained/record.jsonl");
    while child.try_wait().unwrap().is_none()
        && !fs::read_to_string(&second).is_ok_and(|text| text.contains("\"event\":\"epoch\""))
    {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // Where it has ended already, there is nobody to be stopped: the second half of the test still holds.
    let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGINT);
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 130)), "{code:?}");
    broken.succeed(&[&words[..], &["--resume"]].concat());
    assert_eq!(genotypes(&broken), genotypes(&whole));
}

#[test]
fn what_a_study_cannot_do_is_told_at_once() {
    let fixture = Fixture::steady(&TINY.replace("target_quantile = 0.9\n", ""));
    for (words, expected) in [
        (vec!["--compare", "macs"], "need targets"),
        (vec!["--quantiles", "1.5"], "expected a number from 0 to 1"),
        (vec!["--targets-ms", "0"], "expected milliseconds above zero"),
        (vec!["--compare", "evolved"], "possible values: macs, unconstrained"),
    ] {
        let output = fixture.lathe(&[&["front", "run.toml"][..], &words].concat());
        let text = stderr(&output);
        assert!(!output.status.success() && text.contains(expected), "{words:?}: {text}");
    }
    // A target that no network meets ends its member, not the study.
    let fixture =
        Fixture::steady(&TINY.replace("random = 1", "random = 0").replace("[\"PC_DARTS_cifar\"]", "[]"));
    let words = ["front", "run.toml", "--targets-ms", "0.001,50", "--directory", "study"];
    fixture.succeed(&words);
    let summary = summary(&fixture);
    let failed = summary["groups"].as_array().unwrap().iter().find(|group| group["networks"] == 0).unwrap();
    assert!(failed["failed"][0].as_str().unwrap().contains("the fastest may need"), "{failed}");
}
