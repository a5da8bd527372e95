//! From a device's name to what drives it.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use lathe_latency_db::{Device, Measurement, Provenance};
use lathe_runners::{
    AdbSettings, AdbTransport, AgentlessRunner, AgentlessSettings, EthosURunner, EthosUSettings, Job,
    LocalRunner, LocalSettings, LocalTransport, Placement, RemoteRunner, RemoteSettings, Runner, RunnerError,
    SshIdentity, SshSettings, SshTransport, Transport,
};
use lathe_spaces::{Decoded, Precision, Shape, Workload, decode_onnx, evaluate};
use miette::Report;

use super::registry::{LOCAL, REGISTRY, RegisteredDevice, Registry, Way};
use crate::failure::failed;

/// Where the agent lives on a phone: the one folder that adb's shell may write to and run from.
const ANDROID_DIRECTORY: &str = "/data/local/tmp/lathe";

/// What drives a device: this machine, or one that is reached over a transport.
#[derive(Debug)]
pub enum DeviceRunner {
    /// This machine.
    Local(Box<LocalRunner>),
    /// An NPU that a compiler estimates.
    EthosU(Box<EthosURunner>),
    /// A stock benchmark program on a device without an agent.
    Agentless(Box<AgentlessRunner>),
    /// Any other.
    Remote(Box<RemoteRunner>),
}

/// The device of this name: `local` is this machine, every other name stands in the registry.
pub fn start(name: &str, threads: usize, cpus: Option<Vec<usize>>) -> Result<DeviceRunner, Report> {
    if name == LOCAL {
        let settings = LocalSettings { threads, cpus, ..LocalSettings::new(name) };
        let runner = LocalRunner::start(settings).map_err(failed)?;
        return Ok(DeviceRunner::Local(Box::new(runner)));
    }
    let registry = Registry::load(Path::new(REGISTRY))?;
    let device = registry.get(name)?;
    if device.in_place() {
        let settings = LocalSettings {
            agent: device.agent.clone(),
            engine: device.engine.clone(),
            library: device.library.clone(),
            provider_library: device.provider_library.clone(),
            cluster: device.cluster.clone().filter(|_| cpus.is_none()),
            tier: device.tier,
            memory_kb: device.memory.map(|memory| memory.0),
            threads,
            cpus,
            ..LocalSettings::new(name)
        };
        let runner = LocalRunner::start(settings).map_err(failed)?;
        return Ok(DeviceRunner::Local(Box::new(runner)));
    }
    if let Way::EthosU { accelerator, vela, config, system_config, memory_mode, allow_cpu } = &device.way {
        let settings = EthosUSettings {
            vela: vela.clone(),
            config: config.clone(),
            system_config: system_config.clone(),
            memory_mode: memory_mode.clone(),
            allow_cpu: *allow_cpu,
            ..EthosUSettings::new(name, *accelerator)
        };
        let runner = EthosURunner::start(settings).map_err(failed)?;
        return Ok(DeviceRunner::EthosU(Box::new(runner)));
    }
    if let Some((program, file)) = &device.agentless {
        let settings = AgentlessSettings {
            directory: directory(device),
            launch: device.launch.clone(),
            emulated: device.emulated,
            cpus: cpus.unwrap_or_default(),
            threads,
            tier: device.tier,
            ..AgentlessSettings::new(name, *program, file.clone())
        };
        let runner = AgentlessRunner::start(settings, transport(&device.way)).map_err(failed)?;
        return Ok(DeviceRunner::Agentless(Box::new(runner)));
    }
    let settings = RemoteSettings {
        engine: device.engine.clone(),
        agent: device.agent.clone(),
        library: device.library.clone(),
        directory: directory(device),
        launch: device.launch.clone(),
        emulated: device.emulated,
        // Cores that are asked for go before those that the registry names.
        cluster: device.cluster.clone().filter(|_| cpus.is_none()),
        tier: device.tier,
        memory_kb: device.memory.map(|memory| memory.0),
        cpus,
        threads,
        ..RemoteSettings::new(name)
    };
    let runner = RemoteRunner::start(settings, transport(&device.way)).map_err(failed)?;
    Ok(DeviceRunner::Remote(Box::new(runner)))
}

/// What two devices share if they can't be measured at the same time: the machine that they run on.
pub fn machine(name: &str) -> Result<String, Report> {
    if name == LOCAL {
        return Ok(LOCAL.to_owned());
    }
    let registry = Registry::load(Path::new(REGISTRY))?;
    Ok(match &registry.get(name)?.way {
        // A compiler's processes would disturb what is timed on this machine.
        Way::Local | Way::EthosU { .. } => LOCAL.to_owned(),
        Way::Ssh { address, .. } if matches!(address.host.as_str(), "localhost" | "127.0.0.1" | "::1") => {
            LOCAL.to_owned()
        }
        Way::Ssh { address, .. } => address.host.clone(),
        Way::Adb { serial } => format!("adb {serial}"),
    })
}

fn directory(device: &RegisteredDevice) -> Option<String> {
    match (&device.directory, &device.way) {
        (Some(directory), _) => Some(directory.clone()),
        (None, Way::Adb { .. }) => Some(ANDROID_DIRECTORY.to_owned()),
        (None, _) => None,
    }
}

fn transport(way: &Way) -> Box<dyn Transport> {
    match way {
        // What a compiler estimates is reached by nothing; `start` has taken it before.
        Way::Local | Way::EthosU { .. } => Box::new(LocalTransport),
        Way::Ssh { address, identity, known_hosts } => Box::new(SshTransport::new(SshSettings {
            user: address.user.clone(),
            host: address.host.clone(),
            port: address.port,
            identity: identity.clone().map_or(SshIdentity::Agent, SshIdentity::File),
            known_hosts: PathBuf::from(known_hosts),
        })),
        Way::Adb { serial } => Box::new(AdbTransport::new(AdbSettings {
            serial: serial.clone(),
            server_port: AdbSettings::default_port(),
        })),
    }
}

impl DeviceRunner {
    /// Whether the device itself computes outputs that can be looked at.
    pub const fn gives_outputs(&self) -> bool {
        matches!(self, Self::Local(_) | Self::Remote(_))
    }

    /// See [`LocalRunner::check`].
    pub fn check(&mut self, model: &Path) -> Result<Vec<Placement>, Report> {
        match self {
            Self::Local(runner) => runner.check(model).map_err(failed),
            Self::Remote(runner) => runner.check(model).map_err(failed),
            Self::EthosU(_) | Self::Agentless(_) => Err(miette::miette!(
                help = "`lathe device layers` shows what an Ethos-U's compiler says of every layer",
                "failed to check {} on {}: no agent runs there that could tell",
                model.display(),
                self.device().name
            )),
        }
    }

    /// See [`LocalRunner::providers`].
    pub fn providers(&self) -> &[String] {
        match self {
            Self::Local(runner) => runner.providers(),
            Self::Remote(runner) => runner.providers(),
            Self::EthosU(_) | Self::Agentless(_) => &[],
        }
    }

    /// See [`LocalRunner::evaluate`]. Where nothing runs, the reference interpreter computes what the file
    /// says.
    pub fn evaluate(&mut self, model: &Path, inputs: &[f32], shape: Shape) -> Result<Vec<f32>, Report> {
        match self {
            Self::Local(runner) => runner.evaluate(model, inputs, shape).map_err(failed),
            Self::Remote(runner) => runner.evaluate(model, inputs, shape).map_err(failed),
            Self::EthosU(_) | Self::Agentless(_) => interpret(model, inputs, shape),
        }
    }
}

/// Computes an ONNX file's outputs, image by image.
fn interpret(model: &Path, inputs: &[f32], shape: Shape) -> Result<Vec<f32>, Report> {
    let bytes =
        fs::read(model).map_err(|error| miette::miette!("failed to read {}: {error}", model.display()))?;
    let Decoded { graph, weights, .. } = decode_onnx(&bytes).map_err(failed)?;
    let weights =
        weights.ok_or_else(|| miette::miette!("failed to run {}: it has no weights", model.display()))?;
    let mut outputs = Vec::new();
    for image in inputs.chunks(shape.elements()) {
        outputs.extend(evaluate(&graph, &weights, image).map_err(failed)?);
    }
    Ok(outputs)
}

impl Runner for DeviceRunner {
    fn device(&self) -> &Device {
        match self {
            Self::Local(runner) => runner.device(),
            Self::EthosU(runner) => runner.device(),
            Self::Agentless(runner) => runner.device(),
            Self::Remote(runner) => runner.device(),
        }
    }

    fn provenance(&self) -> Provenance {
        match self {
            Self::Local(runner) => runner.provenance(),
            Self::EthosU(runner) => runner.provenance(),
            Self::Agentless(runner) => runner.provenance(),
            Self::Remote(runner) => runner.provenance(),
        }
    }

    fn computes(&self, precision: Precision) -> bool {
        match self {
            Self::Local(runner) => runner.computes(precision),
            Self::EthosU(runner) => runner.computes(precision),
            Self::Agentless(runner) => runner.computes(precision),
            Self::Remote(runner) => runner.computes(precision),
        }
    }

    fn run(
        &mut self,
        workloads: &[Workload],
        job: &Job,
        sink: &mut dyn FnMut(Measurement) -> ControlFlow<()>,
    ) -> Result<(), RunnerError> {
        match self {
            Self::Local(runner) => runner.run(workloads, job, sink),
            Self::EthosU(runner) => runner.run(workloads, job, sink),
            Self::Agentless(runner) => runner.run(workloads, job, sink),
            Self::Remote(runner) => runner.run(workloads, job, sink),
        }
    }
}
