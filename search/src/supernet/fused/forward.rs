//! Images to features.

use rayon::prelude::*;

use super::{
    context::{Context, Cursor, LayerTrace, OperationTrace},
    kernels::{Combination, Extent, Padding, SeparableInput, halve, pad, pools, separable},
    lanes::{Element, Lanes},
    memory::{BlockMemory, CellMemory, LayerMemory, OperationMemory, StateMemory},
    plan::{CellPlan, EdgePlan, LayerPlan, OperationPlan, Origin, StagePlan},
};

/// A layer's input and memory in one block.
struct LayerTask<'a, T> {
    x: &'a [Lanes<T>],
    memory: &'a mut LayerMemory<T>,
    images: usize,
}

/// Norms of everything that a cell computed.
#[derive(Debug)]
pub(super) struct CellTrace {
    pub preprocess: [LayerTrace; 2],
    /// Per edge and operation.
    pub edges: Vec<Vec<OperationTrace>>,
}

/// The stem's layers.
pub(super) fn stem<T: Element>(
    context: &mut Context<'_, T>,
    layers: &[LayerPlan],
    blocks: &mut [BlockMemory<T>],
) -> Vec<LayerTrace> {
    let mut traces = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let tasks = blocks.iter_mut().map(|block| {
            let (before, rest) = block.stem.split_at_mut(index);
            let x = before.last().map_or(&block.input[..], |before| &before.y);
            LayerTask { x, memory: &mut rest[0], images: block.images }
        });
        let tasks = tasks.collect();
        traces.push(forward_layer(context, layer, tasks));
    }
    traces
}

/// Convolution and batch norm of all blocks.
fn forward_layer<T: Element>(
    context: &mut Context<'_, T>,
    layer: &LayerPlan,
    mut tasks: Vec<LayerTask<'_, T>>,
) -> LayerTrace {
    let weights = context.weights;
    let area = layer.output.area();
    let chunk = context.chunk(layer.parts[0].0.outputs, tasks.len()) * area;
    let convolve = |task: &mut LayerTask<'_, T>| -> Vec<f64> {
        let mut sums = Vec::new();
        let part = task.memory.z.len() / layer.parts.len();
        for ((dense, weight), z) in layer.parts.iter().zip(task.memory.z.chunks_mut(part)) {
            let weight = &weights[weight.clone()];
            let (x, images) = (task.x, task.images);
            let each = z
                .par_chunks_mut(chunk)
                .enumerate()
                .map(|(index, z)| dense.forward(x, weight, images, index * chunk / area, z));
            sums.extend(each.collect::<Vec<_>>().concat());
        }
        sums
    };
    let sums = tasks.par_iter_mut().map(convolve).collect();
    let mut cursor = context.total(sums);
    let norm = context.norm(&layer.norm, &mut cursor, layer.output);
    let (scale, shift) = context.affine(layer);
    let channels: Vec<[f64; 2]> = (0..layer.output.channels)
        .map(|channel| {
            let [a, b] = norm.affine(channel);
            [scale[channel] * a, scale[channel] * b + shift[channel]]
        })
        .collect();
    tasks.par_iter_mut().for_each(|task| {
        let LayerMemory { z, y } = &mut *task.memory;
        let each = y.par_chunks_mut(area).zip(z.par_chunks(area)).zip(&channels);
        each.for_each(|((y, z), [a, b])| {
            let mut combination = Combination::new(area);
            combination.add(*a, z);
            combination.shift(*b);
            combination.write(y);
        });
    });
    LayerTrace { norm, scale }
}

/// One cell.
pub(super) fn cell<T: Element>(
    context: &mut Context<'_, T>,
    index: usize,
    plan: &CellPlan,
    blocks: &mut [BlockMemory<T>],
) -> CellTrace {
    let preprocess = [0, 1].map(|which: usize| {
        let tasks = blocks.iter_mut().map(|block| {
            let (before, rest) = block.cells.split_at_mut(index);
            let x = match plan.origins[which] {
                Origin::Stem(layer) => &block.stem[layer].y,
                Origin::Cell(cell) => &before[cell].output,
            };
            LayerTask { x, memory: &mut rest[0].preprocess[which], images: block.images }
        });
        let tasks = tasks.collect();
        forward_layer(context, &plan.preprocess[which], tasks)
    });
    let mut trace = CellTrace { preprocess, edges: plan.edges.iter().map(|_| Vec::new()).collect() };
    // Both inputs leave at once; then node after node.
    let mut ready = 0..2;
    for node in 0..plan.incoming.len() {
        leave(context, index, plan, blocks, ready, &mut trace);
        combine(context, index, plan, blocks, node, &trace);
        ready = node + 2..node + 3;
    }
    trace
}

/// Everything that the edges leaving some states compute.
fn leave<T: Element>(
    context: &mut Context<'_, T>,
    index: usize,
    plan: &CellPlan,
    blocks: &mut [BlockMemory<T>],
    ready: std::ops::Range<usize>,
    trace: &mut CellTrace,
) {
    let weights = context.weights;
    let states: Vec<usize> =
        ready.clone().filter(|state| plan.edges.iter().any(|edge| edge.from == *state)).collect();
    let first = |block: &mut BlockMemory<T>| -> Vec<f64> {
        let images = block.images;
        let CellMemory { preprocess, output, edges, states: shared, .. } = &mut block.cells[index];
        let (preprocess, output) = (&*preprocess, &*output);
        let state = |state: usize| -> &[Lanes<T>] {
            let volume = plan.node.volume();
            match state {
                0 | 1 => &preprocess[state].y,
                _ => &output[(state - 2) * volume..(state - 1) * volume],
            }
        };
        // All edges of a state share its rectified, padded channels.
        let mut sums: Vec<Vec<f64>> = vec![Vec::new(); edges.len()];
        for &from in &states {
            let extent = plan.state(from).with_channels(plan.part());
            let x = &state(from)[..extent.volume()];
            with_padded(x, extent, &paddings(plan.edges.iter().filter(|edge| edge.from == from)), |padded| {
                let mine = edges.par_iter_mut().zip(&plan.edges).zip(&mut sums);
                mine.filter(|((_, edge), _)| edge.from == from).for_each(|((memory, edge), sums)| {
                    *sums = first_stage(weights, edge, memory, x, padded, images);
                });
            });
        }
        let pooled: Vec<Vec<f64>> = (shared.par_iter_mut().enumerate())
            .filter(|(from, _)| states.contains(from))
            .map(|(from, memory)| pool(plan, from, memory, state(from), images))
            .collect();
        sums.extend(pooled);
        sums.concat()
    };
    let sums = blocks.par_iter_mut().map(first).collect();
    let mut cursor = context.total(sums);
    let leaving: Vec<usize> =
        (0..plan.edges.len()).filter(|edge| ready.contains(&plan.edges[*edge].from)).collect();
    let part = plan.node.with_channels(plan.part());
    for &edge in &leaving {
        for (_, operation) in &plan.edges[edge].operations {
            let norms = match operation {
                OperationPlan::Separable(stages) => {
                    let extent = stages[0].window.output(stages[0].input);
                    vec![context.norm(&stages[0].norm, &mut cursor, extent)]
                }
                OperationPlan::Reduce(layer) => vec![context.norm(&layer.norm, &mut cursor, layer.output)],
                _ => Vec::new(),
            };
            trace.edges[edge].push(norms);
        }
    }
    for state in states {
        let sums = Cursor::new(cursor.take(4 * part.channels).to_vec());
        let of = |which: usize| -> Vec<f64> {
            sums.values().chunks(4).flat_map(|four| four[2 * which..2 * which + 2].to_vec()).collect()
        };
        let (maximum, mean) = (of(0), of(1));
        for &edge in leaving.iter().filter(|edge| plan.edges[**edge].from == state) {
            for (operation, (_, plan)) in plan.edges[edge].operations.iter().enumerate() {
                let (norm, sums) = match plan {
                    OperationPlan::Maximum(norm) => (norm, &maximum),
                    OperationPlan::Mean(norm) => (norm, &mean),
                    _ => continue,
                };
                let norm = context.norm(norm, &mut Cursor::new(sums.clone()), part);
                trace.edges[edge][operation].push(norm);
            }
        }
    }

    // Second stages, on the normalised first ones.
    let traced = &trace.edges;
    let second = |block: &mut BlockMemory<T>| -> Vec<f64> {
        let images = block.images;
        let edges = block.cells[index].edges.par_iter_mut().enumerate();
        let sums: Vec<Vec<f64>> = edges
            .filter(|(edge, _)| ready.contains(&plan.edges[*edge].from))
            .map(|(edge, memory)| second_stage(weights, &plan.edges[edge], memory, &traced[edge], images))
            .collect();
        sums.concat()
    };
    let sums = blocks.par_iter_mut().map(second).collect();
    let mut cursor = context.total(sums);
    for edge in leaving {
        for (operation, (_, plan)) in plan.edges[edge].operations.iter().enumerate() {
            if let OperationPlan::Separable(stages) = plan
                && let Some(stage) = stages.get(1)
            {
                let norm = context.norm(&stage.norm, &mut cursor, stage.input);
                trace.edges[edge][operation].push(norm);
            }
        }
    }
}

/// Paddings that the first stages of these edges' convolutions need: one per step, wide enough for all.
pub(super) fn paddings<'e>(edges: impl IntoIterator<Item = &'e EdgePlan>) -> Vec<Padding> {
    let mut paddings: Vec<Padding> = Vec::new();
    for (_, operation) in edges.into_iter().flat_map(|edge| &edge.operations) {
        if let OperationPlan::Separable(stages) = operation {
            let (step, zeros) = (stages[0].window.step, stages[0].window.padding());
            match paddings.iter_mut().find(|padding| padding.step == step) {
                Some(padding) => padding.zeros = padding.zeros.max(zeros),
                None => paddings.push(Padding { step, zeros }),
            }
        }
    }
    paddings
}

/// A rectified, padded input, and how it is padded.
type Padded<'a, T> = (Padding, &'a [Lanes<T>]);

/// Lends an input in all these paddings.
fn with_padded<T: Element, R>(
    x: &[Lanes<T>],
    extent: Extent,
    paddings: &[Padding],
    work: impl FnOnce(&[Padded<'_, T>]) -> R,
) -> R {
    let volumes: Vec<usize> = paddings.iter().map(|padding| padding.of(extent).volume()).collect();
    T::scratch(volumes.iter().sum(), |mut rest| {
        let mut padded = Vec::with_capacity(paddings.len());
        for (padding, volume) in paddings.iter().zip(volumes) {
            let (out, after) = rest.split_at_mut(volume);
            pad(x, extent, *padding, None, out);
            padded.push((*padding, &*out));
            rest = after;
        }
        work(&padded)
    })
}

/// A stage's input for the kernels.
pub(super) fn stage_input<'a, T: Element>(
    weights: &'a [T],
    stage: &StagePlan,
    padded: Option<&'a [Lanes<T>]>,
    padding: Padding,
    images: usize,
) -> SeparableInput<'a, T> {
    SeparableInput {
        window: stage.window,
        extent: stage.input,
        padded,
        padding,
        depthwise: &weights[stage.depthwise.clone()],
        pointwise: &weights[stage.pointwise.clone()],
        images,
    }
}

/// First stages of an edge's convolutions; returns their sums in the order of the operations. `x` is the
/// part of the state that passes through them.
fn first_stage<T: Element>(
    weights: &[T],
    edge: &EdgePlan,
    memory: &mut [OperationMemory<T>],
    x: &[Lanes<T>],
    padded: &[Padded<'_, T>],
    images: usize,
) -> Vec<f64> {
    let operations = memory.par_iter_mut().zip(&edge.operations);
    let sums = operations.map(|(memory, (_, operation))| match operation {
        OperationPlan::Separable(stages) => {
            let stage = &stages[0];
            let found = padded.iter().find(|(padding, _)| padding.step == stage.window.step);
            found.map_or_else(Vec::new, |(padding, padded)| {
                let input = stage_input(weights, stage, Some(padded), *padding, images);
                separable(input, &mut memory[0])
            })
        }
        OperationPlan::Reduce(layer) => {
            let half = memory[0].len() / layer.parts.len();
            let parts = layer.parts.iter().zip(memory[0].chunks_mut(half));
            parts
                .flat_map(|((dense, weight), z)| dense.forward(x, &weights[weight.clone()], images, 0, z))
                .collect()
        }
        OperationPlan::Maximum(_) | OperationPlan::Mean(_) | OperationPlan::Identity => Vec::new(),
    });
    sums.collect::<Vec<_>>().concat()
}

/// Second stages of an edge's convolutions; returns their sums in the order of the operations.
fn second_stage<T: Element>(
    weights: &[T],
    edge: &EdgePlan,
    memory: &mut [OperationMemory<T>],
    trace: &[OperationTrace],
    images: usize,
) -> Vec<f64> {
    let operations = memory.par_iter_mut().zip(&edge.operations).zip(trace);
    let sums = operations.map(|((memory, (_, operation)), norms)| match (operation, memory.as_mut_slice()) {
        (OperationPlan::Separable(stages), [first, second]) => {
            let stage = &stages[1];
            let padding = Padding { step: 1, zeros: stage.window.padding() };
            T::scratch(padding.of(stage.input).volume(), |padded| {
                let (scale, shift) = norms[0].affines::<T>();
                pad(first, stage.input, padding, Some((&scale, &shift)), padded);
                separable(stage_input(weights, stage, Some(padded), padding, images), second)
            })
        }
        _ => Vec::new(),
    });
    sums.collect::<Vec<_>>().concat()
}

/// Pools of a state's first channels, and the others halved; returns the pools' sums.
fn pool<T: Element>(
    plan: &CellPlan,
    from: usize,
    memory: &mut StateMemory<T>,
    state: &[Lanes<T>],
    images: usize,
) -> Vec<f64> {
    let extent = plan.state(from).with_channels(plan.part());
    let (part, rest) = state.split_at(extent.volume());
    let stride = plan.stride(from);
    if stride == 2 && !rest.is_empty() {
        let channels = plan.node.channels - plan.part();
        halve(rest, extent.with_channels(channels), &mut memory.halved);
    }
    pools(part, extent, stride, images, &mut memory.maximum, &mut memory.mean)
}

/// The weighted sum of everything that enters a node.
fn combine<T: Element>(
    context: &Context<'_, T>,
    index: usize,
    plan: &CellPlan,
    blocks: &mut [BlockMemory<T>],
    node: usize,
    trace: &CellTrace,
) {
    let (area, part, volume) = (plan.node.area(), plan.part(), plan.node.volume());
    let shares = &context.shares[plan.block];
    blocks.par_iter_mut().for_each(|block| {
        let CellMemory { preprocess, output, edges, states, .. } = &mut block.cells[index];
        let (before, rest) = output.split_at_mut(node * volume);
        let state = |state: usize| -> &[Lanes<T>] {
            match state {
                0 | 1 => &preprocess[state].y,
                _ => &before[(state - 2) * volume..(state - 1) * volume],
            }
        };
        // Channel c of the part comes out as channel c·K; the shuffle puts the others of its group behind it.
        let groups = rest[..volume].par_chunks_mut(plan.partial * area).enumerate();
        groups.for_each(|(channel, out)| {
            let plane = channel * area..(channel + 1) * area;
            let (first, others) = out.split_at_mut(area);
            let mut sum = Combination::new(area);
            for &edge in &plan.incoming[node] {
                let from = plan.edges[edge].from;
                for (operation, (choice, kind)) in plan.edges[edge].operations.iter().enumerate() {
                    let weight = shares.beta[edge] * shares.alpha[edge][*choice];
                    let source = match kind {
                        OperationPlan::Identity => {
                            sum.add(weight, &state(from)[plane.clone()]);
                            continue;
                        }
                        OperationPlan::Maximum(_) => &states[from].maximum,
                        OperationPlan::Mean(_) => &states[from].mean,
                        OperationPlan::Reduce(_) => &edges[edge][operation][0],
                        OperationPlan::Separable(stages) => &edges[edge][operation][stages.len() - 1],
                    };
                    let norms = &trace.edges[edge][operation];
                    let [scale, shift] = norms[norms.len() - 1].affine(channel);
                    sum.add(weight * scale, &source[plane.clone()]);
                    sum.shift(weight * shift);
                }
            }
            sum.write(first);
            for (group, out) in (1..).zip(others.chunks_mut(area)) {
                let mut sum = Combination::new(area);
                for &edge in &plan.incoming[node] {
                    let from = plan.edges[edge].from;
                    let at = (group * part + channel) * area;
                    let source = if plan.stride(from) == 1 {
                        &state(from)[at..at + area]
                    } else {
                        let at = at - part * area;
                        &states[from].halved[at..at + area]
                    };
                    sum.add(shares.beta[edge], source);
                }
                sum.write(out);
            }
        });
    });
}
