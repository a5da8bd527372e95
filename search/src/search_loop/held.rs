//! What a search is held to while it runs.

use std::fmt;

use lathe_spaces::{Genotype, Space};
use tch::{Kind, Tensor};

use super::{SearchError, SearchTask, state::read_numbers};
use crate::{
    DeriveError, Limit, LimitEpoch, Method, ObjectiveSettings, Scores,
    constraint::{Schedule, ascend},
    penalty::Terms,
    relaxed_latency::RelaxedLatency,
    supernet::Architecture,
};

/// Share of a new error in the running one.
const NEWEST: f64 = 0.5;

/// Measures networks on the devices of a run, while the search goes on.
pub trait Probe: fmt::Debug {
    /// What a network takes under each limit of the search in order, in the unit of its costs; `None` where
    /// nothing is measured (operations are counted). `epoch` is that after which it is asked: the same epoch
    /// must get the same answer, also after an interruption.
    ///
    /// # Errors
    /// Why the device gave nothing, in words. The search then goes on without a correction of this epoch.
    fn measure(&self, epoch: usize, genotype: &Genotype) -> Result<Vec<Option<f64>>, String>;
}

/// All limits, their relaxation and what is learned of them.
pub(super) struct Held {
    /// The latency target, if there is one, then the further limits.
    pub limits: Vec<Limit>,
    relaxed: RelaxedLatency,
    /// Expected values of a space without preferences: where the targets start.
    start: Vec<f64>,
    /// λ per limit.
    pub multipliers: Tensor,
    /// Per limit the running error of the prediction, measured − predicted; then how often it was measured.
    pub corrections: Tensor,
}

impl Held {
    /// `None` if nothing is limited.
    pub fn new(task: &SearchTask) -> Result<Option<Self>, SearchError> {
        let limits = limits(task)?;
        if limits.is_empty() {
            return Ok(None);
        }
        let costs: Vec<_> = limits.iter().map(|limit| &limit.costs).collect();
        let zeros = |count: usize| Tensor::from_slice(&vec![0.0f64; count]);
        let uniform = Scores::uniform(task.space);
        Ok(Some(Self {
            relaxed: RelaxedLatency::new(task.space, &costs),
            start: limits.iter().map(|limit| limit.expected(task.space, &uniform, 1.0)).collect(),
            multipliers: zeros(limits.len()),
            corrections: zeros(limits.len() + 1),
            limits,
        }))
    }

    /// Where every limit's expected value should be at a moment of the search.
    fn targets(&self, schedule: &Schedule, epoch: usize, progress: f64) -> Vec<f64> {
        let pairs = self.limits.iter().zip(&self.start);
        pairs.map(|(limit, start)| schedule.target(epoch, progress, *start, limit.mean_at_most())).collect()
    }

    /// The architecture's loss of one step, and every λ after it.
    pub fn loss(
        &self,
        (cross_entropy, value): (Tensor, f64),
        architecture: &Architecture,
        beyond: Option<&Tensor>,
        (schedule, epoch, progress): (&Schedule, usize, f64),
        objective: &ObjectiveSettings,
    ) -> (Tensor, Tensor) {
        let (alpha, beta) = architecture.rows();
        let count = self.limits.len();
        let corrections = self.corrections.narrow(0, 0, count as i64);
        let expected = self.relaxed.of(&alpha, &beta, schedule.temperature(epoch)) + corrections;
        let expected = match beyond {
            None => expected,
            // Only the first limit's.
            Some(beyond) => {
                let mut first = vec![0.0f64; count];
                first[0] = 1.0;
                expected + Tensor::from_slice(&first) * beyond
            }
        };
        let targets = self.targets(schedule, epoch, progress);
        let multipliers = read_numbers(&self.multipliers);
        let terms =
            Terms { cross_entropy, value, expected: &expected, targets: &targets, multipliers: &multipliers };
        let loss = terms.loss(objective);
        let after: Vec<f64> = (read_numbers(&expected).iter().zip(&targets).zip(&multipliers))
            .map(|((expected, target), lambda)| match objective.method {
                Method::Dual | Method::Regressor => ascend(*lambda, expected / target - 1.0, objective),
                _ => 0.0,
            })
            .collect();
        (loss, Tensor::from_slice(&after))
    }

    /// Σ |value / limit − 1| of a network, corrected by what was measured.
    pub fn distance(&self, space: &Space, genotype: &Genotype) -> f64 {
        let corrections = read_numbers(&self.corrections);
        let one = |(limit, correction): (&Limit, f64)| {
            ((limit.mean(space, genotype) + correction) / limit.mean_at_most() - 1.0).abs()
        };
        self.limits.iter().zip(corrections).map(one).sum()
    }

    /// Takes up what the network that would be derived takes by measurement. `beyond`: what a regressor adds to the
    /// first limit's prediction of it, which is no error of that prediction any more.
    pub fn correct(&mut self, space: &Space, genotype: &Genotype, beyond: f64, measured: &[Option<f64>]) {
        let mut corrections = read_numbers(&self.corrections);
        let count = self.limits.len();
        let first = corrections[count] == 0.0;
        let beyond = std::iter::once(beyond).chain(std::iter::repeat(0.0));
        let rows = corrections.iter_mut().zip(&self.limits).zip(beyond).zip(measured);
        for (((correction, limit), beyond), measured) in rows {
            if let Some(measured) = measured {
                let error = measured - limit.mean(space, genotype) - beyond;
                *correction = if first { error } else { *correction + NEWEST * (error - *correction) };
            }
        }
        corrections[count] += 1.0;
        self.corrections = Tensor::from_slice(&corrections).to_kind(Kind::Double);
    }

    /// What an epoch came to under every limit. `beyond`: what a regressor adds to the first limit's expected value,
    /// and to that of the network.
    pub fn epoch(
        &self,
        space: &Space,
        scores: &Scores,
        (genotype, beyond): (&Genotype, [f64; 2]),
        (schedule, epoch): (&Schedule, usize),
    ) -> Vec<LimitEpoch> {
        let targets = self.targets(schedule, epoch, 1.0);
        let (multipliers, corrections) = (read_numbers(&self.multipliers), read_numbers(&self.corrections));
        let one = |(index, limit): (usize, &Limit)| {
            let [expected, derived] = if index == 0 { beyond } else { [0.0; 2] };
            LimitEpoch {
                limit: limit.name.clone(),
                quantity: limit.quantity,
                expected: limit.expected(space, scores, schedule.temperature(epoch)) + expected,
                correction: corrections[index],
                target: targets[index],
                lambda: multipliers[index],
                derived: limit.mean(space, genotype) + derived,
            }
        };
        self.limits.iter().enumerate().map(one).collect()
    }
}

/// The latency target of a task, if there is one, then its further limits.
pub(super) fn limits(task: &SearchTask) -> Result<Vec<Limit>, DeriveError> {
    let first = task.objective.target.zip(task.table);
    let first = first.map(|(target, table)| Limit::latency("latency", task.space, table, target));
    let mut limits: Vec<Limit> = first.transpose()?.into_iter().collect();
    limits.extend_from_slice(task.limits);
    Ok(limits)
}
