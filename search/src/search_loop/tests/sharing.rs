//! What searches share: a warm-up, and the weights that they leave behind.

use super::*;

#[test]
fn searches_of_other_targets_begin_with_the_same_warm_up_and_end_as_if_alone() {
    let first = Tiny::new();
    run(&first, None);
    let second = |share: bool| {
        let tiny = Tiny::new();
        if share {
            assert!(share_warm_up(first.folder.path(), tiny.folder.path()).unwrap());
        }
        let mut task = tiny.task();
        task.objective.target = Some(tiny.target() * 0.9);
        let (mut steps, mut epochs) = (0, Vec::new());
        let end = search(&task, &mut |progress| {
            match progress {
                Progress::Event(event) => epochs.push(timeless(&event)),
                Progress::Step { .. } => steps += 1,
            }
            Ok(())
        });
        let checkpoint = tiny.checkpoint();
        (end.unwrap(), epochs, steps, checkpoint)
    };
    let (alone, shared) = (second(false), second(true));
    assert_eq!((alone.2, shared.2), (12, 9), "the three steps of the warm-up are not repeated");
    assert_eq!(alone.0, shared.0);
    assert_eq!(alone.1, shared.1, "the epochs of the warm-up are told, too");
    assert!(alone.3 == shared.3, "the checkpoints differ");
    // Another seed has another warm-up: it is not taken.
    let tiny = Tiny::new();
    assert!(share_warm_up(first.folder.path(), tiny.folder.path()).unwrap());
    let task = SearchTask { seed: 12, ..tiny.task() };
    let mut steps = 0;
    search(&task, &mut |progress| {
        steps += usize::from(matches!(progress, Progress::Step { .. }));
        Ok(())
    })
    .unwrap();
    assert_eq!(steps, 12);
    // What was begun is not begun again.
    assert!(!share_warm_up(tiny.folder.path(), first.folder.path()).unwrap());
    assert!(!share_warm_up(&tiny.folder.path().join("nowhere"), tiny.folder.path()).unwrap());
}

#[test]
fn a_trained_supernet_scores_single_networks() {
    let tiny = Tiny::new();
    let unfinished = SupernetScorer::new(&tiny.task(), 8).unwrap_err();
    assert!(matches!(unfinished, SearchError::Unfinished { done: 0, epochs: 4, .. }), "{unfinished}");
    run(&tiny, None);
    let before = tiny.checkpoint();
    let task = tiny.task();
    let mut scorer = SupernetScorer::new(&task, 10).unwrap();
    assert_eq!(scorer.images(), 8, "whole batches of four");
    let genotypes: Vec<_> = (0..6)
        .map(|index| tiny.space.sample(&mut lathe_spaces::Stream::new(1, "test scorer", index)))
        .collect();
    let scores: Vec<_> = genotypes.iter().map(|genotype| scorer.score(genotype).unwrap()).collect();
    assert!(
        scores.iter().all(|score| score.cross_entropy.is_finite() && (0.0..=1.0).contains(&score.accuracy))
    );
    assert!(scores.windows(2).any(|pair| pair[0] != pair[1]), "different networks, different scores");
    // In another order: the same network has the same score.
    let again: Vec<_> = genotypes.iter().rev().map(|genotype| scorer.score(genotype).unwrap()).collect();
    assert!(scores.iter().eq(again.iter().rev()));
    assert!(before == tiny.checkpoint(), "scoring changes nothing");
}
