#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;

use lathe_spaces::{DartsSkeleton, NetworkOptions, Space, Stem, Stream};

use super::*;
use crate::{DataSettings, DataSource};

/// A tiny network with auxiliary head, drop path and cutout: 26 images, four steps an epoch, three epochs.
struct Tiny {
    graph: Graph,
    dataset: Arc<Dataset>,
    folder: tempfile::TempDir,
    stop: AtomicBool,
    settings: RetrainSettings,
}

impl Tiny {
    fn new() -> Self {
        let source = DataSource::Generated;
        let data = DataSettings { source, resolution: 32, train_images: Some(26), test_images: Some(20) };
        let skeleton = DartsSkeleton { stem: Stem::Cifar, width: 4, layers: 3, resolution: 32, classes: 10 };
        let space = Space::darts(skeleton);
        let genotype = space.sample(&mut Stream::new(5, "test", 0));
        Self {
            graph: space
                .network(&genotype, NetworkOptions { auxiliary: true, ..NetworkOptions::default() })
                .unwrap(),
            dataset: Arc::new(Dataset::load(&data, 3, &|_, _| ()).unwrap()),
            folder: tempfile::tempdir().unwrap(),
            stop: AtomicBool::new(false),
            settings: RetrainSettings {
                epochs: 3,
                batch: 8,
                learning_rate: 0.05,
                momentum: 0.9,
                weight_decay: 3e-4,
                gradient_clip: 5.0,
                auxiliary: Some(0.4),
                drop_path: 0.3,
                cutout: Some(8),
                validation: 0.0,
            },
        }
    }

    fn task(&self) -> RetrainTask<'_> {
        RetrainTask {
            graph: &self.graph,
            name: "searched",
            dataset: Arc::clone(&self.dataset),
            teacher: None,
            settings: self.settings,
            seed: 7,
            threads: 1,
            checkpoint: self.folder.path(),
            stop: &self.stop,
        }
    }

    /// Trains, and asks to stop after the step `stop_after` of this call.
    fn run(&self, stop_after: Option<usize>) -> (RetrainEnd, Vec<Event>, usize) {
        self.stop.store(false, Ordering::Relaxed);
        let (mut events, mut steps) = (Vec::new(), 0);
        let end = retrain(&self.task(), &mut |progress| {
            match progress {
                Progress::Event(event) => events.push(event),
                Progress::Step { total, .. } => {
                    assert_eq!(total, 12);
                    steps += 1;
                    if Some(steps) == stop_after {
                        self.stop.store(true, Ordering::Relaxed);
                    }
                }
            }
            Ok(())
        });
        (end.unwrap(), events, steps)
    }
}

/// Events without what depends on the clock.
fn timeless(events: Vec<Event>) -> Vec<Event> {
    let zero = |event| match event {
        Event::TrainEpoch { candidate, epoch, epochs, train_loss, train_accuracy, .. } => {
            Event::TrainEpoch { candidate, epoch, epochs, train_loss, train_accuracy, seconds: 0.0 }
        }
        other => other,
    };
    events.into_iter().map(zero).collect()
}

#[test]
fn an_interrupted_training_ends_with_the_same_bits() {
    let whole = Tiny::new();
    let (expected, told_at_once, steps) = whole.run(None);
    assert_eq!((steps, told_at_once.len()), (12, 3));
    let interrupted = Tiny::new();
    let mut resumed = Vec::new();
    // In the first epoch, at the end of an epoch, in the last one.
    for (stop_after, told) in [(2, 0), (2, 1), (5, 1)] {
        let (end, events, steps) = interrupted.run(Some(stop_after));
        assert_eq!((end, steps), (RetrainEnd::Interrupted, stop_after));
        assert_eq!(events.len(), told);
        resumed.extend(events);
    }
    let (end, events, steps) = interrupted.run(None);
    assert_eq!(steps, 3);
    resumed.extend(events);
    assert_eq!(end, expected);
    assert_eq!(timeless(resumed), timeless(told_at_once));
}

#[test]
fn a_finished_training_is_not_repeated() {
    let tiny = Tiny::new();
    let (expected, _, _) = tiny.run(None);
    let RetrainEnd::Finished { test_accuracy, test_images, weights, validation } = &expected else {
        panic!("unfinished")
    };
    assert_eq!((*test_images, *validation), (20, None));
    assert!((0.0..=1.0).contains(test_accuracy));
    weights.check(&tiny.graph).unwrap();
    let before = initial(&tiny.graph, 7);
    assert!(weights.0.iter().all(|(name, tensor)| before.0[name] != *tensor), "every tensor learns");
    let (again, events, steps) = tiny.run(None);
    assert_eq!((again, events.len(), steps), (expected, 0, 0));
}

#[test]
fn images_are_held_out_of_every_class_and_never_trained_on() {
    let mut tiny = Tiny::new();
    let (all, none) = held_out(&tiny.dataset, 0.0);
    assert_eq!((all.len(), none.len()), (26, 0));
    let (training, validation) = held_out(&tiny.dataset, 0.3);
    let mut both = [training.clone(), validation.clone()].concat();
    both.sort_unstable();
    assert_eq!(both, all, "no image twice, none lost");
    let of_class =
        |class| validation.iter().filter(|&&index| tiny.dataset.train.label(index) == class).count();
    assert!((0..10).all(|class| of_class(class) == 1), "one of the two or three of each class");
    tiny.settings.validation = 0.3;
    // 16 images are left to train on: two steps an epoch.
    let (mut seen, mut end) = (0, None);
    let task = tiny.task();
    let sink = &mut |progress| {
        if let Progress::Step { total, .. } = progress {
            (seen, end) = (seen + 1, Some(total));
        }
        Ok(())
    };
    let finished = retrain(&task, sink).unwrap();
    assert_eq!((seen, end), (6, Some(6)));
    let RetrainEnd::Finished { validation: Some((accuracy, images)), .. } = finished else {
        panic!("{finished:?}")
    };
    assert_eq!(images, 10);
    assert!((0.0..=1.0).contains(&accuracy));
    tiny.settings.validation = 0.01;
    let error = retrain(&tiny.task(), &mut |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("validation") && error.contains("0.01"), "{error}");
}

#[test]
fn the_checkpoint_of_another_training_is_refused() {
    let mut tiny = Tiny::new();
    tiny.run(Some(1));
    tiny.settings.learning_rate = 0.1;
    tiny.stop.store(false, Ordering::Relaxed);
    let error = retrain(&tiny.task(), &mut |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("training schedule") && error.contains("hint: "), "{error}");
}

#[test]
fn a_directory_that_is_a_file_is_an_error_that_names_it() {
    let tiny = Tiny::new();
    let file = tiny.folder.path().join("taken");
    fs::write(&file, b"x").unwrap();
    let task = RetrainTask { checkpoint: &file, ..tiny.task() };
    let error = retrain(&task, &mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, RetrainError::Checkpoint(_)) && error.to_string().contains("taken"), "{error}");
}

#[test]
fn settings_that_do_not_fit_are_errors() {
    let mut tiny = Tiny::new();
    let text = |tiny: &Tiny| retrain(&tiny.task(), &mut |_| Ok(())).unwrap_err().to_string();
    tiny.settings.batch = 1;
    assert!(text(&tiny).contains("batch = 1"));
    tiny.settings.batch = 8;
    tiny.settings.auxiliary = None;
    assert!(text(&tiny).contains("outputs of the network = 2"));
    tiny.settings.auxiliary = Some(0.4);
    tiny.settings.drop_path = 1.0;
    assert!(text(&tiny).contains("drop_path = 1"));
}

#[test]
fn a_loss_that_is_no_number_is_an_error() {
    let mut tiny = Tiny::new();
    tiny.settings.learning_rate = 1e30;
    let error = retrain(&tiny.task(), &mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, RetrainError::Diverged { .. }), "{error}");
}
