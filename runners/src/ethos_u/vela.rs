//! One launch of the compiler: it always ends, whatever the compiler does.

use std::{
    env, fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use lathe_latency_db::Outcome;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use sha2::{Digest, Sha256};

use super::{Accelerator, Estimate, EthosUSettings};
use crate::{RunnerError, child::Accident, hexadecimal::hexadecimal};

/// How often a compiler at work is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How long it may take to say its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(30);
/// What is kept of what it wrote.
const TAIL_CHARACTERS: usize = 600;

/// The compiler, and what it is told each time.
#[derive(Clone, Debug)]
pub(super) struct Vela {
    program: PathBuf,
    accelerator: Accelerator,
    config: Option<PathBuf>,
    system_config: Option<String>,
    memory_mode: Option<String>,
}

impl Vela {
    /// The compiler that is named, `$LATHE_VELA`, or `vela` on the search path.
    pub(super) fn find(settings: &EthosUSettings) -> Result<Self, RunnerError> {
        let given = settings.vela.clone().or_else(|| env::var_os("LATHE_VELA").map(PathBuf::from));
        let program = if let Some(path) = given {
            if !path.is_file() {
                return Err(RunnerError::VelaMissing { tried: format!("{} is not a file", path.display()) });
            }
            std::path::absolute(&path).map_err(RunnerError::file("resolve", &path))?
        } else {
            let paths = env::var_os("PATH").unwrap_or_default();
            let found =
                env::split_paths(&paths).map(|folder| folder.join("vela")).find(|path| path.is_file());
            found.ok_or_else(|| RunnerError::VelaMissing {
                tried: "LATHE_VELA is not set, and there is no `vela` on the search path".to_owned(),
            })?
        };
        // It is launched in a folder of its own.
        let absolute = |path: &PathBuf| std::path::absolute(path).map_err(RunnerError::file("resolve", path));
        Ok(Self {
            program,
            accelerator: settings.accelerator,
            config: settings.config.as_ref().map(absolute).transpose()?,
            system_config: settings.system_config.clone(),
            memory_mode: settings.memory_mode.clone(),
        })
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    fn failed(&self, message: impl Into<String>) -> RunnerError {
        RunnerError::Vela { program: self.program.clone(), message: message.into() }
    }

    /// What it says its version is.
    pub(super) fn version(&self) -> Result<String, RunnerError> {
        let folder = folder()?;
        let (text, status) = self.launch(&["--version".to_owned()], folder.path(), VERSION_DEADLINE)?;
        let version = text.lines().next().unwrap_or_default().trim().to_owned();
        let numbers = version.split('.').filter(|part| part.parse::<u32>().is_ok()).count();
        if status.is_none_or(|status| !status.success()) || numbers < 2 {
            return Err(self.failed(format!("it does not say its version, but: {}", tail(&text))));
        }
        Ok(version)
    }

    /// SHA-256 of the configuration file; empty if it is the compiler's own, which its version stands for.
    pub(super) fn config_digest(&self) -> Result<String, RunnerError> {
        let Some(path) = &self.config else { return Ok(String::new()) };
        let content = fs::read(path).map_err(RunnerError::file("read", path))?;
        Ok(hexadecimal(&Sha256::digest(content)))
    }

    /// Compiles a TFLite file and reads what it is estimated to cost. The outer error means that the
    /// compiler couldn't even be launched.
    pub(super) fn estimate(
        &self,
        tflite: &[u8],
        deadline: Duration,
    ) -> Result<Result<Estimate, Accident>, RunnerError> {
        let folder = folder()?;
        let model = folder.path().join("network.tflite");
        fs::write(&model, tflite).map_err(RunnerError::file("write", &model))?;
        let results = folder.path().join("results");
        let mut words: Vec<String> =
            ["network.tflite", "--output-dir", "results", "--verbose-performance", "--accelerator-config"]
                .map(str::to_owned)
                .to_vec();
        words.push(self.accelerator.name().to_owned());
        let config = self.config.as_ref().map(|path| path.display().to_string());
        let options = [
            ("--config", config.as_ref()),
            ("--system-config", self.system_config.as_ref()),
            ("--memory-mode", self.memory_mode.as_ref()),
        ];
        for (option, value) in options {
            words.extend(value.into_iter().flat_map(|value| [option.to_owned(), value.clone()]));
        }
        let (text, status) = self.launch(&words, folder.path(), deadline)?;
        let accident = |outcome, message: String| Ok(Err(Accident { outcome, message }));
        let Some(status) = status else {
            let message = format!("the compiler did not end within {:.1} s, killed", deadline.as_secs_f64());
            return accident(Outcome::Timeout, message);
        };
        if let Some(signal) = status.signal() {
            let message =
                format!("the compiler was killed by signal {signal}; it last wrote: {}", tail(&text));
            return accident(Outcome::Crash, message);
        }
        if !status.success() {
            let message = format!("the compiler refused the network: {}", tail(&text));
            return accident(Outcome::Unsupported, message);
        }
        let tables = [("_summary_", "summary"), ("_per-layer", "table of layers")]
            .map(|(mark, name)| read_table(&results, mark, name));
        let [Ok(summary), Ok(layers)] = tables else {
            let message = tables.into_iter().find_map(Result::err).unwrap_or_default();
            return accident(Outcome::Crash, format!("{message}; the compiler last wrote: {}", tail(&text)));
        };
        Ok(Estimate::parse(&summary, &layers)
            .map_err(|message| Accident { outcome: Outcome::Crash, message }))
    }

    /// Runs it in a folder; what it wrote, and how it ended. No status means that it was killed at the
    /// deadline.
    fn launch(
        &self,
        words: &[String],
        folder: &Path,
        deadline: Duration,
    ) -> Result<(String, Option<ExitStatus>), RunnerError> {
        // A file and not a pipe: nobody has to read while it works.
        let path = folder.join("written");
        let file = fs::File::create(&path).map_err(RunnerError::file("create", &path))?;
        let both = file.try_clone().map_err(RunnerError::file("use", &path))?;
        let mut child = Command::new(&self.program)
            .args(words)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(both)
            .process_group(0)
            .spawn()
            .map_err(|error| self.failed(error.to_string()))?;
        let status =
            wait(&mut child, Instant::now() + deadline).map_err(|error| self.failed(error.to_string()))?;
        let bytes = fs::read(&path).map_err(RunnerError::file("read", &path))?;
        Ok((String::from_utf8_lossy(&bytes).into_owned(), status))
    }
}

/// A folder that goes when it is no longer used.
fn folder() -> Result<tempfile::TempDir, RunnerError> {
    let folder = tempfile::Builder::new().prefix("lathe-vela-").tempdir();
    folder.map_err(RunnerError::file("make a folder under", &env::temp_dir()))
}

fn wait(child: &mut Child, until: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            // Not reaped yet, so that the number still names this group.
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

/// The one CSV file of the results whose name has this mark.
fn read_table(results: &Path, mark: &str, name: &str) -> Result<String, String> {
    let entries = fs::read_dir(results).map_err(|error| format!("the compiler wrote no {name}: {error}"))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "csv"))
        .filter(|path| path.file_name().is_some_and(|file| file.to_string_lossy().contains(mark)))
        .collect();
    paths.sort();
    let [path] = &paths[..] else {
        return Err(format!("expected one {name} from the compiler, it wrote {}", paths.len()));
    };
    fs::read_to_string(path).map_err(|error| format!("the {name} can't be read: {error}"))
}

/// The end of what it wrote, on one line.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Warning: No "))
        .collect();
    let text = lines.join("; ");
    let skip = text.chars().count().saturating_sub(TAIL_CHARACTERS);
    if text.is_empty() { "nothing".to_owned() } else { text.chars().skip(skip).collect() }
}
