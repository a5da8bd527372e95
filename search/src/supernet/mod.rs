//! The supernet of PC-DARTS: every operation on every edge, mixed with softmax(α) and softmax(β).

mod architecture;
mod cell;
mod fused;
mod grouped;
mod layers;
mod model;
mod operation;
mod parameters;

use lathe_spaces::{DartsSkeleton, Shape, Skeleton, Space, Stem};
use tch::{Kind, Tensor};
use thiserror::Error;

pub(crate) use architecture::Architecture;
pub(crate) use fused::{Element, Fused, Plan, Shares};
pub(crate) use grouped::Grouped;
pub(crate) use model::{Learn, Model, Pass};
pub(crate) use parameters::Parameters;

use self::{
    architecture::Mixture,
    cell::{Cell, CellPlan},
    layers::{Layers, Window},
    parameters::ParameterBuilder,
};
use crate::SupernetSettings;

/// Why a supernet can't be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SupernetError {
    /// A space that isn't built from normal and reduction cells.
    #[error(
        "build a supernet for the space `{space}`: only spaces of normal and reduction cells (`darts`) can be searched by gradient"
    )]
    Space {
        /// Name of the space.
        space: String,
    },
    /// A choice that isn't known.
    #[error("build a supernet: unknown operation `{choice}` in the block `{block}`; known are {}", operation::OPERATIONS.join(", "))]
    Choice {
        /// Block.
        block: String,
        /// Name of the choice.
        choice: String,
    },
    /// Edges of a block with different choices.
    #[error("build a supernet: all edges of the block `{block}` must have the same number of choices")]
    Uneven {
        /// Block.
        block: String,
    },
    /// Two edges of a node that start at the same state.
    #[error(
        "build a supernet: two edges of a node of the block `{block}` start at state {state}; hint: give one of them both edges' choices"
    )]
    Parallel {
        /// Block.
        block: String,
        /// State.
        state: usize,
    },
    /// The GPU that was asked for.
    #[error(
        "train on a GPU: libtorch sees none; hint: put libtorch's CUDA half beside its CPU half (docs/GPU.md), or set `device = \"cpu\"`"
    )]
    NoGpu,
    /// Half precision on a processor.
    #[error("train in bfloat16 on the processor: only GPUs do; hint: set `precision = \"float32\"`")]
    Precision,
    /// Several processes with the plain implementation.
    #[error(
        "train the plain supernet in several processes: its batch norms would see only their own images; hint: use the fused one"
    )]
    Processes,
    /// The operating system gives no threads.
    #[error("start {threads} threads for the supernet: {reason}")]
    Threads {
        /// How many.
        threads: usize,
        /// What it said.
        reason: String,
    },
    /// A width, depth or resolution that doesn't work out.
    #[error("build a supernet: {what} = {got}, expected {expected}")]
    Size {
        /// Setting.
        what: &'static str,
        /// Its value.
        got: usize,
        /// What would do.
        expected: String,
    },
}

/// Weights of every operation on every edge of every cell.
#[derive(Debug)]
pub(crate) struct Supernet {
    stems: Vec<Layers>,
    cells: Vec<Cell>,
    classifier: (Tensor, Tensor),
    parameters: Parameters,
    resolution: usize,
}

impl Supernet {
    /// Builds the supernet of a space of normal and reduction cells at its own width and depth; stem,
    /// classes and resolution are those of the space's skeleton. Initial weights depend on `seed` only.
    pub fn new(
        space: &Space,
        settings: SupernetSettings,
        kind: Kind,
        seed: u64,
    ) -> Result<Self, SupernetError> {
        let Skeleton::Darts(skeleton) = &space.skeleton else {
            return Err(SupernetError::Space { space: space.name.clone() });
        };
        // Blocks 0 and 1 are the normal and the reduction cell.
        if space.blocks.len() != 2 || space.blocks.iter().any(|block| block.inputs != 2) {
            return Err(SupernetError::Space { space: space.name.clone() });
        }
        check_sizes(skeleton, settings)?;
        let mut build = ParameterBuilder::new(seed, kind);
        let stems = stems(&mut build, skeleton.stem, settings.width);
        let stem_channels = match skeleton.stem {
            Stem::Cifar => 3 * settings.width,
            Stem::ImageNet => settings.width,
        };
        let mut before = [stem_channels; 2];
        let mut channels = settings.width;
        let mut reduction_before = skeleton.stem == Stem::ImageNet;
        let mut cells = Vec::with_capacity(settings.layers);
        for index in 0..settings.layers {
            let reduction = index == settings.layers / 3 || index == 2 * settings.layers / 3;
            if reduction {
                channels *= 2;
            }
            let plan = CellPlan {
                block: usize::from(reduction),
                before,
                channels,
                reduction,
                reduction_before,
                partial: settings.partial_channels,
            };
            let cell = Cell::new(&mut build, &format!("cells.{index}"), &space.blocks[plan.block], plan)?;
            before = [before[1], cell.output_channels()];
            reduction_before = reduction;
            cells.push(cell);
        }
        let features = before[1];
        let weight = build.uniform("classifier.weight".into(), &[skeleton.classes, features], features);
        let bias = build.uniform("classifier.bias".into(), &[skeleton.classes], features);
        let parameters = build.finish();
        Ok(Self { stems, cells, classifier: (weight, bias), parameters, resolution: skeleton.resolution })
    }

    /// Images `[B, 3, R, R]` → logits `[B, classes]`.
    pub fn forward(&self, images: &Tensor, mixture: &Mixture, training: bool) -> Tensor {
        // One stem: both inputs of the first cell are its output. Two: the second continues the first.
        let mut states: Vec<Tensor> = Vec::new();
        for stem in &self.stems {
            states.push(stem.forward(states.last().unwrap_or(images), training));
        }
        let mut s1 = states.pop().unwrap_or_else(|| images.shallow_clone());
        let mut s0 = states.pop().unwrap_or_else(|| s1.shallow_clone());
        for cell in &self.cells {
            let out = cell.forward(&s0, &s1, mixture, training);
            (s0, s1) = (s1, out);
        }
        let features = s1.mean_dim([2, 3].as_slice(), false, s1.kind());
        self.classify(&features)
    }

    /// All tensors.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// All tensors, to change them in place.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Features `[B, F]` → logits `[B, classes]`.
    pub fn classify(&self, features: &Tensor) -> Tensor {
        features.linear(&self.classifier.0, Some(&self.classifier.1))
    }

    /// Multiply-accumulates of the convolutions and the classifier for one image.
    #[cfg_attr(not(test), expect(dead_code, reason = "a published count that tests compare"))]
    pub fn macs(&self) -> u64 {
        let mut macs = 0;
        let mut states = vec![Shape::new(1, 3, self.resolution, self.resolution)];
        for stem in &self.stems {
            states.push(stem.trace(states[states.len() - 1], &mut macs));
        }
        let mut s1 = states[states.len() - 1];
        let mut s0 = if self.stems.len() == 2 { states[1] } else { s1 };
        for cell in &self.cells {
            let out = cell.trace(s0, s1, &mut macs);
            (s0, s1) = (s1, out);
        }
        macs + self.classifier.0.numel() as u64
    }
}

fn check_sizes(skeleton: &DartsSkeleton, settings: SupernetSettings) -> Result<(), SupernetError> {
    let SupernetSettings { width, layers, partial_channels, .. } = settings;
    let fault = |what, got, expected: String| Err(SupernetError::Size { what, got, expected });
    if partial_channels == 0 {
        return fault("partial_channels", partial_channels, "at least 1".into());
    }
    if width == 0 || !width.is_multiple_of(partial_channels) {
        return fault("width", width, format!("a multiple of partial_channels = {partial_channels}"));
    }
    if layers < 3 {
        return fault("layers", layers, "at least 3, so that there are normal and reduction cells".into());
    }
    if skeleton.stem == Stem::ImageNet && !width.is_multiple_of(2) {
        return fault("width", width, "an even number (the stem's first convolution has half of it)".into());
    }
    // Sizes are halved by both reductions, and thrice before by the stem of ImageNet.
    let divisor = if skeleton.stem == Stem::ImageNet { 32 } else { 4 };
    if skeleton.resolution == 0 || !skeleton.resolution.is_multiple_of(divisor) {
        return fault("resolution", skeleton.resolution, format!("a multiple of {divisor}"));
    }
    if skeleton.classes == 0 {
        return fault("classes", 0, "at least 1".into());
    }
    Ok(())
}

/// The layers before the first cell: their outputs are its inputs.
fn stems(build: &mut ParameterBuilder, stem: Stem, width: usize) -> Vec<Layers> {
    let window = |stride| Window { kernel: 3, stride, dilation: 1 };
    match stem {
        Stem::Cifar => {
            let mut layers = Layers::default();
            layers.conv(build, "stem", [3, 3 * width], window(1));
            layers.batch_norm(build, "stem", 3 * width, true);
            vec![layers]
        }
        Stem::ImageNet => {
            let mut first = Layers::default();
            first.conv(build, "stem0", [3, width / 2], window(2));
            first.batch_norm(build, "stem0", width / 2, true);
            first.relu();
            first.conv(build, "stem0", [width / 2, width], window(2));
            first.batch_norm(build, "stem0", width, true);
            let mut second = Layers::default();
            second.relu();
            second.conv(build, "stem1", [width, width], window(2));
            second.batch_norm(build, "stem1", width, true);
            vec![first, second]
        }
    }
}

#[cfg(test)]
mod tests;
