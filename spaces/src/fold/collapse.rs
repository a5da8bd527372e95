//! Two linear convolutions that are one.

use std::collections::BTreeSet;

use crate::{Graph, NodeId, OpSpec};

/// A 1×1 convolution behind a convolution that nobody else reads, where one convolution costs no more than both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearPair {
    /// The one in front.
    pub first: NodeId,
    /// The 1×1 one behind it.
    pub second: NodeId,
    /// The convolution that they are: `W[o, i, :, :] = Σ W2[o, p] · W1[p, i, :, :]`, with the bias `W2 · b1 + b2` if
    /// one of them has a bias. Exact, for the second one has no padding.
    pub op: OpSpec,
}

/// All such pairs of a graph, in order; no node is part of two.
pub fn linear_pairs(graph: &Graph) -> Vec<LinearPair> {
    let mut readers = vec![0_usize; graph.nodes().len()];
    for &id in graph.nodes().iter().flat_map(|node| &node.inputs).chain(graph.outputs()) {
        readers[id] += 1;
    }
    let mut taken = BTreeSet::new();
    let ids = 0..graph.nodes().len();
    let pairs = ids.filter_map(|id| linear_pair(graph, id)).filter(|pair| readers[pair.first] == 1);
    pairs.filter(|pair| taken.insert(pair.first) && taken.insert(pair.second)).collect()
}

/// The pair whose second part a node is, whoever reads the first.
pub(super) fn linear_pair(graph: &Graph, second: NodeId) -> Option<LinearPair> {
    let node = &graph.nodes()[second];
    let OpSpec::Conv2d { out_channels, kernel: 1, stride: 1, padding: 0, groups: 1, bias: behind, .. } =
        node.op
    else {
        return None;
    };
    let &first = node.inputs.first()?;
    let front = &graph.nodes()[first];
    let OpSpec::Conv2d { kernel, stride, padding, dilation, groups: 1, bias, .. } = front.op else {
        return None;
    };
    let source = graph.source_shape(front);
    let bias = bias || behind;
    let op = OpSpec::Conv2d { out_channels, kernel, stride, padding, dilation, groups: 1, bias };
    let before = front.op.macs(source, front.shape) + node.op.macs(front.shape, node.shape);
    (op.macs(source, node.shape) <= before).then_some(LinearPair { first, second, op })
}

/// The weights of the one convolution; `middle`: channels between the two.
pub(crate) fn product(first: &[f32], second: &[f32], middle: usize) -> Vec<f32> {
    let middle = middle.max(1);
    let row = first.len() / middle;
    let of = |channel: &[f32], at: usize| -> f64 {
        channel.iter().enumerate().map(|(p, &w)| f64::from(w) * f64::from(first[p * row + at])).sum()
    };
    second.chunks(middle).flat_map(|channel| (0..row).map(move |at| of(channel, at) as f32)).collect()
}
