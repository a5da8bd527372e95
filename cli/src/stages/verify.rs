//! Runs every exported file with the device's engine: same outputs as libtorch, and how fast.

use std::{collections::BTreeMap, ops::ControlFlow, sync::atomic::Ordering};

use lathe_latency_db::{Filter, Measurement, Provenance, Summary};
use lathe_runners::{Job, Runner};
use lathe_search::{Augmentation, Event, Loader, Origin, Split, Stage, StopReason, logits};
use lathe_spaces::{Graph, Micros, NetworkOptions, Shape, Weights, Workload};
use miette::Report;

use crate::{
    devices::DeviceRunner,
    failure::failed,
    run::{Candidate, Run, StageEnd},
    stages::{export, fit, limits, retrain},
    terminal,
};

/// Test images on which the two engines are compared.
const IMAGES: usize = 8;
/// Largest difference of a logit, relative to the largest logit (or absolute below 1).
const TOLERANCE: f64 = 1e-4;

/// The stage.
pub fn run(run: &mut Run<'_>) -> Result<StageEnd, Report> {
    let mut runner = run.runner()?;
    let candidates = run.candidates()?;
    let mut errors = BTreeMap::new();
    let mut job = run.job(Stage::Verify, run.config.measure.verify);
    let mut workloads: Vec<Workload> = Vec::new();
    for candidate in &candidates {
        let Some(weights) = retrain::train(run, candidate, &candidate.name)? else {
            return Ok(StageEnd::Stop(StopReason::Interrupted));
        };
        let workload = run.network(&candidate.name, &candidate.genotype)?;
        let trained = run.space.network(&candidate.genotype, NetworkOptions::default()).map_err(failed)?;
        errors.insert(candidate.name.clone(), compare(run, &mut runner, candidate, &trained, &weights)?);
        let deployed = run.space.deploy(&trained, &weights).map_err(failed)?;
        job.weights.insert(workload.id(), deployed.weights);
        if workloads.iter().all(|other| other.id() != workload.id()) {
            workloads.push(workload);
        }
    }

    if !runner.gives_outputs() {
        run.terminal.say(
            "      outputs are the reference interpreter's: nothing on the device can be asked for them",
        );
    }
    if runner.provenance() == Provenance::CompilerEstimate {
        run.terminal.say("      latencies are the compiler's estimates: nothing runs on the device");
    }
    run.store()?.remember(&workloads).map_err(failed)?;
    let rows = match time(run, &mut runner, &job, &workloads)? {
        Ok(rows) => rows,
        Err(reason) => return Ok(StageEnd::Stop(reason)),
    };
    let mut used = fit::all_rows(run)?;
    used.extend(rows.iter().cloned());
    drop(runner);
    let mut elsewhere = Vec::new();
    for device in run.devices().into_iter().skip(1) {
        run.terminal.say(&format!("      on {}", device.name));
        let mut runner = run.runner_on(&device)?;
        let rows = match time(run, &mut runner, &job, &workloads)? {
            Ok(rows) => rows,
            Err(reason) => return Ok(StageEnd::Stop(reason)),
        };
        used.extend(rows.iter().cloned());
        elsewhere.push((device, rows));
    }
    run.copy_measurements(&used)?;
    for (device, rows) in elsewhere {
        let model = run.model_on(&device)?;
        for candidate in &candidates {
            let (row, latency) = match timed(run, candidate, &rows)? {
                Ok(found) => found,
                Err(reason) => return Ok(StageEnd::Stop(reason)),
            };
            let time = terminal::latency(&latency, run.provenance_on(&device));
            run.terminal.say(&format!("      {} on {}: {time}", candidate.name, device.name));
            let event = Event::OtherVerified {
                candidate: candidate.name.clone(),
                name: device.name.clone(),
                predicted: model.predict(&run.space, &candidate.genotype)?,
                latency,
                measurement: row.id.clone(),
            };
            run.push(event)?;
        }
    }

    let model = run.model_on(&run.devices()[0])?;
    for candidate in candidates {
        let (row, latency) = match timed(run, &candidate, &rows)? {
            Ok(found) => found,
            Err(reason) => return Ok(StageEnd::Stop(reason)),
        };
        let time = terminal::latency(&latency, run.provenance_on(&run.devices()[0]));
        let (name, error) = (&candidate.name, errors[&candidate.name]);
        run.terminal.say(&format!("      {name}: {time}, outputs equal to {error:.1e}"));
        let event = Event::Verified {
            max_output_error: errors[&candidate.name],
            latency,
            measurement: row.id.clone(),
            shares: model.shares(&run.space, &candidate.genotype)?,
            candidate: candidate.name,
        };
        run.push(event)?;
    }
    Ok(StageEnd::Done)
}

/// This stage's rows of one device: what a part of it that was cut off has timed already is not timed again.
fn time(
    run: &Run<'_>,
    runner: &mut DeviceRunner,
    job: &Job,
    workloads: &[Workload],
) -> Result<Result<Vec<Measurement>, StopReason>, Report> {
    let own = Filter {
        device: Some(runner.device().fingerprint()),
        campaign: Some(run.campaign(Stage::Verify)),
        ..Filter::default()
    };
    let mut rows = run.store()?.load(&own).map_err(failed)?;
    rows.retain(Measurement::usable);
    let missing = |workload: &&Workload| rows.iter().all(|row| row.workload != workload.id());
    let missing: Vec<Workload> = workloads.iter().filter(missing).cloned().collect();
    let before = rows.len();
    let mut bar = run.terminal.bar("measure", missing.len());
    let result = runner.run(&missing, job, &mut |row| {
        rows.push(row);
        bar.set(rows.len() - before, missing.len(), &rows[rows.len() - 1].label);
        if run.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.done();
    run.keep(Stage::Verify, &rows[before..])?;
    if let Err(error) = result {
        return match error.device_failure() {
            Some(message) => Ok(Err(StopReason::DeviceFailed { message })),
            None => Err(failed(error)),
        };
    }
    if run.stop.load(Ordering::Relaxed) {
        return Ok(Err(StopReason::Interrupted));
    }
    Ok(Ok(rows))
}

/// A candidate's row, and what it took.
fn timed<'r>(
    run: &Run<'_>,
    candidate: &Candidate,
    rows: &'r [Measurement],
) -> Result<Result<(&'r Measurement, Summary), StopReason>, Report> {
    let id = run.network(&candidate.name, &candidate.genotype)?.id();
    let of_candidate = || rows.iter().filter(|row| row.workload == id);
    let row = of_candidate().find(|row| row.usable()).or_else(|| of_candidate().next_back());
    if let Some((row, latency)) = row.and_then(|row| Some((row, row.summary().filter(|_| row.usable())?))) {
        return Ok(Ok((row, latency)));
    }
    let name = &candidate.name;
    let message = row.map_or_else(
        || format!("{name} was not timed"),
        |row| format!("{name}: {} ({})", row.outcome, row.error.as_deref().unwrap_or("no message")),
    );
    Ok(Err(StopReason::DeviceFailed { message }))
}

/// Whether the searched network meets every target by measurement.
pub fn verdict(run: &Run<'_>) -> Result<StopReason, Report> {
    let events = run.directory.record.events();
    let searched = events.iter().find_map(|event| match event {
        Event::Candidate { name, origin: Origin::Searched | Origin::Evolved, .. } => Some(name),
        _ => None,
    });
    let mut medians = Vec::new();
    for device in run.devices() {
        let latency = events.iter().find_map(|event| match event {
            Event::Verified { candidate, latency, .. }
                if device.index == 0 && Some(candidate) == searched =>
            {
                Some(latency.median)
            }
            Event::OtherVerified { candidate, name, latency, .. }
                if *name == device.name && Some(candidate) == searched =>
            {
                Some(latency.median)
            }
            _ => None,
        });
        if let Some(latency) = latency.filter(|_| run.target_on(&device).is_some()) {
            medians.push((device, latency));
        }
    }
    for limit in limits::all(run)? {
        let Some(measured) = limits::measured(run, &limit, &medians) else { continue };
        if measured <= limit.at_most {
            continue;
        }
        let first = limit.name == run.devices()[0].limit_name();
        return Ok(if first {
            StopReason::TargetMissed { target: Micros(limit.at_most), measured: Micros(measured) }
        } else {
            let (target, quantity) = (limit.at_most, limit.quantity);
            StopReason::OtherTargetMissed { name: limit.name, target, measured, quantity }
        });
    }
    Ok(StopReason::Completed)
}

/// Largest |engine − libtorch| over the logits of some test images: the exported file, folded where networks are,
/// beside the network as it was trained.
fn compare(
    run: &Run<'_>,
    runner: &mut DeviceRunner,
    candidate: &Candidate,
    trained: &Graph,
    weights: &Weights,
) -> Result<f64, Report> {
    let dataset = run.dataset()?;
    let count = IMAGES.min(dataset.test.len());
    let indices = (0..count).map(|index| index * dataset.test.len() / count).collect();
    let batch = Loader::new(dataset, Split::Test, indices, count, Augmentation::none(), None, false)
        .next()
        .ok_or_else(|| miette::miette!("failed to compare the engines: there are no test images"))?;
    let truth = run.config.space.learning().truth(&batch, run.dataset()?.as_ref(), None).map_err(failed)?;
    let images = truth.inputs;
    let ours: Vec<f32> = logits(trained, weights, &images)
        .and_then(|tensor| Ok(Vec::try_from(tensor.flatten(0, -1))?))
        .map_err(failed)?;
    let inputs: Vec<f32> = Vec::try_from(images.flatten(0, -1)).map_err(failed)?;
    let shape = Shape { n: 1, ..trained.input_shape().unwrap_or_else(|| Shape::new(1, 3, 1, 1)) };
    let model = run.path("export").join(format!(
        "{}.{}",
        candidate.name,
        export::format(runner.device()).extension()
    ));
    let theirs = runner.evaluate(&model, &inputs, shape)?;
    if theirs.len() != ours.len() {
        return Err(miette::miette!(
            "failed to verify {}: the engine gave {} logits, libtorch {}",
            model.display(),
            theirs.len(),
            ours.len()
        ));
    }
    let scale = ours.iter().fold(1.0_f64, |largest, value| largest.max(f64::from(value.abs())));
    let difference = ours
        .iter()
        .zip(&theirs)
        .map(|(a, b)| f64::from(a - b).abs())
        .fold(0.0, |largest: f64, value| if value.is_nan() { f64::INFINITY } else { largest.max(value) });
    if difference > TOLERANCE * scale {
        return Err(miette::miette!(
            help = "the exported file does not compute what was trained; please report this with the file",
            "failed to verify {}: its outputs differ from libtorch's by {difference:.2e} (allowed: {:.2e})",
            model.display(),
            TOLERANCE * scale
        ));
    }
    Ok(difference)
}
