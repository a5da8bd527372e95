//! Fetches libtorch and ONNX Runtime into target/lathe, once.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    command::{self, Failure},
    pins::{LITERT, ONNXRUNTIME, ONNXRUNTIME_LIBRARY, OPENVINO, Pin, TORCH, VELA},
    unpack, wheel,
};

/// libtorch's folder (with `include` and `lib`), unpacked if it isn't yet.
pub fn libtorch(home: &Path) -> Result<PathBuf, Failure> {
    let folder = home.join("libtorch");
    once(&folder, &TORCH, &home.join("wheels"), unpack::torch)?;
    Ok(folder)
}

/// ONNX Runtime's library, unpacked if it isn't yet.
pub fn onnxruntime(home: &Path) -> Result<PathBuf, Failure> {
    onnxruntime_of(&home.join("onnxruntime"), ONNXRUNTIME, home)
}

/// The library of one wheel, unpacked into a folder if it isn't yet.
pub fn onnxruntime_of(folder: &Path, pin: Pin, home: &Path) -> Result<PathBuf, Failure> {
    once(folder, &[pin], &home.join("wheels"), |wheels, to| unpack::onnxruntime(&wheels[0], to))?;
    Ok(folder.join(ONNXRUNTIME_LIBRARY))
}

/// The folder of `OpenVINO`'s libraries, unpacked if it isn't yet.
pub fn openvino(home: &Path) -> Result<PathBuf, Failure> {
    let folder = home.join("openvino");
    once(&folder, &[OPENVINO], &home.join("wheels"), |wheels, to| unpack::openvino(&wheels[0], to))?;
    Ok(folder)
}

/// The folder of all libraries in a wheel, unpacked if it isn't yet.
pub fn libraries(home: &Path, name: &str, pin: Pin) -> Result<PathBuf, Failure> {
    let folder = home.join(name);
    once(&folder, &[pin], &home.join("wheels"), |wheels, to| unpack::libraries(&wheels[0], to))?;
    Ok(folder)
}

/// Arm's compiler for Ethos-U and LiteRT's interpreter, unpacked if they aren't yet: each a folder of
/// Python packages with a launcher that finds them.
pub fn npu_tools(home: &Path) -> Result<(), Failure> {
    let version = command::capture(std::process::Command::new("python3").arg("--version"))?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    if !version.starts_with("Python 3.11.") {
        return Err(Failure::new(format!(
            "failed to install the NPU tools: their wheels are pinned for Python 3.11, `python3` is {version}\n\
             hint: install ethos-u-vela yourself, and set LATHE_VELA to its program `vela`"
        )));
    }
    let wheels = home.join("wheels");
    once(&home.join("vela"), &VELA, &wheels, unpack::vela)?;
    once(&home.join("litert"), &LITERT, &wheels, unpack::litert)
}

/// Fills a folder unless its stamp says that it was filled from these very wheels. The stamp is
/// written last: whatever was interrupted is done again. Wheels are deleted afterwards.
fn once(
    folder: &Path,
    pins: &[Pin],
    wheels: &Path,
    fill: impl FnOnce(&[PathBuf], &Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let stamp = folder.join("stamp");
    let expected = stamp_of(pins);
    if fs::read_to_string(&stamp).is_ok_and(|found| found == expected) {
        return Ok(());
    }
    tools()?;
    let _lock = lock(folder)?;
    if fs::read_to_string(&stamp).is_ok_and(|found| found == expected) {
        // The process that was waited for has done it.
        return Ok(());
    }
    let files = pins.iter().map(|pin| wheel::fetch(pin, wheels)).collect::<Result<Vec<_>, _>>()?;
    command::say(&format!("unpacking to {}", folder.display()));
    // Beside the old folder: whatever uses that one keeps it until the new one is whole.
    let (part, old) = (folder.with_extension("part"), folder.with_extension("old"));
    clear(&part)?;
    clear(&old)?;
    fs::create_dir_all(&part).map_err(|error| wheel::io("create", &part, &error))?;
    fill(&files, &part)?;
    fs::write(part.join("stamp"), expected)
        .map_err(|error| wheel::io("write a stamp into", &part, &error))?;
    if folder.exists() {
        fs::rename(folder, &old).map_err(|error| wheel::io("rename", folder, &error))?;
    }
    fs::rename(&part, folder).map_err(|error| wheel::io("rename", &part, &error))?;
    clear(&old)?;
    for file in files {
        fs::remove_file(&file).map_err(|error| wheel::io("delete", &file, &error))?;
    }
    Ok(())
}

/// Held until it is dropped: two tasks that start at once don't fetch the same file twice.
fn lock(folder: &Path) -> Result<File, Failure> {
    let path = folder.with_extension("lock");
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| wheel::io("create", parent, &error))?;
    }
    let file = File::create(&path).map_err(|error| wheel::io("create", &path, &error))?;
    if file.try_lock().is_err() {
        command::say("another set-up is at work; waiting for it");
        file.lock().map_err(|error| wheel::io("lock", &path, &error))?;
    }
    Ok(file)
}

fn clear(folder: &Path) -> Result<(), Failure> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| wheel::io("clear", folder, &error))?;
    }
    Ok(())
}

fn stamp_of(pins: &[Pin]) -> String {
    let mut digest = Sha256::new();
    for pin in pins {
        digest.update(pin.sha256.as_bytes());
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the set-up needs of the system; all that is missing is named at once.
fn tools() -> Result<(), Failure> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(Failure::new(
            "failed to set up: wheels are pinned for Linux on x86-64 only\n\
             hint: set LIBTORCH to the folder of libtorch 2.11.0 and ORT_DYLIB_PATH to ONNX Runtime's library",
        ));
    }
    let missing: Vec<&str> = [("cc", "gcc"), ("c++", "g++"), ("python3", "python3")]
        .into_iter()
        .filter(|(program, _)| !wheel::available(program))
        .map(|(_, package)| package)
        .collect();
    let pip = std::process::Command::new("python3").args(["-m", "pip", "--version"]).output();
    let pip = pip.is_ok_and(|output| output.status.success());
    complain(&missing, pip)
}

fn complain(missing: &[&str], pip: bool) -> Result<(), Failure> {
    let mut packages = missing.to_vec();
    if !pip {
        packages.push("python3-pip");
    }
    if packages.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "failed to set up: {} missing on this system\nhint: apt-get install {}",
        if packages.len() == 1 { "a package is" } else { "packages are" },
        packages.join(" ")
    )))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_filled_once_and_again_after_an_interruption() {
        let home = std::env::temp_dir().join(format!("lathe-xtask-once-{}", std::process::id()));
        let folder = home.join("lib");
        let mut fills = 0;
        let mut fill = |succeed: bool| {
            once(&folder, &[], &home, |_, to| {
                fills += 1;
                fs::write(to.join("library"), "new").unwrap();
                if succeed { Ok(()) } else { Err(Failure::new("cut off")) }
            })
        };
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("library"), "in use").unwrap();
        assert!(fill(false).is_err());
        assert_eq!(
            fs::read_to_string(folder.join("library")).unwrap(),
            "in use",
            "a failure takes nothing away"
        );
        fill(true).unwrap();
        assert_eq!(fs::read_to_string(folder.join("library")).unwrap(), "new");
        fill(true).unwrap();
        assert_eq!(fills, 2);
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn other_pins_make_another_stamp() {
        assert_ne!(stamp_of(&TORCH), stamp_of(&TORCH[..2]));
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let failure = complain(&["g++"], false).unwrap_err().to_string();
        assert!(failure.contains("apt-get install g++ python3-pip"), "{failure}");
        complain(&[], true).unwrap();
    }
}
