//! Gradients of the features to gradients of the weights, or of the architecture.

mod cell;
mod edge;

use std::ops::Range;

use rayon::prelude::*;

use self::cell::Cell;
use super::{
    context::{Context, LayerTrace, Shares},
    forward::CellTrace,
    kernels::{Flow, dots},
    lanes::{Element, Lanes},
    memory::BlockMemory,
    norm::factors,
    plan::{LayerPlan, Plan},
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
