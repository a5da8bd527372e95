//! Expected latencies of many genotypes at once.

use lathe_spaces::{Genotype, Micros, Pick, Slot, Space};
use rayon::prelude::*;

use crate::{CostError, CostTable};

/// Genotypes that a thread takes at a time.
const AT_ONCE: usize = 256;

/// A node's edges: where each starts, and what each of its choices costs.
struct Node<'a> {
    keep: usize,
    edges: Vec<(usize, Vec<(&'a str, Micros)>)>,
}

/// The table in the space's own order, so that a pick is found without a search over slots.
struct Index<'a> {
    blocks: Vec<(&'a str, Vec<Node<'a>>)>,
}

impl CostTable {
    /// Expected latencies of genotypes, in their order, on all of rayon's threads: exactly what
    /// [`CostTable::mean`] says of each, several times faster.
    ///
    /// # Errors
    /// [`CostError`] for the first genotype (in no particular order) that is not of the space.
    pub fn mean_all(&self, space: &Space, genotypes: &[Genotype]) -> Result<Vec<Micros>, CostError> {
        let index = Index::of(self, space);
        genotypes
            .par_iter()
            .with_min_len(AT_ONCE)
            .map(|genotype| {
                let sum = if self.space == space.name { index.sum(genotype) } else { None };
                // What is irregular gets its error from the slow way.
                sum.map_or_else(|| self.mean(space, genotype), |sum| Ok(self.fixed + sum))
            })
            .collect()
    }
}

impl<'a> Index<'a> {
    fn of(table: &'a CostTable, space: &'a Space) -> Self {
        let blocks = space.blocks.iter().enumerate().map(|(block, spec)| {
            let nodes = spec.nodes.iter().enumerate().map(|(node, spec)| {
                let edges = spec.edges.iter().enumerate().map(|(edge, spec)| {
                    let slot = Slot { block, node, edge };
                    let known = |choice: &'a str| Some((choice, table.cost(slot, choice)?));
                    (spec.from, space.deployable(slot).into_iter().filter_map(known).collect())
                });
                Node { keep: spec.keep, edges: edges.collect() }
            });
            (spec.name.as_str(), nodes.collect())
        });
        Self { blocks: blocks.collect() }
    }

    /// Sum over the picks; `None` if anything is not as the space has it.
    fn sum(&self, genotype: &Genotype) -> Option<Micros> {
        if genotype.blocks.len() != self.blocks.len() {
            return None;
        }
        let mut sum = Micros::default();
        for (block, (name, nodes)) in genotype.blocks.iter().zip(&self.blocks) {
            if block.name != *name || block.nodes.len() != nodes.len() {
                return None;
            }
            for (picks, node) in block.nodes.iter().zip(nodes) {
                if picks.len() != node.keep {
                    return None;
                }
                for (index, pick) in picks.iter().enumerate() {
                    if picks[..index].iter().any(|other| other.from == pick.from) {
                        return None;
                    }
                    sum += node.cost(pick)?;
                }
            }
        }
        Some(sum)
    }
}

impl Node<'_> {
    fn cost(&self, pick: &Pick) -> Option<Micros> {
        let (_, choices) = self.edges.iter().find(|(from, _)| *from == pick.from)?;
        choices.iter().find(|(choice, _)| *choice == pick.choice).map(|(_, cost)| *cost)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_spaces::{DartsSkeleton, Stem, Stream};
    use rand::RngExt;

    use super::*;
    use crate::{Provenance, SlotCosts};

    fn table(space: &Space) -> CostTable {
        let mut stream = Stream::new(0, "costs", 0);
        let slots = space.slots().into_iter().map(|slot| SlotCosts {
            slot,
            choices: space
                .deployable(slot)
                .into_iter()
                .map(|choice| (choice.to_owned(), Micros(stream.random_range(0.0..50.0))))
                .collect(),
        });
        CostTable {
            space: space.name.clone(),
            device: "device".into(),
            provenance: Provenance::Measured,
            fixed: Micros(100.0),
            slots: slots.collect(),
            relative_sigma: 0.1,
            ratio_quantiles: [0.9, 1.1],
            measured_range: [Micros(0.0), Micros(1000.0)],
        }
    }

    #[test]
    fn all_at_once_is_one_by_one_and_so_are_errors() {
        let stem = Stem::Cifar;
        let darts = Space::darts(DartsSkeleton { stem, width: 8, layers: 5, resolution: 16, classes: 10 });
        for space in [darts, Space::fbnet(32, 10)] {
            let table = table(&space);
            let mut genotypes: Vec<Genotype> =
                (0..600).map(|index| space.sample(&mut Stream::new(0, "many", index))).collect();
            let one_by_one: Vec<Micros> =
                genotypes.iter().map(|genotype| table.mean(&space, genotype).unwrap()).collect();
            assert_eq!(table.mean_all(&space, &genotypes).unwrap(), one_by_one);
            genotypes[77].blocks[0].nodes[0][0].choice = "none such".into();
            let error = table.mean_all(&space, &genotypes).unwrap_err().to_string();
            assert_eq!(error, table.mean(&space, &genotypes[77]).unwrap_err().to_string());
            let other = CostTable { space: "other".into(), ..table };
            assert!(other.mean_all(&space, &genotypes[..1]).unwrap_err().to_string().contains("`other`"));
        }
    }
}
