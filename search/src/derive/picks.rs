//! Kept edges of a space's nodes, and genotypes made of them.

use lathe_spaces::{BlockGenotype, Genotype, Pick, Space};

use crate::scores::node_slots;

/// A kept edge: slot and column of the choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// Position of the slot among all of the space.
    pub slot: usize,
    /// Column of the choice.
    pub choice: usize,
}

/// The strongest deployable choice of a slot, the first among equals.
pub(super) fn strongest(slot: usize, columns: &[usize], strengths: &[f64]) -> Option<Kept> {
    let first_best =
        |best: usize, &column: &usize| if strengths[column] > strengths[best] { column } else { best };
    let &start = columns.first()?;
    Some(Kept { slot, choice: columns.iter().fold(start, first_best) })
}

/// Per node its kept edges → genotype.
pub(crate) fn genotype(space: &Space, picks: &[Vec<Kept>]) -> Genotype {
    let named = |name: &str| BlockGenotype { name: name.to_owned(), nodes: Vec::new() };
    let mut blocks: Vec<BlockGenotype> = space.blocks.iter().map(|block| named(&block.name)).collect();
    for (node, kept) in node_slots(space).into_iter().zip(picks) {
        let edges = &space.blocks[node.block].nodes[node.node].edges;
        let pick = |kept: &Kept| {
            let edge = &edges[kept.slot - node.slots.start];
            Pick { from: edge.from, choice: edge.choices[kept.choice].clone() }
        };
        blocks[node.block].nodes.push(kept.iter().map(pick).collect());
    }
    Genotype { blocks }
}

/// Slots and columns of a genotype's picks, in order; picks that the space lacks are left out.
pub(crate) fn kept_of(space: &Space, genotype: &Genotype) -> Vec<Kept> {
    let mut kept = Vec::new();
    for node in node_slots(space) {
        let edges = &space.blocks[node.block].nodes[node.node].edges;
        for pick in &genotype.blocks[node.block].nodes[node.node] {
            let edge = edges.iter().position(|edge| edge.from == pick.from);
            let choice =
                edge.and_then(|edge| edges[edge].choices.iter().position(|choice| *choice == pick.choice));
            if let (Some(edge), Some(choice)) = (edge, choice) {
                kept.push(Kept { slot: node.slots.start + edge, choice });
            }
        }
    }
    kept
}

/// All subsets of `size` elements, in lexicographic order.
pub(super) fn subsets(elements: &[usize], size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (position, &first) in elements.iter().enumerate() {
        for rest in subsets(&elements[position + 1..], size - 1) {
            all.push([vec![first], rest].concat());
        }
    }
    all
}
