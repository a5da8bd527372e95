//! What a run's network is held to, quantity by quantity.

use lathe_latency_db::predictor::Encoding;
use lathe_search::{
    DeriveError, Event, Extremes, Limit, LimitRange, Quantity, Scores, Sides, StopReason, WholeCosts,
    derive_within,
};
use lathe_spaces::{Genotype, Micros, Space};
use miette::Report;

use crate::{
    config::{Combine, Counted},
    failure::failed,
    latency_model::is_additive,
    run::{Run, StageEnd},
    run_devices::RunDevice,
};

/// Bytes of a value in the peak of the activations: 32-bit floats, as everywhere in the record.
const BYTES: u64 = 4;

/// The limits on what is counted: known before anything is measured.
pub fn counted(run: &Run<'_>) -> Result<Vec<Limit>, Report> {
    let objective = &run.config.objective;
    let mut limits = Vec::new();
    if !is_additive(&run.space) {
        let quantities = [
            (Counted::Macs, "macs", Quantity::Macs, WholeCosts::Macs),
            (Counted::Parameters, "parameters", Quantity::Parameters, WholeCosts::Parameters),
        ];
        for (counted, name, quantity, costs) in quantities {
            if let Some(at_most) = objective.at_most(counted) {
                let ends = Extremes::of(&run.space, &costs, run.config.seed).map_err(failed)?;
                limits.push(Limit::whole(name, quantity, costs, ends, at_most));
            }
        }
        return Ok(limits);
    }
    if let Some(at_most) = objective.at_most(Counted::Macs) {
        limits.push(Limit::macs(&run.space, at_most).map_err(failed)?);
    }
    if let Some(at_most) = objective.at_most(Counted::Parameters) {
        limits.push(Limit::parameters(&run.space, at_most).map_err(failed)?);
    }
    Ok(limits)
}

/// All limits that add up over the parts of a network: those of the latency first.
pub fn all(run: &Run<'_>) -> Result<Vec<Limit>, Report> {
    let mut latencies = Vec::new();
    for device in run.devices() {
        if let Some(limit) = run.latency_limit(&device)? {
            latencies.push((limit, device.weight));
        }
    }
    let mut limits: Vec<Limit> = match run.config.objective.combine {
        Combine::Worst => latencies.into_iter().map(|(limit, _)| limit).collect(),
        Combine::Weighted => {
            alike(run)?;
            Limit::weighted(&latencies).into_iter().collect()
        }
    };
    limits.extend(counted(run)?);
    Ok(limits)
}

/// The first device's target, and the limits beside it, as the search takes them.
pub fn of_search(run: &Run<'_>) -> Result<(Option<Micros>, Vec<Limit>), Report> {
    let mut limits = all(run)?;
    let target = match run.config.objective.combine {
        Combine::Worst => run.target(),
        Combine::Weighted => None,
    };
    if target.is_some() {
        // The search makes it from the target and the table.
        limits.remove(0);
    }
    Ok((target, limits))
}

/// Refuses one number made of latencies that mean different things.
fn alike(run: &Run<'_>) -> Result<(), Report> {
    let devices = run.devices();
    let other = devices.iter().find(|device| run.provenance_on(device) != run.provenance());
    match other.filter(|_| !run.config.objective.mix_provenances) {
        None => Ok(()),
        Some(other) => Err(miette::miette!(
            help = "hold each device's target on its own (`combine = \"worst\"`), or set `objective.mix_provenances`",
            "failed to weigh latencies that are {} with those of {}, which are {}",
            run.provenance(),
            other.name,
            run.provenance_on(other)
        )),
    }
}

/// The devices with a target, and what a microsecond there counts in the weighted mean of upper bound / target.
pub fn weights(run: &Run<'_>) -> Result<Vec<(RunDevice, f64)>, Report> {
    let mut found = Vec::new();
    for device in run.devices() {
        if let Some(limit) = run.latency_limit(&device)? {
            let share = device.weight * limit.upper_factor / limit.at_most;
            found.push((device, share));
        }
    }
    let total: f64 = found.iter().map(|(device, _)| device.weight).sum();
    Ok(found.into_iter().map(|(device, share)| (device, share / total)).collect())
}

/// What a network came to under a limit by measurement; `medians`: what it takes on every device with a target.
/// `None` for what is not measured.
pub fn measured(run: &Run<'_>, limit: &Limit, medians: &[(RunDevice, Micros)]) -> Option<f64> {
    match limit.quantity {
        Quantity::Latency => {
            let own = medians.iter().find(|(device, _)| device.limit_name() == limit.name);
            own.map(|(_, median)| median.0)
        }
        Quantity::WeightedLatency => {
            let part = |(device, median): &(RunDevice, Micros)| {
                Some((device.weight, *median / run.target_on(device)?))
            };
            Some(weighted_mean(&medians.iter().map(part).collect::<Option<Vec<_>>>()?))
        }
        _ => None,
    }
}

/// Σ weight · latency / target, over Σ weight.
fn weighted_mean(parts: &[(f64, f64)]) -> f64 {
    let total: f64 = parts.iter().map(|(weight, _)| weight).sum();
    parts.iter().map(|(weight, ratio)| weight * ratio).sum::<f64>() / total
}

/// Whether a network computes something, and its peak of activations is within its limit. Neither is a sum over
/// the parts, so the search has no term for it; the derivation asks it of every network that it would give.
pub fn accepts(space: &Space, peak: Option<f64>, genotype: &Genotype) -> bool {
    connected(space, genotype)
        && peak.is_none_or(|most| {
            let graph = space.deployed(genotype);
            graph.is_ok_and(|graph| graph.peak_activation_bytes(BYTES) as f64 <= most)
        })
}

/// Whether input and output are connected. In NAS-Bench-201 `none` may be deployed, on every path too.
pub fn connected(space: &Space, genotype: &Genotype) -> bool {
    let Ok(encoding) = Encoding::of(space) else { return true };
    encoding.encode(genotype).is_ok_and(|codes| encoding.connected(&codes))
}

/// The limit on the peak of activations, in bytes.
pub fn peak(run: &Run<'_>) -> Option<f64> {
    run.config.objective.at_most(Counted::PeakMemory)
}

/// Tells what the space reaches in these limits, and in operations and parameters in any case.
pub fn ranges(run: &Run<'_>, limits: &[Limit]) -> Result<Vec<LimitRange>, Report> {
    let of = |limit: &Limit, at_most: Option<f64>| LimitRange {
        limit: limit.name.clone(),
        quantity: limit.quantity,
        reachable: limit.reachable(&run.space),
        upper_factor: limit.upper_factor,
        at_most,
    };
    let mut ranges: Vec<LimitRange> = limits.iter().map(|limit| of(limit, Some(limit.at_most))).collect();
    if !is_additive(&run.space) {
        return Ok(ranges);
    }
    for free in [Limit::macs(&run.space, 0.0), Limit::parameters(&run.space, 0.0)] {
        let free = free.map_err(failed)?;
        if limits.iter().all(|limit| limit.quantity != free.quantity) {
            ranges.push(of(&free, None));
        }
    }
    Ok(ranges)
}

/// Ends the run if no network of the space keeps these limits; a space without preferences stands for what
/// the search will find. Where that can't be told, the run goes on: the search may prefer networks that keep them.
pub fn feasible(run: &Run<'_>, limits: &[Limit]) -> Result<StageEnd, Report> {
    let objective = &run.config.objective;
    if objective.sides == Sides::Both
        && let Some(reason) = limits.iter().find_map(|limit| above_reach(&run.space, limit))
    {
        return Ok(StageEnd::Stop(reason));
    }
    let peak = peak(run);
    let accept = |genotype: &Genotype| accepts(&run.space, peak, genotype);
    if !is_additive(&run.space) {
        return Ok(match limits.iter().find_map(|limit| beyond(run, limit)) {
            Some(reason) => StageEnd::Stop(reason),
            None => StageEnd::Done,
        });
    }
    match first(&run.space, limits, &accept)? {
        First::Found => Ok(StageEnd::Done),
        First::Undecided(what) => {
            run.terminal
                .say(&format!("      {what}; going on: the search may find one that keeps all limits"));
            Ok(StageEnd::Done)
        }
        First::Nothing(reason) => Ok(StageEnd::Stop(reason)),
    }
}

/// What can be said of limits before anything is searched.
#[derive(Debug, PartialEq)]
enum First {
    /// Some network keeps them.
    Found,
    /// Nobody knows; in words.
    Undecided(String),
    /// No network keeps them.
    Nothing(StopReason),
}

fn first(space: &Space, limits: &[Limit], accept: &dyn Fn(&Genotype) -> bool) -> Result<First, Report> {
    match derive_within(space, &Scores::uniform(space), limits, accept) {
        Ok(_) => Ok(First::Found),
        Err(DeriveError::Undecided { what, .. }) => Ok(First::Undecided(what)),
        Err(error) => unmet(space, error).map(First::Nothing),
    }
}

/// The end of a run with a limit that pulls from both sides and lies above every network.
fn above_reach(space: &Space, limit: &Limit) -> Option<StopReason> {
    let reachable = limit.reachable(space).map(|mean| mean * limit.upper_factor);
    (limit.at_most > reachable[1]).then(|| StopReason::LimitAboveReach {
        limit: limit.name.clone(),
        quantity: limit.quantity,
        at_most: limit.at_most,
        reachable,
    })
}

/// The end of a run of stages with a limit that not even the least network keeps.
fn beyond(run: &Run<'_>, limit: &Limit) -> Option<StopReason> {
    let least = &limit.whole.as_ref()?.least;
    let value = limit.value(&run.space, least);
    (value.upper > value.at_most).then(|| StopReason::LimitsInfeasible {
        what: format!("no network that was found keeps the limit on {}", limit.name),
        closest: run.space.format(least),
        values: vec![value],
    })
}

/// Share of a limit that a network comes up to where targets pull from both sides.
const NEAR: f64 = 0.9;

/// Upper bound / limit of a network, for every limit.
pub fn shares(space: &Space, limits: &[Limit], genotype: &Genotype) -> Vec<f64> {
    limits.iter().map(|limit| limit.upper(space, genotype) / limit.at_most).collect()
}

/// By how much limits are exceeded, as shares of them.
pub fn excess(shares: &[f64]) -> f64 {
    shares.iter().map(|share| (share - 1.0).max(0.0)).sum()
}

/// What a network of such shares lacks, where targets pull from both sides, to 90 % of the limit that it comes nearest to:
/// a second limit may bind first.
pub fn shortfall(shares: &[f64], sides: Sides) -> f64 {
    match (sides, shares.iter().copied().reduce(f64::max)) {
        (Sides::Both, Some(nearest)) => (NEAR - nearest).max(0.0),
        _ => 0.0,
    }
}

/// Why a derivation found no network, without what is printed beside it elsewhere.
pub fn reason(error: &DeriveError) -> String {
    match error {
        DeriveError::Limits { what, .. } | DeriveError::Undecided { what, .. } => what.clone(),
        other => other.to_string(),
    }
}

/// The end of a run for whose limits no network was found.
pub fn unmet(space: &Space, error: DeriveError) -> Result<StopReason, Report> {
    match error {
        DeriveError::Limits { what, closest, values } => {
            Ok(StopReason::LimitsInfeasible { what, closest: space.format(&closest), values })
        }
        DeriveError::Undecided { what, closest, values } => {
            Ok(StopReason::LimitsUndecided { what, closest: space.format(&closest), values })
        }
        other => Err(failed(other)),
    }
}

/// Prints the ranges and records them.
pub fn tell(run: &mut Run<'_>, limits: &[Limit]) -> Result<(), Report> {
    let ranges = ranges(run, limits)?;
    for range in &ranges {
        let [least, most] = range.reachable.map(|value| range.quantity.show(value));
        let asked = range.at_most.map(|most| format!("; limit: {}", range.quantity.show(most)));
        let asked = asked.unwrap_or_default();
        run.terminal.say(&format!("      {}: {least} to {most}{asked}", range.limit));
    }
    if let Some(most) = peak(run) {
        // No sum over the parts, so that its range is known of the random networks only.
        let mut peaks = Vec::new();
        for (_, genotype) in run.fit_networks() {
            let graph = run.space.deployed(&genotype).map_err(failed)?;
            peaks.push(graph.peak_activation_bytes(BYTES));
        }
        let (least, greatest) = (peaks.iter().min(), peaks.iter().max());
        if let Some((least, greatest)) = least.zip(greatest) {
            run.terminal.say(&format!(
                "      peak memory: {least} to {greatest} bytes of the random networks; limit: {most} bytes"
            ));
        }
    }
    run.push(Event::Limits { limits: ranges })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::float_cmp, reason = "tests")]
mod tests {
    use lathe_spaces::{DartsSkeleton, Stem, Stream};
    use rand::RngExt as _;

    use super::*;
    use crate::stages::rounds::{End, Taken, rounds};

    fn space() -> Space {
        Space::darts(DartsSkeleton { stem: Stem::Cifar, width: 8, layers: 3, resolution: 8, classes: 10 })
    }

    /// A limit on multiply-accumulates at a share of the reachable range.
    fn macs(space: &Space, share: f64) -> Limit {
        let limit = Limit::macs(space, 0.0).unwrap();
        let [least, most] = limit.reachable(space);
        Limit { at_most: least + share * (most - least), ..limit }
    }

    fn peak_of(space: &Space, genotype: &Genotype) -> u64 {
        space.deployed(genotype).unwrap().peak_activation_bytes(BYTES)
    }

    #[test]
    fn a_target_from_both_sides_is_to_be_come_near_to() {
        for (shares, lacks) in [
            (&[0.5][..], 0.4),
            (&[0.95], 0.0),
            (&[1.25], 0.0),
            (&[0.2, 0.9], 0.0),
            (&[0.2, 0.8], 0.1),
            (&[], 0.0),
        ] {
            assert!((shortfall(shares, Sides::Both) - lacks).abs() < 1e-12, "{shares:?}");
            assert!(shortfall(shares, Sides::Upper).abs() < 1e-12, "{shares:?}");
        }
        for (shares, above) in [(&[0.5][..], 0.0), (&[1.25], 0.25), (&[1.5, 1.25, 0.1], 0.75), (&[], 0.0)] {
            assert!((excess(shares) - above).abs() < 1e-12, "{shares:?}");
        }
    }

    #[test]
    fn limits_that_nobody_can_decide_on_stop_nothing_before_the_search() {
        let space = space();
        let limits = [macs(&space, 0.5)];
        assert_eq!(first(&space, &limits, &|_| true).unwrap(), First::Found);
        let open = first(&space, &limits, &|_| false).unwrap();
        assert!(matches!(&open, First::Undecided(what) if what.contains("not looked at")), "{open:?}");
        let nothing = first(&space, &[macs(&space, -0.1)], &|_| true).unwrap();
        assert!(matches!(nothing, First::Nothing(StopReason::LimitsInfeasible { .. })), "{nothing:?}");
    }

    #[test]
    fn a_target_above_every_network_is_told_with_what_the_space_reaches() {
        let space = space();
        assert_eq!(above_reach(&space, &macs(&space, 1.0)), None);
        let mut high = macs(&space, 1.01);
        let Some(StopReason::LimitAboveReach { limit, at_most, reachable, .. }) = above_reach(&space, &high)
        else {
            panic!("it is above every network")
        };
        assert_eq!((limit.as_str(), at_most, reachable), ("macs", high.at_most, high.reachable(&space)));
        // What counts is the bound, which lies above the prediction.
        high.upper_factor = 1.1;
        assert_eq!(above_reach(&space, &high), None);
    }

    #[test]
    fn a_peak_of_memory_is_kept_where_the_preferred_network_breaks_it() {
        let space = space();
        let mut forced = 0;
        for seed in 0..6 {
            let mut random = Stream::new(seed, "test peak", 0);
            let mut scores = Scores::uniform(&space);
            for logit in scores.alpha.iter_mut().flatten().chain(&mut scores.beta) {
                *logit = random.random_range(-2.0..=2.0);
            }
            let free = derive_within(&space, &scores, &[], &|_| true).unwrap();
            let at_most = peak_of(&space, &free.genotype) as f64 - 1.0;
            let accept = |genotype: &Genotype| accepts(&space, Some(at_most), genotype);
            assert!(!accept(&free.genotype));
            match derive_within(&space, &scores, &[], &accept) {
                Ok(held) => {
                    forced += 1;
                    assert!(peak_of(&space, &held.genotype) as f64 <= at_most);
                    assert!(held.constrained && held.log_score < free.log_score);
                }
                // A peak that all of the best ten thousand have may be that of the space.
                Err(error) => assert!(matches!(error, DeriveError::Undecided { .. }), "{error}"),
            }
        }
        assert!(forced > 0, "no limit on the peak was ever kept by another network");
    }

    #[test]
    fn a_weighted_target_is_judged_by_the_weighted_mean_of_the_ratios() {
        // Weights 1 and 3: 1.5 times one target is made up for by 0.8 times the other.
        let mean = weighted_mean(&[(1.0, 1.5), (3.0, 0.8)]);
        assert!((mean - 0.975).abs() < 1e-12, "{mean}");
        let parts = [(macs(&space(), 0.3), 1.0), (macs(&space(), 0.6), 3.0)];
        let limit = Limit::weighted(&parts).unwrap();
        let genotype = space().sample(&mut Stream::new(3, "test weighted", 0));
        // What is exactly as predicted is exactly at its bound.
        let ratios: Vec<(f64, f64)> = parts
            .iter()
            .map(|(part, weight)| (*weight, part.upper(&space(), &genotype) / part.at_most))
            .collect();
        assert!((limit.upper(&space(), &genotype) - weighted_mean(&ratios)).abs() < 1e-12);
    }

    #[test]
    fn a_weighted_target_that_is_missed_is_tightened_as_one() {
        let space = space();
        let parts = [(macs(&space, 0.5), 1.0), (macs(&space, 0.8), 3.0)];
        let limit = Limit::weighted(&parts).unwrap();
        // Scores for the most expensive choice, so that the limit binds and lower ones can be reached.
        let mut scores = Scores::uniform(&space);
        for (slot, alpha) in space.slots().into_iter().zip(&mut scores.alpha) {
            let choices = &space.blocks[slot.block].nodes[slot.node].edges[slot.edge].choices;
            for (choice, alpha) in choices.iter().zip(alpha) {
                *alpha = if choice == "sep_conv_5x5" { 3.0 } else { 0.0 };
            }
        }
        let (mut asked, mut upper) = (Vec::new(), Vec::new());
        let kept = rounds(
            &[limit.at_most],
            1,
            &mut |at_most| {
                asked.push(at_most[0]);
                let limit = Limit { at_most: at_most[0], ..limit.clone() };
                derive_within(&space, &scores, &[limit], &|_| true).map(|derived| derived.genotype)
            },
            &mut |round, network| {
                // The second device is slower than predicted at first.
                let slower = if round == 0 {
                    1.5 / (parts[1].0.upper(&space, network) / parts[1].0.at_most)
                } else {
                    1.0
                };
                let ratio = |(index, (part, weight)): (usize, &(Limit, f64))| {
                    let factor = if index == 1 { slower } else { 1.0 };
                    (*weight, factor * part.upper(&space, network) / part.at_most)
                };
                let measured = weighted_mean(&parts.iter().enumerate().map(ratio).collect::<Vec<_>>());
                upper.push((limit.upper(&space, network), measured));
                Ok(Some(vec![Some(Taken { measured, upper: limit.upper(&space, network) })]))
            },
        );
        assert_eq!(kept.unwrap().unwrap().end, End::Met);
        assert!(upper[0].1 > 1.0 && upper[1].1 <= 1.0, "{upper:?}");
        assert_eq!(asked, [1.0, upper[0].0.min(1.0) * (1.0 / upper[0].1)]);
    }
}
