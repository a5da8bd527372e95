//! Search in spaces of stages: a supernet in which a network is a path, and a policy that draws paths.
//!
//! Widths, depths, windows and expansions have no common shape to mix: every step trains one drawn network, with
//! weights that all networks share where they overlap ([`shared`]). The policy moves by REINFORCE with an absolute
//! reward (`TuNAS`, Bender et al. 2020). Blocks whose outputs agree in shape can be relaxed as well ([`relaxed`]).

mod axis;
mod learning;
mod policy;
mod relaxed;
mod run;
mod scorer;
mod shared;
mod state;

use std::{
    path::Path,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use lathe_spaces::Space;

use crate::{Dataset, Limit, Progress, RecordError, Scores, SearchError, SearchSettings, Teacher};

pub use learning::{Learning, Truth};
pub use scorer::{PathScore, PathScorer};

/// What a search by paths does that no other search does.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PathSettings {
    /// w of the reward: quality − w · Σ |upper bound / limit − 1| (`TuNAS`: 0.1).
    pub weight: f64,
    /// Blocks whose mean a position is during the warm-up, with a probability that falls from 1 to 0; 1 for none.
    /// `TuNAS` takes all of a position's choices, which costs as much as training all of them.
    pub warmup_blocks: usize,
    /// Whether all widths are the greatest during the warm-up, with a probability that falls from 1 to 0.
    pub warmup_widths: bool,
    /// How the shared weights move.
    pub optimizer: WeightOptimizer,
    /// Batches of the settings' size that a drawn network's quality is the mean of (`TuNAS`: 4).
    pub policy_batches: usize,
    /// PC-DARTS' relaxation of the blocks at a position, on one of so many parts of the channels; `None`: blocks are
    /// drawn, as all other choices are. See [`search_paths`].
    pub relaxed: Option<usize>,
}

/// How weights that networks share move. Both have the momentum, decay and clipping of the settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightOptimizer {
    /// Stochastic gradient descent, as PC-DARTS has it.
    #[default]
    Sgd,
    /// `RMSProp` as `TuNAS` has it: s ← 0.9 · s + 0.1 · g²; v ← momentum · v + rate · g / √(s + 1); w ← w − v.
    RmsProp,
}

impl WeightOptimizer {
    /// Both, in the order in which they are listed.
    pub const ALL: [Self; 2] = [Self::Sgd, Self::RmsProp];

    /// Word of the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::RmsProp => "rmsprop",
        }
    }
}

impl Default for PathSettings {
    fn default() -> Self {
        Self {
            weight: 0.1,
            warmup_blocks: 3,
            warmup_widths: true,
            optimizer: WeightOptimizer::Sgd,
            policy_batches: 4,
            relaxed: None,
        }
    }
}

/// What to search, with what, and where to keep the state.
#[derive(Clone, Debug)]
pub struct PathTask<'a> {
    /// A space of elastic stages.
    pub space: &'a Space,
    /// Images; half of the training images train the weights, the other half the policy.
    pub dataset: Arc<Dataset>,
    /// Schedule. During the warm-up epochs the policy rests; afterwards its rate rises tenfold, exponentially.
    pub settings: SearchSettings,
    /// What networks learn to give, in place of classes or images.
    pub teacher: Option<Rc<Teacher>>,
    /// The rest.
    pub paths: PathSettings,
    /// What the reward is lowered by; may be empty.
    pub limits: &'a [Limit],
    /// Seed of everything random.
    pub seed: u64,
    /// Threads of libtorch; the result depends on them in the last bits.
    pub threads: usize,
    /// Directory of the checkpoint.
    pub checkpoint: &'a Path,
    /// Set to end after the running step.
    pub stop: &'a AtomicBool,
}

/// How a search by paths ended.
#[derive(Clone, Debug, PartialEq)]
pub enum PathEnd {
    /// All epochs are done: the logits of the policy.
    Finished(Scores),
    /// Stopped by [`PathTask::stop`]; the same call goes on from the checkpoint.
    Interrupted,
}

/// Trains the shared weights on drawn networks, and the policy that draws them; resumes from the checkpoint if there
/// is one.
///
/// Each step first draws a network and moves the policy by its reward on a batch of the architecture half (Adam with
/// β₁ = 0, against a running mean of rewards; not during the warm-up), then draws another one and moves its weights
/// on a batch of the other half (SGD). Batch norms use the statistics of the batch, always. The same task gives the
/// same scores, interrupted or not.
///
/// With [`PathSettings::relaxed`], widths, depths, strides and entries are drawn as before, but the network of the
/// policy's step mixes all blocks that give a position an output of one shape, by the softmax of their logits, and
/// the gradient of the loss moves these logits; what the drawn network exceeds its limits by still moves them by
/// REINFORCE, since no latency is a sum over blocks here. Every other step of the weights is one of a relaxed
/// network; with several parts its weights are its own, because its channels are shuffled (PC-DARTS, Xu et al. 2020,
/// section 3.1; there is one edge into each position, so edge normalisation has nothing to do).
pub fn search_paths(
    task: &PathTask<'_>,
    sink: &mut dyn FnMut(Progress) -> Result<(), RecordError>,
) -> Result<PathEnd, SearchError> {
    tch::set_num_threads(task.threads as i32);
    let mut run = run::Run::new(task)?;
    run.restore()?;
    while run.position.epoch < task.settings.epochs {
        if !run.epoch(sink)? {
            return Ok(PathEnd::Interrupted);
        }
    }
    Ok(PathEnd::Finished(run.policy.scores()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
