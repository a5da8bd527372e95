//! From the name of an operator to the graph that it stands for, and back.

use lathe_spaces::{Function, Graph, GraphBuilder, GraphError, Level, NodeId, OpSpec, Shape, Workload};

use super::{Dialect, Maps, OperatorKey};

const NORM: OpSpec = OpSpec::BatchNorm { affine: true };
const HARD_SWISH: OpSpec = OpSpec::Activation { function: Function::HardSwish };

impl OperatorKey {
    /// The operator as something to be timed, at batch 1: the layers that OFA's and `ProxylessNAS`'
    /// networks have under that name. Convolutions are followed by batch norm; a 1×1 convolution to
    /// the expanded width, a depthwise and a linear 1×1 one make an inverted residual, without the
    /// first when nothing is expanded, with squeeze-and-excitation behind the depthwise one where the key
    /// has it.
    ///
    /// The keys of `ProxylessNAS` don't name an activation; it is [`OpSpec::Relu`] here, where their
    /// networks clip it at 6.
    ///
    /// # Errors
    /// Why no graph of Lathe says the same, or why the sizes contradict each other.
    pub fn workload(&self, dialect: Dialect) -> Result<Workload, String> {
        let mut builder = GraphBuilder::new();
        let (input, expected) = self.shapes();
        let x = builder.input("input", input).map_err(|error| error.to_string())?;
        let output = self.build(dialect, &mut builder, x)?;
        let got = builder.shape(output);
        if got != expected {
            return Err(format!(
                "its output would be {}x{}x{}, not {}x{}x{}",
                got.h, got.w, got.c, expected.h, expected.w, expected.c
            ));
        }
        let graph = builder.finish(&[output]).map_err(|error| error.to_string())?;
        let level = match self {
            Self::Proxyless { .. } | Self::Ofa { .. } => Level::Operator,
            _ => Level::Fixed,
        };
        Ok(Workload::new(self.to_string(), level, graph))
    }

    /// The name of a graph in a table of this dialect; `None` if it has none. The name is given only
    /// if it stands for the very same computation.
    pub fn of_graph(graph: &Graph, dialect: Dialect) -> Option<Self> {
        let key = candidate(graph, dialect)?;
        let workload = key.workload(dialect).ok()?;
        (workload.id() == Workload::new("", workload.level, graph.clone()).id()).then_some(key)
    }

    fn shapes(&self) -> (Shape, Shape) {
        match *self {
            Self::FirstConv { input, output }
            | Self::Conv1 { input, output }
            | Self::Conv2 { input, output }
            | Self::AvgPool { input, output }
            | Self::Proxyless { input, output, .. }
            | Self::Ofa { input, output, .. } => (shape(input), shape(output)),
            Self::Logits { input, classes } => (shape(input), Shape::new(1, classes, 1, 1)),
        }
    }

    fn build(&self, dialect: Dialect, b: &mut GraphBuilder, x: NodeId) -> Result<NodeId, String> {
        let graph = |error: GraphError| error.to_string();
        let in_ofa = dialect == Dialect::Ofa;
        match *self {
            Self::FirstConv { output, .. } => {
                layers(b, x, &[OpSpec::conv(output.channels, 3, 2), NORM, activation(in_ofa)]).map_err(graph)
            }
            Self::Conv1 { output, .. } => {
                layers(b, x, &[OpSpec::conv(output.channels, 1, 1), NORM, activation(in_ofa)]).map_err(graph)
            }
            Self::Conv2 { output, .. } if in_ofa => {
                layers(b, x, &[OpSpec::conv(output.channels, 1, 1), HARD_SWISH]).map_err(graph)
            }
            Self::Conv2 { .. } => Err("ProxylessNAS' networks have no such layer".to_owned()),
            Self::AvgPool { .. } => layers(b, x, &[OpSpec::GlobalAvgPool]).map_err(graph),
            Self::Logits { classes, .. } => {
                let linear = OpSpec::Linear { out_features: classes, bias: true };
                let pool = [OpSpec::GlobalAvgPool, linear];
                layers(b, x, if in_ofa { &pool[1..] } else { &pool }).map_err(graph)
            }
            Self::Proxyless { input, output, ratio, kernel, stride, skip } => {
                let middle = input.channels * ratio;
                let (squeeze_excite, activation) = (false, OpSpec::Relu);
                Block { middle, kernel, stride, skip, squeeze_excite, activation }.build(b, x, input, output)
            }
            Self::Ofa { input, middle, .. } if middle < input.channels => Err(format!(
                "`expand` is the expanded width in this table (it has `se` and `hs`), and {middle} is less \
                 than the {} channels that enter",
                input.channels
            )),
            Self::Ofa { input, output, middle, kernel, stride, skip, squeeze_excite, hard_swish } => {
                let activation = activation(hard_swish);
                Block { middle, kernel, stride, skip, squeeze_excite, activation }.build(b, x, input, output)
            }
        }
    }
}

/// The sizes of an inverted residual.
struct Block {
    middle: usize,
    kernel: usize,
    stride: usize,
    skip: bool,
    squeeze_excite: bool,
    activation: OpSpec,
}

impl Block {
    fn build(&self, b: &mut GraphBuilder, x: NodeId, input: Maps, output: Maps) -> Result<NodeId, String> {
        let &Self { middle, kernel, stride, skip, squeeze_excite, activation } = self;
        if kernel % 2 == 0 {
            return Err(format!("a kernel of {kernel}x{kernel} can't be padded evenly"));
        }
        if skip && (stride != 1 || input != output) {
            return Err(format!("its input, {input}, can't be added to its output, {output}"));
        }
        let graph = |error: GraphError| error.to_string();
        let mut y = x;
        if middle != input.channels {
            y = layers(b, y, &[OpSpec::conv(middle, 1, 1), NORM, activation]).map_err(graph)?;
        }
        y = layers(b, y, &[OpSpec::depthwise(middle, kernel, stride, 1), NORM, activation]).map_err(graph)?;
        if squeeze_excite {
            y = gate(b, y, middle).map_err(graph)?;
        }
        y = layers(b, y, &[OpSpec::conv(output.channels, 1, 1), NORM]).map_err(graph)?;
        if skip { b.add("sum", OpSpec::Add, &[x, y]).map_err(graph) } else { Ok(y) }
    }
}

/// Once-for-all's squeeze-and-excitation: a quarter of the channels, in eights, in between.
fn gate(b: &mut GraphBuilder, x: NodeId, channels: usize) -> Result<NodeId, GraphError> {
    let biased = |out_channels| OpSpec::Conv2d {
        out_channels,
        kernel: 1,
        stride: 1,
        padding: 0,
        dilation: 1,
        groups: 1,
        bias: true,
    };
    let sigmoid = OpSpec::Activation { function: Function::HardSigmoid };
    let list =
        [OpSpec::GlobalAvgPool, biased(in_eights(channels / 4)), OpSpec::Relu, biased(channels), sigmoid];
    let gates = layers(b, x, &list)?;
    b.add("gated", OpSpec::Mul, &[x, gates])
}

/// The multiple of eight that is nearest, but no less than nine tenths, and at least eight: the rule of
/// `MobileNet`'s authors that once-for-all follows.
const fn in_eights(channels: usize) -> usize {
    let near = (channels + 4) / 8 * 8;
    let near = if near < 8 { 8 } else { near };
    if near * 10 < channels * 9 { near + 8 } else { near }
}

const fn activation(hard_swish: bool) -> OpSpec {
    if hard_swish { HARD_SWISH } else { OpSpec::Relu }
}

/// The only name that could fit; whether it does is for the caller to check.
fn candidate(graph: &Graph, dialect: Dialect) -> Option<OperatorKey> {
    let input = maps(graph.input_shape()?)?;
    let output = maps(graph.output_shape())?;
    let operators: Vec<OpSpec> =
        graph.nodes().iter().map(|node| node.op).filter(|op| *op != OpSpec::Input).collect();
    match (operators.as_slice(), dialect) {
        ([OpSpec::GlobalAvgPool], Dialect::Ofa) => Some(OperatorKey::AvgPool { input, output }),
        ([OpSpec::Linear { .. }], Dialect::Ofa)
        | ([OpSpec::GlobalAvgPool, OpSpec::Linear { .. }], Dialect::ProxylessNas) => {
            Some(OperatorKey::Logits { input, classes: output.channels })
        }
        ([OpSpec::Conv2d { kernel: 3, .. }, _, _], _) => Some(OperatorKey::FirstConv { input, output }),
        ([OpSpec::Conv2d { kernel: 1, .. }, _, _], _) => Some(OperatorKey::Conv1 { input, output }),
        ([OpSpec::Conv2d { kernel: 1, .. }, _], Dialect::Ofa) => Some(OperatorKey::Conv2 { input, output }),
        (operators, dialect) => {
            let skip = operators.last() == Some(&OpSpec::Add);
            let (middle, kernel, stride) = operators.iter().find_map(|op| match *op {
                OpSpec::Conv2d { out_channels, kernel, stride, groups, .. } if groups == out_channels => {
                    Some((out_channels, kernel, stride))
                }
                _ => None,
            })?;
            Some(match dialect {
                Dialect::ProxylessNas => {
                    let ratio = middle / input.channels;
                    OperatorKey::Proxyless { input, output, ratio, kernel, stride, skip }
                }
                Dialect::Ofa => OperatorKey::Ofa {
                    input,
                    output,
                    middle,
                    kernel,
                    stride,
                    skip,
                    squeeze_excite: operators.contains(&OpSpec::Mul),
                    hard_swish: operators.contains(&HARD_SWISH),
                },
            })
        }
    }
}

fn layers(b: &mut GraphBuilder, mut x: NodeId, list: &[OpSpec]) -> Result<NodeId, GraphError> {
    for operator in list {
        x = b.add(&format!("{}{x}", operator.name()), *operator, &[x])?;
    }
    Ok(x)
}

fn shape(maps: Maps) -> Shape {
    Shape::new(1, maps.channels, maps.height, maps.width)
}

/// Nothing for batches: the keys don't have them.
fn maps(shape: Shape) -> Option<Maps> {
    (shape.n == 1).then_some(Maps { height: shape.h, width: shape.w, channels: shape.c })
}
