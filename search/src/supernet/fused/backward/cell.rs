//! The gradient of one cell.

use rayon::prelude::*;

use super::{
    EdgeSums, Gradients, LayerTask, Piece, Want,
    edge::{EdgeWork, disjoint},
    layer_back,
};
use crate::supernet::fused::{
    context::{Context, Cursor, Shares},
    forward::CellTrace,
    kernels::{Combination, add_where_positive, dots, halve_back, pools_back},
    lanes::{Element, LANES, Lanes, Plane},
    memory::{BlockMemory, CellMemory},
    norm::{Norm, factors},
    plan::{CellPlan, OperationPlan, Origin},
};

/// One cell on the way back.
pub(super) struct Cell<'a> {
    pub(super) index: usize,
    pub(super) plan: &'a CellPlan,
    pub(super) trace: &'a CellTrace,
}

impl Cell<'_> {
    pub(super) fn back<T: Element>(
        &self,
        context: &mut Context<'_, T>,
        blocks: &mut [BlockMemory<T>],
        gradients: &mut Gradients,
    ) {
        let plan = self.plan;
        // The architecture's gradient ends where no earlier cell is.
        let wanted =
            |which: usize| gradients.want == Want::Weights || matches!(plan.origins[which], Origin::Cell(_));
        let inputs = [wanted(0), wanted(1)];
        let enters = |state: usize| state >= 2 || inputs[state];
        blocks.par_iter_mut().for_each(|block| {
            let zero = |plane: &mut Plane<T>| plane.fill(Lanes([T::default(); LANES]));
            block.back.inputs.iter_mut().for_each(zero);
            block.back.rectified.iter_mut().for_each(zero);
        });
        let mut sums: Vec<EdgeSums> = vec![EdgeSums::default(); plan.edges.len()];
        for node in (0..plan.incoming.len()).rev() {
            if plan.edges.iter().any(|edge| edge.from == node + 2) {
                self.finish(context, blocks, &[node + 2], &sums);
            }
            self.sums(context, blocks, node, &mut sums, gradients);
            // In the order of the states that they start from.
            let mut edges: Vec<usize> = plan.incoming[node].clone();
            edges.sort_by_key(|&edge| plan.edges[edge].from);
            edges.retain(|&edge| enters(plan.edges[edge].from));
            self.convolutions(context, blocks, node, &edges, &sums, gradients);
        }
        let states: Vec<usize> = (0..2).filter(|&state| inputs[state]).collect();
        self.finish(context, blocks, &states, &sums);
        for which in states {
            let layer = &plan.preprocess[which];
            let tasks = blocks.iter_mut().map(|block| {
                let BlockMemory { input: _, stem, stem_gradients, cells, back, images } = block;
                let (before, rest) = cells.split_at_mut(self.index);
                let (x, input) = match plan.origins[which] {
                    Origin::Stem(layer) => (&stem[layer].y, &mut stem_gradients[layer]),
                    Origin::Cell(cell) => {
                        let CellMemory { output, gradient, .. } = &mut before[cell];
                        (&*output, gradient)
                    }
                };
                LayerTask {
                    x,
                    z: &rest[0].preprocess[which].z,
                    g: &back.inputs[which][..plan.input.volume()],
                    input: Some(input.as_mut_slice()),
                    images: *images,
                }
            });
            let tasks = tasks.collect();
            layer_back(context, layer, &self.trace.preprocess[which], tasks, gradients);
        }
    }

    pub(super) fn weight(&self, shares: &[Shares], edge: usize, operation: usize) -> f64 {
        let shares = &shares[self.plan.block];
        shares.beta[edge] * shares.alpha[edge][self.plan.edges[edge].operations[operation].0]
    }

    /// Sums that the batch norms of a node's edges need; the architecture's gradient falls out of them.
    pub(super) fn sums<T: Element>(
        &self,
        context: &mut Context<'_, T>,
        blocks: &mut [BlockMemory<T>],
        node: usize,
        sums: &mut [EdgeSums],
        gradients: &mut Gradients,
    ) {
        let plan = self.plan;
        let (area, volume, part) = (plan.node.area(), plan.node.volume(), plan.part());
        let learn = gradients.want == Want::Architecture;
        let of_edge = |block: &BlockMemory<T>, edge: usize| -> Vec<f64> {
            let memory = &block.cells[self.index];
            let gradient = &memory.gradient[node * volume..(node + 1) * volume];
            let from = plan.edges[edge].from;
            let state = state(plan, memory, from);
            let mut found = Vec::new();
            let mut around = 0.0;
            for channel in 0..part {
                let plane = channel * area..(channel + 1) * area;
                let at = channel * plan.partial * area;
                let g = &gradient[at..at + area];
                let mut sources: Vec<Option<&[Lanes<T>]>> = vec![None];
                for (operation, (_, kind)) in plan.edges[edge].operations.iter().enumerate() {
                    let source = match kind {
                        OperationPlan::Identity => state,
                        OperationPlan::Maximum(_) => &memory.states[from].maximum,
                        OperationPlan::Mean(_) => &memory.states[from].mean,
                        OperationPlan::Reduce(_) => &memory.edges[edge][operation][0],
                        OperationPlan::Separable(stages) => &memory.edges[edge][operation][stages.len() - 1],
                    };
                    sources.push(Some(&source[plane.clone()]));
                }
                found.extend(dots(g, &sources, block.images));
                if learn {
                    for group in 1..plan.partial {
                        let at = (channel * plan.partial + group) * area;
                        let source = around_plane(plan, memory, state, from, group, channel);
                        around += dots(&gradient[at..at + area], &[Some(source)], block.images)[0];
                    }
                }
            }
            found.push(around);
            found
        };
        let blocks = &*blocks;
        let found = blocks.par_iter().map(|block| {
            let edges = plan.incoming[node].par_iter().map(|&edge| of_edge(block, edge));
            edges.collect::<Vec<_>>().concat()
        });
        let found = found.collect();
        let mut cursor = context.total(found);
        for &edge in &plan.incoming[node] {
            let operations = plan.edges[edge].operations.len();
            let mut here =
                EdgeSums { gradient: Vec::new(), along: vec![Vec::with_capacity(part); operations] };
            for _ in 0..part {
                let values = cursor.take(1 + operations);
                here.gradient.push(values[0]);
                for (along, value) in here.along.iter_mut().zip(&values[1..]) {
                    along.push(*value);
                }
            }
            let around = cursor.take(1)[0];
            if learn {
                self.learn(context, edge, &here, around, gradients);
            }
            sums[edge] = here;
        }
    }

    pub(super) fn learn<T: Element>(
        &self,
        context: &Context<'_, T>,
        edge: usize,
        sums: &EdgeSums,
        around: f64,
        gradients: &mut Gradients,
    ) {
        let shares = &context.shares[self.plan.block];
        let to = &mut gradients.shares[self.plan.block];
        // Every process has the whole sum, and they are added up later.
        let share = context.share();
        to.beta[edge] += around * share;
        for (operation, (choice, _)) in self.plan.edges[edge].operations.iter().enumerate() {
            let along: f64 = (0..self.plan.part())
                .map(|channel| match self.trace.edges[edge][operation].last() {
                    Some(norm) => norm.along(channel, sums.pair(operation, channel)),
                    None => sums.along[operation][channel],
                })
                .sum();
            to.alpha[edge][*choice] += share * shares.beta[edge] * along;
            to.beta[edge] += share * shares.alpha[edge][*choice] * along;
        }
    }

    /// Factors of the last batch norm of an operation.
    pub(super) fn last<T: Element>(
        &self,
        context: &Context<'_, T>,
        edge: usize,
        operation: usize,
        sums: &EdgeSums,
    ) -> Vec<[f64; 3]> {
        let weight = self.weight(context.shares, edge, operation);
        let count = context.count(self.plan.node);
        let norms = &self.trace.edges[edge][operation];
        let norm = &norms[norms.len() - 1];
        (0..self.plan.part())
            .map(|channel| norm.back(channel, weight, sums.pair(operation, channel), count))
            .collect()
    }

    /// Gradients of the convolutions of a node's edges.
    pub(super) fn convolutions<T: Element>(
        &self,
        context: &mut Context<'_, T>,
        blocks: &mut [BlockMemory<T>],
        node: usize,
        edges: &[usize],
        sums: &[EdgeSums],
        gradients: &mut Gradients,
    ) {
        let plan = self.plan;
        let weights = context.weights;
        let want = gradients.want == Want::Weights;
        // Per edge and operation the factors of the last batch norm.
        let last: Vec<Vec<Vec<T>>> = (edges.iter())
            .map(|&edge| {
                (0..plan.edges[edge].operations.len())
                    .map(|operation| {
                        let normed = !self.trace.edges[edge][operation].is_empty();
                        let each = || self.last(context, edge, operation, &sums[edge]);
                        if normed { factors(&each()) } else { Vec::new() }
                    })
                    .collect()
            })
            .collect();
        let outer = |block: &mut BlockMemory<T>| {
            let images = block.images;
            let memory = &block.cells[self.index];
            let each = disjoint(plan, edges, &mut block.back.rectified, &mut block.back.between);
            let done = each.into_par_iter().enumerate().map(|(position, (edge, rectified, between))| {
                let work = EdgeWork { cell: self, memory, weights, edge, node, images, want };
                work.outer(&last[position], rectified, between)
            });
            done.collect::<Vec<_>>()
        };
        let done: Vec<Vec<(Vec<f64>, Vec<Piece>)>> = blocks.par_iter_mut().map(outer).collect();
        let mut inner_sums = Vec::new();
        for block in done {
            let mut sums = Vec::new();
            for (edge, pieces) in block {
                sums.extend(edge);
                gradients.add(pieces);
            }
            inner_sums.push(sums);
        }
        let mut cursor = context.total(inner_sums);
        // Per edge and operation the factors of the first of two batch norms.
        let count = context.count(plan.node);
        let first: Vec<Vec<Vec<T>>> = (edges.iter())
            .map(|&edge| {
                (self.trace.edges[edge].iter())
                    .map(|norms| match norms.as_slice() {
                        [norm, _] => first_factors(norm, &mut cursor, plan.part(), count),
                        _ => Vec::new(),
                    })
                    .collect()
            })
            .collect();
        let inner = |block: &mut BlockMemory<T>| {
            let images = block.images;
            let memory = &block.cells[self.index];
            let each = disjoint(plan, edges, &mut block.back.rectified, &mut block.back.between);
            let done = each.into_par_iter().enumerate().map(|(position, (edge, rectified, between))| {
                let work = EdgeWork { cell: self, memory, weights, edge, node, images, want };
                work.inner(&first[position], rectified, between)
            });
            done.collect::<Vec<_>>()
        };
        let done: Vec<Vec<Vec<Piece>>> = blocks.par_iter_mut().map(inner).collect();
        gradients.add(done.into_iter().flatten().flatten());
    }

    /// Gathers the gradient of states from everything that left them.
    pub(super) fn finish<T: Element>(
        &self,
        context: &Context<'_, T>,
        blocks: &mut [BlockMemory<T>],
        states: &[usize],
        sums: &[EdgeSums],
    ) {
        let plan = self.plan;
        let volume = plan.node.volume();
        blocks.par_iter_mut().for_each(|block| {
            let memory = &mut block.cells[self.index];
            // The gradient of a node lies before those of the nodes that it enters.
            let mut gradient = std::mem::take(&mut memory.gradient);
            {
                let memory = &*memory;
                let back = &mut block.back;
                match states {
                    [state] if *state >= 2 => {
                        let (before, after) = gradient.split_at_mut((state - 1) * volume);
                        let d = &mut before[(state - 2) * volume..];
                        self.finish_state(
                            context,
                            memory,
                            *state,
                            (state - 1, after),
                            &back.rectified,
                            d,
                            sums,
                        );
                    }
                    _ => {
                        let rectified = &back.rectified;
                        let inputs = back.inputs.par_iter_mut().enumerate();
                        inputs.filter(|(state, _)| states.contains(state)).for_each(|(state, d)| {
                            let d = &mut d[..plan.input.volume()];
                            self.finish_state(context, memory, state, (0, &gradient), rectified, d, sums);
                        });
                    }
                }
            }
            memory.gradient = gradient;
        });
    }

    /// `after`: first node of the gradients that follow, and they.
    #[expect(
        clippy::too_many_arguments,
        clippy::many_single_char_names,
        reason = "what a state's gradient is made of, in the letters of the formulas"
    )]
    pub(super) fn finish_state<T: Element>(
        &self,
        context: &Context<'_, T>,
        memory: &CellMemory<T>,
        state: usize,
        (first, after): (usize, &[Lanes<T>]),
        rectified: &[Plane<T>],
        d: &mut [Lanes<T>],
        sums: &[EdgeSums],
    ) {
        let plan = self.plan;
        let (area, volume, part) = (plan.node.area(), plan.node.volume(), plan.part());
        let extent = plan.state(state).with_channels(part);
        let x = self::state(plan, memory, state);
        let leaving: Vec<usize> =
            (0..plan.edges.len()).filter(|&edge| plan.edges[edge].from == state).collect();
        let gradient = |edge: usize, channel: usize| -> &[Lanes<T>] {
            let at = (plan.edges[edge].node - first) * volume + channel * area;
            &after[at..at + area]
        };
        let (d_part, d_rest) = d.split_at_mut(extent.volume());
        let through = || {
            for (channel, d) in d_part.chunks_mut(extent.area()).enumerate() {
                let mut sum = Combination::new(extent.area());
                for &edge in &leaving {
                    for (operation, (_, kind)) in plan.edges[edge].operations.iter().enumerate() {
                        if matches!(kind, OperationPlan::Identity) {
                            let weight = self.weight(context.shares, edge, operation);
                            sum.add(weight, gradient(edge, channel * plan.partial));
                        }
                    }
                }
                sum.add_to(d);
            }
            add_where_positive(d_part, &rectified[state][..extent.volume()], &x[..extent.volume()]);
            T::scratch(2 * part * area, |scratch| {
                let (of_maximum, of_mean) = scratch.split_at_mut(part * area);
                let shared = &memory.states[state];
                let pooled = [(of_maximum, &shared.maximum, true), (of_mean, &shared.mean, false)];
                let [of_maximum, of_mean] = pooled.map(|(out, z, maximum)| {
                    for channel in 0..part {
                        let plane = channel * area..(channel + 1) * area;
                        let mut sum = Combination::new(area);
                        for &edge in &leaving {
                            for (operation, (_, kind)) in plan.edges[edge].operations.iter().enumerate() {
                                let wanted = match kind {
                                    OperationPlan::Maximum(_) => maximum,
                                    OperationPlan::Mean(_) => !maximum,
                                    _ => false,
                                };
                                if !wanted {
                                    continue;
                                }
                                let weight = self.weight(context.shares, edge, operation);
                                let pair = sums[edge].pair(operation, channel);
                                let norm = &self.trace.edges[edge][operation][0];
                                let [a, b, c] = norm.back(channel, weight, pair, context.count(plan.node));
                                sum.add(a, gradient(edge, channel * plan.partial));
                                sum.add(b, &z[plane.clone()]);
                                sum.shift(c);
                            }
                        }
                        sum.write(&mut out[plane]);
                    }
                    &*out
                });
                let stride = plan.stride(state);
                let x = &x[..extent.volume()];
                pools_back(x, extent, stride, &shared.maximum, [of_maximum, of_mean], d_part);
            });
        };
        let around = || {
            let rest = extent.with_channels(plan.node.channels - part);
            if rest.channels == 0 {
                return;
            }
            // Channel g·part + c of the state came out as channel c·K + g.
            let sum_of = |channel: usize| {
                let (group, c) = (channel / part + 1, channel % part);
                let mut sum = Combination::new(area);
                for &edge in &leaving {
                    let beta = context.shares[plan.block].beta[edge];
                    sum.add(beta, gradient(edge, c * plan.partial + group));
                }
                sum
            };
            if plan.stride(state) == 1 {
                let planes = d_rest.chunks_mut(area).enumerate();
                planes.for_each(|(channel, d)| sum_of(channel).add_to(d));
            } else {
                T::scratch(rest.channels * area, |scratch| {
                    let planes = scratch.chunks_mut(area).enumerate();
                    planes.for_each(|(channel, out)| sum_of(channel).write(out));
                    let x = &x[extent.volume()..];
                    halve_back(x, rest, &memory.states[state].halved, scratch, d_rest);
                });
            }
        };
        rayon::join(through, around);
    }
}

pub(super) fn first_factors<T: Element>(
    norm: &Norm,
    cursor: &mut Cursor,
    channels: usize,
    count: f64,
) -> Vec<T> {
    let each: Vec<[f64; 3]> = (0..channels)
        .map(|channel| {
            let pair = cursor.take(2);
            norm.back(channel, 1.0, [pair[0], pair[1]], count)
        })
        .collect();
    factors(&each)
}

/// Output of a state.
pub(super) fn state<'a, T: Element>(
    plan: &CellPlan,
    memory: &'a CellMemory<T>,
    state: usize,
) -> &'a [Lanes<T>] {
    let volume = plan.node.volume();
    match state {
        0 | 1 => &memory.preprocess[state].y,
        _ => &memory.output[(state - 2) * volume..(state - 1) * volume],
    }
}

/// What goes around the operations to channel `channel`·K + `group`.
pub(super) fn around_plane<'a, T: Element>(
    plan: &CellPlan,
    memory: &'a CellMemory<T>,
    state: &'a [Lanes<T>],
    from: usize,
    group: usize,
    channel: usize,
) -> &'a [Lanes<T>] {
    let (area, part) = (plan.node.area(), plan.part());
    if plan.stride(from) == 1 {
        let at = (group * part + channel) * area;
        &state[at..at + area]
    } else {
        let at = ((group - 1) * part + channel) * area;
        &memory.states[from].halved[at..at + area]
    }
}
