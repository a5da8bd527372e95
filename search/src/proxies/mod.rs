//! Zero-cost proxies: scores of untrained networks that should order them as their trained accuracies do.
//!
//! Greater is better. A score says something only beside another network's score by the same proxy.

mod agreement;
mod benchmark;
mod initial;
mod naswot;
mod rank;
mod synflow;
mod zen_score;

use lathe_spaces::Graph;
use serde::Serialize;
use tch::Tensor;
use thiserror::Error;

pub use agreement::{Agreement, agreement, kendall};
pub use benchmark::{ProxyBenchmarkError, ProxyOptions, ProxyRow, proxy_benchmark};

pub use rank::rank;

use crate::GraphModuleError;

/// How untrained networks are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Proxy {
    /// Number of learned values.
    Parameters,
    /// Multiply-accumulates of one image.
    Macs,
    /// Synaptic flow: Tanaka et al. 2020, as Abdelfattah et al. 2021 use it; its logarithm.
    Synflow,
    /// Mellor et al. 2021; needs images.
    Naswot,
    /// Lin et al. 2021.
    ZenScore,
}

impl Proxy {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Parameters, Self::Macs, Self::Synflow, Self::Naswot, Self::ZenScore];

    /// Name for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parameters => "parameters",
            Self::Macs => "macs",
            Self::Synflow => "synflow",
            Self::Naswot => "naswot",
            Self::ZenScore => "zen_score",
        }
    }

    /// Score of a network without its auxiliary head, initialised from the seed.
    ///
    /// `images` are normalised, `[batch, 3, resolution, resolution]`, single precision; only
    /// [`Proxy::Naswot`] looks at them. Minus infinity is a score: that of a network which nothing gets through.
    ///
    /// # Errors
    /// [`ProxyError`] if the proxy can't be computed of this graph.
    pub fn score(self, graph: &Graph, images: Option<&Tensor>, seed: u64) -> Result<f64, ProxyError> {
        let graph = graph.without_auxiliary();
        match self {
            Self::Parameters => Ok(graph.parameter_count() as f64),
            Self::Macs => Ok(graph.macs() as f64),
            Self::Synflow => synflow::synflow(&graph, seed),
            Self::Naswot => naswot::naswot(&graph, images.ok_or(ProxyError::NoImages)?, seed),
            Self::ZenScore => zen_score::zen_score(&graph, seed),
        }
    }
}

/// Why a network has no score.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The graph can't be run.
    #[error(transparent)]
    Module(#[from] GraphModuleError),
    /// A graph without or with several inputs.
    #[error("score the network: the graph must have 1 input")]
    Inputs,
    /// NASWOT without images.
    #[error("score the network: `naswot` needs images")]
    NoImages,
    /// NASWOT of a network that has only smooth activations.
    #[error("score the network: `naswot` needs rectifiers (ReLU or ReLU6), the network has none")]
    NoRectifier,
    /// Zen-score of a network that ends otherwise.
    #[error("score the network: `zen_score` needs a global average pooling, the network has none")]
    NoPooling,
    /// Too deep for the number format.
    #[error("score the network: its activations overflow")]
    Overflow,
}

#[cfg(test)]
mod tests;
