//! TFLite files against LiteRT's own interpreter.
//!
//! Needs a Python with `ai-edge-litert`, named by `LATHE_LITERT_PYTHON`: `cargo xtask npu-tools` installs
//! one, `cargo xtask test` does that by itself.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::{env, fs, path::Path, process::Command};

use lathe_spaces::{
    DartsSkeleton, Function, Graph, GraphBuilder, Nas201Skeleton, NetworkOptions, OpSpec, Quantized, Shape,
    Space, Stem, Stream, Weights, ZooNetwork, encode_tflite, encode_tflite_int8, evaluate, seeded_input,
};

/// What a file must compute.
struct Case {
    label: String,
    /// Channels last.
    expected: Vec<f64>,
    int8: bool,
    /// Nodes: each may be off by one integer, and later ones pass that on.
    depth: usize,
}

fn channels_last<T: Copy>(values: &[T], shape: Shape) -> Vec<T> {
    let area = shape.h * shape.w;
    let position = |index: usize| {
        let (image, rest) = (index / (shape.c * area), index % (shape.c * area));
        image * shape.c * area + rest % shape.c * area + rest / shape.c
    };
    (0..values.len()).map(|index| values[position(index)]).collect()
}

fn write(folder: &Path, label: &str, graph: &Graph, cases: &mut Vec<Case>) {
    let weights = Weights::seeded(graph, 0);
    let shape = graph.input_shape().unwrap();
    let input = seeded_input(shape, 0);
    let out = graph.output_shape();

    let quantized = Quantized::of(graph, &weights, 0).unwrap();
    let from = quantized.affine(0);
    let integers: Vec<i8> = input.iter().map(|&value| from.quantize(f64::from(value))).collect();
    let expected = quantized.evaluate_integers(&input).unwrap();
    let bytes: Vec<u8> = channels_last(&integers, shape).iter().map(|value| value.to_le_bytes()[0]).collect();
    let file = |index: usize, extension: &str| folder.join(format!("{index:04}.{extension}"));
    let index = cases.len();
    fs::write(file(index, "tflite"), encode_tflite_int8(&quantized).unwrap()).unwrap();
    fs::write(file(index, "in"), bytes).unwrap();
    cases.push(Case {
        label: format!("{label} int8"),
        expected: channels_last(&expected, out).iter().map(|&value| f64::from(value)).collect(),
        int8: true,
        depth: quantized.graph().nodes().len(),
    });

    let index = cases.len();
    let bytes: Vec<u8> = channels_last(&input, shape).iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(file(index, "tflite"), encode_tflite(graph, &weights).unwrap()).unwrap();
    fs::write(file(index, "in"), bytes).unwrap();
    let expected = evaluate(graph, &weights, &input).unwrap();
    cases.push(Case {
        label: format!("{label} fp32"),
        expected: channels_last(&expected, out).iter().map(|&value| f64::from(value)).collect(),
        int8: false,
        depth: 0,
    });
}

/// Operators, paddings and shapes that the spaces don't have together.
fn odd_graphs() -> Vec<(String, Graph)> {
    let mut graphs = Vec::new();
    let mut add = |label: &str, input: Shape, ops: &[OpSpec]| {
        let mut builder = GraphBuilder::new();
        let mut x = builder.input("x", input).unwrap();
        for (index, op) in ops.iter().enumerate() {
            x = builder.add(&format!("n{index}"), *op, &[x]).unwrap();
        }
        graphs.push((label.to_owned(), builder.finish(&[x]).unwrap()));
    };
    let odd = Shape::new(1, 8, 9, 7);
    let even = Shape::new(1, 8, 8, 10);
    for shape in [odd, even] {
        for stride in [1, 2] {
            let label = |name: &str| format!("{name} {shape} s{stride}");
            add(&label("conv"), shape, &[OpSpec::conv(12, 3, stride), OpSpec::Relu]);
            add(&label("dilated"), shape, &[OpSpec::depthwise(8, 5, stride, 2)]);
            add(&label("max"), shape, &[OpSpec::MaxPool { kernel: 3, stride, padding: 1 }]);
            for count_include_pad in [false, true] {
                let pool = OpSpec::AvgPool { kernel: 3, stride, padding: 1, count_include_pad };
                add(&label(if count_include_pad { "avg+" } else { "avg" }), shape, &[pool]);
            }
        }
        for function in [
            Function::Relu6,
            Function::Sigmoid,
            Function::HardSigmoid,
            Function::Swish,
            Function::HardSwish,
            Function::Tanh,
        ] {
            add(function.name(), shape, &[OpSpec::Activation { function }]);
        }
        let multiplier = OpSpec::Conv2d {
            out_channels: 16,
            kernel: 3,
            stride: 1,
            padding: 1,
            dilation: 1,
            groups: 8,
            bias: true,
        };
        add("depth multiplier", shape, &[multiplier]);
        let grouped = OpSpec::Conv2d {
            out_channels: 12,
            kernel: 1,
            stride: 1,
            padding: 0,
            dilation: 1,
            groups: 4,
            bias: false,
        };
        add("grouped", shape, &[grouped]);
        add("relu", shape, &[OpSpec::Relu]);
        add("mean", shape, &[OpSpec::GlobalAvgPool]);
        add("linear", shape, &[OpSpec::Linear { out_features: 5, bias: true }]);
        let linear = OpSpec::Linear { out_features: 6, bias: false };
        add("linear inside", shape, &[linear, OpSpec::Relu, OpSpec::conv(4, 1, 1)]);
        add("crop", shape, &[OpSpec::Crop { top: 1, left: 2 }]);
        add("shuffle", shape, &[OpSpec::ChannelShuffle { groups: 4 }]);
        add("prelu", shape, &[OpSpec::Prelu]);
        add("slice", shape, &[OpSpec::Slice { start: 3, channels: 4 }]);
        add("pad", shape, &[OpSpec::Pad { top: 0, left: 1, bottom: 2, right: 3 }]);
        add("crop end", shape, &[OpSpec::CropEnd { bottom: 1, right: 2 }]);
        add("one scale", shape, &[OpSpec::ScalarAffine]);
        add("to positions", shape, &[OpSpec::conv(4, 3, 1), OpSpec::DepthToSpace { block: 2 }]);
    }
    // A gate per channel, a sum of three, a concatenation with zeros.
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", even).unwrap();
    let mean = builder.add("mean", OpSpec::GlobalAvgPool, &[x]).unwrap();
    let gate = builder.add("gate", OpSpec::Activation { function: Function::Sigmoid }, &[mean]).unwrap();
    let gated = builder.add("gated", OpSpec::Mul, &[x, gate]).unwrap();
    let sum = builder.add("sum", OpSpec::Add, &[gated, x, x]).unwrap();
    let zero = builder.add("zero", OpSpec::Zero { stride: 1 }, &[x]).unwrap();
    let both = builder.add("both", OpSpec::Concat, &[sum, zero]).unwrap();
    graphs.push(("gate".into(), builder.finish(&[both]).unwrap()));
    // One channel for all, by sum and by product; a mean.
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", odd).unwrap();
    let one = builder.add("one", OpSpec::conv(1, 3, 1), &[x]).unwrap();
    let gated = builder.add("gated", OpSpec::Mul, &[x, one]).unwrap();
    let sum = builder.add("sum", OpSpec::Add, &[gated, one]).unwrap();
    let mean = builder.add("mean", OpSpec::Mean, &[sum, x, gated]).unwrap();
    graphs.push(("broadcasts".into(), builder.finish(&[mean]).unwrap()));
    graphs
}

#[test]
fn litert_computes_what_the_reference_says() {
    let Some(python) = env::var_os("LATHE_LITERT_PYTHON") else {
        assert!(env::var_os("CI").is_none(), "LATHE_LITERT_PYTHON is not set: run `cargo xtask test`");
        eprintln!("skipped: LATHE_LITERT_PYTHON is not set (run `cargo xtask npu-tools`)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut cases = Vec::new();
    for (label, graph) in odd_graphs() {
        write(folder.path(), &label, &graph, &mut cases);
    }
    let spaces = [
        Space::darts(DartsSkeleton { stem: Stem::Cifar, width: 4, layers: 3, resolution: 16, classes: 10 }),
        Space::nas201(Nas201Skeleton { width: 4, cells: 1, resolution: 8, classes: 10 }),
        Space::fbnet(32, 10),
    ];
    for space in &spaces {
        for workload in space.workloads().unwrap() {
            write(folder.path(), &workload.label, &workload.graph, &mut cases);
        }
        let published = space.published().into_iter().map(|(_, genotype)| genotype);
        let random = (0..2).map(|index| space.sample(&mut Stream::new(0, "litert", index)));
        for (index, genotype) in published.chain(random).enumerate() {
            let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
            write(folder.path(), &format!("{} {index}", space.name), &graph, &mut cases);
        }
    }
    for (name, side) in [("sesr-m3", 16), ("hgnetv2-b1", 64), ("hgnetv2-atto", 64), ("mobiledet-dsp", 64)] {
        let graph = ZooNetwork::named(name).unwrap().unwrap().graph(Some([side, side])).unwrap();
        write(folder.path(), name, &graph, &mut cases);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/litert/run.py");
    let output = Command::new(python).arg(script).arg(folder.path()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), cases.len(), "{complaint}");

    let mut faults = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let bytes = fs::read(folder.path().join(format!("{index:04}.got"))).unwrap();
        let got: Vec<f64> = if case.int8 {
            bytes.iter().map(|&byte| f64::from(i8::from_le_bytes([byte]))).collect()
        } else {
            bytes.as_chunks::<4>().0.iter().map(|&value| f64::from(f32::from_le_bytes(value))).collect()
        };
        assert_eq!(got.len(), case.expected.len(), "{}", case.label);
        let largest = got.iter().zip(&case.expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // One operator is off by one integer at most. In a chain such differences are amplified and add up
        // like noise, not in step.
        let allowed = match (case.int8, case.depth) {
            (true, ..3) => 1.0,
            (true, depth) => 2.0 * (depth as f64).sqrt(),
            (false, _) => {
                1e-4 * case.expected.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()))
            }
        };
        if largest > allowed {
            faults.push(format!("{}: off by {largest}, allowed {allowed}", case.label));
        }
    }
    eprintln!("{} files, {} faults", cases.len(), faults.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
