//! Scales and zero points of activations, from what they are on calibration inputs.

use super::{Affine, QuantizeError};
use crate::{Function, Graph, NodeId, OpSpec, Weights, evaluate::evaluate_all, seeded_input};

/// Inputs that ranges are taken from.
const INPUTS: u64 = 4;

/// Scale and zero point per node: of the range that its values, and zero, have on seeded inputs.
///
/// Pools, concatenations, slices, crops, padding and shuffles move values without changing their scale, as the TFLite
/// format wants it, so that all that they join has one scale; sigmoid and tanh have the scale that the
/// format prescribes (1/256 and 1/128).
pub(super) fn calibrate(graph: &Graph, weights: &Weights, seed: u64) -> Result<Vec<Affine>, QuantizeError> {
    let mut ranges = vec![(0.0_f32, 0.0_f32); graph.nodes().len()];
    let shape = graph.input_shape().ok_or(QuantizeError::Inputs { got: 0 })?;
    for index in 0..INPUTS {
        let input = seeded_input(shape, seed.wrapping_add(index));
        for (id, values) in evaluate_all(graph, weights, &input)?.iter().enumerate() {
            let (low, high) = &mut ranges[id];
            for &value in values {
                if !value.is_finite() {
                    return Err(QuantizeError::NotFinite { node: graph.nodes()[id].name.clone() });
                }
                *low = low.min(value);
                *high = high.max(value);
            }
        }
    }
    let groups = same_scale(graph);
    let mut united = ranges.clone();
    for (id, &(low, high)) in ranges.iter().enumerate() {
        let range = &mut united[groups[id]];
        *range = (range.0.min(low), range.1.max(high));
    }
    let mut affine: Vec<Affine> = groups.iter().map(|&group| Affine::of(united[group])).collect();
    for (id, node) in graph.nodes().iter().enumerate() {
        let OpSpec::Activation { function } = node.op else { continue };
        let fixed = match function {
            Function::Sigmoid => Affine { scale: 1.0 / 256.0, zero_point: -128 },
            Function::Tanh => Affine { scale: 1.0 / 128.0, zero_point: 0 },
            _ => continue,
        };
        if groups.iter().filter(|&&group| group == groups[id]).count() > 1 {
            return Err(QuantizeError::Unsupported {
                node: node.name.clone(),
                op: node.op.name(),
                why: "its scale is prescribed, but a pool or concatenation wants that of other values",
            });
        }
        affine[id] = fixed;
    }
    Ok(affine)
}

/// Per node a representative of the nodes that must have its scale.
fn same_scale(graph: &Graph) -> Vec<NodeId> {
    let mut groups: Vec<NodeId> = (0..graph.nodes().len()).collect();
    for (id, node) in graph.nodes().iter().enumerate() {
        let moves = matches!(
            node.op,
            OpSpec::MaxPool { .. }
                | OpSpec::AvgPool { .. }
                | OpSpec::Concat
                | OpSpec::Crop { .. }
                | OpSpec::CropEnd { .. }
                | OpSpec::Slice { .. }
                | OpSpec::Pad { .. }
                | OpSpec::DepthToSpace { .. }
                | OpSpec::ChannelShuffle { .. }
        );
        for &input in node.inputs.iter().filter(|_| moves) {
            let (from, to) = (groups[input], groups[id]);
            for group in groups.iter_mut().filter(|group| **group == from) {
                *group = to;
            }
        }
    }
    groups
}
