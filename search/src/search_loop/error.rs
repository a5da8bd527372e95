//! Why a search fails.

use std::path::PathBuf;

use thiserror::Error;

use lathe_spaces::SpaceError;

use crate::{
    DeriveError, GraphModuleError, RecordError, TeacherError, checkpoint::CheckpointError,
    distributed::CollectiveError, supernet::SupernetError,
};

/// Why a search failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The supernet can't be built.
    #[error("search: {0}")]
    Supernet(#[from] SupernetError),
    /// A drawn network can't be built.
    #[error("search: {0}")]
    Space(#[from] SpaceError),
    /// The teacher can't be run.
    #[error("search: {0}")]
    Teacher(#[from] TeacherError),
    /// A drawn network can't be run.
    #[error("search: {0}")]
    Network(#[from] GraphModuleError),
    /// The other processes can't be reached.
    #[error("search: {0}")]
    Collective(#[from] CollectiveError),
    /// The first process could not begin; its own error says why.
    #[error("search: the first process could not begin; hint: its output says why")]
    First,
    /// The checkpoint can't be written or read.
    #[error("search: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The record can't be written.
    #[error("search: {0}")]
    Record(#[from] RecordError),
    /// The target can't be met, or the cost table does not fit.
    #[error("search: {0}")]
    Derive(#[from] DeriveError),
    /// A target that pulls from both sides lies above all networks of the space.
    #[error(
        "search: no network comes up to the limit of `{limit}`, {at_most}: upper bounds are {least} to {most}; hint: lower it, or take it as an upper bound alone (sides = \"upper\")"
    )]
    AboveReach {
        /// Name of the limit.
        limit: String,
        /// What was asked for, with its unit.
        at_most: String,
        /// Smallest upper bound of any network of the space.
        least: String,
        /// Largest one.
        most: String,
    },
    /// A setting that makes no sense.
    #[error("search: {what} = {got}, expected {expected}")]
    Setting {
        /// Setting.
        what: &'static str,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// A checkpoint of another search.
    #[error("resume the search from `{}`: it was begun with another {keys}; hint: restore that, or use another run directory", path.display())]
    OtherSearch {
        /// Directory of the checkpoint.
        path: PathBuf,
        /// What differs.
        keys: String,
    },
    /// Weights of a search that is not at its end.
    #[error("score networks by the supernet in `{}`: its search is at epoch {done} of {epochs}; hint: finish it first", path.display())]
    Unfinished {
        /// Directory of the checkpoint.
        path: PathBuf,
        /// Epochs done.
        done: usize,
        /// Epochs in all.
        epochs: usize,
    },
    /// The loss is infinite or not a number.
    #[error(
        "search: the loss of the {half} is {loss} at step {step} of epoch {epoch}; hint: lower the learning rate"
    )]
    Diverged {
        /// `weights` or `architecture`.
        half: &'static str,
        /// Epoch, from 0.
        epoch: usize,
        /// Step, from 0.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// The loader gave fewer batches than there are.
    #[error("search: the images of the {half} ended at step {step} of {steps}")]
    Images {
        /// `weights` or `architecture`.
        half: &'static str,
        /// Step, from 0.
        step: usize,
        /// Steps of an epoch.
        steps: usize,
    },
}
