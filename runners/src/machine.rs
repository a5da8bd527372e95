//! What the operating system tells of the machine, read from files so that other trees than `/` can
//! stand in for it.

use std::{collections::BTreeMap, fs, path::Path};

use jiff::Timestamp;
use lathe_latency_db::MachineState;
use serde::{Deserialize, Serialize};

use crate::clusters::{CoreCluster, clusters};

/// What stays the same of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// Model of the processor or board.
    pub model: String,
    /// Instruction set.
    pub architecture: String,
    /// Logical cores.
    pub cores: usize,
    /// Memory in kilobytes.
    pub memory_kb: u64,
    /// Operating system and its version.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Frequency governor of the given cores.
    pub governor: Option<String>,
    /// Highest frequency of the given cores in kilohertz.
    pub max_khz: Option<u64>,
    /// Cores that are alike, the weakest first.
    #[serde(default)]
    pub clusters: Vec<CoreCluster>,
}

/// Reads what stays the same of the machine whose `proc`, `sys` and `etc` lie under `root`. What the
/// system doesn't tell is `unknown`, zero or absent.
pub fn device_facts(root: &Path, cpus: &[usize]) -> DeviceFacts {
    let cpuinfo = text(root, "proc/cpuinfo").unwrap_or_default();
    let (kernel, architecture) = match nix::sys::utsname::uname() {
        Ok(name) => {
            (name.release().to_string_lossy().into_owned(), name.machine().to_string_lossy().into_owned())
        }
        Err(_) => ("unknown".to_owned(), std::env::consts::ARCH.to_owned()),
    };
    let listed = cpuinfo.lines().filter(|line| field(line, "processor").is_some()).count();
    let cores = if listed > 0 { listed } else { std::thread::available_parallelism().map_or(0, usize::from) };
    let mut governors: Vec<String> =
        cpus.iter().filter_map(|cpu| text(root, &cpufreq(*cpu, "scaling_governor"))).collect();
    governors.dedup();
    DeviceFacts {
        model: model(root, &cpuinfo),
        architecture,
        cores,
        memory_kb: text(root, "proc/meminfo").and_then(|text| memory_kb(&text)).unwrap_or(0),
        os: text(root, "etc/os-release").and_then(|text| pretty_name(&text)).unwrap_or_else(unknown),
        kernel,
        governor: (!governors.is_empty()).then(|| governors.join(", ")),
        max_khz: cpus.iter().filter_map(|cpu| number(root, &cpufreq(*cpu, "cpuinfo_max_freq"))).max(),
        clusters: clusters(root, cores),
    }
}

/// Reads the present state of the machine whose `proc` and `sys` lie under `root`.
pub fn machine_state(root: &Path, cpus: &[usize]) -> MachineState {
    MachineState {
        at: Timestamp::now().to_string(),
        current_khz: cpus.iter().filter_map(|cpu| number(root, &cpufreq(*cpu, "scaling_cur_freq"))).collect(),
        temperature_millicelsius: numbered(root, "thermal_zone", "temp"),
        load_average: text(root, "proc/loadavg")
            .and_then(|text| text.split_whitespace().next().and_then(|word| word.parse().ok())),
        steal_ticks: text(root, "proc/stat").and_then(|text| steal_ticks(&text)),
        battery_percent: battery(root).map(|(percent, _)| percent),
        charging: battery(root).and_then(|(_, charging)| charging),
        governors: cpus.iter().filter_map(|cpu| text(root, &cpufreq(*cpu, "scaling_governor"))).collect(),
        cooling: numbered(root, "cooling_device", "cur_state"),
    }
}

/// Peak resident memory of this process in kilobytes. `VmHWM` begins at the program's start; the
/// resource usage, taken where there is no `/proc`, may include the process that launched it.
#[cfg_attr(
    not(any(feature = "agent", feature = "static-agent")),
    expect(dead_code, reason = "only the agent asks for it")
)]
pub(crate) fn peak_rss_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |line: &str| field(line, "VmHWM")?.split_whitespace().next()?.parse().ok();
    status.lines().find_map(kilobytes).unwrap_or_else(|| {
        nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)
            .map_or(0, |usage| usage.max_rss().max(0) as u64)
    })
}

pub(crate) fn cpufreq(cpu: usize, file: &str) -> String {
    format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/{file}")
}

pub(crate) fn text(root: &Path, path: &str) -> Option<String> {
    let bytes = fs::read(root.join(path)).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    Some(text.trim_matches(|character: char| character.is_whitespace() || character == '\0').to_owned())
}

pub(crate) fn number<T: std::str::FromStr>(root: &Path, path: &str) -> Option<T> {
    text(root, path)?.parse().ok()
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The value of a line `name : value`.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (key, value) = line.split_once(':')?;
    (key.trim() == name).then(|| value.trim())
}

fn model(root: &Path, cpuinfo: &str) -> String {
    let find = |name: &str| {
        cpuinfo
            .lines()
            .find_map(|line| field(line, name))
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    };
    text(root, "proc/device-tree/model")
        .or_else(|| find("model name"))
        .or_else(|| find("Model"))
        .or_else(|| find("Hardware"))
        .or_else(|| Some(format!("implementer {} part {}", find("CPU implementer")?, find("CPU part")?)))
        .unwrap_or_else(unknown)
}

fn memory_kb(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| field(line, "MemTotal"))?;
    total.split_whitespace().next()?.parse().ok()
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches('"').to_owned())
}

/// The eighth number of the line `cpu`: time that a hypervisor gave to others.
fn steal_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    line.split_whitespace().nth(8)?.parse().ok()
}

/// Names of the entries of a folder, sorted.
fn entries(root: &Path, path: &str) -> Vec<String> {
    let Ok(listing) = fs::read_dir(root.join(path)) else { return Vec::new() };
    let mut names: Vec<String> =
        listing.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A number of each thermal zone or cooling device, by its number and type.
fn numbered(root: &Path, prefix: &str, file: &str) -> BTreeMap<String, i64> {
    let mut values = BTreeMap::new();
    for entry in entries(root, "sys/class/thermal") {
        let Some(index) = entry.strip_prefix(prefix) else { continue };
        let path = format!("sys/class/thermal/{entry}");
        if let Some(value) = number(root, &format!("{path}/{file}")) {
            let kind = text(root, &format!("{path}/type")).unwrap_or_else(unknown);
            // Several may be of one type: the number tells them apart.
            values.insert(format!("{index}:{kind}"), value);
        }
    }
    values
}

/// Charge in percent, and whether it is charging.
fn battery(root: &Path) -> Option<(f64, Option<bool>)> {
    entries(root, "sys/class/power_supply").iter().find_map(|name| {
        let path = format!("sys/class/power_supply/{name}");
        let is_battery = text(root, &format!("{path}/type")).is_some_and(|kind| kind == "Battery");
        let percent = is_battery.then(|| number(root, &format!("{path}/capacity"))).flatten()?;
        let charging =
            text(root, &format!("{path}/status")).map(|status| status == "Charging" || status == "Full");
        Some((percent, charging))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_phone_like_tree_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(
            root,
            "proc/cpuinfo",
            "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\nprocessor\t: 1\n",
        );
        write(root, "proc/meminfo", "MemTotal:        3884000 kB\nMemFree: 1 kB\n");
        write(root, "etc/os-release", "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n");
        write(root, "proc/loadavg", "0.42 0.30 0.20 1/100 4242\n");
        write(root, "proc/stat", "cpu  1 2 3 4 5 6 7 88 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n");
        for (cpu, khz) in [(0, "600000"), (1, "1500000")] {
            write(root, &cpufreq(cpu, "scaling_cur_freq"), khz);
            write(root, &cpufreq(cpu, "scaling_governor"), "performance\n");
            write(root, &cpufreq(cpu, "cpuinfo_max_freq"), "1800000\n");
        }
        write(root, "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n");
        write(root, "sys/class/thermal/thermal_zone0/temp", "48100\n");
        write(root, "sys/class/thermal/cooling_device0/type", "fan\n");
        write(root, "sys/class/power_supply/ac/type", "Mains\n");
        write(root, "sys/class/power_supply/bat/type", "Battery\n");
        write(root, "sys/class/power_supply/bat/capacity", "73\n");
        write(root, "sys/class/power_supply/bat/status", "Discharging\n");
        write(root, "sys/class/thermal/cooling_device0/cur_state", "2\n");

        let facts = device_facts(root, &[1]);
        assert_eq!(facts.model, "implementer 0x41 part 0xd08");
        assert_eq!((facts.cores, facts.memory_kb), (2, 3_884_000));
        assert_eq!(facts.os, "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(facts.governor.as_deref(), Some("performance"));
        assert_eq!(facts.max_khz, Some(1_800_000));
        let state = machine_state(root, &[1]);
        assert_eq!(state.current_khz, [1_500_000]);
        assert_eq!(state.temperature_millicelsius, BTreeMap::from([("0:cpu-thermal".to_owned(), 48_100)]));
        assert_eq!(state.load_average, Some(0.42));
        assert_eq!(state.steal_ticks, Some(88));
        assert_eq!((state.battery_percent, state.charging), (Some(73.0), Some(false)));
        assert_eq!(state.governors, ["performance"]);
        assert_eq!(state.cooling, BTreeMap::from([("0:fan".to_owned(), 2)]));
        assert!(state.at.parse::<Timestamp>().is_ok());
    }

    #[test]
    fn a_machine_that_tells_nothing_has_no_invented_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let state = machine_state(folder.path(), &[0]);
        assert_eq!(MachineState { at: String::new(), ..state }, MachineState::default());
        let facts = device_facts(folder.path(), &[0]);
        assert_eq!((facts.model.as_str(), facts.os.as_str(), facts.memory_kb), ("unknown", "unknown", 0));
        assert_eq!((facts.governor, facts.max_khz), (None, None));
    }
}
