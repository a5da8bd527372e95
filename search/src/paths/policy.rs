//! A distribution over networks: independent choices, each with its logits.

use std::collections::BTreeMap;

use lathe_spaces::{BlockGenotype, Genotype, Pick, Space};
use rand::{Rng, RngExt as _};

use crate::{Scores, scores::softmax};

/// Share of the old baseline that is kept, and decay of Adam's second moment; there is no first one (`TuNAS`).
const MOMENTUM: f64 = 0.95;
const DECAY: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// By how much the rate rises from the end of the warm-up to the end (`TuNAS`).
const RISE: f64 = 10.0;

/// What a drawn network's values under its limits take off its reward, which is quality − w · Σ |value / limit − 1|:
/// `TuNAS`' absolute reward (Bender et al. 2020, section 3), one term per limit. `ratios`: value / limit.
pub(super) fn distance(weight: f64, ratios: impl Iterator<Item = f64>) -> f64 {
    weight * ratios.map(|ratio| (ratio - 1.0).abs()).sum::<f64>()
}

/// Step size of the policy: `first` when it begins to move (`progress` 0), ten times that at the end (1), rising
/// exponentially (`TuNAS`).
pub(super) fn rate(first: f64, progress: f64) -> f64 {
    first * RISE.powf(progress)
}

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
    /// Running mean of what is taken off them for limits.
    pub distance: f64,
}

/// What a step of the policy knows of a drawn network.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Quality.
    pub quality: f64,
    /// What its distance to its limits takes off the reward.
    pub distance: f64,
    /// Per node that was mixed: gradient of the loss in the logits of its choices.
    pub mixed: BTreeMap<usize, Vec<f64>>,
}

impl Policy {
    /// Without preferences.
    pub fn new(space: &Space) -> Self {
        let nodes = space.blocks.iter().flat_map(|block| &block.nodes);
        let logits: Vec<Vec<f64>> = nodes.map(|node| vec![0.0; node.edges[0].choices.len()]).collect();
        Self { squares: logits.clone(), logits, steps: 0.0, baseline: 0.0, distance: 0.0 }
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
    /// that the network doesn't have (behind a stage's depth) rest. Where blocks were mixed, the loss takes the place
    /// of the quality.
    pub fn learn(&mut self, space: &Space, genotype: &Genotype, outcome: &Outcome, rate: f64) {
        let reward = outcome.quality - outcome.distance;
        let begun = self.steps > 0.0;
        let follow = |mean: &mut f64, value: f64| {
            let before = if begun { *mean } else { value };
            *mean = MOMENTUM * before + (1.0 - MOMENTUM) * value;
            value - before
        };
        let advantage = follow(&mut self.baseline, reward);
        let nearer = -follow(&mut self.distance, outcome.distance);
        self.steps += 1.0;
        let correction = 1.0 - DECAY.powf(self.steps);
        for (place, (block, node, choice)) in chosen(space, genotype).into_iter().enumerate() {
            let active = space.is_active(&genotype.blocks[block], node);
            let shares = softmax(&self.logits[place]);
            let mixed = outcome.mixed.get(&place);
            for (index, share) in shares.into_iter().enumerate() {
                let score = f64::from(u8::from(index == choice)) - share;
                let gradient = match mixed {
                    _ if !active => 0.0,
                    Some(loss) => nearer * score - loss[index],
                    None => advantage * score,
                };
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
    fn rewards_and_rates_are_those_of_tunas() {
        // Twice a limit and half of another: 0.1 · (1 + 0.5). Below a limit costs as much as above.
        assert!((distance(0.1, [2.0, 0.5].into_iter()) - 0.15).abs() < 1e-12);
        assert!((distance(0.1, [0.9].into_iter()) - distance(0.1, [1.1].into_iter())).abs() < 1e-12);
        assert!(distance(0.1, std::iter::empty()).abs() < 1e-12);
        for (progress, expected) in [(0.0, 3e-4), (0.5, 3e-4 * 10.0_f64.sqrt()), (1.0, 3e-3)] {
            assert!((rate(3e-4, progress) - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn the_policy_finds_what_is_rewarded_and_leaves_what_waits() {
        let space = Space::named("sesr").unwrap().unwrap();
        let mut policy = Policy::new(&space);
        let mut random = Stream::new(1, "test policy", 0);
        // The shallowest body is rewarded: position 2 and those behind it are never part of the network then.
        for _ in 0..600 {
            let drawn = policy.draw(&space, &mut random);
            let depth: usize = drawn.blocks[1].nodes[2][0].choice[1..].parse().unwrap();
            let outcome = Outcome { quality: 1.0 / depth as f64, ..Outcome::default() };
            policy.learn(&space, &drawn, &outcome, 0.05);
        }
        let found = policy.likeliest(&space);
        assert_eq!(found.blocks[1].nodes[2][0].choice, "d1");
        assert!(space.validate(&found).is_ok());
        // Nodes of the body: width, stride, depth, entry, then eleven positions.
        let last = policy.logits.len() - 1;
        let moved = |place: usize| policy.logits[place].iter().map(|logit| logit.abs()).sum::<f64>();
        assert!(moved(last) < moved(last - 12), "{} {}", moved(last), moved(last - 12));
    }

    #[test]
    fn mixed_places_follow_the_loss_and_the_limits_and_not_the_quality() {
        let space = Space::named("sesr").unwrap().unwrap();
        let mut policy = Policy::new(&space);
        let place = 4;
        let count = policy.logits[place].len();
        let mut random = Stream::new(2, "test policy", 0);
        for _ in 0..400 {
            let drawn = policy.draw(&space, &mut random);
            let choice = chosen(&space, &drawn)[place].2;
            // The loss falls with the share of choice 1; quality says the same of choice 0, and must not be heard.
            let mut loss = vec![0.0; count];
            loss[1] = -0.3;
            let mixed = BTreeMap::from([(place, loss)]);
            let outcome = Outcome { quality: f64::from(u8::from(choice == 0)), distance: 0.0, mixed };
            policy.learn(&space, &drawn, &outcome, 0.02);
        }
        assert!(policy.logits[place][1] > policy.logits[place][0] + 1.0, "{:?}", policy.logits[place]);
        // The limits are heard there.
        let mut policy = Policy::new(&space);
        for _ in 0..600 {
            let drawn = policy.draw(&space, &mut random);
            let far = if chosen(&space, &drawn)[place].2 == 2 { 0.0 } else { 0.5 };
            let mixed = BTreeMap::from([(place, vec![0.0; count])]);
            policy.learn(&space, &drawn, &Outcome { quality: 0.0, distance: far, mixed }, 0.05);
        }
        assert_eq!(chosen(&space, &policy.likeliest(&space))[place].2, 2);
    }
}
