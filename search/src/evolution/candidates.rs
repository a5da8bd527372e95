//! Where a search takes its points from.

use lathe_spaces::{BlockGenotype, Genotype, Space};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A set of points that can be drawn, changed a little, and crossed.
pub trait Candidates {
    /// A point.
    type Candidate: Clone + Ord;

    /// A point drawn uniformly.
    fn sample(&self, rng: &mut ChaCha8Rng) -> Self::Candidate;

    /// A neighbour of a point.
    fn mutate(&self, parent: &Self::Candidate, rng: &mut ChaCha8Rng) -> Self::Candidate;

    /// A child that takes each of its parts from one of two points.
    fn cross(&self, left: &Self::Candidate, right: &Self::Candidate, rng: &mut ChaCha8Rng)
    -> Self::Candidate;
}

/// Every genotype of the space; a crossing takes each node (with its edges) from either parent.
impl Candidates for Space {
    type Candidate = Genotype;

    fn sample(&self, rng: &mut ChaCha8Rng) -> Genotype {
        Self::sample(self, rng)
    }

    fn mutate(&self, parent: &Genotype, rng: &mut ChaCha8Rng) -> Genotype {
        Self::mutate(self, parent, rng)
    }

    fn cross(&self, left: &Genotype, right: &Genotype, rng: &mut ChaCha8Rng) -> Genotype {
        let blocks = left.blocks.iter().zip(&right.blocks).map(|(left, right)| BlockGenotype {
            name: left.name.clone(),
            nodes: left
                .nodes
                .iter()
                .zip(&right.nodes)
                .map(|(left, right)| if rng.random_bool(0.5) { left.clone() } else { right.clone() })
                .collect(),
        });
        Genotype { blocks: blocks.collect() }
    }
}
