//! Which images train the weights and which the architecture.

use std::collections::BTreeMap;

use lathe_spaces::Stream;
use rand::seq::SliceRandom as _;

use crate::Dataset;

/// Indices of the training images for weights and architecture. Every class is split in the middle of
/// a seeded shuffle; of odd classes the one image goes to the architecture first, then in turns, so
/// that the architecture's half is never the smaller one.
pub(crate) fn halves(dataset: &Dataset, seed: u64) -> [Vec<usize>; 2] {
    let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in 0..dataset.train.len() {
        classes.entry(dataset.train.label(index)).or_default().push(index);
    }
    let mut halves = [Vec::new(), Vec::new()];
    for (class, mut indices) in classes {
        indices.shuffle(&mut Stream::new(seed, "search halves", class as u64));
        let extra_to_weights = halves[1].len() > halves[0].len();
        let middle = if extra_to_weights { indices.len().div_ceil(2) } else { indices.len() / 2 };
        halves[1].extend_from_slice(&indices[middle..]);
        indices.truncate(middle);
        halves[0].append(&mut indices);
    }
    for half in &mut halves {
        half.sort_unstable();
    }
    halves
}

/// The same indices in an order in which every batch goes through all of them: of images sorted by class, every batch
/// has all classes.
pub(crate) fn dealt(indices: &[usize], batch: usize) -> Vec<usize> {
    let batches = indices.len().div_ceil(batch).max(1);
    (0..batches).flat_map(|first| indices.iter().copied().skip(first).step_by(batches)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_dealt_like_cards() {
        assert_eq!(dealt(&[0, 1, 2, 3, 4, 5], 3), [0, 2, 4, 1, 3, 5]);
        assert_eq!(dealt(&[7, 8], 4), [7, 8]);
    }
}
