//! Multi-objective evolution on the weights of a trained supernet.

use std::{
    cell::RefCell,
    fs,
    sync::{Arc, atomic::Ordering},
};

use lathe_search::{
    Dataset, SearchError, SupernetScorer,
    evolution::{Archive, Candidates, Evaluator, Nsga2Settings, Score, nsga2, pareto_front},
    proxies::{Proxy, ProxyBenchmarkError, rank},
};
use lathe_spaces::{Genotype, Micros, Space, Stream};
use miette::Report;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

use super::{Approach, Study, member::Member};
use crate::{
    failure::failed,
    run::{Bred, Run},
    run_directory::write_atomically,
    stages::{limits, search::Inputs},
};

/// Name of the file with what was found, beside the members of a seed.
const FILE: &str = "evolved.json";

#[derive(Debug, Error)]
enum Ended {
    #[error("the user stopped it")]
    Stopped,
    #[error(transparent)]
    Search(#[from] SearchError),
}

/// The networks that evolution finds for a member's seed, scored by accuracy on the weights of the supernet that was
/// trained without a target (where there is none, under the largest) and by predicted latency. Found once per seed;
/// `None` if the user stopped it.
pub fn front(
    study: &Study<'_>,
    member: &Member,
    members: &[Member],
    images: &Arc<Dataset>,
) -> Result<Option<Bred>, Report> {
    let path = member.directory(study).with_file_name(FILE);
    if path.is_file() {
        let text = fs::read_to_string(&path).map_err(|error| broken(&path, &error.to_string()))?;
        return serde_json::from_str(&text).map(Some).map_err(|error| broken(&path, &error.to_string()));
    }
    let rank = |other: &Member| match other.approach {
        Approach::Unconstrained => Some((0, 0.0)),
        Approach::Latency => other.target.map(|target| (1, -target.0)),
        Approach::Macs | Approach::Evolved => None,
    };
    let supernets = members.iter().filter(|other| other.seed == member.seed);
    let supernets = supernets.filter_map(|other| rank(other).map(|rank| (rank, other)));
    let supernet = supernets.min_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    let Some((_, supernet)) = supernet else {
        return Err(miette::miette!("failed to breed networks: no supernet is trained"));
    };
    let run = supernet.open(study, images)?;
    let Some(bred) = breed(study, &run, member.seed as u64, images)? else { return Ok(None) };
    let text = serde_json::to_string_pretty(&bred).map_err(failed)?;
    write_atomically(&path, text.as_bytes()).map_err(failed)?;
    Ok(Some(bred))
}

/// A space of which the first networks that are drawn are chosen.
struct Preranked<'s> {
    space: &'s Space,
    /// The best one last.
    first: RefCell<Vec<Genotype>>,
}

impl Candidates for Preranked<'_> {
    type Candidate = Genotype;

    fn sample(&self, rng: &mut ChaCha8Rng) -> Genotype {
        self.first.borrow_mut().pop().unwrap_or_else(|| self.space.sample(rng))
    }

    fn mutate(&self, parent: &Genotype, rng: &mut ChaCha8Rng) -> Genotype {
        self.space.mutate(parent, rng)
    }

    fn cross(&self, left: &Genotype, right: &Genotype, rng: &mut ChaCha8Rng) -> Genotype {
        self.space.cross(left, right, rng)
    }
}

/// Random networks that a proxy likes best, if the study names one; `None` if the user stopped it.
fn first_generation(
    study: &Study<'_>,
    run: &Run<'_>,
    count: usize,
    images: &Arc<Dataset>,
) -> Result<Option<Vec<Genotype>>, Report> {
    let named = study.plan.evolve_proxy.as_deref();
    let Some(proxy) = Proxy::ALL.into_iter().find(|proxy| Some(proxy.name()) == named) else {
        return Ok(Some(Vec::new()));
    };
    let mut stream = Stream::new(run.config.seed, "evolution preranked", 0);
    let drawn: Vec<Genotype> = (0..4 * count).map(|_| run.space.sample(&mut stream)).collect();
    let order = match rank(&run.space, &drawn, proxy, images, run.config.seed, run.stop) {
        Err(ProxyBenchmarkError::Interrupted) => return Ok(None),
        order => order.map_err(failed)?,
    };
    Ok(Some(order.into_iter().take(count).rev().map(|index| drawn[index].clone()).collect()))
}

fn breed(
    study: &Study<'_>,
    run: &Run<'_>,
    seed: u64,
    images_of: &Arc<Dataset>,
) -> Result<Option<Bred>, Report> {
    let inputs = Inputs::of(run)?;
    let task = inputs.task(&run.config, &run.space, run.stop);
    let mut scorer = SupernetScorer::new(&task, study.plan.evolve_images).map_err(failed)?;
    let images = scorer.images();
    let table = run.table()?;
    let counted = limits::counted(run)?;
    let budget = study.plan.evolve.unwrap_or_default();
    study.terminal.say(&format!("      evolution: {budget} networks, {images} images each"));
    let mut bar = study.terminal.bar("evolve", budget);
    let mut done = 0;
    let mut found = Vec::new();
    let peak = limits::peak(run);
    let mut score = |genotypes: &[Genotype]| -> Result<Vec<Score>, Ended> {
        let mut scores = Vec::with_capacity(genotypes.len());
        for genotype in genotypes {
            if study.stop.load(Ordering::Relaxed) {
                return Err(Ended::Stopped);
            }
            let judged = scorer.score(genotype)?;
            let predicted = table.mean(&run.space, genotype).unwrap_or(Micros(f64::INFINITY));
            found.push((judged.accuracy, predicted));
            let mut violation = limits::excess(&limits::shares(&run.space, &counted, genotype));
            if !limits::accepts(&run.space, peak, genotype) {
                violation += 1.0;
            }
            // The loss tells apart networks that answer as many images right.
            scores.push(Score { objectives: vec![judged.cross_entropy, predicted.0], violation });
            done += 1;
            bar.set(done, budget, &format!("loss {:.3}, {predicted}", judged.cross_entropy));
        }
        Ok(scores)
    };
    let evaluator = Evaluator::new(budget, &mut score);
    let mut random = Stream::new(study.config.seed + seed, "evolution on a supernet", 0);
    let settings = Nsga2Settings {
        population: Nsga2Settings::default().population.min(budget),
        ..Nsga2Settings::default()
    };
    let Some(first) = first_generation(study, run, settings.population, images_of)? else { return Ok(None) };
    let candidates = Preranked { space: &run.space, first: RefCell::new(first) };
    let archive = match nsga2(&candidates, settings, evaluator, &mut random) {
        Ok(archive) => archive,
        Err(Ended::Stopped) => return Ok(None),
        Err(Ended::Search(error)) => return Err(failed(error)),
    };
    bar.done();
    let front = kept(&archive)
        .into_iter()
        .map(|index| {
            let (accuracy, predicted) = found[index];
            (run.space.format(&archive.entries[index].0), accuracy, predicted)
        })
        .collect();
    let evaluations = archive.entries.len();
    Ok(Some(Bred { supernet: run.directory.path.clone(), evaluations, images, front }))
}

/// Positions of the networks within all limits that no other one beats in both objectives, the fastest first.
fn kept(archive: &Archive<Genotype>) -> Vec<usize> {
    let allowed: Vec<usize> =
        (0..archive.entries.len()).filter(|&index| archive.entries[index].1.violation <= 0.0).collect();
    let points: Vec<Vec<f64>> = allowed
        .iter()
        .map(|&index| archive.entries[index].1.objectives.iter().rev().copied().collect())
        .collect();
    pareto_front(&points).into_iter().map(|index| allowed[index]).collect()
}

fn broken(path: &std::path::Path, error: &str) -> Report {
    miette::miette!(
        help = "delete it to breed the networks anew",
        "failed to read {}: {error}",
        path.display()
    )
}
