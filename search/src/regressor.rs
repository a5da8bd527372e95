//! A learned latency: what whole networks took beside the sum of their parts.
//!
//! LA-DARTS (Xu et al. 2020, arXiv 2001.06392) puts a regressor on an encoding of the architecture into the loss. The
//! encoding here is which choice stands on which slot; the regressor is a small network on it that learns the
//! logarithm of measured over summed latency, so that with few measurements it falls back to the sum. How the paper
//! encodes and samples is not known to us; its 100,000 sampled architectures are far more than a device measures
//! here.

use lathe_spaces::{Genotype, Micros, Space, Stream};
use rand::RngExt as _;
use tch::{Kind, Tensor, no_grad};

use crate::{
    Limit,
    derive::kept_of,
    optimizer::{Adam, flatten, gradients},
    scores::deployable_columns,
};

/// Units of the hidden layer.
const HIDDEN: i64 = 16;
/// Steps of Adam over all networks at once, and their size.
const STEPS: usize = 400;
const RATE: f64 = 0.02;
/// Weight decay: thirty networks and hundreds of inputs.
const DECAY: f64 = 3e-3;
/// Folds of the cross-validation.
const FOLDS: usize = 5;
/// Networks below which there is nothing to learn from.
pub(crate) const LEAST: usize = 10;

/// Predicts a network's latency from its operations and the sum of their costs.
#[derive(Debug)]
pub(crate) struct Regressor {
    columns: Vec<Vec<usize>>,
    /// Position of each slot's first input.
    starts: Vec<usize>,
    width: usize,
    /// `[inputs, HIDDEN]`, `[HIDDEN]`, `[HIDDEN, 1]`.
    layers: [Tensor; 3],
    /// Median relative error on held-out networks of the sum alone, and of the regressor.
    pub errors: [f64; 2],
}

impl Regressor {
    /// Learns from measured networks, which are at least [`LEAST`]. The same networks and seed give the same numbers.
    pub fn fit(space: &Space, limit: &Limit, measured: &[(Genotype, Micros)], seed: u64) -> Self {
        let columns = deployable_columns(space);
        let mut width = 0;
        let starts = columns
            .iter()
            .map(|columns| {
                width += columns.len();
                width - columns.len()
            })
            .collect();
        let mut regressor =
            Self { columns, starts, width, layers: initial(width, seed), errors: [f64::NAN; 2] };
        let rows: Vec<Tensor> =
            measured.iter().map(|(genotype, _)| regressor.encode(space, genotype)).collect();
        let inputs = Tensor::stack(&rows, 0);
        let sums: Vec<f64> = measured.iter().map(|(genotype, _)| limit.mean(space, genotype)).collect();
        let ratios: Vec<f64> =
            measured.iter().zip(&sums).map(|((_, time), sum)| (time.0 / sum).ln()).collect();

        let (mut by_sum, mut by_both) = (Vec::new(), Vec::new());
        for fold in 0..FOLDS {
            let out = |index: &usize| index % FOLDS == fold;
            let (held, kept): (Vec<usize>, Vec<usize>) = (0..measured.len()).partition(out);
            regressor.layers = trained(&inputs, &ratios, &kept, &initial(width, seed));
            for index in held {
                let learned = regressor.of(&inputs.get(index as i64).unsqueeze(0)).double_value(&[0]);
                by_sum.push((1.0 - (-ratios[index]).exp()).abs());
                by_both.push((1.0 - (learned - ratios[index]).exp()).abs());
            }
        }
        let all: Vec<usize> = (0..measured.len()).collect();
        regressor.layers = trained(&inputs, &ratios, &all, &initial(width, seed));
        regressor.errors = [median(by_sum), median(by_both)];
        regressor
    }

    /// What a network takes beyond the sum of its costs.
    pub fn beyond(&self, space: &Space, limit: &Limit, genotype: &Genotype) -> f64 {
        let ratio = self.of(&self.encode(space, genotype).unsqueeze(0)).double_value(&[0]);
        limit.mean(space, genotype) * (ratio.exp() - 1.0)
    }

    /// `[inputs]`: 1 where a choice is deployed.
    fn encode(&self, space: &Space, genotype: &Genotype) -> Tensor {
        let mut row = vec![0.0f64; self.width];
        for kept in kept_of(space, genotype) {
            let place = self.columns[kept.slot].iter().position(|&choice| choice == kept.choice);
            if let Some(place) = place {
                row[self.starts[kept.slot] + place] = 1.0;
            }
        }
        Tensor::from_slice(&row)
    }

    /// `[networks, inputs]` to `[networks]`: logarithms of measured over summed latency.
    fn of(&self, inputs: &Tensor) -> Tensor {
        no_grad(|| forward(inputs, &self.layers))
    }
}

fn forward(inputs: &Tensor, [first, bias, last]: &[Tensor; 3]) -> Tensor {
    (inputs.matmul(first) + bias).tanh().matmul(last).squeeze_dim(1)
}

fn initial(width: usize, seed: u64) -> [Tensor; 3] {
    let mut random = Stream::new(seed, "latency regressor", 0);
    let mut uniform = |rows: i64, columns: i64, size: f64| {
        let values: Vec<f64> = (0..rows * columns).map(|_| random.random_range(-size..size)).collect();
        Tensor::from_slice(&values).view([rows, columns])
    };
    let first = uniform(width as i64, HIDDEN, 0.3);
    // Nothing is added to the sum before something is learned.
    [first, Tensor::zeros([HIDDEN], (Kind::Double, tch::Device::Cpu)), uniform(HIDDEN, 1, 1e-3)]
}

/// Layers trained on some of the networks.
fn trained(inputs: &Tensor, ratios: &[f64], kept: &[usize], start: &[Tensor; 3]) -> [Tensor; 3] {
    let rows: Vec<i64> = kept.iter().map(|&index| index as i64).collect();
    let inputs = inputs.index_select(0, &Tensor::from_slice(&rows));
    let wanted: Vec<f64> = kept.iter().map(|&index| ratios[index]).collect();
    let wanted = Tensor::from_slice(&wanted);
    let shapes = start.each_ref().map(Tensor::size);
    let mut flat = flatten(start);
    let mut adam = Adam::new(&flat);
    let split = |flat: &Tensor| {
        let mut at = 0;
        shapes.each_ref().map(|shape| {
            let length: i64 = shape.iter().product();
            at += length;
            flat.narrow(0, at - length, length).view(shape.as_slice())
        })
    };
    for _ in 0..STEPS {
        let leaf = flat.detach().set_requires_grad(true);
        let error = forward(&inputs, &split(&leaf)) - &wanted;
        let loss = (&error * &error).mean(Kind::Double);
        let gradient = gradients(&loss, &[&leaf]).remove(0);
        adam.step(&mut flat, &gradient, RATE, DECAY);
    }
    split(&flat).map(|layer| layer.copy())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::fixtures;

    /// A device on which two separable convolutions in one cell cost 40 % of the whole on top, as if a cache
    /// overflowed: no sum says so.
    pub(crate) fn measured(space: &Space, limit: &Limit, count: u64) -> Vec<(Genotype, Micros)> {
        let network = |index| {
            let genotype = space.sample(&mut Stream::new(5, "test regressor", index));
            let picks = genotype.blocks[0].nodes.iter().flatten();
            let heavy = picks.filter(|pick| pick.choice.starts_with("sep")).count();
            let factor = if heavy >= 2 { 1.4 } else { 1.0 };
            let time = Micros(limit.mean(space, &genotype) * factor);
            (genotype, time)
        };
        (0..count).map(network).collect()
    }

    #[test]
    fn what_no_sum_says_is_learned_and_told_by_held_out_networks() {
        let space = fixtures::darts();
        let limit = Limit::latency("l", &space, &fixtures::table(&space, 2), Micros(1.0)).unwrap();
        let networks = measured(&space, &limit, 200);
        let regressor = Regressor::fit(&space, &limit, &networks[..120], 1);
        let [by_sum, by_both] = regressor.errors;
        let error = |value: &dyn Fn(&Genotype) -> f64| {
            let errors =
                networks[120..].iter().map(|(genotype, time)| (value(genotype) / time.0 - 1.0).abs());
            errors.sum::<f64>() / 80.0
        };
        let sum = error(&|genotype| limit.mean(&space, genotype));
        let both =
            error(&|genotype| limit.mean(&space, genotype) + regressor.beyond(&space, &limit, genotype));
        assert!(both < 0.7 * sum, "mean error {both}, of the sum {sum}; cross-validated {by_sum}, {by_both}");
        let again = Regressor::fit(&space, &limit, &networks[..120], 1);
        assert_eq!(again.errors.map(f64::to_bits), regressor.errors.map(f64::to_bits));
    }

    #[test]
    fn where_sums_are_right_nothing_is_added() {
        let space = fixtures::darts();
        let limit = Limit::latency("l", &space, &fixtures::table(&space, 2), Micros(1.0)).unwrap();
        let exact: Vec<(Genotype, Micros)> = measured(&space, &limit, 30)
            .into_iter()
            .map(|(genotype, _)| (genotype.clone(), Micros(limit.mean(&space, &genotype))))
            .collect();
        let regressor = Regressor::fit(&space, &limit, &exact, 1);
        for (genotype, time) in &exact {
            assert!((regressor.beyond(&space, &limit, genotype) / time.0).abs() < 0.01);
        }
    }
}
