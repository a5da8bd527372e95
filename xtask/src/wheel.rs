//! Fetches one wheel: resumable, with progress, checked against its hash.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sha2::{Digest, Sha256};

use crate::{
    command::{self, Failure},
    pins::{PLATFORMS, Pin},
};

/// The wheel in `folder`, fetched unless it is there already.
pub fn fetch(pin: &Pin, folder: &Path) -> Result<PathBuf, Failure> {
    let target = folder.join(pin.file);
    if target.is_file() {
        if hash(&target)? == pin.sha256 {
            return Ok(target);
        }
        command::say(&format!("{} is damaged; fetching it again", target.display()));
        remove(&target)?;
    }
    fs::create_dir_all(folder).map_err(|error| io("create", folder, &error))?;
    command::say(&format!("fetching {}", pin.requirement));
    let part = folder.join(format!("{}.part", pin.file));
    // pip knows where the file lies, curl can go on with half a file. Without curl, or with an index
    // that gives no plain address, pip does it all.
    if let Some(url) = address(pin).filter(|_| available("curl")) {
        download(&url, &part)?;
    } else {
        pip_download(pin, folder)?;
        fs::rename(&target, &part).map_err(|error| io("rename", &target, &error))?;
    }
    check(pin, &part)?;
    fs::rename(&part, &target).map_err(|error| io("rename", &part, &error))?;
    Ok(target)
}

/// Refuses a file with another hash, and deletes it.
fn check(pin: &Pin, part: &Path) -> Result<(), Failure> {
    let got = hash(part)?;
    if got == pin.sha256 {
        return Ok(());
    }
    remove(part)?;
    Err(Failure::new(format!(
        "failed to fetch {}: {} has SHA-256 {got}, expected {}\n\
         hint: it was deleted; run the same command again. If it happens again, the index that pip uses \
         serves another file under this name",
        pin.requirement, pin.file, pin.sha256
    )))
}

/// Address of the wheel, as pip resolves it.
fn address(pin: &Pin) -> Option<String> {
    let scratch = std::env::temp_dir().join("lathe-pip-target");
    let output = pip()
        .args(["install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", "-"])
        .arg("--target")
        .arg(scratch)
        .args(wheel_arguments())
        .arg(pin.requirement)
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let info = &report["install"][0]["download_info"];
    info["url"].as_str().filter(|url| url.starts_with("http")).map(str::to_owned)
}

fn pip() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
    command
}

fn wheel_arguments() -> Vec<&'static str> {
    let mut arguments = vec!["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp"];
    for platform in PLATFORMS {
        arguments.extend(["--platform", platform]);
    }
    arguments
}

fn pip_download(pin: &Pin, folder: &Path) -> Result<(), Failure> {
    let mut command = pip();
    command.args(["download", "--no-deps", "--dest"]).arg(folder).args(wheel_arguments()).arg(pin.requirement);
    command::run(&mut command)
}

/// Goes on where an earlier download was cut off.
fn download(url: &str, part: &Path) -> Result<(), Failure> {
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--location", "--progress-bar", "--retry", "5", "--continue-at", "-"]);
    let status = curl
        .arg("--output")
        .arg(part)
        .arg(url)
        .status()
        .map_err(|error| Failure::new(format!("failed to start curl: {error}")))?;
    // 22 and 33 come too when the file was whole already and nothing was left to fetch: its hash tells.
    if status.success() || matches!(status.code(), Some(22 | 33)) && part.is_file() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "failed to fetch {}: curl ended with {status}\nhint: run the same command again; it goes on where it stopped",
        part.display()
    )))
}

/// Whether a program can be started.
pub fn available(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// SHA-256 of a file, hexadecimal.
pub fn hash(path: &Path) -> Result<String, Failure> {
    let mut file = File::open(path).map_err(|error| io("read", path, &error))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(|error| io("read", path, &error))?;
        if count == 0 {
            break;
        }
        digest.update(&buffer[..count]);
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn remove(path: &Path) -> Result<(), Failure> {
    fs::remove_file(path).map_err(|error| io("delete", path, &error))
}

/// A failure about a file.
pub fn io(action: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("failed to {action} {}: {error}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const PIN: Pin = Pin {
        requirement: "example==1.0",
        file: "example-1.0-py3-none-any.whl",
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    };

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("lathe-xtask-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_file_with_the_right_hash_is_taken_as_it_is() {
        let folder = folder("right");
        fs::write(folder.join(PIN.file), "abc").unwrap();
        assert_eq!(fetch(&PIN, &folder).unwrap(), folder.join(PIN.file));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_with_another_hash_is_refused_and_deleted() {
        let folder = folder("wrong");
        let part = folder.join("example.part");
        fs::write(&part, "abd").unwrap();
        let failure = check(&PIN, &part).unwrap_err().to_string();
        assert!(failure.contains(PIN.sha256) && failure.contains("example==1.0"), "{failure}");
        assert!(!part.exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
