//! Where the agent, the engine and the cores are.

use std::{
    env,
    path::{Path, PathBuf},
};

use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};

use crate::{EngineName, LibraryFile, RunnerError};

/// The agent program: given, `$LATHE_AGENT`, or beside the running program.
pub(crate) fn find_agent(given: Option<PathBuf>) -> Result<PathBuf, RunnerError> {
    let path = given
        .or_else(|| env::var_os("LATHE_AGENT").map(PathBuf::from))
        .or_else(|| Some(env::current_exe().ok()?.with_file_name("lathe-agent")))
        .unwrap_or_else(|| PathBuf::from("lathe-agent"));
    if path.is_file() {
        absolute(&path)
    } else {
        Err(RunnerError::AgentMissing { tried: path.display().to_string() })
    }
}

/// An engine's library on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundLibrary {
    /// The file that is loaded.
    pub(crate) file: PathBuf,
    /// The folder whose files it needs beside it, if it isn't enough alone.
    pub(crate) folder: Option<PathBuf>,
}

/// The engine's library: given, or what its variable in the environment says. A folder stands for the
/// library in it and is needed whole; `OpenVINO` always is. An engine that is compiled into the agent is
/// the agent.
pub(crate) fn find_library(
    name: EngineName,
    given: Option<PathBuf>,
    agent: &Path,
) -> Result<FoundLibrary, RunnerError> {
    let Some(LibraryFile { variable, stem, .. }) = name.library() else {
        return match given {
            None => Ok(FoundLibrary { file: agent.to_owned(), folder: None }),
            Some(path) => Err(RunnerError::LibraryInside { name, path }),
        };
    };
    let missing = |tried: String| Err(RunnerError::LibraryMissing { name, variable, stem, tried });
    match given.or_else(|| env::var_os(variable).map(PathBuf::from)) {
        Some(path) if path.is_file() => {
            let file = absolute(&path)?;
            let folder = file.parent().filter(|_| name == EngineName::Openvino).map(Path::to_owned);
            Ok(FoundLibrary { file, folder })
        }
        Some(path) if path.is_dir() => match library_in(&path, stem) {
            Some(file) => Ok(FoundLibrary { file: absolute(&file)?, folder: Some(absolute(&path)?) }),
            None => missing(format!("there is no {stem}… in {}", path.display())),
        },
        Some(path) => missing(format!("{} is not a file", path.display())),
        None => missing(format!("{variable} is not set")),
    }
}

/// The file whose name begins so; of several versions of it the one with the longest name, which is the
/// most exact.
fn library_in(folder: &Path, stem: &str) -> Option<PathBuf> {
    let files = folder.read_dir().ok()?.filter_map(Result::ok).map(|entry| entry.path());
    files
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(stem)))
        .max_by_key(|path| (path.as_os_str().len(), path.clone()))
}

/// The same file whatever folder a process starts in.
fn absolute(path: &Path) -> Result<PathBuf, RunnerError> {
    std::path::absolute(path).map_err(RunnerError::file("resolve", path))
}

/// The wanted cores in order, or the last ones of the affinity mask, one per thread.
pub(crate) fn choose_cpus(wanted: Option<Vec<usize>>, threads: usize) -> Result<Vec<usize>, RunnerError> {
    let mut cpus = if let Some(cpus) = wanted {
        cpus
    } else {
        let set = sched_getaffinity(Pid::from_raw(0)).map_err(|errno| RunnerError::File {
            action: "read the affinity mask of",
            path: PathBuf::from("this process"),
            source: errno.into(),
        })?;
        let mask: Vec<usize> = (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect();
        mask[mask.len().saturating_sub(threads)..].to_vec()
    };
    cpus.sort_unstable();
    cpus.dedup();
    if threads == 0 || cpus.len() < threads {
        return Err(RunnerError::Threads { threads, available: cpus.len() });
    }
    Ok(cpus)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_last_cores_are_chosen_and_wanted_ones_are_kept() {
        assert_eq!(choose_cpus(Some(vec![3, 1, 3]), 1).unwrap(), [1, 3]);
        assert_eq!(choose_cpus(None, 1).unwrap().len(), 1);
        assert!(matches!(
            choose_cpus(Some(vec![1]), 2),
            Err(RunnerError::Threads { threads: 2, available: 1 })
        ));
        assert!(matches!(choose_cpus(None, 0), Err(RunnerError::Threads { threads: 0, .. })));
    }

    #[test]
    fn a_missing_agent_or_library_says_what_to_run() {
        let nowhere = || Some(PathBuf::from("/nonexistent/file"));
        let text = find_agent(nowhere()).unwrap_err().to_string();
        assert!(text.contains("/nonexistent/file") && text.contains("cargo xtask agent"), "{text}");
        let agent = Path::new("agent");
        let text = find_library(EngineName::Onnxruntime, nowhere(), agent).unwrap_err().to_string();
        assert!(text.contains("/nonexistent/file") && text.contains("cargo xtask setup"), "{text}");
        let text = find_library(EngineName::Openvino, nowhere(), agent).unwrap_err().to_string();
        assert!(text.contains("OpenVINO") && text.contains("LATHE_OPENVINO"), "{text}");
    }

    #[test]
    fn a_folder_stands_for_the_library_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let find = || find_library(EngineName::Openvino, Some(folder.path().to_owned()), Path::new("agent"));
        assert!(find().unwrap_err().to_string().contains("there is no libopenvino_c.so… in"));
        for name in ["libopenvino.so.2641", "libopenvino_c.so", "libopenvino_c.so.2641"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let whole = Some(folder.path().to_owned());
        let file = folder.path().join("libopenvino_c.so.2641");
        assert_eq!(find().unwrap(), FoundLibrary { file: file.clone(), folder: whole.clone() });
        let named = find_library(EngineName::Openvino, Some(file), Path::new("agent")).unwrap();
        assert_eq!(named.folder, whole, "the files beside it are needed too");
        let alone = folder.path().join("libonnxruntime.so.1");
        std::fs::write(&alone, "").unwrap();
        assert_eq!(
            find_library(EngineName::Onnxruntime, Some(alone), Path::new("agent")).unwrap().folder,
            None
        );
    }
    #[test]
    fn an_engine_inside_the_agent_needs_no_library_and_takes_none() {
        let agent = Path::new("/agents/static");
        let found = find_library(EngineName::Tract, None, agent).unwrap();
        assert_eq!(found, FoundLibrary { file: agent.to_owned(), folder: None });
        let error = find_library(EngineName::Tract, Some("/lib/x.so".into()), agent).unwrap_err();
        assert!(
            error.to_string().contains("/lib/x.so") && error.to_string().contains("--library"),
            "{error}"
        );
    }
}
