//! What a study consists of.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How a member finds its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Approach {
    /// Search under a target for the measured latency.
    #[value(skip)]
    Latency,
    /// Search under a limit on multiply-accumulates in place of the target
    Macs,
    /// Search without any target
    Unconstrained,
    /// Evolution on the weights of a trained supernet.
    #[value(skip)]
    Evolved,
}

impl Approach {
    /// Its word, in names and tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Macs => "macs",
            Self::Unconstrained => "unconstrained",
            Self::Evolved => "evolved",
        }
    }
}

/// What a study consists of; a resumed one must have the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyPlan {
    /// Targets in milliseconds on the first device.
    pub targets_ms: Vec<f64>,
    /// Targets as quantiles of the measured random networks.
    pub quantiles: Vec<f64>,
    /// Repetitions, with seeds from the configuration's on.
    pub seeds: usize,
    /// What is searched beside the targets.
    pub compare: Vec<Approach>,
    /// Networks that evolution scores on a supernet's weights, per seed.
    pub evolve: Option<usize>,
    /// Proxy that chooses the first of them.
    #[serde(default)]
    pub evolve_proxy: Option<String>,
    /// Images that each of these is scored on.
    pub evolve_images: usize,
    /// Further devices that the networks found are timed on.
    pub also: Vec<String>,
}

impl StudyPlan {
    /// Whether there is a target.
    pub fn has_targets(&self) -> bool {
        !self.targets_ms.is_empty() || !self.quantiles.is_empty()
    }
}
