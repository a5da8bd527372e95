//! `lathe space`, against the papers' own numbers.

use serde_json::Value;

use crate::fixture::{Fixture, stderr};

#[test]
fn published_networks_have_their_published_counts() {
    let fixture = Fixture::new("");
    let count = |words: &[&str]| -> Value {
        let output =
            fixture.command(&[&["space", "count", "--format", "json"], words].concat()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let cifar = count(&["darts", "PC_DARTS_cifar"]);
    assert_eq!(cifar["parameters"].as_u64().unwrap() / 1000, 3_634);
    assert_eq!(cifar["macs"].as_u64().unwrap() / 100_000, 5_566);
    // The text form is read as the name is.
    let text = cifar["genotype"].as_str().unwrap();
    assert_eq!(count(&["darts", text]), cifar);
    let image = count(&["darts", "PC_DARTS_image", "--width", "48", "--layers", "14", "--resolution", "224"]);
    assert_eq!(image["parameters"].as_u64().unwrap() / 1000, 5_342);
}

#[test]
fn samples_are_networks_of_the_space_and_files_are_never_overwritten() {
    let fixture = Fixture::new("");
    let lathe = |words: &[&str]| fixture.command(words).output().unwrap();
    let sampled = lathe(&["space", "sample", "nas201", "-n", "3", "--seed", "4"]);
    let text = String::from_utf8(sampled.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    let first = lathe(&["space", "export", "nas201", lines[0], "--file", "a.onnx"]);
    assert!(first.status.success(), "{}", stderr(&first));
    assert!(fixture.path("a.onnx").metadata().unwrap().len() > 10_000);
    assert_eq!(lathe(&["space", "export", "nas201", lines[0], "--file", "a.onnx"]).status.code(), Some(1));
    let wrong = lathe(&["space", "count", "nas201", "|nor_conv_3x4~0|+|a~0|b~1|+|c~0|d~1|e~2|"]);
    assert!(stderr(&wrong).contains("nor_conv_3x3"), "{}", stderr(&wrong));
}
