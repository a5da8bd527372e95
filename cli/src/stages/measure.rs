//! Times the space's operators and some whole networks on the device.

use std::{collections::BTreeSet, ops::ControlFlow, sync::atomic::Ordering};

use lathe_latency_db::{Filter, Journal, Measurement, Outcome, Provenance};
use lathe_runners::{Runner, RunnerError, noise};
use lathe_search::{Event, Stage, StopReason};
use lathe_spaces::{Genotype, Precision, Space, Workload, WorkloadId};
use miette::Report;

use crate::{
    campaign::distinct,
    failure::failed,
    latency_model::is_additive,
    run::{Run, StageEnd, network},
    run_devices::RunDevice,
    stages::limits,
};

/// Stem of the file with rows of a campaign that isn't in the database yet.
const JOURNAL: &str = "measure";
/// Failures in a row after which the device counts as dead.
const DEAD_AFTER: usize = 5;

/// Everything that this run wants timed, without repeats.
pub fn plan(run: &Run<'_>) -> Result<Vec<Workload>, Report> {
    parts_and_networks(&run.space, &run.fit_networks(), run.config.measure.precision)
}

/// The parts of a space, where they add up, and some of its networks, without repeats.
pub fn parts_and_networks(
    space: &Space,
    networks: &[(String, Genotype)],
    precision: Precision,
) -> Result<Vec<Workload>, Report> {
    // Of stages whole networks say more than blocks by themselves, whose costs do not add up.
    let parts = if is_additive(space) { space.workloads().map_err(failed)? } else { Vec::new() };
    let mut workloads: Vec<Workload> = parts.into_iter().map(|workload| workload.at(precision)).collect();
    for (label, genotype) in networks {
        workloads.push(network(space, label, genotype, precision)?);
    }
    Ok(distinct(workloads))
}

/// Workloads that this run need not time: those it has, and those the database has if they may be
/// reused.
pub fn known(run: &Run<'_>, fingerprint: &str) -> Result<BTreeSet<WorkloadId>, Report> {
    let store = run.store()?;
    if run.config.measure.reuse {
        return store.measured(fingerprint).map_err(failed);
    }
    let own =
        Filter { campaign: Some(run.measured_as()), device: Some(fingerprint.into()), ..Filter::default() };
    let rows = store.load(&own).map_err(failed)?;
    Ok(rows.into_iter().filter(Measurement::usable).map(|row| row.workload).collect())
}

/// The stage.
pub fn run(run: &mut Run<'_>) -> Result<StageEnd, Report> {
    // What is counted needs no device: an impossible limit is refused at once.
    let counted = limits::feasible(run, &limits::counted(run)?)?;
    if counted != StageEnd::Done {
        return Ok(counted);
    }
    for device in run.devices() {
        let end = on(run, &device)?;
        if end != StageEnd::Done {
            return Ok(end);
        }
    }
    Ok(StageEnd::Done)
}

/// Everything on one device.
fn on(run: &mut Run<'_>, device: &RunDevice) -> Result<StageEnd, Report> {
    let mut runner = run.runner_on(device)?;
    if device.index > 0 {
        run.terminal.say(&format!("      on {}", device.name));
    }
    let workloads = plan(run)?;
    let tested = test_noise(run, device, &mut runner, &workloads)?;
    if tested != StageEnd::Done {
        return Ok(tested);
    }

    run.store()?.remember(&workloads).map_err(failed)?;
    let (mut journal, rows) = Journal::open(&run.path(&device.file(JOURNAL, "jsonl"))).map_err(failed)?;
    let mut done = known(run, &runner.device().fingerprint())?;
    done.extend(rows.iter().filter(|row| row.usable()).map(|row| row.workload.clone()));
    let missing: Vec<Workload> =
        workloads.iter().filter(|workload| !done.contains(&workload.id())).cloned().collect();
    if !missing.is_empty() {
        let reused = workloads.len() - missing.len();
        run.terminal.say(&format!("      {} workloads to time, {reused} known already", missing.len()));
    }
    let (rows, end) = time(run, &mut runner, &mut journal, rows, &missing)?;
    if end == StageEnd::Stop(StopReason::Interrupted) {
        // The journal keeps the rows; the database gets them when the campaign is whole.
        return Ok(end);
    }
    run.keep(Stage::Measure, &rows)?;
    journal.remove().map_err(failed)?;
    Ok(end)
}

/// The A/A test, once a run: how small a difference does this device tell apart?
fn test_noise(
    run: &mut Run<'_>,
    of: &RunDevice,
    runner: &mut impl Runner,
    workloads: &[Workload],
) -> Result<StageEnd, Report> {
    if run.probed(of).is_some() {
        return Ok(StageEnd::Done);
    }
    // An estimate is the same each time: there is no noise to be found.
    let estimated = runner.provenance() == Provenance::CompilerEstimate;
    let pairs = if estimated { 0 } else { run.config.measure.noise_pairs };
    let mut smallest = None;
    if let Some(workload) = workloads.last().filter(|_| pairs > 0) {
        let protocol = run.config.measure.protocol;
        let mut bar = run.terminal.bar("A/A test", pairs);
        let tested = noise(runner, workload, &protocol, pairs, run.config.seed, &mut |done| {
            bar.set(done, pairs, "");
            if run.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.done();
        match tested {
            Ok(Some(noise)) => smallest = Some(noise.smallest_difference),
            Ok(None) => return Ok(StageEnd::Stop(StopReason::Interrupted)),
            Err(RunnerError::Noise(message)) => {
                return Ok(StageEnd::Stop(StopReason::DeviceFailed { message }));
            }
            Err(error) => {
                return match error.device_failure() {
                    Some(message) => Ok(StageEnd::Stop(StopReason::DeviceFailed { message })),
                    None => Err(failed(error)),
                };
            }
        }
    }
    if let Some(difference) = smallest {
        run.terminal.say(&format!(
            "      A/A test: differences below {:.1} % can't be told apart on {}",
            difference * 100.0,
            runner.device().name,
        ));
    }
    let (device, provenance, noise) = (runner.device().clone(), runner.provenance(), smallest);
    run.push(match of.index {
        0 => Event::Device { device, provenance, noise },
        _ => Event::OtherDevice { name: of.name.clone(), device, provenance, noise },
    })?;
    Ok(StageEnd::Done)
}

fn time(
    run: &Run<'_>,
    runner: &mut impl Runner,
    journal: &mut Journal,
    mut rows: Vec<Measurement>,
    missing: &[Workload],
) -> Result<(Vec<Measurement>, StageEnd), Report> {
    let mut bar = run.terminal.bar("measure", missing.len());
    let mut failure = None;
    let mut dead = 0;
    let mut count = 0;
    let result = runner.run(missing, &run.job(Stage::Measure, run.config.measure.protocol), &mut |row| {
        count += 1;
        bar.set(count, missing.len(), &row.label);
        if row.outcome == Outcome::Ok {
            dead = 0;
        } else {
            dead += usize::from(matches!(row.outcome, Outcome::Crash | Outcome::Timeout));
            bar.say(&format!(
                "      {}: {} ({})",
                row.label,
                row.outcome,
                row.error.as_deref().unwrap_or("no message")
            ));
        }
        if let Err(error) = journal.push(&row) {
            failure = Some(error);
            return ControlFlow::Break(());
        }
        rows.push(row);
        if dead >= DEAD_AFTER || run.stop.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    bar.done();
    if let Some(error) = failure {
        return Err(failed(error));
    }
    let lost = match result {
        Ok(()) => None,
        Err(error) => Some(error.device_failure().ok_or_else(|| failed(error))?),
    };
    let end = if let Some(message) = lost {
        StageEnd::Stop(StopReason::DeviceFailed { message })
    } else if run.stop.load(Ordering::Relaxed) {
        StageEnd::Stop(StopReason::Interrupted)
    } else if dead >= DEAD_AFTER {
        let last = rows.last().and_then(|row| row.error.clone()).unwrap_or_default();
        let message = format!("{dead} workloads in a row failed; the last said: {last}");
        StageEnd::Stop(StopReason::DeviceFailed { message })
    } else {
        StageEnd::Done
    };
    Ok((rows, end))
}
