//! `lathe device`.

mod layers;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use lathe_latency_db::{Device, Protocol, Provenance};
use lathe_runners::{
    AdbSettings, BenchmarkProgram, EngineChoice, ProgramFile, Runner, TransportError, adb_devices,
    join_words, noise, split_words,
};
use lathe_spaces::{DartsSkeleton, Level, NetworkOptions, Space, Stem, Workload};
use miette::Report;

use crate::{
    arguments::{AgentlessProgram, DeviceArguments, DeviceChoice, DeviceCommand, DeviceEntry, Format},
    devices::{self, DeviceRunner, REGISTRY, RegisteredDevice, Registry, Way},
    exit_codes,
    failure::failed,
    terminal::{self, Terminal, table},
};

/// Runs the subcommand.
pub fn run(arguments: &DeviceArguments, terminal: Terminal) -> Result<u8, Report> {
    match &arguments.command {
        DeviceCommand::Add(entry) => add(entry, terminal),
        DeviceCommand::List { format } => list(*format),
        DeviceCommand::Remove { name } => remove(name, terminal),
        DeviceCommand::Probe { device } => probe(device),
        DeviceCommand::Check { name, model, format } => check(name, model, *format),
        DeviceCommand::Layers { name, network, space, skeleton, format } => layers::run(
            &layers::Request { name, network, space: *space, skeleton: *skeleton, format: *format },
            terminal,
        ),
        DeviceCommand::Noise { device, pairs, seconds } => measure_noise(device, *pairs, *seconds, terminal),
    }
}

fn start(choice: &DeviceChoice) -> Result<DeviceRunner, Report> {
    devices::start(&choice.name, choice.threads, choice.cpus.clone())
}

fn add(entry: &DeviceEntry, terminal: Terminal) -> Result<u8, Report> {
    let mut registry = Registry::load(Path::new(REGISTRY))?;
    if registry.devices.contains_key(&entry.name) && !entry.replace {
        return Err(miette::miette!(
            help = "give another name, or --replace",
            "failed to add the device `{}`: there is one of this name in {REGISTRY}",
            entry.name
        ));
    }
    if let Some(directory) = entry.directory.as_ref().filter(|directory| !directory.starts_with('/')) {
        return Err(miette::miette!(
            "failed to add the device `{}`: --directory expects an absolute path on the device, got `{directory}`",
            entry.name
        ));
    }
    let device = RegisteredDevice {
        way: way(entry)?,
        launch: entry.launch.as_deref().map(split_words).transpose().map_err(failed)?.unwrap_or_default(),
        emulated: entry.emulated,
        directory: entry.directory.clone(),
        agent: entry.agent.as_deref().map(existing).transpose()?,
        engine: EngineChoice {
            name: entry.engine,
            provider: entry.provider.clone(),
            allow_fallback: entry.allow_fallback,
            precision: entry.precision,
        },
        library: entry.library.as_deref().map(existing).transpose()?,
        cluster: entry.cluster.clone(),
        tier: entry.tier.map(Into::into),
        memory: entry.memory,
        provider_library: entry.provider_library.as_deref().map(existing).transpose()?,
        agentless: agentless(entry)?,
    };
    device
        .check()
        .map_err(|message| miette::miette!("failed to add the device `{}`: {message}", entry.name))?;
    let how = device.way.describe();
    registry.devices.insert(entry.name.clone(), device);
    registry.save()?;
    terminal.say(&format!(
        "added {} ({how}) to {REGISTRY}; try it with: lathe device probe {}",
        entry.name, entry.name
    ));
    Ok(exit_codes::OK)
}

fn agentless(entry: &DeviceEntry) -> Result<Option<(BenchmarkProgram, ProgramFile)>, Report> {
    let Some(program) = entry.agentless.agentless else { return Ok(None) };
    let program = match program {
        AgentlessProgram::BenchmarkModel => BenchmarkProgram::BenchmarkModel,
        AgentlessProgram::OnnxruntimePerfTest => BenchmarkProgram::OnnxruntimePerfTest,
    };
    let file = match (&entry.agentless.program, &entry.agentless.program_on_device) {
        (Some(file), _) => ProgramFile::Here(existing(file)?),
        (None, Some(path)) if path.starts_with('/') => ProgramFile::OnDevice(path.clone()),
        (None, Some(path)) => {
            return Err(miette::miette!(
                "failed to add the device `{}`: --program-on-device expects an absolute path, got `{path}`",
                entry.name
            ));
        }
        (None, None) => {
            return Err(miette::miette!(
                help = "name it with --program FILE, or with --program-on-device PATH",
                "failed to add the device `{}`: where {} is was not said",
                entry.name,
                program.name()
            ));
        }
    };
    Ok(Some((program, file)))
}

fn way(entry: &DeviceEntry) -> Result<Way, Report> {
    if let Some(accelerator) = entry.ethos_u {
        return Ok(Way::EthosU {
            accelerator,
            vela: entry.compiler.vela.as_deref().map(existing).transpose()?,
            config: entry.compiler.vela_config.as_deref().map(existing).transpose()?,
            system_config: entry.compiler.system_config.clone(),
            memory_mode: entry.compiler.memory_mode.clone(),
            allow_cpu: entry.compiler.allow_cpu,
        });
    }
    if let Some(address) = &entry.ssh {
        let known_hosts = match (&entry.known_hosts, std::env::home_dir()) {
            (Some(file), _) => existing(file)?,
            (None, Some(home)) => home.join(".ssh/known_hosts"),
            (None, None) => {
                return Err(miette::miette!(
                    help = "name the file with --known-hosts",
                    "failed to find the known hosts: there is no home folder"
                ));
            }
        };
        let identity = match &entry.identity {
            Some(word) if word == Path::new("agent") => None,
            Some(file) => Some(existing(file)?),
            None => None,
        };
        return Ok(Way::Ssh { address: address.clone(), identity, known_hosts });
    }
    match entry.adb.as_deref() {
        Some("") => {
            let attached = adb_devices(AdbSettings::default_port()).map_err(failed)?;
            let mut serials: Vec<String> = attached.into_iter().map(|(serial, _)| serial).collect();
            match serials.len() {
                0 => Err(failed(TransportError::NoDevice)),
                1 => Ok(Way::Adb { serial: serials.swap_remove(0) }),
                _ => Err(failed(TransportError::SeveralDevices { serials })),
            }
        }
        Some(serial) => Ok(Way::Adb { serial: serial.to_owned() }),
        None => Ok(Way::Local),
    }
}

/// The absolute path of a file that must be there.
fn existing(path: &Path) -> Result<PathBuf, Report> {
    std::path::absolute(path)
        .and_then(|path| path.metadata().map(|_| path))
        .map_err(|error| miette::miette!("failed to find {}: {error}", path.display()))
}

fn list(format: Format) -> Result<u8, Report> {
    let registry = Registry::load(Path::new(REGISTRY))?;
    match format {
        Format::Json => {
            let devices: Vec<serde_json::Value> = registry
                .devices
                .iter()
                .map(|(name, device)| {
                    serde_json::json!({
                        "name": name, "way": device.way.describe(), "launch": device.launch,
                        "emulated": device.emulated, "directory": device.directory,
                        "agent": device.agent, "engine": device.engine, "library": device.library,
                        "provider_library": device.provider_library,
                        "cluster": device.cluster, "tier": device.tier,
                        "memory_kb": device.memory.map(|memory| memory.0),
                    })
                })
                .collect();
            terminal::data(&serde_json::to_string_pretty(&devices).map_err(failed)?);
        }
        Format::Text => {
            let usual = EngineChoice::default();
            let local = ["local", "this machine", "", usual.name.word(), ""];
            let mut rows = vec![local.map(str::to_owned).to_vec()];
            rows.extend(registry.devices.iter().map(|(name, device)| {
                let mut launch = join_words(&device.launch);
                if device.emulated {
                    launch.push_str(if launch.is_empty() { "(emulated)" } else { " (emulated)" });
                }
                let tier = device.tier.map_or_else(String::new, |tier| tier.to_string());
                let engine = if let Some((program, _)) = &device.agentless {
                    program.name().to_owned()
                } else if device.engine == usual {
                    usual.name.to_string()
                } else {
                    device.describe_engine()
                };
                vec![name.clone(), device.way.describe(), tier, engine, launch]
            }));
            terminal::data(&table(&["device", "reached by", "tier", "engine", "launch"], &rows));
        }
    }
    Ok(exit_codes::OK)
}

fn remove(name: &str, terminal: Terminal) -> Result<u8, Report> {
    let mut registry = Registry::load(Path::new(REGISTRY))?;
    registry.get(name)?;
    registry.devices.remove(name);
    registry.save()?;
    terminal.say(&format!("removed {name} from {REGISTRY}"));
    Ok(exit_codes::OK)
}

fn probe(choice: &DeviceChoice) -> Result<u8, Report> {
    let runner = start(choice)?;
    let device = runner.device();
    match choice.format {
        Format::Json => {
            let value = serde_json::json!({
                "fingerprint": device.fingerprint(), "provenance": runner.provenance(), "device": device,
                "providers": runner.providers(),
            });
            terminal::data(&serde_json::to_string_pretty(&value).map_err(failed)?);
        }
        Format::Text => {
            let mut rows = facts(device, runner.provenance());
            if !runner.providers().is_empty() {
                rows.push(vec!["providers".into(), runner.providers().join(", ")]);
            }
            terminal::data(&table(&["device", &device.name], &rows));
        }
    }
    Ok(exit_codes::OK)
}

/// Two columns about a device.
pub fn describe(device: &Device, provenance: Provenance) -> String {
    table(&["device", &device.name], &facts(device, provenance))
}

fn facts(device: &Device, provenance: Provenance) -> Vec<Vec<String>> {
    let absent = || "the system does not tell".to_owned();
    let cpus: Vec<String> = device.pinned_cpus.iter().map(ToString::to_string).collect();
    let engine =
        format!("{} {}, provider {}", device.engine.name, device.engine.version, device.engine.provider);
    let frequency = device.max_khz.map_or_else(absent, |khz| format!("up to {} MHz", khz / 1000));
    let mut rows = vec![
        ("fingerprint", device.fingerprint()),
        ("latencies", provenance.to_string()),
        ("tier", device.tier.map_or_else(|| "not said".to_owned(), |tier| tier.to_string())),
        ("model", device.model.clone()),
        ("architecture", device.architecture.clone()),
    ];
    // Of a device that a compiler estimates there is nothing else to be seen.
    if provenance == Provenance::CompilerEstimate {
        rows.extend([("frequency", frequency), ("engine", engine)]);
    } else {
        let memory = match device.memory_limit_kb {
            Some(limit) => format!("{} MiB, limited to {} MiB", device.memory_kb / 1024, limit / 1024),
            None => format!("{} MiB", device.memory_kb / 1024),
        };
        let pinned = match &device.cluster {
            Some(cluster) => format!("core {} of the cluster {cluster}", cpus.join(", ")),
            None => format!("core {}", cpus.join(", ")),
        };
        rows.extend([
            ("cores", device.cores.to_string()),
            ("memory", memory),
            ("system", format!("{}, kernel {}", device.os, device.kernel)),
            ("pinned to", pinned),
            ("governor", device.governor.clone().unwrap_or_else(absent)),
            ("frequency", frequency),
            ("threads", device.threads.to_string()),
            ("engine", engine),
        ]);
    }
    rows.into_iter().map(|(key, value)| vec![key.into(), value]).collect()
}

fn check(name: &str, model: &Path, format: Format) -> Result<u8, Report> {
    let mut runner = devices::start(name, 1, None)?;
    let placements = runner.check(model)?;
    let provider = &runner.device().engine.provider;
    // What a fingerprint adds to the provider's name comes after a comma.
    let provider = provider.split(',').next().unwrap_or(provider);
    let taken = placements.iter().filter(|placement| placement.provider == provider).count();
    match format {
        Format::Json => {
            let value = serde_json::json!({
                "device": runner.device().fingerprint(), "engine": runner.device().engine,
                "provenance": runner.provenance(), "taken": taken, "nodes": placements,
            });
            terminal::data(&serde_json::to_string_pretty(&value).map_err(failed)?);
        }
        Format::Text => {
            let rows: Vec<Vec<String>> = placements
                .iter()
                .map(|placement| {
                    vec![placement.node.clone(), placement.operator.clone(), placement.provider.clone()]
                })
                .collect();
            terminal::data(&format!(
                "{}\n{provider} takes {taken} of {} nodes",
                table(&["node", "operator", "runs on"], &rows),
                placements.len()
            ));
        }
    }
    Ok(if taken == placements.len() { exit_codes::OK } else { exit_codes::DEVICE_FAILED })
}

fn measure_noise(
    choice: &DeviceChoice,
    pairs: usize,
    seconds: f64,
    terminal: Terminal,
) -> Result<u8, Report> {
    let mut runner = start(choice)?;
    if runner.provenance() == Provenance::CompilerEstimate {
        return Err(miette::miette!(
            "failed to test the noise of {}: a compiler's estimate is the same each time",
            choice.name
        ));
    }
    // A small network of the best-known space: a few hundred microseconds on most processors.
    let skeleton = DartsSkeleton { stem: Stem::Cifar, width: 8, layers: 3, resolution: 32, classes: 10 };
    let space = Space::darts(skeleton);
    let Some((name, genotype)) = space.published().into_iter().next() else {
        return Err(miette::miette!("failed to test the noise: the space has no published network"));
    };
    let graph = space.network(&genotype, NetworkOptions::default()).map_err(failed)?;
    let workload = Workload::new(name, Level::Network, graph);
    let protocol = Protocol { min_seconds: seconds, processes: 1, ..Protocol::SCREENING };
    let mut bar = terminal.bar("A/A test", pairs);
    let noise = noise(&mut runner, &workload, &protocol, pairs, 0, &mut |done| {
        bar.set(done, pairs, "the same network, twice each time");
        ControlFlow::Continue(())
    });
    bar.done();
    // Nothing breaks the test off here: Ctrl-C ends the program, and there is nothing to lose.
    let Some(noise) = noise.map_err(failed)? else { return Ok(exit_codes::INTERRUPTED) };
    match choice.format {
        Format::Json => {
            let value = serde_json::json!({
                "device": runner.device().fingerprint(), "pairs": noise.pairs,
                "smallest_difference": noise.smallest_difference, "drift": noise.drift, "ratios": noise.ratios,
            });
            terminal::data(&serde_json::to_string_pretty(&value).map_err(failed)?);
        }
        Format::Text => terminal::data(&format!(
            "{}: differences below {:.2} % can't be told apart ({} pairs; drift over the test {:+.2} %)",
            runner.device().name,
            noise.smallest_difference * 100.0,
            noise.pairs,
            noise.drift * 100.0
        )),
    }
    Ok(exit_codes::OK)
}
