//! The supernet as a handful of kernels over blocks of sixteen images, with a backward pass of its own.
//!
//! The mathematics is that of the plain supernet, to the last digit but rounding; what differs is the
//! order of work:
//!
//! - a gradient is computed for the weights *or* for the architecture, never for both, and the
//!   architecture's falls out of the sums that batch norms need anyway;
//! - all edges that leave a state share its rectification, pools and bypass; `none` is not computed;
//! - depthwise and pointwise convolution run row by row in one kernel, with the statistics of the batch
//!   norm; the batch norm itself, β·α, the sum over edges and operations, concatenation and shuffle
//!   are one weighted sum per node;
//! - only outputs of pointwise convolutions are kept for the way back.

mod backward;
mod context;
mod forward;
mod kernels;
mod lanes;
mod memory;
mod norm;
mod plan;

use std::sync::Arc;

use lathe_spaces::Space;
use rayon::prelude::*;
use tch::Tensor;

use self::{
    backward::{Gradients, Want},
    context::{Context, LayerTrace},
    forward::CellTrace,
    lanes::{LANES, Lanes},
    memory::BlockMemory,
};
pub(crate) use self::{
    context::Shares,
    kernels::Dense,
    lanes::{Element, values},
    plan::{CellPlan, EdgePlan, LayerPlan, NormPlan, OperationPlan, Origin, Plan, StagePlan},
};
use super::{Parameters, Supernet, SupernetError};
use crate::{
    SupernetSettings,
    distributed::{Collective, CollectiveError},
};

/// The fused supernet: a plan of the plain one, and memory for its tensors.
#[derive(Debug)]
pub(crate) struct Fused<T> {
    plan: Plan,
    pool: Arc<rayon::ThreadPool>,
    blocks: Vec<BlockMemory<T>>,
    /// What the last forward pass left for the way back.
    last: Option<Trace<T>>,
    collective: Option<Arc<dyn Collective>>,
}

#[derive(Debug)]
struct Trace<T> {
    stem: Vec<LayerTrace>,
    cells: Vec<CellTrace>,
    weights: Vec<T>,
    shares: Vec<Shares>,
    /// Images of this process.
    batch: usize,
    /// Images of all processes.
    images: f64,
}

impl<T: Element> Fused<T> {
    /// The fused form of a plain supernet; `threads` work on it.
    pub fn new(
        space: &Space,
        settings: SupernetSettings,
        supernet: &Supernet,
        threads: usize,
        collective: Option<Arc<dyn Collective>>,
    ) -> Result<Self, SupernetError> {
        let plan = Plan::of(space, settings, supernet.parameters())?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|index| format!("supernet {index}"))
            .build()
            .map_err(|error| SupernetError::Threads { threads, reason: error.to_string() })?;
        Ok(Self { plan, pool: Arc::new(pool), blocks: Vec::new(), last: None, collective })
    }

    /// Images `[B, 3, R, R]` to features `[B, F]`, the means over the last cell's output. With `training`
    /// batch norms use the batch's statistics and record them.
    pub fn forward(
        &mut self,
        parameters: &mut Parameters,
        images: &Tensor,
        shares: Vec<Shares>,
        training: bool,
    ) -> Result<Tensor, CollectiveError> {
        let batch = images.size()[0] as usize;
        let Self { plan, pool, blocks, last, collective } = self;
        let weights = lanes::values::<T>(&parameters.flat);
        let mut statistics = lanes::values::<T>(&parameters.flat_statistics);
        let collective = collective.as_deref();
        let mut inputs = lanes::blocks::<T>(images);
        if inputs.is_empty() {
            // A process without images takes part in every sum.
            inputs.push(lanes::plane(plan.images.volume()));
        }
        let (stem, cells, all, features) = pool.install(|| -> Result<_, CollectiveError> {
            // Memory of a larger batch is kept for the next one.
            while blocks.len() < inputs.len() {
                blocks.push(BlockMemory::new(plan));
            }
            let blocks = &mut blocks[..inputs.len()];
            for (index, (block, input)) in blocks.iter_mut().zip(inputs).enumerate() {
                block.input = input;
                block.images = (batch - index * LANES).min(LANES);
            }
            let mut context = Context {
                weights: &weights,
                statistics: &mut statistics,
                shares: &shares,
                training,
                images: batch as f64,
                collective,
                failure: None,
                threads: rayon::current_num_threads(),
            };
            context.images = context.total(vec![vec![batch as f64]]).values()[0];
            let stem = forward::stem(&mut context, &plan.stem, blocks);
            let mut cells = Vec::with_capacity(plan.cells.len());
            for (index, cell) in plan.cells.iter().enumerate() {
                cells.push(forward::cell(&mut context, index, cell, blocks));
            }
            let all = context.images;
            context.failure.map_or(Ok(()), Err)?;
            Ok((stem, cells, all, features(plan, blocks, batch)))
        })?;
        if training {
            let statistics = Tensor::from_slice(&statistics);
            tch::no_grad(|| parameters.flat_statistics.copy_(&statistics));
        }
        *last = Some(Trace { stem, cells, weights, shares, batch, images: all });
        Ok(Tensor::from_slice(&features).view([batch as i64, plan.output().channels as i64]))
    }

    /// Gradient of all learned values but the classifier's, in the order of the flat vector, from the
    /// features' gradient `[B, F]` of the last forward pass.
    pub fn weight_gradient(&mut self, features: &Tensor) -> Result<Tensor, CollectiveError> {
        let gradients = self.back(features, Want::Weights)?;
        let values: Vec<T> = gradients.weights.iter().map(|value| T::of(*value)).collect();
        Ok(Tensor::from_slice(&values))
    }

    /// Gradient of the probabilities, per block of the space.
    pub fn share_gradient(&mut self, features: &Tensor) -> Result<Vec<Shares>, CollectiveError> {
        Ok(self.back(features, Want::Architecture)?.shares)
    }

    fn back(&mut self, features: &Tensor, want: Want) -> Result<Gradients, CollectiveError> {
        let Self { plan, pool, blocks, last, collective } = self;
        let Some(trace) = last else { unreachable!("a gradient follows a forward pass") };
        let batch = trace.batch;
        let values = lanes::values::<T>(features);
        let mut gradients = Gradients {
            want,
            weights: vec![0.0; if want == Want::Weights { plan.learned } else { 0 }],
            shares: trace.shares.iter().map(Shares::zeros_like).collect(),
        };
        let blocks = &mut blocks[..batch.div_ceil(LANES).max(1)];
        pool.install(|| {
            clear(plan, blocks, &values, batch);
            let mut context = Context {
                weights: &trace.weights,
                statistics: &mut [],
                shares: &trace.shares,
                training: true,
                images: trace.images,
                collective: collective.as_deref(),
                failure: None,
                threads: rayon::current_num_threads(),
            };
            backward::network(&mut context, plan, blocks, &trace.stem, &trace.cells, &mut gradients);
            context.failure.map_or(Ok(()), Err)
        })?;
        Ok(gradients)
    }
}

/// Means over the last cell's planes, image by image.
fn features<T: Element>(plan: &Plan, blocks: &[BlockMemory<T>], batch: usize) -> Vec<T> {
    let extent = plan.output();
    let mut features = vec![T::default(); batch * extent.channels];
    let images = features.chunks_mut(LANES * extent.channels);
    for (block, features) in blocks.iter().zip(images) {
        let output = block.cells.last().map_or(&block.input, |cell| &cell.output);
        for (channel, plane) in output.chunks(extent.area()).enumerate() {
            let mut sums = [0.0; LANES];
            for lanes in plane {
                for (sum, value) in sums.iter_mut().zip(lanes.0) {
                    *sum += value.double();
                }
            }
            for (image, sum) in features.chunks_mut(extent.channels).zip(sums) {
                image[channel] = T::of(sum / extent.area() as f64);
            }
        }
    }
    features
}

/// Zeros all gradients and spreads the features' over the last cell's output.
fn clear<T: Element>(plan: &Plan, blocks: &mut [BlockMemory<T>], features: &[T], batch: usize) {
    let extent = plan.output();
    blocks.par_iter_mut().enumerate().for_each(|(index, block)| {
        let zero = Lanes([T::default(); LANES]);
        block.stem_gradients.iter_mut().for_each(|gradient| gradient.fill(zero));
        block.cells.iter_mut().for_each(|cell| cell.gradient.fill(zero));
        let Some(cell) = block.cells.last_mut() else { return };
        for (channel, plane) in cell.gradient.chunks_mut(extent.area()).enumerate() {
            let mut lanes = zero;
            for (lane, image) in (index * LANES..batch.min((index + 1) * LANES)).enumerate() {
                let value = features[image * extent.channels + channel].double();
                lanes.0[lane] = T::of(value / extent.area() as f64);
            }
            plane.fill(lanes);
        }
    });
}

#[cfg(test)]
mod tests;
