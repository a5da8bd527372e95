//! The search: weights and architecture parameters take turns, under a latency target.

mod check;
mod error;
mod guard;
mod held;
mod policy;
mod run;
mod scorer;
mod state;
mod steps;
mod warm_up;

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use lathe_latency_db::CostTable;
use lathe_spaces::{Genotype, Micros, Space};
use tch::{Kind, Reduction, Tensor};

pub use error::SearchError;
pub use held::Probe;
pub use scorer::{SupernetScore, SupernetScorer};
pub use warm_up::share_warm_up;

use crate::{
    Dataset, Event, Limit, ObjectiveSettings, RecordError, Scores, SearchSettings, SupernetSettings,
    distributed::Collective,
};
use check::check;
use run::Run;
use state::Restored;

/// What to search, with what, and where to keep the state.
#[derive(Clone, Debug)]
pub struct SearchTask<'a> {
    /// Space: DARTS' or NAS-Bench-201's.
    pub space: &'a Space,
    /// Images; half of the training images train the weights, the other half the architecture.
    pub dataset: Arc<Dataset>,
    /// Size of the supernet.
    pub supernet: SupernetSettings,
    /// Schedule.
    pub settings: SearchSettings,
    /// Latency target.
    pub objective: ObjectiveSettings,
    /// Costs at deployment widths; needed if there is a target.
    pub table: Option<&'a CostTable>,
    /// Further limits, held like the target.
    pub limits: &'a [Limit],
    /// Whole networks that were measured on the first device, for [`Method::Regressor`](crate::Method).
    pub measured: &'a [(Genotype, Micros)],
    /// What measures networks while the search goes on, where
    /// [`ObjectiveSettings::measure_every_epochs`] asks for it; of several processes the first one's.
    pub probe: Option<&'a dyn Probe>,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads of libtorch; the result depends on them in the last bits.
    pub threads: usize,
    /// The other processes that train the same network, each with its share of every batch; the first one
    /// alone reads and writes the checkpoint. The result depends on their number in the last bits.
    pub collective: Option<Arc<dyn Collective>>,
    /// Directory of the checkpoint.
    pub checkpoint: &'a Path,
    /// Set to end after the running step.
    pub stop: &'a AtomicBool,
}

/// What a training tells while it runs.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a step takes far longer than moving it")]
pub enum Progress {
    /// A step was made.
    Step {
        /// Steps done, over all epochs.
        done: usize,
        /// Steps in all.
        total: usize,
        /// Loss of the weights on this step's batch.
        loss: f64,
    },
    /// A line for the record.
    Event(Event),
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq)]
pub enum SearchEnd {
    /// All epochs are done.
    Finished(Scores),
    /// Stopped by [`SearchTask::stop`]; the same call goes on from the checkpoint.
    Interrupted,
}

/// Trains the supernet and its architecture parameters; resumes from the checkpoint if there is one.
///
/// Each step first moves α and β on a batch of the architecture half (Adam; not during the warm-up; of
/// first order, or of second where the settings say so), then the weights on a batch of the other half (SGD).
/// With limits, the architecture's loss is cross-entropy + Σ λ·(E/T − 1), or what [`Method`](crate::Method)
/// says, where E is [`expected_latency`](crate::expected_latency) or the same sum of other costs, and T what it
/// may be so that the upper bound keeps the limit: derivation asks for that bound.
/// The same task gives the same scores, interrupted or not.
pub fn search(
    task: &SearchTask,
    sink: &mut dyn FnMut(Progress) -> Result<(), RecordError>,
) -> Result<SearchEnd, SearchError> {
    check(task)?;
    tch::set_num_threads(task.threads as i32);
    let mut run = Run::new(task)?;
    if run.restore()? == Restored::WarmUp {
        run.tell_warm_up(sink)?;
    }
    while run.position.epoch < task.settings.epochs {
        if !run.epoch(sink)? {
            return Ok(SearchEnd::Interrupted);
        }
    }
    Ok(SearchEnd::Finished(run.architecture.scores()))
}

/// This process's part of the mean over a batch of `whole` images.
pub(crate) fn cross_entropy(logits: &Tensor, labels: &Tensor, whole: usize) -> Tensor {
    logits.cross_entropy_loss(labels, None::<Tensor>, Reduction::Sum, -100, 0.0) / whole as f64
}

fn correct(logits: &Tensor, labels: &Tensor) -> usize {
    logits.detach().argmax(-1, false).eq_tensor(labels).sum(Kind::Int64).int64_value(&[]) as usize
}

#[cfg(test)]
mod tests;
