//! What the last measurements are spent on, and what is chosen in the end.

use std::collections::BTreeMap;

use lathe_latency_db::predictor::PredictorError;

use super::{
    belief::{Belief, Knowledge},
    target::Target,
};
use crate::evolution::pareto_front;

/// What was not measured is chosen if it is believed to meet the limit with this probability.
const SAFE: f64 = 0.9;

/// What is searched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// The most accurate architecture within so many milliseconds.
    Limit(f64),
    /// All trade-offs.
    Front,
}

/// One search on a device, which may still measure.
#[derive(Clone)]
pub(super) struct Session<'s> {
    pub target: &'s Target<'s>,
    pub knowledge: Knowledge,
    pub goal: Goal,
    pub belief: Belief,
    /// Measurements there were in the beginning, and of all.
    pub first: usize,
    pub samples: usize,
}

impl Session<'_> {
    /// Measures evaluated rows until this share of the measurements that are left for them is spent.
    pub(super) fn spend(&mut self, rows: &[usize], share: f64) -> Result<(), PredictorError> {
        if self.knowledge == Knowledge::Oracle {
            return Ok(());
        }
        let allowed = self.first + ((self.samples - self.first) as f64 * share) as usize;
        while self.belief.measured.len() < allowed {
            let next = match self.goal {
                Goal::Limit(limit_ms) => self.most_promising(rows, limit_ms),
                Goal::Front => self.least_known(rows),
            };
            let Some(row) = next else { break };
            let mut measured = self.belief.measured.clone();
            measured.insert(row, self.target.latencies[row]);
            self.belief = Belief::new(self.target, self.knowledge, measured)?;
        }
        Ok(())
    }

    /// The row whose measurement should raise the accuracy of the choice most: probability of meeting the
    /// limit times what it is better than what can be chosen already. The last measurement is for the
    /// choice itself, if it was not measured.
    fn most_promising(&self, rows: &[usize], limit_ms: f64) -> Option<usize> {
        let chosen = self.choice(rows, limit_ms);
        let is_safe = self.belief.meets(chosen, limit_ms) >= SAFE;
        let is_measured = |row: usize| self.belief.measured.contains_key(&row);
        if self.belief.measured.len() + 1 == self.samples && !is_measured(chosen) {
            return Some(chosen);
        }
        let accuracy = |row: usize| self.target.accuracies[row];
        let bound = if is_safe {
            accuracy(chosen)
        } else {
            rows.iter().map(|&row| accuracy(row)).fold(f64::INFINITY, f64::min)
        };
        let gain = |row: usize| self.belief.meets(row, limit_ms) * (accuracy(row) - bound);
        let unmeasured = rows.iter().copied().filter(|&row| !is_measured(row) && accuracy(row) > bound);
        let best = unmeasured.map(|row| (gain(row), row)).max_by(|left, right| left.0.total_cmp(&right.0));
        best.filter(|(gain, _)| *gain > 0.0)
            .map(|(_, row)| row)
            .or_else(|| Some(chosen).filter(|&row| !is_measured(row)))
    }

    /// The member of the front that is furthest from everything that was measured, by the ratio of their
    /// latencies.
    fn least_known(&self, rows: &[usize]) -> Option<usize> {
        let distance = |row: usize| {
            let apart = |latency: &f64| (self.belief.means[row] / latency).ln().abs();
            self.belief.measured.values().map(apart).fold(f64::INFINITY, f64::min)
        };
        let front = believed_front(&self.belief, &self.target.accuracies, rows);
        let unmeasured = front.into_iter().filter(|row| !self.belief.measured.contains_key(row));
        unmeasured.max_by(|&left, &right| distance(left).total_cmp(&distance(right)))
    }

    /// The most accurate of the rows that are known or safely believed to meet the limit, or the one that
    /// is most likely to.
    pub(super) fn choice(&self, rows: &[usize], limit_ms: f64) -> usize {
        let accuracy = |row: usize| self.target.accuracies[row];
        let safe = rows.iter().copied().filter(|&row| self.belief.meets(row, limit_ms) >= SAFE);
        let likely = |&left: &usize, &right: &usize| {
            let by = self.belief.meets(left, limit_ms).total_cmp(&self.belief.meets(right, limit_ms));
            by.then(self.belief.means[right].total_cmp(&self.belief.means[left]))
        };
        let best = safe.max_by(|&left, &right| accuracy(left).total_cmp(&accuracy(right)));
        best.or_else(|| rows.iter().copied().max_by(likely)).unwrap_or_default()
    }

    /// The rows that are returned as a front: those that none of the others seems to dominate, and that
    /// seem to meet the limit, if there is one.
    pub(super) fn front(&self, rows: &[usize]) -> Vec<usize> {
        match self.goal {
            Goal::Front => believed_front(&self.belief, &self.target.accuracies, rows),
            Goal::Limit(limit_ms) => {
                let meets = |row: &usize| self.belief.meets(*row, limit_ms) >= 0.5;
                let rows: Vec<usize> = rows.iter().copied().filter(meets).collect();
                believed_front(&self.belief, &self.target.accuracies, &rows)
            }
        }
    }
}

/// Rows that none of the others dominates, as far as is believed, by rising latency.
pub(super) fn believed_front(belief: &Belief, accuracies: &[f64], rows: &[usize]) -> Vec<usize> {
    let points: Vec<Vec<f64>> = rows.iter().map(|&row| vec![belief.means[row], -accuracies[row]]).collect();
    pareto_front(&points).into_iter().map(|index| rows[index]).collect()
}

/// Rows that are measured before any search, with their latencies.
pub(super) fn measure(target: &Target<'_>, rows: &[usize]) -> BTreeMap<usize, f64> {
    rows.iter().map(|&row| (row, target.latencies[row])).collect()
}
