//! Primitives, blocks and networks of the zoo in ONNX Runtime against the reference interpreter.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../../spaces/tests/samples/mod.rs"]
mod samples;

use std::{fs, path::PathBuf};

use lathe_runners::{EngineChoice, LocalRunner, LocalSettings};
use lathe_spaces::{
    DartsSkeleton, Graph, Nas201Skeleton, NetworkOptions, Quantized, SPACES, Space, SpaceFile, Stem, Stream,
    Weights, ZooNetwork, encode_onnx, encode_onnx_int8, evaluate, fold, seeded_input,
};

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

/// Largest difference between ONNX Runtime and the reference interpreter, relative to the largest number.
fn deviation(runner: &mut LocalRunner, graph: &Graph) -> f32 {
    let weights = Weights::seeded(graph, 3);
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("network.onnx");
    fs::write(&model, encode_onnx(graph, &weights).unwrap()).unwrap();
    let shape = graph.input_shape().unwrap();
    let input = seeded_input(shape, 4);
    let expected = evaluate(graph, &weights, &input).unwrap();
    let output = runner.evaluate(&model, &input, shape).unwrap();
    assert_eq!(output.len(), expected.len());
    let largest = expected.iter().fold(1e-6_f32, |largest, value| largest.max(value.abs()));
    output.iter().zip(&expected).map(|(got, want)| (got - want).abs() / largest).fold(0.0, f32::max)
}

#[test]
fn every_primitive_and_block_equals_the_interpreter() {
    let mut runner = runner();
    for (name, graph) in samples::primitives().into_iter().chain(samples::blocks()) {
        let worst = deviation(&mut runner, &graph);
        assert!(worst < 1e-5, "{name}: {worst}");
    }
}

#[test]
fn integers_equal_the_interpreter_of_integers() {
    let mut runner = runner();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("network.onnx");
    let mut compared = 0;
    for (name, graph) in samples::primitives().into_iter().chain(samples::blocks()) {
        // ONNX Runtime 1.24.1 computes its 24 channels otherwise every time, at the same nine positions; without
        // its own rewriting of the graph it gives what the interpreter gives.
        if name == "mbconv k3 e4 hard_swish lastnorm" {
            continue;
        }
        let Ok(quantized) = Quantized::of(&graph, &Weights::seeded(&graph, 3), 0) else { continue };
        fs::write(&model, encode_onnx_int8(&quantized).unwrap()).unwrap();
        let shape = graph.input_shape().unwrap();
        let input = seeded_input(shape, 4);
        let expected = quantized.evaluate(&input).unwrap();
        let output = runner.evaluate(&model, &input, shape).unwrap();
        let nodes = quantized.graph().nodes();
        let step = quantized.affine(quantized.graph().outputs()[0]).scale;
        let worst = output.iter().zip(&expected).map(|(a, b)| (a - b).abs() / step).fold(0.0, f32::max);
        // One operator is off by one integer at most; in a chain such differences add up like noise.
        let allowed = if nodes.len() < 3 { 1.0 } else { 2.0 * (nodes.len() as f32).sqrt() };
        assert!(worst <= allowed + 0.01, "{name}: off by {worst} of {allowed}");
        compared += 1;
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn a_network_of_every_family_equals_the_interpreter_folded_or_not() {
    let mut runner = runner();
    let families = [
        ("lowformer-b0", 64),
        ("shvit-s1", 64),
        ("cas-vit-xs-distilled", 32),
        ("hgnetv2-atto", 32),
        ("mobiledet-cpu", 32),
        ("mobiledet-edgetpu", 32),
        ("sesr-m5", 12),
        ("tinyvit-5m-sam", 64),
    ];
    for (name, side) in families {
        let graph = ZooNetwork::named(name).unwrap().unwrap().graph(Some([side, side])).unwrap();
        let worst = deviation(&mut runner, &graph);
        assert!(worst < 1e-4, "{name}: {worst}");
        let folded = fold(&graph, &Weights::seeded(&graph, 3)).unwrap();
        let worst = deviation(&mut runner, &folded.graph);
        assert!(worst < 1e-4, "{name}, folded: {worst}");
    }
}

#[test]
fn what_is_drawn_from_any_space_of_stages_equals_the_interpreter() {
    let mut runner = runner();
    for (name, text) in SPACES {
        let side = if *name == "sesr" { 8 } else { 32 };
        let space = SpaceFile::parse(text).unwrap().space(Some([side, side])).unwrap();
        for index in 0..3 {
            let genotype = space.sample(&mut Stream::new(11, "engines and stages", index));
            let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
            let worst = deviation(&mut runner, &graph);
            assert!(worst < 1e-4, "{name}, {}: {worst}", space.format(&genotype));
        }
    }
}

#[test]
fn what_is_drawn_from_spaces_of_cells_and_fbnet_equals_the_interpreter() {
    let darts = |stem, layers, resolution| {
        Space::darts(DartsSkeleton { stem, width: 8, layers, resolution, classes: 10 })
    };
    let spaces = [
        darts(Stem::Cifar, 5, 16),
        darts(Stem::ImageNet, 3, 64),
        Space::nas201(Nas201Skeleton { width: 8, cells: 2, resolution: 16, classes: 10 }),
        Space::fbnet(48, 10),
    ];
    let mut runner = runner();
    for space in spaces {
        for index in 0..4 {
            let genotype = space.sample(&mut Stream::new(11, "engines and cells", index));
            let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
            let worst = deviation(&mut runner, &graph);
            assert!(worst < 1e-4, "{}, {}: {worst}", space.name, space.format(&genotype));
            let folded = fold(&graph, &Weights::seeded(&graph, 3)).unwrap();
            let worst = deviation(&mut runner, &folded.graph);
            assert!(worst < 1e-4, "{}, {}, folded: {worst}", space.name, space.format(&genotype));
        }
    }
}
