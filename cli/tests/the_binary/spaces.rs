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

#[test]
fn spaces_are_files_that_can_be_copied_edited_and_drawn_from() {
    let fixture = Fixture::new("");
    let lathe = |words: &[&str]| fixture.command(words).output().unwrap();
    let text = |output: &std::process::Output| String::from_utf8(output.stdout.clone()).unwrap();
    let list = text(&lathe(&["space", "list"]));
    let names =
        ["darts", "nas201", "fbnet", "mobiledets", "lowformer", "shvit", "casvit", "hgnetv2", "tinyvit"];
    for name in names.into_iter().chain(["sesr", "mobile-mix"]) {
        assert!(list.lines().any(|line| line.starts_with(name)), "{name} is not in:\n{list}");
    }
    let file = text(&lathe(&["space", "file", "lowformer"]));
    std::fs::write(fixture.path("mine.toml"), &file).unwrap();
    let drawn = |space: &str| text(&lathe(&["space", "sample", space, "--resolution", "64", "-n", "2"]));
    assert_eq!(drawn("mine.toml"), drawn("lowformer"));
    let sample = drawn("mine.toml");
    let genotype = sample.lines().next().unwrap();
    let count = lathe(&["space", "count", "mine.toml", genotype, "--format", "json", "--resolution", "64"]);
    let value: Value = serde_json::from_slice(&count.stdout).unwrap();
    assert!(value["macs"].as_u64().unwrap() > 0, "{}", stderr(&count));
    let export = ["space", "export", "mine.toml", genotype, "--file", "a.onnx", "--resolution", "64"];
    assert!(lathe(&export).status.success());
    assert!(fixture.path("a.onnx").is_file());

    std::fs::write(fixture.path("broken.toml"), file.replacen("conv", "convv", 1)).unwrap();
    for (words, expected) in [
        (vec!["broken.toml"], "failed to read the space in broken.toml"),
        (vec!["nowhere.toml"], "nowhere.toml"),
        (vec!["lowfromer"], "did you mean `lowformer`?"),
        (vec!["lowformer", "--width", "8"], "`lathe space file NAME`"),
    ] {
        let output = lathe(&[&["space", "show"][..], &words].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(stderr(&output).contains(expected), "{words:?}: {}", stderr(&output));
    }
}
