//! Those of the ways in which latency objectives are known to fail that only a search shows; the others are in
//! `failure_modes_tests.rs`, by the same numbers.

use std::collections::BTreeMap;

use lathe_spaces::{Genotype, NetworkOptions, Stream};

use super::*;

/// 3. Costs at the supernet's channels instead of the deployed ones.
#[test]
fn a_search_prices_the_deployed_network_whatever_the_supernets_size_is() {
    // Four times the width and five cells in place of three.
    let tiny = Tiny { space: fixtures::darts_of(16, 5, 8), ..Tiny::new() };
    let limit = Limit::macs(&tiny.space, 0.0).unwrap();
    let [least, most] = limit.reachable(&tiny.space);
    let limits = [Limit { at_most: least + 0.5 * (most - least), ..limit }];
    let mut task = tiny.task();
    (task.objective.target, task.table) = (None, None);
    task.limits = &limits;
    assert_eq!((task.supernet.width, task.supernet.layers), (4, 3));
    let mut epochs = 0;
    let macs =
        |genotype: &Genotype| tiny.space.network(genotype, NetworkOptions::default()).unwrap().macs() as f64;
    search(&task, &mut |progress| {
        if let Progress::Event(Event::Epoch { limits: told, genotype, .. }) = progress {
            let genotype = tiny.space.parse(&genotype).unwrap();
            assert_eq!(told[0].derived, macs(&genotype), "what is recorded is not what is deployed");
            assert!((least..=most).contains(&told[0].expected), "{} of {least} to {most}", told[0].expected);
            epochs += 1;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(epochs, 4);
    // The range is that of deployed networks: random ones lie in it, and its lower end is a network's.
    for index in 0..20 {
        let genotype = tiny.space.sample(&mut Stream::new(2, "test failure modes", index));
        assert!((least..=most).contains(&macs(&genotype)));
    }
    let searched = fixtures::darts_of(4, 3, 8);
    let [_, most_searched] = Limit::macs(&searched, 0.0).unwrap().reachable(&searched);
    assert!(
        most_searched < 0.2 * most,
        "{most_searched} at most at the supernet's size, {most} where it is deployed"
    );
}

/// Operations of a derived network that have weights, and that have none.
fn weighted(genotype: &Genotype) -> BTreeMap<bool, usize> {
    let mut counts = BTreeMap::from([(true, 0), (false, 0)]);
    for pick in genotype.blocks.iter().flat_map(|block| block.nodes.iter().flatten()) {
        *counts.entry(pick.choice.contains("conv")).or_default() += 1;
    }
    counts
}

/// 4. The term overwhelms the cross-entropy at first, and everything becomes a skip connection or a pool.
#[test]
fn a_term_that_begins_large_ends_without_weights_and_dual_ascent_does_not() {
    // What has no weights is nearly free.
    let mut tiny = Tiny::new();
    for (choice, cost) in tiny.table.slots.iter_mut().flat_map(|slot| slot.choices.iter_mut()) {
        *cost = Micros(if choice.contains("conv") { 60.0 } else { 4.0 });
    }
    let end = |change: &dyn Fn(&mut SearchTask)| {
        let mut task = tiny.task();
        let folder = tempfile::tempdir().unwrap();
        task.checkpoint = folder.path();
        task.settings.epochs = 10;
        task.objective.target = Some(tiny.target());
        change(&mut task);
        let mut last = None;
        search(&task, &mut |progress| {
            if let Progress::Event(Event::Epoch { limits, genotype, .. }) = progress {
                last = Some((limits[0].clone(), tiny.space.parse(&genotype).unwrap()));
            }
            Ok(())
        })
        .unwrap();
        last.unwrap()
    };
    let (_, overwhelmed) = end(&|task| {
        task.objective.method = Method::Linear;
        task.objective.weight = 50.0;
        task.settings.warmup_epochs = 0;
    });
    assert_eq!(weighted(&overwhelmed)[&true], 0, "{overwhelmed:?}");
    let (limit, held) = end(&|task| {
        task.settings.warmup_epochs = 2;
        (task.objective.dual_rate, task.objective.dual_max) = (0.2, 2.0);
        task.objective.anneal_epochs = 4;
    });
    assert!((0.0..=2.0).contains(&limit.lambda), "λ = {}", limit.lambda);
    assert!(weighted(&held)[&true] > 0, "{held:?}");
    assert!(limit.expected > 0.4 * limit.target, "{} of {} were used", limit.expected, limit.target);
}
