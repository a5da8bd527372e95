#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeSet;

use super::*;
use crate::onnx::message::{FLOAT, ValueInfo};
use crate::{
    DartsSkeleton, GraphBuilder, Nas201Skeleton, NetworkOptions, Space, Stem, Stream, Tensor, evaluate,
};

fn decoded(graph: &Graph) -> GraphMessage {
    let weights = Weights::seeded(graph, 5);
    let bytes = encode_onnx(graph, &weights).unwrap();
    assert_eq!(bytes, encode_onnx(graph, &weights).unwrap());
    let model = Model::decode(bytes.as_slice()).unwrap();
    assert_eq!(model.producer_name, "lathe");
    assert_eq!(model.opset_import[0].version, Some(OPERATOR_SET));
    model.graph.unwrap()
}

fn dims(value: &ValueInfo) -> Vec<i64> {
    let tensor = value.kind.clone().unwrap().tensor.unwrap();
    tensor.shape.unwrap().dims.iter().map(|dim| dim.value.unwrap()).collect()
}

/// Every input of a node is written before, names are unique, outputs are written.
fn assert_sound(message: &GraphMessage) {
    let mut written: BTreeSet<&str> = message.inputs.iter().map(|value| value.name.as_str()).collect();
    for tensor in &message.initializers {
        let width = if tensor.data_type == Some(FLOAT) { 4 } else { 8 };
        assert_eq!(tensor.raw.len() as i64, width * tensor.dims.iter().product::<i64>(), "{}", tensor.name);
        assert!(written.insert(&tensor.name), "{}", tensor.name);
    }
    let mut names = BTreeSet::new();
    for node in &message.nodes {
        assert!(names.insert(&node.name), "{}", node.name);
        for input in &node.inputs {
            assert!(written.contains(input.as_str()), "{} reads {input} before it is written", node.name);
        }
        for output in &node.outputs {
            assert!(written.insert(output), "{output} is written twice");
        }
    }
    for output in &message.outputs {
        assert!(written.contains(output.name.as_str()), "nobody writes {}", output.name);
    }
}

#[test]
fn networks_of_all_spaces_are_sound_files() {
    let stem = Stem::Cifar;
    let spaces = [
        Space::darts(DartsSkeleton { stem, width: 4, layers: 4, resolution: 16, classes: 10 }),
        Space::nas201(Nas201Skeleton { width: 4, cells: 1, resolution: 8, classes: 10 }),
        Space::fbnet(32, 10),
    ];
    for space in &spaces {
        for index in 0..5 {
            let genotype = space.sample(&mut Stream::new(1, "onnx", index));
            let graph = space
                .network(&genotype, NetworkOptions { auxiliary: true, ..NetworkOptions::default() })
                .unwrap();
            let message = decoded(&graph);
            assert_sound(&message);
            assert_eq!(message.inputs[0].name, "input");
            assert_eq!(dims(&message.inputs[0]), graph.input_shape().unwrap().dims().map(|x| x as i64));
            let outputs: Vec<_> = message.outputs.iter().map(|value| value.name.as_str()).collect();
            assert_eq!(outputs, &OUTPUTS[..graph.outputs().len()]);
            assert_eq!(dims(&message.outputs[0]), [1, 10]);
        }
        for workload in space.workloads().unwrap() {
            let message = decoded(&workload.graph);
            assert_sound(&message);
            assert_eq!(dims(&message.outputs[0])[1], workload.graph.output_shape().c as i64);
        }
    }
}

#[test]
fn every_parameter_is_in_the_file() {
    let stem = Stem::ImageNet;
    let space = Space::darts(DartsSkeleton { stem, width: 4, layers: 3, resolution: 64, classes: 10 });
    let graph = space.network(&space.published()[1].1, NetworkOptions::default()).unwrap();
    let message = decoded(&graph);
    let weights = Weights::seeded(&graph, 5);
    for (name, tensor) in &weights.0 {
        let found = message.initializers.iter().find(|found| found.name == *name).expect(name);
        let values: Vec<f32> =
            found.raw.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!(values, tensor.values, "{name}");
    }
}

#[test]
fn odd_graphs_are_files_too() {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(1, 4, 3, 3)).unwrap();
    let zero = builder.add("zero", OpSpec::Zero { stride: 2 }, &[x]).unwrap();
    let graph = builder.clone().finish(&[zero, x]).unwrap();
    let message = decoded(&graph);
    assert_sound(&message);
    assert_eq!(dims(&message.outputs[0]), [1, 4, 2, 2]);
    // A rectifier and a batch norm behind a linear layer.
    let linear = OpSpec::Linear { out_features: 5, bias: true };
    let linear = builder.add("linear", linear, &[x]).unwrap();
    let relu = builder.add("relu", OpSpec::Relu, &[linear]).unwrap();
    let norm = builder.add("norm", OpSpec::BatchNorm { affine: false }, &[relu]).unwrap();
    let graph = builder.finish(&[relu, norm]).unwrap();
    let message = decoded(&graph);
    assert_sound(&message);
    assert_eq!((dims(&message.outputs[0]), dims(&message.outputs[1])), (vec![1, 5], vec![1, 5, 1, 1]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(1, 2, 3, 3)).unwrap();
    let conv = builder.add("conv", OpSpec::conv(2, 1, 1), &[x]).unwrap();
    let clash = builder.add("input", OpSpec::Relu, &[conv]).unwrap();
    let relu = builder.add("relu", OpSpec::Relu, &[clash]).unwrap();
    let graph = builder.finish(&[relu]).unwrap();
    let mut weights = Weights::seeded(&graph, 0);
    assert_eq!(encode_onnx(&graph, &weights), Err(OnnxError::Name("input".into())));
    weights.0.insert("conv.weight".into(), Tensor { dims: vec![2, 2], values: vec![0.0; 4] });
    let error = encode_onnx(&graph, &weights).unwrap_err().to_string();
    assert!(error.contains("expected extents [2, 2, 1, 1], got [2, 2]"), "{error}");
    weights.0.clear();
    assert!(matches!(evaluate(&graph, &weights, &[0.0; 18]), Err(WeightsError::Missing { .. })));
    assert!(matches!(evaluate(&graph, &weights, &[0.0]), Err(WeightsError::Input { .. })));
}

/// The largest rank in a file: ranks change through `Reshape`, whose extents are in the file, and `Flatten`.
fn written_rank(graph: &Graph) -> usize {
    let message = decoded(graph);
    let extents = |name: &str| {
        let tensor = message.initializers.iter().find(|tensor| tensor.name == name);
        tensor.map(|tensor| tensor.dims[0] as usize)
    };
    let ends = message.inputs.iter().chain(&message.outputs).map(|value| dims(value).len());
    let floats = message.initializers.iter().filter(|tensor| tensor.data_type == Some(FLOAT));
    let between = message.nodes.iter().filter_map(|node| match node.kind.as_str() {
        "Reshape" => extents(&node.inputs[1]),
        "Transpose" => Some(node.attributes.iter().find(|known| known.name == "perm").unwrap().ints.len()),
        _ => None,
    });
    ends.chain(floats.map(|tensor| tensor.dims.len())).chain(between).max().unwrap()
}

#[test]
fn the_largest_rank_of_an_operator_is_that_of_its_file() {
    let shape = Shape::new(2, 24, 6, 6);
    let conv = OpSpec::conv(8, 3, 1);
    let attention = |window, relative_bias| OpSpec::Attention {
        heads: 2,
        key_dim: 3,
        value_dim: 6,
        window,
        relative_bias,
    };
    let transposed =
        OpSpec::ConvTranspose2d { out_channels: 4, kernel: 4, stride: 2, padding: 1, groups: 1, bias: true };
    let average = OpSpec::AvgPool { kernel: 3, stride: 1, padding: 1, count_include_pad: false };
    let single = [
        conv,
        transposed,
        average,
        attention(None, true),
        attention(Some(3), true),
        attention(Some(2), false),
        OpSpec::BatchNorm { affine: false },
        OpSpec::Relu,
        OpSpec::Activation { function: Function::Swish },
        OpSpec::MaxPool { kernel: 3, stride: 1, padding: 1 },
        OpSpec::GlobalAvgPool,
        OpSpec::Linear { out_features: 3, bias: true },
        OpSpec::Add,
        OpSpec::Mean,
        OpSpec::Concat,
        OpSpec::Mul,
        OpSpec::Crop { top: 1, left: 1 },
        OpSpec::CropEnd { bottom: 1, right: 1 },
        OpSpec::Pad { top: 1, left: 0, bottom: 0, right: 1 },
        OpSpec::ChannelShuffle { groups: 3 },
        OpSpec::Zero { stride: 1 },
        OpSpec::Prelu,
        OpSpec::GroupNorm { groups: 4 },
        OpSpec::LayerNorm,
        OpSpec::ScalarAffine,
        OpSpec::Slice { start: 1, channels: 3 },
        OpSpec::DepthToSpace { block: 2 },
    ];
    for op in single {
        let mut builder = GraphBuilder::new();
        let x = builder.input("x", shape).unwrap();
        let inputs = if matches!(op, OpSpec::Add | OpSpec::Mean | OpSpec::Concat | OpSpec::Mul) {
            vec![x, x]
        } else {
            vec![x]
        };
        let y = builder.add("op", op, &inputs).unwrap();
        let graph = builder.finish(&[y]).unwrap();
        assert_eq!(op.max_tensor_rank(), written_rank(&graph), "{}", op.name());
        assert_eq!(graph.max_tensor_rank(), op.max_tensor_rank());
    }
}
