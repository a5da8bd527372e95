//! Drives an agent, wherever it runs: prepares workloads, launches one process per workload and round,
//! and turns answers and accidents into measurements.

use std::{collections::BTreeMap, ops::ControlFlow, path::PathBuf, time::Duration};

use lathe_latency_db::{Device, MachineState, Measurement, Outcome, Protocol, Provenance};
use lathe_spaces::{Shape, Weights, Workload, WorkloadId};
use serde::Serialize;

use crate::{
    AgentSettings, Answer, EvaluateRequest, Job, MeasureRequest, OutputSums, PROTOCOL_VERSION, ProbeAnswer,
    ProbeRequest, RunnerError,
    child::Accident,
    numbers::{self, NUMBERS_SEED},
    record::{self, Progress},
    reference, schedule, timing,
};

/// How long a probe may take.
const PROBE_DEADLINE: Duration = Duration::from_mins(1);
/// How long an evaluation may take, per input, beside a minute for loading.
const EVALUATE_DEADLINE: Duration = Duration::from_mins(1);

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

    /// State of the device, for a measurement without any answer.
    fn state(&mut self) -> MachineState;
}

/// A runner over a link.
#[derive(Debug)]
pub(crate) struct AgentRunner<L> {
    link: L,
    device: Device,
    /// Expected sums per workload: the reference interpreter is slow.
    expected: BTreeMap<WorkloadId, OutputSums>,
    /// Medians of the reference workload since the start, in nanoseconds.
    reference_ns: Vec<f64>,
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
    pub(crate) fn start(mut link: L, name: String, explicit: bool) -> Result<Self, RunnerError> {
        let probe = probe(&mut link)?;
        let AgentSettings { cpus, threads, .. } = link.settings().clone();
        if explicit && probe.pinned_cpus != cpus {
            return Err(RunnerError::Pin { wanted: cpus, got: probe.pinned_cpus });
        }
        let device = Device {
            name,
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
        };
        Ok(Self { link, device, expected: BTreeMap::new(), reference_ns: Vec::new() })
    }

    /// The device.
    pub(crate) fn device(&self) -> &Device {
        &self.device
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
        let model = self.link.place("evaluated.onnx", &content)?;
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

    /// Places the ONNX file and computes the expected sums. What can't be prepared is an outcome.
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
        let file = numbers::File::of(workload, weights)?;
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
            tolerance: prepared.tolerance,
            protocol,
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

    /// Times one group of workloads: reference, round, reference, round, …, reference.
    fn run_group(&mut self, group: &Group<'_>, sink: &mut Sink<'_>) -> Result<ControlFlow<()>, RunnerError> {
        let mut ready = BTreeMap::new();
        let mut progress: BTreeMap<usize, Progress> = BTreeMap::new();
        for &index in &group.members {
            let workload = &group.workloads[index];
            let weights = group.job.weights.get(&workload.id());
            match self.prepare(workload, weights, &format!("{index}.onnx"))? {
                Ok(prepared) => {
                    ready.insert(index, prepared);
                    progress.insert(index, Progress::default());
                }
                Err(accident) => {
                    let failed = Progress { failure: Some(accident), ..Progress::default() };
                    if self.emit(group, index, &failed, None, sink).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        let flow = self.time_group(group, &ready, progress, sink)?;
        self.link.discard(ready.into_values().map(|prepared| prepared.model).collect());
        Ok(flow)
    }

    fn time_group(
        &mut self,
        group: &Group<'_>,
        ready: &BTreeMap<usize, Prepared>,
        mut progress: BTreeMap<usize, Progress>,
        sink: &mut Sink<'_>,
    ) -> Result<ControlFlow<()>, RunnerError> {
        let mut around = Vec::new();
        for round in 0..group.job.protocol.processes.max(1) {
            around.push(self.time_reference(group.reference, &group.job.protocol)?);
            for index in schedule::round(&group.members, group.job.seed, group.index, round) {
                let (Some(prepared), Some(mut done)) = (ready.get(&index), progress.remove(&index)) else {
                    continue;
                };
                self.launch(&group.workloads[index].label, prepared, group.job.protocol, &mut done)?;
                if done.failure.is_none() {
                    progress.insert(index, done);
                } else if self.emit(group, index, &done, None, sink).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        // The reference that follows the last round: if the device died just now, what was timed before
        // is still good, and the error comes after it.
        let last = self.time_reference(group.reference, &group.job.protocol);
        around.extend(last.as_ref().ok());
        let drift = reference::drift(&around, &self.reference_ns);
        for (index, done) in progress {
            if self.emit(group, index, &done, drift, sink).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        last.map(|_| ControlFlow::Continue(()))
    }

    fn emit(
        &mut self,
        group: &Group<'_>,
        index: usize,
        progress: &Progress,
        drift: Option<f64>,
        sink: &mut Sink<'_>,
    ) -> ControlFlow<()> {
        let now = self.link.state();
        let workload = &group.workloads[index];
        sink(record::measurement(
            workload,
            progress,
            &self.device,
            self.link.provenance(),
            group.job,
            drift,
            &now,
        ))
    }

    /// Groups of eight workloads in a seeded random order; within a group the processes of all
    /// workloads are interleaved in rounds, with the reference workload before, between and after. A
    /// workload whose process failed isn't launched again.
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
            .prepare(&workload, None, "reference.onnx")?
            .map_err(|accident| RunnerError::Reference(accident.message))?;
        for (index, members) in schedule::groups(workloads.len(), job.seed).into_iter().enumerate() {
            let group = Group { index, members, workloads, job, reference: &reference };
            if self.run_group(&group, sink)?.is_break() {
                break;
            }
        }
        self.link.discard(vec![reference.model]);
        Ok(())
    }
}

type Sink<'a> = dyn FnMut(Measurement) -> ControlFlow<()> + 'a;

/// Workloads that are timed between the same references.
struct Group<'a> {
    index: usize,
    members: Vec<usize>,
    workloads: &'a [Workload],
    job: &'a Job,
    reference: &'a Prepared,
}

fn complaint(answer: Result<Answer, Accident>) -> String {
    match answer {
        Ok(Answer::Failed { message, .. }) => message,
        Ok(_) => "it answered another question".to_owned(),
        Err(accident) => accident.message,
    }
}
