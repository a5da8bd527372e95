//! Which part of a batch a process takes.

use std::ops::Range;

use super::Collective;

/// A process's part of every batch. The parts of all processes are consecutive, cover the batch and
/// differ by one image at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Number of the process, from 0.
    pub rank: usize,
    /// Number of processes, at least 1.
    pub size: usize,
}

impl Share {
    /// The whole batch.
    pub const WHOLE: Self = Self { rank: 0, size: 1 };

    /// Positions in a batch of `count` images. Empty for some ranks if there are fewer images than
    /// processes, and for a rank that isn't below the size.
    pub fn of(self, count: usize) -> Range<usize> {
        let bound = |rank: usize| (count * rank.min(self.size)).checked_div(self.size).unwrap_or(count);
        bound(self.rank)..bound(self.rank + 1)
    }
}

impl From<&dyn Collective> for Share {
    fn from(collective: &dyn Collective) -> Self {
        Self { rank: collective.rank(), size: collective.size() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_shares_of_all_ranks_are_the_batch(count in 0usize..5000, size in 1usize..70) {
            let shares: Vec<Range<usize>> = (0..size).map(|rank| Share { rank, size }.of(count)).collect();
            let all: Vec<usize> = shares.iter().cloned().flatten().collect();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
            prop_assert!(shares.iter().all(|share| (count / size..=count.div_ceil(size)).contains(&share.len())));
        }
    }

    #[test]
    fn a_batch_that_divides_is_cut_evenly() {
        assert_eq!(
            (0..4).map(|rank| Share { rank, size: 4 }.of(64)).collect::<Vec<_>>(),
            [0..16, 16..32, 32..48, 48..64]
        );
        assert_eq!(Share::WHOLE.of(7), 0..7);
        assert!(Share { rank: 3, size: 3 }.of(9).is_empty());
    }
}
