//! How a latency target is held during a search: dual ascent on λ under a target that tightens, and
//! a relaxation that sharpens.

use crate::{ObjectiveSettings, SearchSettings, Sides};

/// The schedule of target and temperature, in epochs of the search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// First epoch in which the architecture parameters move.
    warmup: usize,
    epochs: usize,
    anneal: usize,
    temperatures: [f64; 2],
}

impl Schedule {
    /// From the settings.
    pub fn new(settings: &SearchSettings, objective: &ObjectiveSettings) -> Self {
        Self {
            warmup: settings.warmup_epochs,
            epochs: settings.epochs,
            anneal: objective.anneal_epochs,
            temperatures: [objective.temperature_start, objective.temperature_end],
        }
    }

    /// Temperature of an epoch: geometric from start to end over the epochs after the warm-up.
    pub fn temperature(&self, epoch: usize) -> f64 {
        let [start, end] = self.temperatures;
        let last = self.epochs.saturating_sub(self.warmup + 1).max(1);
        let progress = (epoch.saturating_sub(self.warmup) as f64 / last as f64).min(1.0);
        start * (end / start).powf(progress)
    }

    /// Target of a step: `from` in the warm-up, falls linearly to `to` over the epochs after it; `to` at
    /// once if it is not lower. `progress` is the share of the epoch that is done.
    pub fn target(&self, epoch: usize, progress: f64, from: f64, to: f64) -> f64 {
        if to >= from || self.anneal == 0 {
            return to;
        }
        if epoch < self.warmup {
            return from;
        }
        let done = ((epoch - self.warmup) as f64 + progress) / self.anneal as f64;
        from + (to - from) * done.clamp(0.0, 1.0)
    }
}

/// λ after a step: λ + rate · excess, within [0, `dual_max`], or [−`dual_max`, `dual_max`] where the target
/// pulls from both sides; `excess` = expected / target − 1.
pub(crate) fn ascend(lambda: f64, excess: f64, objective: &ObjectiveSettings) -> f64 {
    let least = match objective.sides {
        Sides::Upper => 0.0,
        Sides::Both => -objective.dual_max,
    };
    (lambda + objective.dual_rate * excess).clamp(least, objective.dual_max)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::float_cmp, reason = "tests")]
pub(crate) mod tests {
    use super::*;
    use crate::fixtures;

    fn objective() -> ObjectiveSettings {
        ObjectiveSettings { dual_rate: 0.05, dual_max: 2.0, ..fixtures::objective() }
    }

    fn schedule() -> Schedule {
        Schedule { warmup: 15, epochs: 50, anneal: 10, temperatures: [1.0, 0.1] }
    }

    #[test]
    fn temperature_rests_in_the_warm_up_and_ends_at_its_end() {
        let schedule = schedule();
        assert_eq!(schedule.temperature(0), 1.0);
        assert_eq!(schedule.temperature(15), 1.0);
        assert!((schedule.temperature(32) - 0.1f64.sqrt()).abs() < 1e-12);
        assert!((schedule.temperature(49) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn target_falls_to_its_value_and_never_rises() {
        let schedule = schedule();
        assert_eq!(schedule.target(15, 0.0, 10.0, 4.0), 10.0);
        assert_eq!(schedule.target(14, 1.0, 10.0, 4.0), 10.0, "nothing falls in the warm-up");
        assert_eq!(schedule.target(20, 0.0, 10.0, 4.0), 7.0);
        assert!((schedule.target(20, 0.5, 10.0, 4.0) - 6.7).abs() < 1e-12);
        assert_eq!(schedule.target(25, 0.0, 10.0, 4.0), 4.0);
        assert_eq!(schedule.target(49, 0.9, 10.0, 4.0), 4.0);
        assert_eq!(schedule.target(15, 0.0, 10.0, 12.0), 12.0);
    }

    #[test]
    fn lambda_rises_above_the_target_falls_below_and_keeps_its_limits() {
        let objective = objective();
        assert!((ascend(0.5, 0.2, &objective) - 0.51).abs() < 1e-12);
        assert!((ascend(0.5, -0.2, &objective) - 0.49).abs() < 1e-12);
        assert_eq!(ascend(0.001, -0.9, &objective), 0.0);
        assert_eq!(ascend(1.99, 3.0, &objective), 2.0);
        let both = ObjectiveSettings { sides: Sides::Both, ..objective };
        assert!((ascend(0.001, -0.9, &both) + 0.044).abs() < 1e-12);
        assert_eq!(ascend(-1.99, -3.0, &both), -2.0);
    }
}
