//! Signs that a differentiable search collapses: cells of skip connections and pools.

use lathe_spaces::{Genotype, Space};
use serde::{Deserialize, Serialize};

/// Operations that pass their input on.
const SKIPS: [&str; 2] = ["skip_connect", "skip"];
/// Further operations that learn nothing.
const PARAMETER_FREE: [&str; 3] = ["none", "max_pool_3x3", "avg_pool_3x3"];

/// What one block of a network is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSigns {
    /// Name of the block.
    pub block: String,
    /// Operations that are kept.
    pub kept: usize,
    /// Skip connections among them.
    pub skips: usize,
    /// Operations without weights among them, skip connections included.
    pub parameter_free: usize,
    /// Inputs of the block that no operation reads.
    pub unread_inputs: usize,
}

impl BlockSigns {
    /// Of every block of a network.
    pub fn of(space: &Space, genotype: &Genotype) -> Vec<Self> {
        let block = |(spec, block): (&lathe_spaces::BlockSpec, &lathe_spaces::BlockGenotype)| {
            let picks: Vec<_> = block.nodes.iter().flatten().collect();
            let skip = |choice: &str| SKIPS.contains(&choice);
            let free = |choice: &str| skip(choice) || PARAMETER_FREE.contains(&choice);
            // `none` reads nothing.
            let read = |input: usize| picks.iter().any(|pick| pick.from == input && pick.choice != "none");
            Self {
                block: block.name.clone(),
                kept: picks.len(),
                skips: picks.iter().filter(|pick| skip(&pick.choice)).count(),
                parameter_free: picks.iter().filter(|pick| free(&pick.choice)).count(),
                unread_inputs: (0..spec.inputs).filter(|input| !read(*input)).count(),
            }
        };
        space.blocks.iter().zip(&genotype.blocks).map(block).collect()
    }

    /// What is suspicious about the block, if anything: more than a third of its operations skip (three of the eight
    /// of a DARTS cell; DARTS+ stops at two), half of them or more learn nothing, or an input is not read.
    pub fn suspicion(&self) -> Option<String> {
        let Self { block, kept, skips, parameter_free, unread_inputs } = self;
        let mut found = Vec::new();
        if 3 * skips > *kept {
            found.push(format!("{skips} of {kept} operations are skip connections"));
        } else if 2 * parameter_free >= *kept {
            found.push(format!("{parameter_free} of {kept} operations have no weights"));
        }
        if *unread_inputs > 0 {
            found.push(format!("{unread_inputs} of its inputs is not read"));
        }
        (!found.is_empty()).then(|| format!("`{block}` may have collapsed: {}", found.join("; ")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::fixtures;

    fn signs(normal: &str) -> Vec<BlockSigns> {
        let reduce = "[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), \
                      ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1)]";
        let text = format!(
            "Genotype(normal={normal}, normal_concat=range(2, 6), reduce={reduce}, reduce_concat=range(2, 6))"
        );
        let space = fixtures::darts();
        BlockSigns::of(&space, &space.parse(&text).unwrap())
    }

    #[test]
    fn skips_pools_and_unread_inputs_are_counted_and_told() {
        let collapsed = signs(
            "[('skip_connect', 0), ('skip_connect', 1), ('skip_connect', 0), ('max_pool_3x3', 1), \
             ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1)]",
        );
        let normal = &collapsed[0];
        assert_eq!((normal.kept, normal.skips, normal.parameter_free, normal.unread_inputs), (8, 3, 4, 0));
        assert_eq!(
            normal.suspicion().as_deref(),
            Some("`normal` may have collapsed: 3 of 8 operations are skip connections")
        );
        assert_eq!(collapsed[1].suspicion(), None, "eight convolutions");
        let pools = signs(
            "[('max_pool_3x3', 0), ('skip_connect', 1), ('skip_connect', 0), ('avg_pool_3x3', 1), \
             ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1)]",
        );
        assert!(pools[0].suspicion().unwrap().contains("4 of 8 operations have no weights"));
    }

    #[test]
    fn published_cells_are_not_suspicious() {
        let space = fixtures::darts();
        for (name, genotype) in space.published() {
            for signs in BlockSigns::of(&space, &genotype) {
                assert_eq!(signs.suspicion(), None, "{name}");
            }
        }
    }
}
