//! How targets are approached, from one side and from both, and which are refused.

use super::*;
use crate::Sides;

/// Limits and temperature of every epoch of a tiny search that `change` has changed.
fn epochs(change: &dyn Fn(&mut SearchTask)) -> Vec<(Vec<LimitEpoch>, f64)> {
    let tiny = Tiny::new();
    let mut task = tiny.task();
    change(&mut task);
    let mut told = Vec::new();
    search(&task, &mut |progress| {
        if let Progress::Event(Event::Epoch { limits, temperature, .. }) = progress {
            told.push((limits, temperature));
        }
        Ok(())
    })
    .unwrap();
    told
}

/// A target at a share of the reachable range of upper bounds.
fn target_at(share: f64) -> Micros {
    let tiny = Tiny::new();
    let [fastest, slowest] = tiny.table.reachable(&tiny.space).unwrap();
    (fastest + (slowest - fastest) * share) * tiny.table.upper_factor()
}

#[test]
fn targets_fall_from_the_spaces_mean_and_the_relaxation_sharpens() {
    let told = epochs(&|task| {
        task.settings.epochs = 6;
        task.settings.warmup_epochs = 2;
        task.objective.anneal_epochs = 3;
    });
    let tiny = Tiny::new();
    let limit = Limit::latency("latency", &tiny.space, &tiny.table, tiny.target()).unwrap();
    let mean = limit.expected(&tiny.space, &Scores::uniform(&tiny.space), 1.0);
    let last = limit.mean_at_most();
    assert!(last < 0.9 * mean, "{last} is no tighter than the mean {mean}");
    // At the end of each epoch; the first two are the warm-up.
    for ((limits, _), done) in told.iter().zip([0.0, 0.0, 1.0, 2.0, 3.0, 3.0]) {
        let expected = mean + (last - mean) * done / 3.0;
        assert!(
            (limits[0].target - expected).abs() < 1e-9 * mean,
            "{}, expected {expected}",
            limits[0].target
        );
    }
    let temperatures: Vec<f64> = told.iter().map(|(_, temperature)| *temperature).collect();
    assert_eq!(temperatures[..3], [1.0; 3]);
    assert!(temperatures[2..].windows(2).all(|pair| pair[1] < pair[0]), "{temperatures:?}");
    assert!((temperatures[5] - 0.2).abs() < 1e-12);
}

#[test]
fn a_target_that_pulls_from_both_sides_makes_a_fast_search_slower() {
    let end = |sides: Sides| {
        let told = epochs(&|task| {
            task.settings.epochs = 12;
            task.objective.target = Some(target_at(0.9));
            task.objective.sides = sides;
        });
        let last = &told.last().unwrap().0[0];
        (last.expected, last.lambda)
    };
    let ((upper, at_rest), (both, pulled)) = (end(Sides::Upper), end(Sides::Both));
    assert_eq!(at_rest, 0.0, "nothing pushes a network that is fast enough");
    assert!(pulled < 0.0, "λ is {pulled}");
    assert!(both > 1.1 * upper, "{both} pulled from both sides, {upper} from above alone");
}

#[test]
fn a_target_that_pulls_from_both_sides_must_be_in_reach_of_both() {
    let told = |share: f64, sides: Sides| {
        let tiny = Tiny::new();
        let mut task = tiny.task();
        task.objective.target = Some(target_at(share));
        task.objective.sides = sides;
        (task.settings.epochs, task.settings.warmup_epochs) = (2, 1);
        search(&task, &mut |_| Ok(()))
    };
    let error = told(1.01, Sides::Both).unwrap_err();
    assert!(matches!(error, SearchError::AboveReach { .. }), "{error}");
    let text = error.to_string();
    for value in [target_at(1.01), target_at(0.0), target_at(1.0)] {
        assert!(text.contains(&value.to_string()), "{value} is not in: {text}");
    }
    assert!(text.contains("`latency`") && text.contains("hint: lower it"), "{text}");
    let below = told(-0.01, Sides::Both).unwrap_err();
    assert!(matches!(below, SearchError::Derive(DeriveError::Infeasible { .. })), "{below}");
    // As an upper bound alone it is met by everything.
    assert!(told(1.01, Sides::Upper).is_ok());
    assert!(told(0.99, Sides::Both).is_ok());
}
