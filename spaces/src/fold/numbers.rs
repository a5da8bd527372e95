//! Weights and biases of what two operators become.

use super::{Change, FoldRule, behind, collapse::product, scale_and_shift};
use crate::{Graph, Node, NodeId, OpSpec, Weights, WeightsError};

/// Weight and bias of a layer.
pub(super) type Layer = (Vec<f32>, Option<Vec<f32>>);

/// Those of the node that a change keeps; `gone`: the node that vanishes.
pub(super) fn numbers(
    graph: &Graph,
    weights: &Weights,
    gone: NodeId,
    change: &Change,
) -> Result<Layer, WeightsError> {
    let (kept, gone) = (&graph.nodes()[change.kept], &graph.nodes()[gone]);
    let layer = |node: &Node| layer(graph, weights, node);
    Ok(match change.rule {
        FoldRule::NormBehind => norm_behind(layer(kept)?, kept.shape.c, &scale_and_shift(gone, weights)?),
        FoldRule::NormInFront => norm_in_front(layer(kept)?, kept, gone, &scale_and_shift(gone, weights)?),
        FoldRule::Collapse => collapse(layer(kept)?, layer(gone)?, kept.shape.c),
        FoldRule::Identity => identity(layer(kept)?, kept.op),
    })
}

fn layer(graph: &Graph, weights: &Weights, node: &Node) -> Result<Layer, WeightsError> {
    let mut found = Vec::new();
    for (suffix, dims) in node.op.parameters(graph.source_shape(node)) {
        found.push(weights.get(&format!("{}.{suffix}", node.name), &dims)?.to_vec());
    }
    let mut found = found.into_iter();
    Ok((found.next().unwrap_or_default(), found.next()))
}

/// What a norm does to the output, channel by channel.
fn norm_behind((mut weight, bias): Layer, out: usize, (scale, shift): &(Vec<f32>, Vec<f32>)) -> Layer {
    let mut bias = bias.unwrap_or_else(|| vec![0.0; out]);
    behind(&mut weight, &mut bias, scale, shift);
    (weight, Some(bias))
}

/// What a norm does to the input; shifts add up in the bias, for nothing is padded.
fn norm_in_front(
    (mut weight, bias): Layer,
    reader: &Node,
    norm: &Node,
    (scale, shift): &(Vec<f32>, Vec<f32>),
) -> Layer {
    let groups = if let OpSpec::Conv2d { groups, .. } = reader.op { groups } else { 1 };
    let out = reader.shape.c;
    let mut bias = bias.unwrap_or_else(|| vec![0.0; out]);
    let each = norm.shape.c / groups;
    // Numbers per output channel, and per channel that it reads.
    let row = weight.len() / out.max(1);
    let taps = row / each.max(1);
    for (channel, values) in weight.chunks_mut(row.max(1)).enumerate() {
        let first = channel / (out / groups).max(1) * each;
        let mut more = 0.0_f64;
        for (at, value) in values.iter_mut().enumerate() {
            let source = first + at / taps.max(1);
            more += f64::from(*value) * f64::from(shift[source]);
            *value *= scale[source];
        }
        bias[channel] += more as f32;
    }
    (weight, Some(bias))
}

/// W = W2 · W1, b = W2 · b1 + b2; `middle`: channels between the two.
fn collapse((first, first_bias): Layer, (second, second_bias): Layer, middle: usize) -> Layer {
    let weight = product(&first, &second, middle);
    let bias = (first_bias.is_some() || second_bias.is_some()).then(|| {
        let passed = |channel: &[f32]| {
            let biases = first_bias.iter().flatten();
            channel.iter().zip(biases).map(|(&w, &b)| f64::from(w) * f64::from(b)).sum::<f64>()
        };
        let own = |channel: usize| second_bias.as_ref().map_or(0.0, |bias| f64::from(bias[channel]));
        let rows = second.chunks(middle.max(1)).enumerate();
        rows.map(|(channel, row)| (passed(row) + own(channel)) as f32).collect::<Vec<f32>>()
    });
    (weight, bias)
}

/// A one in the middle of the window of a channel's own input.
fn identity((mut weight, bias): Layer, conv: OpSpec) -> Layer {
    if let OpSpec::Conv2d { out_channels, kernel, groups, .. } = conv {
        let each = out_channels / groups;
        for channel in 0..out_channels {
            weight[(channel * each + channel % each) * kernel * kernel + kernel * kernel / 2] += 1.0;
        }
    }
    (weight, bias)
}
