//! Gradients of the features to gradients of the weights, or of the architecture.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    context::{Context, Cursor, LayerTrace, Shares},
    forward::{CellTrace, paddings, stage_input},
    kernels::{
        Combination, Flow, Into, Padding, add_where_positive, dots, halve_back, pad, pools_back,
        separable_back,
    },
    lanes::{Element, Lanes, Plane},
    memory::{BlockMemory, CellMemory, OperationMemory},
    norm::{Norm, factors},
    plan::{CellPlan, EdgePlan, LayerPlan, OperationPlan, Origin, Plan},
};

/// What the gradient is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Weights,
    Architecture,
}

/// Gradients.
#[derive(Debug)]
pub(super) struct Gradients {
    pub want: Want,
    /// Of all learned values, in the order of the flat vector.
    pub weights: Vec<f64>,
    /// Of the probabilities, per block of the space.
    pub shares: Vec<Shares>,
}

/// A piece of the weights' gradient: where it begins, and its values.
type Piece = (usize, Vec<f64>);

impl Gradients {
    fn add(&mut self, pieces: impl IntoIterator<Item = Piece>) {
        for (start, values) in pieces {
            for (to, value) in self.weights[start..].iter_mut().zip(values) {
                *to += value;
            }
        }
    }
}

/// Per edge of a cell the sums over the batch of the gradient, and of it times what was normalised.
#[derive(Clone, Debug, Default)]
struct EdgeSums {
    /// Per channel.
    gradient: Vec<f64>,
    /// Per operation and channel.
    along: Vec<Vec<f64>>,
}

impl EdgeSums {
    fn pair(&self, operation: usize, channel: usize) -> [f64; 2] {
        [self.gradient[channel], self.along[operation][channel]]
    }
}

/// The gradient of the last cell's output is in its memory.
pub(super) fn network<T: Element>(
    context: &mut Context<'_, T>,
    plan: &Plan,
    blocks: &mut [BlockMemory<T>],
    stem: &[LayerTrace],
    cells: &[CellTrace],
    gradients: &mut Gradients,
) {
    for (index, (plan, trace)) in plan.cells.iter().zip(cells).enumerate().rev() {
        Cell { index, plan, trace }.back(context, blocks, gradients);
    }
    if gradients.want == Want::Architecture {
        return;
    }
    for (index, (layer, trace)) in plan.stem.iter().zip(stem).enumerate().rev() {
        let tasks = blocks.iter_mut().map(|block| {
            let (before, rest) = block.stem_gradients.split_at_mut(index);
            let x = if index == 0 { &block.input } else { &block.stem[index - 1].y };
            LayerTask {
                x,
                z: &block.stem[index].z,
                g: &rest[0],
                input: before.last_mut().map(Vec::as_mut_slice),
                images: block.images,
            }
        });
        let tasks = tasks.collect();
        layer_back(context, layer, trace, tasks, gradients);
    }
}

/// A layer's tensors in one block.
struct LayerTask<'a, T> {
    x: &'a [Lanes<T>],
    z: &'a [Lanes<T>],
    g: &'a [Lanes<T>],
    /// Gradient of the input, added to.
    input: Option<&'a mut [Lanes<T>]>,
    images: usize,
}

/// Input, output before the batch norm, gradient, and images of a block.
type Tensors<'a, T> = (&'a [Lanes<T>], &'a [Lanes<T>], &'a [Lanes<T>], usize);

/// Batch norm and convolution.
fn layer_back<T: Element>(
    context: &mut Context<'_, T>,
    layer: &LayerPlan,
    trace: &LayerTrace,
    mut tasks: Vec<LayerTask<'_, T>>,
    gradients: &mut Gradients,
) {
    let area = layer.output.area();
    let sums = tasks.par_iter().map(|task| {
        let pairs = task.g.par_chunks(area).zip(task.z.par_chunks(area));
        pairs.map(|(g, z)| dots(g, &[None, Some(z)], task.images)).collect::<Vec<_>>().concat()
    });
    let sums = sums.collect();
    let total = context.total(sums);
    let pairs: Vec<[f64; 2]> = total.values().chunks(2).map(|pair| [pair[0], pair[1]]).collect();
    let weights = gradients.want == Want::Weights;
    if let (true, Some([scale, shift])) = (weights, &layer.affine) {
        let along = pairs.iter().enumerate().map(|(channel, pair)| trace.norm.along(channel, *pair));
        // Every process has the whole sum, and they are added up later.
        let share = context.share();
        let along = along.map(|value| value * share).collect();
        let straight = pairs.iter().map(|pair| pair[0] * share).collect();
        gradients.add([(scale.start, along), (shift.start, straight)]);
    }
    let count = context.count(layer.output);
    let each: Vec<[f64; 3]> = (pairs.iter().enumerate())
        .map(|(channel, pair)| trace.norm.back(channel, trace.scale[channel], *pair, count))
        .collect();
    let outputs = layer.parts[0].0.outputs;
    let per_part: Vec<Vec<T>> = each.chunks(outputs).map(factors).collect();
    let inputs = layer.input();
    let chunk = context.chunk(inputs.channels, tasks.len());
    let all = context.weights;
    // Per piece of input channels and part: first channel, part, gradient.
    let piece = |task: Tensors<'_, T>, first: usize, count: usize, mut input: Option<&mut [Lanes<T>]>| {
        let (x, z, g, images) = task;
        let part = |(index, (dense, range)): (usize, &(super::kernels::Dense, Range<usize>))| {
            let channels = index * outputs * area..(index + 1) * outputs * area;
            let factors = &per_part[index];
            let flow = Flow { g: &g[channels.clone()], pitch: area, z: &z[channels], factors };
            let input = input.as_deref_mut();
            dense.backward(x, &all[range.clone()], images, flow, [first, count], input, weights)
        };
        (first, layer.parts.iter().enumerate().map(part).collect::<Vec<_>>())
    };
    let found = tasks.par_iter_mut().map(|task| {
        let tensors = (task.x, task.z, task.g, task.images);
        match task.input.as_deref_mut() {
            Some(input) => {
                let pieces = input.par_chunks_mut(chunk * inputs.area()).enumerate();
                let pieces = pieces.map(|(index, input)| {
                    let count = input.len() / inputs.area();
                    piece(tensors, index * chunk, count, Some(input))
                });
                pieces.collect::<Vec<_>>()
            }
            None => vec![piece(tensors, 0, inputs.channels, None)],
        }
    });
    for (first, parts) in found.collect::<Vec<_>>().into_iter().flatten() {
        for ((dense, range), values) in layer.parts.iter().zip(parts) {
            if values.is_empty() {
                continue;
            }
            let (taps, mine) = (dense.kernel * dense.kernel, values.len() / outputs);
            let rows = values.chunks(mine).enumerate();
            gradients.add(
                rows.map(|(output, row)| (range.start + output * dense.terms() + first * taps, row.to_vec())),
            );
        }
    }
}

/// One cell on the way back.
struct Cell<'a> {
    index: usize,
    plan: &'a CellPlan,
    trace: &'a CellTrace,
}

impl Cell<'_> {
    fn back<T: Element>(
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
            let zero = |plane: &mut Plane<T>| plane.fill(Lanes([T::default(); super::lanes::LANES]));
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

    fn weight(&self, shares: &[Shares], edge: usize, operation: usize) -> f64 {
        let shares = &shares[self.plan.block];
        shares.beta[edge] * shares.alpha[edge][self.plan.edges[edge].operations[operation].0]
    }

    /// Sums that the batch norms of a node's edges need; the architecture's gradient falls out of them.
    fn sums<T: Element>(
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

    fn learn<T: Element>(
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
    fn last<T: Element>(
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
    fn convolutions<T: Element>(
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
    fn finish<T: Element>(
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
    fn finish_state<T: Element>(
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

fn first_factors<T: Element>(norm: &Norm, cursor: &mut Cursor, channels: usize, count: f64) -> Vec<T> {
    let each: Vec<[f64; 3]> = (0..channels)
        .map(|channel| {
            let pair = cursor.take(2);
            norm.back(channel, 1.0, [pair[0], pair[1]], count)
        })
        .collect();
    factors(&each)
}

/// Output of a state.
fn state<'a, T: Element>(plan: &CellPlan, memory: &'a CellMemory<T>, state: usize) -> &'a [Lanes<T>] {
    let volume = plan.node.volume();
    match state {
        0 | 1 => &memory.preprocess[state].y,
        _ => &memory.output[(state - 2) * volume..(state - 1) * volume],
    }
}

/// What goes around the operations to channel `channel`·K + `group`.
fn around_plane<'a, T: Element>(
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

/// An edge, the gradient of its state's rectified channels, and the memory between its stages.
type EdgeMemory<'a, T> = (usize, &'a mut [Lanes<T>], &'a mut [Plane<T>]);

/// Per edge the memory that only it writes. `edges` are sorted by their states, which differ.
fn disjoint<'a, T: Element>(
    plan: &CellPlan,
    edges: &[usize],
    rectified: &'a mut [Plane<T>],
    between: &'a mut [Vec<Plane<T>>],
) -> Vec<EdgeMemory<'a, T>> {
    let states = rectified.iter_mut().enumerate().filter_map(|(state, plane)| {
        let edge = edges.iter().find(|&&edge| plan.edges[edge].from == state)?;
        let volume = plan.state(state).with_channels(plan.part()).volume();
        Some((*edge, &mut plane[..volume]))
    });
    let both = states.zip(between.iter_mut());
    both.map(|((edge, rectified), between)| (edge, rectified, between.as_mut_slice())).collect()
}

/// Convolutions of one edge in one block.
struct EdgeWork<'a, T> {
    cell: &'a Cell<'a>,
    memory: &'a CellMemory<T>,
    weights: &'a [T],
    edge: usize,
    node: usize,
    images: usize,
    want: bool,
}

impl<T: Element> EdgeWork<'_, T> {
    fn plan(&self) -> &EdgePlan {
        &self.cell.plan.edges[self.edge]
    }

    fn memory(&self) -> &[OperationMemory<T>] {
        &self.memory.edges[self.edge]
    }

    /// Gradient of the node; the channels of the part are K planes apart.
    fn gradient(&self) -> (&[Lanes<T>], usize) {
        let plan = self.cell.plan;
        let volume = plan.node.volume();
        let gradient = &self.memory.gradient[self.node * volume..(self.node + 1) * volume];
        (gradient, plan.partial * plan.node.area())
    }

    /// The last stage of every operation: second stages up to the batch norm before them, whose sums are
    /// returned; all others down to the state.
    fn outer(
        &self,
        factors: &[Vec<T>],
        rectified: &mut [Lanes<T>],
        between: &mut [Plane<T>],
    ) -> (Vec<f64>, Vec<Piece>) {
        let mut sums = Vec::new();
        let mut pieces = Vec::new();
        let (g, pitch) = self.gradient();
        let operations = self.plan().operations.iter().zip(self.memory()).enumerate();
        for (index, ((_, operation), z)) in operations {
            if let (OperationPlan::Separable(stages), [first, second]) = (operation, z.as_slice()) {
                let stage = &stages[1];
                let norm = &self.cell.trace.edges[self.edge][index][0];
                let padding = Padding { step: 1, zeros: stage.window.padding() };
                let between = &mut between[index][..first.len()];
                T::scratch(padding.of(stage.input).volume(), |padded| {
                    let (scale, shift) = norm.affines::<T>();
                    pad(first, stage.input, padding, Some((&scale, &shift)), padded);
                    let input = stage_input(self.weights, stage, Some(padded), padding, self.images);
                    let flow = Flow { g, pitch, z: second, factors: &factors[index] };
                    let found = separable_back(input, flow, Into::Rectified(between), self.want);
                    if let Some(found) = found {
                        pieces.push((stage.depthwise.start, found.depthwise));
                        pieces.push((stage.pointwise.start, found.pointwise));
                    }
                });
                let area = stage.input.area();
                for (g, z) in between.chunks(area).zip(first.chunks(area)) {
                    sums.extend(dots(g, &[None, Some(z)], self.images));
                }
            }
        }
        self.onto_state(
            1,
            |index| Flow { g, pitch, z: &self.memory()[index][0], factors: &factors[index] },
            rectified,
            &mut pieces,
        );
        let extent = self.cell.plan.state(self.plan().from).with_channels(self.cell.plan.part());
        let x = &state(self.cell.plan, self.memory, self.plan().from)[..extent.volume()];
        for (index, (_, operation)) in self.plan().operations.iter().enumerate() {
            if let OperationPlan::Reduce(layer) = operation {
                let area = layer.output.area();
                let outputs = layer.parts[0].0.outputs;
                for (half, (dense, range)) in layer.parts.iter().enumerate() {
                    let channels = half * outputs..(half + 1) * outputs;
                    let all = &factors[index];
                    let total = all.len() / 3;
                    let factors: Vec<T> = (0..3)
                        .flat_map(|which| &all[which * total..(which + 1) * total][channels.clone()])
                        .copied()
                        .collect();
                    let flow = Flow {
                        g: &g[channels.start * pitch..],
                        pitch,
                        z: &self.memory()[index][0][channels.start * area..channels.end * area],
                        factors: &factors,
                    };
                    let weight = &self.weights[range.clone()];
                    let span = [0, extent.channels];
                    let found =
                        dense.backward(x, weight, self.images, flow, span, Some(&mut *rectified), self.want);
                    if self.want {
                        pieces.push((range.start, found));
                    }
                }
            }
        }
        (sums, pieces)
    }

    /// First of two stages, down to the state.
    fn inner(&self, factors: &[Vec<T>], rectified: &mut [Lanes<T>], between: &[Plane<T>]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let pitch = self.cell.plan.node.area();
        let flow = |index: usize| {
            let z = &self.memory()[index][0];
            Flow { g: &between[index][..z.len()], pitch, z, factors: &factors[index] }
        };
        self.onto_state(2, flow, rectified, &mut pieces);
        pieces
    }

    /// First stages of the operations that have `stages` stages.
    fn onto_state<'f>(
        &'f self,
        stages: usize,
        flow: impl Fn(usize) -> Flow<'f, T>,
        rectified: &mut [Lanes<T>],
        pieces: &mut Vec<Piece>,
    ) {
        let cell = self.cell.plan;
        let extent = cell.state(self.plan().from).with_channels(cell.part());
        let x = &state(cell, self.memory, self.plan().from)[..extent.volume()];
        for padding in paddings([self.plan()]) {
            let mine = |plan: &OperationPlan| match plan {
                OperationPlan::Separable(all) => all.len() == stages && all[0].window.step == padding.step,
                _ => false,
            };
            if !self.plan().operations.iter().any(|(_, plan)| mine(plan)) {
                continue;
            }
            // Without the weights' gradients nothing depends on the input itself.
            let volume = if self.want { padding.of(extent).volume() } else { 0 };
            T::scratch(volume, |padded| {
                if self.want {
                    pad(x, extent, padding, None, padded);
                }
                let padded = self.want.then_some(&*padded);
                for (index, (_, operation)) in self.plan().operations.iter().enumerate() {
                    let OperationPlan::Separable(all) = operation else { continue };
                    if !mine(operation) {
                        continue;
                    }
                    let input = stage_input(self.weights, &all[0], padded, padding, self.images);
                    let found = separable_back(input, flow(index), Into::Sum(rectified), self.want);
                    if let Some(found) = found {
                        pieces.push((all[0].depthwise.start, found.depthwise));
                        pieces.push((all[0].pointwise.start, found.pointwise));
                    }
                }
            });
        }
    }
}
