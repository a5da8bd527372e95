//! Graphs as quantised formats see them: no batch norms, no sums of more than two terms.

use std::collections::BTreeMap;

use super::QuantizeError;
use crate::{
    Function, Graph, GraphBuilder, Node, NodeId, OpSpec, Shape, Tensor, Weights,
    fold::{behind, scale_and_shift},
};

/// The same function with fewer kinds of operators: batch norms become part of the convolution in front
/// of them, or depthwise convolutions of one tap where there is none; every convolution and linear
/// layer has a bias; sums have two terms and no zeros, means are sums with a scale behind them; swish is a gated product, a hard sigmoid a
/// rectifier between two depthwise convolutions. Auxiliary outputs are left out.
///
/// # Errors
/// [`QuantizeError`] if weights are missing or a name that is added is taken.
pub(crate) fn fold(graph: &Graph, weights: &Weights) -> Result<(Graph, Weights), QuantizeError> {
    let graph = &graph.without_auxiliary();
    weights.check(graph)?;
    let mut readers = vec![Vec::new(); graph.nodes().len()];
    for (id, node) in graph.nodes().iter().enumerate() {
        for &input in &node.inputs {
            readers[input].push(id);
        }
    }
    let mut folder = Folder {
        graph,
        weights,
        readers,
        builder: GraphBuilder::new(),
        tensors: BTreeMap::new(),
        ids: Vec::new(),
        zeros: Vec::new(),
    };
    for (id, node) in graph.nodes().iter().enumerate() {
        let folded = folder.node(id, node)?;
        let zero = match node.op {
            OpSpec::Zero { .. } => true,
            OpSpec::Add => node.inputs.iter().all(|&input| folder.zeros[input]),
            _ => false,
        };
        folder.ids.push(folded);
        folder.zeros.push(zero);
    }
    let outputs: Vec<NodeId> = graph.outputs().iter().map(|&id| folder.ids[id]).collect();
    Ok((folder.builder.finish(&outputs)?, Weights(folder.tensors)))
}

struct Folder<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    /// Who reads each node.
    readers: Vec<Vec<NodeId>>,
    builder: GraphBuilder,
    tensors: BTreeMap<String, Tensor>,
    /// Per node of the graph the node that stands for it.
    ids: Vec<NodeId>,
    /// Per node of the graph whether it is zero whatever the input.
    zeros: Vec<bool>,
}

impl Folder<'_> {
    fn node(&mut self, id: NodeId, node: &Node) -> Result<NodeId, QuantizeError> {
        let name = node.name.as_str();
        let inputs: Vec<NodeId> = node.inputs.iter().map(|&input| self.ids[input]).collect();
        Ok(match node.op {
            OpSpec::Input => self.builder.input(name, node.shape)?,
            OpSpec::Conv2d { .. } | OpSpec::Linear { .. } => {
                let norm = self.norm_behind(id);
                self.weighted(node, norm, inputs[0])?
            }
            OpSpec::BatchNorm { .. } if self.norm_behind(node.inputs[0]) == Some(id) => inputs[0],
            OpSpec::BatchNorm { .. } => {
                let (scale, shift) = scale_and_shift(node, self.weights)?;
                self.depthwise(name, inputs[0], scale, shift)?
            }
            OpSpec::Add => self.sum(node)?,
            OpSpec::Activation { function: Function::Swish } => {
                let sigmoid = OpSpec::Activation { function: Function::Sigmoid };
                let gate = self.builder.add(&format!("{name}.gate"), sigmoid, &inputs)?;
                self.builder.add(name, OpSpec::Mul, &[inputs[0], gate])?
            }
            OpSpec::Activation { function: Function::HardSigmoid } => {
                let channels = node.shape.c;
                let (ones, threes) = (vec![1.0; channels], vec![3.0; channels]);
                let shifted = self.depthwise(&format!("{name}.shifted"), inputs[0], ones, threes)?;
                let relu6 = OpSpec::Activation { function: Function::Relu6 };
                let clipped = self.builder.add(&format!("{name}.clipped"), relu6, &[shifted])?;
                self.depthwise(name, clipped, vec![1.0 / 6.0; channels], vec![0.0; channels])?
            }
            OpSpec::ScalarAffine => {
                let channels = node.shape.c;
                let [scale, shift] = ["weight", "bias"].map(|suffix| self.tensor(node, suffix, &[1]));
                let [scale, shift] = [scale?[0], shift?[0]];
                self.depthwise(name, inputs[0], vec![scale; channels], vec![shift; channels])?
            }
            OpSpec::Mean => {
                let (channels, share) = (node.shape.c, 1.0 / node.inputs.len() as f32);
                let total = Node { name: format!("{name}.total"), ..node.clone() };
                let total = self.sum(&total)?;
                self.depthwise(name, total, vec![share; channels], vec![0.0; channels])?
            }
            OpSpec::Prelu => {
                let dims = vec![node.shape.c];
                let values = self.tensor(node, "weight", &dims)?.to_vec();
                self.tensors.insert(format!("{name}.weight"), Tensor { dims, values });
                self.builder.add(name, OpSpec::Prelu, &inputs)?
            }
            op => self.builder.add(name, op, &inputs)?,
        })
    }

    /// The batch norm that alone reads a convolution.
    fn norm_behind(&self, id: NodeId) -> Option<NodeId> {
        let [reader] = self.readers[id][..] else { return None };
        let conv = matches!(self.graph.nodes()[id].op, OpSpec::Conv2d { .. });
        let norm = matches!(self.graph.nodes()[reader].op, OpSpec::BatchNorm { .. });
        (conv && norm && !self.graph.outputs().contains(&id)).then_some(reader)
    }

    fn tensor(&self, node: &Node, suffix: &str, dims: &[usize]) -> Result<&[f32], QuantizeError> {
        Ok(self.weights.get(&format!("{}.{suffix}", node.name), dims)?)
    }

    /// A convolution or linear layer with a bias, and with the batch norm behind it.
    fn weighted(
        &mut self,
        node: &Node,
        norm: Option<NodeId>,
        input: NodeId,
    ) -> Result<NodeId, QuantizeError> {
        let source = self.graph.source_shape(node);
        let mut parameters = node.op.parameters(source).into_iter();
        let (Some((_, dims)), bias) = (parameters.next(), parameters.next()) else {
            return Ok(input);
        };
        let mut weight = self.tensor(node, "weight", &dims)?.to_vec();
        let mut shift = match bias {
            Some((suffix, dims)) => self.tensor(node, suffix, &dims)?.to_vec(),
            None => vec![0.0; dims[0]],
        };
        if let Some(norm) = norm {
            let (scale, offset) = scale_and_shift(&self.graph.nodes()[norm], self.weights)?;
            behind(&mut weight, &mut shift, &scale, &offset);
        }
        let op = match node.op {
            OpSpec::Conv2d { out_channels, kernel, stride, padding, dilation, groups, .. } => {
                OpSpec::Conv2d { out_channels, kernel, stride, padding, dilation, groups, bias: true }
            }
            OpSpec::Linear { out_features, .. } => OpSpec::Linear { out_features, bias: true },
            other => other,
        };
        self.keep(&node.name, dims, weight, shift);
        Ok(self.builder.add(&node.name, op, &[input])?)
    }

    /// Scale and shift per channel, as a depthwise convolution of one tap.
    fn depthwise(
        &mut self,
        name: &str,
        input: NodeId,
        scale: Vec<f32>,
        shift: Vec<f32>,
    ) -> Result<NodeId, QuantizeError> {
        let Shape { c, .. } = self.builder.shape(input);
        let op = OpSpec::Conv2d {
            out_channels: c,
            kernel: 1,
            stride: 1,
            padding: 0,
            dilation: 1,
            groups: c,
            bias: true,
        };
        self.keep(name, vec![c, 1, 1, 1], scale, shift);
        Ok(self.builder.add(name, op, &[input])?)
    }

    fn keep(&mut self, name: &str, dims: Vec<usize>, weight: Vec<f32>, bias: Vec<f32>) {
        let bias_dims = vec![dims[0]];
        self.tensors.insert(format!("{name}.weight"), Tensor { dims, values: weight });
        self.tensors.insert(format!("{name}.bias"), Tensor { dims: bias_dims, values: bias });
    }

    /// Terms that are zero are left out; the others are added two at a time.
    fn sum(&mut self, node: &Node) -> Result<NodeId, QuantizeError> {
        let terms: Vec<NodeId> =
            node.inputs.iter().filter(|&&input| !self.zeros[input]).map(|&input| self.ids[input]).collect();
        let Some((&first, rest)) = terms.split_first() else { return Ok(self.ids[node.inputs[0]]) };
        let mut sum = first;
        for (index, &term) in rest.iter().enumerate() {
            let last = index + 1 == rest.len();
            let name = if last { node.name.clone() } else { format!("{}.{index}", node.name) };
            sum = self.builder.add(&name, OpSpec::Add, &[sum, term])?;
        }
        Ok(sum)
    }
}
