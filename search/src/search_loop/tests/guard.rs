//! Guards against collapse.

use super::*;
use crate::search_loop::guard;

/// Runs a task to its end, stopped after so many steps each time.
fn guarded(tiny: &Tiny, change: &dyn Fn(&mut SearchTask<'_>), stops: &[usize]) -> (SearchEnd, Vec<Event>) {
    let mut told = Vec::new();
    for stop_after in stops.iter().copied().map(Some).chain([None]) {
        let mut task = tiny.task();
        change(&mut task);
        tiny.stop.store(false, Ordering::Relaxed);
        let mut steps = 0;
        let end = search(&task, &mut |progress| {
            match progress {
                Progress::Event(event) => told.push(timeless(&event)),
                Progress::Step { .. } => {
                    steps += 1;
                    if Some(steps) == stop_after {
                        tiny.stop.store(true, Ordering::Relaxed);
                    }
                }
            }
            Ok(())
        })
        .unwrap();
        if stop_after.is_none() {
            return (end, told);
        }
    }
    unreachable!("the last call is not stopped")
}

#[test]
fn looking_at_the_curvature_changes_nothing_and_finds_the_hessians_eigenvalue() {
    let (plain, seen) = (Tiny::new(), Tiny::new());
    let look = |task: &mut SearchTask<'_>| task.settings.hessian_every_epochs = Some(2);
    let (end, _) = guarded(&plain, &|_| {}, &[]);
    let (same, told) = guarded(&seen, &look, &[4, 3]);
    assert_eq!(end, same);
    let values: Vec<Option<f64>> = told
        .iter()
        .filter_map(|event| match event {
            Event::Epoch { eigenvalue, .. } => Some(*eigenvalue),
            _ => None,
        })
        .collect();
    assert_eq!(values.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true, false]);

    let mut task = seen.task();
    look(&mut task);
    let mut run = Run::new(&task).unwrap();
    run.restore().unwrap();
    run.position.epoch = 2;
    let found = run.curvature().unwrap().unwrap();
    // The whole Hessian, column by column, and as many products with it.
    let batch = run.curvature_batch().unwrap();
    let at = state::read_numbers(&run.architecture.flat);
    let column = |run: &mut Run<'_>, index: usize| {
        let mut beside = |step: f64| {
            let mut values = at.clone();
            values[index] += step;
            run.gradient_at(&batch, &values).unwrap()
        };
        let (ahead, behind) = (beside(0.02), beside(-0.02));
        ahead.iter().zip(&behind).map(|(a, b)| (a - b) / 0.04).collect::<Vec<f64>>()
    };
    let hessian: Vec<Vec<f64>> = (0..at.len()).map(|index| column(&mut run, index)).collect();
    let mut times = |x: &[f64]| -> Result<Vec<f64>, SearchError> {
        Ok(hessian.iter().map(|row| row.iter().zip(x).map(|(h, v)| h * v).sum()).collect())
    };
    let start = guard::direction(at.len(), task.seed);
    let expected =
        guard::dominant_eigenvalue(&mut times, &vec![0.0; at.len()], start, guard::ITERATIONS).unwrap();
    assert!((found / expected - 1.0).abs() < 0.05, "{found}, by the whole Hessian {expected}");
}

#[test]
fn a_search_that_collapses_ends_early_with_what_it_had_before_and_resumes_to_the_same() {
    // Any number of skip connections is too many: the first epoch after the warm-up ends it.
    let skips = |task: &mut SearchTask<'_>| task.settings.stop_at_skips = Some(0);
    let whole = Tiny::new();
    let (end, told) = guarded(&whole, &skips, &[]);
    let initial = Architecture::new(&whole.space, Kind::Float, 11).unwrap().scores();
    assert_eq!(end, SearchEnd::Finished(initial), "α and β of the epoch before");
    assert_eq!(told.len(), 3);
    let Event::SearchStopped { epoch: 1, criterion, kept: 0, .. } = &told[2] else { panic!("{:?}", told[2]) };
    assert_eq!(criterion, "skip connections");
    let broken = Tiny::new();
    assert_eq!(guarded(&broken, &skips, &[1, 3]), (end.clone(), told));
    let mut task = broken.task();
    skips(&mut task);
    SupernetScorer::new(&task, 8).unwrap();
    assert_eq!(guarded(&broken, &skips, &[]).0, end, "a search that ended early is not taken up again");

    // Any eigenvalues rise too much: the tenth one ends it, with the epoch of the fifth.
    let curved = |task: &mut SearchTask<'_>| {
        task.settings.epochs = 13;
        task.settings.hessian_every_epochs = Some(1);
        task.settings.stop_eigenvalue_ratio = Some(f64::INFINITY);
    };
    let whole = Tiny::new();
    let (end, told) = guarded(&whole, &curved, &[]);
    let stopped = told.last().unwrap();
    assert!(matches!(stopped, Event::SearchStopped { epoch: 10, kept: 5, .. }), "{stopped:?}");
    let Event::Epoch { arch, .. } = &told[5] else { panic!("{:?}", told[5]) };
    let SearchEnd::Finished(scores) = &end else { panic!("{end:?}") };
    assert_eq!(&scores.snapshots(&whole.space), arch);
    let broken = Tiny::new();
    assert_eq!(guarded(&broken, &curved, &[7, 12, 4]), (end, told));
}
