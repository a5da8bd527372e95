//! Primitives in ONNX Runtime against the reference interpreter.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../../spaces/tests/samples/mod.rs"]
mod samples;

use std::{fs, path::PathBuf};

use lathe_runners::{EngineChoice, LocalRunner, LocalSettings};
use lathe_spaces::{Weights, encode_onnx, evaluate, seeded_input};

fn needed(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable);
    PathBuf::from(value.unwrap_or_else(|| panic!("{variable} is not set: run `cargo xtask test`")))
}

fn runner() -> LocalRunner {
    let settings = LocalSettings {
        agent: Some(needed("LATHE_AGENT")),
        engine: EngineChoice::default(),
        library: Some(needed("ORT_DYLIB_PATH")),
        ..LocalSettings::new("test")
    };
    LocalRunner::start(settings).unwrap()
}

#[test]
fn every_primitive_equals_the_interpreter() {
    let mut runner = runner();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("network.onnx");
    for (name, graph) in samples::primitives() {
        let weights = Weights::seeded(&graph, 3);
        fs::write(&model, encode_onnx(&graph, &weights).unwrap()).unwrap();
        let shape = graph.input_shape().unwrap();
        let input = seeded_input(shape, 4);
        let expected = evaluate(&graph, &weights, &input).unwrap();
        let output = runner.evaluate(&model, &input, shape).unwrap();
        assert_eq!(output.len(), expected.len(), "{name}");
        let largest = expected.iter().fold(1e-6_f32, |largest, value| largest.max(value.abs()));
        let worst =
            output.iter().zip(&expected).map(|(got, want)| (got - want).abs() / largest).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{name}: {worst}");
    }
}
