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
    Dataset, Event, Limit, PathEnd, PathScorer, PathTask, Progress, SearchError, StopReason, Teacher,
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
    let first = first_generation(&scorer, space, limits, settings.population, &mut random);
    run.terminal.say(&format!("      evolution: {budget} networks, {images} images each"));
    let mut bar = run.terminal.bar("evolve", budget);
    let peak = limits::peak(run);
    let mut found: Vec<(f64, f64)> = Vec::new();
    let mut score = |genotypes: &[Genotype]| -> Result<Vec<Score>, Ended> {
        let mut scores = Vec::with_capacity(genotypes.len());
        for genotype in genotypes {
            if run.stop.load(Ordering::Relaxed) {
                return Err(Ended::Stopped);
            }
            let judged = scorer.score(genotype)?;
            let cost = cost(space, limits, genotype);
            let mut violation: f64 = limits.iter().map(|limit| excess(space, limit, genotype)).sum();
            if !limits::accepts(space, peak, genotype) {
                violation += 1.0;
            }
            found.push((judged.quality, cost));
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
    let front = kept(&archive).into_iter().map(|index| {
        let (quality, cost) = found[index];
        (space.format(&archive.entries[index].0), quality, Micros(cost))
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

/// By how much a limit is exceeded, as a share of it.
fn excess(space: &Space, limit: &Limit, genotype: &Genotype) -> f64 {
    (limit.upper(space, genotype) / limit.at_most - 1.0).max(0.0)
}

/// The networks that evolution begins with, the first one last: the likeliest of the policy, the least of every limit,
/// then networks that the policy draws, those within the limits before the others.
fn first_generation(
    scorer: &PathScorer<'_>,
    space: &Space,
    limits: &[Limit],
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
        let keeps = limits.iter().all(|limit| excess(space, limit, &drawn) <= 0.0);
        if keeps { &mut inside } else { &mut outside }.push(drawn);
    }
    first.extend(inside);
    first.extend(outside);
    first.truncate(count);
    first.reverse();
    first
}

/// Positions of the networks within all limits that no other one beats in both objectives, the cheapest first.
fn kept(archive: &Archive<Genotype>) -> Vec<usize> {
    let allowed: Vec<usize> =
        (0..archive.entries.len()).filter(|&index| archive.entries[index].1.violation <= 0.0).collect();
    let points: Vec<Vec<f64>> = allowed
        .iter()
        .map(|&index| archive.entries[index].1.objectives.iter().rev().copied().collect())
        .collect();
    pareto_front(&points).into_iter().map(|index| allowed[index]).collect()
}
