//! Drives an agent, wherever it runs: prepares workloads, launches one process per workload and round,
//! and turns answers and accidents into measurements.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
    path::PathBuf,
    time::Duration,
};

use lathe_latency_db::{Device, MachineState, Measurement, Outcome, Protocol, Provenance, Tier, drifted};
use lathe_spaces::{Shape, Weights, Workload, WorkloadId};
use serde::Serialize;

use crate::{
    AgentSettings, Answer, CheckRequest, EvaluateRequest, Job, MeasureRequest, OutputSums, PROTOCOL_VERSION,
    Placement, ProbeAnswer, ProbeRequest, RunnerError,
    child::Accident,
    clusters::{CoreCluster, cores_of},
    cool_down::cool_down,
    numbers::{self, NUMBERS_SEED},
    record::{self, Progress, Surroundings},
    reference, schedule, timing,
};

/// How long a probe may take.
const PROBE_DEADLINE: Duration = Duration::from_mins(1);
/// Batches in a row that drifted in every attempt, after which no batch is timed again.
const IN_VAIN: usize = 2;
/// How long an evaluation may take, per input, beside a minute for loading.
const EVALUATE_DEADLINE: Duration = Duration::from_mins(1);

/// How long a check may take: an emulator is a thousand times slower than what it emulates.
const CHECK_DEADLINE: Duration = Duration::from_mins(30);

/// How an agent is reached: on this machine, or over a transport.
pub(crate) trait Link {
    /// What every request says.
    fn settings(&self) -> &AgentSettings;

    /// Where its numbers come from.
    fn provenance(&self) -> Provenance;

    /// Puts a file where the agent can read it; its path there. `name` is unique among the files that
    /// are there at the same time.
    fn place(&mut self, name: &str, content: &[u8]) -> Result<PathBuf, RunnerError>;

    /// Reads a file that the agent wrote beside the placed ones.
    fn fetch(&mut self, path: &std::path::Path) -> Result<Vec<u8>, RunnerError>;

    /// Placed files that are no longer needed.
    fn discard(&mut self, paths: Vec<PathBuf>);

    /// One process of the agent: its answer, or what happened to it. The outer error means that the
    /// device can't be used.
    fn ask(
        &mut self,
        mode: &str,
        request: &impl Serialize,
        deadline: Duration,
    ) -> Result<Result<Answer, Accident>, RunnerError>;

    /// State of the device, for a measurement without any answer; as far as it is known without a process
    /// on the device.
    fn state(&mut self) -> MachineState;

    /// State of the device now.
    fn look(&mut self) -> Result<MachineState, RunnerError> {
        let action = "look at the device";
        let request = ProbeRequest { settings: self.settings().clone() };
        match self.ask("state", &request, PROBE_DEADLINE)? {
            Ok(Answer::State(state)) => Ok(*state),
            other => Err(RunnerError::Agent { action, message: complaint(other) }),
        }
    }
}

/// How a device is called, beside what it tells of itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Naming {
    /// Alias.
    pub(crate) name: String,
    /// Cluster that its cores were chosen from.
    pub(crate) cluster: Option<String>,
    /// Kind of device.
    pub(crate) tier: Option<Tier>,
}

/// The cores of a named cluster of a device.
pub(crate) fn cluster_cores(
    device: &str,
    clusters: &[CoreCluster],
    name: &str,
    threads: usize,
) -> Result<Vec<usize>, RunnerError> {
    cores_of(clusters, name, threads)
        .map_err(|message| RunnerError::Cluster { device: device.to_owned(), message })
}

/// A runner over a link.
#[derive(Debug)]
pub(crate) struct AgentRunner<L> {
    link: L,
    device: Device,
    /// Execution providers that its engine has.
    providers: Vec<String>,
    /// Expected sums per workload: the reference interpreter is slow.
    expected: BTreeMap<WorkloadId, OutputSums>,
    /// Medians of the reference workload since the start, in nanoseconds.
    reference_ns: Vec<f64>,
    /// Thermal zones when the device was probed, in thousandths of a degree Celsius.
    start_temperature: BTreeMap<String, i64>,
}

/// A workload that is ready to be timed.
struct Prepared {
    model: PathBuf,
    shape: Shape,
    expected: OutputSums,
    /// Largest relative deviation from them.
    tolerance: f64,
}

/// Asks an agent what its device is.
pub(crate) fn probe(link: &mut impl Link) -> Result<ProbeAnswer, RunnerError> {
    let action = "probe the device";
    let request = ProbeRequest { settings: link.settings().clone() };
    match link.ask("probe", &request, PROBE_DEADLINE)? {
        Ok(Answer::Probe(probe)) if probe.version == PROTOCOL_VERSION => Ok(*probe),
        Ok(Answer::Probe(probe)) => {
            let message = format!(
                "it speaks protocol version {}, expected {PROTOCOL_VERSION} (hint: rebuild it with `cargo xtask agent`)",
                probe.version
            );
            Err(RunnerError::Agent { action, message })
        }
        other => Err(RunnerError::Agent { action, message: complaint(other) }),
    }
}

impl<L: Link> AgentRunner<L> {
    /// Asks the agent what this device is; the cores of the link's settings must be had if they are
    /// `explicit`.
    pub(crate) fn start(mut link: L, naming: Naming, explicit: bool) -> Result<Self, RunnerError> {
        let probe = probe(&mut link)?;
        let AgentSettings { cpus, threads, .. } = link.settings().clone();
        if explicit && probe.pinned_cpus != cpus {
            return Err(RunnerError::Pin { wanted: cpus, got: probe.pinned_cpus });
        }
        let device = Device {
            name: naming.name,
            model: probe.facts.model,
            architecture: probe.facts.architecture,
            cores: probe.facts.cores,
            memory_kb: probe.facts.memory_kb,
            os: probe.facts.os,
            kernel: probe.facts.kernel,
            pinned_cpus: cpus,
            governor: probe.facts.governor,
            max_khz: probe.facts.max_khz,
            threads,
            engine: probe.engine,
            cluster: naming.cluster,
            tier: naming.tier,
            memory_limit_kb: link.settings().memory_kb,
        };
        let start_temperature = probe.state.temperature_millicelsius;
        let providers = probe.providers;
        let expected = BTreeMap::new();
        Ok(Self { link, device, providers, expected, reference_ns: Vec::new(), start_temperature })
    }

    /// The device.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Execution providers that its engine has.
    pub(crate) fn providers(&self) -> &[String] {
        &self.providers
    }

    /// Where its numbers come from.
    pub(crate) fn provenance(&self) -> Provenance {
        self.link.provenance()
    }

    /// See [`crate::LocalRunner::evaluate`].
    pub(crate) fn evaluate(
        &mut self,
        model: &std::path::Path,
        inputs: &[f32],
        shape: Shape,
    ) -> Result<Vec<f32>, RunnerError> {
        let expected = shape.elements();
        if expected == 0 || inputs.is_empty() || !inputs.len().is_multiple_of(expected) {
            return Err(RunnerError::Inputs { expected, got: inputs.len() });
        }
        let content = std::fs::read(model).map_err(RunnerError::file("read", model))?;
        let model = self.link.place(&self.named("evaluated"), &content)?;
        let bytes: Vec<u8> = inputs.iter().flat_map(|value| value.to_le_bytes()).collect();
        let inputs_file = self.link.place("inputs.f32", &bytes)?;
        let request = EvaluateRequest {
            settings: self.link.settings().clone(),
            shape,
            outputs: inputs_file.with_extension("outputs"),
            model,
            inputs: inputs_file,
        };
        let images = u32::try_from(inputs.len() / expected).unwrap_or(u32::MAX);
        let deadline = EVALUATE_DEADLINE.saturating_mul(images.saturating_add(1));
        match self.link.ask("evaluate", &request, deadline)? {
            Ok(Answer::Evaluated { .. }) => {}
            other => {
                return Err(RunnerError::Agent { action: "evaluate a model", message: complaint(other) });
            }
        }
        let bytes = self.link.fetch(&request.outputs)?;
        self.link.discard(vec![request.model, request.inputs, request.outputs]);
        Ok(bytes.as_chunks::<4>().0.iter().map(|&number| f32::from_le_bytes(number)).collect())
    }

    /// See [`crate::LocalRunner::check`].
    pub(crate) fn check(&mut self, model: &std::path::Path) -> Result<Vec<Placement>, RunnerError> {
        let content = std::fs::read(model).map_err(RunnerError::file("read", model))?;
        let model = self.link.place(&self.named("checked"), &content)?;
        let request = CheckRequest { settings: self.link.settings().clone(), model };
        let answer = self.link.ask("check", &request, CHECK_DEADLINE)?;
        self.link.discard(vec![request.model]);
        match answer {
            Ok(Answer::Checked { placements }) => Ok(placements),
            other => Err(RunnerError::Agent { action: "check a model", message: complaint(other) }),
        }
    }

    /// The name of a model's file, in the format that the engine reads.
    fn named(&self, stem: &str) -> String {
        format!("{stem}.{}", self.link.settings().engine.name.format().extension())
    }

    /// Places the model's file and computes the expected sums. What can't be prepared is an outcome.
    fn prepare(
        &mut self,
        workload: &Workload,
        weights: Option<&Weights>,
        name: &str,
    ) -> Result<Result<Prepared, Accident>, RunnerError> {
        match self.prepared(workload, weights) {
            Ok((bytes, shape, expected)) => {
                let model = self.link.place(name, &bytes)?;
                let tolerance = numbers::tolerance(workload.precision);
                Ok(Ok(Prepared { model, shape, expected, tolerance }))
            }
            Err(message) => Ok(Err(Accident { outcome: Outcome::Unsupported, message })),
        }
    }

    fn prepared(
        &mut self,
        workload: &Workload,
        weights: Option<&Weights>,
    ) -> Result<(Vec<u8>, Shape, OutputSums), String> {
        let graph = &workload.graph;
        let inputs = graph.inputs().count();
        let (1, Some(shape)) = (inputs, graph.input_shape()) else {
            return Err(format!("the workload has {inputs} inputs, the agent feeds one"));
        };
        let seeded = weights.is_none().then(|| Weights::seeded(graph, NUMBERS_SEED));
        let weights = seeded.as_ref().or(weights).ok_or("there are no weights")?;
        let file = numbers::File::of(workload, weights, self.link.settings().engine.name.format())?;
        let id = workload.id();
        // Only seeded weights are the same every time.
        if let Some(known) = self.expected.get(&id).filter(|_| seeded.is_some()) {
            return Ok((file.bytes, shape, *known));
        }
        let output = file.output(graph, weights, shape)?;
        let expected = OutputSums::of(&output).ok_or("the reference output isn't finite")?;
        if seeded.is_some() {
            self.expected.insert(id, expected);
        }
        Ok((file.bytes, shape, expected))
    }

    /// One process: its answer is added to the progress, or its accident ends the workload.
    fn launch(
        &mut self,
        label: &str,
        prepared: &Prepared,
        protocol: Protocol,
        progress: &mut Progress,
    ) -> Result<(), RunnerError> {
        let request = MeasureRequest {
            settings: self.link.settings().clone(),
            label: label.to_owned(),
            model: prepared.model.clone(),
            shape: prepared.shape,
            input_seed: NUMBERS_SEED,
            expected: prepared.expected,
            tolerance: prepared.tolerance.max(self.link.settings().engine.precision.tolerance()),
            protocol,
            inspect: progress.answers.is_empty(),
        };
        let deadline = Duration::try_from_secs_f64(protocol.timeout_seconds).unwrap_or(Duration::MAX / 4);
        match self.link.ask("measure", &request, deadline)? {
            Ok(Answer::Measured(answer)) => {
                if answer.outcome != Outcome::Ok {
                    let message = answer.message.clone().unwrap_or_default();
                    progress.failure = Some(Accident { outcome: answer.outcome, message });
                }
                progress.answers.push(*answer);
            }
            Ok(Answer::Failed { outcome, message }) => progress.failure = Some(Accident { outcome, message }),
            Ok(_) => {
                let message = "the agent answered another question".to_owned();
                progress.failure = Some(Accident { outcome: Outcome::Crash, message });
            }
            Err(accident) => progress.failure = Some(accident),
        }
        tracing::debug!(label, failure = ?progress.failure, "process done");
        Ok(())
    }

    /// Times the reference workload once; its median in nanoseconds.
    fn time_reference(&mut self, prepared: &Prepared, rules: &Protocol) -> Result<f64, RunnerError> {
        let mut progress = Progress::default();
        self.launch(reference::LABEL, prepared, reference::protocol(rules), &mut progress)?;
        if let Some(Accident { outcome, message }) = progress.failure {
            return Err(RunnerError::DeviceLost { outcome, message });
        }
        let samples = progress.answers.first().map(|answer| answer.samples_ns.as_slice()).unwrap_or_default();
        let median = timing::median(samples) as f64;
        self.reference_ns.push(median);
        Ok(median)
    }

    /// Waits until the device is as cool as when it was probed, for as long as the rules allow.
    fn cool_down(&mut self, rules: &Protocol) -> Result<bool, RunnerError> {
        let limit = Duration::try_from_secs_f64(rules.cool_down_seconds).unwrap_or(Duration::ZERO);
        let Self { link, start_temperature, .. } = self;
        cool_down(start_temperature, limit, &mut || link.look(), &mut std::thread::sleep)
    }

    /// One attempt at a batch: cool down, reference, round, reference, round, …, reference. Workloads that
    /// can't be prepared or fail are handed to the sink at once. Nothing comes back if the sink wants no
    /// more.
    fn attempt(
        &mut self,
        campaign: &Campaign<'_>,
        batch: &Batch,
        sink: &mut Sink<'_>,
    ) -> Result<Option<Attempt>, RunnerError> {
        let cool = self.cool_down(&campaign.job.protocol)?;
        let mut ready = BTreeMap::new();
        let mut attempt = Attempt { cool, ..Attempt::default() };
        for &index in &batch.members {
            let workload = &campaign.workloads[index];
            let weights = campaign.job.weights.get(&workload.id());
            match self.prepare(workload, weights, &self.named(&index.to_string()))? {
                Ok(prepared) => {
                    ready.insert(index, prepared);
                    attempt.progress.insert(index, Progress::default());
                }
                Err(accident) => {
                    let failed = Progress { failure: Some(accident), ..Progress::default() };
                    if self.emit(campaign, batch, index, &failed, None, sink).is_break() {
                        return Ok(None);
                    }
                }
            }
        }
        let timed = self.time_batch(campaign, batch, &ready, attempt, sink)?;
        self.link.discard(ready.into_values().map(|prepared| prepared.model).collect());
        Ok(timed)
    }

    fn time_batch(
        &mut self,
        campaign: &Campaign<'_>,
        batch: &Batch,
        ready: &BTreeMap<usize, Prepared>,
        mut attempt: Attempt,
        sink: &mut Sink<'_>,
    ) -> Result<Option<Attempt>, RunnerError> {
        let Campaign { job, workloads, reference } = campaign;
        let processes = job.protocol.processes.max(1);
        let mut around = Vec::new();
        for round in 0..processes {
            around.push(self.time_reference(reference, &job.protocol)?);
            let round = batch.attempts.len() * processes + round;
            for index in schedule::round(&batch.members, job.seed, batch.index, round) {
                let (Some(prepared), Some(mut done)) = (ready.get(&index), attempt.progress.remove(&index))
                else {
                    continue;
                };
                self.launch(&workloads[index].label, prepared, job.protocol, &mut done)?;
                if done.failure.is_none() {
                    attempt.progress.insert(index, done);
                } else if self.emit(campaign, batch, index, &done, None, sink).is_break() {
                    return Ok(None);
                }
            }
        }
        // The reference that follows the last round: if the device died just now, what was timed before
        // is still good, and the error comes after it.
        match self.time_reference(reference, &job.protocol) {
            Ok(median) => around.push(median),
            Err(error) => attempt.lost = Some(error),
        }
        attempt.drift = reference::drift(&around, &self.reference_ns);
        Ok(Some(attempt))
    }

    /// Hands the sink what is left of a batch: of each workload the attempt whose reference drifted least,
    /// with the other attempts beside it.
    fn settle(&mut self, campaign: &Campaign<'_>, mut batch: Batch, sink: &mut Sink<'_>) -> ControlFlow<()> {
        batch.attempts.sort_by(|a, b| a.distance().total_cmp(&b.distance()));
        if batch.attempts.is_empty() {
            return ControlFlow::Continue(());
        }
        let best = batch.attempts.remove(0);
        for (&index, done) in &best.progress {
            self.emit(campaign, &batch, index, done, Some(&best), sink)?;
        }
        ControlFlow::Continue(())
    }

    /// One row: how a workload ended in this attempt, beside the batch's other ones.
    fn emit(
        &mut self,
        campaign: &Campaign<'_>,
        batch: &Batch,
        index: usize,
        progress: &Progress,
        attempt: Option<&Attempt>,
        sink: &mut Sink<'_>,
    ) -> ControlFlow<()> {
        let surroundings = Surroundings {
            drift: attempt.and_then(|attempt| attempt.drift),
            cool: attempt.is_none_or(|attempt| attempt.cool),
            now: self.link.state(),
            rejected: batch
                .attempts
                .iter()
                .filter_map(|attempt| attempt.progress.get(&index)?.rejected(attempt.drift?))
                .collect(),
        };
        let workload = &campaign.workloads[index];
        let provenance = self.link.provenance();
        sink(record::measurement(workload, progress, &self.device, provenance, campaign.job, surroundings))
    }

    /// Batches of eight workloads in a seeded random order; within a batch the processes of all workloads
    /// are interleaved in rounds, with the reference workload before, between and after. A workload whose
    /// process failed isn't launched again. A batch during which the reference drifted is put back behind
    /// the next one, [`Protocol::retries`] times at most, and not at all any more after two batches in
    /// a row that drifted every time: such a device is noisy, and its rows are flagged.
    pub(crate) fn run(
        &mut self,
        workloads: &[Workload],
        job: &Job,
        sink: &mut dyn FnMut(Measurement) -> ControlFlow<()>,
    ) -> Result<(), RunnerError> {
        if workloads.is_empty() {
            return Ok(());
        }
        let workload = reference::workload().map_err(|error| RunnerError::Reference(error.to_string()))?;
        let reference = self
            .prepare(&workload, None, &self.named("reference"))?
            .map_err(|accident| RunnerError::Reference(accident.message))?;
        let campaign = Campaign { workloads, job, reference: &reference };
        let mut queue: VecDeque<Batch> = schedule::groups(workloads.len(), job.seed)
            .into_iter()
            .enumerate()
            .map(|(index, members)| Batch { index, members, attempts: Vec::new() })
            .collect();
        let result = self.work_off(&campaign, &mut queue, sink);
        if result.is_err() {
            // Batches that wait for another attempt have been timed: that is kept, flagged.
            for batch in queue {
                if self.settle(&campaign, batch, sink).is_break() {
                    break;
                }
            }
        }
        self.link.discard(vec![reference.model]);
        result
    }

    fn work_off(
        &mut self,
        campaign: &Campaign<'_>,
        queue: &mut VecDeque<Batch>,
        sink: &mut Sink<'_>,
    ) -> Result<(), RunnerError> {
        let retries = campaign.job.protocol.retries;
        let mut in_vain = 0;
        while let Some(mut batch) = queue.pop_front() {
            let mut attempt = match self.attempt(campaign, &batch, sink) {
                Ok(Some(attempt)) => attempt,
                Ok(None) => return Ok(()),
                Err(error) => {
                    queue.push_front(batch);
                    return Err(error);
                }
            };
            let lost = attempt.lost.take();
            let drifted = attempt.drift.is_some_and(drifted);
            batch.members.retain(|index| attempt.progress.contains_key(index));
            batch.attempts.push(attempt);
            let attempts = batch.attempts.len();
            let again = drifted && attempts <= retries && in_vain < IN_VAIN && !batch.members.is_empty();
            if again && lost.is_none() {
                tracing::info!(batch = batch.index, attempts, "the reference workload drifted; again, later");
                queue.insert(queue.len().min(1), batch);
                continue;
            }
            if !drifted {
                in_vain = 0;
            } else if attempts > retries {
                in_vain += 1;
            }
            let flow = self.settle(campaign, batch, sink);
            if let Some(error) = lost {
                return Err(error);
            }
            if flow.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}

type Sink<'a> = dyn FnMut(Measurement) -> ControlFlow<()> + 'a;

/// What a runner was asked to do.
struct Campaign<'a> {
    workloads: &'a [Workload],
    job: &'a Job,
    reference: &'a Prepared,
}

/// Workloads that are timed between the same references.
struct Batch {
    index: usize,
    /// Those that haven't failed.
    members: Vec<usize>,
    attempts: Vec<Attempt>,
}

/// One time through a batch.
#[derive(Default)]
struct Attempt {
    /// Of every workload that didn't fail.
    progress: BTreeMap<usize, Progress>,
    /// Drift of the reference workload, relative.
    drift: Option<f64>,
    /// The device was as cool as at the start.
    cool: bool,
    /// The device was lost right after it.
    lost: Option<RunnerError>,
}

impl Attempt {
    fn distance(&self) -> f64 {
        self.drift.map_or(0.0, f64::abs)
    }
}

fn complaint(answer: Result<Answer, Accident>) -> String {
    match answer {
        Ok(Answer::Failed { message, .. }) => message,
        Ok(_) => "it answered another question".to_owned(),
        Err(accident) => accident.message,
    }
}
