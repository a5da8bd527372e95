//! From the answers of a workload's processes to one measurement.

use lathe_latency_db::{
    Conditions, Device, MachineState, Measurement, Outcome, Provenance, Rejected, quality,
};
use lathe_spaces::Workload;
use sha2::{Digest, Sha256};

use crate::{Job, MeasureAnswer, child::Accident, hexadecimal::hexadecimal};

/// What is known of one workload so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Answers of its processes, in the order in which they were launched.
    pub(crate) answers: Vec<MeasureAnswer>,
    /// What ended it early, if anything did.
    pub(crate) failure: Option<Accident>,
}

impl Progress {
    /// What is kept of an attempt that another one replaces.
    pub(crate) fn rejected(&self, drift: f64) -> Option<Rejected> {
        Some(Rejected {
            drift,
            at: self.answers.first()?.before.at.clone(),
            samples_ns: self.samples_ns(),
            samples_per_process: self.samples_per_process(),
        })
    }

    fn samples_ns(&self) -> Vec<u64> {
        self.answers.iter().flat_map(|answer| answer.samples_ns.iter().copied()).collect()
    }

    fn samples_per_process(&self) -> Vec<usize> {
        self.answers.iter().map(|answer| answer.samples_ns.len()).collect()
    }
}

/// What was seen around the processes of a workload.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// Drift of the reference workload, relative.
    pub(crate) drift: Option<f64>,
    /// The device was as cool as at the start.
    pub(crate) cool: bool,
    /// State of the device, for a workload without any answer.
    pub(crate) now: MachineState,
    /// Other attempts.
    pub(crate) rejected: Vec<Rejected>,
}

/// The measurement of a workload whose processes are done. A workload that failed keeps the samples
/// that it has.
pub(crate) fn measurement(
    workload: &Workload,
    progress: &Progress,
    device: &Device,
    provenance: Provenance,
    job: &Job,
    surroundings: Surroundings,
) -> Measurement {
    let Surroundings { drift, cool, now, rejected } = surroundings;
    let answers = &progress.answers;
    let last = answers.last();
    let (outcome, error) = match &progress.failure {
        Some(failure) => (failure.outcome, Some(failure.message.clone())),
        None => (Outcome::Ok, None),
    };
    let middle = |number: fn(&MeasureAnswer) -> u64| {
        let mut numbers: Vec<u64> = answers.iter().map(number).collect();
        numbers.sort_unstable();
        numbers.get(numbers.len() / 2).copied().unwrap_or(0)
    };
    let mut row = Measurement {
        id: identifier(workload, device, job, outcome),
        workload: workload.id(),
        label: workload.label.clone(),
        level: workload.level,
        precision: workload.precision,
        macs: workload.graph.macs(),
        device: device.clone(),
        provenance,
        outcome,
        error,
        samples_ns: progress.samples_ns(),
        samples_per_process: progress.samples_per_process(),
        batch: last.map_or(1, |answer| answer.batch),
        warmup_runs: answers.iter().map(|answer| answer.warmup_runs).sum(),
        load_ns: middle(|answer| answer.load_ns),
        first_run_ns: middle(|answer| answer.first_run_ns),
        peak_rss_kb: answers.iter().map(|answer| answer.peak_rss_kb).max().unwrap_or(0),
        output_error: answers.iter().filter_map(|answer| answer.output_error).max_by(f64::total_cmp),
        protocol: job.protocol,
        before: answers.first().map_or_else(|| now.clone(), |answer| answer.before.clone()),
        after: last.map_or_else(|| now.clone(), |answer| answer.after.clone()),
        flags: Vec::new(),
        agent: last.map_or_else(String::new, |answer| answer.agent.clone()),
        campaign: job.campaign.clone(),
        rejected,
        published: None,
        execution: answers.iter().find_map(|answer| answer.execution.clone()),
    };
    let conditions = Conditions {
        settled: answers.iter().all(|answer| answer.settled),
        pinned: answers.iter().all(|answer| answer.pinned_cpus == device.pinned_cpus),
        reference_drift: drift,
        cool,
    };
    row.flags = quality(&row, conditions);
    row
}

/// The name of the record: the same for a retry with the same outcome, so that it is stored once, and
/// another one when a workload that failed succeeds later.
fn identifier(workload: &Workload, device: &Device, job: &Job, outcome: Outcome) -> String {
    let text = format!("{}\n{}\n{}\n{outcome}", job.campaign, device.fingerprint(), workload.id());
    hexadecimal(&Sha256::digest(text.as_bytes())[..16])
}
