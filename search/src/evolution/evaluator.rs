//! Scores of points, each paid for once.

use std::collections::BTreeMap;

/// What is known of a point.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Objectives, all minimised (an accuracy comes in negated).
    pub objectives: Vec<f64>,
    /// By how much limits are broken, in any unit; zero for a point that meets them all.
    pub violation: f64,
}

/// Points with their scores, in the order in which they were evaluated, no point twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Archive<C> {
    /// The points.
    pub entries: Vec<(C, Score)>,
}

/// Scores of some points, in their order; it may work on as many threads as it likes.
pub type Evaluate<'e, C, E> = dyn FnMut(&[C]) -> Result<Vec<Score>, E> + 'e;

/// Evaluates points in batches and remembers them: a point that comes again costs nothing.
pub struct Evaluator<'e, C, E> {
    evaluate: &'e mut Evaluate<'e, C, E>,
    budget: usize,
    archive: Archive<C>,
    position: BTreeMap<C, usize>,
}

impl<'e, C: Clone + Ord, E> Evaluator<'e, C, E> {
    /// Evaluates at most `budget` different points.
    pub fn new(budget: usize, evaluate: &'e mut Evaluate<'e, C, E>) -> Self {
        let archive = Archive { entries: Vec::new() };
        Self { evaluate, budget, archive, position: BTreeMap::new() }
    }

    /// Evaluations that are left.
    pub fn left(&self) -> usize {
        self.budget - self.archive.entries.len()
    }

    /// Whether a point was evaluated.
    pub fn knows(&self, candidate: &C) -> bool {
        self.position.contains_key(candidate)
    }

    /// Positions in the archive of the points that are evaluated, in their order. New points beyond the
    /// budget are left out.
    ///
    /// # Errors
    /// The first that the evaluating function returns.
    pub fn evaluate(&mut self, wanted: &[C]) -> Result<Vec<usize>, E> {
        let mut new: Vec<C> = Vec::new();
        for candidate in wanted {
            let next = self.archive.entries.len() + new.len();
            if next < self.budget && !self.position.contains_key(candidate) {
                self.position.insert(candidate.clone(), next);
                new.push(candidate.clone());
            }
        }
        if !new.is_empty() {
            let scores = (self.evaluate)(&new)?;
            self.archive.entries.extend(new.into_iter().zip(scores));
        }
        Ok(wanted.iter().filter_map(|candidate| self.position.get(candidate).copied()).collect())
    }

    /// The score at a position of the archive.
    pub fn score(&self, position: usize) -> &Score {
        &self.archive.entries[position].1
    }

    /// The point at a position of the archive.
    pub fn candidate(&self, position: usize) -> &C {
        &self.archive.entries[position].0
    }

    /// Everything that was evaluated.
    pub fn into_archive(self) -> Archive<C> {
        self.archive
    }
}
