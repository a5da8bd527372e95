//! [`expected_latency`](crate::expected_latency) inside autograd: the same formula on tensors.

use lathe_spaces::Space;
use tch::{Kind, Tensor};

use crate::{
    objective::Costs,
    scores::{NodeSlots, deployable_columns, node_slots},
};

/// Expected sums of costs as a function of α and β, in 64-bit arithmetic.
#[derive(Debug)]
pub(crate) struct RelaxedLatency {
    nodes: Vec<NodeSlots>,
    /// Per slot the columns of deployable choices.
    columns: Vec<Tensor>,
    /// Per slot what the deployable choices cost: `[quantities, choices]`.
    costs: Vec<Tensor>,
    /// Per quantity what every network costs.
    fixed: Vec<f64>,
}

impl RelaxedLatency {
    /// For the slots of a space and one or more quantities.
    pub fn new(space: &Space, quantities: &[&Costs]) -> Self {
        let columns = deployable_columns(space);
        let rows = |(slot, columns): (usize, &Vec<usize>)| {
            let rows: Vec<Tensor> = (quantities.iter())
                .map(|costs| {
                    let row: Vec<f64> = columns.iter().map(|&column| costs.choices[slot][column]).collect();
                    Tensor::from_slice(&row)
                })
                .collect();
            Tensor::stack(&rows, 0)
        };
        let column = |columns: &Vec<usize>| {
            Tensor::from_slice(&columns.iter().map(|&column| column as i64).collect::<Vec<_>>())
        };
        Self {
            nodes: node_slots(space),
            costs: columns.iter().enumerate().map(rows).collect(),
            columns: columns.iter().map(column).collect(),
            fixed: quantities.iter().map(|costs| costs.fixed).collect(),
        }
    }

    /// One value per quantity. `alpha`: logits per slot; `beta`: logits per node.
    pub fn of(&self, alpha: &[Tensor], beta: &[Tensor], temperature: f64) -> Tensor {
        let mut total = Tensor::from_slice(&self.fixed);
        for (node, beta) in self.nodes.iter().zip(beta) {
            let beta = beta.log_softmax(-1, Kind::Double);
            let mut strengths = Vec::with_capacity(node.slots.len());
            let mut expected = Vec::with_capacity(node.slots.len());
            for slot in node.slots.clone() {
                let logits = alpha[slot].to_kind(Kind::Double);
                let log_shares = logits.log_softmax(-1, Kind::Double);
                strengths.push(log_shares.index_select(0, &self.columns[slot]).max());
                let shares =
                    (logits.index_select(0, &self.columns[slot]) / temperature).softmax(-1, Kind::Double);
                expected.push(self.costs[slot].mv(&shares));
            }
            let strengths = (beta + Tensor::stack(&strengths, 0)) / temperature;
            let kept = inclusion(&strengths, node.keep);
            total += Tensor::stack(&expected, 1).mv(&kept);
        }
        total
    }
}

/// See [`inclusion`](crate::objective::inclusion). `[n]` → `[n]`.
fn inclusion(logits: &Tensor, keep: usize) -> Tensor {
    let count = logits.size()[0];
    if keep as i64 >= count {
        return logits.ones_like().detach();
    }
    let first = logits.softmax(-1, Kind::Double);
    if keep <= 1 {
        return first * keep as f64;
    }
    let drawn = first.unbind(0);
    let mut kept = first;
    for (drawn_item, probability) in drawn.iter().enumerate() {
        let rest: Vec<i64> = (0..count).filter(|&item| item != drawn_item as i64).collect();
        let rest = Tensor::from_slice(&rest);
        let shares = inclusion(&logits.index_select(0, &rest), keep - 1) * probability;
        kept = kept.index_add(0, &rest, &shares);
    }
    kept
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use lathe_spaces::{Nas201Skeleton, Space};

    use super::*;
    use crate::{Scores, fixtures, objective::expected, optimizer::gradients};

    /// α per slot and β per node as leaves of autograd.
    fn leaves(space: &Space, scores: &Scores) -> (Vec<Tensor>, Vec<Tensor>) {
        let leaf = |logits: &[f64]| Tensor::from_slice(logits).set_requires_grad(true);
        let alpha = scores.alpha.iter().map(|logits| leaf(logits)).collect();
        let beta = node_slots(space).into_iter().map(|node| leaf(&scores.beta[node.slots])).collect();
        (alpha, beta)
    }

    #[test]
    fn tensors_and_plain_numbers_agree() {
        let nas201 = Nas201Skeleton { width: 16, cells: 1, resolution: 32, classes: 10 };
        for space in [fixtures::darts(), fixtures::small(), Space::nas201(nas201), Space::fbnet(64, 10)] {
            let costs = Costs::new(&space, &fixtures::table(&space, 3));
            let other = Costs::new(&space, &fixtures::table(&space, 4));
            let relaxed = RelaxedLatency::new(&space, &[&costs, &other]);
            for (seed, temperature) in [(1, 1.0), (2, 0.1), (3, 5.0)] {
                let scores = fixtures::scores(&space, 2.0, seed);
                let (alpha, beta) = leaves(&space, &scores);
                let both = relaxed.of(&alpha, &beta, temperature);
                for (index, costs) in [&costs, &other].into_iter().enumerate() {
                    let got = both.double_value(&[index as i64]);
                    let expected = expected(&space, &scores, costs, temperature);
                    assert!((got / expected - 1.0).abs() < 1e-9, "{}: {got} against {expected}", space.name);
                }
            }
        }
    }

    #[test]
    fn gradients_are_the_differences_of_the_plain_formula() {
        let space = fixtures::small();
        let costs = Costs::new(&space, &fixtures::table(&space, 5));
        let scores = fixtures::scores(&space, 1.0, 5);
        let (alpha, beta) = leaves(&space, &scores);
        let latency = RelaxedLatency::new(&space, &[&costs]).of(&alpha, &beta, 0.7).get(0);
        let all: Vec<&Tensor> = alpha.iter().chain(&beta).collect();
        let gradients = gradients(&latency, &all);
        let step = 1e-5;
        let difference = |change: &dyn Fn(&mut Scores, f64)| {
            let at = |by: f64| {
                let mut moved = scores.clone();
                change(&mut moved, by);
                expected(&space, &moved, &costs, 0.7)
            };
            (at(step) - at(-step)) / (2.0 * step)
        };
        for (slot, gradient) in gradients[..alpha.len()].iter().enumerate() {
            for column in 0..scores.alpha[slot].len() {
                let expected = difference(&|scores, by| scores.alpha[slot][column] += by);
                let got = gradient.double_value(&[column as i64]);
                assert!((got - expected).abs() < 1e-5, "alpha {slot} {column}: {got} against {expected}");
            }
        }
        for (index, node) in node_slots(&space).into_iter().enumerate() {
            for (edge, slot) in node.slots.enumerate() {
                let expected = difference(&|scores, by| scores.beta[slot] += by);
                let got = gradients[alpha.len() + index].double_value(&[edge as i64]);
                assert!((got - expected).abs() < 1e-5, "beta {slot}: {got} against {expected}");
            }
        }
    }
}
