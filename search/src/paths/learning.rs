//! What networks are trained for.

use lathe_spaces::Graph;
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use crate::{Batch, Dataset, Teacher, TeacherError};

/// Share of red, green and blue in the luminance (ITU-R BT.601).
const LUMINANCE: [f64; 3] = [0.299, 0.587, 0.114];
/// What is taken off the luminance in front of a network: it lies around zero then, as SESR's inputs do.
const MIDDLE: f64 = 0.5;
/// Decibels that count as much in a reward as all answers being right.
const DECIBELS: f64 = 20.0;

/// What networks are trained for; it follows from their output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Learning {
    /// Name the class of an image: cross-entropy, share of right answers.
    #[default]
    Classes,
    /// Restore the luminance of an image that was made smaller, `scale` pixels to one by their mean: mean absolute
    /// error, peak signal-to-noise ratio in decibels.
    Resolution {
        /// Side of an output over that of the input.
        scale: usize,
    },
    /// Give what a teacher gives, and nothing else: decoupled distillation (Zhang et al. 2023, `MobileSAM`, section 3).
    /// Mean squared error; cosine similarity, at most 1.
    Embeddings,
}

/// What a batch's images are for a network, and what it should say of them.
#[derive(Debug)]
pub struct Truth {
    /// Inputs.
    pub inputs: Tensor,
    /// Classes `[batch]`, or images `[batch, 1, rows, columns]` of luminance less one half.
    pub targets: Tensor,
}

impl Learning {
    /// What a network is for: images that come out larger than they go in are restored, all else is classes.
    pub fn of(graph: &Graph) -> Self {
        let output = graph.outputs().first().map(|&id| graph.nodes()[id].shape);
        match (graph.input_shape(), output) {
            (Some(input), Some(output)) if input.c == 1 && output.c == 1 && output.h > input.h => {
                Self::Resolution { scale: output.h / input.h }
            }
            _ => Self::Classes,
        }
    }

    /// The same, for a network that has a teacher.
    pub fn with(graph: &Graph, teacher: Option<&Teacher>) -> Self {
        if teacher.is_some() { Self::Embeddings } else { Self::of(graph) }
    }

    /// Word for what [`Learning::quality`] counts: `accuracy`, `PSNR` or `similarity`.
    pub const fn measure(self) -> &'static str {
        match self {
            Self::Classes => "accuracy",
            Self::Resolution { .. } => "PSNR",
            Self::Embeddings => "similarity",
        }
    }

    /// A quality in words.
    pub fn show(self, quality: f64) -> String {
        match self {
            Self::Classes => format!("{:.2} %", quality * 100.0),
            Self::Resolution { .. } => format!("{quality:.2} dB"),
            Self::Embeddings => format!("{quality:.4}"),
        }
    }

    /// A quality as a share of what would be perfect, or as good as that.
    pub fn share(self, quality: f64) -> f64 {
        match self {
            Self::Classes | Self::Embeddings => quality,
            Self::Resolution { .. } => quality / DECIBELS,
        }
    }

    /// Inputs and targets of a batch.
    ///
    /// # Errors
    /// If the teacher refuses the images.
    pub fn truth(
        self,
        batch: &Batch,
        dataset: &Dataset,
        teacher: Option<&Teacher>,
    ) -> Result<Truth, TeacherError> {
        let inputs = batch.images.shallow_clone();
        if let Some(teacher) = teacher {
            return Ok(Truth { targets: teacher.embed(&inputs)?, inputs });
        }
        let Self::Resolution { scale } = self else {
            return Ok(Truth { inputs, targets: batch.labels.shallow_clone() });
        };
        let channel = |index: usize| {
            let plain = batch.images.narrow(1, index as i64, 1) * f64::from(dataset.deviation[index])
                + f64::from(dataset.mean[index]);
            plain * LUMINANCE[index]
        };
        let targets = (channel(0) + channel(1) + channel(2)).clamp(0.0, 1.0) - MIDDLE;
        let pair = [scale as i64; 2];
        let inputs = targets.avg_pool2d(pair, pair, [0, 0], false, false, None);
        Ok(Truth { inputs, targets })
    }

    /// The loss, summed over the images and divided by `whole`.
    pub fn loss(self, output: &Tensor, truth: &Truth, whole: usize) -> Tensor {
        match self {
            Self::Classes => {
                output.cross_entropy_loss(&truth.targets, None::<Tensor>, Reduction::Sum, -100, 0.0)
                    / whole as f64
            }
            Self::Resolution { .. } => {
                let each = (output - &truth.targets).abs().flatten(1, -1);
                each.mean_dim([1i64].as_slice(), false, None::<Kind>).sum(None::<Kind>) / whole as f64
            }
            Self::Embeddings => {
                let each = (output.flatten(1, -1) - truth.targets.flatten(1, -1)).square();
                each.mean_dim([1i64].as_slice(), false, None::<Kind>).sum(None::<Kind>) / whole as f64
            }
        }
    }

    /// Sum over the images of what counts: right answers, or decibels with a peak of 1, outputs clipped to 0..1.
    pub fn quality(self, output: &Tensor, truth: &Truth) -> f64 {
        let output = output.detach();
        match self {
            Self::Classes => {
                output.argmax(-1, false).eq_tensor(&truth.targets).sum(Kind::Int64).int64_value(&[]) as f64
            }
            Self::Resolution { .. } => {
                let errors = (output.clamp(-MIDDLE, MIDDLE) - &truth.targets).square().flatten(1, -1);
                let means = errors.mean_dim([1i64].as_slice(), false, Kind::Double).clamp_min(1e-10);
                (means.log10() * -10.0).sum(Kind::Double).double_value(&[])
            }
            Self::Embeddings => {
                let (ours, theirs) = (output.flatten(1, -1), truth.targets.flatten(1, -1));
                Tensor::cosine_similarity(&ours, &theirs, 1, 1e-8).sum(Kind::Double).double_value(&[])
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_spaces::{NetworkOptions, Space, Stream};
    use tch::Device;

    use super::*;

    fn graph(space: &str) -> Graph {
        let space = Space::named(space).unwrap().unwrap();
        space.network(&space.sample(&mut Stream::new(1, "t", 0)), NetworkOptions::default()).unwrap()
    }

    #[test]
    fn sesr_restores_and_the_others_classify() {
        assert_eq!(Learning::of(&graph("sesr")), Learning::Resolution { scale: 2 });
        assert_eq!(Learning::of(&graph("shvit")), Learning::Classes);
    }

    #[test]
    fn decibels_are_those_of_the_mean_squared_error() {
        let learning = Learning::Resolution { scale: 2 };
        let targets = Tensor::zeros([2, 1, 4, 4], (Kind::Float, Device::Cpu));
        let truth = Truth { inputs: targets.shallow_clone(), targets: targets.shallow_clone() };
        // An error of 0.1 everywhere in one image, of 0.01 in the other: 20 and 40 dB.
        let output = Tensor::cat(&[targets.narrow(0, 0, 1) + 0.1, targets.narrow(0, 0, 1) + 0.01], 0);
        assert!((learning.quality(&output, &truth) - 60.0).abs() < 1e-3);
        assert!((learning.loss(&output, &truth, 2).double_value(&[]) - 0.055).abs() < 1e-6);
    }

    #[test]
    fn small_images_are_the_means_of_large_ones() {
        let dataset = Dataset {
            train: crate::ImageSet::default(),
            test: crate::ImageSet::default(),
            classes: Vec::new(),
            resolution: 4,
            mean: [0.5; 3],
            deviation: [0.25; 3],
        };
        // Red, green and blue alike: the luminance is the grey value.
        let grey = Tensor::arange(16, (Kind::Float, Device::Cpu)).view([1, 1, 4, 4]) / 16.0;
        let images = (grey.expand([1, 3, 4, 4], false) - 0.5) / 0.25;
        let labels = Tensor::zeros([1], (Kind::Int64, Device::Cpu));
        let truth = Learning::Resolution { scale: 2 }
            .truth(&Batch { images, labels, whole: 1 }, &dataset, None)
            .unwrap();
        assert_eq!(truth.inputs.size(), [1, 1, 2, 2]);
        let difference = (&truth.targets + 0.5 - &grey).abs().max().double_value(&[]);
        assert!(difference < 1e-6);
        let first = (0.0 + 1.0 + 4.0 + 5.0) / 4.0 / 16.0 - 0.5;
        assert!((truth.inputs.double_value(&[0, 0, 0, 0]) - first).abs() < 1e-6);
    }
}
