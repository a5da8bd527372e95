//! From a graph to the bytes of a TFLite file.

use thiserror::Error;

use super::{
    layout::{Padding, channels_last, dims, outputs_last},
    schema::{Builtin, Element, File, Fused, OperatorEntry, Options, Scales, TensorEntry},
};
use crate::{
    Affine, Function, Graph, Node, NodeId, OpSpec, QuantizeError, Quantized, Shape, Weights,
    quantize::{self, fold, fused},
};

/// Why a graph can't be written as TFLite.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TfliteError {
    /// The graph can't be brought into the form that the format knows.
    #[error(transparent)]
    Fold(#[from] QuantizeError),
    /// An operator that the format can't say.
    #[error("write node `{node}` ({op}) as TFLite: {why}")]
    Unsupported {
        /// Node.
        node: String,
        /// Operator.
        op: &'static str,
        /// Reason.
        why: &'static str,
    },
}

/// The bytes of a TFLite file of a network of 8-bit integers. Input and output are integers, channels
/// last; what they stand for is in the file, and in [`Quantized::affine`].
///
/// # Errors
/// [`TfliteError::Unsupported`] names an operator that the format can't say.
pub fn encode_tflite_int8(network: &Quantized) -> Result<Vec<u8>, TfliteError> {
    encode(network.graph(), Numbers::Int8(network))
}

/// The same in 32-bit floats, with batch norms folded into the convolutions.
///
/// # Errors
/// [`TfliteError`] if the weights don't fit, or for an operator that the format can't say.
pub fn encode_tflite(graph: &Graph, weights: &Weights) -> Result<Vec<u8>, TfliteError> {
    if let Some((node, why)) = quantize::unsupported(graph) {
        return Err(unsupported(node, why));
    }
    let (graph, weights) = fold(graph, weights)?;
    encode(&graph, Numbers::Float32(&weights))
}

fn encode(graph: &Graph, numbers: Numbers<'_>) -> Result<Vec<u8>, TfliteError> {
    let fused = fused(graph);
    let stored = |id: NodeId| fused.get(&id).copied().unwrap_or(id);
    let mut writer = Writer { graph, numbers, file: File::default(), values: vec![-1; graph.nodes().len()] };
    for (id, node) in graph.nodes().iter().enumerate() {
        if fused.values().any(|&activation| activation == id) {
            writer.values[id] = writer.values[node.inputs[0]];
        } else {
            writer.values[id] = writer.node(id, node, stored(id))?;
        }
    }
    writer.file.outputs = graph.outputs().iter().map(|&id| writer.values[id]).collect();
    Ok(writer.file.finish())
}

/// What fills the tensors.
#[derive(Clone, Copy)]
enum Numbers<'a> {
    Float32(&'a Weights),
    Int8(&'a Quantized),
}

struct Writer<'a> {
    graph: &'a Graph,
    numbers: Numbers<'a>,
    file: File,
    /// Per node the tensor of its value.
    values: Vec<i32>,
}

impl Writer<'_> {
    /// Writes a node; `stored` is the rectifier that is part of it, or itself. The tensor of its value.
    fn node(&mut self, id: NodeId, node: &Node, stored: NodeId) -> Result<i32, TfliteError> {
        let inputs: Vec<i32> = node.inputs.iter().map(|&input| self.values[input]).collect();
        let fused = match self.graph.nodes()[stored].op {
            _ if stored == id => Fused::None,
            OpSpec::Relu => Fused::Relu,
            _ => Fused::Relu6,
        };
        let shape = self.graph.source_shape(node);
        let (builtin, inputs, options) = match node.op {
            OpSpec::Input => {
                let input = self.activation(id, "input", dims(node.shape));
                self.file.inputs.push(input);
                return Ok(input);
            }
            OpSpec::Zero { .. } => return Ok(self.zeros(id, node)),
            OpSpec::Conv2d { .. } => return self.convolution(id, node, stored, fused),
            OpSpec::Linear { .. } => return self.linear(id, node, stored, fused),
            OpSpec::MaxPool { .. } | OpSpec::AvgPool { .. } => return self.pool(id, node),
            OpSpec::ChannelShuffle { groups } => {
                let rows = (shape.n * shape.h * shape.w) as i32;
                let [groups, each] = [groups, shape.c / groups].map(|extent| extent as i32);
                let split =
                    self.reshape(id, &format!("{}.split", node.name), inputs[0], &[rows, groups, each]);
                let swapped =
                    self.activation(id, &format!("{}.swapped", node.name), vec![rows, each, groups]);
                let order = self.integers(&format!("{}.order", node.name), &[3], &[0, 2, 1]);
                self.push(Builtin::Transpose, vec![split, order], swapped, Options::Transpose);
                return Ok(self.reshape(id, &node.name, swapped, &dims(node.shape)));
            }
            OpSpec::Relu => (Builtin::Relu, inputs, Options::None),
            OpSpec::Activation { function: Function::Relu6 } => (Builtin::Relu6, inputs, Options::None),
            OpSpec::Activation { function: Function::Sigmoid } => (Builtin::Logistic, inputs, Options::None),
            OpSpec::Activation { function: Function::Tanh } => (Builtin::Tanh, inputs, Options::None),
            OpSpec::Activation { function: Function::HardSwish } => {
                (Builtin::HardSwish, inputs, Options::HardSwish)
            }
            OpSpec::Add => (Builtin::Add, inputs, Options::Add { fused }),
            OpSpec::Mul => (Builtin::Mul, inputs, Options::Mul),
            OpSpec::Concat => (Builtin::Concatenation, inputs, Options::Concatenation { axis: 3 }),
            OpSpec::GlobalAvgPool => {
                let axes = self.integers(&format!("{}.axes", node.name), &[2], &[1, 2]);
                (Builtin::Mean, vec![inputs[0], axes], Options::Reducer { keep_dims: true })
            }
            OpSpec::Prelu => {
                let slopes = self.slopes(id, node)?;
                (Builtin::Prelu, vec![inputs[0], slopes], Options::None)
            }
            OpSpec::Pad { top, left, bottom, right } => {
                let amounts = [0, 0, top, bottom, left, right, 0, 0].map(|amount| amount as i32);
                let amounts = self.integers(&format!("{}.amounts", node.name), &[4, 2], &amounts);
                (Builtin::Pad, vec![inputs[0], amounts], Options::Pad)
            }
            OpSpec::DepthToSpace { block } => {
                (Builtin::DepthToSpace, inputs, Options::DepthToSpace { block: block as i32 })
            }
            OpSpec::Crop { .. } | OpSpec::CropEnd { .. } | OpSpec::Slice { .. } => {
                let begin = match node.op {
                    OpSpec::Crop { top, left } => [0, top as i32, left as i32, 0],
                    OpSpec::Slice { start, .. } => [0, 0, 0, start as i32],
                    _ => [0; 4],
                };
                let begin = self.integers(&format!("{}.begin", node.name), &[4], &begin);
                let size = self.integers(&format!("{}.size", node.name), &[4], &dims(node.shape));
                (Builtin::Slice, vec![inputs[0], begin, size], Options::Slice)
            }
            _ => return Err(unsupported(node, "it should have been folded, or refused before")),
        };
        let output = self.activation(stored, &node.name, dims(node.shape));
        Ok(self.push(builtin, inputs, output, options))
    }

    fn convolution(
        &mut self,
        id: NodeId,
        node: &Node,
        stored: NodeId,
        fused: Fused,
    ) -> Result<i32, TfliteError> {
        let shape = self.graph.source_shape(node);
        let OpSpec::Conv2d { out_channels, kernel, stride, padding, dilation, groups, .. } = node.op else {
            return Err(unsupported(node, "it is no convolution"));
        };
        let depthwise = groups == shape.c && groups > 1;
        let extent = dilation * (kernel - 1) + 1;
        let (input, same) = self.padded(id, node, Padding::of(extent, stride, padding, shape, node.shape));
        let side = kernel as i32;
        let (extents, axis) = if depthwise {
            (vec![1, side, side, out_channels as i32], 3)
        } else {
            (vec![out_channels as i32, side, side, (shape.c / groups) as i32], 0)
        };
        let layout = Layout { extents, axis, each: [shape.c / groups, kernel, kernel] };
        let [weight, bias] = self.filter(id, node, &layout)?;
        let (stride, dilation) = (stride as i32, dilation as i32);
        let (builtin, options) = if depthwise {
            let multiplier = (out_channels / groups) as i32;
            (Builtin::DepthwiseConv2d, Options::DepthwiseConv2d { same, stride, dilation, multiplier, fused })
        } else {
            (Builtin::Conv2d, Options::Conv2d { same, stride, dilation, fused })
        };
        let output = self.activation(stored, &node.name, dims(node.shape));
        Ok(self.push(builtin, vec![input, weight, bias], output, options))
    }

    fn linear(&mut self, id: NodeId, node: &Node, stored: NodeId, fused: Fused) -> Result<i32, TfliteError> {
        let shape = self.graph.source_shape(node);
        let source = node.inputs[0];
        let features = shape.c * shape.h * shape.w;
        let extents = [shape.n as i32, features as i32];
        let flat = self.reshape(source, &format!("{}.flat", node.name), self.values[source], &extents);
        let outputs = node.shape.c;
        let extents = vec![outputs as i32, features as i32];
        let layout = Layout { extents, axis: 0, each: [shape.c, shape.h, shape.w] };
        let [weight, bias] = self.filter(id, node, &layout)?;
        let output = self.activation(stored, &node.name, vec![node.shape.n as i32, outputs as i32]);
        let inputs = vec![flat, weight, bias];
        self.push(Builtin::FullyConnected, inputs, output, Options::FullyConnected { fused });
        // The result of a network has two extents; whoever reads it inside wants four.
        let read = self.graph.nodes().iter().flat_map(|node| &node.inputs).any(|&input| input == stored);
        if read {
            let name = format!("{}.map", node.name);
            return Ok(self.reshape(stored, &name, output, &dims(node.shape)));
        }
        Ok(output)
    }

    fn pool(&mut self, id: NodeId, node: &Node) -> Result<i32, TfliteError> {
        let shape = self.graph.source_shape(node);
        let (builtin, kernel, stride, padding, inside_only) = match node.op {
            OpSpec::MaxPool { kernel, stride, padding } => {
                (Builtin::MaxPool2d, kernel, stride, padding, false)
            }
            OpSpec::AvgPool { kernel, stride, padding, count_include_pad } => {
                (Builtin::AveragePool2d, kernel, stride, padding, !count_include_pad)
            }
            _ => return Err(unsupported(node, "it is no pool")),
        };
        let filter = kernel as i32;
        let mut how = Padding::of(kernel, stride, padding, shape, node.shape);
        if how == Padding::Same && builtin == Builtin::AveragePool2d && !inside_only {
            // The format's own padding never counts in the divisor.
            how = Padding::Before { rows: [padding; 2], columns: [padding; 2] };
        }
        if inside_only && matches!(how, Padding::Before { .. }) {
            // Neither does padding in front of an operator stay out of it: all positions are averaged,
            // and those of the stride are kept, by a maximum over one value.
            let kept = |size: usize, out: usize| size.div_ceil(stride) == out;
            if Padding::of(kernel, 1, padding, shape, shape) != Padding::Same
                || !kept(shape.h, node.shape.h)
                || !kept(shape.w, node.shape.w)
            {
                return Err(unsupported(node, "its padding, which does not count, is not half its window"));
            }
            let input = self.values[node.inputs[0]];
            let all = self.activation(id, &format!("{}.all", node.name), dims(shape));
            self.push(builtin, vec![input], all, Options::Pool2d { same: true, stride: 1, filter });
            let output = self.activation(id, &node.name, dims(node.shape));
            let options = Options::Pool2d { same: false, stride: stride as i32, filter: 1 };
            return Ok(self.push(Builtin::MaxPool2d, vec![all], output, options));
        }
        let (input, same) = self.padded(id, node, how);
        let output = self.activation(id, &node.name, dims(node.shape));
        Ok(self.push(builtin, vec![input], output, Options::Pool2d { same, stride: stride as i32, filter }))
    }

    /// A node's input, padded where the format can't do it by itself; and whether it is to.
    fn padded(&mut self, id: NodeId, node: &Node, how: Padding) -> (i32, bool) {
        let source = node.inputs[0];
        let input = self.values[source];
        let (rows, columns) = match how {
            Padding::Valid => return (input, false),
            Padding::Same => return (input, true),
            Padding::Before { rows, columns } => (rows, columns),
        };
        let shape = self.graph.source_shape(node);
        let larger = Shape {
            h: shape.h + rows.iter().sum::<usize>(),
            w: shape.w + columns.iter().sum::<usize>(),
            ..shape
        };
        let name = format!("{}.padded", node.name);
        let output = self.activation(source, &name, dims(larger));
        let amounts = [[0; 2], rows, columns, [0; 2]].concat();
        let amounts: Vec<i32> = amounts.into_iter().map(|amount| amount as i32).collect();
        let amounts = self.integers(&format!("{name}.amounts"), &[4, 2], &amounts);
        if let OpSpec::MaxPool { .. } = node.op {
            let lowest = self.lowest(id, &format!("{name}.value"));
            self.push(Builtin::PadV2, vec![input, amounts, lowest], output, Options::PadV2);
        } else {
            self.push(Builtin::Pad, vec![input, amounts], output, Options::Pad);
        }
        (output, false)
    }

    fn reshape(&mut self, like: NodeId, name: &str, input: i32, extents: &[i32]) -> i32 {
        let output = self.activation(like, name, extents.to_vec());
        let shape = self.integers(&format!("{name}.shape"), &[extents.len() as i32], extents);
        let options = Options::Reshape { dims: extents.to_vec() };
        self.push(Builtin::Reshape, vec![input, shape], output, options)
    }

    fn push(&mut self, builtin: Builtin, inputs: Vec<i32>, output: i32, options: Options) -> i32 {
        self.file.operators.push(OperatorEntry { builtin, inputs, output, options });
        output
    }

    fn tensor(&mut self, entry: TensorEntry) -> i32 {
        self.file.tensors.push(entry);
        self.file.tensors.len() as i32 - 1
    }

    /// A tensor that holds values of a node.
    fn activation(&mut self, id: NodeId, name: &str, dims: Vec<i32>) -> i32 {
        let (element, scales) = match self.numbers {
            Numbers::Float32(_) => (Element::Float32, None),
            Numbers::Int8(network) => (Element::Int8, Some(one_scale(network.affine(id)))),
        };
        self.tensor(TensorEntry { name: name.into(), dims, element, scales, data: None })
    }

    fn integers(&mut self, name: &str, extents: &[i32], values: &[i32]) -> i32 {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(TensorEntry {
            name: name.into(),
            dims: extents.to_vec(),
            element: Element::Int32,
            scales: None,
            data: Some(data),
        })
    }

    fn zeros(&mut self, id: NodeId, node: &Node) -> i32 {
        let count = node.shape.elements();
        let tensor = self.activation(id, &node.name, dims(node.shape));
        self.file.tensors[tensor as usize].data = Some(match self.numbers {
            Numbers::Float32(_) => vec![0; 4 * count],
            Numbers::Int8(network) => vec![network.affine(id).zero_point.to_le_bytes()[0]; count],
        });
        tensor
    }

    /// One value, below which nothing is.
    fn lowest(&mut self, id: NodeId, name: &str) -> i32 {
        let tensor = self.activation(id, name, vec![1]);
        self.file.tensors[tensor as usize].data = Some(match self.numbers {
            Numbers::Float32(_) => f32::MIN.to_le_bytes().to_vec(),
            Numbers::Int8(_) => i8::MIN.to_le_bytes().to_vec(),
        });
        tensor
    }

    /// Slopes of negative values, per channel.
    fn slopes(&mut self, id: NodeId, node: &Node) -> Result<i32, TfliteError> {
        let name = format!("{}.weight", node.name);
        let channels = node.shape.c;
        let (element, scales, data) = match self.numbers {
            Numbers::Float32(weights) => {
                let values = weights.get(&name, &[channels]).map_err(QuantizeError::from)?;
                (Element::Float32, None, values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            Numbers::Int8(network) => {
                let Some(filter) = network.filter(id) else {
                    return Err(unsupported(node, "it has no slopes"));
                };
                let scales = Scales { factors: filter.scales.clone(), zero_points: vec![0], axis: 0 };
                let data = filter.weights.iter().map(|value| value.to_le_bytes()[0]).collect();
                (Element::Int8, Some(scales), data)
            }
        };
        let dims = vec![1, 1, channels as i32];
        Ok(self.tensor(TensorEntry { name, dims, element, scales, data: Some(data) }))
    }

    /// Weight and bias of a convolution or linear layer, in the format's layout.
    fn filter(&mut self, id: NodeId, node: &Node, layout: &Layout) -> Result<[i32; 2], TfliteError> {
        let (extents, axis) = (layout.extents.clone(), layout.axis);
        let [weight_name, bias_name] = ["weight", "bias"].map(|suffix| format!("{}.{suffix}", node.name));
        let channels = node.shape.c as i32;
        let (weight, bias) = match self.numbers {
            Numbers::Float32(weights) => {
                let source = self.graph.source_shape(node);
                let mut values = Vec::new();
                for (suffix, dims) in node.op.parameters(source) {
                    let found = weights.get(&format!("{}.{suffix}", node.name), &dims);
                    values.push(found.map_err(QuantizeError::from)?);
                }
                let [weight, bias] = values[..] else { return Err(unsupported(node, "it has no bias")) };
                let bytes =
                    |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
                (
                    (Element::Float32, None, bytes(&layout.apply(weight))),
                    (Element::Float32, None, bytes(bias)),
                )
            }
            Numbers::Int8(network) => {
                let Some(filter) = network.filter(id) else {
                    return Err(unsupported(node, "it has no weights"));
                };
                let symmetric = |scales: Vec<f32>, axis| {
                    Some(Scales { zero_points: vec![0; scales.len()], factors: scales, axis })
                };
                let weight = layout.apply(&filter.weights);
                let weight = weight.iter().map(|value| value.to_le_bytes()[0]).collect();
                let bias = filter.bias.iter().flat_map(|value| value.to_le_bytes()).collect();
                let bias_scales = filter.bias_scales(network.affine(node.inputs[0]));
                (
                    (Element::Int8, symmetric(filter.scales.clone(), axis), weight),
                    (Element::Int32, symmetric(bias_scales, 0), bias),
                )
            }
        };
        let tensors = [(weight_name, extents, weight), (bias_name, vec![channels], bias)];
        Ok(tensors.map(|(name, dims, (element, scales, data))| {
            self.tensor(TensorEntry { name, dims, element, scales, data: Some(data) })
        }))
    }
}

/// How weights lie in the file.
struct Layout {
    extents: Vec<i32>,
    /// Axis of the output channels.
    axis: i32,
    /// Input channels, rows and columns per output channel, as they lie in the graph's weights.
    each: [usize; 3],
}

impl Layout {
    fn apply<T: Copy>(&self, values: &[T]) -> Vec<T> {
        let [inputs, height, width] = self.each;
        if self.axis == 0 {
            channels_last(values, inputs, height, width)
        } else {
            outputs_last(values, values.len() / (inputs * height * width))
        }
    }
}

fn one_scale(affine: Affine) -> Scales {
    Scales { factors: vec![affine.scale], zero_points: vec![i64::from(affine.zero_point)], axis: 0 }
}

fn unsupported(node: &Node, why: &'static str) -> TfliteError {
    TfliteError::Unsupported { node: node.name.clone(), op: node.op.name(), why }
}
