//! What is refused before the hours of work.

use super::{SearchError, SearchTask, held::limits};
use crate::{
    DeriveError, Limit, Method, ObjectiveSettings, Scores, SearchSettings, Sides, derive, derive_within,
    penalty::logarithm_of_too_little,
};

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
    let ObjectiveSettings { target, method, temperature_start, temperature_end, .. } = task.objective;
    for (what, value) in [("temperature_start", temperature_start), ("temperature_end", temperature_end)] {
        if !(value > 0.0 && value.is_finite()) {
            return fault(what, value.to_string(), "a number above zero");
        }
    }
    if let (Some(target), None) = (target, task.table) {
        return fault("target", target.to_string(), "a cost table to go with it");
    }
    let limits = limits(task)?;
    for limit in &limits {
        let [least, _] = limit.reachable(task.space);
        if logarithm_of_too_little(method, limit, least) {
            let got = format!("a logarithm, with `{}` from {least} on", limit.name);
            return fault("method", got, "values above 1 in their unit; another method knows no unit");
        }
    }
    if task.settings.second_order && matches!(method, Method::Logarithmic | Method::Fbnet) {
        return fault("second_order", "true".into(), "false: this method multiplies the cross-entropy");
    }
    if task.settings.second_order && method == Method::Reinforce {
        return fault("second_order", "true".into(), "false: a policy has no gradient of the weights");
    }
    if task.objective.measure_every_epochs == Some(0) {
        return fault("measure_every_epochs", "0".into(), "at least 1");
    }
    if task.objective.sides == Sides::Both && matches!(method, Method::Dual | Method::Regressor) {
        limits.iter().try_for_each(|limit| within_reach(task, limit))?;
    }
    // Finds foreign or incomplete costs, and limits below everything, before the hours of work.
    derive_first(task, &limits)
}

/// Refuses a target that pulls from both sides and that no network comes up to: λ would fall to its bound and stay.
fn within_reach(task: &SearchTask, limit: &Limit) -> Result<(), SearchError> {
    let reachable = limit.reachable(task.space).map(|mean| mean * limit.upper_factor);
    if limit.at_most <= reachable[1] {
        return Ok(());
    }
    let [at_most, least, most] =
        [limit.at_most, reachable[0], reachable[1]].map(|value| limit.quantity.show(value));
    Err(SearchError::AboveReach { limit: limit.name.clone(), at_most, least, most })
}

fn derive_first(task: &SearchTask, limits: &[Limit]) -> Result<(), SearchError> {
    let uniform = Scores::uniform(task.space);
    let first = match (task.objective.target, task.table, limits) {
        // One target is told by its own words.
        (Some(target), Some(table), [_]) => derive(task.space, &uniform, Some((table, target))).map(drop),
        _ => derive_within(task.space, &uniform, limits, &|_| true).map(drop),
    };
    match first {
        // With the preferences of a search the same limits may be met at once.
        Err(undecided @ DeriveError::Undecided { .. }) => {
            tracing::warn!(%undecided, "whether a network keeps the limits is not known before the search");
            Ok(())
        }
        first => Ok(first?),
    }
}
