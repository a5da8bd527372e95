//! One cell of the NAS-Bench-201 supernet.

use lathe_spaces::{BlockSpec, Shape};
use tch::Tensor;

use crate::supernet::{
    SupernetError,
    architecture::Mixture,
    layers::{Layers, Window},
    operation::{MixedOperation, Operation},
    parameters::ParameterBuilder,
};

/// Names that [`operation`] knows.
pub(super) const OPERATIONS: [&str; 5] =
    ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"];

/// Builds the operation of a choice for `channels` channels, without learned batch norms; `None` for a name
/// that isn't in [`OPERATIONS`]. Unlike those of DARTS, pools have no batch norm.
fn operation(build: &mut ParameterBuilder, name: &str, choice: &str, channels: usize) -> Option<Operation> {
    let mut layers = Layers::default();
    let mut convolution = |kernel: usize, layers: &mut Layers| {
        layers.relu();
        layers.conv(build, name, [channels; 2], Window { kernel, stride: 1, dilation: 1 });
        layers.batch_norm(build, name, channels, false);
    };
    match choice {
        "none" => return Some(Operation::Nothing),
        "skip_connect" => {}
        "nor_conv_1x1" => convolution(1, &mut layers),
        "nor_conv_3x3" => convolution(3, &mut layers),
        "avg_pool_3x3" => layers.avg_pool(1),
        _ => return None,
    }
    Some(Operation::Layers(layers))
}

/// Nodes that sum a mixture over each of their edges; the output is the last node's.
#[derive(Debug)]
pub(super) struct Nas201Cell {
    /// Per node its edges: state that they start from, and operations.
    nodes: Vec<Vec<(usize, MixedOperation)>>,
    /// Whether edges count n · softmax(β).
    normalised: bool,
}

impl Nas201Cell {
    /// Builds the cell; names begin with `name`.
    pub fn new(
        build: &mut ParameterBuilder,
        name: &str,
        block: &BlockSpec,
        channels: usize,
        partial: usize,
    ) -> Result<Self, SupernetError> {
        let mut nodes = Vec::with_capacity(block.nodes.len());
        for (index, node) in block.nodes.iter().enumerate() {
            let mut edges = Vec::with_capacity(node.edges.len());
            for edge in &node.edges {
                let mut operations = Vec::with_capacity(edge.choices.len());
                for choice in &edge.choices {
                    let name = operation_name(name, index, edge.from, choice);
                    let built = operation(build, &name, choice, channels / partial);
                    operations.push(built.ok_or_else(|| SupernetError::Choice {
                        block: block.name.clone(),
                        choice: choice.clone(),
                        known: &OPERATIONS,
                    })?);
                }
                edges.push((edge.from, MixedOperation::new(operations, partial, 1)));
            }
            nodes.push(edges);
        }
        Ok(Self { nodes, normalised: partial > 1 })
    }

    /// `[B, C, H, W]` → the same.
    pub fn forward(&self, x: &Tensor, mixture: &Mixture, training: bool) -> Tensor {
        let mut states = vec![x.shallow_clone()];
        let (alpha, beta) = (&mixture.alpha[0], &mixture.beta[0]);
        let mut index = 0;
        for edges in &self.nodes {
            let mut sum: Option<Tensor> = None;
            for (from, mixed) in edges {
                let term = mixed.forward(&states[*from], &alpha[index], training);
                let term = if self.normalised { term * (&beta[index] * edges.len() as f64) } else { term };
                sum = Some(match sum {
                    Some(sum) => sum + term,
                    None => term,
                });
                index += 1;
            }
            states.extend(sum);
        }
        states.pop().unwrap_or_else(|| x.shallow_clone())
    }

    /// Adds the multiply-accumulates of all operations to `macs`.
    pub fn trace(&self, x: Shape, macs: &mut u64) {
        for (_, mixed) in self.nodes.iter().flatten() {
            mixed.trace(x, macs);
        }
    }
}

/// Name of an operation's tensors: that of the network's, before the number of the layer.
pub(super) fn operation_name(cell: &str, node: usize, from: usize, choice: &str) -> String {
    format!("{cell}.node{}.edge{from}.{choice}", node + 1)
}
