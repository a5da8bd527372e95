//! Drawing, changing and listing genotypes.

use rand::{Rng, RngExt};

use crate::{BlockGenotype, Genotype, NodeSpec, Pick, Skeleton, Space, SpaceError, nas201};

/// The largest space that [`Space::enumerate`] lists.
const ENUMERATION_LIMIT: f64 = 1e7;

impl Space {
    /// Number of genotypes. In elastic stages several may be one network, as they differ in positions behind
    /// the depth only.
    pub fn size(&self) -> f64 {
        let nodes = self.blocks.iter().flat_map(|block| &block.nodes);
        nodes.map(|node| self.node_choices(node)).product()
    }

    /// A genotype drawn uniformly: per node every set of kept edges is equally likely, and so is
    /// every deployable choice on them.
    pub fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> Genotype {
        let node = |node: &NodeSpec, rng: &mut R| {
            let mut edges: Vec<usize> = (0..node.edges.len()).collect();
            let keep = node.keep.min(edges.len());
            for index in 0..keep {
                let other = rng.random_range(index..edges.len());
                edges.swap(index, other);
            }
            edges.truncate(keep);
            edges.sort_unstable();
            let pick = |&edge: &usize, rng: &mut R| {
                let choices = self.deployable_choices(&node.edges[edge]);
                let choice = choices[rng.random_range(0..choices.len())].to_owned();
                Pick { from: node.edges[edge].from, choice }
            };
            edges.iter().map(|edge| pick(edge, rng)).collect()
        };
        let blocks = self.blocks.iter().map(|block| BlockGenotype {
            name: block.name.clone(),
            nodes: block.nodes.iter().map(|spec| node(spec, rng)).collect(),
        });
        Genotype { blocks: blocks.collect() }
    }

    /// A neighbour of the genotype, drawn uniformly: exactly one pick differs, in its operation, in
    /// where its edge starts, or in both; in elastic stages one that the network has, not one that waits
    /// behind the stage's depth. (A space of one point gives that point.)
    pub fn mutate<R: Rng + ?Sized>(&self, genotype: &Genotype, rng: &mut R) -> Genotype {
        let mut neighbours = Vec::new();
        for (block, spec) in self.blocks.iter().enumerate() {
            let nodes = spec.nodes.iter().enumerate();
            for (node, spec) in nodes.filter(|(node, _)| self.is_active(&genotype.blocks[block], *node)) {
                let picks = &genotype.blocks[block].nodes[node];
                for (index, pick) in picks.iter().enumerate() {
                    let taken = |from| picks.iter().any(|other| other.from == from && from != pick.from);
                    for edge in spec.edges.iter().filter(|edge| !taken(edge.from)) {
                        for choice in self.deployable_choices(edge) {
                            if edge.from != pick.from || choice != pick.choice {
                                neighbours.push((block, node, index, edge.from, choice));
                            }
                        }
                    }
                }
            }
        }
        let mut mutated = genotype.clone();
        if !neighbours.is_empty() {
            let (block, node, index, from, choice) = neighbours[rng.random_range(0..neighbours.len())];
            let picks = &mut mutated.blocks[block].nodes[node];
            picks[index] = Pick { from, choice: choice.to_owned() };
            picks.sort_unstable_by_key(|pick| pick.from);
        }
        mutated
    }

    /// Every genotype once. NAS-Bench-201 comes in its official order (the benchmark's
    /// architecture index); other spaces in lexicographic order of edges and choices.
    ///
    /// # Errors
    /// [`SpaceError::TooMany`] if there are more than 10⁷.
    pub fn enumerate(&self) -> Result<impl Iterator<Item = Genotype> + '_, SpaceError> {
        let size = self.size();
        if size > ENUMERATION_LIMIT {
            return Err(SpaceError::TooMany { space: self.name.clone(), size, limit: ENUMERATION_LIMIT });
        }
        let count = size as usize;
        let order = match self.skeleton {
            Skeleton::Nas201(_) => nas201::official_order(count),
            _ => (0..count).collect(),
        };
        Ok(order.into_iter().map(|index| self.at(index)))
    }

    /// The genotype at a lexicographic index; the last node runs fastest.
    fn at(&self, mut index: usize) -> Genotype {
        let mut blocks: Vec<BlockGenotype> = Vec::with_capacity(self.blocks.len());
        for block in self.blocks.iter().rev() {
            let mut nodes = Vec::with_capacity(block.nodes.len());
            for node in block.nodes.iter().rev() {
                let count = self.node_choices(node) as usize;
                nodes.push(self.node_at(node, index % count));
                index /= count;
            }
            nodes.reverse();
            blocks.push(BlockGenotype { name: block.name.clone(), nodes });
        }
        blocks.reverse();
        Genotype { blocks }
    }

    /// The kept edges of a node at a lexicographic index: sets of edges first, then choices.
    fn node_at(&self, node: &NodeSpec, mut index: usize) -> Vec<Pick> {
        for edges in subsets(node.edges.len(), node.keep) {
            let choices: Vec<_> =
                edges.iter().map(|&edge| self.deployable_choices(&node.edges[edge])).collect();
            let count: usize = choices.iter().map(Vec::len).product();
            if index < count {
                let mut picks: Vec<Pick> = Vec::with_capacity(edges.len());
                for (&edge, choices) in edges.iter().zip(&choices).rev() {
                    let choice = choices[index % choices.len()].to_owned();
                    picks.push(Pick { from: node.edges[edge].from, choice });
                    index /= choices.len();
                }
                picks.reverse();
                return picks;
            }
            index -= count;
        }
        Vec::new()
    }

    /// Number of ways to fill a node: the sum over sets of kept edges of the product of their
    /// numbers of choices (an elementary symmetric polynomial).
    fn node_choices(&self, node: &NodeSpec) -> f64 {
        let mut ways = vec![0.0; node.keep + 1];
        ways[0] = 1.0;
        for edge in &node.edges {
            let choices = self.deployable_choices(edge).len() as f64;
            for kept in (1..=node.keep).rev() {
                ways[kept] += ways[kept - 1] * choices;
            }
        }
        ways[node.keep]
    }
}

/// All sets of `keep` of `len` positions, in lexicographic order.
fn subsets(len: usize, keep: usize) -> Vec<Vec<usize>> {
    if keep == 0 {
        return vec![Vec::new()];
    }
    let mut sets = Vec::new();
    for last in keep..=len {
        // Sets whose largest member is `last - 1`.
        for mut set in subsets(last - 1, keep - 1) {
            set.push(last - 1);
            sets.push(set);
        }
    }
    sets.sort();
    sets
}
