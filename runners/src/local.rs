//! The machine that Lathe itself runs on.

use std::{
    collections::BTreeMap,
    env, fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use lathe_latency_db::{Device, Measurement, Outcome, Protocol, Provenance};
use lathe_spaces::{Shape, Weights, Workload, WorkloadId, encode_onnx, evaluate, seeded_input};

use crate::{
    AgentSettings, Answer, EvaluateRequest, Job, MeasureRequest, OutputSums, PROTOCOL_VERSION, ProbeRequest,
    Runner, RunnerError,
    child::{self, Accident},
    find::{choose_cpus, find_agent, find_library},
    machine_state,
    record::{self, Progress},
    reference, schedule, timing,
};

/// Seed of weights and inputs: latency doesn't depend on it, and one seed keeps expected outputs reusable.
const NUMBERS_SEED: u64 = 0;
/// Largest relative deviation of the output's sums from the reference interpreter's.
const OUTPUT_TOLERANCE: f64 = 1e-3;
/// How long a probe may take.
const PROBE_DEADLINE: Duration = Duration::from_mins(1);
/// How long an evaluation may take, per input, beside a minute for loading.
const EVALUATE_DEADLINE: Duration = Duration::from_mins(1);

/// How the local runner is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalSettings {
    /// Alias of the device.
    pub name: String,
    /// Agent program; if absent, `$LATHE_AGENT`, else `lathe-agent` beside the running program.
    pub agent: Option<PathBuf>,
    /// ONNX Runtime's library; if absent, `$ORT_DYLIB_PATH`.
    pub onnxruntime: Option<PathBuf>,
    /// Cores to be pinned to; if absent, the last ones of the affinity mask, one per thread.
    pub cpus: Option<Vec<usize>>,
    /// Threads that the engine may use.
    pub threads: usize,
    /// Where `proc`, `sys` and `etc` are looked for: `/`, or a tree that stands in for it.
    pub state_root: PathBuf,
}

impl LocalSettings {
    /// One thread on the last core, agent and library found by themselves.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            agent: None,
            onnxruntime: None,
            cpus: None,
            threads: 1,
            state_root: PathBuf::from("/"),
        }
    }
}

/// Drives the agent on this machine, one process per workload and launch.
#[derive(Debug)]
pub struct LocalRunner {
    agent: PathBuf,
    settings: AgentSettings,
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
}

impl LocalRunner {
    /// Finds the agent and the library, and asks the agent what this device is.
    pub fn start(settings: LocalSettings) -> Result<Self, RunnerError> {
        let agent = find_agent(settings.agent)?;
        let library = find_library(settings.onnxruntime)?;
        let explicit = settings.cpus.is_some();
        let cpus = choose_cpus(settings.cpus, settings.threads)?;
        let settings_for_agent = AgentSettings {
            version: PROTOCOL_VERSION,
            library,
            cpus: cpus.clone(),
            threads: settings.threads,
            state_root: settings.state_root,
        };
        let action = "probe this machine";
        let request = ProbeRequest { settings: settings_for_agent.clone() };
        let probe = match child::ask(&agent, "probe", &request, PROBE_DEADLINE)? {
            Ok(Answer::Probe(probe)) if probe.version == PROTOCOL_VERSION => probe,
            Ok(Answer::Probe(probe)) => {
                let message = format!(
                    "it speaks protocol version {}, expected {PROTOCOL_VERSION} (hint: rebuild it with `cargo xtask agent`)",
                    probe.version
                );
                return Err(RunnerError::Agent { action, message });
            }
            other => return Err(RunnerError::Agent { action, message: complaint(other) }),
        };
        if explicit && probe.pinned_cpus != cpus {
            return Err(RunnerError::Pin { wanted: cpus, got: probe.pinned_cpus });
        }
        let device = Device {
            name: settings.name,
            model: probe.facts.model,
            architecture: probe.facts.architecture,
            cores: probe.facts.cores,
            memory_kb: probe.facts.memory_kb,
            os: probe.facts.os,
            kernel: probe.facts.kernel,
            pinned_cpus: cpus,
            governor: probe.facts.governor,
            max_khz: probe.facts.max_khz,
            threads: settings.threads,
            engine: probe.engine,
        };
        Ok(Self {
            agent,
            settings: settings_for_agent,
            device,
            expected: BTreeMap::new(),
            reference_ns: Vec::new(),
        })
    }

    /// Runs an ONNX file of one input on `inputs`, which holds whole inputs of `shape` one after the
    /// other, and returns the first outputs in the same order. For checks of equality, not timed.
    pub fn evaluate(&self, model: &Path, inputs: &[f32], shape: Shape) -> Result<Vec<f32>, RunnerError> {
        let expected = shape.elements();
        if expected == 0 || inputs.is_empty() || !inputs.len().is_multiple_of(expected) {
            return Err(RunnerError::Inputs { expected, got: inputs.len() });
        }
        let folder = temporary_folder()?;
        let request = EvaluateRequest {
            settings: self.settings.clone(),
            model: model.to_owned(),
            shape,
            inputs: folder.path().join("inputs.f32"),
            outputs: folder.path().join("outputs.f32"),
        };
        let bytes: Vec<u8> = inputs.iter().flat_map(|value| value.to_le_bytes()).collect();
        fs::write(&request.inputs, bytes).map_err(file("write", &request.inputs))?;
        let images = u32::try_from(inputs.len() / expected).unwrap_or(u32::MAX);
        let deadline = EVALUATE_DEADLINE.saturating_mul(images.saturating_add(1));
        match child::ask(&self.agent, "evaluate", &request, deadline)? {
            Ok(Answer::Evaluated { .. }) => {}
            other => {
                return Err(RunnerError::Agent { action: "evaluate a model", message: complaint(other) });
            }
        }
        let bytes = fs::read(&request.outputs).map_err(file("read", &request.outputs))?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|&number| f32::from_le_bytes(number)).collect())
    }

    /// Writes the ONNX file and computes the expected sums. What can't be prepared is an outcome.
    fn prepare(
        &mut self,
        workload: &Workload,
        weights: Option<&Weights>,
        model: PathBuf,
    ) -> Result<Result<Prepared, Accident>, RunnerError> {
        match self.prepared(workload, weights) {
            Ok((bytes, shape, expected)) => {
                fs::write(&model, bytes).map_err(file("write", &model))?;
                Ok(Ok(Prepared { model, shape, expected }))
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
        let bytes = encode_onnx(graph, weights).map_err(|error| format!("failed to {error}"))?;
        let id = workload.id();
        // Only seeded weights are the same every time.
        if let Some(known) = self.expected.get(&id).filter(|_| seeded.is_some()) {
            return Ok((bytes, shape, *known));
        }
        let output = evaluate(graph, weights, &seeded_input(shape, NUMBERS_SEED))
            .map_err(|error| format!("failed to {error}"))?;
        let expected = OutputSums::of(&output).ok_or("the reference output isn't finite")?;
        if seeded.is_some() {
            self.expected.insert(id, expected);
        }
        Ok((bytes, shape, expected))
    }

    /// One process: its answer is added to the progress, or its accident ends the workload.
    fn launch(
        &self,
        label: &str,
        prepared: &Prepared,
        protocol: Protocol,
        progress: &mut Progress,
    ) -> Result<(), RunnerError> {
        let request = MeasureRequest {
            settings: self.settings.clone(),
            label: label.to_owned(),
            model: prepared.model.clone(),
            shape: prepared.shape,
            input_seed: NUMBERS_SEED,
            expected: prepared.expected,
            tolerance: OUTPUT_TOLERANCE,
            protocol,
        };
        let deadline = Duration::try_from_secs_f64(protocol.timeout_seconds).unwrap_or(Duration::MAX / 4);
        match child::ask(&self.agent, "measure", &request, deadline)? {
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
        let folder = temporary_folder()?;
        let mut ready = BTreeMap::new();
        let mut progress: BTreeMap<usize, Progress> = BTreeMap::new();
        for &index in &group.members {
            let model = folder.path().join(format!("{index}.onnx"));
            let workload = &group.workloads[index];
            let weights = group.job.weights.get(&workload.id());
            match self.prepare(workload, weights, model)? {
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
        let mut around = Vec::new();
        let mut lost = None;
        'rounds: for round in 0..group.job.protocol.processes.max(1) {
            match self.time_reference(group.reference, &group.job.protocol) {
                Ok(median) => around.push(median),
                Err(error) => {
                    lost = Some(error);
                    break 'rounds;
                }
            }
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
        if let Some(error) = lost {
            return Err(error);
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
        &self,
        group: &Group<'_>,
        index: usize,
        progress: &Progress,
        drift: Option<f64>,
        sink: &mut Sink<'_>,
    ) -> ControlFlow<()> {
        let now = machine_state(&self.settings.state_root, &self.device.pinned_cpus);
        let workload = &group.workloads[index];
        sink(record::measurement(workload, progress, &self.device, self.provenance(), group.job, drift, &now))
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

impl Runner for LocalRunner {
    fn device(&self) -> &Device {
        &self.device
    }

    fn provenance(&self) -> Provenance {
        Provenance::Measured
    }

    /// Groups of eight workloads in a seeded random order; within a group the processes of all
    /// workloads are interleaved in rounds, with the reference workload before, between and after. A
    /// workload whose process failed isn't launched again.
    fn run(
        &mut self,
        workloads: &[Workload],
        job: &Job,
        sink: &mut dyn FnMut(Measurement) -> ControlFlow<()>,
    ) -> Result<(), RunnerError> {
        if workloads.is_empty() {
            return Ok(());
        }
        let folder = temporary_folder()?;
        let workload = reference::workload().map_err(|error| RunnerError::Reference(error.to_string()))?;
        let reference = self
            .prepare(&workload, None, folder.path().join("reference.onnx"))?
            .map_err(|accident| RunnerError::Reference(accident.message))?;
        for (index, members) in schedule::groups(workloads.len(), job.seed).into_iter().enumerate() {
            let group = Group { index, members, workloads, job, reference: &reference };
            if self.run_group(&group, sink)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn temporary_folder() -> Result<tempfile::TempDir, RunnerError> {
    let path = env::temp_dir();
    tempfile::Builder::new().prefix("lathe-").tempdir().map_err(file("make a folder under", &path))
}

pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RunnerError {
    let path = path.to_owned();
    move |source| RunnerError::File { action, path, source }
}

fn complaint(answer: Result<Answer, Accident>) -> String {
    match answer {
        Ok(Answer::Failed { message, .. }) => message,
        Ok(_) => "it answered another question".to_owned(),
        Err(accident) => accident.message,
    }
}
