//! Search guided by predictors of accuracy and latency.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{
    belief::Belief,
    finalists::{Goal, Session, believed_front},
    surrogate::{Estimates, Features, Surrogate, expected_improvement},
};
use lathe_latency_db::predictor::PredictorError;

/// Architectures that are evaluated before there is a surrogate, at most.
const INITIAL: usize = 20;
/// Share of the evaluations after which measurements begin to be spent on what was found.
const QUIET: f64 = 0.4;
/// Less probable to meet the limit than this isn't looked at.
const HOPELESS: f64 = 0.02;
/// Rows whose part in the hypervolume is computed exactly.
const LOOKED_AT: usize = 150;
/// The surrogate's margin, as a share of what the best of the first architectures is above their median.
const MARGIN: f64 = 0.5;

/// Evaluates `budget` architectures, the first of them drawn from `pool`, and spends the session's
/// measurements on the way. What is evaluated next has the largest expected improvement of the transformed
/// accuracy times its probability of meeting the limit (constrained expected improvement, Gardner et al.
/// 2014), or, for a front, the largest expected improvement of the hypervolume (Emmerich et al. 2006).
pub(super) fn guided(
    session: &mut Session<'_>,
    pool: &[usize],
    budget: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<usize>, PredictorError> {
    let target = session.target;
    let mut first = pool.to_vec();
    first.shuffle(rng);
    first.truncate(INITIAL.min((budget / 3).max(2)).min(budget));
    let mut rows = first;
    let mut seen = vec![false; target.codes.len()];
    let mut accuracies: Vec<f64> = rows.iter().map(|&row| target.accuracies[row]).collect();
    accuracies.sort_by(f64::total_cmp);
    let margin = MARGIN * (accuracies[accuracies.len() - 1] - accuracies[accuracies.len() / 2]);
    let mut surrogate = Surrogate::new(&target.features, margin);
    for &row in &rows {
        seen[row] = true;
        surrogate.see(row, target.accuracies[row]);
    }
    let mut view = View::of(session);
    while rows.len() < budget {
        let batch = (rows.len() / 10).max(4).min(budget - rows.len());
        if view.measured != session.belief.measured.len() {
            view = View::of(session);
        }
        let estimates = surrogate.estimates(view.features.as_ref().unwrap_or(&target.features));
        let next = match session.goal {
            Goal::Limit(limit_ms) => constrained(&estimates, &view, session, &rows, &seen, limit_ms, batch),
            Goal::Front => covering(&estimates, &session.belief, &target.accuracies, &rows, &seen, batch),
        };
        if next.is_empty() {
            break;
        }
        for row in next {
            seen[row] = true;
            rows.push(row);
            surrogate.see(row, target.accuracies[row]);
        }
        let share = (rows.len() as f64 / budget as f64 - QUIET) / (1.0 - QUIET);
        session.spend(&rows, share.clamp(0.0, 1.0))?;
    }
    Ok(rows)
}

/// Rows that are not hopeless, as long as nothing more is measured.
struct View {
    measured: usize,
    /// Rows with their probability of meeting the limit.
    rows: Vec<(usize, f64)>,
    /// Theirs; `None` where every row is looked at.
    features: Option<Features>,
}

impl View {
    fn of(session: &Session<'_>) -> Self {
        let measured = session.belief.measured.len();
        let Goal::Limit(limit_ms) = session.goal else {
            return Self { measured, rows: Vec::new(), features: None };
        };
        let meets = session.belief.meets_all(limit_ms).into_iter().enumerate();
        let rows: Vec<(usize, f64)> = meets.filter(|(_, meets)| *meets > HOPELESS).collect();
        let indices: Vec<usize> = rows.iter().map(|(row, _)| *row).collect();
        Self { measured, rows, features: Some(session.target.features.rows(&indices)) }
    }
}

/// The rows of highest score that are not seen yet.
fn best(mut scores: Vec<(f64, usize)>, count: usize) -> Vec<(f64, usize)> {
    let order =
        |left: &(f64, usize), right: &(f64, usize)| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1));
    if scores.len() > count {
        scores.select_nth_unstable_by(count, order);
        scores.truncate(count);
    }
    scores.sort_by(order);
    scores
}

fn constrained(
    estimates: &Estimates,
    view: &View,
    session: &Session<'_>,
    rows: &[usize],
    seen: &[bool],
    limit_ms: f64,
    batch: usize,
) -> Vec<usize> {
    let (belief, accuracies) = (&session.belief, &session.target.accuracies);
    let meeting = rows.iter().filter(|&&row| belief.meets(row, limit_ms) >= 0.5);
    let bound = meeting.map(|&row| accuracies[row]).reduce(f64::max);
    let least = || rows.iter().map(|&row| accuracies[row]).fold(f64::INFINITY, f64::min);
    let bound = estimates.transformed(bound.unwrap_or_else(least));
    let unseen = view.rows.iter().zip(&estimates.means).filter(|((row, _), _)| !seen[*row]);
    let scores = unseen.map(|(&(row, meets), mean)| {
        (meets * expected_improvement(f64::from(*mean), estimates.spread, bound), row)
    });
    let mut next = best(scores.collect(), batch);
    if next.is_empty() {
        // Everything that may meet the limit is known: what is fastest comes next.
        let left = (0..seen.len()).filter(|&row| !seen[row]);
        next = best(left.map(|row| (-belief.means[row], row)).collect(), batch);
    }
    next.into_iter().map(|(_, row)| row).collect()
}

/// One after the other, as if each had the accuracy that is expected of it.
fn covering(
    estimates: &Estimates,
    belief: &Belief,
    accuracies: &[f64],
    rows: &[usize],
    seen: &[bool],
    batch: usize,
) -> Vec<usize> {
    // Steps of the front: from this latency on, this transformed accuracy is there.
    let mut steps: Vec<(f64, f64)> = believed_front(belief, accuracies, rows)
        .into_iter()
        .map(|row| (belief.means[row], estimates.transformed(accuracies[row])))
        .collect();
    let floor = rows.iter().map(|&row| accuracies[row]).fold(f64::INFINITY, f64::min);
    let floor = estimates.transformed(floor);
    let level = |steps: &[(f64, f64)], latency: f64| {
        let before = steps.partition_point(|(start, _)| *start <= latency);
        if before == 0 { floor } else { steps[before - 1].1 }
    };
    let own = |row: usize| {
        let bound = level(&steps, belief.means[row]);
        expected_improvement(f64::from(estimates.means[row]), estimates.spread, bound)
    };
    let candidates = (0..belief.means.len()).filter(|&row| !seen[row]).map(|row| (own(row), row));
    let mut candidates = best(candidates.collect(), LOOKED_AT.max(batch));
    let end = belief.means.iter().copied().fold(0.0, f64::max);
    let mut next = Vec::new();
    while next.len() < batch && !candidates.is_empty() {
        let gain = |row: usize| {
            let (latency, mean) = (belief.means[row], f64::from(estimates.means[row]));
            let mut start = latency;
            let mut bound = level(&steps, latency);
            let mut sum = 0.0;
            let behind = steps.partition_point(|(start, _)| *start <= latency);
            let stops = steps[behind..].iter().map(|(start, level)| (*start, *level));
            for (stop, next_level) in stops.chain([(end, f64::INFINITY)]) {
                let improvement = expected_improvement(mean, estimates.spread, bound);
                // Latencies count by their ratio: a millisecond is worth more where there are few.
                sum += (stop / start).ln().max(0.0) * improvement;
                if improvement < 1e-6 {
                    break;
                }
                (start, bound) = (stop, next_level);
            }
            sum
        };
        let scored = best(candidates.iter().map(|&(_, row)| (gain(row), row)).collect(), 1);
        let Some(&(_, row)) = scored.first() else { break };
        candidates.retain(|(_, other)| *other != row);
        next.push(row);
        add_step(&mut steps, belief.means[row], f64::from(estimates.means[row]));
    }
    next
}

/// Adds a point to a front of rising latency and accuracy.
fn add_step(steps: &mut Vec<(f64, f64)>, latency: f64, accuracy: f64) {
    let at = steps.partition_point(|(start, _)| *start <= latency);
    if at > 0 && steps[at - 1].1 >= accuracy {
        return;
    }
    let covered = steps[at..].iter().take_while(|(_, other)| *other <= accuracy).count();
    steps.splice(at..at + covered, [(latency, accuracy)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_added_takes_those_it_covers_away() {
        let mut steps = vec![(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (4.0, 4.0)];
        // Slower and less accurate than what is there: nothing changes.
        add_step(&mut steps, 2.5, 2.0);
        assert_eq!(steps.len(), 4);
        add_step(&mut steps, 1.5, 3.5);
        assert_eq!(steps, [(1.0, 1.0), (1.5, 3.5), (4.0, 4.0)]);
        add_step(&mut steps, 0.5, 9.0);
        assert_eq!(steps, [(0.5, 9.0)]);
    }

    #[test]
    fn the_best_come_first_and_of_equals_the_first() {
        let scores = vec![(1.0, 0), (3.0, 4), (3.0, 2), (2.0, 1), (0.0, 3)];
        assert_eq!(best(scores.clone(), 3), [(3.0, 2), (3.0, 4), (2.0, 1)]);
        assert_eq!(best(scores, 9).len(), 5);
    }
}
