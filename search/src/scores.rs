//! What a search has learned: one logit per choice and one per edge.

use std::ops::Range;

use lathe_spaces::Space;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ArchSnapshot;

/// Architecture parameters as raw logits, for all slots of a space in order (block, node, edge).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// α: per slot one logit per choice.
    pub alpha: Vec<Vec<f64>>,
    /// β: per slot one logit; they compete within their node.
    pub beta: Vec<f64>,
}

/// Why scores don't belong to a space.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ScoresError {
    /// Not one row per slot.
    #[error(
        "use the scores with the space `{space}`: expected {expected} slots, got {alpha} of alpha and {beta} of beta"
    )]
    Slots {
        /// Space.
        space: String,
        /// Slots of the space.
        expected: usize,
        /// Rows of α.
        alpha: usize,
        /// Elements of β.
        beta: usize,
    },
    /// Not one logit per choice.
    #[error("use the scores with the space `{space}`: expected {expected} choices at slot {slot}, got {got}")]
    Choices {
        /// Space.
        space: String,
        /// Position of the slot.
        slot: usize,
        /// Choices of the slot.
        expected: usize,
        /// Logits.
        got: usize,
    },
    /// Infinite or not a number.
    #[error(
        "use the scores with the space `{space}`: a logit at slot {slot} is {value}; the search has diverged"
    )]
    NotFinite {
        /// Space.
        space: String,
        /// Position of the slot.
        slot: usize,
        /// The logit.
        value: f64,
    },
}

impl Scores {
    /// Scores that prefer nothing: all logits zero.
    pub fn uniform(space: &Space) -> Self {
        let alpha: Vec<Vec<f64>> = edges(space).map(|edge| vec![0.0; edge.choices.len()]).collect();
        let beta = vec![0.0; alpha.len()];
        Self { alpha, beta }
    }

    /// Checks that there is one finite logit per slot and choice of `space`.
    pub fn check(&self, space: &Space) -> Result<(), ScoresError> {
        let space_name = || space.name.clone();
        let expected = edges(space).count();
        if (self.alpha.len(), self.beta.len()) != (expected, expected) {
            let (alpha, beta) = (self.alpha.len(), self.beta.len());
            return Err(ScoresError::Slots { space: space_name(), expected, alpha, beta });
        }
        for (slot, edge) in edges(space).enumerate() {
            let (expected, got) = (edge.choices.len(), self.alpha[slot].len());
            if expected != got {
                return Err(ScoresError::Choices { space: space_name(), slot, expected, got });
            }
            let mut logits = self.alpha[slot].iter().chain(&self.beta[slot..=slot]);
            if let Some(&value) = logits.find(|value| !value.is_finite()) {
                return Err(ScoresError::NotFinite { space: space_name(), slot, value });
            }
        }
        Ok(())
    }

    /// softmax(α) per edge and softmax(β) per node, block by block.
    ///
    /// # Panics
    /// If the scores don't fit the space; see [`Scores::check`].
    pub fn snapshots(&self, space: &Space) -> Vec<ArchSnapshot> {
        let mut snapshots: Vec<ArchSnapshot> = space
            .blocks
            .iter()
            .map(|block| ArchSnapshot { block: block.name.clone(), alpha: Vec::new(), beta: Vec::new() })
            .collect();
        for node in node_slots(space) {
            let snapshot = &mut snapshots[node.block];
            snapshot.alpha.extend(self.alpha[node.slots.clone()].iter().map(|logits| softmax(logits)));
            snapshot.beta.extend(softmax(&self.beta[node.slots]));
        }
        snapshots
    }
}

/// A node of a space and the slots of its candidate edges.
#[derive(Clone, Debug)]
pub(crate) struct NodeSlots {
    /// Index of the block.
    pub block: usize,
    /// Index of the node in its block.
    pub node: usize,
    /// Positions of its edges among all slots of the space.
    pub slots: Range<usize>,
    /// Edges that a genotype keeps.
    pub keep: usize,
}

/// All nodes of a space, in the order of its slots.
pub(crate) fn node_slots(space: &Space) -> Vec<NodeSlots> {
    let mut nodes = Vec::new();
    let mut start = 0;
    for (block, spec) in space.blocks.iter().enumerate() {
        for (node, spec) in spec.nodes.iter().enumerate() {
            let end = start + spec.edges.len();
            nodes.push(NodeSlots { block, node, slots: start..end, keep: spec.keep });
            start = end;
        }
    }
    nodes
}

/// Per slot the columns of the choices that can be deployed (everything but DARTS' `none`).
pub(crate) fn deployable_columns(space: &Space) -> Vec<Vec<usize>> {
    edges(space)
        .map(|edge| {
            let deployable = |column: &usize| !space.relaxation_only.contains(&edge.choices[*column]);
            (0..edge.choices.len()).filter(deployable).collect()
        })
        .collect()
}

fn edges(space: &Space) -> impl Iterator<Item = &lathe_spaces::EdgeSpec> {
    space.blocks.iter().flat_map(|block| &block.nodes).flat_map(|node| &node.edges)
}

/// softmax over one row.
pub(crate) fn softmax(logits: &[f64]) -> Vec<f64> {
    log_softmax(logits).into_iter().map(f64::exp).collect()
}

/// log softmax over one row, without overflow.
pub(crate) fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = logits.iter().map(|logit| (logit - max).exp()).sum::<f64>().ln();
    logits.iter().map(|logit| logit - max - log_sum).collect()
}
