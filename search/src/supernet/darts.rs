//! The supernet of DARTS and PC-DARTS: normal and reduction cells.

use lathe_spaces::{DartsSkeleton, Shape, Space, Stem};
use tch::Tensor;

use super::{
    SupernetError,
    architecture::Mixture,
    cell::{Cell, CellPlan},
    layers::{Layers, Window},
    parameters::ParameterBuilder,
};
use crate::SupernetSettings;

/// Everything before the classifier.
#[derive(Debug)]
pub(crate) struct DartsBody {
    stems: Vec<Layers>,
    cells: Vec<Cell>,
}

impl DartsBody {
    /// Builds it for a space of normal and reduction cells.
    pub fn new(
        build: &mut ParameterBuilder,
        space: &Space,
        skeleton: &DartsSkeleton,
        settings: SupernetSettings,
    ) -> Result<Self, SupernetError> {
        // Blocks 0 and 1 are the normal and the reduction cell.
        if space.blocks.len() != 2 || space.blocks.iter().any(|block| block.inputs != 2) {
            return Err(SupernetError::Space { space: space.name.clone() });
        }
        check_sizes(skeleton, settings)?;
        let stems = stems(build, skeleton.stem, settings.width);
        let stem_channels = match skeleton.stem {
            Stem::Cifar => 3 * settings.width,
            Stem::ImageNet => settings.width,
        };
        let mut before = [stem_channels; 2];
        let mut channels = settings.width;
        let mut reduction_before = skeleton.stem == Stem::ImageNet;
        let mut cells: Vec<Cell> = Vec::with_capacity(settings.layers);
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
            let cell = Cell::new(build, &format!("cells.{index}"), &space.blocks[plan.block], plan)?;
            before = [before[1], cell.output_channels()];
            reduction_before = reduction;
            cells.push(cell);
        }
        Ok(Self { stems, cells })
    }

    /// Channels of the output.
    pub fn output_channels(&self) -> usize {
        self.cells.last().map_or(0, Cell::output_channels)
    }

    /// Images `[B, 3, R, R]` → the last cell's output.
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
        s1
    }

    /// Adds the multiply-accumulates for one image to `macs`.
    pub fn trace(&self, images: Shape, macs: &mut u64) {
        let mut states = vec![images];
        for stem in &self.stems {
            states.push(stem.trace(states[states.len() - 1], macs));
        }
        let mut s1 = states[states.len() - 1];
        let mut s0 = if self.stems.len() == 2 { states[1] } else { s1 };
        for cell in &self.cells {
            let out = cell.trace(s0, s1, macs);
            (s0, s1) = (s1, out);
        }
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
