//! What can be searched: blocks with nodes, edges and choices, and the skeleton that stacks them.

use serde::{Deserialize, Serialize};

use crate::{DartsSkeleton, ElasticSkeleton, Nas201Skeleton, Pick, StageSkeleton};

/// A search space as data. Cells and stages are the same thing: a cell is a block whose nodes choose
/// among edges, a chain of stages is a block whose nodes have one edge each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Space {
    /// Name (`darts`, `nas-bench-201`, `fbnet`).
    pub name: String,
    /// Kinds of blocks; every copy of a kind in the network shares its choices.
    pub blocks: Vec<BlockSpec>,
    /// Choices that exist in the relaxation only and are never deployed (DARTS' `none`).
    pub relaxation_only: Vec<String>,
    /// How blocks are stacked into a network, at deployment widths.
    pub skeleton: Skeleton,
}

/// One kind of block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSpec {
    /// Name (`normal`, `reduce`, `cell`, `stages`).
    pub name: String,
    /// Number of states that enter the block; its nodes are numbered after them.
    pub inputs: usize,
    /// Nodes, in topological order.
    pub nodes: Vec<NodeSpec>,
}

/// A node that sums the operations on the edges it keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Candidate edges.
    pub edges: Vec<EdgeSpec>,
    /// How many of them a genotype keeps.
    pub keep: usize,
}

/// A candidate edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeSpec {
    /// State that it starts from.
    pub from: usize,
    /// Operations that it may carry; the position is the column of the architecture parameters.
    pub choices: Vec<String>,
}

/// How blocks are stacked into a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Skeleton {
    /// Normal and reduction cells of DARTS.
    Darts(DartsSkeleton),
    /// Three stages of one cell with residual reductions between them.
    Nas201(Nas201Skeleton),
    /// A chain of positions of fixed widths (`FBNet`).
    Stages(StageSkeleton),
    /// Stages whose width, depth, stride and blocks are chosen: the mobile spaces, read from files.
    Elastic(ElasticSkeleton),
}

/// Place of an edge in a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// Index of the block.
    pub block: usize,
    /// Index of the node in its block.
    pub node: usize,
    /// Index of the edge in its node.
    pub edge: usize,
}

impl Space {
    /// Every candidate edge: block by block, node by node, edge by edge.
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        for (block, spec) in self.blocks.iter().enumerate() {
            for (node, spec) in spec.nodes.iter().enumerate() {
                slots.extend((0..spec.edges.len()).map(|edge| Slot { block, node, edge }));
            }
        }
        slots
    }

    /// The edge at a slot.
    ///
    /// # Panics
    /// If the slot is not one of [`Space::slots`].
    pub fn edge(&self, slot: Slot) -> &EdgeSpec {
        &self.blocks[slot.block].nodes[slot.node].edges[slot.edge]
    }

    /// The slot that a pick at this node fills; nothing if the node has no edge from there.
    pub fn slot_of(&self, block: usize, node: usize, pick: &Pick) -> Option<Slot> {
        let edges = &self.blocks.get(block)?.nodes.get(node)?.edges;
        let edge = edges.iter().position(|edge| edge.from == pick.from)?;
        Some(Slot { block, node, edge })
    }

    /// The choices of a slot that a network may carry: all but those of the relaxation only.
    ///
    /// # Panics
    /// If the slot is not one of [`Space::slots`].
    pub fn deployable(&self, slot: Slot) -> Vec<&str> {
        self.deployable_choices(self.edge(slot))
    }

    /// The deployable choices of an edge.
    pub(crate) fn deployable_choices<'a>(&self, edge: &'a EdgeSpec) -> Vec<&'a str> {
        let deployed = |choice: &&String| !self.relaxation_only.contains(choice);
        edge.choices.iter().filter(deployed).map(String::as_str).collect()
    }
}
