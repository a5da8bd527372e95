//! One cell of the supernet.

use lathe_spaces::{BlockSpec, Shape};
use tch::Tensor;

use super::{
    SupernetError,
    architecture::Mixture,
    layers::{Layers, Window},
    operation::{MixedOperation, OPERATIONS, factorized_reduce, operation},
    parameters::ParameterBuilder,
};

/// What a cell is built from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CellPlan {
    /// Index of its block in the space.
    pub block: usize,
    /// Channels of its two inputs.
    pub before: [usize; 2],
    /// Channels of every state.
    pub channels: usize,
    /// Whether edges from the inputs have stride 2.
    pub reduction: bool,
    /// Whether the first input is twice as large as the second.
    pub reduction_before: bool,
    /// K.
    pub partial: usize,
}

/// Two inputs, preprocessed; nodes that sum a mixture over each of their edges; the nodes' outputs
/// one above the other.
#[derive(Debug)]
pub(crate) struct Cell {
    block: usize,
    channels: usize,
    preprocess: [Layers; 2],
    /// Per node its edges: state that they start from, and operations.
    nodes: Vec<Vec<(usize, MixedOperation)>>,
}

impl Cell {
    /// Builds the cell; names begin with `name`.
    pub fn new(
        build: &mut ParameterBuilder,
        name: &str,
        block: &BlockSpec,
        plan: CellPlan,
    ) -> Result<Self, SupernetError> {
        let CellPlan { channels, partial, .. } = plan;
        let first = if plan.reduction_before {
            factorized_reduce(build, &format!("{name}.preprocess0"), [plan.before[0], channels])
        } else {
            relu_conv_norm(build, &format!("{name}.preprocess0"), [plan.before[0], channels])
        };
        let second = relu_conv_norm(build, &format!("{name}.preprocess1"), [plan.before[1], channels]);
        let mut nodes = Vec::with_capacity(block.nodes.len());
        let mut count = 0;
        for node in &block.nodes {
            let mut edges = Vec::with_capacity(node.edges.len());
            for edge in &node.edges {
                let stride = if plan.reduction && edge.from < block.inputs { 2 } else { 1 };
                let mut operations = Vec::with_capacity(edge.choices.len());
                for choice in &edge.choices {
                    let name = format!("{name}.edges.{count}.{choice}");
                    let built = operation(build, &name, choice, channels / partial, stride);
                    operations.push(built.ok_or_else(|| SupernetError::Choice {
                        block: block.name.clone(),
                        choice: choice.clone(),
                        known: &OPERATIONS,
                    })?);
                }
                edges.push((edge.from, MixedOperation::new(operations, partial, stride)));
                count += 1;
            }
            nodes.push(edges);
        }
        Ok(Self { block: plan.block, channels, preprocess: [first, second], nodes })
    }

    /// Channels of the output.
    pub fn output_channels(&self) -> usize {
        self.nodes.len() * self.channels
    }

    /// The cell's output from the outputs of the two cells before.
    pub fn forward(&self, s0: &Tensor, s1: &Tensor, mixture: &Mixture, training: bool) -> Tensor {
        let mut states =
            vec![self.preprocess[0].forward(s0, training), self.preprocess[1].forward(s1, training)];
        let (alpha, beta) = (&mixture.alpha[self.block], &mixture.beta[self.block]);
        let mut index = 0;
        for edges in &self.nodes {
            let mut sum: Option<Tensor> = None;
            for (from, mixed) in edges {
                let term = mixed.forward(&states[*from], &alpha[index], training) * &beta[index];
                sum = Some(match sum {
                    Some(sum) => sum + term,
                    None => term,
                });
                index += 1;
            }
            states.extend(sum);
        }
        Tensor::cat(&states[2..], 1)
    }

    /// Shape of the output; multiply-accumulates are added to `macs`.
    pub fn trace(&self, s0: Shape, s1: Shape, macs: &mut u64) -> Shape {
        let mut states = vec![self.preprocess[0].trace(s0, macs), self.preprocess[1].trace(s1, macs)];
        for edges in &self.nodes {
            let outputs: Vec<Shape> =
                edges.iter().map(|(from, mixed)| mixed.trace(states[*from], macs)).collect();
            states.extend(outputs.first());
        }
        Shape { c: self.output_channels(), ..states[states.len() - 1] }
    }
}

fn relu_conv_norm(build: &mut ParameterBuilder, name: &str, channels: [usize; 2]) -> Layers {
    let mut layers = Layers::default();
    layers.relu();
    layers.conv(build, name, channels, Window { kernel: 1, stride: 1, dilation: 1 });
    layers.batch_norm(build, name, channels[1], false);
    layers
}
