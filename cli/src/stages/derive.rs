//! Chooses the networks to train: the searched one, which meets the target, and the baselines.

use std::{fs, ops::ControlFlow};

use lathe_latency_db::{Filter, Measurement, Summary};
use lathe_runners::Runner;
use lathe_search::proxies::{ProxyBenchmarkError, rank};
use lathe_search::{
    BlockSigns, DeriveError, Event, Limit, LimitValue, Origin, Scores, Sides, Stage, StopReason,
    derive_within,
};
use lathe_spaces::{Genotype, Micros, NetworkOptions, Space, Stream};
use miette::Report;

use crate::{
    config::BaselineConfig,
    failure::failed,
    run::{Candidate, Run, StageEnd},
    run_devices::RunDevice,
    stages::{
        limits,
        rounds::{End, Kept, Taken, Told, rounds},
        search::SCORES,
    },
};

/// Random networks drawn for each that a proxy may choose from: under tight limits few keep them.
const DRAWS_PER_NETWORK: usize = 50;

/// The stage.
pub fn run(run: &mut Run<'_>) -> Result<StageEnd, Report> {
    let choice = Choice::of(run)?;
    let model = run.model_on(&run.devices()[0])?;
    let genotype = match chosen(run, &choice)? {
        Ok(genotype) => genotype,
        Err(reason) => return Ok(StageEnd::Stop(reason)),
    };
    let (name, origin) = match choice {
        Choice::Scores(_) => ("searched", Origin::Searched),
        // Evolution is the last part of a search by paths.
        Choice::Bred(..) if run.config.paths.is_some() => ("searched", Origin::Searched),
        Choice::Bred(..) => ("evolved", Origin::Evolved),
    };
    let mut candidates = vec![Candidate { name: name.into(), origin, genotype }];
    for index in 0..run.config.baselines.random {
        let genotype = run.space.sample(&mut Stream::new(run.config.seed, "baseline", index as u64));
        candidates.push(Candidate { name: format!("random-{index}"), origin: Origin::Random, genotype });
    }
    for (name, genotype) in run.space.published() {
        if run.config.baselines.published.iter().any(|wanted| wanted == name) {
            candidates.push(Candidate { name: name.into(), origin: Origin::Published, genotype });
        }
    }
    let preselected = preselected(run)?;
    let Some(preselected) = preselected else { return Ok(StageEnd::Stop(StopReason::Interrupted)) };
    let proxy = (run.config.baselines.proxy.name().to_owned(), run.config.baselines.proxy_of);
    let chosen_by = |candidate: &Candidate| preselected.contains(candidate).then(|| proxy.clone());
    candidates.extend(preselected.iter().cloned());
    for candidate in candidates {
        // Counted as papers do, before anything is folded; memory is that of what runs.
        let graph = run.space.network(&candidate.genotype, NetworkOptions::default()).map_err(failed)?;
        let deployed = run.space.deployed(&candidate.genotype).map_err(failed)?;
        let predicted = model.predict(&run.space, &candidate.genotype)?;
        let signs = BlockSigns::of(&run.space, &candidate.genotype);
        let preselected = chosen_by(&candidate);
        let event = Event::Candidate {
            preselected,
            name: candidate.name,
            origin: candidate.origin,
            genotype: run.space.format(&candidate.genotype),
            predicted: Some(predicted),
            parameters: graph.parameter_count(),
            macs: graph.macs(),
            peak_activation_bytes: deployed.peak_activation_bytes(4),
            signs: signs.clone(),
        };
        run.push(event)?;
        // What is drawn at random or published is what it is.
        if matches!(candidate.origin, Origin::Searched | Origin::Evolved) {
            for suspicion in signs.iter().filter_map(BlockSigns::suspicion) {
                run.terminal.say(&format!("      {suspicion} (docs/SEARCH.md, collapse)"));
            }
        }
    }
    Ok(StageEnd::Done)
}

/// The untrained networks that a proxy likes best, each of so many random ones whose upper bounds keep all limits;
/// `None` if the user stopped it.
fn preselected(run: &Run<'_>) -> Result<Option<Vec<Candidate>>, Report> {
    let BaselineConfig { preselected, proxy, proxy_of, .. } = run.config.baselines;
    let mut found = Vec::new();
    if preselected == 0 {
        return Ok(Some(found));
    }
    let (limits, peak) = (limits::all(run)?, limits::peak(run));
    let keeps = |genotype: &Genotype| {
        limits.iter().all(|limit| limit.upper(&run.space, genotype) <= limit.at_most)
            && limits::accepts(&run.space, peak, genotype)
    };
    for index in 0..preselected {
        let mut stream = Stream::new(run.config.seed, "preselected baseline", index as u64);
        let drawn = (0..proxy_of * DRAWS_PER_NETWORK).map(|_| run.space.sample(&mut stream));
        let drawn: Vec<Genotype> = drawn.filter(keeps).take(proxy_of).collect();
        if drawn.len() < proxy_of {
            run.terminal.say(&format!(
                "      {} of {} random networks keep the limits: {} chooses among these",
                drawn.len(),
                proxy_of * DRAWS_PER_NETWORK,
                proxy.name()
            ));
        }
        let order = match rank(&run.space, &drawn, proxy, &run.dataset()?, run.config.seed, run.stop) {
            Err(ProxyBenchmarkError::Interrupted) => return Ok(None),
            order => order.map_err(failed)?,
        };
        if let Some(&best) = order.first() {
            let name = format!("{}-{index}", proxy.name());
            found.push(Candidate { name, origin: Origin::Random, genotype: drawn[best].clone() });
        }
    }
    Ok(Some(found))
}

/// What a network is chosen by.
enum Choice {
    /// The architecture parameters of a search.
    Scores(Scores),
    /// Networks with the accuracy that a supernet's weights give them.
    Bred(Vec<(Genotype, f64)>, Sides),
}

impl Choice {
    fn of(run: &Run<'_>) -> Result<Self, Report> {
        let bred = run.directory.record.events().iter().find_map(|event| match event {
            Event::Bred { front, .. } => Some(front),
            _ => None,
        });
        if let Some(front) = bred {
            let read = |(text, accuracy, _): &(String, f64, Micros)| {
                Ok((run.space.parse(text).map_err(failed)?, *accuracy))
            };
            // A study's members breed cells for their targets, which are limits from above.
            let sides = if run.config.paths.is_some() { run.config.objective.sides } else { Sides::Upper };
            return Ok(Self::Bred(front.iter().map(read).collect::<Result<_, Report>>()?, sides));
        }
        let path = run.path(SCORES);
        let text = fs::read_to_string(&path)
            .map_err(|error| miette::miette!("failed to read {}: {error}", path.display()))?;
        let scores = serde_json::from_str(&text)
            .map_err(|error| miette::miette!("failed to read {}: {error}", path.display()))?;
        Ok(Self::Scores(scores))
    }

    /// The best network within limits.
    fn best(
        &self,
        space: &Space,
        limits: &[Limit],
        accept: &dyn Fn(&Genotype) -> bool,
    ) -> Result<Genotype, DeriveError> {
        match self {
            Self::Scores(scores) => {
                derive_within(space, scores, limits, accept).map(|derived| derived.genotype)
            }
            Self::Bred(networks, sides) => best_of(space, networks, limits, *sides, accept),
        }
    }
}

/// The most accurate of some networks whose upper bounds keep all limits; where targets pull from both sides, of those that
/// come near to them.
fn best_of(
    space: &Space,
    networks: &[(Genotype, f64)],
    limits: &[Limit],
    sides: Sides,
    accept: &dyn Fn(&Genotype) -> bool,
) -> Result<Genotype, DeriveError> {
    let worst = |genotype: &Genotype| limits::shares(space, limits, genotype).into_iter().fold(0.0, f64::max);
    let lacks = |genotype: &Genotype| limits::shortfall(&limits::shares(space, limits, genotype), sides);
    let kept = networks.iter().filter(|(genotype, _)| worst(genotype) <= 1.0 && accept(genotype));
    // Of equals the first: the front is sorted by predicted latency.
    let best = kept.min_by(|a, b| lacks(&a.0).total_cmp(&lacks(&b.0)).then(b.1.total_cmp(&a.1)));
    if let Some((genotype, _)) = best {
        return Ok(genotype.clone());
    }
    let closest = networks.iter().map(|(genotype, _)| genotype);
    let Some(closest) = closest.min_by(|a, b| worst(a).total_cmp(&worst(b))) else {
        return Err(DeriveError::Table("evolution found no network".into()));
    };
    let values = limits.iter().map(|limit| LimitValue {
        limit: limit.name.clone(),
        quantity: limit.quantity,
        at_most: limit.at_most,
        upper: limit.upper(space, closest),
    });
    // Evolution has looked at a few of the space's networks only.
    let what = format!("none of the {} evolved networks keeps the limits", networks.len());
    Err(DeriveError::Undecided { what, closest: closest.clone(), values: values.collect() })
}

/// Derives under all limits, measures on every device, tightens the limits by what was missed and derives
/// again. Of networks that all miss one, the one that misses least is kept.
fn chosen(run: &Run<'_>, choice: &Choice) -> Result<Result<Genotype, StopReason>, Report> {
    let asked = limits::all(run)?;
    let under = |at_most: &[f64]| -> Vec<Limit> {
        let limits = asked.iter().zip(at_most);
        limits.map(|(limit, &at_most)| Limit { at_most, ..limit.clone() }).collect()
    };
    let peak = limits::peak(run);
    let accept = |genotype: &Genotype| limits::accepts(&run.space, peak, genotype);
    let values: Vec<f64> = asked.iter().map(|limit| limit.at_most).collect();
    let kept = rounds(
        &values,
        run.config.objective.derive_rounds,
        &mut |at_most| choice.best(&run.space, &under(at_most), &accept),
        &mut |round, network| taken(run, &asked, round, network),
    )?;
    let Kept { network, round, end } = match kept {
        Ok(kept) => kept,
        Err(error) => return limits::unmet(&run.space, error).map(Err),
    };
    match end {
        // Each device's failure was told.
        End::Met | End::Unmeasured => {}
        End::Missed if run.config.objective.derive_rounds == 0 => {}
        End::Missed => {
            run.terminal.say(&format!("      going on with derived network {round}, which misses least"));
        }
        End::NoFurther(error) => run.terminal.say(&format!(
            "      no network was found under the tighter limits ({}); going on with derived network {round}, which \
             misses least",
            limits::reason(&error)
        )),
    }
    Ok(Ok(network))
}

/// What a derived network takes under every limit by measurement; `None` if a device failed.
fn taken(run: &Run<'_>, asked: &[Limit], round: usize, network: &Genotype) -> Told {
    let mut medians = Vec::new();
    for device in run.devices() {
        if run.target_on(&device).is_none() {
            continue;
        }
        let Some(measured) = measure(run, &device, &format!("derived-{round}"), network)? else {
            // The last measurement, of all candidates, will tell.
            return Ok(None);
        };
        medians.push((device, measured.median));
    }
    let one = |limit: &Limit| {
        let measured = limits::measured(run, limit, &medians)?;
        let show = |value| limit.quantity.show(value);
        let verdict = if measured <= limit.at_most { "meets the target" } else { "misses it" };
        run.terminal.say(&format!(
            "      derived network {round}, {}: predicted {}, {} {}: {verdict}",
            limit.name,
            show(limit.mean(&run.space, network)),
            run.provenance(),
            show(measured),
        ));
        Some(Taken { measured, upper: limit.upper(&run.space, network) })
    };
    Ok(Some(asked.iter().map(one).collect()))
}

/// Measured latency of a network: from this run's rows if it was timed before, else now. `None` if
/// the device failed.
fn measure(
    run: &Run<'_>,
    device: &RunDevice,
    label: &str,
    genotype: &Genotype,
) -> Result<Option<Summary>, Report> {
    let workload = run.network(label, genotype)?;
    let mut runner = run.runner_on(device)?;
    let filter = Filter {
        device: Some(runner.device().fingerprint()),
        workloads: Some([workload.id()].into()),
        campaign: Some(run.campaign(Stage::Derive)),
        ..Filter::default()
    };
    let mut rows = run.store()?.load(&filter).map_err(failed)?;
    rows.retain(Measurement::usable);
    if rows.is_empty() {
        let job = run.job(Stage::Derive, run.config.measure.verify);
        let result = runner.run(&[workload], &job, &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        });
        if let Err(error) = result {
            // The last measurement, of all candidates, will tell.
            let Some(message) = error.device_failure() else { return Err(failed(error)) };
            run.terminal
                .say(&format!("      {label}: the device failed ({message}); going on by prediction"));
        }
        run.keep(Stage::Derive, &rows)?;
    }
    Ok(rows.iter().filter(|row| row.usable()).find_map(Measurement::summary))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_spaces::{DartsSkeleton, Stem};

    use super::*;

    fn space() -> Space {
        Space::darts(DartsSkeleton { stem: Stem::Cifar, width: 8, layers: 3, resolution: 8, classes: 10 })
    }

    #[test]
    fn a_target_from_both_sides_prefers_networks_near_to_it_and_a_tighter_one_has_smaller_ones_left() {
        let space = space();
        let free = Limit::macs(&space, 1.0).unwrap();
        let mut drawn: Vec<Genotype> =
            (0..40).map(|index| space.sample(&mut Stream::new(1, "test derive", index))).collect();
        let macs = |genotype: &Genotype| free.upper(&space, genotype);
        drawn.sort_by(|a, b| macs(a).total_cmp(&macs(b)));
        let (small, large) = (drawn[0].clone(), drawn[39].clone());
        assert!(macs(&small) < 0.8 * macs(&large), "{} beside {}", macs(&small), macs(&large));
        let networks = [(small.clone(), 0.9), (large.clone(), 0.5), (large.clone(), 0.4)];
        let best = |at_most: f64, sides| {
            let limits = [Limit { at_most, ..free.clone() }];
            best_of(&space, &networks, &limits, sides, &|_| true)
        };
        let enough = macs(&large) * 1.05;
        assert_eq!(best(enough, Sides::Upper).unwrap(), small);
        assert_eq!(best(enough, Sides::Both).unwrap(), large);
        // The large one was slower than predicted.
        assert_eq!(best(macs(&large) * 0.95, Sides::Both).unwrap(), small);
        // Far above both: the nearest.
        assert_eq!(best(macs(&large) * 3.0, Sides::Both).unwrap(), large);
        assert!(matches!(best(1.0, Sides::Both), Err(DeriveError::Undecided { .. })));
    }

    #[test]
    fn of_equals_the_first_is_taken() {
        let space = space();
        let [first, second] = [0, 1].map(|index| space.sample(&mut Stream::new(2, "test derive", index)));
        assert_ne!(first, second);
        let networks = [(first.clone(), 0.5), (second, 0.5)];
        assert_eq!(best_of(&space, &networks, &[], Sides::Both, &|_| true).unwrap(), first);
    }
}
