//! From a network of integers to the bytes of an ONNX file.

use super::{
    build::{int, ints, text, value_info, window},
    encode::{OnnxError, file},
    message::{Attribute, GraphMessage, INT8, INT32, UINT8},
};
use crate::{Affine, Function, Node, NodeId, OpSpec, Quantized};

/// The bytes of an ONNX file (operator set 21) whose activations and weights pass
/// `QuantizeLinear`/`DequantizeLinear` pairs, from which an engine makes integer kernels.
///
/// Activations are the network's integers plus 128, unsigned: ONNX Runtime on x86 makes integer kernels
/// of signed ones only where a single node reads them. Input and output are 32-bit floats of the names and extents that
/// [`encode_onnx`](crate::encode_onnx) gives them; the file rounds the input and converts the output,
/// and an engine's time contains both.
///
/// # Errors
/// [`OnnxError::Name`] if names collide.
pub fn encode_onnx_int8(network: &Quantized) -> Result<Vec<u8>, OnnxError> {
    let graph = network.graph();
    let message = GraphMessage { name: "network".into(), ..GraphMessage::default() };
    let mut writer = Writer { network, message };
    for (id, node) in graph.nodes().iter().enumerate() {
        writer.node(id, node);
    }
    let output = graph.outputs()[0];
    let shape = graph.output_shape();
    let flat = matches!(graph.nodes()[output].op, OpSpec::Linear { .. });
    let dims: &[usize] = if flat { &[shape.n, shape.c] } else { &shape.dims() };
    writer.dequantize(output, "logits");
    writer.message.outputs.push(value_info("logits", dims));
    writer.message.check_names().map_err(OnnxError::Name)?;
    Ok(file(writer.message, graph))
}

struct Writer<'a> {
    network: &'a Quantized,
    message: GraphMessage,
}

impl Writer<'_> {
    fn node(&mut self, id: NodeId, node: &Node) {
        let name = node.name.as_str();
        match node.op {
            OpSpec::Input => {
                self.message.inputs.push(value_info("input", &node.shape.dims()));
                self.quantize("input".into(), id);
                return;
            }
            OpSpec::Zero { .. } => {
                let zero = self.network.affine(id).zero_point;
                let zeros = vec![unsigned(zero); node.shape.elements()];
                self.message.constant(&integers_of(name), &node.shape.dims(), UINT8, zeros);
                return;
            }
            _ if self.network.is_fused(id) => return,
            _ => {}
        }
        let mut inputs: Vec<String> = node
            .inputs
            .iter()
            .enumerate()
            .map(|(index, &input)| {
                let real = format!("{name}.in{index}");
                self.dequantize(self.stored(input), &real);
                real
            })
            .collect();
        let (kind, attributes) = self.operator(id, node, &mut inputs);
        let value = format!("{name}.real");
        self.message.push(name, kind, inputs, &value, attributes);
        let Some(activation) = self.network.activation(id) else { return self.quantize(value, id) };
        let rectifier = &self.network.graph().nodes()[activation];
        let clipped = format!("{}.real", rectifier.name);
        let mut inputs = vec![value];
        let kind = self.rectifier(rectifier, &mut inputs);
        self.message.push(&rectifier.name, kind, inputs, &clipped, Vec::new());
        self.quantize(clipped, activation);
    }

    /// ONNX' name of the operator, its attributes, and inputs that are not nodes of the graph.
    fn operator(
        &mut self,
        id: NodeId,
        node: &Node,
        inputs: &mut Vec<String>,
    ) -> (&'static str, Vec<Attribute>) {
        let name = node.name.as_str();
        let spec = self.network.graph().source_shape(node);
        match node.op {
            OpSpec::Conv2d { kernel, stride, padding, dilation, groups, .. } => {
                self.filter(id, node, inputs);
                let mut attributes = window(kernel, stride, padding);
                attributes.extend([ints("dilations", &[dilation; 2]), int("group", groups)]);
                ("Conv", attributes)
            }
            OpSpec::Linear { .. } => {
                // Between integers the change of shape costs nothing.
                let (flat, rounded, real) =
                    (format!("{name}.flat"), format!("{name}.flat.q"), format!("{name}.flat.dq"));
                let source = self.network.affine(self.stored(node.inputs[0]));
                self.message.push(&flat, "Flatten", inputs.clone(), &flat, vec![int("axis", 1)]);
                let scale = self.scale(&flat, source);
                self.convert("QuantizeLinear", flat, &scale, &rounded);
                self.convert("DequantizeLinear", rounded, &scale, &real);
                *inputs = vec![real];
                self.filter(id, node, inputs);
                ("Gemm", vec![int("transB", 1)])
            }
            OpSpec::MaxPool { kernel, stride, padding } => ("MaxPool", window(kernel, stride, padding)),
            OpSpec::AvgPool { kernel, stride, padding, count_include_pad } => {
                let mut attributes = window(kernel, stride, padding);
                attributes.push(int("count_include_pad", usize::from(count_include_pad)));
                ("AveragePool", attributes)
            }
            OpSpec::GlobalAvgPool => ("GlobalAveragePool", Vec::new()),
            OpSpec::Relu | OpSpec::Activation { .. } => (self.rectifier(node, inputs), Vec::new()),
            OpSpec::Mul => ("Mul", Vec::new()),
            OpSpec::Add => ("Add", Vec::new()),
            OpSpec::Concat => ("Concat", vec![int("axis", 1)]),
            OpSpec::Crop { top, left } => {
                inputs.push(self.message.integers(&format!("{name}.starts"), &[top, left]));
                inputs.push(self.message.integers(&format!("{name}.ends"), &[spec.h, spec.w]));
                inputs.push(self.message.integers(&format!("{name}.axes"), &[2, 3]));
                ("Slice", Vec::new())
            }
            OpSpec::Prelu => {
                self.slopes(id, node, inputs);
                ("PRelu", Vec::new())
            }
            OpSpec::Slice { start, channels } => {
                inputs.push(self.message.integers(&format!("{name}.starts"), &[start]));
                inputs.push(self.message.integers(&format!("{name}.ends"), &[start + channels]));
                inputs.push(self.message.integers(&format!("{name}.axes"), &[1]));
                ("Slice", Vec::new())
            }
            OpSpec::CropEnd { .. } => {
                inputs.push(self.message.integers(&format!("{name}.starts"), &[0, 0]));
                inputs.push(self.message.integers(&format!("{name}.ends"), &[node.shape.h, node.shape.w]));
                inputs.push(self.message.integers(&format!("{name}.axes"), &[2, 3]));
                ("Slice", Vec::new())
            }
            OpSpec::Pad { top, left, bottom, right } => {
                let pads = [0, 0, top, left, 0, 0, bottom, right];
                inputs.push(self.message.integers(&format!("{name}.pads"), &pads));
                ("Pad", Vec::new())
            }
            OpSpec::DepthToSpace { block } => {
                ("DepthToSpace", vec![int("blocksize", block), text("mode", "CRD")])
            }
            OpSpec::ChannelShuffle { groups } => {
                let (split, swapped) = (format!("{name}.split"), format!("{name}.swapped"));
                let dims = [spec.n, groups, spec.c / groups, spec.h, spec.w];
                inputs.push(self.message.integers(&format!("{name}.groups"), &dims));
                self.message.push(&split, "Reshape", inputs.clone(), &split, Vec::new());
                let order = ints("perm", &[0, 2, 1, 3, 4]);
                self.message.push(&swapped, "Transpose", vec![split], &swapped, vec![order]);
                let channels = self.message.integers(&format!("{name}.channels"), &spec.dims());
                *inputs = vec![swapped, channels];
                ("Reshape", Vec::new())
            }
            // Folded away, refused before, or written by the caller.
            _ => ("Identity", Vec::new()),
        }
    }

    /// An element-wise function; swish and hard sigmoid are folded away.
    fn rectifier(&mut self, node: &Node, inputs: &mut Vec<String>) -> &'static str {
        match node.op {
            OpSpec::Activation { function: Function::Relu6 } => {
                inputs.push(self.message.floats(&format!("{}.min", node.name), &[], &[0.0]));
                inputs.push(self.message.floats(&format!("{}.max", node.name), &[], &[6.0]));
                "Clip"
            }
            OpSpec::Activation { function: Function::Sigmoid } => "Sigmoid",
            OpSpec::Activation { function: Function::HardSwish } => "HardSwish",
            OpSpec::Activation { function: Function::Tanh } => "Tanh",
            _ => "Relu",
        }
    }

    /// The node whose integers are written for a node.
    fn stored(&self, id: NodeId) -> NodeId {
        self.network.activation(id).unwrap_or(id)
    }

    /// Slopes of negative values, per channel.
    fn slopes(&mut self, id: NodeId, node: &Node, inputs: &mut Vec<String>) {
        let Some(filter) = self.network.filter(id) else { return };
        let name = format!("{}.weight", node.name);
        let raw = filter.weights.iter().map(|value| value.to_le_bytes()[0]).collect();
        self.message.constant(&integers_of(&name), &[node.shape.c, 1, 1], INT8, raw);
        let parts = vec![
            integers_of(&name),
            self.message.floats(&format!("{name}.scale"), &[], &filter.scales),
            self.message.constant(&format!("{name}.zero"), &[], INT8, vec![0]),
        ];
        self.message.push(&name, "DequantizeLinear", parts, &name, Vec::new());
        inputs.push(name);
    }

    fn filter(&mut self, id: NodeId, node: &Node, inputs: &mut Vec<String>) {
        let Some(filter) = self.network.filter(id) else { return };
        let source = self.network.graph().source_shape(node);
        let dims = node.op.parameters(source).into_iter().next().map(|(_, dims)| dims).unwrap_or_default();
        let (weight, bias) = (format!("{}.weight", node.name), format!("{}.bias", node.name));
        let bias_scales = filter.bias_scales(self.network.affine(node.inputs[0]));
        // One scale is a scalar, several stand along the first axis.
        let per_channel = filter.scales.len() > 1;
        let extents = if per_channel { vec![filter.scales.len()] } else { Vec::new() };
        let attributes = || if per_channel { vec![int("axis", 0)] } else { Vec::new() };

        let raw = filter.weights.iter().map(|value| value.to_le_bytes()[0]).collect();
        self.message.constant(&integers_of(&weight), &dims, INT8, raw);
        let zeros = vec![0; filter.scales.len()];
        let parts = vec![
            integers_of(&weight),
            self.message.floats(&format!("{weight}.scale"), &extents, &filter.scales),
            self.message.constant(&format!("{weight}.zero"), &extents, INT8, zeros),
        ];
        self.message.push(&weight, "DequantizeLinear", parts, &weight, attributes());

        let raw = filter.bias.iter().flat_map(|value| value.to_le_bytes()).collect();
        let parts = vec![
            self.message.constant(&integers_of(&bias), &[filter.bias.len()], INT32, raw),
            self.message.floats(&format!("{bias}.scale"), &extents, &bias_scales),
        ];
        self.message.push(&bias, "DequantizeLinear", parts, &bias, attributes());
        inputs.extend([weight, bias]);
    }

    /// Integers of a node from its value.
    fn quantize(&mut self, value: String, id: NodeId) {
        let name = self.network.graph().nodes()[id].name.clone();
        let scale = self.scale(&name, self.network.affine(id));
        self.convert("QuantizeLinear", value, &scale, &integers_of(&name));
    }

    /// The value of a node's integers, for one reader.
    fn dequantize(&mut self, id: NodeId, to: &str) {
        let name = self.network.graph().nodes()[id].name.clone();
        let scale = self.scale(&name, self.network.affine(id));
        self.convert("DequantizeLinear", integers_of(&name), &scale, to);
    }

    fn convert(&mut self, kind: &'static str, from: String, scale: &[String; 2], to: &str) {
        let inputs = std::iter::once(from).chain(scale.iter().cloned()).collect();
        self.message.push(&format!("{to}.{kind}"), kind, inputs, to, Vec::new());
    }

    /// Scale and zero point of a value, written once.
    fn scale(&mut self, name: &str, affine: Affine) -> [String; 2] {
        let names = [format!("{name}.scale"), format!("{name}.zero")];
        if self.message.initializers.iter().all(|tensor| tensor.name != names[0]) {
            self.message.floats(&names[0], &[], &[affine.scale]);
            self.message.constant(&names[1], &[], UINT8, vec![unsigned(affine.zero_point)]);
        }
        names
    }
}

/// The same place of the range in a file's unsigned integers.
fn unsigned(value: i8) -> u8 {
    (i16::from(value) + 128) as u8
}

/// Name of the integers of a value.
fn integers_of(name: &str) -> String {
    format!("{name}.q")
}
