//! Counts of small graphs, worked out by hand, and the reference interpreter on them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::float_cmp,
    reason = "tests; small integers are exact"
)]

use std::collections::BTreeMap;

use lathe_spaces::{
    Graph, GraphBuilder, Level, NodeId, OpSpec, Shape, Tensor, Weights, WeightsError, Workload, evaluate,
    seeded_input,
};

/// A graph of one operator on one input.
fn single(shape: Shape, op: OpSpec) -> Graph {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", shape).unwrap();
    let y = builder.add("op", op, &[x]).unwrap();
    builder.finish(&[y]).unwrap()
}

fn weights(tensors: &[(&str, &[usize], &[f32])]) -> Weights {
    let tensor = |&(name, dims, values): &(&str, &[usize], &[f32])| {
        (name.to_owned(), Tensor { dims: dims.to_vec(), values: values.to_vec() })
    };
    Weights(tensors.iter().map(tensor).collect::<BTreeMap<_, _>>())
}

fn run(graph: &Graph, weights: &Weights, input: &[f32]) -> Vec<f32> {
    evaluate(graph, weights, input).unwrap()
}

/// 0, 1, 2, …
fn ramp(count: u16) -> Vec<f32> {
    (0..count).map(f32::from).collect()
}

/// input → conv → relu, and input + relu.
fn residual() -> (GraphBuilder, NodeId) {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(1, 2, 4, 4)).unwrap();
    let conv = builder.add("conv", OpSpec::conv(2, 3, 1), &[x]).unwrap();
    let relu = builder.add("relu", OpSpec::Relu, &[conv]).unwrap();
    let sum = builder.add("sum", OpSpec::Add, &[x, relu]).unwrap();
    (builder, sum)
}

#[test]
fn costs_of_a_residual_block() {
    let (builder, sum) = residual();
    let graph = builder.finish(&[sum]).unwrap();
    assert_eq!(graph.macs(), 2 * 2 * 9 * 16);
    assert_eq!(graph.parameter_count(), 36);
    // Read and written: conv 32 + 32, relu 32 + 32, sum 64 + 32, and 36 weights.
    assert_eq!(graph.bytes_moved(4), (64 + 64 + 96 + 36) * 4);
    // Input, convolution and rectifier (or input, rectifier and sum) live at once.
    assert_eq!(graph.peak_activation_bytes(4), 3 * 32 * 4);
}

#[test]
fn bytes_of_an_operator() {
    let (builder, sum) = residual();
    let graph = builder.finish(&[sum]).unwrap();
    let shape = Shape::new(1, 2, 4, 4);
    let of = |op: OpSpec, inputs: &[Shape]| op.bytes_moved(inputs, shape, 4);
    let conv = of(OpSpec::conv(2, 3, 1), &[shape]);
    assert_eq!((conv.read, conv.written, conv.parameters, conv.total()), (128, 128, 144, 400));
    assert_eq!(of(OpSpec::Add, &[shape, shape]).read, 256);
    // A gate per channel is read as it is, once.
    assert_eq!(of(OpSpec::Mul, &[shape, Shape::new(1, 2, 1, 1)]).read, 136);
    // Learned, not the statistics beside it.
    assert_eq!(of(OpSpec::BatchNorm { affine: true }, &[shape]).parameters, 16);
    assert_eq!(of(OpSpec::Input, &[]).total(), 0);
    let sum: u64 = graph
        .nodes()
        .iter()
        .map(|node| {
            let inputs: Vec<Shape> = node.inputs.iter().map(|&input| graph.nodes()[input].shape).collect();
            node.op.bytes_moved(&inputs, node.shape, 4).total()
        })
        .sum();
    assert_eq!(graph.bytes_moved(4), sum);
}

#[test]
fn nodes_without_readers_are_dropped_and_shapes_are_checked() {
    let (mut builder, sum) = residual();
    builder.add("unused", OpSpec::Relu, &[sum]).unwrap();
    let error = builder.add("sum", OpSpec::Relu, &[sum]).unwrap_err();
    assert_eq!(error.to_string(), "add node `sum`: the name is taken");
    let error = builder.add("late", OpSpec::Relu, &[99]).unwrap_err();
    assert!(error.to_string().contains("99 is not an earlier node"), "{error}");
    let pool = builder.add("pool", OpSpec::GlobalAvgPool, &[sum]).unwrap();
    let error = builder.add("bad", OpSpec::Add, &[sum, pool]).unwrap_err();
    assert!(error.to_string().contains("1x2x1x1, which does not fit 1x2x4x4"), "{error}");
    assert_eq!(builder.finish(&[sum]).unwrap().nodes().len(), 4);
}

#[test]
fn a_workload_is_its_computation_not_its_name() {
    let shape = Shape::new(1, 8, 6, 6);
    let one = Workload::new("one", Level::Operator, single(shape, OpSpec::conv(8, 3, 1)));
    let mut builder = GraphBuilder::new();
    let x = builder.input("elsewhere", shape).unwrap();
    let y = builder.add("other", OpSpec::conv(8, 3, 1), &[x]).unwrap();
    builder.drop_path(y);
    let other = Workload::new("other", Level::Fixed, builder.finish(&[y]).unwrap());
    assert_eq!(one.id(), other.id());
    let strided = Workload::new("one", Level::Operator, single(shape, OpSpec::conv(8, 3, 2)));
    assert_ne!(one.id(), strided.id());
    // Databases are keyed by it: it may never change.
    assert_eq!(one.id().to_string(), "4f5ed3e3f4a96cb2bf8838fdc97025d6");
    let text = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<Workload>(&text).unwrap(), one);
}

#[test]
fn convolutions_by_hand() {
    // Two groups, stride 2, no padding, with bias: each group weighs its corners.
    let op = OpSpec::Conv2d {
        out_channels: 2,
        kernel: 2,
        stride: 2,
        padding: 0,
        dilation: 1,
        groups: 2,
        bias: true,
    };
    let graph = single(Shape::new(1, 2, 2, 4), op);
    let tensors = weights(&[
        ("op.weight", &[2, 1, 2, 2], &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 10.0]),
        ("op.bias", &[2], &[0.5, 0.25]),
    ]);
    assert_eq!(run(&graph, &tensors, &ramp(16)), [0.5, 2.5, 130.25, 150.25]);
    // Dilation 2 with padding 2 on a 3×3 map: the middle sees the corners.
    let graph = single(Shape::new(1, 1, 3, 3), OpSpec::depthwise(1, 3, 1, 2));
    let tensors = weights(&[("op.weight", &[1, 1, 3, 3], &[1.0; 9])]);
    assert_eq!(run(&graph, &tensors, &ramp(9))[4], 4.0);
    assert_eq!(run(&graph, &tensors, &ramp(9))[0], 0.0 + 2.0 + 6.0 + 8.0);
}

#[test]
fn pools_by_hand() {
    let pool = |count_include_pad| OpSpec::AvgPool { kernel: 3, stride: 1, padding: 1, count_include_pad };
    let shape = Shape::new(1, 1, 2, 2);
    let none = Weights::default();
    assert_eq!(run(&single(shape, pool(false)), &none, &[1.0, 2.0, 3.0, 6.0]), [3.0; 4]);
    assert_eq!(run(&single(shape, pool(true)), &none, &[9.0, 9.0, 9.0, 9.0]), [4.0; 4]);
    let max = OpSpec::MaxPool { kernel: 3, stride: 2, padding: 1 };
    assert_eq!(run(&single(Shape::new(1, 1, 3, 3), max), &none, &[-1.0; 9]), [-1.0; 4]);
    let mean = single(Shape::new(1, 2, 2, 2), OpSpec::GlobalAvgPool);
    assert_eq!(run(&mean, &none, &ramp(8)), [1.5, 5.5]);
}

#[test]
fn rearrangements_by_hand() {
    let none = Weights::default();
    let shuffle = single(Shape::new(1, 6, 1, 1), OpSpec::ChannelShuffle { groups: 2 });
    assert_eq!(run(&shuffle, &none, &ramp(6)), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let crop = single(Shape::new(1, 1, 2, 3), OpSpec::Crop { top: 1, left: 2 });
    assert_eq!(run(&crop, &none, &ramp(6)), [5.0]);
    let zero = single(Shape::new(1, 1, 3, 3), OpSpec::Zero { stride: 2 });
    assert_eq!(run(&zero, &none, &[f32::NAN; 9]), [0.0; 4]);
    // Two images: concatenation is image by image.
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(2, 1, 1, 1)).unwrap();
    let relu = builder.add("relu", OpSpec::Relu, &[x]).unwrap();
    let both = builder.add("both", OpSpec::Concat, &[x, relu]).unwrap();
    assert_eq!(run(&builder.finish(&[both]).unwrap(), &none, &[-1.0, 2.0]), [-1.0, 0.0, 2.0, 2.0]);
}

#[test]
fn norms_and_linear_layers_by_hand() {
    let norm = single(Shape::new(1, 2, 1, 2), OpSpec::BatchNorm { affine: true });
    let variance = 4.0 - 1e-5;
    let tensors = weights(&[
        ("op.weight", &[2], &[1.0, 10.0]),
        ("op.bias", &[2], &[0.0, 1.0]),
        ("op.running_mean", &[2], &[1.0, 2.0]),
        ("op.running_var", &[2], &[variance, variance]),
    ]);
    for (got, expected) in run(&norm, &tensors, &ramp(4)).iter().zip([-0.5, 0.0, 1.0, 6.0]) {
        assert!((got - expected).abs() < 1e-5, "{got} {expected}");
    }
    let linear = single(Shape::new(2, 2, 1, 1), OpSpec::Linear { out_features: 1, bias: true });
    let tensors = weights(&[("op.weight", &[1, 2], &[2.0, 3.0]), ("op.bias", &[1], &[1.0])]);
    assert_eq!(run(&linear, &tensors, &ramp(4)), [4.0, 14.0]);
}

#[test]
fn seeded_weights_are_scaled_and_repeatable() {
    let graph = single(Shape::new(1, 64, 8, 8), OpSpec::conv(64, 1, 1));
    let seeded = Weights::seeded(&graph, 1);
    assert_eq!(seeded, Weights::seeded(&graph, 1));
    assert_ne!(seeded, Weights::seeded(&graph, 2));
    seeded.check(&graph).unwrap();
    let values = &seeded.0["op.weight"].values;
    let square: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
    assert!((square / values.len() as f64 * 64.0 - 1.0).abs() < 0.1, "{square}");
    let wrong =
        Weights(BTreeMap::from([("op.weight".into(), Tensor { dims: vec![64, 64, 1, 1], values: vec![] })]));
    assert!(matches!(wrong.check(&graph), Err(WeightsError::Values { expected: 4096, got: 0, .. })));
    let input = seeded_input(Shape::new(1, 3, 64, 64), 0);
    let mean: f64 = input.iter().map(|value| f64::from(*value)).sum::<f64>() / input.len() as f64;
    assert!(mean.abs() < 0.05, "{mean}");
}
