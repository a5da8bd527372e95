//! The supernet of NAS-Bench-201 in few, large libtorch operations.
//!
//! All edges that leave a state go together: one rectification, one mean, and per kernel size one
//! convolution whose batch norm has β·α as its scale. What has no batch norm (identity and mean) is weighted
//! once per edge. `none` is not computed; the shuffle is one per node.

use std::collections::BTreeMap;

use lathe_spaces::{BATCH_NORM_EPSILON, BlockSpec, Space};
use tch::{Tensor, no_grad};

use super::{STAGES, cell::operation_name};
use crate::supernet::{
    Parameters,
    grouped::{MOMENTUM, channels_last},
    operation::channel_shuffle,
};

/// Where the plain supernet's tensors lie in the flat vectors.
#[derive(Debug)]
pub(crate) struct GroupedNas201 {
    /// Lengths of the learned tensors, in the order of the flat vector.
    lengths: Vec<i64>,
    /// Their extents.
    dims: Vec<Vec<i64>>,
    /// Lengths of the running statistics, in their order.
    statistic_lengths: Vec<i64>,
    stem: Dense,
    /// Per reduction its two convolutions, and that of the shortcut.
    reductions: Vec<([Dense; 2], usize)>,
    /// Per stage.
    cells: Vec<Vec<Cell>>,
    head: Norm,
    /// K.
    partial: i64,
}

/// A convolution with its batch norm; numbers are those of tensors.
#[derive(Clone, Copy, Debug)]
struct Dense {
    weight: usize,
    stride: i64,
    norm: Norm,
}

#[derive(Clone, Copy, Debug)]
struct Norm {
    mean: usize,
    variance: usize,
    /// Learned scale and shift.
    affine: Option<[usize; 2]>,
}

#[derive(Debug)]
struct Cell {
    nodes: usize,
    edges: Vec<Edge>,
}

#[derive(Debug)]
struct Edge {
    from: usize,
    node: usize,
    /// Edges into the same node.
    siblings: usize,
    /// Position of the choice, and the operation.
    operations: Vec<(usize, Operation)>,
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Identity,
    Mean,
    Convolution(Dense),
}

/// Numbers of tensors by their names.
struct Names<'p> {
    learned: BTreeMap<&'p str, usize>,
    statistics: BTreeMap<&'p str, usize>,
}

impl<'p> Names<'p> {
    fn new(parameters: &'p Parameters) -> Self {
        let numbers = |tensors: &'p [(String, Tensor)]| {
            tensors.iter().enumerate().map(|(number, (name, _))| (name.as_str(), number)).collect()
        };
        Self { learned: numbers(&parameters.learned), statistics: numbers(&parameters.statistics) }
    }

    fn find(numbers: &BTreeMap<&str, usize>, name: &str) -> usize {
        let number = numbers.get(name).copied();
        number.unwrap_or_else(|| unreachable!("the plain supernet has no tensor {name}"))
    }

    fn weight(&self, name: &str) -> usize {
        Self::find(&self.learned, &format!("{name}.weight"))
    }

    fn norm(&self, name: &str, affine: bool) -> Norm {
        Norm {
            mean: Self::find(&self.statistics, &format!("{name}.running_mean")),
            variance: Self::find(&self.statistics, &format!("{name}.running_var")),
            affine: affine.then(|| [self.weight(name), Self::find(&self.learned, &format!("{name}.bias"))]),
        }
    }

    /// The convolution at this position of a sequence of layers, with the batch norm behind it.
    fn dense(&self, name: &str, position: usize, stride: i64, affine: bool) -> Dense {
        let weight = self.weight(&format!("{name}.{position}"));
        Dense { weight, stride, norm: self.norm(&format!("{name}.{}", position + 1), affine) }
    }

    fn cell(&self, name: &str, block: &BlockSpec) -> Cell {
        let mut edges = Vec::new();
        for (node, spec) in block.nodes.iter().enumerate() {
            for edge in &spec.edges {
                let operation = |choice: &String| match choice.as_str() {
                    "skip_connect" => Some(Operation::Identity),
                    "avg_pool_3x3" => Some(Operation::Mean),
                    "none" => None,
                    _ => {
                        let name = operation_name(name, node, edge.from, choice);
                        Some(Operation::Convolution(self.dense(&name, 1, 1, false)))
                    }
                };
                let operations = edge.choices.iter().enumerate();
                let operations = operations.filter_map(|(index, choice)| Some((index, operation(choice)?)));
                edges.push(Edge {
                    from: edge.from,
                    node,
                    siblings: spec.edges.len(),
                    operations: operations.collect(),
                });
            }
        }
        Cell { nodes: block.nodes.len(), edges }
    }
}

/// One pass over the network.
struct PassOver<'a> {
    form: &'a GroupedNas201,
    pieces: Vec<Tensor>,
    statistics: Vec<Tensor>,
    /// What every operation of every edge counts: `[edges, choices]`.
    weights: Tensor,
    /// What every edge counts; `None` where that is 1.
    factors: Option<Tensor>,
    training: bool,
}

impl GroupedNas201 {
    /// For the plain supernet of a space that these parameters belong to, with `cells` cells per stage and
    /// K = `partial`.
    pub fn new(space: &Space, cells: usize, partial: usize, parameters: &Parameters) -> Self {
        let lengths = |tensors: &[(String, Tensor)]| {
            tensors.iter().map(|(_, tensor)| tensor.numel() as i64).collect::<Vec<_>>()
        };
        let names = Names::new(parameters);
        let reduction = |reduction| {
            let name = format!("reductions.{reduction}");
            let main = [names.dense(&name, 1, 2, true), names.dense(&name, 4, 1, true)];
            (main, names.weight(&format!("{name}.shortcut.1")))
        };
        let stage = |stage| {
            let cell = |cell| names.cell(&format!("stages.{stage}.cells.{cell}"), &space.blocks[0]);
            (0..cells).map(cell).collect()
        };
        Self {
            lengths: lengths(&parameters.learned),
            dims: parameters.learned.iter().map(|(_, tensor)| tensor.size()).collect(),
            statistic_lengths: lengths(&parameters.statistics),
            stem: names.dense("stem", 0, 1, true),
            reductions: (0..STAGES - 1).map(reduction).collect(),
            cells: (0..STAGES).map(stage).collect(),
            head: names.norm("head.0", true),
            partial: partial as i64,
        }
    }

    /// Images `[B, 3, R, R]` to logits `[B, classes]`. `leaf` is the flat vector of weights as autograd sees it;
    /// with `training` batch norms use the batch's statistics and record them in `statistics`.
    pub fn forward(
        &self,
        leaf: &Tensor,
        statistics: &Tensor,
        images: &Tensor,
        shares: &[[Tensor; 2]],
        training: bool,
    ) -> Tensor {
        let [alpha, beta] = &shares[0];
        let factors = (self.partial > 1).then(|| {
            let siblings: Vec<f64> = self.cells[0][0].edges.iter().map(|edge| edge.siblings as f64).collect();
            beta * Tensor::from_slice(&siblings).to_kind(beta.kind()).to_device(beta.device())
        });
        let pass = PassOver {
            form: self,
            // One split: its backward pass is one concatenation, not one addition for each piece.
            pieces: leaf.split_with_sizes(&self.lengths, 0),
            statistics: statistics.split_with_sizes(&self.statistic_lengths, 0),
            weights: factors.as_ref().map_or_else(|| alpha.shallow_clone(), |each| alpha * each.unsqueeze(1)),
            factors,
            training,
        };
        let output = pass.network(&channels_last(images));
        let features = output.mean_dim([2, 3].as_slice(), false, output.kind());
        // The classifier's weight and bias are the last tensors.
        let last = self.lengths.len() - 1;
        features.linear(&pass.piece(last - 1), Some(&pass.piece(last)))
    }
}

impl PassOver<'_> {
    fn piece(&self, number: usize) -> Tensor {
        self.pieces[number].view(self.form.dims[number].as_slice())
    }

    fn network(&self, images: &Tensor) -> Tensor {
        let mut x = self.dense(&self.form.stem, images);
        for (stage, cells) in self.form.cells.iter().enumerate() {
            if stage > 0 {
                let ([first, second], shortcut) = &self.form.reductions[stage - 1];
                let main = self.dense(second, &self.dense(first, &x.relu()).relu());
                let halved = x.avg_pool2d([2, 2], [2, 2], [0, 0], false, false, None::<i64>);
                x = convolve(&halved, &self.piece(*shortcut), 1) + main;
            }
            for cell in cells {
                x = self.cell(cell, &x);
            }
        }
        self.norm(&x, &[&self.form.head], None).relu()
    }

    fn dense(&self, dense: &Dense, x: &Tensor) -> Tensor {
        self.norm(&convolve(x, &self.piece(dense.weight), dense.stride), &[&dense.norm], None)
    }

    /// Batch norm of channels whose statistics are those of several norms, one after the other; with their
    /// own scale and shift unless this `scale` comes in their place.
    fn norm(&self, x: &Tensor, norms: &[&Norm], scale: Option<&Tensor>) -> Tensor {
        let of = |number: &dyn Fn(&Norm) -> usize| -> Vec<Tensor> {
            norms.iter().map(|norm| self.statistics[number(norm)].shallow_clone()).collect()
        };
        let (means, variances) = (of(&|norm| norm.mean), of(&|norm| norm.variance));
        let (mean, variance) = (Tensor::cat(&means, 0), Tensor::cat(&variances, 0));
        let affine = match (scale, norms[0].affine) {
            (Some(scale), _) => Some((scale.shallow_clone(), no_grad(|| scale.zeros_like()))),
            (None, affine) => affine.map(|[scale, shift]| (self.piece(scale), self.piece(shift))),
        };
        let (scale, shift) = affine.unzip();
        let y = x.batch_norm(
            scale.as_ref(),
            shift.as_ref(),
            Some(&mean),
            Some(&variance),
            self.training,
            MOMENTUM,
            BATCH_NORM_EPSILON,
            true,
        );
        if self.training {
            no_grad(|| {
                for (parts, whole) in [(means, mean), (variances, variance)] {
                    let lengths: Vec<i64> = parts.iter().map(|part| part.numel() as i64).collect();
                    for (mut part, new) in parts.into_iter().zip(whole.split_with_sizes(&lengths, 0)) {
                        part.copy_(&new);
                    }
                }
            });
        }
        y
    }

    fn cell(&self, cell: &Cell, x: &Tensor) -> Tensor {
        let mut states = vec![x.shallow_clone()];
        // Per node the sum of what enters it: through the operations, and around them.
        let mut through: Vec<Option<Tensor>> = (0..cell.nodes).map(|_| None).collect();
        let mut around: Vec<Option<Tensor>> = (0..cell.nodes).map(|_| None).collect();
        for node in 0..cell.nodes {
            let x = &states[node];
            let part = x.size()[1] / self.form.partial;
            let first = x.narrow(1, 0, part);
            let leaving: Vec<usize> =
                (0..cell.edges.len()).filter(|&edge| cell.edges[edge].from == node).collect();
            for (edge, term) in self.operations(cell, &leaving, &first) {
                add(&mut through[cell.edges[edge].node], term);
            }
            if let Some(factors) = &self.factors {
                let rest = x.narrow(1, part, x.size()[1] - part);
                for &edge in &leaving {
                    add(&mut around[cell.edges[edge].node], &rest * factors.get(edge as i64));
                }
            }
            // A node whose edges offer nothing but `none`.
            let mixed = through[node].take().unwrap_or_else(|| no_grad(|| first.zeros_like()));
            states.push(match around[node].take() {
                Some(rest) => channel_shuffle(&Tensor::cat(&[mixed, rest], 1), self.form.partial),
                None => mixed,
            });
        }
        states.pop().unwrap_or_else(|| x.shallow_clone())
    }

    /// Weighted outputs of the operations of all edges that leave a state, each with its edge.
    fn operations(&self, cell: &Cell, leaving: &[usize], x: &Tensor) -> Vec<(usize, Tensor)> {
        let rectified = x.relu();
        let mut mean = None;
        let mut terms = Vec::new();
        // Convolutions by the side of their kernels.
        let mut convolutions: BTreeMap<i64, Vec<(usize, Tensor, &Dense)>> = BTreeMap::new();
        for &edge in leaving {
            for (choice, operation) in &cell.edges[edge].operations {
                let share = self.weights.get(edge as i64).get(*choice as i64);
                match operation {
                    Operation::Identity => terms.push((edge, x * share)),
                    Operation::Mean => {
                        let mean = mean.get_or_insert_with(|| {
                            x.avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None::<i64>)
                        });
                        terms.push((edge, &*mean * share));
                    }
                    Operation::Convolution(dense) => {
                        let kernel = self.form.dims[dense.weight][2];
                        convolutions.entry(kernel).or_default().push((edge, share, dense));
                    }
                }
            }
        }
        for group in convolutions.values() {
            let weights: Vec<Tensor> = group.iter().map(|(_, _, dense)| self.piece(dense.weight)).collect();
            let shares: Vec<Tensor> = group.iter().map(|(_, share, _)| share.shallow_clone()).collect();
            let norms: Vec<&Norm> = group.iter().map(|(_, _, dense)| &dense.norm).collect();
            let scale = Tensor::stack(&shares, 0).repeat_interleave_self_int(x.size()[1], 0, None);
            let y = self.norm(&convolve(&rectified, &Tensor::cat(&weights, 0), 1), &norms, Some(&scale));
            let each = y.chunk(group.len() as i64, 1);
            terms.extend(group.iter().zip(each).map(|((edge, ..), term)| (*edge, term)));
        }
        terms
    }
}

fn add(sum: &mut Option<Tensor>, term: Tensor) {
    *sum = Some(match sum.take() {
        Some(sum) => sum + term,
        None => term,
    });
}

fn convolve(x: &Tensor, weight: &Tensor, stride: i64) -> Tensor {
    let padding = weight.size()[2] / 2;
    x.conv2d(weight, None::<Tensor>, [stride; 2], [padding; 2], [1, 1], 1)
}
