//! Weights that all networks of a space share where they overlap.

use std::collections::BTreeMap;

use lathe_spaces::{Graph, OpSpec, Stream};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use super::{
    WeightOptimizer,
    axis::{Axis, Owner, Piece, axes},
};
use crate::optimizer::SgdStep;

/// The learned tensors of a space, each as large as the largest network so far needs it.
#[derive(Debug)]
pub(super) struct SharedWeights {
    seed: u64,
    optimizer: WeightOptimizer,
    pub tensors: BTreeMap<String, SharedTensor>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct SharedTensor {
    pub extent: Extent,
    pub values: Tensor,
    /// Running sum of gradients.
    pub momentum: Tensor,
    /// Running mean of their squares, where the optimiser has one.
    pub squares: Option<Tensor>,
}

/// Its axes, and how often it has grown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extent {
    pub axes: Vec<Axis>,
    pub grown: u64,
}

/// A network's own piece of the shared weights: copies, leaves of autograd.
#[derive(Debug)]
pub(super) struct Taken {
    pub leaves: Vec<Tensor>,
    names: Vec<(String, Vec<Axis>)>,
}

/// How a tensor begins.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Initial {
    Constant(f64),
    /// Normal, with this gain over the inputs that a number is summed from (He et al. 2015).
    Normal {
        gain: f64,
    },
    Small,
}

impl SharedWeights {
    pub fn new(seed: u64, optimizer: WeightOptimizer) -> Self {
        Self { seed, optimizer, tensors: BTreeMap::new() }
    }

    /// The weights of a network. What no network had before is drawn.
    pub fn take(&mut self, graph: &Graph, owner: Owner) -> Taken {
        let names = axes(graph, owner);
        let mut leaves = Vec::with_capacity(names.len());
        for ((name, axes), spec) in names.iter().zip(graph.parameters()) {
            let initial = initial(graph.nodes()[spec.node].op, spec.suffix);
            let shared = self.fitting(name, axes, initial);
            leaves
                .push(no_grad(|| gather(&shared.values, axes, &shared.extent.axes)).set_requires_grad(true));
        }
        Taken { leaves, names }
    }

    /// The shared tensor of a name, grown so that these axes fit into it.
    fn fitting(&mut self, name: &str, axes: &[Axis], initial: Initial) -> &SharedTensor {
        let (seed, adaptive) = (self.seed, self.optimizer == WeightOptimizer::RmsProp);
        let draw = |extent: &Extent| {
            let values = initial.draw(seed, name, extent);
            let squares = adaptive.then(|| values.zeros_like());
            SharedTensor { extent: extent.clone(), momentum: values.zeros_like(), squares, values }
        };
        let shared = self
            .tensors
            .entry(name.to_owned())
            .or_insert_with(|| draw(&Extent { axes: axes.to_vec(), grown: 0 }));
        let joined: Vec<Axis> =
            axes.iter().zip(&shared.extent.axes).map(|(own, shared)| own.joined(shared)).collect();
        if joined != shared.extent.axes {
            let larger = draw(&Extent { axes: joined, grown: shared.extent.grown + 1 });
            no_grad(|| {
                for (from, to) in shared.state().into_iter().zip(larger.state()) {
                    for block in blocks(&shared.extent.axes, &larger.extent.axes) {
                        narrowed(to, &block, |piece| piece.shared)
                            .copy_(&narrowed(from, &block, |piece| piece.own));
                    }
                }
            });
            *shared = larger;
        }
        shared
    }

    /// A step on the weights that a network took; the norm that the gradient is clipped to is that of all of
    /// them. What it did not take rests, its momentum too; what it took several times, for blocks that a position
    /// mixes, moves once, by the sum.
    pub fn step(&mut self, taken: &Taken, gradients: &[Tensor], step: &SgdStep) {
        no_grad(|| {
            let squares: f64 =
                gradients.iter().map(|gradient| gradient.square().sum(Kind::Double).double_value(&[])).sum();
            let scale = (step.clip / (squares.sqrt() + 1e-6)).min(1.0);
            let mut pieces: BTreeMap<&str, Vec<(&[Axis], &Tensor)>> = BTreeMap::new();
            for ((name, axes), gradient) in taken.names.iter().zip(gradients) {
                pieces.entry(name).or_default().push((axes, gradient));
            }
            for (name, pieces) in pieces {
                let Some(shared) = self.tensors.get(name) else { continue };
                let &[(axes, gradient)] = pieces.as_slice() else {
                    shared.step_by_sum(&pieces, scale, step);
                    continue;
                };
                for block in blocks(axes, &shared.extent.axes) {
                    let view = |tensor: &Tensor| narrowed(tensor, &block, |piece| piece.shared);
                    let [mut values, mut momentum] = [&shared.values, &shared.momentum].map(view);
                    let gradient = narrowed(gradient, &block, |piece| piece.own);
                    let gradient = gradient * scale + &values * step.weight_decay;
                    let _ = momentum.g_mul_scalar_(step.momentum);
                    match shared.squares.as_ref().map(view) {
                        None => {
                            momentum += gradient;
                            values -= &momentum * step.learning_rate;
                        }
                        Some(mut squares) => {
                            squares.copy_(&mean_of_squares(&squares, &gradient));
                            momentum += gradient * step.learning_rate / (&squares + EPSILON).sqrt();
                            values -= &momentum;
                        }
                    }
                }
            }
        });
    }
}

/// Share of the old mean of squares that `RMSProp` keeps, and what is added to it under the root (`TuNAS`).
const DECAY: f64 = 0.9;
const EPSILON: f64 = 1.0;

fn mean_of_squares(before: &Tensor, gradient: &Tensor) -> Tensor {
    before * DECAY + gradient.square() * (1.0 - DECAY)
}

impl SharedTensor {
    /// Values and whatever else is kept of each.
    pub fn state(&self) -> Vec<&Tensor> {
        [&self.values, &self.momentum].into_iter().chain(&self.squares).collect()
    }

    /// A step where several pieces overlap: each number moves once.
    fn step_by_sum(&self, pieces: &[(&[Axis], &Tensor)], scale: f64, step: &SgdStep) {
        let (mut sum, taken) = (self.values.zeros_like(), self.values.zeros_like());
        for (axes, gradient) in pieces {
            for block in blocks(axes, &self.extent.axes) {
                let mut to = narrowed(&sum, &block, |piece| piece.shared);
                to += narrowed(gradient, &block, |piece| piece.own);
                let _ = narrowed(&taken, &block, |piece| piece.shared).fill_(1.0);
            }
        }
        sum *= scale;
        sum += &self.values * step.weight_decay;
        let taken = taken.to_kind(Kind::Bool);
        let mut rate = step.learning_rate;
        if let Some(squares) = &self.squares {
            let moved = mean_of_squares(squares, &sum).where_self(&taken, squares);
            squares.shallow_clone().copy_(&moved);
            // The rate of the day stays in the momentum.
            sum = sum * rate / (squares + EPSILON).sqrt();
            rate = 1.0;
        }
        let moved = &self.momentum * step.momentum + sum;
        let moved = moved.where_self(&taken, &self.momentum);
        self.momentum.shallow_clone().copy_(&moved);
        let rates = taken.to_kind(Kind::Float) * rate;
        let mut values = self.values.shallow_clone();
        values -= moved * rates;
    }
}

impl Initial {
    fn draw(self, seed: u64, name: &str, extent: &Extent) -> Tensor {
        let dims: Vec<i64> = extent.axes.iter().map(|axis| axis.extent() as i64).collect();
        let count = dims.iter().product::<i64>() as usize;
        let deviation = match self {
            Self::Constant(value) => {
                return Tensor::full(dims.as_slice(), value, (Kind::Float, tch::Device::Cpu));
            }
            Self::Normal { gain } => {
                let fan_in: i64 = dims[1..].iter().product();
                (gain / fan_in.max(1) as f64).sqrt()
            }
            Self::Small => 0.02,
        };
        let mut random = Stream::new(seed, &format!("shared {name}"), extent.grown);
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            // Box and Muller: two at a time.
            let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt() * deviation;
            let (sine, cosine) = (std::f64::consts::TAU * random.random::<f64>()).sin_cos();
            values.extend([(radius * cosine) as f32, (radius * sine) as f32]);
        }
        values.truncate(count);
        Tensor::from_slice(&values).view(dims.as_slice())
    }
}

fn initial(op: OpSpec, suffix: &str) -> Initial {
    match (op, suffix) {
        (OpSpec::Conv2d { .. } | OpSpec::ConvTranspose2d { .. }, "weight") => Initial::Normal { gain: 2.0 },
        (OpSpec::Linear { .. }, "weight") => Initial::Normal { gain: 1.0 },
        (OpSpec::Prelu, "weight") => Initial::Constant(0.25),
        (OpSpec::Attention { .. }, _) => Initial::Small,
        (_, "weight") => Initial::Constant(1.0),
        _ => Initial::Constant(0.0),
    }
}

/// All combinations of the pieces of all axes.
fn blocks(own: &[Axis], shared: &[Axis]) -> Vec<Vec<Piece>> {
    own.iter().zip(shared).fold(vec![Vec::new()], |blocks, (own, shared)| {
        let pieces = own.pieces(shared);
        let with = |block: Vec<Piece>| {
            pieces.iter().map(move |piece| [block.as_slice(), &[*piece]].concat()).collect::<Vec<_>>()
        };
        blocks.into_iter().flat_map(with).collect()
    })
}

/// A view of a block.
fn narrowed(tensor: &Tensor, block: &[Piece], start: impl Fn(&Piece) -> i64) -> Tensor {
    block.iter().enumerate().fold(tensor.shallow_clone(), |view, (dim, piece)| {
        view.narrow(dim as i64, start(piece), piece.length)
    })
}

/// A copy of what lies at the axes.
fn gather(shared: &Tensor, own: &[Axis], axes: &[Axis]) -> Tensor {
    let mut found = shared.shallow_clone();
    for (dim, (own, shared)) in own.iter().zip(axes).enumerate() {
        let dim = dim as i64;
        let pieces = own.pieces(shared);
        let views: Vec<Tensor> =
            pieces.iter().map(|piece| found.narrow(dim, piece.shared, piece.length)).collect();
        found = match <[Tensor; 1]>::try_from(views) {
            Ok([view]) => view,
            Err(views) => Tensor::cat(&views, dim),
        };
    }
    found.copy()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_what_was_put_back() {
        let axes = [Axis::Parts(vec![2, 3]), Axis::Parts(vec![2]), Axis::Middle(1), Axis::Middle(1)];
        let large = [Axis::Parts(vec![4, 3]), Axis::Parts(vec![5]), Axis::Middle(3), Axis::Middle(3)];
        let shared = Tensor::arange(7 * 5 * 9, (Kind::Float, tch::Device::Cpu)).view([7, 5, 3, 3]);
        let taken = gather(&shared, &axes, &large);
        assert_eq!(taken.size(), [5, 2, 1, 1]);
        let at = |out: i64, inner: i64| shared.double_value(&[out, inner, 1, 1]);
        let expected = [0, 1, 4, 5, 6].map(|out| [at(out, 0), at(out, 1)]);
        let got: Vec<f64> = Vec::try_from(taken.flatten(0, -1).to_kind(Kind::Double)).unwrap();
        assert_eq!(got, expected.concat());
        for block in blocks(&axes, &large) {
            let _ = narrowed(&shared, &block, |piece| piece.shared).fill_(-1.0);
        }
        assert_eq!(gather(&shared, &axes, &large).sum(Kind::Double).double_value(&[]), -10.0);
        assert_eq!(shared.eq(-1.0).sum(Kind::Int64).int64_value(&[]), 10);
    }

    #[test]
    fn what_is_taken_several_times_moves_once_by_the_sum() {
        let step = SgdStep { learning_rate: 0.5, momentum: 0.9, weight_decay: 0.1, clip: 1e9 };
        let mut weights = SharedWeights::new(3, WeightOptimizer::Sgd);
        let large = vec![Axis::Parts(vec![3])];
        weights.fitting("a", &large, Initial::Constant(1.0));
        let [whole, part] = [3i64, 2].map(|count| Tensor::ones([count], (Kind::Float, tch::Device::Cpu)));
        let names = vec![("a".into(), large), ("a".into(), vec![Axis::Parts(vec![2])])];
        let taken = Taken { leaves: Vec::new(), names };
        weights.step(&taken, &[whole, part], &step);
        // Gradients 2, 2, 1 and the decay 0.1; then by the momentum as well.
        let values = |weights: &SharedWeights| Vec::<f32>::try_from(&weights.tensors["a"].values).unwrap();
        let near =
            |got: &[f32], expected: &[f32]| got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near(&values(&weights), &[-0.05, -0.05, 0.45]), "{:?}", values(&weights));
        let [a, b] = [1i64, 1].map(|count| Tensor::zeros([count], (Kind::Float, tch::Device::Cpu)));
        let one = || ("a".into(), vec![Axis::Parts(vec![1])]);
        weights.step(&Taken { leaves: Vec::new(), names: vec![one(), one()] }, &[a, b], &step);
        // The first: momentum 0.9 · 2.1 − 0.005. The others were not taken.
        assert!(
            near(&values(&weights), &[-0.05 - 0.5 * (1.89 - 0.005), -0.05, 0.45]),
            "{:?}",
            values(&weights)
        );
    }

    #[test]
    fn rmsprop_moves_by_tunas_rule_and_only_what_was_taken() {
        let step = SgdStep { learning_rate: 0.5, momentum: 0.9, weight_decay: 0.0, clip: 1e9 };
        let part = || vec![Axis::Parts(vec![2])];
        for several in [false, true] {
            let mut weights = SharedWeights::new(3, WeightOptimizer::RmsProp);
            weights.fitting("a", &[Axis::Parts(vec![3])], Initial::Constant(1.0));
            let (mut value, mut momentum, mut square) = (1.0_f64, 0.0, 0.0);
            for gradient in [2.0, -1.0] {
                // The whole gradient at once, or in two halves that a mixture took.
                let pieces = if several { 2 } else { 1 };
                let names = (0..pieces).map(|_| ("a".to_owned(), part())).collect();
                let gradients: Vec<Tensor> = (0..pieces)
                    .map(|_| Tensor::full([2], gradient / f64::from(pieces), tch::kind::FLOAT_CPU))
                    .collect();
                weights.step(&Taken { leaves: Vec::new(), names }, &gradients, &step);
                square = 0.9 * square + 0.1 * gradient * gradient;
                momentum = 0.9 * momentum + 0.5 * gradient / (square + 1.0_f64).sqrt();
                value -= momentum;
            }
            let found = Vec::<f32>::try_from(&weights.tensors["a"].values).unwrap();
            for (found, expected) in found.into_iter().zip([value, value, 1.0]) {
                assert!((f64::from(found) - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
    }

    #[test]
    fn growing_keeps_what_was_learned() {
        let mut weights = SharedWeights::new(3, WeightOptimizer::RmsProp);
        let small = [Axis::Parts(vec![2, 2]), Axis::Middle(3)];
        let before = {
            let shared = weights.fitting("a", &small, Initial::Normal { gain: 2.0 });
            gather(&shared.values, &small, &shared.extent.axes)
        };
        let large = [Axis::Parts(vec![1, 5, 2]), Axis::Middle(5)];
        let grown = weights.fitting("a", &large, Initial::Normal { gain: 2.0 });
        assert_eq!(grown.extent.axes, [Axis::Parts(vec![2, 5, 2]), Axis::Middle(5)]);
        assert_eq!(gather(&grown.values, &small, &grown.extent.axes), before);
    }
}
