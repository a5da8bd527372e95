//! The graph of a network, a fused kernel or a single operator.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{OpError, OpSpec, Shape};

/// Position of a node in its graph.
pub type NodeId = usize;

/// One operator with its inputs and the shape of its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Unique name; parameters are called `<name>.<suffix>`.
    pub name: String,
    /// What is computed.
    pub op: OpSpec,
    /// Nodes whose outputs are read, in order.
    pub inputs: Vec<NodeId>,
    /// Inferred shape of the output.
    pub shape: Shape,
    /// During training the output passes drop path (stochastic depth); nothing at inference.
    #[serde(default)]
    pub drop_path: bool,
}

/// A directed acyclic graph of operators with inferred shapes, in topological order.
///
/// The first output is the result; a second one, if there is any, is an auxiliary classifier that
/// exists in training only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    nodes: Vec<Node>,
    outputs: Vec<NodeId>,
}

/// A tensor that belongs to a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// `<node>.<suffix>`.
    pub name: String,
    /// Node that owns it.
    pub node: NodeId,
    /// `weight`, `bias`, `running_mean` or `running_var`.
    pub suffix: &'static str,
    /// Extents.
    pub dims: Vec<usize>,
}

/// Why a graph can't be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GraphError {
    /// An operator refused its inputs.
    #[error("add node `{node}`: {source}")]
    Op {
        /// Node.
        node: String,
        /// Cause.
        source: OpError,
    },
    /// An input that isn't there yet.
    #[error("add node `{node}`: its input {input} is not an earlier node (there are {len})")]
    Input {
        /// Node.
        node: String,
        /// Its input.
        input: NodeId,
        /// Nodes so far.
        len: usize,
    },
    /// A name used twice.
    #[error("add node `{0}`: the name is taken")]
    Name(String),
    /// A graph without output, or with one that isn't a node.
    #[error("finish the graph: output {output} is not one of its {len} nodes")]
    Output {
        /// Output.
        output: NodeId,
        /// Nodes.
        len: usize,
    },
}

/// Builds a [`Graph`] node by node.
#[derive(Clone, Debug, Default)]
pub struct GraphBuilder {
    nodes: Vec<Node>,
    names: BTreeSet<String>,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an input of the given shape.
    pub fn input(&mut self, name: &str, shape: Shape) -> Result<NodeId, GraphError> {
        self.push(name, OpSpec::Input, Vec::new(), shape)
    }

    /// Adds an operator; its output shape is inferred.
    pub fn add(&mut self, name: &str, op: OpSpec, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
        let mut shapes = Vec::with_capacity(inputs.len());
        for &input in inputs {
            let node = self.nodes.get(input).ok_or_else(|| GraphError::Input {
                node: name.into(),
                input,
                len: self.nodes.len(),
            })?;
            shapes.push(node.shape);
        }
        let shape = op.infer(&shapes).map_err(|source| GraphError::Op { node: name.into(), source })?;
        self.push(name, op, inputs.to_vec(), shape)
    }

    /// Shape of a node that was added.
    pub fn shape(&self, node: NodeId) -> Shape {
        self.nodes[node].shape
    }

    /// Marks a node's output as passing drop path in training.
    pub fn drop_path(&mut self, node: NodeId) {
        self.nodes[node].drop_path = true;
    }

    /// The graph with these outputs, without the nodes that none of them needs (inputs stay).
    pub fn finish(self, outputs: &[NodeId]) -> Result<Graph, GraphError> {
        let len = self.nodes.len();
        if let Some(&output) = outputs.iter().find(|&&output| output >= len) {
            return Err(GraphError::Output { output, len });
        }
        if outputs.is_empty() {
            return Err(GraphError::Output { output: 0, len });
        }
        Ok(Graph { nodes: self.nodes, outputs: outputs.to_vec() }.pruned())
    }

    fn push(
        &mut self,
        name: &str,
        op: OpSpec,
        inputs: Vec<NodeId>,
        shape: Shape,
    ) -> Result<NodeId, GraphError> {
        if !self.names.insert(name.to_owned()) {
            return Err(GraphError::Name(name.to_owned()));
        }
        self.nodes.push(Node { name: name.to_owned(), op, inputs, shape, drop_path: false });
        Ok(self.nodes.len() - 1)
    }
}

impl Graph {
    /// All nodes, in topological order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Outputs; the first is the result.
    pub fn outputs(&self) -> &[NodeId] {
        &self.outputs
    }

    /// Shape of the (first) input.
    pub fn input_shape(&self) -> Option<Shape> {
        self.inputs().next().map(|node| node.shape)
    }

    /// The input nodes.
    pub fn inputs(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.op == OpSpec::Input)
    }

    /// Shape of the result.
    pub fn output_shape(&self) -> Shape {
        self.nodes[self.outputs[0]].shape
    }

    /// The same graph with its result as the only output: what is deployed.
    #[must_use]
    pub fn without_auxiliary(&self) -> Self {
        Self { nodes: self.nodes.clone(), outputs: vec![self.outputs[0]] }.pruned()
    }

    /// Shape of a node's first input; an input node's own shape.
    pub fn source_shape(&self, node: &Node) -> Shape {
        node.inputs.first().map_or(node.shape, |&input| self.nodes[input].shape)
    }

    /// Multiply-accumulates of convolutions, linear layers and attention for the whole batch.
    pub fn macs(&self) -> u64 {
        self.nodes.iter().map(|node| node.op.macs(self.source_shape(node), node.shape)).sum()
    }

    /// Largest number of extents of any tensor, see [`OpSpec::max_tensor_rank`].
    pub fn max_tensor_rank(&self) -> usize {
        self.nodes.iter().map(|node| node.op.max_tensor_rank()).max().unwrap_or(0)
    }

    /// Learned parameters (batch-norm statistics are not counted).
    pub fn parameter_count(&self) -> u64 {
        self.parameters().iter().map(|tensor| tensor.dims.iter().product::<usize>() as u64).sum()
    }

    /// Learned parameters, in node order.
    pub fn parameters(&self) -> Vec<TensorSpec> {
        self.tensors(OpSpec::parameters)
    }

    /// Batch-norm statistics, in node order.
    pub fn statistics(&self) -> Vec<TensorSpec> {
        self.tensors(OpSpec::statistics)
    }

    /// Bytes that the operators read and write when each runs by itself: activations in and out and
    /// weights, at `bytes_per_element`; the sum of [`OpSpec::bytes_moved`].
    pub fn bytes_moved(&self, bytes_per_element: u64) -> u64 {
        let shape = |&input: &NodeId| self.nodes[input].shape;
        let moved = |node: &Node| {
            let inputs: Vec<Shape> = node.inputs.iter().map(shape).collect();
            node.op.bytes_moved(&inputs, node.shape, bytes_per_element).total()
        };
        self.nodes.iter().map(moved).sum()
    }

    /// Largest sum of live activations over the topological order, at `bytes_per_element`: inputs
    /// and outputs of the running node count as live, nothing runs in place.
    pub fn peak_activation_bytes(&self, bytes_per_element: u64) -> u64 {
        let mut last_use: Vec<usize> = (0..self.nodes.len()).collect();
        for (id, node) in self.nodes.iter().enumerate() {
            for &input in &node.inputs {
                last_use[input] = id;
            }
        }
        for &output in &self.outputs {
            last_use[output] = self.nodes.len();
        }
        let mut live = 0usize;
        let mut peak = 0usize;
        for (id, node) in self.nodes.iter().enumerate() {
            live += node.shape.elements();
            peak = peak.max(live);
            // Free what was read here for the last time, and what nobody will ever read.
            let read: BTreeSet<NodeId> = node.inputs.iter().copied().collect();
            live -= read
                .iter()
                .filter(|&&input| last_use[input] == id)
                .map(|&input| self.nodes[input].shape.elements())
                .sum::<usize>();
            if last_use[id] == id {
                live -= node.shape.elements();
            }
        }
        peak as u64 * bytes_per_element
    }

    fn tensors(&self, list: impl Fn(&OpSpec, Shape) -> Vec<(&'static str, Vec<usize>)>) -> Vec<TensorSpec> {
        let mut tensors = Vec::new();
        for (id, node) in self.nodes.iter().enumerate() {
            for (suffix, dims) in list(&node.op, self.source_shape(node)) {
                tensors.push(TensorSpec { name: format!("{}.{suffix}", node.name), node: id, suffix, dims });
            }
        }
        tensors
    }

    /// Without the nodes that no output needs; inputs stay.
    fn pruned(self) -> Self {
        let mut needed = vec![false; self.nodes.len()];
        for &output in &self.outputs {
            needed[output] = true;
        }
        for id in (0..self.nodes.len()).rev() {
            needed[id] |= self.nodes[id].op == OpSpec::Input;
            if needed[id] {
                for &input in &self.nodes[id].inputs {
                    needed[input] = true;
                }
            }
        }
        let mut renumbered = vec![0; self.nodes.len()];
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for (id, mut node) in self.nodes.into_iter().enumerate() {
            if needed[id] {
                for input in &mut node.inputs {
                    *input = renumbered[*input];
                }
                renumbered[id] = nodes.len();
                nodes.push(node);
            }
        }
        let outputs = self.outputs.iter().map(|&output| renumbered[output]).collect();
        Self { nodes, outputs }
    }
}
