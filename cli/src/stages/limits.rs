//! What a run's network is held to, quantity by quantity.

use lathe_latency_db::predictor::Encoding;
use lathe_search::{
    DeriveError, Event, Extremes, Limit, LimitRange, Quantity, Scores, StopReason, WholeCosts, derive_within,
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
            let ratio = |(device, median): &(RunDevice, Micros)| {
                Some(device.weight * (*median / run.target_on(device)?))
            };
            let total: f64 = medians.iter().map(|(device, _)| device.weight).sum();
            Some(medians.iter().map(ratio).sum::<Option<f64>>()? / total)
        }
        _ => None,
    }
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
/// the search will find.
pub fn feasible(run: &Run<'_>, limits: &[Limit]) -> Result<StageEnd, Report> {
    let peak = peak(run);
    let accept = |genotype: &Genotype| accepts(&run.space, peak, genotype);
    if !is_additive(&run.space) {
        return Ok(match limits.iter().find_map(|limit| beyond(run, limit)) {
            Some(reason) => StageEnd::Stop(reason),
            None => StageEnd::Done,
        });
    }
    let uniform = Scores::uniform(&run.space);
    match derive_within(&run.space, &uniform, limits, &accept) {
        Ok(_) => Ok(StageEnd::Done),
        Err(error) => infeasible(run, error).map(StageEnd::Stop),
    }
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
