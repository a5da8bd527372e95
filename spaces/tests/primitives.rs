//! Primitives: outputs worked out by hand, counts, errors, and what has no form of integers.
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]

mod samples;

use std::collections::BTreeMap;

use lathe_spaces::{
    Graph, GraphBuilder, OpError, OpSpec, Quantized, Shape, Tensor, Weights, encode_onnx, encode_onnx_int8,
    encode_tflite, evaluate, seeded_input,
};

fn single(shape: Shape, op: OpSpec) -> Graph {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", shape).unwrap();
    let y = builder.add("op", op, &[x]).unwrap();
    builder.finish(&[y]).unwrap()
}

/// Output of an operator with these tensors.
fn run(shape: Shape, op: OpSpec, tensors: &[(&str, &[f32])], input: &[f32]) -> Vec<f32> {
    let graph = single(shape, op);
    let all = graph.parameters();
    let found = |suffix: &str| all.iter().find(|spec| spec.suffix == suffix).unwrap().dims.clone();
    let tensors = tensors.iter().map(|&(suffix, values)| {
        (format!("op.{suffix}"), Tensor { dims: found(suffix), values: values.to_vec() })
    });
    evaluate(&graph, &Weights(tensors.collect::<BTreeMap<_, _>>()), input).unwrap()
}

#[test]
fn elements_by_hand() {
    let two = Shape::new(1, 2, 1, 2);
    assert_eq!(
        run(two, OpSpec::Prelu, &[("weight", &[0.5, 2.0])], &[-2.0, 4.0, -1.0, 3.0]),
        [-1.0, 4.0, -2.0, 3.0]
    );
    let affine = [("weight", &[3.0][..]), ("bias", &[-1.0][..])];
    assert_eq!(run(two, OpSpec::ScalarAffine, &affine, &[0.0, 1.0, 2.0, 3.0]), [-1.0, 2.0, 5.0, 8.0]);
    // Deviation √(1 + ε) about a mean of 1.
    let norm = [("weight", &[1.0, 10.0][..]), ("bias", &[0.0, 5.0][..])];
    let got = run(two, OpSpec::LayerNorm, &norm, &[0.0, 4.0, 2.0, 2.0]);
    let one = 1.0 / 1.00001_f32.sqrt();
    for (got, want) in got.iter().zip([-one, one, 5.0 + 10.0 * one, 5.0 - 10.0 * one]) {
        assert!((got - want).abs() < 1e-5, "{got} {want}");
    }
    let got = run(two, OpSpec::GroupNorm { groups: 2 }, &norm, &[0.0, 2.0, 3.0, 1.0]);
    for (got, want) in got.iter().zip([-one, one, 5.0 + 10.0 * one, 5.0 - 10.0 * one]) {
        assert!((got - want).abs() < 1e-5, "{got} {want}");
    }
}

#[test]
fn moves_by_hand() {
    let map = Shape::new(1, 1, 2, 2);
    let numbers = [1.0, 2.0, 3.0, 4.0];
    let pad = OpSpec::Pad { top: 0, left: 1, bottom: 1, right: 0 };
    assert_eq!(run(map, pad, &[], &numbers), [0.0, 1.0, 2.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0]);
    assert_eq!(run(map, OpSpec::CropEnd { bottom: 1, right: 0 }, &[], &numbers), [1.0, 2.0]);
    let deep = Shape::new(1, 4, 1, 1);
    assert_eq!(run(deep, OpSpec::DepthToSpace { block: 2 }, &[], &numbers), numbers);
    assert_eq!(run(deep, OpSpec::Slice { start: 1, channels: 2 }, &[], &numbers), [2.0, 3.0]);
    let transposed = |kernel, stride, padding| OpSpec::ConvTranspose2d {
        out_channels: 1,
        kernel,
        stride,
        padding,
        groups: 1,
        bias: false,
    };
    let row = Shape::new(1, 1, 1, 2);
    // Stride 2: taps of neighbours don't overlap.
    let taps = [("weight", &[1.0, 10.0, 100.0, 1000.0][..])];
    let got = run(row, transposed(2, 2, 0), &taps, &[1.0, 2.0]);
    assert_eq!(got, [1.0, 10.0, 2.0, 20.0, 100.0, 1000.0, 200.0, 2000.0]);
}

#[test]
fn attention_by_hand() {
    // One query that is zero looks at both tokens alike; a large one at its own.
    let op = OpSpec::Attention { heads: 1, key_dim: 1, value_dim: 1, window: None, relative_bias: false };
    let shape = Shape::new(1, 3, 1, 2);
    let got = run(shape, op, &[], &[0.0, 100.0, 1.0, 2.0, 10.0, 20.0]);
    assert_eq!(got, [15.0, 20.0]);
    // Biases prefer the token itself, whatever the queries.
    let op = OpSpec::Attention { heads: 1, key_dim: 1, value_dim: 1, window: None, relative_bias: true };
    let got = run(shape, op, &[("bias", &[100.0, 0.0])], &[0.0, 0.0, 1.0, 2.0, 10.0, 20.0]);
    assert_eq!(got, [10.0, 20.0]);
    let op = OpSpec::Attention { heads: 1, key_dim: 1, value_dim: 1, window: Some(1), relative_bias: false };
    assert_eq!(run(shape, op, &[], &[0.0, 0.0, 1.0, 2.0, 10.0, 20.0]), [10.0, 20.0]);
}

#[test]
fn costs_by_hand() {
    let attention =
        |window| OpSpec::Attention { heads: 3, key_dim: 4, value_dim: 5, window, relative_bias: true };
    let shape = Shape::new(2, 39, 4, 6);
    let graph = single(shape, attention(None));
    // Images × heads × tokens² × (keys + values).
    assert_eq!(graph.macs(), 2 * 3 * 24 * 24 * 9);
    assert_eq!((graph.parameter_count(), graph.max_tensor_rank()), (3 * 24, 4));
    let graph = single(shape, attention(Some(2)));
    assert_eq!(graph.macs(), 2 * 6 * 3 * 4 * 4 * 9);
    assert_eq!((graph.parameter_count(), graph.max_tensor_rank()), (3 * 4, 6));
    let up =
        OpSpec::ConvTranspose2d { out_channels: 5, kernel: 4, stride: 2, padding: 1, groups: 1, bias: true };
    let graph = single(Shape::new(1, 3, 4, 4), up);
    assert_eq!(graph.output_shape(), Shape::new(1, 5, 8, 8));
    assert_eq!((graph.macs(), graph.parameter_count()), (16 * 3 * 5 * 16, 3 * 5 * 16 + 5));
    let norm = single(Shape::new(1, 8, 4, 4), OpSpec::GroupNorm { groups: 2 });
    assert_eq!((norm.macs(), norm.parameter_count(), norm.bytes_moved(4)), (0, 16, (256 + 16) * 4));
}

#[test]
fn errors_say_what_does_not_fit() {
    let shape = Shape::new(1, 6, 5, 5);
    let window =
        OpSpec::Attention { heads: 1, key_dim: 2, value_dim: 2, window: Some(2), relative_bias: false };
    let refused = [
        (window, "can't be cut into windows of 2; pad them"),
        (OpSpec::DepthToSpace { block: 2 }, "6 channels can't be divided into 4 groups"),
        (OpSpec::GroupNorm { groups: 4 }, "6 channels can't be divided into 4 groups"),
        (OpSpec::Slice { start: 4, channels: 3 }, "describe 7 channels, its input is 1x6x5x5"),
        (OpSpec::CropEnd { bottom: 5, right: 0 }, "does not fit into 1x6x5x5"),
    ];
    for (op, expected) in refused {
        let error = op.infer(&[shape]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let one = Shape { c: 1, ..shape };
    assert_eq!(OpSpec::Add.infer(&[shape, one]), Ok(shape));
    assert!(matches!(OpSpec::Add.infer(&[one, shape]), Err(OpError::Mismatch { .. })));
    assert!(matches!(OpSpec::Mean.infer(&[shape, one]), Err(OpError::Mismatch { .. })));
}

#[test]
fn integers_compute_nearly_the_same_or_refuse_with_a_word() {
    let mut known = Vec::new();
    for (name, graph) in samples::primitives() {
        let weights = Weights::seeded(&graph, 0);
        if let Ok(quantized) = Quantized::of(&graph, &weights, 0) {
            known.push(name.split(' ').next_back().unwrap_or_default().to_owned());
            let input = seeded_input(graph.input_shape().unwrap(), 3);
            let exact = evaluate(&graph, &weights, &input).unwrap();
            let rounded = quantized.evaluate(&input).unwrap();
            let square =
                |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
            let noise = square(&mut exact.iter().zip(&rounded).map(|(a, b)| a - b));
            let signal = square(&mut exact.iter().copied());
            assert!(signal > 1000.0 * noise, "{name}: {signal} {noise}");
            assert!(!encode_onnx_int8(&quantized).unwrap().is_empty(), "{name}");
            assert!(!encode_tflite(&graph, &weights).unwrap().is_empty(), "{name}");
            continue;
        }
        let error = Quantized::of(&graph, &weights, 0).unwrap_err().to_string();
        assert!(error.starts_with("quantise node `") && error.contains("fp32 and ONNX"), "{name}: {error}");
        let error = encode_tflite(&graph, &weights).unwrap_err().to_string();
        assert!(error.contains("as TFLite") && error.contains("fp32 and ONNX"), "{name}: {error}");
    }
    let expected = ["prelu", "scalar_affine", "slice", "pad", "crop_end", "depth_to_space", "broadcasts"];
    assert_eq!(known, expected);
}

#[test]
fn every_primitive_and_block_can_be_written_and_computed() {
    for (name, graph) in samples::primitives().into_iter().chain(samples::blocks()) {
        let weights = Weights::seeded(&graph, 0);
        assert!(!encode_onnx(&graph, &weights).unwrap().is_empty(), "{name}");
        let output = evaluate(&graph, &weights, &seeded_input(graph.input_shape().unwrap(), 0)).unwrap();
        assert_eq!(output.len(), graph.output_shape().elements(), "{name}");
        assert!(output.iter().all(|value| value.is_finite()), "{name}");
    }
}
