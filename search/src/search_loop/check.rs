//! What is refused before the hours of work.

use super::{SearchError, SearchTask};
use crate::{ObjectiveSettings, Scores, SearchSettings, derive};

/// Finds settings that make no sense, and targets that can't be met.
pub(super) fn check(task: &SearchTask) -> Result<(), SearchError> {
    let fault = |what, got: String, expected: &str| {
        Err(SearchError::Setting { what, got, expected: expected.into() })
    };
    let SearchSettings { epochs, warmup_epochs, batch, .. } = task.settings;
    if batch == 0 {
        return fault("batch", batch.to_string(), "at least 1");
    }
    if warmup_epochs >= epochs {
        let expected = format!("less than the {epochs} epochs, or no architecture is learned");
        return fault("warmup_epochs", warmup_epochs.to_string(), &expected);
    }
    if task.threads == 0 {
        return fault("threads", "0".into(), "at least 1");
    }
    let images = task.dataset.train.len();
    if images < 2 {
        return fault(
            "training images",
            images.to_string(),
            "at least 2: half of them learn the architecture",
        );
    }
    let ObjectiveSettings { target, temperature_start, temperature_end, .. } = task.objective;
    for (what, value) in [("temperature_start", temperature_start), ("temperature_end", temperature_end)] {
        if !(value > 0.0 && value.is_finite()) {
            return fault(what, value.to_string(), "a number above zero");
        }
    }
    match (target, task.table) {
        (Some(target), None) => fault("target", target.to_string(), "a cost table to go with it"),
        // Finds a foreign or incomplete table, and a target below everything, before the hours of work.
        (Some(target), Some(table)) => {
            derive(task.space, &Scores::uniform(task.space), Some((table, target)))?;
            Ok(())
        }
        (None, _) => Ok(()),
    }
}
