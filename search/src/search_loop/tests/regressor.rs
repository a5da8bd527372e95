//! The method with a learned regressor.

use lathe_spaces::{Genotype, Stream};

use super::*;
use crate::search_loop::policy;

/// All operations cost the same, and a network of two separable convolutions or more takes half again as long: no sum
/// of parts says so.
fn flat(tiny: &Tiny) -> (CostTable, Vec<(Genotype, Micros)>) {
    let mut table = tiny.table.clone();
    for time in table.slots.iter_mut().flat_map(|slot| slot.choices.values_mut()) {
        *time = Micros(20.0);
    }
    let measured = (0..80).map(|index| {
        let genotype = tiny.space.sample(&mut Stream::new(9, "test regressor", index));
        let picks = genotype.blocks.iter().flat_map(|block| block.nodes.iter().flatten());
        let heavy = picks.filter(|pick| pick.choice.starts_with("sep")).count() >= 4;
        let sum = table.mean(&tiny.space, &genotype).unwrap();
        (genotype, sum * if heavy { 1.5 } else { 1.0 })
    });
    let measured = measured.collect();
    (table, measured)
}

fn end(method: Method, stops: &[usize]) -> (Scores, Vec<u8>, f64) {
    let tiny = Tiny::new();
    let (table, measured) = flat(&tiny);
    let [least, _] = table.reachable(&tiny.space).unwrap();
    let mut lambda: f64 = 0.0;
    for stop_after in stops.iter().copied().map(Some).chain([None]) {
        let mut task = tiny.task();
        task.table = Some(&table);
        task.measured = &measured;
        task.settings.epochs = 12;
        task.objective.method = method;
        // What every network takes by the sum of its parts.
        task.objective.target = Some(least * table.upper_factor() * 1.001);
        (task.objective.dual_rate, task.objective.dual_max) = (1.0, 5.0);
        task.objective.anneal_epochs = 0;
        tiny.stop.store(false, Ordering::Relaxed);
        let mut steps = 0;
        let end = search(&task, &mut |progress| {
            match progress {
                Progress::Event(Event::Epoch { lambda: now, .. }) => lambda = now.max(lambda),
                Progress::Event(_) => {}
                Progress::Step { .. } => {
                    steps += 1;
                    if Some(steps) == stop_after {
                        tiny.stop.store(true, Ordering::Relaxed);
                    }
                }
            }
            Ok(())
        });
        if let SearchEnd::Finished(scores) = end.unwrap() {
            return (scores, tiny.checkpoint(), lambda);
        }
    }
    unreachable!("the last call is not stopped")
}

/// Mean share of separable convolutions.
fn heavy(scores: &Scores) -> f64 {
    let space = fixtures::darts_of(8, 3, 8);
    let share = |(slot, logits): (lathe_spaces::Slot, &Vec<f64>)| {
        let shares = crate::scores::softmax(logits);
        let choices = space.edge(slot).choices.iter().zip(shares);
        choices.filter(|(choice, _)| choice.starts_with("sep")).map(|(_, share)| share).sum::<f64>()
    };
    let slots = space.slots();
    let count = slots.len() as f64;
    slots.into_iter().zip(&scores.alpha).map(share).sum::<f64>() / count
}

#[test]
fn a_regressor_pulls_where_no_sum_of_parts_does() {
    let (by_sum, _, no_lambda) = end(Method::Dual, &[]);
    let (learned, checkpoint, lambda) = end(Method::Regressor, &[]);
    assert_eq!(no_lambda, 0.0, "by the sum every network meets the target");
    assert!(lambda > 0.0);
    assert!(
        heavy(&learned) < 0.9 * heavy(&by_sum),
        "share of separable convolutions: {} with the regressor, {} without",
        heavy(&learned),
        heavy(&by_sum)
    );
    // Stopped in the middle of epochs: the same draws, the same end.
    let (resumed, bytes, _) = end(Method::Regressor, &[5, 7]);
    assert_eq!(resumed, learned);
    assert!(bytes == checkpoint, "the checkpoints differ");
}

#[test]
fn too_few_measured_networks_are_told() {
    let tiny = Tiny::new();
    let mut task = tiny.task();
    task.objective.method = Method::Regressor;
    let error = search(&task, &mut |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("measured networks") && error.contains("at least 10"), "{error}");
}

#[test]
fn what_is_recorded_holds_what_the_regressor_adds_on_both_sides() {
    let tiny = Tiny::new();
    let (table, measured) = flat(&tiny);
    let [sum, _] = table.reachable(&tiny.space).unwrap();
    let mut task = tiny.task();
    task.table = Some(&table);
    task.measured = &measured;
    task.objective.method = Method::Regressor;
    task.objective.target = Some(sum * table.upper_factor() * 1.001);
    let mut run = Run::new(&task).unwrap();
    let Event::Epoch { limits, expected, derived, genotype, .. } = run.event(None) else {
        unreachable!("it is an epoch's")
    };
    let genotype = tiny.space.parse(&genotype).unwrap();
    let beyond = run.beyond_of(&genotype);
    assert!((limits[0].derived - sum.0 - beyond).abs() < 1e-9 * sum.0);
    assert!((derived.unwrap().0 - limits[0].derived).abs() < 1e-9 * sum.0);
    assert_eq!(expected, Some(Micros(limits[0].expected)));
    // All networks have one sum, so that what is expected beyond it is the mean of the regressor alone.
    let uniform = Scores::uniform(&tiny.space);
    let mut random = Stream::new(3, "test regressor", 0);
    let draws =
        (0..1000).map(|_| policy::Drawn::new(&tiny.space, &uniform, &mut random).genotype(&tiny.space));
    let mean = draws.map(|genotype| run.beyond_of(&genotype)).sum::<f64>() / 1000.0;
    assert!(mean > 0.05 * sum.0, "the regressor has learned nothing: {mean} of {}", sum.0);
    assert!(
        (limits[0].expected - sum.0 - mean).abs() < 0.05 * sum.0,
        "{} of {}",
        limits[0].expected,
        sum.0 + mean
    );
    // A device that takes what the regressor says leaves nothing to correct.
    let held = run.held.as_mut().unwrap();
    held.correct(&tiny.space, &genotype, beyond, &[Some(sum.0 + beyond)]);
    let Event::Epoch { limits, .. } = run.event(None) else { unreachable!("it is an epoch's") };
    assert!(limits[0].correction.abs() < 1e-9 * sum.0, "{}", limits[0].correction);
}
