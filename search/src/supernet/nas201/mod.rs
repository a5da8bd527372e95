//! The supernet of NAS-Bench-201 (Dong & Yang 2020): the skeleton of the benchmark, every operation on
//! every edge of its cell.
//!
//! Nodes sum all their edges, in the supernet as in the network that is derived, so no edge competes with
//! another one. With K = 1 (DARTS) there is no β, and a one-hot α computes the derived network. With K > 1
//! (PC-DARTS) an edge counts n · softmax(β) over the n edges of its node: edge normalisation, scaled so
//! that edges that are alike count once each, as they will in the derived network.

mod cell;
mod grouped;

use lathe_spaces::{Nas201Skeleton, Shape, Space};
use tch::Tensor;

use super::{
    SupernetError,
    architecture::Mixture,
    layers::{Layers, Window},
    parameters::ParameterBuilder,
};
use crate::SupernetSettings;
use cell::Nas201Cell;
pub(crate) use grouped::GroupedNas201;

/// Stages, each of twice the width and half the resolution of the one before.
const STAGES: usize = 3;

/// Everything before the classifier.
#[derive(Debug)]
pub(crate) struct Nas201Body {
    stem: Layers,
    stages: Vec<Stage>,
    /// Batch norm and rectification before the features are averaged.
    head: Layers,
    output_channels: usize,
}

#[derive(Debug)]
struct Stage {
    /// None before the first stage.
    reduction: Option<Reduction>,
    cells: Vec<Nas201Cell>,
}

/// Residual block that halves the resolution: two 3×3 convolutions beside a mean and a 1×1 one.
#[derive(Debug)]
struct Reduction {
    main: Layers,
    shortcut: Layers,
}

impl Nas201Body {
    /// Builds it with `settings.layers` cells per stage. Batch norms outside the cells are learned: there they
    /// compete with nothing.
    pub fn new(
        build: &mut ParameterBuilder,
        space: &Space,
        skeleton: &Nas201Skeleton,
        settings: SupernetSettings,
    ) -> Result<Self, SupernetError> {
        let [block] = space.blocks.as_slice() else {
            return Err(SupernetError::Space { space: space.name.clone() });
        };
        if block.inputs != 1 {
            return Err(SupernetError::Space { space: space.name.clone() });
        }
        check_sizes(skeleton, settings)?;
        let SupernetSettings { width, layers, partial_channels, .. } = settings;
        let mut stem = Layers::default();
        stem.conv(build, "stem", [3, width], Window { kernel: 3, stride: 1, dilation: 1 });
        stem.batch_norm(build, "stem", width, true);
        let mut stages = Vec::with_capacity(STAGES);
        for stage in 0..STAGES {
            let channels = width << stage;
            let reduction =
                (stage > 0).then(|| Reduction::new(build, &format!("reductions.{}", stage - 1), channels));
            let cell = |cell| {
                let name = format!("stages.{stage}.cells.{cell}");
                Nas201Cell::new(build, &name, block, channels, partial_channels)
            };
            let cells = (0..layers).map(cell).collect::<Result<_, _>>()?;
            stages.push(Stage { reduction, cells });
        }
        let output_channels = width << (STAGES - 1);
        let mut head = Layers::default();
        head.batch_norm(build, "head", output_channels, true);
        head.relu();
        Ok(Self { stem, stages, head, output_channels })
    }

    /// Channels of the output.
    pub fn output_channels(&self) -> usize {
        self.output_channels
    }

    /// Images `[B, 3, R, R]` → `[B, C, R/4, R/4]`.
    pub fn forward(&self, images: &Tensor, mixture: &Mixture, training: bool) -> Tensor {
        let mut x = self.stem.forward(images, training);
        for stage in &self.stages {
            if let Some(reduction) = &stage.reduction {
                x = reduction.forward(&x, training);
            }
            for cell in &stage.cells {
                x = cell.forward(&x, mixture, training);
            }
        }
        self.head.forward(&x, training)
    }

    /// Adds the multiply-accumulates for one image to `macs`.
    pub fn trace(&self, images: Shape, macs: &mut u64) {
        let mut x = self.stem.trace(images, macs);
        for stage in &self.stages {
            if let Some(reduction) = &stage.reduction {
                x = reduction.trace(x, macs);
            }
            for cell in &stage.cells {
                cell.trace(x, macs);
            }
        }
    }
}

impl Reduction {
    /// From half of `channels` to `channels`.
    fn new(build: &mut ParameterBuilder, name: &str, channels: usize) -> Self {
        let mut main = Layers::default();
        for (inputs, stride) in [(channels / 2, 2), (channels, 1)] {
            main.relu();
            main.conv(build, name, [inputs, channels], Window { kernel: 3, stride, dilation: 1 });
            main.batch_norm(build, name, channels, true);
        }
        let mut shortcut = Layers::default();
        shortcut.quarter();
        let window = Window { kernel: 1, stride: 1, dilation: 1 };
        shortcut.conv(build, &format!("{name}.shortcut"), [channels / 2, channels], window);
        Self { main, shortcut }
    }

    fn forward(&self, x: &Tensor, training: bool) -> Tensor {
        self.shortcut.forward(x, training) + self.main.forward(x, training)
    }

    fn trace(&self, x: Shape, macs: &mut u64) -> Shape {
        self.shortcut.trace(x, macs);
        self.main.trace(x, macs)
    }
}

fn check_sizes(skeleton: &Nas201Skeleton, settings: SupernetSettings) -> Result<(), SupernetError> {
    let SupernetSettings { width, layers, partial_channels, .. } = settings;
    let fault = |what, got, expected: String| Err(SupernetError::Size { what, got, expected });
    if partial_channels == 0 {
        return fault("partial_channels", partial_channels, "at least 1".into());
    }
    if width == 0 || !width.is_multiple_of(partial_channels) {
        return fault("width", width, format!("a multiple of partial_channels = {partial_channels}"));
    }
    if layers == 0 {
        return fault("cells", layers, "at least 1 per stage".into());
    }
    if skeleton.resolution == 0 || !skeleton.resolution.is_multiple_of(4) {
        return fault("resolution", skeleton.resolution, "a multiple of 4".into());
    }
    if skeleton.classes == 0 {
        return fault("classes", 0, "at least 1".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
