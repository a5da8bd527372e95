//! What a device without an agent tells of itself: its files, printed by its shell and read here.

use std::{fs, path::Path};

use lathe_latency_db::MachineState;

use crate::{DeviceFacts, RunnerError, device_facts, machine_state};

/// Begins a file in what is printed.
const MARK: &str = "==> lathe: ";
/// Prints the files that [`device_facts`] and [`machine_state`] read, then the kernel's names.
pub(super) const SCRIPT: &str = "cd / && for f in proc/cpuinfo proc/meminfo proc/loadavg proc/stat \
     proc/device-tree/model etc/os-release sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor \
     sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq \
     sys/class/thermal/*/type sys/class/thermal/*/temp sys/class/thermal/*/cur_state \
     sys/class/power_supply/*/type sys/class/power_supply/*/capacity sys/class/power_supply/*/status; do \
     if [ -r \"$f\" ]; then printf '\\n==> lathe: %s\\n' \"$f\"; cat \"$f\" 2>/dev/null; fi; done; \
     printf '\\n==> lathe: uname\\n'; uname -m; uname -r";

/// Reads what the script printed. The time is this machine's: the device's clock may be wrong.
pub(super) fn read(output: &[u8], cpus: &[usize]) -> Result<(DeviceFacts, MachineState), RunnerError> {
    let folder =
        tempfile::tempdir().map_err(RunnerError::file("make a folder under", &std::env::temp_dir()))?;
    let text = String::from_utf8_lossy(output);
    let mut names = Vec::new();
    for file in text.split(MARK).skip(1) {
        let Some((path, content)) = file.split_once('\n') else { continue };
        if path == "uname" {
            names = content.split_whitespace().collect();
            continue;
        }
        // A device names files below the folder, and no others.
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            continue;
        }
        let path = folder.path().join(path);
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(RunnerError::file("make the folder", parent))?;
        fs::write(&path, content).map_err(RunnerError::file("write", &path))?;
    }
    let [machine, kernel] = names[..] else {
        let message = format!("its shell told no names of its kernel, only {} bytes", output.len());
        return Err(RunnerError::Agent { action: "look at a device without an agent", message });
    };
    let mut facts = device_facts(folder.path(), cpus);
    machine.clone_into(&mut facts.architecture);
    kernel.clone_into(&mut facts.kernel);
    Ok((facts, machine_state(folder.path(), cpus)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_the_same_through_a_shell() {
        let output = std::process::Command::new("sh").args(["-c", SCRIPT]).output().unwrap();
        let (facts, state) = read(&output.stdout, &[0]).unwrap();
        let known = device_facts(Path::new("/"), &[0]);
        assert_eq!(
            (
                facts.model,
                facts.architecture,
                facts.cores,
                facts.memory_kb,
                facts.os,
                facts.kernel,
                facts.governor
            ),
            (
                known.model,
                known.architecture,
                known.cores,
                known.memory_kb,
                known.os,
                known.kernel,
                known.governor
            )
        );
        assert_eq!(state.load_average.is_some(), Path::new("/proc/loadavg").exists());
        assert!(read(b"sh: not found", &[0]).is_err());
        let outside = b"\n==> lathe: ../escaped\nx\n==> lathe: uname\naarch64\n6.1\n";
        assert_eq!(read(outside, &[]).unwrap().0.architecture, "aarch64");
    }
}
