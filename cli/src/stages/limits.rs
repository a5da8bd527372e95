//! What a run's network is held to, quantity by quantity.

use lathe_search::{DeriveError, Event, Limit, LimitRange, Scores, StopReason, derive_within};
use lathe_spaces::{Genotype, NetworkOptions, Space};
use miette::Report;

use crate::{
    config::Counted,
    failure::failed,
    run::{Run, StageEnd},
};

/// Bytes of a value in the peak of the activations: 32-bit floats, as everywhere in the record.
const BYTES: u64 = 4;

/// The limits on what is counted: known before anything is measured.
pub fn counted(run: &Run<'_>) -> Result<Vec<Limit>, Report> {
    let objective = &run.config.objective;
    let mut limits = Vec::new();
    if let Some(at_most) = objective.at_most(Counted::Macs) {
        limits.push(Limit::macs(&run.space, at_most).map_err(failed)?);
    }
    if let Some(at_most) = objective.at_most(Counted::Parameters) {
        limits.push(Limit::parameters(&run.space, at_most).map_err(failed)?);
    }
    Ok(limits)
}

/// All limits that add up over the parts of a network: the target first, if there is one.
pub fn all(run: &Run<'_>) -> Result<Vec<Limit>, Report> {
    let mut limits = Vec::new();
    if let Some(target) = run.target() {
        limits.push(Limit::latency("latency", &run.space, &run.table()?, target).map_err(failed)?);
    }
    limits.extend(counted(run)?);
    Ok(limits)
}

/// Whether a network's peak of activations is within its limit. It is no sum over the parts, so the search
/// has no term for it; the derivation asks it of every network that it would give.
pub fn accepts(space: &Space, peak: Option<f64>, genotype: &Genotype) -> bool {
    peak.is_none_or(|most| {
        let graph = space.network(genotype, NetworkOptions::default());
        graph.is_ok_and(|graph| graph.peak_activation_bytes(BYTES) as f64 <= most)
    })
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
    for free in [Limit::macs(&run.space, 0.0), Limit::parameters(&run.space, 0.0)] {
        let free = free.map_err(failed)?;
        if limits.iter().all(|limit| limit.quantity != free.quantity) {
            ranges.push(of(&free, None));
        }
    }
    Ok(ranges)
}

/// Ends the run if no network of the space keeps these limits; a space without preferences stands for what
/// the search will find.
pub fn feasible(run: &Run<'_>, limits: &[Limit]) -> Result<StageEnd, Report> {
    let peak = peak(run);
    let accept = |genotype: &Genotype| accepts(&run.space, peak, genotype);
    let uniform = Scores::uniform(&run.space);
    match derive_within(&run.space, &uniform, limits, &accept) {
        Ok(_) => Ok(StageEnd::Done),
        Err(error) => infeasible(run, error).map(StageEnd::Stop),
    }
}

/// The end of a run whose limits no network keeps.
pub fn infeasible(run: &Run<'_>, error: DeriveError) -> Result<StopReason, Report> {
    match error {
        DeriveError::Limits { what, closest, values } => {
            Ok(StopReason::LimitsInfeasible { what, closest: run.space.format(&closest), values })
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
    run.push(Event::Limits { limits: ranges })
}
