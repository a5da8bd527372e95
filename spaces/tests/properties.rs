//! What holds for every genotype of every space.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod oracle;

use std::collections::BTreeSet;

use lathe_spaces::{
    DartsSkeleton, Genotype, Graph, Nas201Skeleton, NetworkOptions, Shape, Skeleton, Space, Stem, Stream,
    Weights, evaluate, seeded_input,
};
use proptest::prelude::*;

/// Every space, over a range of sizes that its reductions can halve.
fn spaces() -> impl Strategy<Value = Space> {
    let cifar = (1_usize..20, 1_usize..9, 1_usize..9).prop_map(|(width, layers, quarter)| {
        let resolution = 4 * quarter;
        Space::darts(DartsSkeleton { stem: Stem::Cifar, width, layers, resolution, classes: 10 })
    });
    let imagenet = (1_usize..10, 1_usize..7, 1_usize..4).prop_map(|(half, layers, part)| {
        let (stem, width, resolution) = (Stem::ImageNet, 2 * half, 32 * part);
        Space::darts(DartsSkeleton { stem, width, layers, resolution, classes: 7 })
    });
    let nas201 = (1_usize..20, 1_usize..4, 1_usize..9).prop_map(|(width, cells, quarter)| {
        Space::nas201(Nas201Skeleton { width, cells, resolution: 4 * quarter, classes: 10 })
    });
    let fbnet = (8_usize..129, 2_usize..50).prop_map(|(side, classes)| Space::fbnet(side, classes));
    prop_oneof![cifar, imagenet, nas201, fbnet]
}

fn sampled(space: &Space, seed: u64) -> Genotype {
    space.sample(&mut Stream::new(seed, "property", 0))
}

fn network(space: &Space, genotype: &Genotype) -> Graph {
    space.network(genotype, NetworkOptions::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_network_has_one_sink_and_agreeing_shapes(space in spaces(), seed: u64) {
        let graph = network(&space, &sampled(&space, seed));
        let read: BTreeSet<usize> =
            graph.nodes().iter().flat_map(|node| node.inputs.iter().copied()).collect();
        let sinks: Vec<usize> = (0..graph.nodes().len()).filter(|id| !read.contains(id)).collect();
        prop_assert_eq!(&sinks[..], graph.outputs());
        for (id, node) in graph.nodes().iter().enumerate() {
            let shapes: Vec<Shape> = node.inputs.iter().map(|&input| graph.nodes()[input].shape).collect();
            prop_assert!(node.inputs.iter().all(|&input| input < id));
            if !shapes.is_empty() {
                prop_assert_eq!(node.op.infer(&shapes).unwrap(), node.shape);
            }
        }
        let output = graph.output_shape();
        prop_assert_eq!((output.n, output.h, output.w), (1, 1, 1));
    }

    #[test]
    fn counts_equal_a_slow_oracle(space in spaces(), seed: u64, auxiliary: bool) {
        let options = NetworkOptions { auxiliary, ..NetworkOptions::default() };
        // An auxiliary head needs a large enough map, and not every space has one.
        let graph = space
            .network(&sampled(&space, seed), options)
            .unwrap_or_else(|_| network(&space, &sampled(&space, seed)));
        prop_assert_eq!(oracle::reported(&graph), oracle::counted(&graph));
    }

    #[test]
    fn parts_add_up_to_the_network(space in spaces(), seed: u64) {
        let genotype = sampled(&space, seed);
        let graph = network(&space, &genotype);
        let mut parts = space.fixed().unwrap();
        for (block, spec) in genotype.blocks.iter().enumerate() {
            for (node, picks) in spec.nodes.iter().enumerate() {
                for pick in picks {
                    let slot = space.slot_of(block, node, pick).unwrap();
                    parts.extend(space.instances(slot, &pick.choice).unwrap());
                }
            }
        }
        let macs: u64 = parts.iter().map(|part| part.graph.macs()).sum();
        let parameters: u64 = parts.iter().map(|part| part.graph.parameter_count()).sum();
        prop_assert_eq!((macs, parameters), (graph.macs(), graph.parameter_count()));
        let known: BTreeSet<_> = space.workloads().unwrap().iter().map(lathe_spaces::Workload::id).collect();
        prop_assert!(parts.iter().all(|part| known.contains(&part.id())));
    }

    #[test]
    fn text_is_read_back(space in spaces(), seed: u64) {
        let genotype = sampled(&space, seed);
        prop_assert_eq!(space.parse(&space.format(&genotype)).unwrap(), genotype);
    }

    #[test]
    fn any_text_is_read_or_refused(space in spaces(), text: String) {
        if let Ok(genotype) = space.parse(&text) {
            prop_assert!(space.validate(&genotype).is_ok());
        }
    }

    #[test]
    fn spoilt_text_is_read_or_refused(space in spaces(), seed: u64, at: prop::sample::Index, with: char) {
        let mut text: Vec<char> = space.format(&sampled(&space, seed)).chars().collect();
        let at = at.index(text.len());
        text[at] = with;
        if let Ok(genotype) = space.parse(&text.into_iter().collect::<String>()) {
            prop_assert!(space.validate(&genotype).is_ok());
        }
    }

    #[test]
    fn a_mutation_changes_one_pick(space in spaces(), seed: u64) {
        let genotype = sampled(&space, seed);
        let mutated = space.mutate(&genotype, &mut Stream::new(seed, "mutation", 0));
        prop_assert!(space.validate(&mutated).is_ok());
        let pairs = genotype.blocks.iter().zip(&mutated.blocks);
        let nodes = pairs.flat_map(|(old, new)| old.nodes.iter().zip(&new.nodes));
        let changed: usize =
            nodes.map(|(old, new)| new.iter().filter(|pick| !old.contains(pick)).count()).sum();
        prop_assert_eq!(changed, 1);
        // One or two cells are reductions: the normal cell is chosen and built nowhere.
        let built = !matches!(&space.skeleton, Skeleton::Darts(darts) if darts.layers < 3);
        if built {
            prop_assert_ne!(network(&space, &mutated), network(&space, &genotype));
        }
    }

    #[test]
    fn workloads_are_distinct_and_named(space in spaces()) {
        let workloads = space.workloads().unwrap();
        let ids: BTreeSet<_> = workloads.iter().map(lathe_spaces::Workload::id).collect();
        prop_assert_eq!(ids.len(), workloads.len());
        prop_assert!(workloads.iter().all(|workload| workload.graph.inputs().count() == 1));
        prop_assert_eq!(space.workloads().unwrap(), workloads);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_drawn_network_folds_to_the_same_function(space in spaces(), seed: u64) {
        let worst = oracle::fold_difference(&network(&space, &sampled(&space, seed)), seed);
        prop_assert!(worst < 1e-5, "{worst}");
    }
}

#[test]
fn sampling_reaches_every_choice_and_set_of_edges() {
    let stem = Stem::Cifar;
    let space = Space::darts(DartsSkeleton { stem, width: 4, layers: 3, resolution: 8, classes: 2 });
    let mut rng = Stream::new(3, "coverage", 0);
    let mut seen = BTreeSet::new();
    for _ in 0..2_000 {
        let genotype = space.sample(&mut rng);
        space.validate(&genotype).unwrap();
        for (block, spec) in genotype.blocks.iter().enumerate() {
            for (node, picks) in spec.nodes.iter().enumerate() {
                for pick in picks {
                    seen.insert((space.slot_of(block, node, pick).unwrap(), pick.choice.clone()));
                }
            }
        }
    }
    assert_eq!(seen.len(), 28 * 7);
}

#[test]
fn seeded_activations_stay_near_unit_scale_through_twenty_cells() {
    let stem = Stem::Cifar;
    let space = Space::darts(DartsSkeleton { stem, width: 4, layers: 20, resolution: 16, classes: 10 });
    for (seed, genotype) in
        (0..).zip(space.published().into_iter().map(|(_, genotype)| genotype).chain([sampled(&space, 1)]))
    {
        let graph = network(&space, &genotype);
        let logits =
            evaluate(&graph, &Weights::seeded(&graph, seed), &seeded_input(Shape::new(1, 3, 16, 16), 0))
                .unwrap();
        let square = logits.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / 10.0;
        assert!((1e-3..1e3).contains(&square), "mean square {square} of the logits");
    }
}

#[test]
fn sizes_that_cannot_be_built_are_named() {
    let build = |stem, width, layers, resolution| {
        let space = Space::darts(DartsSkeleton { stem, width, layers, resolution, classes: 10 });
        space.fixed().unwrap_err().to_string()
    };
    let odd = build(Stem::Cifar, 8, 6, 30);
    assert!(odd.contains("the reduction of cell 4 halves 15x15"), "{odd}");
    assert!(build(Stem::ImageNet, 7, 6, 64).contains("even, got 7"));
    assert!(build(Stem::Cifar, 8, 0, 32).contains("layers must be at least 1"));
    let space = Space::nas201(Nas201Skeleton { width: 4, cells: 1, resolution: 6, classes: 2 });
    assert!(space.workloads().unwrap_err().to_string().contains("halves 3x3"));
}
