//! From a graph and its weights to the bytes of an ONNX file.

use prost::Message;
use thiserror::Error;

use super::{
    build::{float, int, ints, value_info, window},
    message::{Entry, GraphMessage, Model, OperatorSet},
};
use crate::{BATCH_NORM_EPSILON, Function, Graph, Node, NodeId, OpSpec, Shape, Weights, WeightsError};

/// Version of the operator set (ONNX 1.16).
const OPERATOR_SET: i64 = 21;
/// Version of the file format that belongs to it.
const IR_VERSION: i64 = 10;
/// Names of the outputs of a file, in the graph's order.
const OUTPUTS: [&str; 2] = ["logits", "auxiliary"];

/// Why a graph can't be written as ONNX.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OnnxError {
    /// Weights that don't fit.
    #[error("write the ONNX file: {0}")]
    Weights(#[from] WeightsError),
    /// More outputs than have names.
    #[error("write the ONNX file: a graph has at most 2 outputs (logits, auxiliary), this one has {got}")]
    Outputs {
        /// Number of outputs.
        got: usize,
    },
    /// A node whose name means something else in the file.
    #[error("write the ONNX file: rename node `{0}`, the name is that of an input, output or other tensor")]
    Name(String),
}

/// The bytes of an ONNX file (operator set 21) of a graph in inference mode.
///
/// The input is called `input` (further ones `input1`, `input2`, …), outputs `logits` and
/// `auxiliary`; extents are the graph's, batch included. A linear layer's output has two extents.
/// Other tensors keep the names of their nodes, weights those of [`Graph::parameters`].
///
/// # Errors
/// [`OnnxError`] if the weights don't fit, there are more than two outputs, or names collide.
pub fn encode_onnx(graph: &Graph, weights: &Weights) -> Result<Vec<u8>, OnnxError> {
    weights.check(graph)?;
    let got = graph.outputs().len();
    if got > OUTPUTS.len() {
        return Err(OnnxError::Outputs { got });
    }
    let mut writer = Writer::new(graph, weights);
    let needed = writer.needed();
    for (id, node) in graph.nodes().iter().enumerate() {
        if node.op == OpSpec::Input {
            writer.input(id, node);
        } else if needed[id] {
            writer.operator(id, node)?;
        }
    }
    for (name, &id) in OUTPUTS.iter().zip(graph.outputs()) {
        writer.output(name, id);
    }
    writer.message.check_names().map_err(OnnxError::Name)?;
    Ok(file(writer.message, graph))
}

/// The bytes of the file of a message, with counts of the graph that it stands for.
pub(super) fn file(message: GraphMessage, graph: &Graph) -> Vec<u8> {
    let entry = |key: &str, value: u64| Entry { key: key.into(), value: value.to_string() };
    let model = Model {
        ir_version: Some(IR_VERSION),
        producer_name: "lathe".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(message),
        opset_import: vec![OperatorSet { domain: String::new(), version: Some(OPERATOR_SET) }],
        metadata: vec![entry("macs", graph.macs()), entry("parameters", graph.parameter_count())],
    };
    model.encode_to_vec()
}

/// A file in the making.
pub(super) struct Writer<'a> {
    pub(super) graph: &'a Graph,
    pub(super) weights: &'a Weights,
    pub(super) message: GraphMessage,
    /// Per node the name of its value.
    names: Vec<String>,
    /// Whether a node's value has two extents instead of four.
    flat: Vec<bool>,
}

impl<'a> Writer<'a> {
    fn new(graph: &'a Graph, weights: &'a Weights) -> Self {
        let names: Vec<String> = graph.nodes().iter().map(|node| node.name.clone()).collect();
        let flat = vec![false; names.len()];
        let message = GraphMessage { name: "network".into(), ..GraphMessage::default() };
        Self { graph, weights, message, names, flat }
    }

    /// Which nodes the outputs need; zeros need nothing.
    fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.names.len()];
        for &output in self.graph.outputs() {
            needed[output] = true;
        }
        for (id, node) in self.graph.nodes().iter().enumerate().rev() {
            if needed[id] && !matches!(node.op, OpSpec::Zero { .. }) {
                for &input in &node.inputs {
                    needed[input] = true;
                }
            }
        }
        needed
    }

    fn input(&mut self, id: NodeId, node: &Node) {
        let name = match self.message.inputs.len() {
            0 => "input".into(),
            index => format!("input{index}"),
        };
        self.message.inputs.push(value_info(&name, &node.shape.dims()));
        self.names[id] = name;
    }

    /// Names an output, by a copy: the value may be an input, a constant or another output as well.
    fn output(&mut self, name: &str, id: NodeId) {
        let shape = self.graph.nodes()[id].shape;
        let dims: &[usize] = if self.flat[id] { &[shape.n, shape.c] } else { &shape.dims() };
        self.message.outputs.push(value_info(name, dims));
        let value = self.names[id].clone();
        // Where nobody else reads it, the operator writes the output itself.
        let read = self.message.nodes.iter().any(|node| node.inputs.contains(&value));
        let writer =
            self.message.nodes.iter_mut().flat_map(|node| &mut node.outputs).find(|out| **out == value);
        match writer {
            Some(output) if !read && !OUTPUTS.contains(&value.as_str()) => {
                name.clone_into(output);
                name.clone_into(&mut self.names[id]);
            }
            _ => self.message.push(&format!("{name}.copy"), "Identity", vec![value], name, Vec::new()),
        }
    }

    fn operator(&mut self, id: NodeId, node: &Node) -> Result<(), OnnxError> {
        let name = node.name.as_str();
        let spec = self.graph.source_shape(node);
        // Only element-wise operators and linear layers read values of two extents as they are.
        let keeps = matches!(node.op, OpSpec::Relu | OpSpec::Activation { .. } | OpSpec::Add | OpSpec::Mean);
        let all_flat = node.inputs.iter().all(|&input| self.flat[input]);
        let is_linear = matches!(node.op, OpSpec::Linear { .. });
        self.flat[id] = is_linear || keeps && all_flat;
        let mut inputs = Vec::with_capacity(node.inputs.len());
        if !matches!(node.op, OpSpec::Zero { .. }) {
            for &input in &node.inputs {
                let reshape = self.flat[input] && !self.flat[id];
                inputs.push(if reshape { self.unflatten(input, name) } else { self.names[input].clone() });
            }
        }
        match node.op {
            OpSpec::Input => {}
            OpSpec::Conv2d { kernel, stride, padding, dilation, groups, .. } => {
                self.weights_of(node, &mut inputs)?;
                let mut attributes = window(kernel, stride, padding);
                attributes.extend([ints("dilations", &[dilation; 2]), int("group", groups)]);
                self.message.push(name, "Conv", inputs, name, attributes);
            }
            OpSpec::BatchNorm { affine } => {
                if !affine {
                    // ONNX' operator always scales and shifts.
                    for (suffix, value) in [("weight", 1.0), ("bias", 0.0)] {
                        inputs.push(self.message.floats(
                            &format!("{name}.{suffix}"),
                            &[spec.c],
                            &vec![value; spec.c],
                        ));
                    }
                }
                self.weights_of(node, &mut inputs)?;
                let epsilon = float("epsilon", BATCH_NORM_EPSILON);
                self.message.push(name, "BatchNormalization", inputs, name, vec![epsilon]);
            }
            OpSpec::Relu => self.message.push(name, "Relu", inputs, name, Vec::new()),
            OpSpec::Activation { function } => self.activation(name, function, inputs),
            OpSpec::Mul => self.message.push(name, "Mul", inputs, name, Vec::new()),
            OpSpec::MaxPool { kernel, stride, padding } => {
                self.message.push(name, "MaxPool", inputs, name, window(kernel, stride, padding));
            }
            OpSpec::AvgPool { kernel, stride, padding, count_include_pad } => {
                let mut attributes = window(kernel, stride, padding);
                attributes.push(int("count_include_pad", usize::from(count_include_pad)));
                self.message.push(name, "AveragePool", inputs, name, attributes);
            }
            OpSpec::GlobalAvgPool => self.message.push(name, "GlobalAveragePool", inputs, name, Vec::new()),
            OpSpec::Linear { .. } => {
                let flat = format!("{name}.flat");
                self.message.push(&flat, "Flatten", inputs, &flat, vec![int("axis", 1)]);
                let mut inputs = vec![flat];
                self.weights_of(node, &mut inputs)?;
                self.message.push(name, "Gemm", inputs, name, vec![int("transB", 1)]);
            }
            OpSpec::Add => {
                let kind = if inputs.len() == 2 { "Add" } else { "Sum" };
                self.message.push(name, kind, inputs, name, Vec::new());
            }
            OpSpec::Concat => self.message.push(name, "Concat", inputs, name, vec![int("axis", 1)]),
            OpSpec::Crop { top, left } => {
                inputs.push(self.message.integers(&format!("{name}.starts"), &[top, left]));
                inputs.push(self.message.integers(&format!("{name}.ends"), &[spec.h, spec.w]));
                inputs.push(self.message.integers(&format!("{name}.axes"), &[2, 3]));
                self.message.push(name, "Slice", inputs, name, Vec::new());
            }
            OpSpec::ChannelShuffle { groups } => self.shuffle(name, spec, groups, inputs),
            OpSpec::Zero { .. } => {
                let zeros = vec![0.0; node.shape.elements()];
                self.message.floats(name, &node.shape.dims(), &zeros);
            }
            _ => self.primitive(node, inputs)?,
        }
        Ok(())
    }

    fn activation(&mut self, name: &str, function: Function, mut inputs: Vec<String>) {
        let mut attributes = Vec::new();
        let kind = match function {
            Function::Relu6 => {
                inputs.push(self.message.floats(&format!("{name}.min"), &[], &[0.0]));
                inputs.push(self.message.floats(&format!("{name}.max"), &[], &[6.0]));
                "Clip"
            }
            Function::Sigmoid => "Sigmoid",
            Function::HardSigmoid => {
                attributes = vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)];
                "HardSigmoid"
            }
            Function::Swish => {
                let gate = format!("{name}.gate");
                self.message.push(&gate, "Sigmoid", inputs.clone(), &gate, Vec::new());
                inputs.push(gate);
                "Mul"
            }
            Function::HardSwish => "HardSwish",
            Function::Tanh => "Tanh",
            Function::Gelu => "Gelu",
        };
        self.message.push(name, kind, inputs, name, attributes);
    }

    /// Splits channels into groups, swaps the two, and joins them again.
    fn shuffle(&mut self, name: &str, shape: Shape, groups: usize, mut inputs: Vec<String>) {
        let (split, swapped) = (format!("{name}.split"), format!("{name}.swapped"));
        let dims = [shape.n, groups, shape.c / groups, shape.h, shape.w];
        inputs.push(self.message.integers(&format!("{name}.groups"), &dims));
        self.message.push(&split, "Reshape", inputs, &split, Vec::new());
        let order = ints("perm", &[0, 2, 1, 3, 4]);
        self.message.push(&swapped, "Transpose", vec![split], &swapped, vec![order]);
        let channels = self.message.integers(&format!("{name}.channels"), &shape.dims());
        self.message.push(name, "Reshape", vec![swapped, channels], name, Vec::new());
    }

    /// A value of two extents as one of four, for this reader.
    fn unflatten(&mut self, id: NodeId, reader: &str) -> String {
        let name = format!("{}.for.{reader}", self.names[id]);
        if !self.message.nodes.iter().any(|node| node.name == name) {
            let dims = self.message.integers(&format!("{name}.shape"), &self.graph.nodes()[id].shape.dims());
            self.message.push(&name, "Reshape", vec![self.names[id].clone(), dims], &name, Vec::new());
        }
        name
    }

    /// Adds the node's parameters and statistics, in the order that ONNX' operators want them.
    pub(super) fn weights_of(&mut self, node: &Node, inputs: &mut Vec<String>) -> Result<(), OnnxError> {
        let source = self.graph.source_shape(node);
        for (suffix, dims) in node.op.parameters(source).into_iter().chain(node.op.statistics(source)) {
            let name = format!("{}.{suffix}", node.name);
            let values = self.weights.get(&name, &dims)?;
            inputs.push(self.message.floats(&name, &dims, values));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
