//! Small graphs of every primitive and every kind of block, on which engines are compared with the reference interpreter: odd
//! sizes, several images, broadcasts, windows.

use lathe_spaces::{BLOCKS, Block, Function, Graph, GraphBuilder, OpSpec, Shape};

/// Graphs by name; each has one input and one output.
pub fn primitives() -> Vec<(String, Graph)> {
    let odd = Shape::new(2, 6, 7, 5);
    let attention = |heads, key_dim, value_dim, window, relative_bias| OpSpec::Attention {
        heads,
        key_dim,
        value_dim,
        window,
        relative_bias,
    };
    let transposed = |kernel, stride, padding, groups, bias| OpSpec::ConvTranspose2d {
        out_channels: 4,
        kernel,
        stride,
        padding,
        groups,
        bias,
    };
    let single = [
        (odd, OpSpec::Activation { function: Function::Gelu }),
        (odd, OpSpec::Prelu),
        (odd, OpSpec::GroupNorm { groups: 1 }),
        (odd, OpSpec::GroupNorm { groups: 3 }),
        (odd, OpSpec::LayerNorm),
        (odd, OpSpec::ScalarAffine),
        (odd, OpSpec::Slice { start: 1, channels: 3 }),
        (odd, OpSpec::Pad { top: 0, left: 1, bottom: 2, right: 3 }),
        (odd, OpSpec::CropEnd { bottom: 1, right: 2 }),
        (odd, transposed(4, 2, 1, 1, true)),
        (odd, transposed(3, 1, 1, 2, false)),
        (odd, transposed(3, 3, 0, 1, false)),
        (Shape::new(2, 12, 3, 5), OpSpec::DepthToSpace { block: 2 }),
        (Shape::new(1, 9, 1, 4), OpSpec::DepthToSpace { block: 3 }),
        (Shape::new(2, 22, 5, 3), attention(2, 3, 5, None, false)),
        (Shape::new(1, 8, 3, 4), attention(1, 2, 4, None, true)),
        (Shape::new(2, 24, 6, 9), attention(2, 4, 4, Some(3), true)),
        (Shape::new(1, 12, 4, 2), attention(2, 2, 2, Some(2), false)),
    ];
    let mut graphs: Vec<(String, Graph)> = single
        .into_iter()
        .enumerate()
        .map(|(index, (shape, op))| {
            let mut builder = GraphBuilder::new();
            let x = builder.input("x", shape).unwrap();
            let y = builder.add("op", op, &[x]).unwrap();
            (format!("{index} {}", op.name()), builder.finish(&[y]).unwrap())
        })
        .collect();
    graphs.push(("broadcasts".into(), broadcasts(odd)));
    graphs
}

/// A gate per position, one channel added to several, and a mean.
fn broadcasts(shape: Shape) -> Graph {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", shape).unwrap();
    let mut add = |name: &str, op, inputs: &[usize]| builder.add(name, op, inputs).unwrap();
    let one = add("one", OpSpec::conv(1, 3, 1), &[x]);
    let gated = add("gated", OpSpec::Mul, &[x, one]);
    let sum = add("sum", OpSpec::Add, &[gated, one, x]);
    let mean = add("mean", OpSpec::Mean, &[sum, gated, x]);
    builder.finish(&[mean]).unwrap()
}

/// The examples of all kinds of blocks, for two images.
pub fn blocks() -> Vec<(String, Graph)> {
    let examples = BLOCKS.iter().flat_map(|kind| kind.examples);
    let built = examples.map(|example| {
        let [channels, rows, columns] = example.input;
        let block: Block = example.text.parse().unwrap();
        let mut builder = GraphBuilder::new();
        let x = builder.input("x", Shape::new(2, channels, rows, columns)).unwrap();
        let y = block.build(&mut builder, "block", x, example.channels, example.stride).unwrap();
        (example.text.to_owned(), builder.finish(&[y]).unwrap())
    });
    built.collect()
}
