//! The method that draws whole networks.

use lathe_spaces::Stream;

use super::*;
use crate::search_loop::policy::Drawn;

/// Mean |value / target − 1| of networks that scores draw, and share of the operations among them that are the
/// cheapest choice of their edge.
fn drawn(tiny: &Tiny, limit: &Limit, scores: &Scores) -> [f64; 2] {
    let slots = tiny.space.slots();
    let (mut distance, mut cheapest, mut count) = (0.0, 0usize, 0usize);
    let draws = 400;
    let mut random = Stream::new(5, "test policy", 0);
    for _ in 0..draws {
        let genotype = Drawn::new(&tiny.space, scores, &mut random).genotype(&tiny.space);
        distance +=
            (limit.mean(&tiny.space, &genotype) / limit.mean_at_most() - 1.0).abs() / f64::from(draws);
        for kept in crate::derive::kept_of(&tiny.space, &genotype) {
            let costs = &limit.costs.choices[kept.slot];
            let deployable = tiny.space.edge(slots[kept.slot]).choices.iter().zip(costs);
            let least = deployable.filter(|(name, _)| *name != "none").map(|(_, cost)| *cost);
            cheapest += usize::from(costs[kept.choice] <= least.fold(f64::INFINITY, f64::min));
            count += 1;
        }
    }
    [distance, cheapest as f64 / count as f64]
}

#[test]
fn rewards_move_the_policy_towards_the_target_and_not_away() {
    let tiny = Tiny::new();
    let [fastest, _] = tiny.table.reachable(&tiny.space).unwrap();
    let target = fastest * tiny.table.upper_factor() * 1.0001;
    let limit = Limit::latency("latency", &tiny.space, &tiny.table, target).unwrap();
    let mut task = tiny.task();
    task.objective.method = Method::Reinforce;
    task.objective.target = Some(target);
    // Accuracy has no say beside it.
    task.objective.weight = 1000.0;
    task.settings.epochs = 60;
    let start = Architecture::new(&tiny.space, Kind::Float, 11).unwrap().scores();
    let SearchEnd::Finished(end) = search(&task, &mut |_| Ok(())).unwrap() else {
        unreachable!("nobody stopped it")
    };
    let [far, few] = drawn(&tiny, &limit, &start);
    let [near, many] = drawn(&tiny, &limit, &end);
    assert!(near < 0.8 * far, "mean distance to the target {far} at first, {near} at last");
    assert!(many > 1.2 * few, "share of the cheapest choices {few} at first, {many} at last");
}
