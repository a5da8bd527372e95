//! Random search.

use rand_chacha::ChaCha8Rng;

use super::{Archive, Candidates, Evaluator, STALLED};

/// Draws points until the budget is spent, or nothing new comes any more.
///
/// # Errors
/// The first that the evaluation returns.
pub fn random_search<S: Candidates, E>(
    candidates: &S,
    mut evaluator: Evaluator<'_, S::Candidate, E>,
    rng: &mut ChaCha8Rng,
) -> Result<Archive<S::Candidate>, E> {
    let mut stalled = 0;
    while evaluator.left() > 0 && stalled < STALLED {
        let before = evaluator.left();
        let drawn: Vec<_> = (0..before).map(|_| candidates.sample(rng)).collect();
        evaluator.evaluate(&drawn)?;
        stalled = if evaluator.left() == before { stalled + 1 } else { 0 };
    }
    Ok(evaluator.into_archive())
}
