//! A run that is small enough for a test, and the binary that does it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

/// The smallest configuration that goes through every stage.
pub const TINY: &str = r#"
name = "tiny"
seed = 3
threads = 1

[space]
width = 4
layers = 3
resolution = 8
classes = 10

[data]
source = "generated"
train_images = 120
test_images = 40

[measure]
networks = 8
noise_pairs = 2
processes = 1
min_runs = 5
min_seconds = 0.0
warmup_runs = 2
warmup_seconds = 0.0
retries = 0

[verify]
processes = 1
min_runs = 5
min_seconds = 0.0
warmup_runs = 2
warmup_seconds = 0.0
retries = 0

[objective]
target_quantile = 0.9
derive_rounds = 0
anneal_epochs = 1

[supernet]
width = 4
layers = 3
partial_channels = 2

[search]
epochs = 3
warmup_epochs = 1
batch = 20

[baselines]
random = 1
published = ["PC_DARTS_cifar"]

[retrain]
epochs = 2
batch = 20
auxiliary = 0.0
drop_path = 0.1
"#;

/// The agent with a clock that no neighbour disturbs: a script beside this file.
const STEADY_AGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/the_binary/steady_agent.sh");

/// A folder with a configuration in it.
pub struct Fixture {
    pub folder: TempDir,
    /// Times are those of the steady agent.
    steady: bool,
}

impl Fixture {
    /// With this configuration as `run.toml`.
    pub fn new(config: &str) -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("run.toml"), config).unwrap();
        Self { folder, steady: false }
    }

    /// The same on a device whose times depend on the model alone: for what follows from latencies. That a real
    /// device's are told as they are is tested by the others.
    pub fn steady(config: &str) -> Self {
        Self { steady: true, ..Self::new(config) }
    }

    /// `lathe` with these words, started in the folder.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lathe"));
        command.args(words).current_dir(self.folder.path()).env("NO_COLOR", "1").env_remove("RUST_LOG");
        if self.steady
            && let Some(agent) = std::env::var_os("LATHE_AGENT")
        {
            command.env("LATHE_REAL_AGENT", agent).env("LATHE_AGENT", STEADY_AGENT);
        }
        command
    }

    /// Runs `lathe` to its end.
    pub fn lathe(&self, words: &[&str]) -> Output {
        for variable in ["LATHE_AGENT", "ORT_DYLIB_PATH"] {
            assert!(std::env::var_os(variable).is_some(), "{variable} is not set: run `cargo xtask test`");
        }
        self.command(words).output().unwrap()
    }

    /// Runs `lathe`, which must succeed.
    pub fn succeed(&self, words: &[&str]) -> String {
        let output = self.lathe(words);
        assert!(output.status.success(), "lathe {words:?}: {}\n{}", output.status, stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All events of a run.
pub fn events(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("record.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The events of one kind.
pub fn of_kind<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}
