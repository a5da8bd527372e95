use super::*;
use crate::{
    DartsSkeleton, Function, Nas201Skeleton, NetworkOptions, Space, Stem, Stream, encode_onnx, evaluate,
    onnx::message::{
        Attribute, Dimension, GraphMessage, ShapeMessage, TensorMessage, TensorType, Type, ValueInfo,
    },
    seeded_input,
};

fn same(graph: &Graph, numbers: bool) {
    let weights = Weights::seeded(graph, 3);
    let decoded = decode_onnx(&encode_onnx(graph, &weights).unwrap()).unwrap();
    assert_eq!((decoded.unknown, decoded.lost, decoded.notes), (vec![], vec![], vec![]));
    let other = &decoded.graph;
    // Branches that only zeros come out of (NAS-Bench-201's `none`) are not in the file.
    assert!(other.macs() <= graph.macs());
    assert_eq!(other.output_shape(), graph.output_shape());
    assert_eq!(other.input_shape(), graph.input_shape());
    let read = decoded.weights.unwrap();
    assert_eq!(read.check(other), Ok(()));
    if numbers {
        let input = seeded_input(graph.input_shape().unwrap(), 1);
        let (a, b) = (evaluate(graph, &weights, &input).unwrap(), evaluate(other, &read, &input).unwrap());
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() <= 1e-5 * (1.0 + a.abs()), "{a} {b}");
        }
    }
}

#[test]
fn networks_and_workloads_of_all_spaces_come_back() {
    let stem = Stem::Cifar;
    let spaces = [
        Space::darts(DartsSkeleton { stem, width: 4, layers: 4, resolution: 8, classes: 10 }),
        Space::nas201(Nas201Skeleton { width: 4, cells: 1, resolution: 8, classes: 10 }),
        Space::fbnet(32, 10),
    ];
    for space in &spaces {
        for index in 0..5 {
            let genotype = space.sample(&mut Stream::new(2, "decode", index));
            let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
            same(&graph, index < 2);
            let weights = Weights::seeded(&graph, 3);
            let decoded = decode_onnx(&encode_onnx(&graph, &weights).unwrap()).unwrap();
            assert!(decoded.graph.parameter_count() <= graph.parameter_count());
            if space.name != "nas-bench-201" {
                assert_eq!(decoded.graph.parameter_count(), graph.parameter_count());
                assert_eq!(decoded.graph.macs(), graph.macs());
            }
        }
        for workload in space.workloads().unwrap() {
            let weights = Weights::seeded(&workload.graph, 3);
            let decoded = decode_onnx(&encode_onnx(&workload.graph, &weights).unwrap());
            let decoded = decoded.unwrap_or_else(|error| panic!("{}: {error}", workload.label));
            assert_eq!(decoded.graph.macs(), workload.graph.macs(), "{}", workload.label);
            assert_eq!(decoded.graph.output_shape(), workload.graph.output_shape());
        }
    }
}

#[test]
fn every_function_comes_back() {
    use Function::{HardSigmoid, HardSwish, Relu6, Sigmoid, Tanh};
    for function in [Relu6, Sigmoid, HardSigmoid, HardSwish, Tanh, Function::Swish] {
        let mut builder = GraphBuilder::new();
        let x = builder.input("x", Shape::new(1, 4, 6, 6)).unwrap();
        let y = builder.add("f", OpSpec::Activation { function }, &[x]).unwrap();
        let pooled = builder.add("pool", OpSpec::GlobalAvgPool, &[y]).unwrap();
        let gate = builder.add("gate", OpSpec::Mul, &[y, pooled]).unwrap();
        same(&builder.finish(&[gate]).unwrap(), true);
    }
}

/// Two maps of 8 channels and the operator under test between them.
fn single(op: OpSpec, [channels, side]: [usize; 2]) -> Graph {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(2, channels, side, side)).unwrap();
    let y = builder.add("y", op, &[x]).unwrap();
    let z = builder.add("z", OpSpec::conv(3, 1, 1), &[y]).unwrap();
    builder.finish(&[z]).unwrap()
}

#[test]
fn every_primitive_comes_back() {
    let attention = |window, relative_bias| OpSpec::Attention {
        heads: 2,
        key_dim: 4,
        value_dim: 6,
        window,
        relative_bias,
    };
    let transposed = |groups, bias| OpSpec::ConvTranspose2d {
        out_channels: 6,
        kernel: 4,
        stride: 2,
        padding: 1,
        groups,
        bias,
    };
    for (op, sizes) in [
        (OpSpec::Activation { function: Function::Gelu }, [8, 6]),
        (OpSpec::Prelu, [8, 6]),
        (OpSpec::GroupNorm { groups: 1 }, [8, 6]),
        (OpSpec::GroupNorm { groups: 4 }, [8, 6]),
        (OpSpec::LayerNorm, [8, 6]),
        (OpSpec::ScalarAffine, [8, 6]),
        (OpSpec::Slice { start: 2, channels: 5 }, [8, 6]),
        (OpSpec::Slice { start: 0, channels: 5 }, [8, 6]),
        (OpSpec::Pad { top: 1, left: 0, bottom: 2, right: 3 }, [8, 6]),
        (OpSpec::Crop { top: 1, left: 2 }, [8, 6]),
        (OpSpec::CropEnd { bottom: 1, right: 0 }, [8, 6]),
        (transposed(1, true), [8, 6]),
        (transposed(2, false), [8, 6]),
        (OpSpec::DepthToSpace { block: 2 }, [8, 6]),
        (OpSpec::ChannelShuffle { groups: 4 }, [8, 6]),
        (attention(None, false), [28, 6]),
        (attention(None, true), [28, 6]),
        (attention(Some(3), false), [28, 6]),
        (attention(Some(3), true), [28, 6]),
        (attention(Some(6), true), [28, 6]),
    ] {
        let graph = single(op, sizes);
        same(&graph, true);
        let bytes = encode_onnx(&graph, &Weights::seeded(&graph, 3)).unwrap();
        let decoded = decode_onnx(&bytes).unwrap().graph;
        let read: Vec<OpSpec> = decoded.nodes().iter().map(|node| node.op).collect();
        let written: Vec<OpSpec> = graph.nodes().iter().map(|node| node.op).collect();
        assert_eq!(read, written);
    }
    // What is broadcast, and the mean.
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(1, 4, 6, 6)).unwrap();
    let one = builder.add("one", OpSpec::conv(1, 1, 1), &[x]).unwrap();
    let gated = builder.add("gated", OpSpec::Mul, &[x, one]).unwrap();
    let sum = builder.add("sum", OpSpec::Add, &[gated, one]).unwrap();
    let mean = builder.add("mean", OpSpec::Mean, &[sum, x, gated]).unwrap();
    same(&builder.finish(&[mean]).unwrap(), true);
}

#[test]
fn networks_of_all_spaces_of_stages_and_of_the_zoo_come_back() {
    for &(name, text) in crate::SPACES {
        let side = if name == "tinyvit" { 128 } else { 64 };
        let space = crate::SpaceFile::parse(text).unwrap().space(Some([side, side])).unwrap();
        for index in 0..3 {
            let genotype = space.sample(&mut Stream::new(4, "decode", index));
            let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
            same(&graph, false);
            let decoded = decode_onnx(&encode_onnx(&graph, &Weights::seeded(&graph, 3)).unwrap()).unwrap();
            assert_eq!(decoded.graph.parameter_count(), graph.parameter_count(), "{name}");
            assert_eq!(decoded.graph.macs(), graph.macs(), "{name}");
        }
    }
    for name in ["shvit-s1", "lowformer-b0", "cas-vit-xs", "hgnetv2-atto", "mobiledet-cpu", "sesr-m5"] {
        let network = crate::ZooNetwork::named(name).unwrap().unwrap();
        let graph = network.graph(None).unwrap();
        let decoded = decode_onnx(&encode_onnx(&graph, &Weights::seeded(&graph, 0)).unwrap()).unwrap();
        assert_eq!(decoded.left_out(), Vec::<String>::new(), "{name}");
        assert_eq!(decoded.graph.parameter_count(), graph.parameter_count(), "{name}");
        assert_eq!(decoded.graph.macs(), graph.macs(), "{name}");
    }
}

#[test]
fn norms_and_attentions_of_another_kind_are_listed() {
    let constant = |name: &str, values: &[i64]| TensorMessage {
        dims: vec![values.len() as i64],
        data_type: Some(7),
        longs: values.to_vec(),
        name: name.into(),
        ..TensorMessage::default()
    };
    let float =
        |name: &str, value: f32| Attribute { name: name.into(), float: Some(value), ..Attribute::default() };
    let last = || operator("Transpose", &["x"], "l", vec![ints("perm", &[0, 2, 3, 1])]);
    let cases: Vec<(Vec<NodeMessage>, &str)> = vec![
        (
            vec![last(), operator("LayerNormalization", &["l", "s", "s"], "y", vec![float("epsilon", 1e-3)])],
            "epsilon",
        ),
        (vec![operator("Pad", &["x", "pads"], "y", vec![])], "pads"),
        (vec![operator("Slice", &["x", "one", "two", "rows"], "y", vec![])], "several ends"),
        (
            vec![operator("Mul", &["x", "half"], "h", vec![]), operator("Relu", &["h"], "y", vec![])],
            "product with one number",
        ),
        (vec![operator("Relu", &["x"], "r", vec![]), last()], "output (of maps with channels as the last"),
        (
            vec![
                operator("Reshape", &["x", "heads"], "h", vec![]),
                operator("Split", &["h", "parts"], "q", vec![]),
            ],
            "Split (inside of an attention",
        ),
    ];
    for (nodes, expected) in cases {
        let mut model =
            Model::decode(file(nodes, &[("s", &[3]), ("half", &[1])], vec![]).as_slice()).unwrap();
        let graph = model.graph.as_mut().unwrap();
        graph.initializers.extend([
            constant("pads", &[0, 1, 0, 0, 0, 0, 0, 0]),
            constant("one", &[1]),
            constant("two", &[4]),
            constant("rows", &[2]),
            constant("heads", &[1, 1, 3, 81]),
            constant("parts", &[1, 1, 1]),
        ]);
        graph.outputs.push(info("x", &[]));
        let decoded = decode_onnx(&model.encode_to_vec()).unwrap();
        let said = decoded.left_out().join("; ");
        assert!(said.contains(expected), "{expected:?} is not in {said}");
    }
}

fn info(name: &str, dims: &[Option<i64>]) -> ValueInfo {
    let dims = dims.iter().map(|&value| Dimension { value, parameter: None }).collect();
    let tensor = TensorType { element: Some(1), shape: Some(ShapeMessage { dims }) };
    ValueInfo { name: name.into(), kind: Some(Type { tensor: Some(tensor) }) }
}

fn operator(kind: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>) -> NodeMessage {
    NodeMessage {
        inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
        outputs: vec![output.into()],
        name: format!("node_{output}"),
        kind: kind.into(),
        attributes,
        domain: String::new(),
    }
}

fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute { name: name.into(), ints: values.to_vec(), ..Attribute::default() }
}

fn file(nodes: Vec<NodeMessage>, weights: &[(&str, &[i64])], values: Vec<ValueInfo>) -> Vec<u8> {
    let last = nodes.last().unwrap().outputs[0].clone();
    let initializers = weights
        .iter()
        .map(|(name, dims)| TensorMessage {
            dims: dims.to_vec(),
            data_type: Some(1),
            floats: vec![0.5; dims.iter().product::<i64>() as usize],
            name: (*name).into(),
            ..TensorMessage::default()
        })
        .collect();
    let graph = GraphMessage {
        nodes,
        initializers,
        inputs: vec![info("x", &[None, Some(3), Some(9), Some(9)])],
        outputs: vec![info(&last, &[])],
        values,
        ..GraphMessage::default()
    };
    Model { graph: Some(graph), ..Model::default() }.encode_to_vec()
}

#[test]
fn a_foreign_file_with_a_symbolic_batch_and_same_padding() {
    let same =
        Attribute { name: "auto_pad".into(), text: Some(b"SAME_UPPER".to_vec()), ..Attribute::default() };
    let nodes = vec![
        operator("Conv", &["x", "w"], "a", vec![same, ints("strides", &[2, 2])]),
        operator("Relu", &["a"], "b", vec![]),
        operator("ReduceMean", &["b"], "c", vec![ints("axes", &[2, 3])]),
        operator("Flatten", &["c"], "d", vec![]),
        operator("MatMul", &["d", "m"], "e", vec![]),
        operator("Add", &["e", "n"], "f", vec![]),
    ];
    let weights: &[(&str, &[i64])] = &[("w", &[8, 3, 3, 3]), ("m", &[8, 10]), ("n", &[10])];
    let decoded = decode_onnx(&file(nodes, weights, vec![])).unwrap();
    assert_eq!(decoded.graph.input_shape(), Some(Shape::new(1, 3, 9, 9)));
    assert_eq!(decoded.graph.macs(), 5 * 5 * 8 * 27 + 80);
    assert_eq!(decoded.unknown, vec![]);
    assert_eq!(decoded.notes.len(), 1, "{:?}", decoded.notes);
}

#[test]
fn unknown_operators_are_listed_all_at_once() {
    let nodes = vec![
        operator("Relu", &["x"], "a", vec![]),
        operator("Softplus", &["a"], "b", vec![]),
        operator("Softplus", &["b"], "c", vec![]),
        operator("Einsum", &["a"], "d", vec![]),
        operator("Relu", &["c"], "e", vec![]),
    ];
    let described = vec![info("b", &[Some(1), Some(3), Some(9), Some(9)])];
    let decoded = decode_onnx(&file(nodes, &[], described)).unwrap();
    let kinds: Vec<(&str, usize)> =
        decoded.unknown.iter().map(|found| (found.kind.as_str(), found.nodes.len())).collect();
    assert_eq!(kinds, [("Einsum", 1), ("Softplus", 2)]);
    assert_eq!(decoded.lost, ["node_e"]);
    assert_eq!(decoded.unknown[1].nodes, ["node_b", "node_c"]);
    assert_eq!(decoded.graph.nodes().iter().filter(|node| node.op == OpSpec::Relu).count(), 1);
}

#[test]
fn what_is_broken_is_said() {
    let message = |bytes: &[u8]| decode_onnx(bytes).unwrap_err().to_string();
    let stem = Stem::Cifar;
    let space = Space::darts(DartsSkeleton { stem, width: 4, layers: 3, resolution: 8, classes: 10 });
    let graph =
        space.network(&space.sample(&mut Stream::new(2, "decode", 0)), NetworkOptions::default()).unwrap();
    let bytes = encode_onnx(&graph, &Weights::seeded(&graph, 0)).unwrap();
    for cut in [bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        let text = message(&bytes[..cut]);
        assert!(text.contains("cut off") && text.contains(&cut.to_string()), "{text}");
    }
    assert!(message(b"").contains("no graph"));
    assert!(message(b"PK\x03\x04 something else entirely").contains("not ONNX"));
    let text = message(&file(vec![operator("Relu", &["nothing"], "a", vec![])], &[], vec![]));
    assert!(text.contains("node_a") && text.contains("`nothing`"), "{text}");
    let wide = vec![operator("Conv", &["x", "w"], "a", vec![])];
    let text = message(&file(wide, &[("w", &[8, 4, 3, 3])], vec![]));
    assert!(text.contains("node_a") && text.contains("channels"), "{text}");
}

proptest::proptest! {
    /// Whatever is flipped in a file, the reader answers or says why not; it never panics.
    #[test]
    fn damaged_files_never_panic(seed in 0_u64..300) {
        use rand::RngExt;
        let space = Space::fbnet(32, 10);
        let mut stream = Stream::new(seed, "damage", 0);
        let workload = &space.workloads().unwrap()[(seed % 20) as usize];
        let mut bytes = encode_onnx(&workload.graph, &Weights::seeded(&workload.graph, 0)).unwrap();
        for _ in 0..3 {
            // Weights fill most of a file; its structure stands at the beginning.
            let end = bytes.len().min(900);
            let at = stream.random_range(0..end);
            bytes[at] ^= 1 << stream.random_range(0..8);
        }
        let _ = decode_onnx(&bytes);
    }
}
