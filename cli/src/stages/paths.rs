//! Searches a space of stages: trains the shared weights with a policy, then breeds networks on them.

use std::{
    cell::RefCell,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use lathe_search::{
    Dataset, Event, Limit, PathEnd, PathScorer, PathTask, Progress, SearchError, Sides, StopReason, Teacher,
    evolution::{Archive, Candidates, Evaluator, Nsga2Settings, Score, nsga2, pareto_front},
    search_paths,
};
use lathe_spaces::{Genotype, Micros, NetworkOptions, Space, Stream};
use miette::Report;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

use crate::{
    config::{Config, PathsConfig},
    failure::failed,
    run::{Run, StageEnd},
    run_directory::write_atomically,
    stages::{limits, search::SCORES},
};

/// Networks drawn for each of the first generation: of them those within the limits come first.
const DRAWS_PER_NETWORK: usize = 20;

/// The stage.
pub fn run(run: &mut Run<'_>, paths: &PathsConfig) -> Result<StageEnd, Report> {
    let inputs = Inputs::of(run)?;
    if !train(run, &inputs, paths)? {
        return Ok(StageEnd::Stop(StopReason::Interrupted));
    }
    let Some(bred) = breed(run, &inputs, paths)? else {
        return Ok(StageEnd::Stop(StopReason::Interrupted));
    };
    run.push(bred)?;
    Ok(StageEnd::Done)
}

/// What a search of a run works with.
struct Inputs {
    dataset: Arc<Dataset>,
    teacher: Option<Rc<Teacher>>,
    checkpoint: PathBuf,
    limits: Vec<Limit>,
}

impl Inputs {
    fn of(run: &Run<'_>) -> Result<Self, Report> {
        let (dataset, checkpoint) = (run.dataset()?, run.checkpoint("search")?);
        Ok(Self { dataset, teacher: run.teacher()?, checkpoint, limits: limits::all(run)? })
    }

    fn task<'a>(
        &'a self,
        config: &Config,
        space: &'a Space,
        paths: &PathsConfig,
        stop: &'a AtomicBool,
    ) -> PathTask<'a> {
        PathTask {
            space,
            dataset: Arc::clone(&self.dataset),
            teacher: self.teacher.clone(),
            settings: config.search,
            paths: paths.settings(config.objective.method_weight),
            limits: &self.limits,
            seed: config.seed,
            threads: config.threads,
            checkpoint: &self.checkpoint,
            stop,
        }
    }
}

/// Trains weights and policy; false if the user stopped it.
fn train(run: &mut Run<'_>, inputs: &Inputs, paths: &PathsConfig) -> Result<bool, Report> {
    let learning = run.config.space.learning();
    let mut bar = run.terminal.bar("search", 0);
    let Run { config, space, directory, stop, .. } = run;
    let task = inputs.task(config, space, paths, stop);
    let end = search_paths(&task, &mut |progress| {
        match progress {
            Progress::Step { done, total, loss } => bar.set(done, total, &format!("loss {loss:.3}")),
            Progress::Event(event) => {
                if let Event::Epoch { epoch, epochs, train_accuracy, derived, .. } = &event {
                    let derived =
                        derived.map_or_else(String::new, |time| format!(", likeliest network {time}"));
                    bar.say(&format!(
                        "      epoch {}/{epochs}: {} {}{derived}",
                        epoch + 1,
                        learning.measure(),
                        learning.show(*train_accuracy)
                    ));
                }
                directory.record.push(event)?;
            }
        }
        Ok(())
    });
    bar.done();
    match end.map_err(failed)? {
        PathEnd::Interrupted => Ok(false),
        PathEnd::Finished(scores) => {
            let text = serde_json::to_string_pretty(&scores).map_err(failed)?;
            write_atomically(&run.path(SCORES), text.as_bytes()).map_err(failed)?;
            Ok(true)
        }
    }
}

/// A space of which the first networks that are drawn are given.
struct Begun<'s> {
    space: &'s Space,
    /// The first one last.
    first: RefCell<Vec<Genotype>>,
}

impl Candidates for Begun<'_> {
    type Candidate = Genotype;

    fn sample(&self, rng: &mut ChaCha8Rng) -> Genotype {
        self.first.borrow_mut().pop().unwrap_or_else(|| self.space.sample(rng))
    }

    fn mutate(&self, parent: &Genotype, rng: &mut ChaCha8Rng) -> Genotype {
        self.space.mutate(parent, rng)
    }

    fn cross(&self, left: &Genotype, right: &Genotype, rng: &mut ChaCha8Rng) -> Genotype {
        Candidates::cross(self.space, left, right, rng)
    }
}

/// Why breeding ends early.
#[derive(Debug, Error)]
enum Ended {
    #[error("stopped")]
    Stopped,
    #[error(transparent)]
    Search(#[from] SearchError),
}

/// Evolution on the shared weights: loss against latency (or operations, without a target), within all limits.
/// `None` if the user stopped it.
fn breed(run: &Run<'_>, inputs: &Inputs, paths: &PathsConfig) -> Result<Option<Event>, Report> {
    let (space, limits) = (&run.space, &inputs.limits);
    let learning = run.config.space.learning();
    let task = inputs.task(&run.config, space, paths, run.stop);
    let mut scorer = PathScorer::new(&task, paths.images).map_err(failed)?;
    let (images, budget) = (scorer.images(), paths.evaluations);
    let settings = Nsga2Settings {
        population: Nsga2Settings::default().population.min(budget),
        ..Nsga2Settings::default()
    };
    let mut random = Stream::new(run.config.seed, "evolution on paths", 0);
    let sides = run.config.objective.sides;
    let first = first_generation(&scorer, space, limits, sides, settings.population, &mut random);
    run.terminal.say(&format!("      evolution: {budget} networks, {images} images each"));
    let mut bar = run.terminal.bar("evolve", budget);
    let peak = limits::peak(run);
    let mut found: Vec<Found> = Vec::new();
    let mut score = |genotypes: &[Genotype]| -> Result<Vec<Score>, Ended> {
        let mut scores = Vec::with_capacity(genotypes.len());
        for genotype in genotypes {
            if run.stop.load(Ordering::Relaxed) {
                return Err(Ended::Stopped);
            }
            let judged = scorer.score(genotype)?;
            let cost = cost(space, limits, genotype);
            let shares = limits::shares(space, limits, genotype);
            let accepted = limits::accepts(space, peak, genotype);
            let violation =
                limits::excess(&shares) + limits::shortfall(&shares, sides) + f64::from(!accepted);
            let within = accepted && limits::excess(&shares) <= 0.0;
            found.push(Found { quality: judged.quality, cost: Micros(cost), within });
            scores.push(Score { objectives: vec![judged.loss, cost], violation });
            bar.set(found.len(), budget, &learning.show(judged.quality));
        }
        Ok(scores)
    };
    let evaluator = Evaluator::new(budget, &mut score);
    let candidates = Begun { space, first: RefCell::new(first) };
    let archive = match nsga2(&candidates, settings, evaluator, &mut random) {
        Ok(archive) => archive,
        Err(Ended::Stopped) => return Ok(None),
        Err(Ended::Search(error)) => return Err(failed(error)),
    };
    bar.done();
    let front = kept(&archive, &found).into_iter().map(|index| {
        let Found { quality, cost, .. } = found[index];
        (space.format(&archive.entries[index].0), quality, cost)
    });
    Ok(Some(Event::Bred {
        supernet: run.directory.path.clone(),
        evaluations: archive.entries.len(),
        images,
        front: front.collect(),
    }))
}

/// What a network is to have little of: latency on the first device, or operations where nothing is asked.
fn cost(space: &Space, limits: &[Limit], genotype: &Genotype) -> f64 {
    limits.first().map_or_else(
        || {
            let graph = space.network(genotype, NetworkOptions::default());
            graph.map_or(f64::INFINITY, |graph| graph.macs() as f64)
        },
        |limit| limit.mean(space, genotype),
    )
}

/// The networks that evolution begins with, the first one last: the likeliest of the policy, the least of every limit,
/// then networks that the policy draws, those within the limits before the others.
fn first_generation(
    scorer: &PathScorer<'_>,
    space: &Space,
    limits: &[Limit],
    sides: Sides,
    count: usize,
    random: &mut ChaCha8Rng,
) -> Vec<Genotype> {
    let mut first = vec![scorer.likeliest()];
    first.extend(limits.iter().filter_map(|limit| Some(limit.whole.as_ref()?.least.clone())));
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for _ in 0..count * DRAWS_PER_NETWORK {
        if inside.len() >= count {
            break;
        }
        let drawn = scorer.draw(random);
        let shares = limits::shares(space, limits, &drawn);
        let violation = limits::excess(&shares) + limits::shortfall(&shares, sides);
        if violation <= 0.0 { &mut inside } else { &mut outside }.push(drawn);
    }
    first.extend(inside);
    first.extend(outside);
    first.truncate(count);
    first.reverse();
    first
}

/// What evolution remembers of a network.
#[derive(Clone, Copy)]
struct Found {
    quality: f64,
    cost: Micros,
    /// It keeps all limits.
    within: bool,
}

/// Positions of the networks within all limits that no other one beats in both objectives, the cheapest first. Where a
/// target pulls from both sides, also those that no other one beats of the networks that come near to it (or nearest, if
/// none does): smaller ones stay for the case that the device is slower than predicted.
fn kept<C>(archive: &Archive<C>, found: &[Found]) -> Vec<usize> {
    let violation = |index: usize| archive.entries[index].1.violation;
    let within: Vec<usize> = (0..archive.entries.len()).filter(|&index| found[index].within).collect();
    let least = within.iter().map(|&index| violation(index)).fold(f64::INFINITY, f64::min);
    let near: Vec<usize> = within.iter().copied().filter(|&index| violation(index) <= least).collect();
    let front = |of: &[usize]| -> Vec<usize> {
        let point = |&index: &usize| archive.entries[index].1.objectives.iter().rev().copied().collect();
        let points: Vec<Vec<f64>> = of.iter().map(point).collect();
        pareto_front(&points).into_iter().map(|place| of[place]).collect()
    };
    let mut kept = front(&within);
    let more = front(&near).into_iter().filter(|index| !kept.contains(index));
    kept.extend(more.collect::<Vec<_>>());
    kept.sort_by(|&a, &b| found[a].cost.0.total_cmp(&found[b].cost.0));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The networks that are kept of some with (loss, cost, violation, within all limits).
    fn kept_of(rows: &[(f64, f64, f64, bool)]) -> Vec<usize> {
        let entry = |&(loss, cost, violation, _): &(f64, f64, f64, bool)| {
            ((), Score { objectives: vec![loss, cost], violation })
        };
        let found = |&(_, cost, _, within): &(f64, f64, f64, bool)| Found {
            quality: 0.0,
            cost: Micros(cost),
            within,
        };
        let found: Vec<Found> = rows.iter().map(found).collect();
        kept(&Archive { entries: rows.iter().map(entry).collect() }, &found)
    }

    #[test]
    fn the_front_is_of_networks_within_the_limits_and_has_those_that_are_near_to_them() {
        // Beaten by the second; the best, but too slow; far below and the best of the others; worse and cheaper.
        let rows = [
            (1.0, 9.5, 0.0, true),
            (0.9, 9.2, 0.0, true),
            (0.1, 12.0, 0.2, false),
            (0.5, 3.0, 0.6, true),
            (0.8, 9.9, 0.0, true),
            (0.7, 2.0, 0.7, true),
        ];
        assert_eq!(kept_of(&rows), [5, 3, 1, 4]);
        // None is near: the nearest, and never one that is too slow.
        let rows =
            [(0.5, 3.0, 0.6, true), (0.6, 5.0, 0.4, true), (0.1, 11.0, 0.1, false), (0.7, 4.0, 0.5, true)];
        assert_eq!(kept_of(&rows), [0, 1]);
        assert!(kept_of(&[(0.1, 11.0, 0.1, false)]).is_empty());
    }

    #[test]
    fn without_a_pull_from_below_it_is_the_front() {
        let rows =
            [(0.5, 3.0, 0.0, true), (0.6, 5.0, 0.0, true), (0.1, 11.0, 0.1, false), (0.4, 4.0, 0.0, true)];
        assert_eq!(kept_of(&rows), [0, 3]);
    }
}
