//! NSGA-II.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Archive, Candidates, Evaluator, STALLED, Score, crowding_distances, non_dominated_ranks};

/// Sizes and rates of NSGA-II.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nsga2Settings {
    /// Members of a generation.
    pub population: usize,
    /// Share of the children that have two parents.
    pub crossing: f64,
    /// Share of the children that are mutated; those without a second parent always are.
    pub mutation: f64,
}

impl Default for Nsga2Settings {
    fn default() -> Self {
        Self { population: 20, crossing: 0.9, mutation: 0.5 }
    }
}

/// A member of the population with what tournaments look at.
#[derive(Clone, Copy)]
struct Member {
    position: usize,
    rank: usize,
    crowding: f64,
}

/// NSGA-II (Deb et al. 2002) on discrete points: binary tournaments by rank and crowding distance,
/// crossing and mutation as the candidates define them, and the best of parents and children survive.
/// A child that was evaluated before is mutated until it is new, since only new points are paid for.
///
/// # Errors
/// The first that the evaluation returns.
pub fn nsga2<S: Candidates, E>(
    candidates: &S,
    settings: Nsga2Settings,
    mut evaluator: Evaluator<'_, S::Candidate, E>,
    rng: &mut ChaCha8Rng,
) -> Result<Archive<S::Candidate>, E> {
    let drawn: Vec<_> = (0..settings.population).map(|_| candidates.sample(rng)).collect();
    let first = evaluator.evaluate(&drawn)?;
    let mut population = survivors(&evaluator, first, settings.population);
    let mut stalled = 0;
    while evaluator.left() > 0 && stalled < STALLED && !population.is_empty() {
        let before = evaluator.left();
        let mut children = Vec::with_capacity(settings.population);
        for _ in 0..settings.population {
            let parent = |rng: &mut ChaCha8Rng| evaluator.candidate(tournament(&population, rng));
            let left = parent(rng);
            let mut child = if rng.random_bool(settings.crossing) {
                let right = parent(rng);
                let child = candidates.cross(left, right, rng);
                if rng.random_bool(settings.mutation) { candidates.mutate(&child, rng) } else { child }
            } else {
                candidates.mutate(left, rng)
            };
            for _ in 0..STALLED {
                if !evaluator.knows(&child) && !children.contains(&child) {
                    break;
                }
                child = candidates.mutate(&child, rng);
            }
            children.push(child);
        }
        let mut union: Vec<usize> = population.iter().map(|member| member.position).collect();
        union.extend(evaluator.evaluate(&children)?);
        population = survivors(&evaluator, union, settings.population);
        stalled = if evaluator.left() == before { stalled + 1 } else { 0 };
    }
    Ok(evaluator.into_archive())
}

/// The better of two random members: lower rank, then more room.
fn tournament(population: &[Member], rng: &mut ChaCha8Rng) -> usize {
    let left = population[rng.random_range(0..population.len())];
    let right = population[rng.random_range(0..population.len())];
    let is_right = (right.rank, left.crowding) < (left.rank, right.crowding);
    if is_right { right.position } else { left.position }
}

/// The members of the next generation: whole fronts, and of the last that fits the ones with most room.
fn survivors<C: Clone + Ord, E>(
    evaluator: &Evaluator<'_, C, E>,
    mut positions: Vec<usize>,
    count: usize,
) -> Vec<Member> {
    positions.sort_unstable();
    positions.dedup();
    let scores: Vec<&Score> = positions.iter().map(|&position| evaluator.score(position)).collect();
    let ranks = non_dominated_ranks(&scores);
    let mut members = Vec::with_capacity(count);
    for rank in 0..=ranks.iter().copied().max().unwrap_or(0) {
        let front: Vec<usize> = (0..positions.len()).filter(|&index| ranks[index] == rank).collect();
        let of_front: Vec<&Score> = front.iter().map(|&index| scores[index]).collect();
        let crowding = crowding_distances(&of_front);
        let mut front: Vec<Member> = front
            .into_iter()
            .zip(crowding)
            .map(|(index, crowding)| Member { position: positions[index], rank, crowding })
            .collect();
        // A stable sort: of equals the earlier evaluated survives.
        front.sort_by(|left, right| right.crowding.total_cmp(&left.crowding));
        front.truncate(count - members.len());
        members.extend(front);
        if members.len() == count {
            break;
        }
    }
    members
}
