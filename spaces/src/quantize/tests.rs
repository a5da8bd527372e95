use super::*;
use crate::{DartsSkeleton, GraphBuilder, NetworkOptions, Shape, Space, Stem, evaluate, seeded_input};

fn darts() -> Space {
    Space::darts(DartsSkeleton { stem: Stem::Cifar, width: 8, layers: 3, resolution: 16, classes: 10 })
}

/// Mean square of the values over that of the differences, in decibels.
fn signal_to_noise(exact: &[f32], other: &[f32]) -> f64 {
    let square = |value: f64| value * value;
    let signal: f64 = exact.iter().map(|&value| square(f64::from(value))).sum();
    let noise: f64 = exact.iter().zip(other).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    10.0 * (signal / noise.max(1e-30)).log10()
}

/// Everything that a fold rewrites.
fn odd_graph() -> Graph {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(1, 4, 9, 9)).unwrap();
    let conv = builder.add("conv", OpSpec::conv(8, 3, 2), &[x]).unwrap();
    let norm = builder.add("norm", OpSpec::BatchNorm { affine: true }, &[conv]).unwrap();
    let bare = builder.add("bare", OpSpec::BatchNorm { affine: false }, &[norm]).unwrap();
    let swish = builder.add("swish", OpSpec::Activation { function: Function::Swish }, &[bare]).unwrap();
    let hard = builder.add("hard", OpSpec::Activation { function: Function::HardSigmoid }, &[swish]).unwrap();
    let zero = builder.add("zero", OpSpec::Zero { stride: 1 }, &[norm]).unwrap();
    let sum = builder.add("sum", OpSpec::Add, &[hard, zero, swish, norm]).unwrap();
    let alone = builder.add("alone", OpSpec::Add, &[zero, sum]).unwrap();
    let linear = builder.add("linear", OpSpec::Linear { out_features: 5, bias: false }, &[alone]).unwrap();
    builder.finish(&[linear]).unwrap()
}

#[test]
fn folding_changes_no_value() {
    let space = darts();
    let network = space.network(&space.published()[0].1, NetworkOptions::default()).unwrap();
    for graph in [odd_graph(), network] {
        let weights = Weights::seeded(&graph, 3);
        let input = seeded_input(graph.input_shape().unwrap(), 1);
        let (folded, folded_weights) = fold(&graph, &weights).unwrap();
        let ops: Vec<&str> = folded.nodes().iter().map(|node| node.op.name()).collect();
        assert!(!ops.contains(&"batch_norm") && !ops.contains(&"swish"), "{ops:?}");
        assert!(folded.nodes().iter().all(|node| node.op != OpSpec::Add || node.inputs.len() == 2));
        let before = evaluate(&graph, &weights, &input).unwrap();
        let after = evaluate(&folded, &folded_weights, &input).unwrap();
        assert!(signal_to_noise(&before, &after) > 100.0, "{before:?} {after:?}");
    }
}

#[test]
fn integers_compute_nearly_the_same() {
    let space = darts();
    let network = space.network(&space.published()[0].1, NetworkOptions::default()).unwrap();
    for (graph, least) in [(odd_graph(), 25.0), (network, 18.0)] {
        let weights = Weights::seeded(&graph, 3);
        let quantized = Quantized::of(&graph, &weights, 0).unwrap();
        let input = seeded_input(graph.input_shape().unwrap(), 9);
        assert_eq!(quantized, Quantized::of(&graph, &weights, 0).unwrap());
        let exact = evaluate(&graph, &weights, &input).unwrap();
        let found = signal_to_noise(&exact, &quantized.evaluate(&input).unwrap());
        assert!(found > least, "{found} dB");
    }
}

#[test]
fn every_workload_of_the_spaces_has_integers() {
    let spaces = [darts(), Space::fbnet(32, 10)];
    for workload in spaces.iter().flat_map(|space| space.workloads().unwrap()) {
        let graph = &workload.graph;
        let weights = Weights::seeded(graph, 0);
        let quantized = Quantized::of(graph, &weights, 0).unwrap();
        let input = seeded_input(graph.input_shape().unwrap(), 0);
        let exact = evaluate(graph, &weights, &input).unwrap();
        let found = signal_to_noise(&exact, &quantized.evaluate(&input).unwrap());
        assert!(found > 20.0, "{}: {found} dB", workload.label);
    }
}

#[test]
fn a_range_is_covered_and_zero_is_exact() {
    for range in [(-1.0, 3.0), (0.0, 0.5), (-7.0, 0.0), (0.0, 0.0)] {
        let affine = Affine::of(range);
        assert!(affine.dequantize(affine.quantize(0.0)).abs() < f64::EPSILON);
        for end in [range.0, range.1] {
            let error = affine.dequantize(affine.quantize(f64::from(end))) - f64::from(end);
            assert!(error.abs() <= 0.51 * f64::from(affine.scale), "{range:?}: {error}");
        }
    }
}

#[test]
fn a_small_convolution_is_what_the_formula_says() {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(1, 1, 1, 2)).unwrap();
    let conv = OpSpec::Conv2d {
        out_channels: 1,
        kernel: 1,
        stride: 1,
        padding: 0,
        dilation: 1,
        groups: 1,
        bias: true,
    };
    let conv = builder.add("conv", conv, &[x]).unwrap();
    let graph = builder.finish(&[conv]).unwrap();
    let quantized = Quantized::of(&graph, &Weights::seeded(&graph, 0), 0).unwrap();
    let [from, to] = [quantized.affine(0), quantized.affine(1)];
    let filter = quantized.filter(1).unwrap();
    let values = [0.4_f32, -0.3];
    let expected: Vec<i8> = values
        .iter()
        .map(|&value| {
            let q = i32::from(from.quantize(f64::from(value))) - i32::from(from.zero_point);
            let sum = q * i32::from(filter.weights[0]) + filter.bias[0];
            let real = f64::from(sum) * f64::from(from.scale) * f64::from(filter.scales[0]);
            to.quantize(real)
        })
        .collect();
    assert_eq!(filter.weights, [if filter.weights[0] > 0 { 127 } else { -127 }]);
    assert_eq!(quantized.evaluate_integers(&values).unwrap(), expected);
}

#[test]
fn what_has_no_integers_is_refused() {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(1, 2, 4, 4)).unwrap();
    let gate = builder.add("gate", OpSpec::Activation { function: Function::Sigmoid }, &[x]).unwrap();
    let both = builder.add("both", OpSpec::Concat, &[x, gate]).unwrap();
    let graph = builder.finish(&[both]).unwrap();
    let error = Quantized::of(&graph, &Weights::default(), 0).unwrap_err().to_string();
    assert!(error.contains("`gate` (sigmoid)"), "{error}");
}
