//! Which pairs of operators become one. The graph alone decides; [`numbers`](super::numbers) says with which weights.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Change, FoldRule,
    collapse::{LinearPair, linear_pair},
};
use crate::{Graph, Node, NodeId, OpSpec};

/// One pass over a graph. A node takes part in one change at most; the next pass sees the result.
pub(super) struct Round<'a> {
    graph: &'a Graph,
    readers: Vec<Vec<NodeId>>,
    touched: BTreeSet<NodeId>,
    /// By the node that vanishes.
    changes: BTreeMap<NodeId, Change>,
}

impl<'a> Round<'a> {
    /// What one pass over a graph changes, by the node that vanishes.
    pub(super) fn changes(graph: &'a Graph) -> BTreeMap<NodeId, Change> {
        let mut readers = vec![Vec::new(); graph.nodes().len()];
        for (id, node) in graph.nodes().iter().enumerate() {
            for &input in &node.inputs {
                readers[input].push(id);
            }
        }
        let mut round = Self { graph, readers, touched: BTreeSet::new(), changes: BTreeMap::new() };
        round.run();
        round.changes
    }

    fn run(&mut self) {
        for (id, node) in self.graph.nodes().iter().enumerate() {
            let found = match node.op {
                OpSpec::BatchNorm { .. } => {
                    self.norm_behind(id, node).or_else(|| self.norm_in_front(id, node))
                }
                OpSpec::Conv2d { kernel: 1, .. } => self.collapse(id),
                OpSpec::Add => self.identity(node).map(|change| (id, change)),
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
    }

    /// Whether nobody but one node reads this one.
    fn alone(&self, id: NodeId) -> bool {
        self.readers[id].len() == 1 && !self.graph.outputs().contains(&id)
    }

    fn norm_behind(&self, id: NodeId, node: &Node) -> Option<(NodeId, Change)> {
        let kept = node.inputs[0];
        let front = &self.graph.nodes()[kept];
        if !matches!(front.op, OpSpec::Conv2d { .. } | OpSpec::Linear { .. }) || !self.alone(kept) {
            return None;
        }
        let (rule, op, input) = (FoldRule::NormBehind, biased(front.op), front.inputs[0]);
        Some((id, Change { rule, kept, op, input }))
    }

    /// Into the only reader, if no padding stands between.
    fn norm_in_front(&self, id: NodeId, node: &Node) -> Option<(NodeId, Change)> {
        let [kept] = self.readers[id][..] else { return None };
        let reader = &self.graph.nodes()[kept];
        let takes = matches!(reader.op, OpSpec::Conv2d { padding: 0, .. } | OpSpec::Linear { .. });
        if !takes || !self.alone(id) {
            return None;
        }
        let (rule, op, input) = (FoldRule::NormInFront, biased(reader.op), node.inputs[0]);
        Some((id, Change { rule, kept, op, input }))
    }

    fn collapse(&self, id: NodeId) -> Option<(NodeId, Change)> {
        let LinearPair { first: kept, op, .. } = linear_pair(self.graph, id)?;
        let input = self.graph.nodes()[kept].inputs[0];
        self.alone(kept).then_some((id, Change { rule: FoldRule::Collapse, kept, op, input }))
    }

    /// `x + conv(x)`.
    fn identity(&self, node: &Node) -> Option<Change> {
        let [a, b] = node.inputs[..] else { return None };
        let of = |conv: NodeId, x: NodeId| self.graph.nodes()[conv].inputs == [x];
        let (kept, input) = if of(b, a) { (b, a) } else { (a, b) };
        let conv = &self.graph.nodes()[kept];
        let OpSpec::Conv2d { kernel, stride: 1, padding, dilation, .. } = conv.op else { return None };
        let whole = self.graph.nodes()[input].shape == conv.shape && padding == dilation * (kernel / 2);
        // A norm behind the convolution goes first.
        let folds = of(kept, input) && whole && !kernel.is_multiple_of(2) && self.alone(kept);
        folds.then_some(Change { rule: FoldRule::Identity, kept, op: conv.op, input })
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
