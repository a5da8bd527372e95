//! Counts of a graph, computed slowly and without the registry's formulas; folding, against the interpreter.

use std::collections::BTreeSet;

use lathe_spaces::{Graph, Node, OpSpec, Shape, Weights, evaluate, fold, seeded_input};

/// Learned parameters, multiply-accumulates, bytes moved and the peak of living activations, at two bytes a number.
pub type Counts = [u64; 4];

/// What the graph says of itself.
pub fn reported(graph: &Graph) -> Counts {
    [graph.parameter_count(), graph.macs(), graph.bytes_moved(2), graph.peak_activation_bytes(2)]
}

/// What it must say.
pub fn counted(graph: &Graph) -> Counts {
    let (mut learned, mut products) = (0, 0);
    for node in graph.nodes() {
        let counts = of_node(graph, node);
        learned += counts.0;
        products += counts.1;
    }
    [learned, products, moved(graph) + 2 * learned, peak(graph)]
}

/// Bytes of a tensor, row by row.
fn bytes(shape: Shape) -> u64 {
    (0..shape.n * shape.c * shape.h).map(|_| 2 * shape.w as u64).sum()
}

/// Activations: edge by edge what is read, node by node what is written. What comes in is written by nobody.
fn moved(graph: &Graph) -> u64 {
    let nodes = graph.nodes();
    let read: u64 = nodes.iter().flat_map(|node| &node.inputs).map(|&input| bytes(nodes[input].shape)).sum();
    let written = nodes.iter().filter(|node| node.op != OpSpec::Input).map(|node| bytes(node.shape));
    read + written.sum::<u64>()
}

/// While a node runs, every value lives that is there and that this node or a later one reads, or nobody and the
/// caller gets.
fn peak(graph: &Graph) -> u64 {
    let nodes = graph.nodes();
    let lives = |value: usize, running: usize| {
        value == running
            || graph.outputs().contains(&value)
            || nodes[running..].iter().any(|node| node.inputs.contains(&value))
    };
    let living = |running: usize| -> u64 {
        (0..=running).filter(|&value| lives(value, running)).map(|value| bytes(nodes[value].shape)).sum()
    };
    (0..nodes.len()).map(living).max().unwrap_or(0)
}

/// Largest difference between a network and what it is folded to, relative to the largest number.
pub fn fold_difference(graph: &Graph, seed: u64) -> f32 {
    let weights = Weights::seeded(graph, seed);
    let folded = fold(graph, &weights).unwrap();
    let input = seeded_input(graph.input_shape().unwrap(), seed);
    let expected = evaluate(graph, &weights, &input).unwrap();
    let got = evaluate(&folded.graph, &folded.weights, &input).unwrap();
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-6_f32, |largest, value| largest.max(value.abs()));
    got.iter().zip(&expected).map(|(got, want)| (got - want).abs() / largest).fold(0.0, f32::max)
}

/// Numbers that a node learns, and products that it sums up, one output after the other.
fn of_node(graph: &Graph, node: &Node) -> (u64, u64) {
    let inputs: Vec<Shape> = node.inputs.iter().map(|&input| graph.nodes()[input].shape).collect();
    let out = node.shape;
    let (mut learned, mut products) = (0_u64, 0_u64);
    match node.op {
        OpSpec::Conv2d { out_channels, kernel, groups, bias, .. } => {
            for _ in 0..out_channels {
                let taps = (0..inputs[0].c / groups).map(|_| (kernel * kernel) as u64).sum::<u64>();
                learned += taps + u64::from(bias);
                products += (0..out.h).map(|_| taps * out.w as u64).sum::<u64>();
            }
        }
        OpSpec::ConvTranspose2d { out_channels, kernel, groups, bias, .. } => {
            // Every number of the input is spread over a window of each output of its group.
            for _ in 0..inputs[0].c {
                let spread = (out_channels / groups * kernel * kernel) as u64;
                learned += spread;
                products += (0..inputs[0].h * inputs[0].w).map(|_| spread).sum::<u64>();
            }
            learned += if bias { out_channels as u64 } else { 0 };
        }
        OpSpec::Linear { out_features, bias } => {
            let features = (inputs[0].c * inputs[0].h * inputs[0].w) as u64;
            for _ in 0..out_features {
                learned += features + u64::from(bias);
                products += features;
            }
        }
        OpSpec::Attention { heads, key_dim, value_dim, window, relative_bias } => {
            let (rows, columns) = window.map_or((inputs[0].h, inputs[0].w), |side| (side, side));
            let windows = (inputs[0].h / rows) * (inputs[0].w / columns);
            let mut distances = BTreeSet::new();
            for one in 0..rows * columns {
                for other in 0..rows * columns {
                    let apart = |a: usize, b: usize| a.abs_diff(b);
                    distances.insert((
                        apart(one / columns, other / columns),
                        apart(one % columns, other % columns),
                    ));
                    products += (windows * heads * (key_dim + value_dim)) as u64;
                }
            }
            learned += if relative_bias { (heads * distances.len()) as u64 } else { 0 };
        }
        OpSpec::BatchNorm { affine: true } | OpSpec::GroupNorm { .. } | OpSpec::LayerNorm => {
            learned += 2 * inputs[0].c as u64;
        }
        OpSpec::Prelu => learned += inputs[0].c as u64,
        OpSpec::ScalarAffine => learned += 2,
        _ => {}
    }
    (learned, products)
}
