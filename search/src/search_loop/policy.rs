//! `TuNAS`' search (Bender et al. 2020): α and β are the logits of a policy that draws whole networks, and move
//! by REINFORCE (Williams 1992) on accuracy − w · Σ |value / target − 1|.
//!
//! Differences from the paper: edges are drawn too, without replacement, by their β; the weights of all
//! operations are shared with the supernet, whose softmaxes are made (almost) one-hot for a drawn network, so a
//! step costs what any step of this supernet costs.

use lathe_spaces::{Genotype, Space, Stream};
use rand::{Rng, RngExt as _};
use tch::{Kind, Tensor};

use super::{SearchError, run::Run};
use crate::{
    Batch, Scores, SearchSettings,
    derive::{Kept, genotype, kept_of},
    optimizer::{flatten, gradients},
    scores::{NodeSlots, deployable_columns, node_slots, softmax},
    supernet::{Architecture, Learn},
};

/// Share of the old baseline that is kept.
const MOMENTUM: f64 = 0.95;
/// Decay of Adam's moments: the gradient of a draw is far too noisy for a first one.
pub(super) const BETAS: [f64; 2] = [0.0, 0.999];
/// Networks drawn per step for a regressor.
const DRAWS: usize = 8;
/// Networks drawn for the record of an epoch: nothing is differentiated, and noise would look like a bias.
const DRAWS_OF_RECORD: usize = 256;
/// Logit of what a network has over what it has not: a share of e⁻³⁰ of the rest is nothing in 32 bits.
const CERTAIN: f64 = 30.0;

/// A drawn network: kept edges per node, in the order in which they were drawn.
#[derive(Debug)]
pub(super) struct Drawn(Vec<Vec<Kept>>);

impl Drawn {
    /// Draws a network: per node its edges one after the other with probability softmax(β) over those that are
    /// left, on each a deployable choice with probability softmax(α).
    pub fn new(space: &Space, scores: &Scores, random: &mut impl Rng) -> Self {
        let columns = deployable_columns(space);
        let node = |node: NodeSlots| {
            let mut left: Vec<usize> = node.slots.clone().collect();
            let mut kept = Vec::new();
            // A node that keeps all its edges (each of NAS-Bench-201) has nothing to draw.
            let all = node.keep >= node.slots.len();
            while kept.len() < node.keep.min(node.slots.len()) {
                let logits: Vec<f64> = left.iter().map(|&slot| scores.beta[slot]).collect();
                let slot = left.remove(if all { 0 } else { pick(&softmax(&logits), random) });
                let logits: Vec<f64> =
                    columns[slot].iter().map(|&choice| scores.alpha[slot][choice]).collect();
                kept.push(Kept { slot, choice: columns[slot][pick(&softmax(&logits), random)] });
            }
            kept
        };
        Self(node_slots(space).into_iter().map(node).collect())
    }

    /// This very network.
    pub fn of(space: &Space, genotype: &Genotype) -> Self {
        let kept = kept_of(space, genotype);
        let node =
            |node: NodeSlots| kept.iter().filter(|kept| node.slots.contains(&kept.slot)).copied().collect();
        Self(node_slots(space).into_iter().map(node).collect())
    }

    /// As a genotype.
    pub fn genotype(&self, space: &Space) -> Genotype {
        let sorted = |kept: &Vec<Kept>| {
            let mut kept = kept.clone();
            kept.sort_by_key(|kept| kept.slot);
            kept
        };
        genotype(space, &self.0.iter().map(sorted).collect::<Vec<_>>())
    }

    /// Logits under which the supernet computes this network: kept edges share a node evenly.
    pub fn scores(&self, space: &Space) -> Scores {
        let mut scores = Scores::uniform(space);
        for kept in self.0.iter().flatten() {
            scores.alpha[kept.slot][kept.choice] = CERTAIN;
            scores.beta[kept.slot] = CERTAIN;
        }
        scores
    }

    /// Logarithm of the probability of this very draw. `alpha`: logits per slot; `beta`: logits per node.
    fn log_probability(&self, space: &Space, alpha: &[Tensor], beta: &[Tensor]) -> Tensor {
        let columns = deployable_columns(space);
        let mut total = Tensor::from(0.0f64);
        for ((node, kept), beta) in node_slots(space).into_iter().zip(&self.0).zip(beta) {
            let mut left: Vec<usize> = node.slots.clone().collect();
            for kept in kept {
                if node.keep < node.slots.len() {
                    let edges = left.iter().map(|&slot| (slot - node.slots.start) as i64).collect::<Vec<_>>();
                    total += log_share(beta, &edges, left.iter().position(|&slot| slot == kept.slot));
                }
                let choices = columns[kept.slot].iter().map(|&choice| choice as i64).collect::<Vec<_>>();
                let place = columns[kept.slot].iter().position(|&choice| choice == kept.choice);
                total += log_share(&alpha[kept.slot], &choices, place);
                left.retain(|&slot| slot != kept.slot);
            }
        }
        total
    }
}

/// log softmax of the logits at `indices`, at one of their places.
fn log_share(logits: &Tensor, indices: &[i64], place: Option<usize>) -> Tensor {
    let logits = logits.to_kind(Kind::Double).index_select(0, &Tensor::from_slice(indices));
    logits.log_softmax(-1, Kind::Double).get(place.unwrap_or_default() as i64)
}

/// An index by its share.
fn pick(shares: &[f64], random: &mut impl Rng) -> usize {
    let mut rest: f64 = random.random();
    for (index, share) in shares.iter().enumerate() {
        rest -= share;
        if rest < 0.0 {
            return index;
        }
    }
    shares.len() - 1
}

impl Run<'_> {
    /// The network of this step: of one purpose the same one whatever came between.
    pub(super) fn draw(&self, purpose: &str, scores: &Scores, steps: usize) -> Drawn {
        let index = (self.position.epoch * steps + self.position.step) as u64;
        Drawn::new(self.task.space, scores, &mut Stream::new(self.task.seed, purpose, index))
    }

    /// The supernet's shares for a drawn network.
    pub(super) fn only(&self, drawn: &Drawn) -> Result<Architecture, SearchError> {
        let mut only = Architecture::of(self.task.space, &drawn.scores(self.task.space))?;
        only.move_to(self.model.device());
        Ok(only)
    }

    /// What drawn networks take beyond the sum of their parts, in the mean: its value, with the gradient of the score
    /// function with respect to α and β, each draw measured against the mean of the others. The draws are those of
    /// the policy with logits α/t and β/t.
    pub(super) fn beyond(&self) -> Option<Tensor> {
        let (regressor, held) = self.regressor.as_ref().zip(self.held.as_ref())?;
        let (space, limit) = (self.task.space, &held.limits[0]);
        let temperature = self.schedule.temperature(self.position.epoch);
        let scores = self.tempered(temperature);
        let (alpha, beta) = self.architecture.rows();
        let [alpha, beta] = [alpha, beta].map(|rows| {
            rows.into_iter().map(|row| row.to_kind(Kind::Double) / temperature).collect::<Vec<Tensor>>()
        });
        let steps = self.halves[0].len().div_ceil(self.task.settings.batch);
        let step = (self.position.epoch * steps + self.position.step) as u64;
        let mut random = Stream::new(self.task.seed, "regressor", step);
        let draws: Vec<Drawn> = (0..DRAWS).map(|_| Drawn::new(space, &scores, &mut random)).collect();
        let values: Vec<f64> =
            draws.iter().map(|drawn| regressor.beyond(space, limit, &drawn.genotype(space))).collect();
        let mean = values.iter().sum::<f64>() / DRAWS as f64;
        let mut total = Tensor::from(mean);
        for (drawn, value) in draws.iter().zip(&values) {
            let log = drawn.log_probability(space, &alpha, &beta);
            let without = &log - log.detach();
            // (v − mean of the others) / n = (v − mean) / (n − 1).
            total += without * ((value - mean) / (DRAWS - 1) as f64);
        }
        Some(total)
    }

    /// Logits α/t and β/t.
    fn tempered(&self, temperature: f64) -> Scores {
        let mut scores = self.architecture.scores();
        let logits = scores.alpha.iter_mut().flatten().chain(&mut scores.beta);
        logits.for_each(|logit| *logit /= temperature);
        scores
    }

    /// What a regressor adds to the prediction of a network under the first limit, in the limit's unit; 0 without one.
    pub(super) fn beyond_of(&self, genotype: &Genotype) -> f64 {
        let both = self.regressor.as_ref().zip(self.held.as_ref());
        both.map_or(0.0, |(regressor, held)| regressor.beyond(self.task.space, &held.limits[0], genotype))
    }

    /// What [`Run::beyond`] estimates, at the end of an epoch and by more draws; 0 without a regressor.
    pub(super) fn expected_beyond(&self) -> f64 {
        if self.regressor.is_none() {
            return 0.0;
        }
        let scores = self.tempered(self.schedule.temperature(self.position.epoch));
        let mut random = Stream::new(self.task.seed, "regressor of an epoch", self.position.epoch as u64);
        let draws = (0..DRAWS_OF_RECORD).map(|_| {
            self.beyond_of(&Drawn::new(self.task.space, &scores, &mut random).genotype(self.task.space))
        });
        draws.sum::<f64>() / DRAWS_OF_RECORD as f64
    }

    /// Moves α and β towards networks whose reward is above the running mean of rewards.
    pub(super) fn policy_step(&mut self, batch: &Batch, steps: usize) -> Result<(), SearchError> {
        let task = self.task;
        let drawn = self.draw("policy", &self.architecture.scores(), steps);
        let pass = self.model.forward(&batch.images, &self.only(&drawn)?, Learn::Nothing, true)?;
        let (value, right) = self.quality(&pass, batch)?;
        self.finite("architecture", value)?;
        let accuracy = right / batch.whole as f64;
        let genotype = drawn.genotype(task.space);
        let distance = self.held.as_ref().map_or(0.0, |held| held.distance(task.space, &genotype));
        let reward = accuracy - task.objective.weight * distance;
        let [baseline, rewards] = [0, 1].map(|index| self.baseline.double_value(&[index]));
        let advantage = if rewards > 0.0 { reward - baseline } else { 0.0 };
        let after = if rewards > 0.0 { MOMENTUM * baseline + (1.0 - MOMENTUM) * reward } else { reward };
        self.baseline = Tensor::from_slice(&[after, rewards + 1.0]);

        let (alpha, beta) = self.architecture.rows();
        let loss = drawn.log_probability(task.space, &alpha, &beta) * -advantage;
        let leaves: Vec<&Tensor> = self.architecture.leaves().iter().collect();
        let gradient = flatten(&gradients(&loss, &leaves));
        let SearchSettings { arch_learning_rate, .. } = task.settings;
        self.adam.step(&mut self.architecture.flat, &gradient, arch_learning_rate, 0.0);
        self.count(value, right, batch.whole);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{Limit, fixtures, objective::inclusion, optimizer::Adam};

    fn leaves(space: &Space, scores: &Scores) -> (Vec<Tensor>, Vec<Tensor>) {
        let leaf = |logits: &[f64]| Tensor::from_slice(logits).set_requires_grad(true);
        let alpha = scores.alpha.iter().map(|logits| leaf(logits)).collect();
        (alpha, node_slots(space).into_iter().map(|node| leaf(&scores.beta[node.slots])).collect())
    }

    #[test]
    fn edges_are_drawn_as_often_as_gumbel_top_k_keeps_them() {
        let space = fixtures::small();
        let scores = fixtures::scores(&space, 1.5, 3);
        let mut random = Stream::new(5, "test policy", 0);
        let draws = 20_000;
        let mut counts = vec![0usize; scores.beta.len()];
        for _ in 0..draws {
            let drawn = Drawn::new(&space, &scores, &mut random);
            drawn.0.iter().flatten().for_each(|kept| counts[kept.slot] += 1);
        }
        for node in node_slots(&space) {
            let expected = inclusion(&scores.beta[node.slots.clone()], node.keep);
            for (slot, expected) in node.slots.zip(expected) {
                let share = counts[slot] as f64 / f64::from(draws);
                assert!((share - expected).abs() < 0.015, "slot {slot}: {share}, expected {expected}");
            }
        }
    }

    #[test]
    fn a_drawn_network_is_what_its_logits_derive_to() {
        let space = fixtures::darts();
        for index in 0..20 {
            let mut random = Stream::new(7, "test policy", index);
            let drawn = Drawn::new(&space, &fixtures::scores(&space, 2.0, index), &mut random);
            let genotype = drawn.genotype(&space);
            assert!(space.validate(&genotype).is_ok());
            assert_eq!(crate::derive_unconstrained(&space, &drawn.scores(&space)), genotype);
        }
    }

    #[test]
    fn the_gradient_of_the_score_function_is_that_of_the_expectation() {
        // Mean of reward · ∇ log p over many draws against the derivative of the mean reward by hand.
        let space = fixtures::small();
        let scores = fixtures::scores(&space, 0.5, 1);
        let (alpha, beta) = leaves(&space, &scores);
        let mut random = Stream::new(9, "test policy", 0);
        let mut sum = 0.0;
        let draws = 4000;
        let reward = |drawn: &Drawn| {
            let first = &drawn.0[0];
            f64::from(u8::from(first.iter().any(|kept| kept.slot == 0 && kept.choice == 3)))
        };
        for _ in 0..draws {
            let drawn = Drawn::new(&space, &scores, &mut random);
            let loss = drawn.log_probability(&space, &alpha, &beta) * reward(&drawn);
            sum += gradients(&loss, &[&alpha[0]])[0].double_value(&[3]);
        }
        // Both edges of the first node are kept: P(choice 3 on slot 0) = q, dq/dα = q·(1 − q).
        let q = softmax(&scores.alpha[0][1..])[2];
        let got = sum / f64::from(draws);
        assert!((got - q * (1.0 - q)).abs() < 0.02, "{got}, expected {}", q * (1.0 - q));
    }

    #[test]
    fn reinforce_alone_finds_the_target() {
        // Without accuracy the reward is −|value / target − 1|: the policy must settle near the target.
        let space = fixtures::small();
        let mut limit =
            Limit::latency("l", &space, &fixtures::table(&space, 2), lathe_spaces::Micros(1.0)).unwrap();
        let [least, most] = limit.reachable(&space);
        limit.at_most = (least + 0.25 * (most - least)) * limit.upper_factor;
        let mut architecture = Architecture::new(&space, Kind::Double, 1).unwrap();
        let mut adam = Adam::with(&architecture.flat, BETAS);
        let (mut baseline, mut first, mut last) = (None, 0.0, 0.0);
        for step in 0..800u64 {
            let drawn = Drawn::new(&space, &architecture.scores(), &mut Stream::new(1, "test policy", step));
            let distance = (limit.mean(&space, &drawn.genotype(&space)) / limit.mean_at_most() - 1.0).abs();
            if step < 100 {
                first += distance / 100.0;
            } else if step >= 700 {
                last += distance / 100.0;
            }
            let old = baseline.unwrap_or(-distance);
            let (alpha, beta) = architecture.rows();
            let loss = drawn.log_probability(&space, &alpha, &beta) * (old + distance);
            baseline = Some(MOMENTUM * old - (1.0 - MOMENTUM) * distance);
            let leaves: Vec<&Tensor> = architecture.leaves().iter().collect();
            let gradient = flatten(&gradients(&loss, &leaves));
            adam.step(&mut architecture.flat, &gradient, 0.05, 0.0);
        }
        assert!(last < 0.5 * first, "mean distance {first} at first, {last} at last");
    }
}
