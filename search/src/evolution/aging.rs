//! Regularised evolution.

use std::collections::VecDeque;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Archive, Candidates, Evaluator, STALLED, Score};

/// Sizes of regularised evolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgingSettings {
    /// Points that are alive.
    pub population: usize,
    /// Points of a tournament.
    pub tournament: usize,
}

impl Default for AgingSettings {
    fn default() -> Self {
        Self { population: 20, tournament: 5 }
    }
}

/// Regularised (aging) evolution (Real et al. 2019, Regularized Evolution for Image Classifier
/// Architecture Search, algorithm 1): the best of a few random members of the population is mutated, the
/// child joins, and the oldest member dies. `winner` says which member of a tournament is the best.
///
/// # Errors
/// The first that the evaluation returns.
pub fn aging_evolution<S: Candidates, E>(
    candidates: &S,
    settings: AgingSettings,
    mut evaluator: Evaluator<'_, S::Candidate, E>,
    winner: &dyn Fn(&[&Score], &mut ChaCha8Rng) -> usize,
    rng: &mut ChaCha8Rng,
) -> Result<Archive<S::Candidate>, E> {
    let mut population: VecDeque<usize> = VecDeque::new();
    let mut stalled = 0;
    while evaluator.left() > 0 && population.len() < settings.population && stalled < STALLED {
        let before = evaluator.left();
        let missing = settings.population - population.len();
        let drawn: Vec<_> = (0..missing).map(|_| candidates.sample(rng)).collect();
        population.extend(evaluator.evaluate(&drawn)?);
        stalled = if evaluator.left() == before { stalled + 1 } else { 0 };
    }
    stalled = 0;
    while evaluator.left() > 0 && stalled < STALLED * settings.population {
        let drawn =
            (0..settings.tournament.max(1)).map(|_| population[rng.random_range(0..population.len())]);
        let drawn: Vec<usize> = drawn.collect();
        let scores: Vec<&Score> = drawn.iter().map(|&position| evaluator.score(position)).collect();
        let parent = drawn[winner(&scores, rng)];
        let child = candidates.mutate(evaluator.candidate(parent), rng);
        stalled = if evaluator.knows(&child) { stalled + 1 } else { 0 };
        population.extend(evaluator.evaluate(&[child])?);
        population.pop_front();
    }
    Ok(evaluator.into_archive())
}
