//! The best network within several limits, found by extending partial networks best first.
//!
//! A* search (Hart, Nilsson & Raphael 1968) over the nodes of a space. The bound of a partial network is the
//! Lagrange dual of the multiple-choice knapsack (Kellerer, Pferschy & Pisinger 2004, chapter 11):
//! score + Σ λ·(what is left of each limit) + Σ over the open nodes of max(score − Σ λ·cost). It is never below
//! what the partial network can come to, for any λ ≥ 0; the λ of a subgradient descent make it tight.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap},
};

use lathe_spaces::Space;

use super::picks::{Kept, subsets};
use crate::{
    limit::Limit,
    scores::{NodeSlots, deployable_columns, node_slots},
};

/// Partial networks that are looked at before the search gives up.
pub(super) const MOST: usize = 1_000_000;
/// Steps of the descent on λ.
const DESCENT: usize = 300;

/// One way to fill a node.
#[derive(Clone, Debug)]
struct Way {
    /// Per limit, as a share of what the limit leaves after the fixed part.
    costs: Vec<f64>,
    score: f64,
    picks: Vec<Kept>,
}

/// What to search.
#[derive(Debug)]
pub(super) struct Problem {
    /// Per node all ways to fill it.
    nodes: Vec<Vec<Way>>,
    limits: usize,
}

/// What was found.
pub(super) enum Found {
    /// Kept edges per node.
    Picks(Vec<Vec<Kept>>),
    /// There is no such network.
    Nothing,
    /// After [`MOST`] partial networks none was found, and some are left.
    Undecided,
}

/// One way to fill the first nodes.
struct Partial {
    /// The one with a node less.
    parent: Option<usize>,
    way: usize,
    costs: Vec<f64>,
    score: f64,
}

/// A partial network that waits, best bound first, of equal ones the longest, then the oldest.
struct Waiting {
    bound: f64,
    level: usize,
    partial: usize,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        let bounds = self.bound.total_cmp(&other.bound);
        bounds.then(self.level.cmp(&other.level)).then(other.partial.cmp(&self.partial))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl Problem {
    /// All ways to fill every node of the space.
    pub fn new(space: &Space, strengths: &[Vec<f64>], limits: &[Limit]) -> Self {
        let columns = deployable_columns(space);
        // A limit below the fixed part is never kept; the scale then only needs a sign.
        let scale = |limit: &Limit| {
            let left = limit.mean_at_most() - limit.costs.fixed;
            if left.abs() > f64::MIN_POSITIVE { left.abs() } else { 1.0 }
        };
        let scales: Vec<f64> = limits.iter().map(scale).collect();
        let ways = |node: &NodeSlots| {
            let mut ways = Vec::new();
            for slots in subsets(&node.slots.clone().collect::<Vec<_>>(), node.keep.min(node.slots.len())) {
                let empty = Way { costs: vec![0.0; limits.len()], score: 0.0, picks: Vec::new() };
                let mut filled = vec![empty];
                for slot in slots {
                    let longer = |way: &Way, choice: usize| {
                        let mut way = way.clone();
                        for ((cost, limit), scale) in way.costs.iter_mut().zip(limits).zip(&scales) {
                            *cost += limit.costs.choices[slot][choice] / scale;
                        }
                        way.score += strengths[slot][choice];
                        way.picks.push(Kept { slot, choice });
                        way
                    };
                    filled = filled
                        .iter()
                        .flat_map(|way| columns[slot].iter().map(move |&choice| longer(way, choice)))
                        .collect();
                }
                ways.append(&mut filled);
            }
            ways
        };
        Self { nodes: node_slots(space).iter().map(ways).collect(), limits: limits.len() }
    }

    /// The network whose largest share of any limit is the smallest that a descent finds.
    pub fn closest(&self) -> Vec<Vec<Kept>> {
        let mut weights = vec![1.0; self.limits];
        let mut best: Option<(f64, Vec<usize>)> = None;
        for step in 0..DESCENT {
            let chosen = self.at(&weights, 0.0);
            let costs = self.costs(&chosen);
            let worst = costs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if best.as_ref().is_none_or(|(least, _)| worst < *least) {
                best = Some((worst, chosen));
            }
            // The limit that is broken most gets more weight.
            for (weight, cost) in weights.iter_mut().zip(&costs) {
                *weight *= ((cost - worst) / (1.0 + step as f64).sqrt()).exp();
            }
        }
        self.picks(&best.map_or_else(|| vec![0; self.nodes.len()], |(_, chosen)| chosen))
    }

    /// The best network by score that keeps every limit and that `accept` agrees to. `dominated`: leave out
    /// what another partial network equals or beats in score and every cost, which is right only if `accept`
    /// asks for nothing but the limits.
    pub fn best(&self, dominated: bool, accept: &mut dyn FnMut(&[Vec<Kept>]) -> bool) -> Found {
        let Some(prices) = self.prices() else { return Found::Nothing };
        let value = |way: &Way| way.score - priced(&prices, &way.costs);
        // Per node its ways, the most valuable first.
        let order: Vec<Vec<usize>> = (self.nodes.iter())
            .map(|ways| {
                let mut order: Vec<usize> =
                    if dominated { undominated(ways) } else { (0..ways.len()).collect() };
                order.sort_by(|&a, &b| value(&ways[b]).total_cmp(&value(&ways[a])));
                order
            })
            .collect();
        let count = self.nodes.len();
        // What the nodes from a position on cost at least and are worth at most.
        let mut least = vec![vec![0.0; self.limits]; count + 1];
        let mut worth = vec![0.0; count + 1];
        for node in (0..count).rev() {
            let fold =
                |of: &dyn Fn(&Way) -> f64| self.nodes[node].iter().map(of).fold(f64::INFINITY, f64::min);
            worth[node] = worth[node + 1] - fold(&|way| -value(way));
            least[node] = (0..self.limits).map(|j| least[node + 1][j] + fold(&|way| way.costs[j])).collect();
        }
        let room: f64 = prices.iter().sum();
        let mut partials: Vec<Partial> = Vec::new();
        let mut waiting = BinaryHeap::new();
        let mut seen: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        // The next way at or after `position` of the node after `parent` that can still keep the limits.
        let put = |partials: &mut Vec<Partial>,
                   waiting: &mut BinaryHeap<(Waiting, usize)>,
                   parent: Option<usize>,
                   level: usize,
                   from: usize| {
            for (position, &way) in order[level].iter().enumerate().skip(from) {
                let added = &self.nodes[level][way];
                let (costs, score) = match parent.map(|parent| &partials[parent]) {
                    Some(before) => {
                        let costs = before.costs.iter().zip(&added.costs).map(|(a, b)| a + b).collect();
                        (costs, before.score + added.score)
                    }
                    None => (added.costs.clone(), added.score),
                };
                let costs: Vec<f64> = costs;
                // A hair above the limits: rounding must not hide a network that just fits; `accept` decides.
                if costs.iter().zip(&least[level + 1]).any(|(cost, rest)| cost + rest > 1.0 + 1e-9) {
                    continue;
                }
                let bound = score + room - priced(&prices, &costs) + worth[level + 1];
                partials.push(Partial { parent, way, costs, score });
                let partial = partials.len() - 1;
                waiting.push((Waiting { bound, level, partial }, position));
                return;
            }
        };
        put(&mut partials, &mut waiting, None, 0, 0);
        let mut complete: BinaryHeap<Waiting> = BinaryHeap::new();
        loop {
            // A complete network is the answer once nothing that waits can come to more.
            let ahead = match (complete.peek(), waiting.peek()) {
                (None, None) => return Found::Nothing,
                (Some(done), Some((next, _))) => done.bound >= next.bound,
                (done, _) => done.is_some(),
            };
            if ahead {
                if let Some(done) = complete.pop() {
                    let picks = self.picks(&chain(&partials, done.partial));
                    if accept(&picks) {
                        return Found::Picks(picks);
                    }
                }
                continue;
            }
            if partials.len() > MOST {
                return Found::Undecided;
            }
            let Some((Waiting { level, partial, .. }, position)) = waiting.pop() else { continue };
            let parent = partials[partial].parent;
            put(&mut partials, &mut waiting, parent, level, position + 1);
            if dominated {
                let known = seen.entry(level).or_default();
                let Partial { costs, score, .. } = &partials[partial];
                let beaten = |&other: &usize| {
                    let other = &partials[other];
                    other.score >= *score && other.costs.iter().zip(costs).all(|(a, b)| a <= b)
                };
                if known.iter().any(beaten) {
                    continue;
                }
                known.push(partial);
            }
            if level + 1 == count {
                complete.push(Waiting { bound: partials[partial].score, level, partial });
            } else {
                put(&mut partials, &mut waiting, Some(partial), level + 1, 0);
            }
        }
    }

    /// λ per limit by subgradient descent on the dual, with steps of Polyak's length while a network within
    /// the limits is known; `None` if the dual proves that there is none. Any λ ≥ 0 would do: the result of
    /// the search does not depend on them, its speed does.
    fn prices(&self) -> Option<Vec<f64>> {
        if self.impossible() {
            return None;
        }
        let mut prices = vec![0.0; self.limits];
        let mut best = (f64::INFINITY, prices.clone());
        let mut known: Option<f64> = None;
        for step in 0..DESCENT {
            let chosen = self.at(&prices, 1.0);
            let costs = self.costs(&chosen);
            let score: f64 = chosen.iter().zip(&self.nodes).map(|(&way, ways)| ways[way].score).sum();
            let dual = score + prices.iter().sum::<f64>() - priced(&prices, &costs);
            if dual < best.0 {
                best = (dual, prices.clone());
            }
            if costs.iter().all(|cost| *cost <= 1.0) {
                known = Some(known.map_or(score, |known| known.max(score)));
            }
            // Downhill: the price of what is exceeded rises, that of what is not falls.
            let slope: Vec<f64> = costs.iter().map(|cost| cost - 1.0).collect();
            let norm: f64 = slope.iter().map(|value| value * value).sum();
            if norm < 1e-18 {
                break;
            }
            let gap = known.map_or(1.0 + best.0.abs(), |known| (dual - known).max(0.0));
            let length = gap / norm * if known.is_some() { 1.0 } else { 1.0 / (1.0 + step as f64).sqrt() };
            for (price, slope) in prices.iter_mut().zip(&slope) {
                *price = (*price + length * slope).max(0.0);
            }
        }
        Some(best.1)
    }

    /// Whether a weighted sum of the limits is broken by every network: then no network keeps them all.
    fn impossible(&self) -> bool {
        let mut weights = vec![1.0; self.limits];
        for step in 0..DESCENT {
            let total: f64 = weights.iter().sum();
            for weight in &mut weights {
                *weight /= total;
            }
            let costs = self.costs(&self.at(&weights, 0.0));
            if priced(&weights, &costs) > 1.0 + 1e-9 {
                return true;
            }
            let worst = costs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if worst <= 1.0 {
                return false;
            }
            for (weight, cost) in weights.iter_mut().zip(&costs) {
                *weight *= ((cost - worst) / (1.0 + step as f64).sqrt()).exp();
            }
        }
        false
    }

    /// Per node the way with the largest `score_weight` · score − Σ price · cost, the first among equals.
    fn at(&self, prices: &[f64], score_weight: f64) -> Vec<usize> {
        let best = |ways: &Vec<Way>| {
            let value = |way: &Way| score_weight * way.score - priced(prices, &way.costs);
            let mut best = (0, f64::NEG_INFINITY);
            for (index, way) in ways.iter().enumerate() {
                let value = value(way);
                if value > best.1 {
                    best = (index, value);
                }
            }
            best.0
        };
        self.nodes.iter().map(best).collect()
    }

    fn costs(&self, chosen: &[usize]) -> Vec<f64> {
        let of = |j: usize| chosen.iter().zip(&self.nodes).map(|(&way, ways)| ways[way].costs[j]).sum();
        (0..self.limits).map(of).collect()
    }

    fn picks(&self, chosen: &[usize]) -> Vec<Vec<Kept>> {
        chosen.iter().zip(&self.nodes).map(|(&way, ways)| ways[way].picks.clone()).collect()
    }
}

/// Σ price · cost.
fn priced(prices: &[f64], costs: &[f64]) -> f64 {
    prices.iter().zip(costs).map(|(price, cost)| price * cost).sum()
}

/// Ways of all nodes up to a partial network's last one.
fn chain(partials: &[Partial], last: usize) -> Vec<usize> {
    let mut ways = Vec::new();
    let mut at = Some(last);
    while let Some(index) = at {
        ways.push(partials[index].way);
        at = partials[index].parent;
    }
    ways.reverse();
    ways
}

/// The ways that no other one equals or beats in score and every cost.
fn undominated(ways: &[Way]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ways.len()).collect();
    let total = |way: &Way| way.costs.iter().sum::<f64>();
    order.sort_by(|&a, &b| {
        let by_score = ways[b].score.total_cmp(&ways[a].score);
        by_score.then(total(&ways[a]).total_cmp(&total(&ways[b]))).then(a.cmp(&b))
    });
    let mut kept: Vec<usize> = Vec::new();
    for way in order {
        let beaten = |&other: &usize| ways[other].costs.iter().zip(&ways[way].costs).all(|(a, b)| a <= b);
        if !kept.iter().any(beaten) {
            kept.push(way);
        }
    }
    kept
}
