//! Devices behind a transport: the agent and the engine are pushed once, by the hash of their content,
//! and every process of the agent is a job on the device that outlives a broken connection.

mod agentless;
mod architecture;
mod content;
mod device;
mod owner;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use lathe_latency_db::{Device, MachineState, Measurement, Outcome, Provenance, Tier};
use lathe_spaces::{Shape, Workload};
use serde::Serialize;

use crate::{
    AgentSettings, Answer, EngineChoice, Job, PROTOCOL_VERSION, Placement, Runner, RunnerError, Transport,
    agent_runner::{self, AgentRunner, Link, Naming, cluster_cores},
    child::{ANSWER_BYTES, Accident, judge, with_last_words},
    find::{find_agent, find_library},
};
use content::Content;
use device::{End, RemoteDevice};

pub use agentless::{AgentlessRunner, AgentlessSettings, BenchmarkProgram, ProgramFile};

/// How long a lost connection is tried again, unless told otherwise.
const PATIENCE: Duration = Duration::from_mins(1);
/// Largest file of outputs that is fetched.
const OUTPUTS_BYTES: usize = 1 << 30;

/// How a remote device is used.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteSettings {
    /// Alias of the device.
    pub name: String,
    /// Agent program on this machine, built for the device; if absent, `$LATHE_AGENT`, else `lathe-agent`
    /// beside the running program.
    pub agent: Option<PathBuf>,
    /// Engine, and what is asked of it.
    pub engine: EngineChoice,
    /// The engine's library on this machine, built for the device, or its folder, which is pushed whole;
    /// if absent, [`EngineName::library`](crate::EngineName::library) names it.
    pub library: Option<PathBuf>,
    /// Folder on the device, absolute; `.cache/lathe` in the user's home if absent.
    pub directory: Option<String>,
    /// Words before the agent's own, as `taskset -c 3`.
    pub launch: Vec<String>,
    /// Declares that what it runs on is emulated; a launch prefix with `qemu-…` says so by itself.
    pub emulated: bool,
    /// Cores to be pinned to; if absent, the last ones of the affinity mask, one per thread.
    pub cpus: Option<Vec<usize>>,
    /// Threads that the engine may use.
    pub threads: usize,
    /// How long a lost connection is tried again before the device counts as lost.
    pub patience: Duration,
    /// Cluster of cores to choose from, in place of `cpus`; [`crate::CoreCluster`] tells the names.
    pub cluster: Option<String>,
    /// Kind of device.
    pub tier: Option<Tier>,
    /// Most memory that the agent may hold for data, in kilobytes.
    pub memory_kb: Option<u64>,
}

impl RemoteSettings {
    /// One thread on the last core, agent and library found by themselves, nothing before the agent.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            agent: None,
            engine: EngineChoice::default(),
            library: None,
            directory: None,
            launch: Vec::new(),
            emulated: false,
            cpus: None,
            threads: 1,
            patience: PATIENCE,
            cluster: None,
            tier: None,
            memory_kb: None,
        }
    }
}

/// Drives an agent over a transport, one job per workload and launch. Dropping it ends what it started
/// and gives the device free for others.
#[derive(Debug)]
pub struct RemoteRunner(AgentRunner<RemoteLink>);

impl RemoteRunner {
    /// Leases the device, pushes what it lacks, and asks the agent what this device is.
    pub fn start(settings: RemoteSettings, transport: Box<dyn Transport>) -> Result<Self, RunnerError> {
        let agent = find_agent(settings.agent)?;
        let library = find_library(settings.engine.name, settings.library, &agent)?;
        if settings.threads == 0 {
            return Err(RunnerError::Threads { threads: 0, available: 0 });
        }
        let agent = [Content::read(&agent, "--agent")?];
        let library = Content::with_siblings(&library)?;
        let (mut device, machine) =
            RemoteDevice::open(transport, settings.directory.as_deref(), settings.patience)?;
        let emulator = architecture::of_emulator(&settings.launch);
        let expected = emulator.unwrap_or_else(|| architecture::of_machine(&machine));
        for content in agent.iter().chain(&library) {
            content.check(expected, &device.peer())?;
        }
        let agent = content::store(&mut device, &agent)?;
        let library = content::store(&mut device, &library)?;
        let emulated = settings.emulated || emulator.is_some() || settings.engine.emulates(expected);
        let explicit = settings.cpus.is_some() || settings.cluster.is_some();
        let mut link = RemoteLink {
            agent,
            settings: AgentSettings {
                version: PROTOCOL_VERSION,
                engine: settings.engine,
                library: PathBuf::from(library),
                provider_library: None,
                cpus: settings.cpus.unwrap_or_default(),
                threads: settings.threads,
                state_root: PathBuf::from("/"),
                memory_kb: settings.memory_kb,
            },
            launch: settings.launch,
            provenance: if emulated { Provenance::Emulated } else { Provenance::Measured },
            last_state: MachineState::default(),
            device,
        };
        if let Some(cluster) = &settings.cluster {
            let clusters = agent_runner::probe(&mut link)?.facts.clusters;
            link.settings.cpus = cluster_cores(&settings.name, &clusters, cluster, settings.threads)?;
        } else if explicit {
            link.settings.cpus.sort_unstable();
            link.settings.cpus.dedup();
        } else {
            // The device's own affinity mask, with what the launch prefix leaves of it.
            let mask = agent_runner::probe(&mut link)?.pinned_cpus;
            link.settings.cpus = mask[mask.len().saturating_sub(settings.threads)..].to_vec();
        }
        let available = link.settings.cpus.len();
        if available < settings.threads {
            return Err(RunnerError::Threads { threads: settings.threads, available });
        }
        let naming = Naming { name: settings.name, cluster: settings.cluster, tier: settings.tier };
        AgentRunner::start(link, naming, explicit).map(Self)
    }

    /// See [`crate::LocalRunner::evaluate`].
    pub fn evaluate(&mut self, model: &Path, inputs: &[f32], shape: Shape) -> Result<Vec<f32>, RunnerError> {
        self.0.evaluate(model, inputs, shape)
    }

    /// See [`crate::LocalRunner::check`].
    pub fn check(&mut self, model: &Path) -> Result<Vec<Placement>, RunnerError> {
        self.0.check(model)
    }

    /// See [`crate::LocalRunner::providers`].
    pub fn providers(&self) -> &[String] {
        self.0.providers()
    }
}

impl Runner for RemoteRunner {
    fn device(&self) -> &Device {
        self.0.device()
    }

    fn provenance(&self) -> Provenance {
        self.0.provenance()
    }

    fn run(
        &mut self,
        workloads: &[Workload],
        job: &Job,
        sink: &mut dyn FnMut(Measurement) -> ControlFlow<()>,
    ) -> Result<(), RunnerError> {
        self.0.run(workloads, job, sink)
    }
}

/// An agent whose processes are jobs on a device.
#[derive(Debug)]
struct RemoteLink {
    device: RemoteDevice,
    /// The agent's path on the device.
    agent: String,
    settings: AgentSettings,
    launch: Vec<String>,
    provenance: Provenance,
    /// What the agent last read of the device's state.
    last_state: MachineState,
}

impl RemoteLink {
    /// The answer of a job that ended, or what happened to it.
    fn answer_of(
        &mut self,
        ended: &device::Ended,
        deadline: Duration,
    ) -> Result<Result<Answer, Accident>, RunnerError> {
        let crash = |message| Accident { outcome: Outcome::Crash, message };
        let accident = match &ended.end {
            End::Itself(exit) => {
                let output = if matches!(exit, crate::Exit::Code(_)) {
                    self.device.get(&format!("{}/answer", ended.folder), ANSWER_BYTES as usize)?
                } else {
                    Vec::new()
                };
                match judge(&output, exit) {
                    Ok(answer) => return Ok(Ok(answer)),
                    Err(message) => crash(message),
                }
            }
            End::Late => Accident {
                outcome: Outcome::Timeout,
                message: format!("no answer after {:.1} s, killed", deadline.as_secs_f64()),
            },
            End::Orphaned => {
                crash("the device ended it, because the connection was lost for too long".to_owned())
            }
            End::Vanished { free_kb } => {
                let disk = free_kb.map_or_else(String::new, |free| format!(" ({free} kB are free)"));
                let message = format!(
                    "it ended without a trace: the device was started anew, or its disk is full{disk}"
                );
                return Ok(Err(crash(message)));
            }
        };
        let complaint = self.device.get(&format!("{}/complaint", ended.folder), 1 << 16)?;
        let Accident { outcome, message } = accident;
        Ok(Err(Accident { outcome, message: with_last_words(message, &complaint) }.of_memory()))
    }
}

impl Link for RemoteLink {
    fn settings(&self) -> &AgentSettings {
        &self.settings
    }

    fn provenance(&self) -> Provenance {
        self.provenance
    }

    fn place(&mut self, name: &str, content: &[u8]) -> Result<PathBuf, RunnerError> {
        self.device.place(&format!("models/{name}"), content).map(PathBuf::from)
    }

    fn fetch(&mut self, path: &Path) -> Result<Vec<u8>, RunnerError> {
        self.device.get(&path.to_string_lossy(), OUTPUTS_BYTES)
    }

    fn discard(&mut self, paths: Vec<PathBuf>) {
        let paths: Vec<String> = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        self.device.delete(&paths);
    }

    fn ask(
        &mut self,
        mode: &str,
        request: &impl Serialize,
        deadline: Duration,
    ) -> Result<Result<Answer, Accident>, RunnerError> {
        let mut line = serde_json::to_vec(request).map_err(|error| RunnerError::Answer {
            peer: self.device.peer(),
            message: format!("the request can't be written: {error}"),
        })?;
        line.push(b'\n');
        let mut words = self.launch.clone();
        words.extend([self.agent.clone(), mode.to_owned()]);
        let ended = self.device.run_job(&line, &words, deadline)?;
        let answer = self.answer_of(&ended, deadline)?;
        self.device.forget(&ended);
        match &answer {
            Ok(Answer::Measured(measured)) => self.last_state.clone_from(&measured.after),
            Ok(Answer::Probe(probe)) => self.last_state.clone_from(&probe.state),
            _ => {}
        }
        Ok(answer)
    }

    /// As the agent last read it: a process that only looks would disturb what is measured.
    fn state(&mut self) -> MachineState {
        self.last_state.clone()
    }
}
