//! The environment that builds and runs need.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command::{self, Failure},
    setup,
};

/// Where the libraries are. `LIBTORCH` and `ORT_DYLIB_PATH` set by the user win.
pub struct Environment {
    /// The repository.
    pub root: PathBuf,
    libtorch: PathBuf,
    onnxruntime: PathBuf,
    /// Libraries that only tests need: the variable that names one, and where it is.
    peers: Vec<(&'static str, PathBuf)>,
}

/// The repository's folder.
pub fn root() -> Result<PathBuf, Failure> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .map(Path::to_owned)
        .ok_or_else(|| Failure::new(format!("failed to find the repository above {}", here.display())))
}

impl Environment {
    /// Fetches what the user has not set.
    pub fn set_up(root: &Path) -> Result<Self, Failure> {
        let home = root.join("target/lathe");
        let given = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let libtorch = match given("LIBTORCH") {
            Some(folder) if folder.join("lib").is_dir() => folder,
            Some(folder) => {
                return Err(Failure::new(format!(
                    "failed to use LIBTORCH={}: it has no folder `lib`\nhint: unset it, or point it to libtorch 2.11.0",
                    folder.display()
                )));
            }
            None => setup::libtorch(&home)?,
        };
        let onnxruntime = match given("ORT_DYLIB_PATH") {
            Some(library) if library.is_file() => library,
            Some(library) => {
                return Err(Failure::new(format!(
                    "failed to use ORT_DYLIB_PATH={}: there is no such file\nhint: unset it, or point it to libonnxruntime.so",
                    library.display()
                )));
            }
            None => setup::onnxruntime(&home)?,
        };
        Ok(Self { root: root.to_owned(), libtorch, onnxruntime, peers: Vec::new() })
    }

    /// Fetches the second engine too. `LATHE_OPENVINO` set by the user wins.
    pub fn with_openvino(self) -> Result<Self, Failure> {
        let home = self.root.join("target/lathe");
        self.with_peer("LATHE_OPENVINO", || setup::openvino(&home))
    }

    /// Knows another library by the name of a variable; one that the user has set wins.
    pub fn with_peer(
        mut self,
        variable: &'static str,
        fetch: impl FnOnce() -> Result<PathBuf, Failure>,
    ) -> Result<Self, Failure> {
        let path = match env::var_os(variable).filter(|value| !value.is_empty()) {
            Some(given) => PathBuf::from(given),
            None => fetch()?,
        };
        self.peers.push((variable, path));
        Ok(self)
    }

    /// Variables for children, in a stable order.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mut libraries = vec![self.libtorch.join("lib")];
        libraries.extend(env::var_os("LD_LIBRARY_PATH").iter().flat_map(|paths| env::split_paths(paths)));
        let libraries = env::join_paths(libraries).unwrap_or_default();
        let mut variables = vec![
            ("LIBTORCH", self.libtorch.display().to_string()),
            ("LD_LIBRARY_PATH", libraries.to_string_lossy().into_owned()),
            ("ORT_DYLIB_PATH", self.onnxruntime.display().to_string()),
            ("ORT_DISABLE_TELEMETRY", "1".into()),
            ("LATHE_AGENT", agent(&self.root).display().to_string()),
        ];
        variables.extend(self.peers.iter().map(|(variable, path)| (*variable, path.display().to_string())));
        variables.extend(npu_tools(&self.root));
        variables
    }

    /// A program in this environment, started in the repository.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).envs(self.variables());
        command
    }

    /// Cargo in this environment.
    pub fn cargo(&self, words: &[&str]) -> Command {
        let mut command = self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(words);
        command
    }

    /// Builds the binary and the agent.
    pub fn build(&self) -> Result<PathBuf, Failure> {
        command::run(&mut self.cargo(&["build", "--package", "lathe-cli"]))?;
        build_agent(&self.root)?;
        Ok(self.root.join("target/debug/lathe"))
    }
}

/// Variables for the NPU tools that are installed; those set by the user win.
pub fn npu_tools(root: &Path) -> Vec<(&'static str, String)> {
    const LITERT: &str = "target/lathe/litert/packages/ai_edge_litert/libLiteRt.so";
    [
        ("LATHE_VELA", "target/lathe/vela/bin/vela"),
        ("LATHE_LITERT_PYTHON", "target/lathe/litert/bin/python"),
        ("LATHE_LITERT", LITERT),
    ]
    .into_iter()
    .filter(|(variable, _)| env::var_os(variable).is_none())
    .map(|(variable, path)| (variable, root.join(path)))
    .filter(|(_, path)| path.is_file())
    .map(|(variable, path)| (variable, path.display().to_string()))
    .collect()
}

fn agent(root: &Path) -> PathBuf {
    root.join("target/agent/debug/lathe-agent")
}

/// Builds the device agent by itself, so that nothing of the workspace's other features is in it.
pub fn build_agent(root: &Path) -> Result<PathBuf, Failure> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args([
        "build",
        "--package",
        "lathe-runners",
        "--no-default-features",
        "--features",
        "agent",
        "--bin",
        "lathe-agent",
        "--target-dir",
        "target/agent",
    ]);
    command::run(&mut cargo)?;
    Ok(agent(root))
}
