//! What a pass over the network knows besides the images.

use super::{
    kernels::Extent,
    lanes::Element,
    norm::Norm,
    plan::{LayerPlan, NormPlan},
};
use crate::distributed::{Collective, CollectiveError};

/// Probabilities of a block: softmax(α) per edge and choice, softmax(β) per edge; or their gradients.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Shares {
    pub alpha: Vec<Vec<f64>>,
    pub beta: Vec<f64>,
}

impl Shares {
    /// Zeros of the same size.
    pub fn zeros_like(&self) -> Self {
        Self {
            alpha: self.alpha.iter().map(|row| vec![0.0; row.len()]).collect(),
            beta: vec![0.0; self.beta.len()],
        }
    }
}

/// Norm of a layer and its learned scale.
#[derive(Clone, Debug)]
pub(super) struct LayerTrace {
    pub norm: Norm,
    pub scale: Vec<f64>,
}

/// Norms of an operation, stage by stage.
pub(super) type OperationTrace = Vec<Norm>;

/// Numbers that are taken in order.
#[derive(Debug)]
pub(super) struct Cursor {
    values: Vec<f64>,
    at: usize,
}

impl Cursor {
    /// From the first.
    pub fn new(values: Vec<f64>) -> Self {
        Self { values, at: 0 }
    }

    /// The next `count`.
    pub fn take(&mut self, count: usize) -> &[f64] {
        self.at += count;
        &self.values[self.at - count..self.at]
    }

    /// All.
    pub fn values(&self) -> &[f64] {
        &self.values
    }
}

/// What a pass over the network knows besides the images.
#[derive(Debug)]
pub(super) struct Context<'a, T> {
    /// All learned values.
    pub weights: &'a [T],
    /// All running statistics.
    pub statistics: &'a mut [T],
    /// Per block of the space.
    pub shares: &'a [Shares],
    /// Whether batch norms use and record the batch's statistics.
    pub training: bool,
    /// Images of the batch, over all processes.
    pub images: f64,
    /// The other processes.
    pub collective: Option<&'a dyn Collective>,
    /// Why they could not be reached.
    pub failure: Option<CollectiveError>,
    /// Threads that work.
    pub threads: usize,
}

impl<T: Element> Context<'_, T> {
    /// Sums over blocks, in their order, and over processes.
    pub fn total(&mut self, blocks: Vec<Vec<f64>>) -> Cursor {
        let mut blocks = blocks.into_iter();
        let mut total = blocks.next().unwrap_or_default();
        for block in blocks {
            for (total, value) in total.iter_mut().zip(block) {
                *total += value;
            }
        }
        if let Some(collective) = self.collective
            && self.failure.is_none()
            && !total.is_empty()
        {
            self.failure = collective.sum(&mut total).err();
        }
        Cursor::new(total)
    }

    /// One over the number of processes.
    pub fn share(&self) -> f64 {
        self.collective.map_or(1.0, |collective| 1.0 / collective.size() as f64)
    }

    /// Values per channel of a tensor, over the batch.
    pub fn count(&self, extent: Extent) -> f64 {
        self.images * extent.area() as f64
    }

    /// The batch norm of a tensor of this extent; takes its sums from the cursor.
    pub fn norm(&mut self, plan: &NormPlan, sums: &mut Cursor, extent: Extent) -> Norm {
        let sums = sums.take(2 * plan.mean.len());
        if !self.training {
            return Norm::of_statistics(plan, self.statistics);
        }
        let count = self.count(extent);
        let (norm, variances) = Norm::of_batch(sums.chunks(2).map(|pair| [pair[0], pair[1]]), count);
        norm.record(plan, &variances, count, self.statistics);
        norm
    }

    /// Learned scale and shift of a layer; ones and zeros where there are none.
    pub fn affine(&self, layer: &LayerPlan) -> (Vec<f64>, Vec<f64>) {
        let channels = layer.output.channels;
        layer.affine.as_ref().map_or_else(
            || (vec![1.0; channels], vec![0.0; channels]),
            |affine| {
                let [scale, shift] = affine
                    .clone()
                    .map(|range| self.weights[range].iter().map(|value| value.double()).collect::<Vec<_>>());
                (scale, shift)
            },
        )
    }

    /// Channels of a piece, such that all threads have work with this many blocks.
    pub fn chunk(&self, channels: usize, blocks: usize) -> usize {
        let pieces = (2 * self.threads).div_ceil(blocks).clamp(1, channels.div_ceil(4));
        channels.div_ceil(pieces)
    }
}
