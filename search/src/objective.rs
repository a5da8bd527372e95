//! Expected latency of the network that a relaxation stands for, in closed form.
//!
//! A cell keeps `keep` edges per node, so a sum weighted with softmax(β), whose weights add up to one,
//! counts less than half of what is deployed. Here every edge counts with the probability that it is
//! kept when edges are drawn by Gumbel-top-k with logits log(s)/t, and every choice with its share
//! among those that can be deployed. Latency is additive over slots, so this expectation is exact.

use lathe_latency_db::CostTable;
use lathe_spaces::{Micros, Space, SpaceError, Workload};
use serde::{Deserialize, Serialize};

use crate::scores::{Scores, deployable_columns, log_softmax, node_slots, softmax};

/// What the parts of a space's networks cost, in a unit that adds up (microseconds, operations, values):
/// dense rows in the order of the space's slots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// What every network has.
    pub fixed: f64,
    /// Per slot and choice, over all copies of the block. Choices that are never deployed cost nothing;
    /// one whose cost is not known is NaN.
    pub choices: Vec<Vec<f64>>,
}

impl Costs {
    /// Looks up every choice of every slot in a table of latencies, in microseconds.
    pub(crate) fn new(space: &Space, table: &CostTable) -> Self {
        let choices = space
            .slots()
            .into_iter()
            .map(|slot| {
                let cost = |choice: &String| {
                    if space.relaxation_only.contains(choice) {
                        0.0
                    } else {
                        table.cost(slot, choice).map_or(f64::NAN, |cost| cost.0)
                    }
                };
                space.edge(slot).choices.iter().map(cost).collect()
            })
            .collect();
        Self { fixed: table.fixed.0, choices }
    }

    /// Adds up what `count` says of every part of a space's networks: exact for multiply-accumulates and
    /// parameters, because fixed parts and choices add up to the whole network.
    pub(crate) fn counted(space: &Space, count: impl Fn(&Workload) -> u64) -> Result<Self, SpaceError> {
        let total = |parts: Vec<Workload>| parts.iter().map(&count).sum::<u64>() as f64;
        let mut choices = Vec::new();
        for slot in space.slots() {
            let cost = |choice: &String| {
                if space.relaxation_only.contains(choice) {
                    Ok(0.0)
                } else {
                    space.instances(slot, choice).map(total)
                }
            };
            choices.push(space.edge(slot).choices.iter().map(cost).collect::<Result<_, _>>()?);
        }
        Ok(Self { fixed: total(space.fixed()?), choices })
    }

    /// Smallest and largest sum of any network of the space. Exact: every node keeps its cheapest (dearest)
    /// edges, each with its cheapest (dearest) choice.
    pub(crate) fn reachable(&self, space: &Space) -> [f64; 2] {
        let columns = deployable_columns(space);
        let mut range = [self.fixed; 2];
        for node in node_slots(space) {
            for (end, sign) in range.iter_mut().zip([1.0, -1.0]) {
                let best = |slot: usize| {
                    let row = columns[slot].iter().map(|&choice| sign * self.choices[slot][choice]);
                    row.fold(f64::INFINITY, f64::min)
                };
                let mut edges: Vec<f64> = node.slots.clone().map(best).collect();
                edges.sort_by(f64::total_cmp);
                *end += sign * edges.iter().take(node.keep).sum::<f64>();
            }
        }
        range
    }

    /// The first slot and choice without a finite cost.
    pub(crate) fn missing(&self) -> Option<(usize, usize)> {
        self.choices.iter().enumerate().find_map(|(slot, row)| {
            row.iter().position(|cost| !cost.is_finite()).map(|choice| (slot, choice))
        })
    }
}

/// Expected latency of the derived network under Gumbel-top-k sampling at a temperature above zero:
/// the fixed part plus Σ over slots of π · Σ over deployable choices of q · cost.
///
/// - s = softmax(β) over the node's edges · the largest deployable entry of softmax(α) of the edge,
/// - π = probability that the edge is kept when `keep` edges are drawn without replacement with
///   weights s^(1/temperature),
/// - q = softmax over the deployable logits of α / temperature.
///
/// The result is NaN if the table lacks a deployable choice of the space.
///
/// # Panics
/// If the scores don't fit the space; see [`Scores::check`].
pub fn expected_latency(space: &Space, scores: &Scores, table: &CostTable, temperature: f64) -> Micros {
    Micros(expected(space, scores, &Costs::new(space, table), temperature))
}

/// [`expected_latency`] with the costs already looked up, in microseconds.
pub(crate) fn expected(space: &Space, scores: &Scores, costs: &Costs, temperature: f64) -> f64 {
    let columns = deployable_columns(space);
    let mut total = costs.fixed;
    for node in node_slots(space) {
        let kept =
            inclusion(&tempered_log_strengths(scores, &columns, node.slots.clone(), temperature), node.keep);
        for (slot, kept) in node.slots.zip(kept) {
            let logits: Vec<f64> =
                columns[slot].iter().map(|&o| scores.alpha[slot][o] / temperature).collect();
            let shares = softmax(&logits);
            let cost: f64 = columns[slot].iter().zip(shares).map(|(&o, q)| q * costs.choices[slot][o]).sum();
            total += kept * cost;
        }
    }
    total
}

/// log(s) / temperature of a node's edges.
fn tempered_log_strengths(
    scores: &Scores,
    columns: &[Vec<usize>],
    slots: std::ops::Range<usize>,
    temperature: f64,
) -> Vec<f64> {
    let log_beta = log_softmax(&scores.beta[slots.clone()]);
    slots
        .zip(log_beta)
        .map(|(slot, log_beta)| {
            let log_alpha = log_softmax(&scores.alpha[slot]);
            let strongest = columns[slot].iter().map(|&o| log_alpha[o]).fold(f64::NEG_INFINITY, f64::max);
            (log_beta + strongest) / temperature
        })
        .collect()
}

/// Probability of each item to be among `keep` drawn without replacement, the next one always with
/// probability softmax over those that are left. For `keep` = 2:
/// `π_e = p_e + Σ_{j≠e} p_j · softmax_{k≠j}(logits)_e`.
///
/// The softmax over the rest is taken anew and not as `p_e / (1 − p_j)`, which is 0/0 for `p_j` → 1.
/// The work grows with n!/(n − keep)!: nodes have a handful of edges.
pub(crate) fn inclusion(logits: &[f64], keep: usize) -> Vec<f64> {
    if keep >= logits.len() {
        return vec![1.0; logits.len()];
    }
    if keep == 0 {
        return vec![0.0; logits.len()];
    }
    let first = softmax(logits);
    let mut kept = first.clone();
    if keep > 1 {
        for (drawn, probability) in first.iter().enumerate() {
            let rest: Vec<usize> = (0..logits.len()).filter(|&item| item != drawn).collect();
            let rest_logits: Vec<f64> = rest.iter().map(|&item| logits[item]).collect();
            for (item, share) in rest.into_iter().zip(inclusion(&rest_logits, keep - 1)) {
                kept[item] += probability * share;
            }
        }
    }
    kept
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::float_cmp, reason = "tests")]
mod tests {
    use lathe_spaces::{Nas201Skeleton, Stream};
    use rand::RngExt as _;

    use super::*;
    use crate::{derive_unconstrained, fixtures};

    /// Share of draws in which each item is among the two with the largest logit + Gumbel noise.
    fn drawn(logits: &[f64], keep: usize, draws: usize, seed: u64) -> Vec<f64> {
        let mut random = Stream::new(seed, "test gumbel", 0);
        let mut counts = vec![0usize; logits.len()];
        for _ in 0..draws {
            let mut noisy: Vec<(f64, usize)> = logits
                .iter()
                .enumerate()
                .map(|(item, logit)| (logit - (-(1.0 - random.random::<f64>()).ln()).ln(), item))
                .collect();
            noisy.sort_by(|a, b| b.0.total_cmp(&a.0));
            noisy.iter().take(keep).for_each(|&(_, item)| counts[item] += 1);
        }
        counts.into_iter().map(|count| count as f64 / draws as f64).collect()
    }

    #[test]
    fn inclusion_is_what_gumbel_top_k_draws() {
        for (seed, logits) in [vec![0.3, -1.0, 2.0], vec![-0.5, 0.1, 1.4, 0.9, -2.0]].into_iter().enumerate()
        {
            for keep in [1, 2, 3] {
                let exact = inclusion(&logits, keep);
                let sampled = drawn(&logits, keep, 60_000, seed as u64);
                assert!((exact.iter().sum::<f64>() - keep as f64).abs() < 1e-12);
                for (exact, sampled) in exact.iter().zip(&sampled) {
                    assert!((exact - sampled).abs() < 1e-2, "keep {keep}: {exact} against {sampled} drawn");
                }
            }
        }
    }

    #[test]
    fn inclusion_survives_a_certain_winner() {
        // p of the first is 1 to the last bit; the formula with p/(1 − p) would give 0/0.
        let kept = inclusion(&[900.0, 1.0, 1.0], 2);
        assert_eq!(kept[0], 1.0);
        assert!((kept[1] - 0.5).abs() < 1e-12 && (kept[2] - 0.5).abs() < 1e-12);
        assert_eq!(inclusion(&[3.0, -8.0], 2), [1.0, 1.0]);
    }

    #[test]
    fn two_of_three_by_hand() {
        let weights = [0.5f64, 0.3, 0.2];
        let logits = weights.map(f64::ln);
        let expected = [
            0.5 + 0.3 * 0.5 / 0.7 + 0.2 * 0.5 / 0.8,
            0.3 + 0.5 * 0.3 / 0.5 + 0.2 * 0.3 / 0.8,
            0.2 + 0.5 * 0.2 / 0.5 + 0.3 * 0.2 / 0.7,
        ];
        for (got, expected) in inclusion(&logits, 2).into_iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12);
        }
    }

    /// Σ softmax(β) Σ softmax(α) · cost: what a sum over the relaxation would say.
    fn naive(space: &Space, scores: &Scores, costs: &Costs) -> f64 {
        let snapshots = scores.snapshots(space);
        let alpha = snapshots.iter().flat_map(|snapshot| &snapshot.alpha);
        let beta = snapshots.iter().flat_map(|snapshot| &snapshot.beta);
        let edge = |((alpha, beta), costs): ((&Vec<f64>, &f64), &Vec<f64>)| {
            beta * alpha.iter().zip(costs).map(|(p, cost)| p * cost).sum::<f64>()
        };
        alpha.zip(beta).zip(&costs.choices).map(edge).sum()
    }

    #[test]
    fn the_naive_sum_is_less_than_half_and_this_one_is_what_ships() {
        let space = fixtures::darts();
        for scale in [1.0, 4.0] {
            let (mut naive_ratios, mut ratios) = (Vec::new(), Vec::new());
            for seed in 0..60 {
                let scores = fixtures::scores(&space, scale, seed);
                let mut table = fixtures::table(&space, seed);
                table.fixed = Micros::ZERO;
                let costs = Costs::new(&space, &table);
                let deployed = table.mean(&space, &derive_unconstrained(&space, &scores)).unwrap().0;
                naive_ratios.push(naive(&space, &scores, &costs) / deployed);
                ratios.push(expected_latency(&space, &scores, &table, 0.1).0 / deployed);
            }
            let median = |mut ratios: Vec<f64>| {
                ratios.sort_by(f64::total_cmp);
                ratios[ratios.len() / 2]
            };
            let (naive, exact) = (median(naive_ratios), median(ratios));
            assert!(
                (0.38..0.5).contains(&naive),
                "scale {scale}: naive sum is {naive} of the deployed latency"
            );
            assert!(
                (0.96..1.04).contains(&exact),
                "scale {scale}: expectation is {exact} of the deployed latency"
            );
        }
    }

    #[test]
    fn it_is_exact_where_nothing_is_open() {
        // Logits so far apart that the relaxation is one network.
        let space = fixtures::darts();
        let mut scores = fixtures::scores(&space, 1.0, 4);
        scores.alpha.iter_mut().flatten().chain(&mut scores.beta).for_each(|logit| *logit *= 500.0);
        let table = fixtures::table(&space, 4);
        let deployed = table.mean(&space, &derive_unconstrained(&space, &scores)).unwrap();
        let expected = expected_latency(&space, &scores, &table, 0.1);
        assert!((expected / deployed - 1.0).abs() < 1e-6, "{expected} against {deployed}");
    }

    #[test]
    fn spaces_that_keep_every_edge_count_every_edge() {
        let space = Space::nas201(Nas201Skeleton { width: 16, cells: 1, resolution: 32, classes: 10 });
        let table = fixtures::table(&space, 1);
        let costs = Costs::new(&space, &table);
        let mean: f64 = costs.choices.iter().map(|row| row.iter().sum::<f64>() / row.len() as f64).sum();
        let expected = expected_latency(&space, &Scores::uniform(&space), &table, 1.0);
        assert!((expected.0 - costs.fixed - mean).abs() < 1e-9);
    }

    #[test]
    fn a_missing_cost_is_not_a_number() {
        let space = fixtures::darts();
        let mut table = fixtures::table(&space, 1);
        table.slots[3].choices.remove("sep_conv_3x3");
        assert!(expected_latency(&space, &Scores::uniform(&space), &table, 1.0).0.is_nan());
    }
}
