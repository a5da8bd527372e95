#![allow(clippy::unwrap_used, clippy::expect_used, clippy::float_cmp, clippy::panic, reason = "tests")]

mod failure_modes;
mod guard;
mod limits;
mod policy;
mod regressor;
mod sharing;

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
};

use lathe_spaces::Micros;

use super::*;
use crate::halves::halves;
use crate::{
    DataSettings, DataSource, DeriveError, Implementation, LimitEpoch, Method, Precision, TrainingDevice,
    constraint::ascend,
    derive, fixtures,
    objective::{Costs, expected},
    optimizer::{Adam, flatten, gradients},
    relaxed_latency::RelaxedLatency,
    supernet::Architecture,
};

fn dataset() -> Arc<Dataset> {
    let settings = DataSettings {
        source: DataSource::Generated,
        resolution: 8,
        train_images: Some(24),
        test_images: Some(10),
    };
    Arc::new(Dataset::load(&settings, 3, &|_, _| {}).unwrap())
}

/// A tiny search with a target: 24 images, three steps an epoch, four epochs, the first at rest.
struct Tiny {
    space: Space,
    table: CostTable,
    dataset: Arc<Dataset>,
    folder: tempfile::TempDir,
    stop: AtomicBool,
}

impl Tiny {
    fn new() -> Self {
        let space = fixtures::darts_of(8, 3, 8);
        let table = fixtures::table(&space, 1);
        let folder = tempfile::tempdir().unwrap();
        Self { space, table, dataset: dataset(), folder, stop: AtomicBool::new(false) }
    }

    /// A target a third of the way from the fastest network to the slowest.
    fn target(&self) -> Micros {
        let [fastest, slowest] = self.table.reachable(&self.space).unwrap();
        (fastest + (slowest - fastest) * 0.33) * self.table.upper_factor()
    }

    fn task(&self) -> SearchTask<'_> {
        SearchTask {
            space: &self.space,
            dataset: Arc::clone(&self.dataset),
            supernet: SupernetSettings {
                width: 4,
                layers: 3,
                partial_channels: 2,
                implementation: Implementation::Fused,
                device: TrainingDevice::Cpu,
                precision: Precision::Float32,
            },
            settings: SearchSettings {
                epochs: 4,
                warmup_epochs: 1,
                batch: 4,
                learning_rate: 0.05,
                learning_rate_min: 0.0,
                momentum: 0.9,
                weight_decay: 3e-4,
                gradient_clip: 5.0,
                arch_learning_rate: 0.1,
                arch_weight_decay: 1e-3,
                second_order: false,
                cutout: None,
                hessian_every_epochs: None,
                stop_at_skips: None,
                stop_eigenvalue_ratio: None,
            },
            objective: ObjectiveSettings { target: Some(self.target()), ..fixtures::objective() },
            limits: &[],
            measured: &[],
            probe: None,
            table: Some(&self.table),
            seed: 11,
            threads: 1,
            collective: None,
            checkpoint: self.folder.path(),
            stop: &self.stop,
        }
    }

    fn checkpoint(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("checkpoint.safetensors")).unwrap()
    }
}

/// Runs to the end, with all epochs told; raises the stop flag after `stop_after` steps.
fn run(tiny: &Tiny, stop_after: Option<usize>) -> (SearchEnd, Vec<Event>) {
    let mut events = Vec::new();
    let mut steps = 0;
    tiny.stop.store(false, Ordering::Relaxed);
    let end = search(&tiny.task(), &mut |progress| {
        match progress {
            Progress::Event(event) => events.push(event),
            Progress::Step { done, total, loss } => {
                steps += 1;
                assert!(done <= total && loss.is_finite());
                if Some(steps) == stop_after {
                    tiny.stop.store(true, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    });
    (end.unwrap(), events)
}

/// What an epoch tells, without the times.
fn timeless(event: &Event) -> Event {
    let mut event = event.clone();
    if let Event::Epoch { seconds, data_wait, .. } = &mut event {
        (*seconds, *data_wait) = (0.0, 0.0);
    }
    event
}

#[test]
fn interrupted_and_resumed_is_bit_for_bit_uninterrupted() {
    let whole = Tiny::new();
    let (end, events) = run(&whole, None);
    let SearchEnd::Finished(scores) = &end else { unreachable!("nobody stopped it") };
    assert_eq!(events.len(), 4);

    let again = Tiny::new();
    assert_eq!(run(&again, None).0, end);
    assert!(whole.checkpoint() == again.checkpoint(), "two equal searches left different checkpoints");

    // Stopped in the warm-up, in the middle of an epoch, and at the end of one.
    let broken = Tiny::new();
    let mut told = Vec::new();
    for stop_after in [2, 3, 1] {
        let (end, mut events) = run(&broken, Some(stop_after));
        assert_eq!(end, SearchEnd::Interrupted);
        told.append(&mut events);
    }
    let (resumed, mut rest) = run(&broken, None);
    told.append(&mut rest);
    assert_eq!(resumed, SearchEnd::Finished(scores.clone()));
    assert!(whole.checkpoint() == broken.checkpoint(), "the resumed search left another checkpoint");
    let told: Vec<Event> = told.iter().map(timeless).collect();
    assert_eq!(told, events.iter().map(timeless).collect::<Vec<_>>());

    // A finished search only says so.
    let (end, events) = run(&broken, Some(1));
    assert_eq!((end, events.len()), (resumed, 0));
}

#[test]
fn the_architecture_rests_in_the_warm_up_and_then_heads_for_the_target() {
    let tiny = Tiny::new();
    let (end, events) = run(&tiny, None);
    let initial = Architecture::new(&tiny.space, Kind::Float, 11).unwrap().scores();
    let mut latencies = Vec::new();
    for event in &events {
        let Event::Epoch {
            epoch, valid_loss, valid_accuracy, arch, expected, lambda, genotype, derived, ..
        } = event
        else {
            unreachable!("{event:?}")
        };
        let rests = *epoch == 0;
        assert_eq!(*arch == initial.snapshots(&tiny.space), rests);
        assert_eq!(valid_loss.is_none(), rests);
        assert_eq!(valid_accuracy.is_none(), rests);
        if rests {
            assert_eq!(*lambda, 0.0);
        }
        let genotype = tiny.space.parse(genotype).unwrap();
        assert_eq!(*derived, Some(tiny.table.mean(&tiny.space, &genotype).unwrap()));
        latencies.push(expected.unwrap());
    }
    assert!(latencies[3] < latencies[0], "{latencies:?}");
    let SearchEnd::Finished(scores) = end else { unreachable!("nobody stopped it") };
    let derived = derive(&tiny.space, &scores, Some((&tiny.table, tiny.target()))).unwrap();
    assert!(derived.upper.unwrap() <= tiny.target());
}

#[test]
fn a_lower_target_gives_a_lower_latency_and_none_gives_no_pressure() {
    let last = |change: &dyn Fn(&mut SearchTask)| {
        let tiny = Tiny::new();
        let mut task = tiny.task();
        change(&mut task);
        let mut last = None;
        search(&task, &mut |progress| {
            if let Progress::Event(Event::Epoch { expected, lambda, .. }) = progress {
                let highest = last.map_or(0.0, |(_, highest)| lambda.max(highest));
                last = Some((expected.unwrap(), highest));
            }
            Ok(())
        })
        .unwrap();
        last.unwrap()
    };
    let (free, no_lambda) = last(&|task| task.objective.target = None);
    let (bound, lambda) = last(&|_| {});
    assert_eq!(no_lambda, 0.0);
    assert!(lambda > 0.0);
    assert!(bound < free, "{bound} with the target, {free} without");
}

#[test]
fn halves_are_disjoint_cover_everything_and_balance_the_classes() {
    let dataset = dataset();
    let [weights, architecture] = halves(&dataset, 5);
    assert!(architecture.len() >= weights.len() && architecture.len() - weights.len() <= 1);
    let mut all = [weights.clone(), architecture.clone()].concat();
    all.sort_unstable();
    assert_eq!(all, (0..dataset.train.len()).collect::<Vec<_>>());
    for class in 0..dataset.classes.len() {
        let count =
            |half: &[usize]| half.iter().filter(|&&index| dataset.train.label(index) == class).count();
        assert!(count(&weights).abs_diff(count(&architecture)) <= 1, "class {class}");
    }
    assert_eq!(halves(&dataset, 5)[0], weights);
    assert_ne!(halves(&dataset, 6)[0], weights);
}

#[test]
fn a_checkpoint_of_another_search_is_refused_and_named() {
    let tiny = Tiny::new();
    assert_eq!(run(&tiny, Some(1)).0, SearchEnd::Interrupted);
    tiny.stop.store(false, Ordering::Relaxed);
    let mut task = tiny.task();
    task.seed = 12;
    task.settings.batch = 5;
    let error = search(&task, &mut |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("another search schedule, seed;"), "{error}");
    assert!(error.contains("hint: "), "{error}");
}

#[test]
fn what_makes_no_sense_is_refused_before_any_work() {
    let tiny = Tiny::new();
    let error = |change: &dyn Fn(&mut SearchTask)| {
        let mut task = tiny.task();
        change(&mut task);
        search(&task, &mut |_| Ok(())).unwrap_err()
    };
    let no_table = error(&|task| task.table = None).to_string();
    assert!(no_table.contains("target") && no_table.contains("cost table"), "{no_table}");
    let infeasible = error(&|task| task.objective.target = Some(Micros(60.0)));
    assert!(matches!(infeasible, SearchError::Derive(DeriveError::Infeasible { .. })), "{infeasible}");
    assert!(error(&|task| task.settings.batch = 0).to_string().contains("batch = 0"));
    assert!(error(&|task| task.settings.warmup_epochs = 4).to_string().contains("warmup_epochs = 4"));
    assert!(error(&|task| task.objective.temperature_end = 0.0).to_string().contains("temperature_end = 0"));
    let diverged = error(&|task| task.settings.learning_rate = f64::INFINITY);
    assert!(matches!(diverged, SearchError::Diverged { .. }), "{diverged}");
}

#[test]
fn dual_ascent_holds_the_target_against_a_taste_for_slow_networks() {
    let space = fixtures::small();
    let table = fixtures::table(&space, 2);
    let costs = Costs::new(&space, &table);
    let relaxed = RelaxedLatency::new(&space, &[&costs]);
    let temperature = 0.5;
    let target = expected(&space, &Scores::uniform(&space), &costs, 1.0);
    let dearest: Vec<i64> = costs
        .choices
        .iter()
        .map(|row| (1..row.len()).fold(1, |best, i| if row[i] > row[best] { i } else { best }) as i64)
        .collect();
    // Mean latency over the last of 600 steps, relative to the target.
    let settle = |dual_max: f64| {
        let mut architecture = Architecture::new(&space, Kind::Double, 1).unwrap();
        let mut adam = Adam::new(&architecture.flat);
        let settings = Tiny::new().task().objective;
        let objective = ObjectiveSettings { dual_rate: 0.05, dual_max, ..settings };
        let (mut lambda, mut sum) = (0.0, 0.0);
        for step in 0..600 {
            let (alpha, beta) = architecture.rows();
            // Stands for the accuracy: it likes the slowest choice of every edge.
            let mut loss = Tensor::from(0.0);
            for (alpha, &choice) in alpha.iter().zip(&dearest) {
                loss -= alpha.log_softmax(-1, Kind::Double).get(choice) * 0.02;
            }
            let excess = relaxed.of(&alpha, &beta, temperature).get(0) / target - 1.0;
            let value = excess.double_value(&[]);
            loss += excess * lambda;
            let leaves: Vec<&Tensor> = architecture.leaves().iter().collect();
            let gradient = flatten(&gradients(&loss, &leaves));
            adam.step(&mut architecture.flat, &gradient, 0.02, 1e-3);
            lambda = ascend(lambda, value, &objective);
            if step >= 500 {
                sum += (1.0 + value) / 100.0;
            }
        }
        sum
    };
    let (free, held) = (settle(0.0), settle(10.0));
    assert!(free > 1.1, "without λ the latency is {free} of the target");
    assert!((held - 1.0).abs() < 0.05, "with λ the latency is {held} of the target");
}

/// The last epoch's limits of a tiny search that `change` has changed.
fn last_limits(change: &dyn Fn(&mut SearchTask)) -> Vec<LimitEpoch> {
    let tiny = Tiny::new();
    let mut task = tiny.task();
    change(&mut task);
    let mut last = Vec::new();
    search(&task, &mut |progress| {
        if let Progress::Event(Event::Epoch { limits, .. }) = progress {
            last = limits;
        }
        Ok(())
    })
    .unwrap();
    last
}

#[test]
fn every_limit_has_its_own_multiplier() {
    let space = fixtures::darts_of(8, 3, 8);
    let at = |limit: Limit, share: f64| {
        let [least, most] = limit.reachable(&space);
        Limit { at_most: least + share * (most - least), ..limit }
    };
    let limits =
        [at(Limit::macs(&space, 0.0).unwrap(), 0.05), at(Limit::parameters(&space, 0.0).unwrap(), 0.99)];
    let leaked: &'static [Limit] = limits.to_vec().leak();
    let held = last_limits(&|task| task.limits = leaked);
    let names: Vec<&str> = held.iter().map(|limit| limit.limit.as_str()).collect();
    assert_eq!(names, ["latency", "macs", "parameters"]);
    assert!(held[1].lambda > 0.1, "operations are far above their limit: λ = {}", held[1].lambda);
    assert_eq!(held[2].lambda, 0.0, "parameters are far below their limit");
    let free = last_limits(&|_| {});
    let macs = |limits: &[LimitEpoch]| limits.iter().find(|limit| limit.limit == "macs").map(|l| l.expected);
    assert_eq!(macs(&free), None);
}

#[test]
fn published_methods_pull_towards_the_target_too() {
    let free = last_limits(&|task| (task.objective.dual_rate, task.objective.dual_max) = (0.0, 0.0));
    for method in [Method::Linear, Method::Logarithmic, Method::Fbnet, Method::Absolute] {
        let held = last_limits(&|task| {
            task.objective.method = method;
            task.objective.exponent = 1.0;
            // Twelve steps on 24 images: weights that are seen in so short a time.
            task.objective.weight =
                if matches!(method, Method::Logarithmic | Method::Fbnet) { 10.0 } else { 5.0 };
        });
        assert!(
            held[0].expected < free[0].expected,
            "{method:?}: {} with the term, {} without",
            held[0].expected,
            free[0].expected
        );
    }
}

#[test]
fn a_policy_searches_and_resumes_to_the_same_end() {
    let search_to = |tiny: &Tiny, stop_after: Option<usize>| {
        let mut task = tiny.task();
        task.objective.method = Method::Reinforce;
        task.objective.weight = 0.1;
        let (mut steps, mut epochs) = (0, Vec::new());
        tiny.stop.store(false, Ordering::Relaxed);
        let end = search(&task, &mut |progress| {
            match progress {
                Progress::Event(event) => epochs.push(timeless(&event)),
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
        (end, epochs)
    };
    let whole = Tiny::new();
    let (end, epochs) = search_to(&whole, None);
    let SearchEnd::Finished(scores) = &end else { unreachable!("nobody stopped it") };
    assert_ne!(*scores, Architecture::new(&whole.space, Kind::Float, 11).unwrap().scores());
    let broken = Tiny::new();
    let mut told = Vec::new();
    for stop_after in [Some(2), Some(5), None] {
        told.extend(search_to(&broken, stop_after).1);
    }
    assert_eq!(told, epochs);
    assert_eq!(search_to(&broken, None).0, end);
    assert!(whole.checkpoint() == broken.checkpoint());
}

/// Says that a network takes 1.2 times and 30 µs more than predicted, and counts how often it is asked.
#[derive(Debug)]
struct Slower {
    limit: Limit,
    space: Space,
    asked: std::cell::RefCell<Vec<usize>>,
}

impl Probe for Slower {
    fn measure(&self, epoch: usize, genotype: &lathe_spaces::Genotype) -> Result<Vec<Option<f64>>, String> {
        self.asked.borrow_mut().push(epoch);
        Ok(vec![Some(1.2 * self.limit.mean(&self.space, genotype) + 30.0)])
    }
}

#[test]
fn the_loop_is_closed_over_the_device_and_resumes_to_the_same_end() {
    let tiny = Tiny::new();
    let limit = Limit::latency("latency", &tiny.space, &tiny.table, tiny.target()).unwrap();
    let probed = |tiny: &Tiny, stop_after: Option<usize>| {
        let probe =
            Slower { limit: limit.clone(), space: tiny.space.clone(), asked: std::cell::RefCell::default() };
        let mut task = tiny.task();
        task.objective.measure_every_epochs = Some(1);
        task.probe = Some(&probe);
        let (mut steps, mut epochs) = (0, Vec::new());
        tiny.stop.store(false, Ordering::Relaxed);
        let end = search(&task, &mut |progress| {
            match progress {
                Progress::Event(event) => epochs.push(timeless(&event)),
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
        (end, epochs, probe.asked.into_inner())
    };
    let (end, epochs, asked) = probed(&tiny, None);
    // Not in the warm-up, and not after the last epoch.
    assert_eq!(asked, [1, 2]);
    let corrections: Vec<[f64; 2]> = epochs
        .iter()
        .map(|event| match event {
            Event::Epoch { limits, .. } => [limits[0].correction, limits[0].derived],
            other => unreachable!("{other:?}"),
        })
        .collect();
    assert_eq!(corrections[0][0], 0.0);
    let error = |derived: f64| 0.2 * derived + 30.0;
    assert!((corrections[1][0] - error(corrections[1][1])).abs() < 1e-6, "{corrections:?}");
    let running = f64::midpoint(corrections[1][0], error(corrections[2][1]));
    assert!((corrections[2][0] - running).abs() < 1e-6, "{corrections:?}");

    let broken = Tiny::new();
    let mut told = Vec::new();
    for stop_after in [Some(5), Some(3), None] {
        told.extend(probed(&broken, stop_after).1);
    }
    assert_eq!(told, epochs);
    assert_eq!(probed(&broken, None).0, end);
    assert!(tiny.checkpoint() == broken.checkpoint());
}

#[test]
fn an_open_loop_would_keep_a_wrong_prediction() {
    // The device is slower than the table says: only the closed loop moves further.
    let tiny = Tiny::new();
    let limit = Limit::latency("latency", &tiny.space, &tiny.table, tiny.target()).unwrap();
    let probe = Slower { limit, space: tiny.space.clone(), asked: std::cell::RefCell::default() };
    let leaked: &'static Slower = Box::leak(Box::new(probe));
    let open = last_limits(&|_| {});
    let closed = last_limits(&|task| {
        task.objective.measure_every_epochs = Some(1);
        task.probe = Some(leaked);
    });
    assert_eq!(open[0].correction, 0.0);
    assert!(closed[0].lambda > open[0].lambda, "{} closed, {} open", closed[0].lambda, open[0].lambda);
}

#[test]
fn limits_and_methods_that_make_no_sense_are_refused() {
    let tiny = Tiny::new();
    let error = |change: &dyn Fn(&mut SearchTask)| {
        let mut task = tiny.task();
        change(&mut task);
        search(&task, &mut |_| Ok(())).unwrap_err().to_string()
    };
    let macs: &'static [Limit] = vec![Limit::macs(&tiny.space, 10.0).unwrap()].leak();
    let text = error(&|task| task.limits = macs);
    assert!(text.contains("no network of the space keeps the limit of `macs`"), "{text}");
    // A ratio has no logarithm of its own.
    let one = Limit::latency("a", &tiny.space, &tiny.table, tiny.target()).unwrap();
    let ratio: &'static [Limit] = vec![Limit::weighted(&[(one, 1.0)]).unwrap()].leak();
    let text = error(&|task| {
        task.objective.method = Method::Fbnet;
        task.limits = ratio;
    });
    assert!(text.contains("method = a logarithm") && text.contains("weighted latency"), "{text}");
    let text = error(&|task| {
        task.objective.method = Method::Logarithmic;
        task.settings.second_order = true;
    });
    assert!(text.contains("second_order = true"), "{text}");
}
