//! Architectures as lists of categories.

use std::fmt;

use lathe_spaces::{Genotype, Skeleton, Space};
use serde::{Deserialize, Serialize};

use super::PredictorError;

/// An architecture as one category per position ([`Encoding`] says which), one byte each.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Codes(pub(crate) Box<[u8]>);

impl Codes {
    /// The categories.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Codes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Codes{:?}", self.0)
    }
}

/// How the architectures of a space become categories: one position per edge that carries an
/// operation. Cells of NAS-Bench-201 have six further positions with the same operations once more,
/// where every edge that does not lie on a path from input to output counts as `none`: such an edge
/// is written into the cell but its result is used by nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    positions: usize,
    choices: Vec<String>,
    /// Edges (from, to) of the cell; empty if no edge can be dead.
    edges: Vec<(usize, usize)>,
}

impl Encoding {
    /// The encoding of a space whose nodes keep all their edges.
    ///
    /// # Errors
    /// [`PredictorError::Space`] for spaces that choose their edges (DARTS).
    pub fn of(space: &Space) -> Result<Self, PredictorError> {
        let nodes = || space.blocks.iter().flat_map(|block| &block.nodes);
        let mut choices: Vec<String> = Vec::new();
        for name in nodes().flat_map(|node| &node.edges).flat_map(|edge| &edge.choices) {
            if !choices.contains(name) {
                choices.push(name.clone());
            }
        }
        if choices.len() > usize::from(u8::MAX) || nodes().any(|node| node.keep != node.edges.len()) {
            return Err(PredictorError::Space { space: space.name.clone() });
        }
        let positions = nodes().map(|node| node.edges.len()).sum();
        let edges = match space.skeleton {
            Skeleton::Nas201(_) => space.blocks[0]
                .nodes
                .iter()
                .enumerate()
                .flat_map(|(node, spec)| spec.edges.iter().map(move |edge| (edge.from, node + 1)))
                .collect(),
            _ => Vec::new(),
        };
        Ok(Self { positions, choices, edges })
    }

    /// Positions that carry an operation.
    pub const fn positions(&self) -> usize {
        self.positions
    }

    /// Names of the operations, in the order of their codes.
    pub fn choices(&self) -> &[String] {
        &self.choices
    }

    /// Bytes of an architecture: positions, and positions once more without dead edges.
    pub const fn width(&self) -> usize {
        if self.edges.is_empty() { self.positions } else { 2 * self.positions }
    }

    /// Columns of the one-hot form.
    pub(crate) const fn columns(&self) -> usize {
        self.width() * self.choices.len()
    }

    /// The categories of a genotype.
    ///
    /// # Errors
    /// [`PredictorError::Genotype`] if the genotype is of another space.
    pub fn encode(&self, genotype: &Genotype) -> Result<Codes, PredictorError> {
        let mut codes = Vec::with_capacity(self.width());
        for pick in genotype.blocks.iter().flat_map(|block| &block.nodes).flatten() {
            let code = self.choices.iter().position(|choice| *choice == pick.choice);
            let code = code.ok_or_else(|| PredictorError::Genotype {
                reason: format!("operation `{}` is not one of {}", pick.choice, self.choices.join(", ")),
            })?;
            codes.push(code as u8);
        }
        if codes.len() != self.positions {
            let reason = format!("expected {} operations, got {}", self.positions, codes.len());
            return Err(PredictorError::Genotype { reason });
        }
        let live = self.live(&codes);
        if !self.edges.is_empty() {
            let none = self.choices.iter().position(|choice| choice == "none").unwrap_or(0) as u8;
            codes.extend_from_within(..);
            for (code, live) in codes[self.positions..].iter_mut().zip(live) {
                if !live {
                    *code = none;
                }
            }
        }
        Ok(Codes(codes.into()))
    }

    /// Whether input and output are connected. A cell of NAS-Bench-201 where they are not computes a
    /// constant, and what tables say of its latency is meaningless.
    pub fn connected(&self, codes: &Codes) -> bool {
        self.edges.is_empty()
            || codes.0[self.positions..].iter().any(|&code| self.choices[usize::from(code)] != "none")
    }

    /// Whether each edge lies on a path of operations other than `none` from input to output.
    fn live(&self, codes: &[u8]) -> Vec<bool> {
        let output = self.edges.iter().map(|(_, to)| *to).max().unwrap_or(0);
        let carries: Vec<bool> =
            codes.iter().map(|&code| self.choices[usize::from(code)] != "none").collect();
        let (mut reached, mut used) = (vec![false; output + 1], vec![false; output + 1]);
        reached[0] = true;
        used[output] = true;
        // Edges are sorted by their end, so one pass each way settles both.
        for (&(from, to), &carries) in self.edges.iter().zip(&carries) {
            reached[to] |= carries && reached[from];
        }
        for (&(from, to), &carries) in self.edges.iter().zip(&carries).rev() {
            used[from] |= carries && used[to];
        }
        let edges = self.edges.iter().zip(&carries);
        edges.map(|(&(from, to), &carries)| carries && reached[from] && used[to]).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_spaces::{DartsSkeleton, Nas201Skeleton, Stem};

    use super::*;

    fn nas201() -> Space {
        Space::nas201(Nas201Skeleton { width: 16, cells: 5, resolution: 32, classes: 10 })
    }

    fn codes(text: &str) -> Vec<u8> {
        let space = nas201();
        Encoding::of(&space).unwrap().encode(&space.parse(text).unwrap()).unwrap().0.into_vec()
    }

    #[test]
    fn an_edge_that_leads_nowhere_counts_as_none() {
        // Node 2 is used by nothing: the edge 2→3 is `none`, so 0→2 and 1→2 are dead.
        let text = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|avg_pool_3x3~1|none~2|";
        assert_eq!(codes(text), [3, 2, 1, 0, 4, 0, 3, 0, 0, 0, 4, 0]);
        // Node 1 gets nothing: what leaves it is dead.
        let text = "|none~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|";
        assert_eq!(codes(text), [0, 2, 1, 0, 4, 3, 0, 2, 0, 0, 0, 3]);
        // Input and output are not connected: everything is dead.
        let text = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|none~1|none~2|";
        assert_eq!(codes(text), [3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn stages_have_one_category_per_position() {
        let space = Space::fbnet(224, 1000);
        let encoding = Encoding::of(&space).unwrap();
        let text = vec!["8"; 22].join(" ");
        let codes = encoding.encode(&space.parse(&text).unwrap()).unwrap();
        assert_eq!((codes.as_slice(), encoding.width()), ([8; 22].as_slice(), 22));
    }

    #[test]
    fn a_space_that_chooses_edges_and_a_foreign_genotype_are_refused() {
        let (stem, layers) = (Stem::Cifar, 5);
        let darts = Space::darts(DartsSkeleton { stem, width: 8, layers, resolution: 16, classes: 10 });
        let error = Encoding::of(&darts).unwrap_err().to_string();
        assert!(error.contains("`darts`"), "{error}");
        let fbnet = Space::fbnet(224, 1000);
        let genotype = fbnet.parse(&vec!["8"; 22].join(" ")).unwrap();
        let error = Encoding::of(&nas201()).unwrap().encode(&genotype).unwrap_err().to_string();
        assert!(error.contains("`skip` is not one of none, skip_connect"), "{error}");
    }
}
