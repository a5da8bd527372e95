//! The machine that Lathe itself runs on.

use std::{
    env, fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use lathe_latency_db::{Device, MachineState, Measurement, Provenance, Tier};
use lathe_spaces::{Shape, Workload};
use serde::Serialize;
use tempfile::TempDir;

use crate::{
    AgentSettings, Answer, EngineChoice, Job, PROTOCOL_VERSION, Placement, Runner, RunnerError,
    agent_runner::{AgentRunner, Link, Naming, cluster_cores},
    child::{self, Accident},
    device_facts,
    find::{choose_cpus, find_agent, find_library},
    machine_state,
};

/// How the local runner is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalSettings {
    /// Alias of the device.
    pub name: String,
    /// Agent program; if absent, `$LATHE_AGENT`, else `lathe-agent` beside the running program.
    pub agent: Option<PathBuf>,
    /// Engine, and what is asked of it.
    pub engine: EngineChoice,
    /// The engine's library, or its folder; if absent, [`EngineName::library`](crate::EngineName::library)
    /// names it.
    pub library: Option<PathBuf>,
    /// A library that brings ONNX Runtime an execution provider, as [`AgentSettings::provider_library`].
    pub provider_library: Option<PathBuf>,
    /// Cores to be pinned to; if absent, the last ones of the affinity mask, one per thread.
    pub cpus: Option<Vec<usize>>,
    /// Threads that the engine may use.
    pub threads: usize,
    /// Where `proc`, `sys` and `etc` are looked for: `/`, or a tree that stands in for it.
    pub state_root: PathBuf,
    /// Cluster of cores to choose from, in place of `cpus`; [`crate::CoreCluster`] tells the names.
    pub cluster: Option<String>,
    /// Kind of device.
    pub tier: Option<Tier>,
    /// Most memory that the agent may hold for data, in kilobytes.
    pub memory_kb: Option<u64>,
}

impl LocalSettings {
    /// One thread on the last core, agent and library found by themselves.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            agent: None,
            engine: EngineChoice::default(),
            library: None,
            provider_library: None,
            cpus: None,
            threads: 1,
            state_root: PathBuf::from("/"),
            cluster: None,
            tier: None,
            memory_kb: None,
        }
    }
}

/// Drives the agent on this machine, one process per workload and launch.
#[derive(Debug)]
pub struct LocalRunner(AgentRunner<LocalLink>);

impl LocalRunner {
    /// Finds the agent and the library, and asks the agent what this device is.
    pub fn start(settings: LocalSettings) -> Result<Self, RunnerError> {
        let agent = find_agent(settings.agent)?;
        let library = find_library(settings.engine.name, settings.library, &agent)?.file;
        let cpus = match &settings.cluster {
            Some(cluster) => {
                let facts = device_facts(&settings.state_root, &[]);
                Some(cluster_cores(&settings.name, &facts.clusters, cluster, settings.threads)?)
            }
            None => settings.cpus,
        };
        let explicit = cpus.is_some();
        let cpus = choose_cpus(cpus, settings.threads)?;
        let folder = env::temp_dir();
        let link = LocalLink {
            agent,
            settings: AgentSettings {
                version: PROTOCOL_VERSION,
                engine: settings.engine,
                library,
                provider_library: settings.provider_library,
                cpus,
                threads: settings.threads,
                state_root: settings.state_root,
                memory_kb: settings.memory_kb,
            },
            folder: tempfile::Builder::new()
                .prefix("lathe-")
                .tempdir()
                .map_err(RunnerError::file("make a folder under", &folder))?,
        };
        let naming = Naming { name: settings.name, cluster: settings.cluster, tier: settings.tier };
        AgentRunner::start(link, naming, explicit).map(Self)
    }

    /// Runs an ONNX file of one input on `inputs`, which holds whole inputs of `shape` one after the
    /// other, and returns the first outputs in the same order. For checks of equality, not timed.
    pub fn evaluate(&mut self, model: &Path, inputs: &[f32], shape: Shape) -> Result<Vec<f32>, RunnerError> {
        self.0.evaluate(model, inputs, shape)
    }

    /// Which execution provider takes which node of an ONNX file of one input: whether it compiles for
    /// the device's accelerator. Nothing is timed.
    pub fn check(&mut self, model: &Path) -> Result<Vec<Placement>, RunnerError> {
        self.0.check(model)
    }

    /// Execution providers that the device's engine has.
    pub fn providers(&self) -> &[String] {
        self.0.providers()
    }
}

impl Runner for LocalRunner {
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

/// An agent that is a child of this process.
#[derive(Debug)]
struct LocalLink {
    agent: PathBuf,
    settings: AgentSettings,
    folder: TempDir,
}

impl Link for LocalLink {
    fn settings(&self) -> &AgentSettings {
        &self.settings
    }

    fn provenance(&self) -> Provenance {
        if self.settings.engine.emulates(env::consts::ARCH) {
            Provenance::Emulated
        } else {
            Provenance::Measured
        }
    }

    fn place(&mut self, name: &str, content: &[u8]) -> Result<PathBuf, RunnerError> {
        let path = self.folder.path().join(name);
        fs::write(&path, content).map_err(RunnerError::file("write", &path))?;
        Ok(path)
    }

    fn fetch(&mut self, path: &Path) -> Result<Vec<u8>, RunnerError> {
        fs::read(path).map_err(RunnerError::file("read", path))
    }

    fn discard(&mut self, paths: Vec<PathBuf>) {
        for path in paths {
            // What stays goes with the folder.
            let _ = fs::remove_file(path);
        }
    }

    fn ask(
        &mut self,
        mode: &str,
        request: &impl Serialize,
        deadline: Duration,
    ) -> Result<Result<Answer, Accident>, RunnerError> {
        child::ask(&self.agent, mode, request, deadline)
    }

    fn state(&mut self) -> MachineState {
        machine_state(&self.settings.state_root, &self.settings.cpus)
    }

    fn look(&mut self) -> Result<MachineState, RunnerError> {
        Ok(self.state())
    }
}
