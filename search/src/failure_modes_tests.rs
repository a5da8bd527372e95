//! The six ways in which latency objectives are known to fail, each as a test that fails with them.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]

use lathe_spaces::{Micros, NetworkOptions, Stream};

use crate::{
    Limit, ObjectiveSettings, Scores, SearchSettings,
    constraint::{Schedule, ascend},
    derive_unconstrained, expected_latency, fixtures,
    objective::Costs,
    scores::deployable_columns,
};

/// 1. A sum weighted with softmax(β) counts half of what is deployed.
#[test]
fn both_kept_edges_count() {
    let space = fixtures::darts();
    let mut table = fixtures::table(&space, 3);
    table.fixed = Micros::ZERO;
    table.slots.iter_mut().flat_map(|slot| slot.choices.values_mut()).for_each(|cost| *cost = Micros(10.0));
    let deployed = table.mean(&space, &derive_unconstrained(&space, &Scores::uniform(&space))).unwrap();
    // All parts cost the same, so that every network does, and the expectation must whatever the scores are.
    for scale in [0.0, 1.0, 4.0] {
        let scores = fixtures::scores(&space, scale, 5);
        for temperature in [1.0, 0.1] {
            let expected = expected_latency(&space, &scores, &table, temperature);
            assert!((expected / deployed - 1.0).abs() < 1e-9, "{expected} against {deployed}");
        }
    }
}

/// 2. `none` takes probability and makes every network look cheap.
#[test]
fn mass_on_none_is_no_discount() {
    let space = fixtures::darts();
    let table = fixtures::table(&space, 3);
    let scores = fixtures::scores(&space, 1.0, 5);
    let mut starved = scores.clone();
    let columns = deployable_columns(&space);
    for (row, columns) in starved.alpha.iter_mut().zip(&columns) {
        let none = (0..row.len()).find(|choice| !columns.contains(choice)).unwrap();
        // `none` has nearly all of the softmax, on every edge the same.
        let rest: f64 = columns.iter().map(|&choice| row[choice].exp()).sum();
        row[none] = rest.ln() + 10.0;
    }
    let [full, empty] = [&scores, &starved].map(|scores| expected_latency(&space, scores, &table, 0.5).0);
    let cheapest = table.reachable(&space).unwrap()[0].0;
    assert!(empty > 0.8 * full && empty > cheapest, "{empty} with mass on none, {full} without");
}

/// 3. Costs at the supernet's channels instead of the deployed ones.
#[test]
fn costs_are_those_of_the_deployed_network() {
    let (space, supernet) = (fixtures::darts_of(16, 5, 16), fixtures::darts_of(4, 3, 16));
    let limit = Limit::macs(&space, 1.0).unwrap();
    let count = 400;
    let mean = (0..count)
        .map(|index| {
            let genotype = space.sample(&mut Stream::new(1, "test failure modes", index));
            space.network(&genotype, NetworkOptions::default()).unwrap().macs() as f64 / count as f64
        })
        .sum::<f64>();
    // A space without preferences expects what random deployed networks have on average.
    let expected = limit.expected(&space, &Scores::uniform(&space), 1.0);
    assert!((expected / mean - 1.0).abs() < 0.02, "{expected} expected, {mean} of random networks");
    let searched = Limit::macs(&supernet, 1.0).unwrap().expected(&supernet, &Scores::uniform(&supernet), 1.0);
    assert!(searched < 0.2 * expected, "the supernet's own size would say {searched}");
}

/// 4. The term overwhelms the cross-entropy at first, and everything becomes a skip connection.
#[test]
fn the_term_begins_at_nothing_and_is_bounded() {
    let objective =
        ObjectiveSettings { dual_rate: 0.02, dual_max: 5.0, anneal_epochs: 10, ..fixtures::objective() };
    let settings = SearchSettings {
        epochs: 50,
        warmup_epochs: 15,
        batch: 256,
        learning_rate: 0.1,
        learning_rate_min: 0.0,
        momentum: 0.9,
        weight_decay: 3e-4,
        gradient_clip: 5.0,
        arch_learning_rate: 6e-4,
        arch_weight_decay: 1e-3,
        second_order: false,
        cutout: None,
        hessian_every_epochs: None,
        stop_at_skips: None,
        stop_eigenvalue_ratio: None,
    };
    let schedule = Schedule::new(&settings, &objective);
    // At the space's mean the first target is met: nothing pushes, and λ stays at zero.
    let (mean, target) = (100.0, 40.0);
    assert_eq!(schedule.target(15, 0.0, mean, target), mean);
    assert_eq!(ascend(0.0, mean / schedule.target(15, 0.0, mean, target) - 1.0, &objective), 0.0);
    // A search that never follows: one epoch of 98 steps adds little, all of them no more than the bound.
    let mut lambda = 0.0;
    for epoch in 15..50 {
        for step in 0..98 {
            let now = schedule.target(epoch, f64::from(step) / 98.0, mean, target);
            lambda = ascend(lambda, mean / now - 1.0, &objective);
        }
        if epoch == 15 {
            assert!(lambda < 0.1, "λ is {lambda} after the first epoch");
        }
    }
    assert_eq!(lambda, objective.dual_max);
}

/// 5. Normal and reduction cells have other scales of latency: one sum must hold both.
#[test]
fn a_microsecond_counts_the_same_in_every_cell() {
    let space = fixtures::darts();
    let table = fixtures::table(&space, 3);
    let scores = fixtures::scores(&space, 1.0, 5);
    let before = expected_latency(&space, &scores, &table, 0.5).0;
    // Every choice of all edges of one node dearer by 7 µs: two edges are kept, so 14 µs, whatever the block.
    for block in [0, 1] {
        let mut dearer = table.clone();
        for slot in dearer.slots.iter_mut().filter(|costs| (costs.slot.block, costs.slot.node) == (block, 3))
        {
            slot.choices.values_mut().for_each(|cost| *cost += Micros(7.0));
        }
        let after = expected_latency(&space, &scores, &dearer, 0.5).0;
        assert!((after - before - 14.0).abs() < 1e-9, "block {block}: {}", after - before);
    }
}

/// 6. Latency at batch 1 and throughput in one table.
#[test]
fn all_that_is_priced_is_one_image() {
    let space = fixtures::darts_of(8, 3, 8);
    let parts = space.workloads().unwrap();
    let images: Vec<usize> =
        parts.iter().flat_map(|part| part.graph.inputs().map(|input| input.shape.n)).collect();
    assert!(images.len() > 20 && images.iter().all(|&count| count == 1), "{images:?}");
    let costs = Costs::counted(&space, |part| part.graph.macs()).unwrap();
    let genotype = space.sample(&mut Stream::new(1, "test failure modes", 0));
    let network = space.network(&genotype, NetworkOptions::default()).unwrap();
    assert_eq!(network.input_shape().unwrap().n, 1);
    assert!(costs.fixed < network.macs() as f64);
}
