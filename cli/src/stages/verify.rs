//! Runs every exported file with the device's engine: same outputs as libtorch, and how fast.

use std::{collections::BTreeMap, ops::ControlFlow, sync::atomic::Ordering};

use lathe_latency_db::{Filter, Measurement, Provenance, Summary};
use lathe_runners::Runner;
use lathe_search::{Augmentation, Event, Loader, Origin, Split, Stage, StopReason, logits};
use lathe_spaces::{Shape, Weights, Workload};
use miette::Report;

use crate::{
    devices::DeviceRunner,
    failure::failed,
    run::{Candidate, Run, StageEnd},
    stages::{export, fit, retrain},
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
        errors.insert(candidate.name.clone(), compare(run, &mut runner, candidate, &workload, &weights)?);
        job.weights.insert(workload.id(), weights);
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
    // What a part of this stage that was cut off has timed already is not timed again.
    let fingerprint = runner.device().fingerprint();
    let own = Filter {
        device: Some(fingerprint.clone()),
        campaign: Some(run.campaign(Stage::Verify)),
        ..Filter::default()
    };
    let mut rows = run.store()?.load(&own).map_err(failed)?;
    rows.retain(Measurement::usable);
    workloads.retain(|workload| rows.iter().all(|row| row.workload != workload.id()));
    run.store()?.remember(&workloads).map_err(failed)?;
    let before = rows.len();
    let mut bar = run.terminal.bar("measure", workloads.len());
    let result = runner.run(&workloads, &job, &mut |row| {
        rows.push(row);
        bar.set(rows.len() - before, workloads.len(), &rows[rows.len() - 1].label);
        if run.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.done();
    run.keep(Stage::Verify, &rows[before..])?;
    if let Err(error) = result {
        return match error.device_failure() {
            Some(message) => Ok(StageEnd::Stop(StopReason::DeviceFailed { message })),
            None => Err(failed(error)),
        };
    }
    if run.stop.load(Ordering::Relaxed) {
        return Ok(StageEnd::Stop(StopReason::Interrupted));
    }
    let mut used = fit::used_rows(run, &fingerprint)?;
    used.extend(rows.iter().cloned());
    run.copy_measurements(&used)?;

    let table = run.table()?;
    for candidate in candidates {
        let id = run.network(&candidate.name, &candidate.genotype)?.id();
        let of_candidate = || rows.iter().filter(|row| row.workload == id);
        let row = of_candidate().find(|row| row.usable()).or_else(|| of_candidate().next_back());
        let Some((row, latency)) = row.and_then(|row| Some((row, row.summary().filter(|_| row.usable())?)))
        else {
            let message = row.map_or_else(
                || format!("{} was not timed", candidate.name),
                |row| {
                    format!(
                        "{}: {} ({})",
                        candidate.name,
                        row.outcome,
                        row.error.as_deref().unwrap_or("no message")
                    )
                },
            );
            return Ok(StageEnd::Stop(StopReason::DeviceFailed { message }));
        };
        run.terminal.say(&format!(
            "      {}: {} [{} … {}], outputs equal to {:.1e}",
            candidate.name, latency.median, latency.low, latency.high, errors[&candidate.name]
        ));
        let event = Event::Verified {
            max_output_error: errors[&candidate.name],
            latency,
            measurement: row.id.clone(),
            shares: table.shares(&run.space, &candidate.genotype).map_err(failed)?,
            candidate: candidate.name,
        };
        run.push(event)?;
    }
    Ok(StageEnd::Done)
}

/// Whether the searched network meets the target by measurement.
pub fn verdict(run: &Run<'_>) -> StopReason {
    let events = run.directory.record.events();
    let searched = events.iter().find_map(|event| match event {
        Event::Candidate { name, origin: Origin::Searched, .. } => Some(name),
        _ => None,
    });
    let measured: Option<Summary> = events.iter().find_map(|event| match event {
        Event::Verified { candidate, latency, .. } if Some(candidate) == searched => Some(*latency),
        _ => None,
    });
    match (run.target(), measured) {
        (Some(target), Some(latency)) if latency.median > target => {
            StopReason::TargetMissed { target, measured: latency.median }
        }
        _ => StopReason::Completed,
    }
}

/// Largest |engine − libtorch| over the logits of some test images.
fn compare(
    run: &Run<'_>,
    runner: &mut DeviceRunner,
    candidate: &Candidate,
    workload: &Workload,
    weights: &Weights,
) -> Result<f64, Report> {
    let dataset = run.dataset()?;
    let count = IMAGES.min(dataset.test.len());
    let indices = (0..count).map(|index| index * dataset.test.len() / count).collect();
    let batch = Loader::new(dataset, Split::Test, indices, count, Augmentation::none(), None, false)
        .next()
        .ok_or_else(|| miette::miette!("failed to compare the engines: there are no test images"))?;
    let ours: Vec<f32> = logits(&workload.graph, weights, &batch.images)
        .and_then(|tensor| Ok(Vec::try_from(tensor.flatten(0, -1))?))
        .map_err(failed)?;
    let inputs: Vec<f32> = Vec::try_from(batch.images.flatten(0, -1)).map_err(failed)?;
    let resolution = run.config.space.resolution;
    let shape = Shape::new(1, 3, resolution, resolution);
    let model = run.path("export").join(format!("{}.{}", candidate.name, export::format(run).extension()));
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
