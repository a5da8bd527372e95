//! One point of a search space.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{NodeSpec, Skeleton, Space, elastic};

/// A kept edge with the operation on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pick {
    /// State that the edge starts from: the block's inputs first, then its nodes.
    pub from: usize,
    /// Name of the operation, one of the edge's choices.
    pub choice: String,
}

/// The picks of one block (a kind of cell, or a chain of stages), node by node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockGenotype {
    /// Name of the block (`normal`, `reduce`, `cell`, `stages`).
    pub name: String,
    /// Per node the kept edges, ordered by `from`.
    pub nodes: Vec<Vec<Pick>>,
}

/// One point of a search space: a choice per kept edge.
///
/// Its one-line text form is the one that its field uses: `Genotype(normal=[…], …)` of DARTS and
/// PC-DARTS, `|op~0|+…` of NAS-Bench-201, comma-separated block names for a chain of stages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Genotype {
    /// Per block of the space, in its order.
    pub blocks: Vec<BlockGenotype>,
}

/// Why a genotype, or its text, is not a point of a space.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GenotypeError {
    /// Text that doesn't read as a genotype.
    #[error("read the genotype at character {at}: expected {expected}, got {got}")]
    Syntax {
        /// Position of the first unexpected character, counted from 1.
        at: usize,
        /// What would have been right.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A name that the edge doesn't offer.
    #[error("use `{choice}` at {place}: {hint}")]
    Choice {
        /// Block, node and edge.
        place: String,
        /// The unknown name.
        choice: String,
        /// The nearest known name, or all of them.
        hint: String,
    },
    /// Other blocks than the space has.
    #[error("match the genotype's blocks: expected {expected:?}, got {got:?}")]
    Blocks {
        /// Names of the space's blocks.
        expected: Vec<String>,
        /// Names of the genotype's.
        got: Vec<String>,
    },
    /// Too many or too few nodes in a block.
    #[error("match the nodes of block `{block}`: expected {expected}, got {got}")]
    Nodes {
        /// Block.
        block: String,
        /// Nodes of the space's block.
        expected: usize,
        /// Nodes of the genotype's.
        got: usize,
    },
    /// Too many or too few edges of a block in a flat text form.
    #[error("match the edges of block `{block}`: expected {expected} in all, got {got}")]
    Edges {
        /// Block.
        block: String,
        /// Kept edges of the space's block.
        expected: usize,
        /// Edges of the text.
        got: usize,
    },
    /// Too many or too few kept edges of a node.
    #[error("match the edges of {place}: expected {expected} kept edges, got {got}")]
    Keep {
        /// Block and node.
        place: String,
        /// Edges that a genotype keeps there.
        expected: usize,
        /// Edges of this one.
        got: usize,
    },
    /// An edge that the node doesn't have.
    #[error("keep the edge from state {from} at {place}: edges start from {expected:?}")]
    From {
        /// Block and node.
        place: String,
        /// State that the edge would start from.
        from: usize,
        /// States that edges of this node start from.
        expected: Vec<usize>,
    },
    /// The same edge twice.
    #[error("keep the edge from state {from} at {place}: it is kept twice; every kept edge starts elsewhere")]
    Duplicate {
        /// Block and node.
        place: String,
        /// State that both start from.
        from: usize,
    },
    /// Edges of a node not ordered by where they start.
    #[error("order the edges of {place}: they must be sorted by the state that they start from, got {got:?}")]
    Order {
        /// Block and node.
        place: String,
        /// States in the order given.
        got: Vec<usize>,
    },
}

impl Space {
    /// Whether the genotype is a point of this space: its blocks, nodes, kept edges (each once, in
    /// order) and deployable choices.
    ///
    /// # Errors
    /// [`GenotypeError`] names the first place that isn't.
    pub fn validate(&self, genotype: &Genotype) -> Result<(), GenotypeError> {
        let expected: Vec<String> = self.blocks.iter().map(|block| block.name.clone()).collect();
        let got: Vec<String> = genotype.blocks.iter().map(|block| block.name.clone()).collect();
        if expected != got {
            return Err(GenotypeError::Blocks { expected, got });
        }
        for (spec, block) in self.blocks.iter().zip(&genotype.blocks) {
            let (expected, got) = (spec.nodes.len(), block.nodes.len());
            if expected != got {
                return Err(GenotypeError::Nodes { block: spec.name.clone(), expected, got });
            }
            for (index, (node, picks)) in spec.nodes.iter().zip(&block.nodes).enumerate() {
                self.validate_node(node, picks, || match self.skeleton {
                    Skeleton::Elastic(_) => elastic::place(&spec.name, index),
                    _ => format!("node {index} of block `{}`", spec.name),
                })?;
            }
        }
        Ok(())
    }

    fn validate_node(
        &self,
        node: &NodeSpec,
        picks: &[Pick],
        place: impl Fn() -> String,
    ) -> Result<(), GenotypeError> {
        for (index, pick) in picks.iter().enumerate() {
            let Some(edge) = node.edges.iter().find(|edge| edge.from == pick.from) else {
                let expected = node.edges.iter().map(|edge| edge.from).collect();
                return Err(GenotypeError::From { place: place(), from: pick.from, expected });
            };
            if picks[..index].iter().any(|other| other.from == pick.from) {
                return Err(GenotypeError::Duplicate { place: place(), from: pick.from });
            }
            let known = self.deployable_choices(edge);
            if !known.contains(&pick.choice.as_str()) {
                let hint = if self.relaxation_only.contains(&pick.choice) {
                    "it exists in the relaxation only and is never deployed".into()
                } else {
                    did_you_mean(&pick.choice, &known)
                };
                let place = match self.skeleton {
                    Skeleton::Elastic(_) => place(),
                    _ => format!("the edge from state {} of {}", pick.from, place()),
                };
                return Err(GenotypeError::Choice { place, choice: pick.choice.clone(), hint });
            }
        }
        if picks.len() != node.keep {
            return Err(GenotypeError::Keep { place: place(), expected: node.keep, got: picks.len() });
        }
        if !picks.is_sorted_by_key(|pick| pick.from) {
            let got = picks.iter().map(|pick| pick.from).collect();
            return Err(GenotypeError::Order { place: place(), got });
        }
        Ok(())
    }
}

/// ``did you mean `skip_connect`?`` if a known name is near, else all known names.
fn did_you_mean(name: &str, known: &[&str]) -> String {
    let score = |other: &&&str| (strsim::jaro_winkler(name, other) * 1e6) as u64;
    match known.iter().max_by_key(score) {
        Some(nearest) if strsim::jaro_winkler(name, nearest) > 0.8 => format!("did you mean `{nearest}`?"),
        _ => format!("expected one of {}", known.join(", ")),
    }
}
