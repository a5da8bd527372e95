//! Networks of 8-bit integers.
//!
//! After Jacob et al. (CVPR 2018), with the conventions of the TFLite format, which ONNX files of
//! `QuantizeLinear`/`DequantizeLinear` pairs can say too: weights are symmetric, one scale per output
//! channel (one for all in a linear layer); activations are affine, one scale and zero point per
//! tensor; biases are 32-bit integers whose scale is the product of input's and weight's. Batch norms
//! are folded before.

mod calibrate;
mod evaluate;
mod filter;
mod fold;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{Function, Graph, GraphError, Node, NodeId, OpSpec, Weights, WeightsError};

pub(crate) use filter::Filter;
pub(crate) use fold::fold;

/// What an 8-bit integer stands for: `scale · (q − zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Distance of two neighbouring values.
    pub scale: f32,
    /// The integer that stands for zero.
    pub zero_point: i8,
}

impl Affine {
    /// The finest one that reaches from the smallest to the largest value, which enclose zero.
    fn of((low, high): (f32, f32)) -> Self {
        let width = f64::from(high) - f64::from(low);
        // A value that is always zero needs a scale all the same.
        let scale = (if width > 0.0 { width / 255.0 } else { 1.0 / 255.0 }) as f32;
        let scale = scale.max(f32::MIN_POSITIVE);
        let zero_point = (-128.0 - f64::from(low) / f64::from(scale)).round().clamp(-128.0, 127.0) as i8;
        Self { scale, zero_point }
    }

    /// The nearest integer; halves go to the even one, what is out of range to the end of the range.
    pub fn quantize(self, value: f64) -> i8 {
        self.round(value / f64::from(self.scale))
    }

    /// The same for a value that is counted in scales.
    fn round(self, steps: f64) -> i8 {
        (steps.round_ties_even() + f64::from(self.zero_point)).clamp(-128.0, 127.0) as i8
    }

    /// What an integer stands for.
    pub fn dequantize(self, value: i8) -> f64 {
        f64::from(self.scale) * f64::from(i32::from(value) - i32::from(self.zero_point))
    }
}

/// Why a network has no form of 8-bit integers. The messages complete "failed to …".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantizeError {
    /// Weights that don't fit.
    #[error("quantise the network: {0}")]
    Weights(#[from] WeightsError),
    /// A graph that can't be folded.
    #[error("quantise the network: {0}")]
    Graph(#[from] GraphError),
    /// Not one input.
    #[error("quantise the network: it must have 1 input, it has {got}")]
    Inputs {
        /// Number of inputs.
        got: usize,
    },
    /// Values that no scale fits.
    #[error("quantise the network: values of node `{node}` are not finite on calibration inputs")]
    NotFinite {
        /// Node.
        node: String,
    },
    /// An operator that integers can't express here.
    #[error("quantise node `{node}` ({op}): {why}")]
    Unsupported {
        /// Node.
        node: String,
        /// Operator.
        op: &'static str,
        /// Reason.
        why: &'static str,
    },
}

/// A network of 8-bit integers, from which both file formats are written, and which says what the
/// output must be ([`Quantized::evaluate`]).
///
/// ```
/// use lathe_spaces::{GraphBuilder, OpSpec, Quantized, Shape, Weights, evaluate, seeded_input};
///
/// let mut builder = GraphBuilder::new();
/// let x = builder.input("x", Shape::new(1, 3, 8, 8))?;
/// let conv = builder.add("conv", OpSpec::conv(4, 3, 1), &[x])?;
/// let graph = builder.finish(&[conv])?;
/// let (weights, input) = (Weights::seeded(&graph, 0), seeded_input(Shape::new(1, 3, 8, 8), 0));
/// let exact = evaluate(&graph, &weights, &input)?;
/// let rounded = Quantized::of(&graph, &weights, 0)?.evaluate(&input)?;
/// assert!(exact.iter().zip(&rounded).all(|(a, b)| (a - b).abs() < 0.1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    graph: Graph,
    affine: Vec<Affine>,
    filters: BTreeMap<NodeId, Filter>,
    fused: BTreeMap<NodeId, NodeId>,
}

impl Quantized {
    /// Folds the graph, takes the ranges of its activations from seeded inputs, and rounds its weights.
    ///
    /// # Errors
    /// [`QuantizeError`] if weights don't fit, there is not one input, or a node can't be expressed.
    pub fn of(graph: &Graph, weights: &Weights, seed: u64) -> Result<Self, QuantizeError> {
        let got = graph.inputs().count();
        if got != 1 {
            return Err(QuantizeError::Inputs { got });
        }
        if let Some((node, why)) = unsupported(graph) {
            return Err(QuantizeError::Unsupported { node: node.name.clone(), op: node.op.name(), why });
        }
        let (graph, weights) = fold(graph, weights)?;
        let mut affine = calibrate::calibrate(&graph, &weights, seed)?;
        let fused = fused(&graph);
        for (&producer, &activation) in &fused {
            affine[producer] = affine[activation];
        }
        let mut filters = BTreeMap::new();
        for (id, node) in graph.nodes().iter().enumerate() {
            let shape = graph.source_shape(node);
            if let OpSpec::Conv2d { .. } | OpSpec::Linear { .. } = node.op {
                filters.insert(id, Filter::of(node, shape, &weights, affine[node.inputs[0]])?);
            } else if node.op == OpSpec::Prelu {
                filters
                    .insert(id, Filter::slopes(weights.get(&format!("{}.weight", node.name), &[shape.c])?));
            }
        }
        Ok(Self { graph, affine, filters, fused })
    }

    /// The folded graph: what the integers compute.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What the integers of a node's output stand for.
    pub fn affine(&self, node: NodeId) -> Affine {
        self.affine[node]
    }

    /// Weights of a convolution or linear layer, slopes of a rectifier.
    pub(crate) fn filter(&self, node: NodeId) -> Option<&Filter> {
        self.filters.get(&node)
    }

    /// The rectifier that is part of this node.
    pub(crate) fn activation(&self, producer: NodeId) -> Option<NodeId> {
        self.fused.get(&producer).copied()
    }

    /// Whether a node is the rectifier of another one.
    pub(crate) fn is_fused(&self, node: NodeId) -> bool {
        self.fused.values().any(|&activation| activation == node)
    }
}

/// The first node that has no form of integers, nor one in TFLite files, and what to do instead.
pub(crate) fn unsupported(graph: &Graph) -> Option<(&Node, &'static str)> {
    let of = |id: NodeId| graph.nodes()[id].op;
    graph.nodes().iter().find_map(|node| {
        let why = match node.op {
            OpSpec::Activation { function: Function::Gelu } => {
                "it has no form here; use hard_swish, or fp32 and ONNX"
            }
            OpSpec::Mean if node.inputs.iter().any(|&id| matches!(of(id), OpSpec::Linear { .. })) => {
                "it has no form behind linear layers; use fp32 and ONNX"
            }
            OpSpec::DepthToSpace { .. } if node.shape.c > 1 => {
                "the format orders channels in another way, unless one is left; use fp32 and ONNX"
            }
            OpSpec::GroupNorm { .. } | OpSpec::LayerNorm => {
                "it has no form here; use batch_norm, or fp32 and ONNX"
            }
            OpSpec::ConvTranspose2d { .. } | OpSpec::Attention { .. } => {
                "it has no form here; use fp32 and ONNX"
            }
            _ => return None,
        };
        Some((node, why))
    })
}

/// Rectifiers that read a convolution, linear layer or sum that nobody else reads: by producer. Engines
/// run the two as one, and the value between them has no scale of its own.
pub(crate) fn fused(graph: &Graph) -> BTreeMap<NodeId, NodeId> {
    let mut readers = vec![0_usize; graph.nodes().len()];
    for &id in graph.nodes().iter().flat_map(|node| &node.inputs).chain(graph.outputs()) {
        readers[id] += 1;
    }
    let fusible = |id: NodeId| {
        let op = graph.nodes()[id].op;
        readers[id] == 1 && matches!(op, OpSpec::Conv2d { .. } | OpSpec::Linear { .. } | OpSpec::Add)
    };
    let rectifiers = graph.nodes().iter().enumerate().filter(|(_, node)| {
        matches!(node.op, OpSpec::Relu | OpSpec::Activation { function: Function::Relu6 })
    });
    let pairs = rectifiers.map(|(id, node)| (node.inputs[0], id));
    pairs.filter(|&(producer, _)| fusible(producer)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
