//! The supernet in few, large libtorch operations, through autograd: for devices that the fused kernels
//! don't know.
//!
//! All edges that leave a state go together: one rectification, one pool of each kind, depthwise weights
//! side by side, pointwise ones as a grouped convolution, one batch norm per kind of operation, into
//! whose scale β·α is folded. `none` is not computed; concatenation and shuffle are one per node.

use std::collections::BTreeMap;

use lathe_spaces::BATCH_NORM_EPSILON;
use tch::{Device, Kind, Tensor, no_grad};

use super::{
    Parameters,
    fused::{CellPlan, Dense, EdgePlan, LayerPlan, NormPlan, OperationPlan, Origin, Plan, StagePlan},
    operation::channel_shuffle,
};

/// Momentum of the running statistics (`PyTorch`'s default).
pub(crate) const MOMENTUM: f64 = 0.1;

/// Plan of the plain supernet, and the leaf that all its weights are pieces of.
#[derive(Debug)]
pub(crate) struct Grouped {
    plan: Plan,
    /// Lengths of the learned tensors, in the order of the flat vector.
    lengths: Vec<i64>,
    /// Where each of them begins: its number.
    numbers: BTreeMap<usize, usize>,
}

/// One pass over the network.
struct PassOver<'a> {
    plan: &'a Plan,
    numbers: &'a BTreeMap<usize, usize>,
    pieces: Vec<Tensor>,
    statistics: &'a Tensor,
    /// Per block of the space softmax(α) and softmax(β).
    shares: &'a [[Tensor; 2]],
    training: bool,
}

impl Grouped {
    /// For the supernet that these parameters belong to.
    pub fn new(plan: Plan, parameters: &Parameters) -> Self {
        let lengths: Vec<i64> = parameters.learned.iter().map(|(_, tensor)| tensor.numel() as i64).collect();
        let starts = lengths.iter().scan(0, |start, length| {
            let begin = *start;
            *start += *length as usize;
            Some(begin)
        });
        let numbers = starts.zip(0..).collect();
        Self { plan, lengths, numbers }
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
        let pass = PassOver {
            plan: &self.plan,
            numbers: &self.numbers,
            // One split: its backward pass is one concatenation, not one addition for each piece.
            pieces: leaf.split_with_sizes(&self.lengths, 0),
            statistics,
            shares,
            training,
        };
        let output = pass.network(&channels_last(images));
        let features = output.mean_dim([2, 3].as_slice(), false, output.kind());
        // The classifier's weight and bias are the last tensors.
        let (weight, bias) = (&pass.pieces[self.lengths.len() - 2], &pass.pieces[self.lengths.len() - 1]);
        features.linear(&weight.view([bias.numel() as i64, -1]), Some(bias))
    }
}

/// On a GPU pixels lie apart and channels side by side: what its convolutions like.
pub(crate) fn channels_last(x: &Tensor) -> Tensor {
    if x.device() == Device::Cpu {
        return x.shallow_clone();
    }
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

impl PassOver<'_> {
    fn weight(&self, range: &std::ops::Range<usize>, dims: &[i64]) -> Tensor {
        self.pieces[self.numbers[&range.start]].view(dims)
    }

    fn network(&self, images: &Tensor) -> Tensor {
        let mut stem = Vec::new();
        for layer in &self.plan.stem {
            stem.push(self.layer(layer, stem.last().unwrap_or(images)));
        }
        let mut outputs: Vec<Tensor> = Vec::new();
        for cell in &self.plan.cells {
            let inputs = [0, 1].map(|which: usize| {
                let from = match cell.origins[which] {
                    Origin::Stem(layer) => &stem[layer],
                    Origin::Cell(cell) => &outputs[cell],
                };
                self.layer(&cell.preprocess[which], from)
            });
            let output = self.cell(cell, inputs);
            outputs.push(output);
        }
        outputs.pop().unwrap_or_else(|| images.shallow_clone())
    }

    /// Batch norm of channels whose statistics lie in these places, one after the other.
    fn norm(&self, x: &Tensor, plans: &[&NormPlan], affine: Option<(&Tensor, &Tensor)>) -> Tensor {
        let ranges = |of: &dyn Fn(&NormPlan) -> std::ops::Range<usize>| -> Vec<Tensor> {
            let narrow = |range: std::ops::Range<usize>| {
                self.statistics.narrow(0, range.start as i64, range.len() as i64)
            };
            plans.iter().map(|plan| narrow(of(plan))).collect()
        };
        let (means, variances) = (ranges(&|plan| plan.mean.clone()), ranges(&|plan| plan.variance.clone()));
        let (mean, variance) = (Tensor::cat(&means, 0), Tensor::cat(&variances, 0));
        let (scale, shift) = affine.unzip();
        let y = x.batch_norm(
            scale,
            shift,
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

    fn dense(&self, dense: &Dense, range: &std::ops::Range<usize>, x: &Tensor) -> Tensor {
        let kernel = dense.kernel as i64;
        let weight = self.weight(range, &[dense.outputs as i64, dense.input.channels as i64, kernel, kernel]);
        convolve(&shifted(x, dense.offset), &weight, dense.stride, kernel / 2, 1, 1)
    }

    fn layer(&self, layer: &LayerPlan, x: &Tensor) -> Tensor {
        let x = if layer.parts[0].0.rectify { x.relu() } else { x.shallow_clone() };
        let parts: Vec<Tensor> =
            layer.parts.iter().map(|(dense, range)| self.dense(dense, range, &x)).collect();
        let affine = layer.affine.as_ref().map(|[scale, shift]| {
            let channels = [layer.output.channels as i64];
            (self.weight(scale, &channels), self.weight(shift, &channels))
        });
        let affine = affine.as_ref().map(|(scale, shift)| (scale, shift));
        self.norm(&Tensor::cat(&parts, 1), &[&layer.norm], affine)
    }

    fn cell(&self, plan: &CellPlan, inputs: [Tensor; 2]) -> Tensor {
        let [alpha, beta] = &self.shares[plan.block];
        // β·α per edge and choice.
        let weights = alpha * beta.unsqueeze(1);
        let mut states: Vec<Tensor> = inputs.into();
        // Per node what enters it: through the operations, and around them.
        let mut through: Vec<Vec<Tensor>> = plan.incoming.iter().map(|_| Vec::new()).collect();
        let mut around: Vec<Vec<Tensor>> = plan.incoming.iter().map(|_| Vec::new()).collect();
        for state in 0..plan.incoming.len() + 2 {
            if state >= 2 {
                let node = state - 2;
                let mut parts = vec![sum(&through[node])];
                if plan.partial > 1 {
                    parts.push(sum(&around[node]));
                }
                let out = Tensor::cat(&parts, 1);
                states.push(channel_shuffle(&out, plan.partial as i64));
            }
            let leaving: Vec<usize> =
                (0..plan.edges.len()).filter(|&edge| plan.edges[edge].from == state).collect();
            if leaving.is_empty() {
                continue;
            }
            let x = &states[state];
            let part = plan.part() as i64;
            let first = x.narrow(1, 0, part);
            for (edge, term) in self.operations(plan, &leaving, &first, &weights) {
                through[plan.edges[edge].node].push(term);
            }
            if plan.partial > 1 {
                let rest = x.narrow(1, part, x.size()[1] - part);
                let rest = match plan.stride(state) {
                    1 => rest,
                    _ => rest.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false),
                };
                for &edge in &leaving {
                    around[plan.edges[edge].node].push(&rest * beta.get(edge as i64));
                }
            }
        }
        Tensor::cat(&states[2..], 1)
    }

    /// Weighted outputs of the operations of all edges that leave a state, each with its edge.
    fn operations(
        &self,
        plan: &CellPlan,
        leaving: &[usize],
        x: &Tensor,
        weights: &Tensor,
    ) -> Vec<(usize, Tensor)> {
        let stride = plan.stride(plan.edges[leaving[0]].from) as i64;
        let rectified = x.relu();
        let mut terms = Vec::new();
        // Edges that offer an operation, by what it is.
        let mut kinds: BTreeMap<String, Vec<(usize, usize, &OperationPlan)>> = BTreeMap::new();
        for &edge in leaving {
            let EdgePlan { operations, .. } = &plan.edges[edge];
            for (choice, operation) in operations {
                kinds.entry(kind(operation)).or_default().push((edge, *choice, operation));
            }
        }
        for group in kinds.values() {
            let share = |&(edge, choice, _): &(usize, usize, &OperationPlan)| {
                weights.get(edge as i64).get(choice as i64)
            };
            match group[0].2 {
                OperationPlan::Identity => {
                    terms.extend(group.iter().map(|member| (member.0, x * share(member))));
                }
                OperationPlan::Maximum(norm) | OperationPlan::Mean(norm) => {
                    let pooled = if matches!(group[0].2, OperationPlan::Maximum(_)) {
                        x.max_pool2d([3, 3], [stride; 2], [1, 1], [1, 1], false)
                    } else {
                        x.avg_pool2d([3, 3], [stride; 2], [1, 1], false, false, None::<i64>)
                    };
                    // The same values leave on every edge: one batch norm serves all, and each edge's
                    // running statistics become the first one's.
                    let y = self.norm(&pooled, &[norm], None);
                    if self.training {
                        self.copy_statistics(norm, group);
                    }
                    terms.extend(group.iter().map(|member| (member.0, &y * share(member))));
                }
                OperationPlan::Reduce(_) | OperationPlan::Separable(_) => {
                    let shares: Vec<Tensor> = group.iter().map(share).collect();
                    let y = self.convolutions(group, &rectified, &Tensor::stack(&shares, 0));
                    let each = y.chunk(group.len() as i64, 1);
                    terms.extend(group.iter().zip(each).map(|(member, term)| (member.0, term)));
                }
            }
        }
        terms
    }

    fn copy_statistics(&self, from: &NormPlan, group: &[(usize, usize, &OperationPlan)]) {
        let narrow = |range: &std::ops::Range<usize>| {
            self.statistics.narrow(0, range.start as i64, range.len() as i64)
        };
        no_grad(|| {
            for (_, _, operation) in &group[1..] {
                if let OperationPlan::Maximum(to) | OperationPlan::Mean(to) = operation {
                    narrow(&to.mean).copy_(&narrow(&from.mean));
                    narrow(&to.variance).copy_(&narrow(&from.variance));
                }
            }
        });
    }

    /// The same kind of convolution on all edges of a group, channels of edge after edge.
    fn convolutions(
        &self,
        group: &[(usize, usize, &OperationPlan)],
        rectified: &Tensor,
        shares: &Tensor,
    ) -> Tensor {
        let edges = group.len() as i64;
        let channels = rectified.size()[1];
        // β·α is the scale of the last batch norm.
        let scale = shares.repeat_interleave_self_int(channels, 0, None);
        let shift = scale.zeros_like();
        let reduces: Vec<&LayerPlan> = group
            .iter()
            .filter_map(|(_, _, operation)| match operation {
                OperationPlan::Reduce(layer) => Some(layer),
                _ => None,
            })
            .collect();
        if !reduces.is_empty() {
            let halves: Vec<Tensor> = (0..2)
                .flat_map(|half| reduces.iter().map(move |layer| (half, layer)))
                .map(|(half, layer)| self.dense(&layer.parts[half].0, &layer.parts[half].1, rectified))
                .collect();
            let (first, second) = halves.split_at(reduces.len());
            let both: Vec<Tensor> =
                first.iter().zip(second).flat_map(|(a, b)| [a.shallow_clone(), b.shallow_clone()]).collect();
            let norms: Vec<&NormPlan> = reduces.iter().map(|layer| &layer.norm).collect();
            return self.norm(&Tensor::cat(&both, 1), &norms, Some((&scale, &shift)));
        }
        let stages: Vec<&Vec<StagePlan>> = group
            .iter()
            .filter_map(|(_, _, operation)| match operation {
                OperationPlan::Separable(stages) => Some(stages),
                _ => None,
            })
            .collect();
        let count = stages[0].len();
        let mut x = rectified.repeat([1, edges, 1, 1]);
        for stage in 0..count {
            if stage > 0 {
                x = x.relu();
            }
            let window = stages[0][stage].window;
            let kernel = window.kernel as i64;
            let cat = |tensors: Vec<Tensor>| Tensor::cat(&tensors, 0);
            let depthwise = cat(stages
                .iter()
                .map(|all| self.weight(&all[stage].depthwise, &[channels, 1, kernel, kernel]))
                .collect());
            let pointwise = cat(stages
                .iter()
                .map(|all| self.weight(&all[stage].pointwise, &[channels, channels, 1, 1]))
                .collect());
            if window.step == 2 {
                x = x.slice(2, 0, None, 2).slice(3, 0, None, 2);
            }
            let padding = window.padding() as i64;
            x = convolve(&x, &depthwise, window.stride, padding, window.dilation as i64, edges * channels);
            x = convolve(&x, &pointwise, 1, 0, 1, edges);
            let norms: Vec<&NormPlan> = stages.iter().map(|all| &all[stage].norm).collect();
            let affine = (stage + 1 == count).then_some((&scale, &shift));
            x = self.norm(&x, &norms, affine);
        }
        x
    }
}

/// What operations have in common that can go together.
fn kind(operation: &OperationPlan) -> String {
    match operation {
        OperationPlan::Maximum(_) => "maximum".into(),
        OperationPlan::Mean(_) => "mean".into(),
        OperationPlan::Identity => "identity".into(),
        OperationPlan::Reduce(_) => "reduce".into(),
        OperationPlan::Separable(stages) => {
            stages.iter().map(|stage| format!("{:?} ", stage.window)).collect()
        }
    }
}

fn sum(terms: &[Tensor]) -> Tensor {
    let mut terms = terms.iter();
    let first =
        terms.next().map_or_else(|| Tensor::zeros([0], (Kind::Float, Device::Cpu)), Tensor::shallow_clone);
    terms.fold(first, |sum, term| sum + term)
}

fn shifted(x: &Tensor, offset: usize) -> Tensor {
    let (size, offset) = (x.size(), offset as i64);
    if offset == 0 {
        x.shallow_clone()
    } else {
        x.narrow(2, offset, size[2] - offset).narrow(3, offset, size[3] - offset)
    }
}

fn convolve(x: &Tensor, weight: &Tensor, stride: usize, padding: i64, dilation: i64, groups: i64) -> Tensor {
    x.conv2d(weight, None::<Tensor>, [stride as i64; 2], [padding; 2], [dilation; 2], groups)
}
