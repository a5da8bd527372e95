//! `lathe zoo`.

use serde_json::Value;

use crate::fixture::{Fixture, TINY, stderr};

#[test]
fn networks_are_listed_shown_copied_changed_and_exported() {
    let fixture = Fixture::new(TINY);
    let list = fixture.succeed(&["zoo", "list"]);
    assert!(list.lines().any(|line| line.contains("shvit-s1") && line.contains("241.32")), "{list}");
    let json = fixture.succeed(&["zoo", "show", "sesr-m5", "--format", "json"]);
    let shown: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&shown["reference_parameters"], &shown["output"]), (&13520.into(), &"1x1x360x640".into()));

    let file = fixture.succeed(&["zoo", "show", "sesr-m5", "--file"]);
    std::fs::write(fixture.path("mine.toml"), file.replace("repeat = 5", "repeat = 2")).unwrap();
    let table = fixture.succeed(&["zoo", "show", "mine.toml"]);
    assert!(table.contains("collapsible k3 p256 prelu res"), "{table}");
    fixture.succeed(&["zoo", "export", "mine.toml", "--resolution", "16", "--file", "mine.onnx"]);
    assert!(fixture.path("mine.onnx").exists());
    let blocks = fixture.succeed(&["zoo", "blocks"]);
    assert!(blocks.contains("tucker") && blocks.contains("k3, i25, o75"), "{blocks}");

    let failed = fixture.lathe(&["zoo", "show", "shvit-s9"]);
    assert!(!failed.status.success());
    assert!(stderr(&failed).contains("lathe zoo list"), "{}", stderr(&failed));
}

#[test]
fn networks_are_timed_beside_their_counts() {
    let fixture = Fixture::new(TINY);
    let words = ["zoo", "measure", "sesr-m3", "sesr-m5", "--resolution", "16", "--device", "local"];
    let json = fixture.succeed(&[&words[..], &["--seconds", "0.05", "--format", "json"]].concat());
    let figures: Value = serde_json::from_str(&json).unwrap();
    let networks = figures["networks"].as_array().unwrap();
    assert_eq!(networks.len(), 2);
    for network in networks {
        assert_eq!(network["outcome"], "ok");
        assert!(
            network["summary"]["median"].as_f64().unwrap() > 0.0 && network["macs"].as_u64().unwrap() > 0
        );
    }
    assert!(figures["kendall_tau_of_macs"].as_f64().unwrap().abs() <= 1.0);
    let table = fixture.succeed(&[&words[..], &["--seconds", "0.05", "--only-missing"]].concat());
    assert!(table.contains("GMAC/s") && table.contains("Kendall's tau"), "{table}");

    // In integers: SESR has them, attention has none and says so.
    let words = ["zoo", "measure", "sesr-m3", "shvit-s1", "--resolution", "64", "--device", "local"];
    let json = fixture
        .succeed(&[&words[..], &["--precision", "int8", "--seconds", "0.05", "--format", "json"]].concat());
    let figures: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(figures["networks"][0]["outcome"], "ok", "{figures}");
    assert_eq!(figures["networks"][1]["outcome"], "unsupported", "{figures}");
    assert!(figures["networks"][1]["message"].as_str().unwrap().contains("batch_norm"), "{figures}");
}

#[test]
fn a_page_holds_two_devices_and_two_types_of_numbers() {
    let fixture = Fixture::new(TINY);
    fixture.succeed(&["device", "add", "ethos", "--ethos-u", "u65-512"]);
    let words =
        ["zoo", "measure", "mobiledet-dsp", "hgnetv2-atto", "--resolution", "32", "--seconds", "0.05"];
    let both = ["--device", "local", "--device", "ethos", "--precision", "fp32", "--precision", "int8"];
    let page = fixture.succeed(&[&words[..], &both, &["--format", "markdown"]].concat());
    // The NPU has no floats: one column of integers, beside both types of the processor.
    let columns = "| local fp32 | local int8 | ethos int8, compiler estimate | GMAC/s, local fp32 |";
    assert!(page.contains(columns) && !page.contains("ethos fp32"), "{page}");
    let row = page.lines().find(|line| line.starts_with("| mobiledet-dsp |")).unwrap();
    assert!(row.contains("ms") || row.contains("µs"), "{row}");
    assert!(!row.contains("unsupported") && !row.contains("not timed"), "{row}");
    // Asked for floats alone, it says what it needs.
    let output = fixture.lathe(&[&words[..], &["--device", "ethos"]].concat());
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("computes with int8 only"), "{}", stderr(&output));
}
