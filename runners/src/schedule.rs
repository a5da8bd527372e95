//! The order in which processes are launched.

use lathe_spaces::Stream;
use rand::seq::SliceRandom;

/// Workloads that are in progress at the same time. Their processes are spread over the group, and a
/// runner that is killed loses at most one group.
const GROUP: usize = 8;

/// All workloads in a seeded random order, in groups.
pub(crate) fn groups(workloads: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..workloads).collect();
    order.shuffle(&mut Stream::new(seed, "runner workload order", 0));
    order.chunks(GROUP).map(<[usize]>::to_vec).collect()
}

/// One round of a group: each workload once, in an order of its own.
pub(crate) fn round(group: &[usize], seed: u64, group_index: usize, round: usize) -> Vec<usize> {
    let mut order = group.to_vec();
    let stream = ((group_index as u64) << 32) | round as u64;
    order.shuffle(&mut Stream::new(seed, "runner process order", stream));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_in_one_group_and_the_order_depends_on_the_seed() {
        let groups_of = |seed| groups(21, seed);
        let mut all: Vec<usize> = groups_of(1).concat();
        assert_ne!(all, (0..21).collect::<Vec<_>>());
        assert_eq!(groups_of(1), groups_of(1));
        assert_ne!(groups_of(1), groups_of(2));
        all.sort_unstable();
        assert_eq!(all, (0..21).collect::<Vec<_>>());
    }

    #[test]
    fn rounds_are_permutations_that_differ() {
        let group: Vec<usize> = (10..18).collect();
        let rounds: Vec<_> = (0..3).map(|index| round(&group, 5, 0, index)).collect();
        assert!(rounds[0] != rounds[1] || rounds[1] != rounds[2]);
        for mut order in rounds {
            order.sort_unstable();
            assert_eq!(order, group);
        }
    }
}
