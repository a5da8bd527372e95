//! What a search is told. Plain data; the `lathe` binary reads it from TOML and checks it.

use std::path::PathBuf;

use lathe_spaces::Micros;
use serde::{Deserialize, Serialize};

/// Where images come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DataSource {
    /// Generated textures and shapes; needs no download.
    Generated,
    /// The binary version of CIFAR-10: `data_batch_1.bin` … `test_batch.bin`.
    Cifar10 {
        /// Folder of the files.
        path: PathBuf,
    },
    /// Images in `train/<class>/*.jpg|png` and `test/<class>/…` (or `val/<class>/…`).
    ImageFolder {
        /// Folder that holds `train`.
        path: PathBuf,
    },
}

/// Data of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSettings {
    /// Where images come from.
    pub source: DataSource,
    /// Side of the square images that the networks see.
    pub resolution: usize,
    /// Training images to use, balanced over classes; all if absent.
    pub train_images: Option<usize>,
    /// Test images to use, balanced over classes; all if absent.
    pub test_images: Option<usize>,
}

/// How the supernet is computed. The mathematics is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Implementation {
    /// Kernels written for it; for DARTS only.
    #[default]
    Fused,
    /// Few, large libtorch operations: what a GPU gets in place of the kernels, which are for processors.
    Grouped,
    /// One libtorch module per edge and operation: the literal reading of the paper.
    Plain,
}

/// Where the supernet is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingDevice {
    /// On a GPU if libtorch sees one.
    Auto,
    /// On the processor.
    #[default]
    Cpu,
    /// On the first GPU.
    Cuda,
}

/// Numbers that the supernet is trained with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Single precision throughout.
    #[default]
    Float32,
    /// Convolutions in bfloat16 (autocast); weights, batch norms and losses in single precision. GPUs only.
    Bfloat16,
}

/// The supernet's own size, and how it is trained; the deployed width and depth are the space's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupernetSettings {
    /// Channels of the first cells.
    pub width: usize,
    /// Number of cells; in the skeleton of NAS-Bench-201 of each of its three stages.
    pub layers: usize,
    /// K: one in K channels passes through the operations.
    pub partial_channels: usize,
    /// How it is computed.
    pub implementation: Implementation,
    /// Where.
    pub device: TrainingDevice,
    /// With what numbers.
    pub precision: Precision,
}

/// Schedule of the search (defaults: Xu et al. 2020, section 4.2, as the reference code has it).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchSettings {
    /// Epochs.
    pub epochs: usize,
    /// Epochs before the architecture parameters move.
    pub warmup_epochs: usize,
    /// Images per step.
    pub batch: usize,
    /// Peak learning rate of the weights (SGD, cosine to `learning_rate_min`).
    pub learning_rate: f64,
    /// Final learning rate of the weights.
    pub learning_rate_min: f64,
    /// Momentum of the weights.
    pub momentum: f64,
    /// Weight decay of the weights.
    pub weight_decay: f64,
    /// Largest norm of the weights' gradient.
    pub gradient_clip: f64,
    /// Learning rate of the architecture parameters (Adam, betas 0.5 and 0.999).
    pub arch_learning_rate: f64,
    /// Weight decay of the architecture parameters.
    pub arch_weight_decay: f64,
    /// Whether the architecture's gradient looks one step of the weights ahead (DARTS, Liu et al. 2019,
    /// equation 7) instead of taking the weights as they are.
    pub second_order: bool,
    /// Side of the square that cutout blanks; none if absent.
    pub cutout: Option<usize>,
    /// Epochs from one look at the dominant eigenvalue of the loss' Hessian in α and β to the next; never if absent.
    pub hessian_every_epochs: Option<usize>,
    /// Skip connections of the derived normal cell at which the search ends, keeping α and β of the epoch before.
    pub stop_at_skips: Option<usize>,
    /// Ratio of earlier to later eigenvalues below which the search ends, keeping α and β of before the rise.
    pub stop_eigenvalue_ratio: Option<f64>,
}

/// From which sides a search is pulled to its targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sides {
    /// A target is an upper bound: nothing pulls a network below it up.
    #[default]
    Upper,
    /// λ may fall below zero, so that slower networks are rewarded below the target (`LightNAS`). Derivation
    /// keeps the upper bound all the same.
    Both,
}

/// How limits enter the architecture's loss; E: expected value, T: target, CE: cross-entropy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// CE + λ·(E/T − 1), λ by dual ascent.
    #[default]
    Dual,
    /// CE + w·(E/T − 1): Cai et al. 2019, linear form.
    Linear,
    /// CE·w·(ln E / ln T)^x: Cai et al. 2019, logarithmic form.
    Logarithmic,
    /// CE·w·(ln E)^x: Wu et al. 2019.
    Fbnet,
    /// CE + w·|E/T − 1|, smooth near the target: Bender et al. 2020.
    Absolute,
    /// [`Method::Dual`] with a learned regressor for what no sum of parts says of the first limit, on sampled
    /// networks: after Xu et al. 2020 (LA-DARTS).
    Regressor,
    /// Networks drawn from a policy, which moves by REINFORCE on accuracy − w·|E/T − 1|: Bender et al. 2020.
    Reinforce,
}

impl Method {
    /// w and x as published, where paper and code differ as in the code.
    pub const fn published(self) -> [f64; 2] {
        match self {
            Self::Dual | Self::Regressor => [0.0, 1.0],
            Self::Linear => [0.2, 1.0],
            Self::Logarithmic => [1.0, 0.6],
            Self::Fbnet => [0.2, 0.6],
            Self::Absolute | Self::Reinforce => [0.1, 1.0],
        }
    }
}

/// The targets and how they are held.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectiveSettings {
    /// Target for the deployed network's latency on the first device; no such term if absent.
    pub target: Option<Micros>,
    /// How limits enter the loss.
    pub method: Method,
    /// w of the method; of no meaning for [`Method::Dual`].
    pub weight: f64,
    /// x of the method; of no meaning but for [`Method::Logarithmic`] and [`Method::Fbnet`].
    pub exponent: f64,
    /// From which sides [`Method::Dual`] pulls.
    pub sides: Sides,
    /// Step of the dual ascent on λ.
    pub dual_rate: f64,
    /// Largest λ.
    pub dual_max: f64,
    /// Temperature of the relaxed derivation when the architecture parameters start to move.
    pub temperature_start: f64,
    /// Temperature at the end.
    pub temperature_end: f64,
    /// Epochs after the warm-up over which the target falls from the space's mean to its value.
    pub anneal_epochs: usize,
    /// Every how many epochs after the warm-up the network that would be derived is measured, so that the
    /// expectation is corrected by what its prediction was wrong by; never if absent.
    pub measure_every_epochs: Option<usize>,
}

/// Training of a derived network from scratch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetrainSettings {
    /// Epochs.
    pub epochs: usize,
    /// Images per step.
    pub batch: usize,
    /// Peak learning rate (SGD, cosine to zero).
    pub learning_rate: f64,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Largest norm of the gradient.
    pub gradient_clip: f64,
    /// Weight of the auxiliary classifier's loss; no auxiliary head if absent.
    pub auxiliary: Option<f64>,
    /// Probability of drop path at the last epoch (rises linearly from zero).
    pub drop_path: f64,
    /// Side of the square that cutout blanks; none if absent.
    pub cutout: Option<usize>,
    /// Share of the training images, class by class, that is held out to compare trainings by; 0 trains on all
    /// of them.
    pub validation: f64,
}
