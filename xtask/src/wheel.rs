//! Fetches one wheel through pip and checks it against its hash.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sha2::{Digest, Sha256};

use crate::{
    command::{self, Failure},
    pins::{PLATFORMS, PLATFORMS_AARCH64, Pin},
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
    download(pin, folder)?;
    check(pin, &target)?;
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

fn pip() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
    command
}

/// What pip is asked for. Platform and Python are the wheel's, not those of the Python that runs pip.
fn download_arguments(pin: &Pin, folder: &Path, resumes: bool) -> Vec<String> {
    let mut arguments: Vec<String> = ["download", "--no-deps", "--only-binary=:all:", "--retries", "5"]
        .into_iter()
        .chain(["--python-version", "3.11", "--implementation", "cp"])
        .map(str::to_owned)
        .collect();
    let platforms: &[&str] = if pin.file.contains("aarch64") { &PLATFORMS_AARCH64 } else { &PLATFORMS };
    for platform in platforms {
        arguments.extend(["--platform".to_owned(), (*platform).to_owned()]);
    }
    if resumes {
        arguments.extend(["--resume-retries".to_owned(), "20".to_owned()]);
    }
    arguments.extend(["--dest".to_owned(), folder.display().to_string(), pin.requirement.to_owned()]);
    arguments
}

/// pip shows its progress, keeps whole files in its cache, and from version 25.1 on goes on in the
/// middle of a file when a connection breaks.
fn download(pin: &Pin, folder: &Path) -> Result<(), Failure> {
    let help = pip().args(["download", "--help"]).output();
    let resumes = help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--resume-retries"));
    command::run(pip().args(download_arguments(pin, folder, resumes))).map_err(|failure| {
        Failure::new(format!("{failure}\nhint: run the same command again; wheels that came whole are kept"))
    })
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

    #[test]
    fn pip_is_asked_for_the_wheels_own_platform_and_goes_on_where_it_can() {
        let arguments = download_arguments(&PIN, Path::new("wheels"), true).join(" ");
        assert!(arguments.contains("--platform manylinux_2_28_x86_64"), "{arguments}");
        assert!(arguments.ends_with("--resume-retries 20 --dest wheels example==1.0"), "{arguments}");
        assert!(
            !download_arguments(&PIN, Path::new("wheels"), false).contains(&"--resume-retries".to_owned())
        );
    }
}
