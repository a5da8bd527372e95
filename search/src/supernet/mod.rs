//! The supernet: every operation on every edge, mixed with softmax(α) and softmax(β).

mod architecture;
mod cell;
mod darts;
mod fused;
mod grouped;
mod layers;
mod model;
mod nas201;
mod operation;
mod parameters;

use lathe_spaces::{Shape, Skeleton, Space};
use tch::{Kind, Tensor};
use thiserror::Error;

pub(crate) use architecture::Architecture;
pub(crate) use fused::{Element, Fused, Plan, Shares};
pub(crate) use grouped::Grouped;
pub(crate) use model::{Learn, Model, Pass};
pub(crate) use nas201::GroupedNas201;
pub(crate) use parameters::Parameters;

use self::{architecture::Mixture, darts::DartsBody, nas201::Nas201Body, parameters::ParameterBuilder};
use crate::SupernetSettings;

/// Why a supernet can't be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SupernetError {
    /// A space without a supernet.
    #[error(
        "build a supernet for the space `{space}`: only `darts` and `nas201` can be searched by gradient"
    )]
    Space {
        /// Name of the space.
        space: String,
    },
    /// A space that the fused kernels don't know.
    #[error(
        "build a fused supernet for the space `{space}`: its kernels are those of `darts`; hint: set `implementation = \"grouped\"` under [supernet]"
    )]
    Fused {
        /// Name of the space.
        space: String,
    },
    /// A choice that isn't known.
    #[error("build a supernet: unknown operation `{choice}` in the block `{block}`; known are {}", known.join(", "))]
    Choice {
        /// Block.
        block: String,
        /// Name of the choice.
        choice: String,
        /// Names that would do.
        known: &'static [&'static str],
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
    body: Body,
    classifier: (Tensor, Tensor),
    parameters: Parameters,
    resolution: usize,
}

/// Everything before the classifier.
#[derive(Debug)]
enum Body {
    Darts(DartsBody),
    Nas201(Nas201Body),
}

impl Supernet {
    /// Builds the supernet of a space at its own width and depth; stem, classes and resolution are those of
    /// the space's skeleton. Initial weights depend on `seed` only.
    pub fn new(
        space: &Space,
        settings: SupernetSettings,
        kind: Kind,
        seed: u64,
    ) -> Result<Self, SupernetError> {
        let mut build = ParameterBuilder::new(seed, kind);
        let (body, features, classes, resolution) = match &space.skeleton {
            Skeleton::Darts(skeleton) => {
                let body = DartsBody::new(&mut build, space, skeleton, settings)?;
                let features = body.output_channels();
                (Body::Darts(body), features, skeleton.classes, skeleton.resolution)
            }
            Skeleton::Nas201(skeleton) => {
                let body = Nas201Body::new(&mut build, space, skeleton, settings)?;
                let features = body.output_channels();
                (Body::Nas201(body), features, skeleton.classes, skeleton.resolution)
            }
            _ => return Err(SupernetError::Space { space: space.name.clone() }),
        };
        let weight = build.uniform("classifier.weight".into(), &[classes, features], features);
        let bias = build.uniform("classifier.bias".into(), &[classes], features);
        Ok(Self { body, classifier: (weight, bias), parameters: build.finish(), resolution })
    }

    /// Images `[B, 3, R, R]` → logits `[B, classes]`.
    pub fn forward(&self, images: &Tensor, mixture: &Mixture, training: bool) -> Tensor {
        let output = match &self.body {
            Body::Darts(body) => body.forward(images, mixture, training),
            Body::Nas201(body) => body.forward(images, mixture, training),
        };
        self.classify(&output.mean_dim([2, 3].as_slice(), false, output.kind()))
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
        let images = Shape::new(1, 3, self.resolution, self.resolution);
        match &self.body {
            Body::Darts(body) => body.trace(images, &mut macs),
            Body::Nas201(body) => body.trace(images, &mut macs),
        }
        macs + self.classifier.0.numel() as u64
    }
}

#[cfg(test)]
mod tests;
