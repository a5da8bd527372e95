//! All searches of one device and seed.

use std::convert::Infallible;

use lathe_latency_db::predictor::PredictorError;
use lathe_spaces::Stream;
use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{
    belief::{Belief, Knowledge},
    finalists::{Goal, Session, measure},
    guided::guided,
    target::Target,
};
use crate::evolution::{
    AgingSettings, Evaluator, Nsga2Settings, RowSet, Score, aging_evolution, hypervolume, nsga2,
    random_search,
};

/// Least measurements of a latency predictor.
pub(super) const LEAST_SAMPLES: usize = 5;
/// Rows that are searched among if none seems to meet the limit: one in so many, the fastest.
const FASTEST: usize = 100;

/// Who chooses what is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Chance.
    Random,
    /// Regularised evolution.
    Aging,
    /// NSGA-II.
    Nsga2,
    /// Predictors of accuracy and latency.
    Guided,
}

impl Algorithm {
    /// All, in the order of the output.
    pub const ALL: [Self; 4] = [Self::Random, Self::Aging, Self::Nsga2, Self::Guided];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Aging => "aging",
            Self::Nsga2 => "nsga2",
            Self::Guided => "guided",
        }
    }
}

/// What one search came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub accuracy: f64,
    /// What the optimum is more accurate; a choice that breaks the limit is not better than it.
    pub regret: f64,
    /// Latency of the choice over the limit.
    pub ratio: f64,
    /// Of the returned front, in units of that of the exact front.
    pub hypervolume: f64,
    pub evaluations: f64,
    pub measurements: f64,
}

/// What is run on every device.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub algorithms: Vec<Algorithm>,
    pub knowledge: Vec<Knowledge>,
    pub budgets: Vec<usize>,
    pub samples: usize,
}

/// Outcomes by goal, knowledge, algorithm and budget, in that order.
pub(super) fn draw(
    target: &Target<'_>,
    goals: &[Goal],
    plan: &Plan,
    seed: u64,
) -> Result<Vec<Outcome>, PredictorError> {
    let first = first_samples(target, plan.samples, seed);
    let beliefs: Vec<Belief> = plan
        .knowledge
        .iter()
        .map(|&knowledge| Belief::new(target, knowledge, measure(target, &first)))
        .collect::<Result<_, _>>()?;
    let mut outcomes = Vec::new();
    for (stream, &goal) in (0..).zip(goals) {
        for (&knowledge, belief) in plan.knowledge.iter().zip(&beliefs) {
            let (first, samples) = (first.len(), plan.samples);
            let session = Session { target, knowledge, goal, belief: belief.clone(), first, samples };
            let allowed = allowed(belief, goal);
            for &algorithm in &plan.algorithms {
                // The same stream for every knowledge: they differ in what they know, not in luck.
                let mut rng = Stream::new(seed, algorithm.name(), stream);
                outcomes.extend(searched(&session, &allowed, algorithm, &plan.budgets, &mut rng)?);
            }
        }
    }
    Ok(outcomes)
}

/// What is measured before any search: half of the measurements, but as many as a predictor needs.
fn first_samples(target: &Target<'_>, samples: usize, seed: u64) -> Vec<usize> {
    let count = (samples / 2).max(LEAST_SAMPLES);
    let mut order: Vec<usize> = (0..target.codes.len()).collect();
    let (picked, _) = order.partial_shuffle(&mut Stream::new(seed, "samples of a target", 0), count);
    picked.to_vec()
}

/// Where a search looks: rows that probably meet the limit.
fn allowed(belief: &Belief, goal: Goal) -> Vec<bool> {
    let Goal::Limit(limit_ms) = goal else { return vec![true; belief.means.len()] };
    let allowed: Vec<bool> = belief.meets_all(limit_ms).into_iter().map(|meets| meets >= 0.5).collect();
    if allowed.contains(&true) {
        return allowed;
    }
    let mut sorted = belief.means.clone();
    sorted.sort_by(f64::total_cmp);
    let bound = sorted[sorted.len() / FASTEST];
    belief.means.iter().map(|mean| *mean <= bound).collect()
}

/// Outcomes of one algorithm, one per budget.
fn searched(
    session: &Session<'_>,
    allowed: &[bool],
    algorithm: Algorithm,
    budgets: &[usize],
    rng: &mut ChaCha8Rng,
) -> Result<Vec<Outcome>, PredictorError> {
    let target = session.target;
    if algorithm == Algorithm::Guided {
        let pool: Vec<usize> = (0..allowed.len()).filter(|&row| allowed[row]).collect();
        let one = |&budget: &usize| {
            let mut session = session.clone();
            let rows = guided(&mut session, &pool, budget, &mut rng.clone())?;
            settled(session, &rows)
        };
        return budgets.iter().map(one).collect();
    }
    let most = budgets.iter().copied().max().unwrap_or(0);
    let Some(set) = target.index.subset(allowed.to_vec()) else { return Ok(Vec::new()) };
    let rows = evaluated(session, &set, algorithm, most, rng);
    // What these evaluate doesn't depend on the budget: a smaller one is the beginning of a larger one.
    budgets.iter().map(|&budget| settled(session.clone(), &rows[..budget.min(rows.len())])).collect()
}

fn evaluated(
    session: &Session<'_>,
    set: &RowSet<'_>,
    algorithm: Algorithm,
    budget: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<usize> {
    let (means, accuracies) = (&session.belief.means, &session.target.accuracies);
    let mut judge = |rows: &[usize]| -> Result<Vec<Score>, Infallible> {
        let score = |&row: &usize| Score { objectives: vec![-accuracies[row], means[row]], violation: 0.0 };
        Ok(rows.iter().map(score).collect())
    };
    let evaluator = Evaluator::new(budget, &mut judge);
    let is_front = session.goal == Goal::Front;
    // For a front every tournament has a limit of its own: the latency of one of its members.
    let winner = |scores: &[&Score], rng: &mut ChaCha8Rng| {
        let limit =
            if is_front { scores[rng.random_range(0..scores.len())].objectives[1] } else { f64::INFINITY };
        let fits = (0..scores.len()).filter(|&member| scores[member].objectives[1] <= limit);
        let best = |left: &usize, right: &usize| {
            scores[*left].objectives[0].total_cmp(&scores[*right].objectives[0])
        };
        fits.min_by(best).unwrap_or(0)
    };
    let archive = match algorithm {
        Algorithm::Random => random_search(set, evaluator, rng),
        Algorithm::Nsga2 => nsga2(set, Nsga2Settings::default(), evaluator, rng),
        Algorithm::Aging | Algorithm::Guided => {
            aging_evolution(set, AgingSettings::default(), evaluator, &winner, rng)
        }
    };
    let Ok(archive) = archive;
    archive.entries.into_iter().map(|(row, _)| row).collect()
}

/// Spends the measurements that are left, chooses, and looks the truth up.
fn settled(mut session: Session<'_>, rows: &[usize]) -> Result<Outcome, PredictorError> {
    session.spend(rows, 1.0)?;
    let target = session.target;
    let reference = reference(target, session.goal);
    let points = |rows: &[usize]| -> Vec<Vec<f64>> {
        rows.iter().map(|&row| vec![target.latencies[row], -target.accuracies[row]]).collect()
    };
    let whole = hypervolume(&points(&target.front), &reference);
    let covered = hypervolume(&points(&session.front(rows)), &reference);
    let hypervolume = if whole > 0.0 { covered / whole } else { 1.0 };
    let limit_ms = if let Goal::Limit(limit_ms) = session.goal { limit_ms } else { f64::INFINITY };
    let choice = session.choice(rows, limit_ms);
    let accuracy = target.accuracies[choice];
    let optimum = target.optimum(limit_ms).map_or(accuracy, |row| target.accuracies[row]);
    Ok(Outcome {
        accuracy,
        regret: (optimum - accuracy).max(0.0),
        ratio: target.latencies[choice] / limit_ms,
        hypervolume,
        evaluations: rows.len() as f64,
        measurements: if session.knowledge == Knowledge::Oracle {
            0.0
        } else {
            session.belief.measured.len() as f64
        },
    })
}

/// The reference point of hypervolumes: the limit, or the slowest architecture, and the accuracy of the
/// median architecture (negated).
pub(super) fn reference(target: &Target<'_>, goal: Goal) -> Vec<f64> {
    let slowest = || target.latencies.iter().copied().fold(0.0, f64::max);
    let latency = if let Goal::Limit(limit_ms) = goal { limit_ms } else { slowest() };
    vec![latency, -target.reference_accuracy]
}
