//! A distribution over networks: independent choices, each with its logits.

use lathe_spaces::{BlockGenotype, Genotype, Pick, Space};
use rand::{Rng, RngExt as _};

use crate::{Scores, scores::softmax};

/// Share of the old baseline that is kept, and decay of Adam's second moment; there is no first one (`TuNAS`).
const MOMENTUM: f64 = 0.95;
const DECAY: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Logits of every choice of a space of elastic stages, whose nodes have one edge each, and how they move.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Policy {
    /// Per node, block by block.
    pub logits: Vec<Vec<f64>>,
    /// Second moments of their gradients.
    pub squares: Vec<Vec<f64>>,
    /// Steps, running mean of rewards.
    pub steps: f64,
    pub baseline: f64,
}

impl Policy {
    /// Without preferences.
    pub fn new(space: &Space) -> Self {
        let nodes = space.blocks.iter().flat_map(|block| &block.nodes);
        let logits: Vec<Vec<f64>> = nodes.map(|node| vec![0.0; node.edges[0].choices.len()]).collect();
        Self { squares: logits.clone(), logits, steps: 0.0, baseline: 0.0 }
    }

    /// The logits; there is nothing to choose among edges.
    pub fn scores(&self) -> Scores {
        Scores { alpha: self.logits.clone(), beta: vec![0.0; self.logits.len()] }
    }

    /// A network drawn from it.
    pub fn draw(&self, space: &Space, random: &mut impl Rng) -> Genotype {
        by_node(space, |node| {
            let mut rest: f64 = random.random();
            let shares = softmax(&self.logits[node]);
            let found = shares.iter().position(|share| {
                rest -= share;
                rest < 0.0
            });
            found.unwrap_or(shares.len() - 1)
        })
    }

    /// The network of the likeliest choices; of equals the first.
    pub fn likeliest(&self, space: &Space) -> Genotype {
        by_node(space, |node| {
            let logits = &self.logits[node];
            (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or_default()
        })
    }

    /// A step of Adam up the gradient of log p(genotype) times the reward's distance to the running mean. Choices
    /// that the network doesn't have (behind a stage's depth) rest.
    pub fn learn(&mut self, space: &Space, genotype: &Genotype, reward: f64, rate: f64) {
        let advantage = if self.steps > 0.0 { reward - self.baseline } else { 0.0 };
        self.baseline =
            if self.steps > 0.0 { MOMENTUM * self.baseline + (1.0 - MOMENTUM) * reward } else { reward };
        self.steps += 1.0;
        let correction = 1.0 - DECAY.powf(self.steps);
        for (place, (block, node, choice)) in chosen(space, genotype).into_iter().enumerate() {
            let active = space.is_active(&genotype.blocks[block], node);
            let shares = softmax(&self.logits[place]);
            for (index, share) in shares.into_iter().enumerate() {
                let gradient =
                    if active { advantage * (f64::from(u8::from(index == choice)) - share) } else { 0.0 };
                let square = &mut self.squares[place][index];
                *square = DECAY * *square + (1.0 - DECAY) * gradient * gradient;
                self.logits[place][index] += rate * gradient / ((*square / correction).sqrt() + EPSILON);
            }
        }
    }
}

/// Block, node and choice of every node.
pub(super) fn chosen(space: &Space, genotype: &Genotype) -> Vec<(usize, usize, usize)> {
    let mut found = Vec::new();
    for (block, spec) in space.blocks.iter().enumerate() {
        for (node, spec) in spec.nodes.iter().enumerate() {
            let pick = &genotype.blocks[block].nodes[node][0].choice;
            let choice = spec.edges[0].choices.iter().position(|choice| choice == pick);
            found.push((block, node, choice.unwrap_or_default()));
        }
    }
    found
}

/// A genotype from one choice per node.
pub(super) fn by_node(space: &Space, mut choose: impl FnMut(usize) -> usize) -> Genotype {
    let mut place = 0;
    let blocks = space.blocks.iter().map(|block| BlockGenotype {
        name: block.name.clone(),
        nodes: block
            .nodes
            .iter()
            .map(|node| {
                let edge = &node.edges[0];
                let choice = edge.choices[choose(place)].clone();
                place += 1;
                vec![Pick { from: edge.from, choice }]
            })
            .collect(),
    });
    Genotype { blocks: blocks.collect() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_spaces::Stream;

    use super::*;

    #[test]
    fn the_policy_finds_what_is_rewarded_and_leaves_what_waits() {
        let space = Space::named("sesr").unwrap().unwrap();
        let mut policy = Policy::new(&space);
        let mut random = Stream::new(1, "test policy", 0);
        // The shallowest body is rewarded: position 2 and those behind it are never part of the network then.
        for _ in 0..600 {
            let drawn = policy.draw(&space, &mut random);
            let depth: usize = drawn.blocks[1].nodes[2][0].choice[1..].parse().unwrap();
            policy.learn(&space, &drawn, 1.0 / depth as f64, 0.05);
        }
        let found = policy.likeliest(&space);
        assert_eq!(found.blocks[1].nodes[2][0].choice, "d1");
        assert!(space.validate(&found).is_ok());
        // Nodes of the body: width, stride, depth, entry, then eleven positions.
        let last = policy.logits.len() - 1;
        let moved = |place: usize| policy.logits[place].iter().map(|logit| logit.abs()).sum::<f64>();
        assert!(moved(last) < moved(last - 12), "{} {}", moved(last), moved(last - 12));
    }
}
