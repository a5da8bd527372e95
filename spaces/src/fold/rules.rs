//! Which pairs of operators become one, and with which weights.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Change, FoldRule, behind,
    collapse::{LinearPair, linear_pair, product},
    scale_and_shift,
};
use crate::{Graph, Node, NodeId, OpSpec, Weights, WeightsError};

/// One pass over a graph. A node takes part in one change at most; the next pass sees the result.
pub(super) struct Round<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    readers: Vec<Vec<NodeId>>,
    touched: BTreeSet<NodeId>,
    /// By the node that vanishes.
    pub(super) changes: BTreeMap<NodeId, Change>,
}

/// Weight and bias of a layer.
type Layer = (Vec<f32>, Option<Vec<f32>>);

impl<'a> Round<'a> {
    pub(super) fn new(graph: &'a Graph, weights: &'a Weights) -> Self {
        let mut readers = vec![Vec::new(); graph.nodes().len()];
        for (id, node) in graph.nodes().iter().enumerate() {
            for &input in &node.inputs {
                readers[input].push(id);
            }
        }
        Self { graph, weights, readers, touched: BTreeSet::new(), changes: BTreeMap::new() }
    }

    pub(super) fn run(&mut self) -> Result<(), WeightsError> {
        for (id, node) in self.graph.nodes().iter().enumerate() {
            let found = match node.op {
                OpSpec::BatchNorm { .. } => match self.norm_behind(id, node)? {
                    None => self.norm_in_front(id, node)?,
                    found => found,
                },
                OpSpec::Conv2d { kernel: 1, .. } => self.collapse(id)?,
                OpSpec::Add => self.identity(node)?.map(|change| (id, change)),
                _ => None,
            };
            let Some((gone, change)) = found else { continue };
            // Whoever stays must stand where all that it reads is there already, and what else takes part
            // must not change in the same pass.
            let parts = [gone, change.kept, change.input];
            if parts.iter().any(|part| self.touched.contains(part)) {
                continue;
            }
            self.touched.extend([gone, change.kept]);
            self.changes.insert(gone, change);
        }
        Ok(())
    }

    /// Whether nobody but one node reads this one.
    fn alone(&self, id: NodeId) -> bool {
        self.readers[id].len() == 1 && !self.graph.outputs().contains(&id)
    }

    fn layer(&self, node: &Node) -> Result<Layer, WeightsError> {
        let mut found = Vec::new();
        for (suffix, dims) in node.op.parameters(self.graph.source_shape(node)) {
            found.push(self.weights.get(&format!("{}.{suffix}", node.name), &dims)?.to_vec());
        }
        let mut found = found.into_iter();
        Ok((found.next().unwrap_or_default(), found.next()))
    }

    fn norm_behind(&self, id: NodeId, node: &Node) -> Result<Option<(NodeId, Change)>, WeightsError> {
        let kept = node.inputs[0];
        let front = &self.graph.nodes()[kept];
        if !matches!(front.op, OpSpec::Conv2d { .. } | OpSpec::Linear { .. }) || !self.alone(kept) {
            return Ok(None);
        }
        let (scale, shift) = scale_and_shift(node, self.weights)?;
        let (mut weight, bias) = self.layer(front)?;
        let mut bias = bias.unwrap_or_else(|| vec![0.0; front.shape.c]);
        behind(&mut weight, &mut bias, &scale, &shift);
        let change = Change {
            rule: FoldRule::NormBehind,
            kept,
            op: biased(front.op),
            weight,
            bias: Some(bias),
            input: front.inputs[0],
        };
        Ok(Some((id, change)))
    }

    /// Into the only reader, if no padding stands between.
    fn norm_in_front(&self, id: NodeId, node: &Node) -> Result<Option<(NodeId, Change)>, WeightsError> {
        let [kept] = self.readers[id][..] else { return Ok(None) };
        let reader = &self.graph.nodes()[kept];
        let groups = match reader.op {
            OpSpec::Conv2d { padding: 0, groups, .. } => groups,
            OpSpec::Linear { .. } => 1,
            _ => return Ok(None),
        };
        if !self.alone(id) {
            return Ok(None);
        }
        let (scale, shift) = scale_and_shift(node, self.weights)?;
        let (mut weight, bias) = self.layer(reader)?;
        let out = reader.shape.c;
        let mut bias = bias.unwrap_or_else(|| vec![0.0; out]);
        let each = node.shape.c / groups;
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
        let change = Change {
            rule: FoldRule::NormInFront,
            kept,
            op: biased(reader.op),
            weight,
            bias: Some(bias),
            input: node.inputs[0],
        };
        Ok(Some((id, change)))
    }

    fn collapse(&self, id: NodeId) -> Result<Option<(NodeId, Change)>, WeightsError> {
        let Some(LinearPair { first: kept, op, .. }) = linear_pair(self.graph, id) else { return Ok(None) };
        if !self.alone(kept) {
            return Ok(None);
        }
        let (front, node) = (&self.graph.nodes()[kept], &self.graph.nodes()[id]);
        let (first, first_bias) = self.layer(front)?;
        let (second, second_bias) = self.layer(node)?;
        let middle = front.shape.c;
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
        let change = Change { rule: FoldRule::Collapse, kept, op, weight, bias, input: front.inputs[0] };
        Ok(Some((id, change)))
    }

    /// `x + conv(x)`.
    fn identity(&self, node: &Node) -> Result<Option<Change>, WeightsError> {
        let [a, b] = node.inputs[..] else { return Ok(None) };
        let of = |conv: NodeId, x: NodeId| self.graph.nodes()[conv].inputs == [x];
        let (kept, input) = if of(b, a) { (b, a) } else { (a, b) };
        let conv = &self.graph.nodes()[kept];
        let OpSpec::Conv2d { out_channels, kernel, stride: 1, padding, dilation, groups, .. } = conv.op
        else {
            return Ok(None);
        };
        let whole = self.graph.nodes()[input].shape == conv.shape && padding == dilation * (kernel / 2);
        // A norm behind the convolution goes first.
        if !of(kept, input) || !whole || kernel.is_multiple_of(2) || !self.alone(kept) {
            return Ok(None);
        }
        let (mut weight, bias) = self.layer(conv)?;
        let each = out_channels / groups;
        for channel in 0..out_channels {
            weight[(channel * each + channel % each) * kernel * kernel + kernel * kernel / 2] += 1.0;
        }
        Ok(Some(Change { rule: FoldRule::Identity, kept, op: conv.op, weight, bias, input }))
    }
}

fn biased(op: OpSpec) -> OpSpec {
    match op {
        OpSpec::Conv2d { out_channels, kernel, stride, padding, dilation, groups, .. } => {
            OpSpec::Conv2d { out_channels, kernel, stride, padding, dilation, groups, bias: true }
        }
        OpSpec::Linear { out_features, .. } => OpSpec::Linear { out_features, bias: true },
        other => other,
    }
}
