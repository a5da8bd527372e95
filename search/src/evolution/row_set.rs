//! The rows of a table as a set to search in.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::Candidates;

/// Draws until a neighbour or a crossing is given up and a row is drawn instead.
const TRIES: usize = 60;

/// Finds rows by their categories.
#[derive(Clone, Debug)]
pub struct RowIndex {
    codes: Vec<Vec<u8>>,
    rows: BTreeMap<Vec<u8>, usize>,
    /// Categories that occur at each position.
    choices: Vec<Vec<u8>>,
}

impl RowIndex {
    /// An index of rows with one category per position; of equal rows the first counts.
    pub fn new(codes: Vec<Vec<u8>>) -> Self {
        let mut rows = BTreeMap::new();
        for (row, codes) in codes.iter().enumerate() {
            rows.entry(codes.clone()).or_insert(row);
        }
        let positions = codes.first().map_or(0, Vec::len);
        let choices = (0..positions)
            .map(|position| {
                let mut choices: Vec<u8> = codes.iter().map(|codes| codes[position]).collect();
                choices.sort_unstable();
                choices.dedup();
                choices
            })
            .collect();
        Self { codes, rows, choices }
    }

    /// A subset of its rows; `None` if it is empty.
    pub fn subset(&self, allowed: Vec<bool>) -> Option<RowSet<'_>> {
        let members: Vec<usize> = (0..self.codes.len()).filter(|&row| allowed[row]).collect();
        (!members.is_empty()).then_some(RowSet { index: self, members, allowed })
    }
}

/// Some rows of a table. A neighbour differs in one category; a crossing takes each category from
/// either parent. Where no such row is in the set, one is drawn.
#[derive(Clone, Debug)]
pub struct RowSet<'i> {
    index: &'i RowIndex,
    members: Vec<usize>,
    allowed: Vec<bool>,
}

impl RowSet<'_> {
    fn find(&self, codes: &[u8]) -> Option<usize> {
        self.index.rows.get(codes).copied().filter(|&row| self.allowed[row])
    }
}

impl Candidates for RowSet<'_> {
    type Candidate = usize;

    fn sample(&self, rng: &mut ChaCha8Rng) -> usize {
        self.members[rng.random_range(0..self.members.len())]
    }

    fn mutate(&self, parent: &usize, rng: &mut ChaCha8Rng) -> usize {
        let mut codes = self.index.codes[*parent].clone();
        for _ in 0..TRIES {
            let position = rng.random_range(0..codes.len());
            let choices = &self.index.choices[position];
            let (old, new) = (codes[position], choices[rng.random_range(0..choices.len())]);
            if new != old {
                codes[position] = new;
                if let Some(row) = self.find(&codes) {
                    return row;
                }
                codes[position] = old;
            }
        }
        self.sample(rng)
    }

    fn cross(&self, left: &usize, right: &usize, rng: &mut ChaCha8Rng) -> usize {
        let (left_codes, right_codes) = (&self.index.codes[*left], &self.index.codes[*right]);
        for _ in 0..TRIES {
            let pairs = left_codes.iter().zip(right_codes);
            let codes: Vec<u8> =
                pairs.map(|(left, right)| if rng.random_bool(0.5) { *left } else { *right }).collect();
            if let Some(row) = self.find(&codes) {
                return row;
            }
        }
        self.mutate(left, rng)
    }
}
