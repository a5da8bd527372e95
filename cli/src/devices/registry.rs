//! The file of devices.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use lathe_latency_db::Tier;
use lathe_runners::{
    Accelerator, BenchmarkProgram, EngineChoice, EngineName, ExecutedPrecision, ProgramFile, join_words,
    split_words,
};
use miette::Report;

use super::{Kilobytes, SshAddress};
use crate::config::{Section, closest, parse_document};

/// Where the file is, from the folder in which `lathe` is started.
pub const REGISTRY: &str = ".lathe/devices.toml";
/// The device that needs no entry.
pub const LOCAL: &str = "local";

/// Words for kinds of devices.
const TIERS: [(&str, Tier); 4] = [
    ("phone", Tier::Phone),
    ("edge-cpu", Tier::EdgeCpu),
    ("edge-accelerator", Tier::EdgeAccelerator),
    ("server", Tier::Server),
];

/// How a device is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is this machine.
    Local,
    /// By SSH.
    Ssh {
        /// User, host and port.
        address: SshAddress,
        /// Private key file; the ssh-agent's keys if absent.
        identity: Option<PathBuf>,
        /// File of known hosts.
        known_hosts: PathBuf,
    },
    /// Not at all: a compiler estimates it.
    EthosU {
        /// Which of the family.
        accelerator: Accelerator,
        /// The compiler.
        vela: Option<PathBuf>,
        /// Its configuration file.
        config: Option<PathBuf>,
        /// Section of that file for the system.
        system_config: Option<String>,
        /// Section of that file for the use of memory.
        memory_mode: Option<String>,
        /// Whether operators may stay on the CPU.
        allow_cpu: bool,
    },
    /// By adb.
    Adb {
        /// Serial.
        serial: String,
    },
}

impl Way {
    /// For tables.
    pub fn describe(&self) -> String {
        match self {
            Self::Local => "this machine".to_owned(),
            Self::Ssh { address, .. } => format!("ssh {address}"),
            Self::Adb { serial } => format!("adb {serial}"),
            Self::EthosU { accelerator, .. } => format!("compiler estimate, {accelerator}"),
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredDevice {
    /// How it is reached.
    pub way: Way,
    /// Words before the agent's own.
    pub launch: Vec<String>,
    /// Whether it is emulated, so that its latencies are never called measured.
    pub emulated: bool,
    /// Folder on the device.
    pub directory: Option<String>,
    /// Agent program for it, on this machine.
    pub agent: Option<PathBuf>,
    /// Engine, and what is asked of it.
    pub engine: EngineChoice,
    /// The engine's library for it, or its folder, on this machine.
    pub library: Option<PathBuf>,
    /// Cluster of cores that its cores are chosen from.
    pub cluster: Option<String>,
    /// Kind of device.
    pub tier: Option<Tier>,
    /// Most memory that the agent may hold for data.
    pub memory: Option<Kilobytes>,
    /// Library that brings the engine its provider.
    pub provider_library: Option<PathBuf>,
    /// Stock benchmark program that is driven in place of an agent, and where it is.
    pub agentless: Option<(BenchmarkProgram, ProgramFile)>,
}

/// All entries, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    path: PathBuf,
    /// Entries.
    pub devices: BTreeMap<String, RegisteredDevice>,
}

impl RegisteredDevice {
    /// Whether it is this machine as it is, so that nothing has to be copied anywhere.
    pub fn in_place(&self) -> bool {
        self.way == Way::Local
            && self.agentless.is_none()
            && self.launch.is_empty()
            && !self.emulated
            && self.directory.is_none()
    }

    /// Whether its keys fit together.
    pub fn check(&self) -> Result<(), String> {
        self.engine.check()?;
        if self.agentless.is_some() {
            let foreign = [
                ("agent", self.agent.is_some()),
                ("library", self.library.is_some()),
                ("memory", self.memory.is_some()),
                ("cluster", self.cluster.is_some()),
                ("provider", self.engine != EngineChoice::default()),
            ];
            if let Some((key, _)) = foreign.into_iter().find(|(_, there)| *there) {
                return Err(format!("{key}: a device without an agent has none"));
            }
        }
        if self.provider_library.is_some() && !self.in_place() {
            return Err(
                "provider_library: only on this machine, without launch, emulated and directory".into()
            );
        }
        Ok(())
    }

    /// The engine for tables, where it isn't the usual one.
    pub fn describe_engine(&self) -> String {
        format!("{} {}", self.engine.name, self.engine.provider_text())
    }
}

impl Registry {
    /// Reads the file; there are no devices if there is none.
    pub fn load(path: &Path) -> Result<Self, Report> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(miette::miette!("failed to read the devices {}: {error}", path.display()));
            }
        };
        let devices = parse_document(path, &text, "docs/DEVICES.md", read)?;
        Ok(Self { path: path.to_owned(), devices })
    }

    /// The entry of this name.
    pub fn get(&self, name: &str) -> Result<&RegisteredDevice, Report> {
        self.devices.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.devices.keys().map(String::as_str).collect();
            let help = if let Some(word) = closest(name, &names) {
                format!("did you mean `{word}`?")
            } else if names.is_empty() {
                format!("add it with `lathe device add {name} …`; `{LOCAL}` is this machine")
            } else {
                format!("known are {LOCAL}, {}; add it with `lathe device add {name} …`", names.join(", "))
            };
            miette::miette!(
                help = help,
                "failed to find the device `{name}`: it is not in {}",
                self.path.display()
            )
        })
    }

    /// Writes the file: under another name, synced, then renamed.
    pub fn save(&self) -> Result<(), Report> {
        let write = || {
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or_else(|| Path::new("."));
            fs::create_dir_all(folder)?;
            let mut file = tempfile::Builder::new().prefix(".devices").tempfile_in(folder)?;
            file.write_all(self.text().as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map(|_| ()).map_err(|error| error.error)
        };
        write().map_err(|error| miette::miette!("failed to write {}: {error}", self.path.display()))
    }

    fn text(&self) -> String {
        let mut text =
            String::from("# Devices of `lathe device`; every key is described in docs/DEVICES.md.\n");
        for (name, device) in &self.devices {
            let mut table = toml::Table::new();
            let path = |path: &Path| toml::Value::from(path.display().to_string());
            match &device.way {
                Way::Local => {
                    table.insert("local".into(), true.into());
                }
                Way::Ssh { address, identity, known_hosts } => {
                    table.insert("ssh".into(), address.to_string().into());
                    table.insert("identity".into(), identity.as_deref().map_or_else(|| "agent".into(), path));
                    table.insert("known_hosts".into(), path(known_hosts));
                }
                Way::Adb { serial } => {
                    table.insert("adb".into(), serial.clone().into());
                }
                Way::EthosU { accelerator, vela, config, system_config, memory_mode, allow_cpu } => {
                    table.insert("ethos_u".into(), accelerator.name().into());
                    let files = [("vela", vela), ("vela_config", config)]
                        .map(|(key, file)| (key, file.as_deref().map(path)));
                    let names = [("system_config", system_config), ("memory_mode", memory_mode)]
                        .map(|(key, name)| (key, name.clone().map(toml::Value::from)));
                    for (key, value) in files.into_iter().chain(names) {
                        table.extend(value.map(|value| (key.to_owned(), value)));
                    }
                    if *allow_cpu {
                        table.insert("allow_cpu".into(), true.into());
                    }
                }
            }
            if !device.launch.is_empty() {
                table.insert("launch".into(), join_words(&device.launch).into());
            }
            if device.emulated {
                table.insert("emulated".into(), true.into());
            }
            if let Some(directory) = &device.directory {
                table.insert("directory".into(), directory.clone().into());
            }
            let plain = EngineChoice::default();
            if device.engine.name != plain.name {
                table.insert("engine".into(), device.engine.name.word().into());
            }
            if device.engine.provider != plain.provider {
                table.insert("provider".into(), device.engine.provider.clone().into());
            }
            if device.engine.precision != plain.precision {
                table.insert("precision".into(), device.engine.precision.word().into());
            }
            if device.engine.allow_fallback {
                table.insert("allow_fallback".into(), true.into());
            }
            for (key, file) in [
                ("agent", &device.agent),
                ("library", &device.library),
                ("provider_library", &device.provider_library),
            ] {
                if let Some(file) = file {
                    table.insert(key.into(), path(file));
                }
            }
            if let Some(cluster) = &device.cluster {
                table.insert("cluster".into(), cluster.clone().into());
            }
            if let Some((program, file)) = &device.agentless {
                table.insert("agentless".into(), program.name().into());
                match file {
                    ProgramFile::Here(file) => table.insert("program".into(), path(file)),
                    ProgramFile::OnDevice(file) => {
                        table.insert("program_on_device".into(), file.clone().into())
                    }
                };
            }
            if let Some(memory) = device.memory {
                table.insert("memory".into(), memory.to_string().into());
            }
            if let Some((word, _)) = TIERS.iter().find(|(_, tier)| Some(*tier) == device.tier) {
                table.insert("tier".into(), (*word).into());
            }
            // Writing to a string never fails; names have only letters that need no quotes.
            let _ = write!(text, "\n[{name}]\n{table}");
        }
        text
    }
}

/// Whether a device may have this name: it stands in tables, file names and TOML.
pub fn check_name(name: &str) -> Result<(), String> {
    if name == LOCAL {
        return Err(format!("`{LOCAL}` is this machine and needs no entry"));
    }
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(format!("expected letters, digits, - and _, got `{name}`"));
    }
    Ok(())
}

fn read(root: Section<'_>) -> BTreeMap<String, RegisteredDevice> {
    let mut devices = BTreeMap::new();
    for name in root.keys() {
        let section = root.section(&name);
        if let Err(message) = check_name(&name) {
            root.fault(&name, message, None);
        }
        if let Some(device) = read_device(&section) {
            devices.insert(name, device);
        }
        section.close();
    }
    root.close();
    devices
}

/// A stock benchmark program, if the section names one.
fn read_agentless(section: &Section<'_>) -> Option<(BenchmarkProgram, ProgramFile)> {
    let word = section.text("agentless");
    let (here, there) = (section.path_value("program"), section.text("program_on_device"));
    let Some(word) = word else {
        for (key, given) in [("program", here.is_some()), ("program_on_device", there.is_some())] {
            if given {
                section.fault(key, "only a device with `agentless` has one", None);
            }
        }
        return None;
    };
    let program = BenchmarkProgram::ALL.into_iter().find(|program| program.name() == word);
    if program.is_none() {
        let known = BenchmarkProgram::ALL.map(BenchmarkProgram::name).join(" or ");
        section.fault("agentless", format!("expected {known}, got \"{word}\""), None);
    }
    let file = match (here, there) {
        (Some(file), None) => Some(ProgramFile::Here(file)),
        (None, Some(file)) if file.starts_with('/') => Some(ProgramFile::OnDevice(file)),
        (None, Some(_)) => {
            section.fault("program_on_device", "expected an absolute path on the device", None);
            None
        }
        _ => {
            section.fault("program", "expected one of program and program_on_device", None);
            None
        }
    };
    Some((program?, file?))
}

fn read_tier(section: &Section<'_>) -> Option<Tier> {
    let word = section.text("tier")?;
    let found = TIERS.iter().find(|(known, _)| *known == word).map(|(_, tier)| *tier);
    if found.is_none() {
        let known: Vec<&str> = TIERS.iter().map(|(word, _)| *word).collect();
        section.fault("tier", format!("expected one of {}, got \"{word}\"", known.join(", ")), None);
    }
    found
}

fn read_device(section: &Section<'_>) -> Option<RegisteredDevice> {
    let ssh = section.text("ssh");
    let adb = section.text("adb");
    let local = section.flag("local", false);
    let ethos_u = section.text("ethos_u");
    let estimated = read_ethos_u(section, ethos_u.as_deref());
    let identity = section.text("identity");
    let known_hosts = section.path_value("known_hosts");
    let launch = section.text("launch").map(|text| split_words(&text)).transpose();
    let device = RegisteredDevice {
        way: Way::Local,
        launch: launch
            .unwrap_or_else(|error| {
                section.fault("launch", format!("failed to {error}"), None);
                None
            })
            .unwrap_or_default(),
        emulated: section.flag("emulated", false),
        directory: section.text("directory"),
        agent: section.path_value("agent"),
        engine: read_engine(section),
        library: section.path_value("library"),
        cluster: section.text("cluster"),
        tier: read_tier(section),
        memory: section.text("memory").and_then(|text| {
            text.parse().map_err(|message: String| section.fault("memory", message, None)).ok()
        }),
        provider_library: section.path_value("provider_library"),
        agentless: read_agentless(section),
    };
    if device.directory.as_ref().is_some_and(|directory| !directory.starts_with('/')) {
        section.fault("directory", "expected an absolute path on the device", None);
    }
    let ways = [ssh.is_some(), adb.is_some(), ethos_u.is_some(), local];
    let ways = ways.into_iter().filter(|there| *there).count();
    if ways != 1 {
        let message = format!("expected one of ssh, adb, ethos_u and local = true, got {ways} of them");
        section.fault("ssh", message, None);
        return None;
    }
    if ethos_u.is_some() {
        return Some(RegisteredDevice { way: estimated?, ..device });
    }
    if ssh.is_none() {
        for (key, there) in [("identity", identity.is_some()), ("known_hosts", known_hosts.is_some())] {
            if there {
                section.fault(key, "only a device with `ssh` has one", None);
            }
        }
    }
    let way = match (ssh, adb) {
        (Some(text), _) => {
            let address = text.parse().map_err(|message: String| section.fault("ssh", message, None)).ok();
            let Some(identity) = identity else {
                let hint = "a private key file, or \"agent\" for the keys of the ssh-agent";
                section.fault("identity", "missing", Some(hint.into()));
                return None;
            };
            let Some(known_hosts) = known_hosts else {
                section.fault("known_hosts", "missing", Some("the file that holds the host's key".into()));
                return None;
            };
            let identity = (identity != "agent").then(|| PathBuf::from(identity));
            Way::Ssh { address: address?, identity, known_hosts }
        }
        (None, Some(serial)) => Way::Adb { serial },
        (None, None) => Way::Local,
    };
    let device = RegisteredDevice { way, ..device };
    if let Err(message) = device.check() {
        let (key, message) = message.split_once(": ").unwrap_or(("engine", message.as_str()));
        section.fault(key, message, None);
    }
    Some(device)
}

fn read_engine(section: &Section<'_>) -> EngineChoice {
    let plain = EngineChoice::default();
    let engines = EngineName::ALL.map(EngineName::word);
    let precisions = ExecutedPrecision::ALL.map(ExecutedPrecision::word);
    EngineChoice {
        name: section.choice("engine", &engines, plain.name.word()).parse().unwrap_or_default(),
        provider: section.text("provider").unwrap_or(plain.provider),
        allow_fallback: section.flag("allow_fallback", plain.allow_fallback),
        precision: section
            .choice("precision", &precisions, plain.precision.word())
            .parse()
            .unwrap_or_default(),
    }
}

/// A compiler's device, if the section names one.
fn read_ethos_u(section: &Section<'_>, name: Option<&str>) -> Option<Way> {
    let (vela, config) = (section.path_value("vela"), section.path_value("vela_config"));
    let (system_config, memory_mode) = (section.text("system_config"), section.text("memory_mode"));
    let allow_cpu = section.flag("allow_cpu", false);
    let Some(name) = name else {
        let keys = [
            ("vela", vela.is_some()),
            ("vela_config", config.is_some()),
            ("system_config", system_config.is_some()),
            ("memory_mode", memory_mode.is_some()),
            ("allow_cpu", allow_cpu),
        ];
        for (key, _) in keys.into_iter().filter(|(_, there)| *there) {
            section.fault(key, "only a device with `ethos_u` has one", None);
        }
        return None;
    };
    let accelerator = name.parse().map_err(|message: String| section.fault("ethos_u", message, None)).ok()?;
    Some(Way::EthosU { accelerator, vela, config, system_config, memory_mode, allow_cpu })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn device(way: Way) -> RegisteredDevice {
        RegisteredDevice {
            way,
            launch: Vec::new(),
            emulated: false,
            directory: None,
            agent: None,
            engine: EngineChoice::default(),
            library: None,
            cluster: None,
            tier: None,
            memory: None,
            provider_library: None,
            agentless: None,
        }
    }

    #[test]
    fn what_was_written_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/devices.toml");
        let mut registry = Registry::load(&path).unwrap();
        assert!(registry.devices.is_empty());
        let address: SshAddress = "pi@[::1]:2222".parse().unwrap();
        let known_hosts = PathBuf::from("/home/me/known \"hosts\"");
        let ssh =
            |identity| Way::Ssh { address: address.clone(), identity, known_hosts: known_hosts.clone() };
        registry.devices.insert("pi-4".into(), device(ssh(Some("/home/me/key".into()))));
        registry.devices.insert("server".into(), device(ssh(None)));
        registry.devices.insert("phone".into(), device(Way::Adb { serial: "10.0.0.2:5555".into() }));
        let tools = [
            (
                BenchmarkProgram::BenchmarkModel,
                ProgramFile::OnDevice("/data/local/tmp/benchmark_model".into()),
            ),
            (BenchmarkProgram::OnnxruntimePerfTest, ProgramFile::Here("/tools/perf test".into())),
        ];
        for (name, agentless) in ["tflite", "ort"].into_iter().zip(tools) {
            let plain = device(Way::Adb { serial: "x".into() });
            registry.devices.insert(name.into(), RegisteredDevice { agentless: Some(agentless), ..plain });
        }
        for (name, full) in [("npu", true), ("npu-2", false)] {
            let way = Way::EthosU {
                accelerator: "u65-512".parse().unwrap(),
                vela: full.then(|| "/tools/vela".into()),
                config: full.then(|| "/tools/vela.ini".into()),
                system_config: full.then(|| "Fast".into()),
                memory_mode: full.then(|| "Shared".into()),
                allow_cpu: full,
            };
            registry.devices.insert(name.into(), device(way));
        }
        let emulator = RegisteredDevice {
            launch: vec!["qemu-aarch64-static".into(), "-L".into(), "/a b/c".into()],
            emulated: true,
            directory: Some("/data/lathe".into()),
            agent: Some("/agents/aarch64".into()),
            library: Some("/libraries/aarch64.so".into()),
            cluster: Some("big".into()),
            tier: Some(Tier::EdgeCpu),
            memory: Some("200M".parse().unwrap()),
            ..device(Way::Local)
        };
        registry.devices.insert("emulator".into(), emulator);
        let openvino = RegisteredDevice {
            engine: EngineChoice {
                precision: ExecutedPrecision::Bf16,
                ..EngineChoice::new(EngineName::Openvino)
            },
            ..device(Way::Local)
        };
        registry.devices.insert("ov".into(), openvino);
        let hexagon = RegisteredDevice {
            engine: EngineChoice { provider: "qnn".into(), allow_fallback: true, ..EngineChoice::default() },
            provider_library: Some("/qnn/libonnxruntime_providers_qnn.so".into()),
            ..device(Way::Local)
        };
        registry.devices.insert("hexagon".into(), hexagon);
        registry.save().unwrap();
        assert_eq!(Registry::load(&path).unwrap(), registry);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn faults_have_a_place_and_a_hint() {
        let text = "[pi]\nssh = \"pi@host\"\nidentiti = \"/key\"\n[both]\nadb = \"x\"\nlocal = true\n\
                    [bad]\nlocal = true\nlaunch = \"a 'b\"\ndirectory = \"here\"\n[local]\nadb = \"x\"\nknown_hosts = \"/x\"\n\
                    [e]\nlocal = true\nengine = \"openvin\"\nprovider = \"cuda\"\n[f]\nlocal = true\nlaunch = \"nice\"\nprovider_library = \"/x\"\n";
        let faults = parse_document(Path::new("devices.toml"), text, "docs/DEVICES.md", read).unwrap_err();
        let lines: Vec<String> = miette::Diagnostic::related(&faults)
            .unwrap()
            .map(|fault| {
                format!("{fault} [{}]", fault.help().map(|help| help.to_string()).unwrap_or_default())
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let folder = tempfile::tempdir().unwrap();
        let mut registry = Registry::load(&folder.path().join("devices.toml")).unwrap();
        let help = |registry: &Registry, name| registry.get(name).unwrap_err().help().unwrap().to_string();
        assert!(help(&registry, "phone").contains("lathe device add phone"));
        registry.devices.insert("phone".into(), device(Way::Local));
        assert_eq!(help(&registry, "phoen"), "did you mean `phone`?");
        assert!(help(&registry, "xyz").contains("known are local, phone"));
    }
}
