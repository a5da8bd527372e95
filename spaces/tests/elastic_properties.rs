//! What holds for every genotype of every space of a file.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod oracle;

use std::{collections::BTreeSet, sync::LazyLock};

use lathe_spaces::{
    Genotype, Graph, NetworkOptions, Pick, SPACES, Space, SpaceError, SpaceFile, Stream, Weights, evaluate,
    seeded_input,
};
use proptest::prelude::*;

/// The spaces at resolutions that an interpreter computes in no time.
static SMALL: LazyLock<Vec<Space>> = LazyLock::new(|| {
    let small = |(name, text): &(&str, &str)| {
        let size = match *name {
            "sesr" => [6, 7],
            "shvit" => [64, 48],
            _ => [32, 32],
        };
        SpaceFile::parse(text).unwrap().space(Some(size)).unwrap()
    };
    SPACES.iter().map(small).collect()
});

fn spaces() -> impl Strategy<Value = &'static Space> {
    (0..SPACES.len()).prop_map(|index| &SMALL[index])
}

fn sampled(space: &Space, seed: u64) -> Genotype {
    space.sample(&mut Stream::new(seed, "property", 0))
}

fn network(space: &Space, genotype: &Genotype) -> Graph {
    space.network(genotype, NetworkOptions::default()).unwrap()
}

/// Whether a network may not have what was chosen: the expansion of SESR is gone when it runs, and ranks of Tucker
/// convolutions on few channels are rounded to the same multiple of 8.
fn unseen(old: &Pick, new: &Pick) -> bool {
    let without = |pick: &Pick, kind: &str, keys: &[char]| -> Option<Vec<String>> {
        let mut words = pick.choice.split_whitespace();
        if words.next() != Some(kind) {
            return None;
        }
        let number = |word: &str| word[1..].bytes().all(|byte| byte.is_ascii_digit());
        let kept = words.filter(|word| !(word.starts_with(keys) && number(word)));
        Some(kept.map(str::to_owned).collect())
    };
    [("collapsible", &['p'][..]), ("tucker", &['i', 'o'])].into_iter().any(|(kind, keys)| {
        let old = without(old, kind, keys);
        old.is_some() && old == without(new, kind, keys)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn counts_equal_a_slow_oracle(space in spaces(), seed: u64) {
        let graph = network(space, &sampled(space, seed));
        prop_assert_eq!(oracle::reported(&graph), oracle::counted(&graph));
        prop_assert_eq!(graph.outputs().len(), 1);
        prop_assert_eq!(graph.inputs().count(), 1);
    }

    #[test]
    fn the_network_has_the_widths_and_depths_of_the_text(space in spaces(), seed: u64) {
        let genotype = sampled(space, seed);
        let graph = network(space, &genotype);
        for block in &genotype.blocks {
            let number = |node: usize| block.nodes[node][0].choice[1..].parse::<usize>();
            let depth = number(2).unwrap();
            let at = |position: usize| {
                let prefix = format!("{}.{position}.", block.name);
                graph.nodes().iter().rfind(|node| node.name.starts_with(&prefix))
            };
            prop_assert!((0..depth).all(|position| at(position).is_some()));
            prop_assert!(at(depth).is_none());
            if let (Ok(width), Some(last)) = (number(0), depth.checked_sub(1).and_then(at)) {
                prop_assert_eq!(last.shape.c, width);
            }
        }
    }

    #[test]
    fn text_is_read_back(space in spaces(), seed: u64) {
        let genotype = sampled(space, seed);
        let text = space.format(&genotype);
        prop_assert_eq!(space.parse(&text).unwrap(), genotype.clone());
        // Without the positions that wait it is the same network.
        let mut short = text;
        while let Some(at) = short.find(" | (") {
            let end = at + short[at..].find(')').unwrap();
            short.replace_range(at..=end, "");
        }
        let read = space.parse(&short).unwrap();
        prop_assert_eq!(network(space, &read), network(space, &genotype));
    }

    #[test]
    fn any_text_is_read_or_refused(space in spaces(), seed: u64, at: prop::sample::Index, with: char) {
        let mut text: Vec<char> = space.format(&sampled(space, seed)).chars().collect();
        let at = at.index(text.len());
        for spoilt in [Some(with), None] {
            match spoilt {
                Some(with) => text[at] = with,
                None => text.truncate(at),
            }
            if let Ok(genotype) = space.parse(&text.iter().collect::<String>()) {
                prop_assert!(space.validate(&genotype).is_ok());
            }
        }
    }

    #[test]
    fn a_mutation_stays_inside_and_changes_what_the_network_has(space in spaces(), seed: u64) {
        let genotype = sampled(space, seed);
        let mutated = space.mutate(&genotype, &mut Stream::new(seed, "mutation", 0));
        prop_assert!(space.validate(&mutated).is_ok());
        let pairs = genotype.blocks.iter().zip(&mutated.blocks);
        let changed: Vec<(usize, usize, bool)> = pairs
            .flat_map(|(old, new)| {
                let depth: usize = old.nodes[2][0].choice[1..].parse().unwrap();
                let nodes = old.nodes.iter().zip(&new.nodes).enumerate();
                let changed = nodes.filter(|(_, (old, new))| old != new);
                changed.map(move |(node, (old, new))| {
                    (node, 4 + depth, unseen(&old[0], &new[0]))
                })
            })
            .collect();
        prop_assert_eq!(changed.len(), 1);
        prop_assert!(changed[0].0 < changed[0].1, "a position behind the depth: {:?}", changed);
        network(space, &mutated);
        if !changed[0].2 {
            prop_assert_ne!(network(space, &mutated), network(space, &genotype));
        }
    }

    #[test]
    fn crossing_node_by_node_stays_inside(space in spaces(), seed: u64) {
        let (mut child, other) = (sampled(space, seed), sampled(space, seed ^ 1));
        for (block, other) in child.blocks.iter_mut().zip(&other.blocks) {
            for (node, other) in block.nodes.iter_mut().zip(&other.nodes).skip((seed % 2) as usize).step_by(2) {
                node.clone_from(other);
            }
        }
        network(space, &child);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn networks_compute_finite_numbers(space in spaces(), seed: u64) {
        // The smallest of several: the largest have tens of millions of weights to draw.
        let drawn = (0..8).map(|index| network(space, &sampled(space, seed.wrapping_add(index))));
        let graph = drawn.min_by_key(Graph::parameter_count).unwrap();
        let weights = Weights::seeded(&graph, seed);
        let output = evaluate(&graph, &weights, &seeded_input(graph.input_shape().unwrap(), 1)).unwrap();
        prop_assert_eq!(output.len(), graph.output_shape().elements());
        prop_assert!(output.iter().all(|value| value.is_finite()));
        prop_assert!(output.iter().any(|value| *value != 0.0));
    }
    #[test]
    fn a_drawn_network_folds_to_the_same_function(space in spaces(), seed: u64) {
        let drawn = (0..8).map(|index| network(space, &sampled(space, seed.wrapping_add(index))));
        let graph = drawn.min_by_key(Graph::parameter_count).unwrap();
        let worst = oracle::fold_difference(&graph, seed);
        prop_assert!(worst < 1e-5, "{worst}");
    }
}

#[test]
fn parts_are_those_of_networks_and_tables_of_parts_are_refused() {
    for space in SMALL.iter() {
        let workloads = space.workloads().unwrap();
        let ids: BTreeSet<_> = workloads.iter().map(lathe_spaces::Workload::id).collect();
        assert_eq!(ids.len(), workloads.len());
        assert!(workloads.len() > 10, "{}: {}", space.name, workloads.len());
        let error = space.fixed().unwrap_err();
        assert!(matches!(error, SpaceError::NotAdditive { .. }));
        assert!(error.to_string().contains("predict whole networks"), "{error}");
        let slot = space.slots()[0];
        let choice = space.deployable(slot)[0].to_owned();
        assert!(matches!(space.instances(slot, &choice), Err(SpaceError::NotAdditive { .. })));
    }
}
