//! The directory of one run: its configuration, its record, its lock.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use lathe_search::{Event, RecordError, RunRecord};
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use crate::config::{self, Config, ConfigError};

/// Why a run's directory can't be used.
#[derive(Debug, Error)]
pub enum RunDirectoryError {
    /// Something could not be read or written.
    #[error("failed to {action} {path}: {source}{}", space_hint(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// There is a run already.
    #[error(
        "failed to start in {0}: it holds a run already\nhint: go on with it by `--resume`, or choose another `--directory`"
    )]
    Exists(PathBuf),
    /// Another process works on it.
    #[error("failed to open {0}: another lathe works on this run\nhint: wait for it, or stop it first")]
    Locked(PathBuf),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
}

fn space_hint(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::StorageFull => {
            "\nhint: free some space, then go on with `--resume`; nothing that was recorded is lost"
        }
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            "\nhint: choose a directory that can be written, with `--directory`"
        }
        _ => "",
    }
}

/// An opened run: nobody else works on it until it is dropped.
pub struct RunDirectory {
    /// Where it lies.
    pub path: PathBuf,
    /// The record.
    pub record: RunRecord,
    _lock: Flock<File>,
}

impl RunDirectory {
    /// Starts a run, or takes one up again if `resume` and there is one.
    pub fn open(source: &Path, config: &Config, resume: bool) -> Result<Self, RunDirectoryError> {
        let path = config.directory.clone();
        let resolved = config::resolved(config)?;
        let existing = path.join("resolved.toml");
        if existing.exists() {
            if !resume {
                return Err(RunDirectoryError::Exists(path));
            }
            let before = read(&existing)?;
            let differences = config::differences(&before, &resolved);
            if !differences.is_empty() {
                return Err(ConfigError::Changed { directory: path, differences }.into());
            }
        }
        for folder in ["", "checkpoint", "export"] {
            let folder = path.join(folder);
            fs::create_dir_all(&folder).map_err(|source| RunDirectoryError::Io {
                action: "create",
                path: folder,
                source,
            })?;
        }
        let lock = lock(&path)?;
        if !existing.exists() {
            let given = read(source)?;
            write_atomically(&path.join("config.toml"), given.as_bytes())?;
            write_atomically(&existing, resolved.as_bytes())?;
        }
        let mut record = RunRecord::open(&path.join("record.jsonl"))?;
        let now = jiff::Timestamp::now().to_string();
        let started = record.push(Event::Started {
            name: config.name.clone(),
            at: now.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            seed: config.seed,
            config_sha256: config::digest(&resolved),
        })?;
        if !started {
            record.push(Event::Resumed { at: now })?;
        }
        Ok(Self { path, record, _lock: lock })
    }
}

fn lock(path: &Path) -> Result<Flock<File>, RunDirectoryError> {
    let file = path.join("lock");
    let opened = File::create(&file).map_err(|source| RunDirectoryError::Io {
        action: "create",
        path: file,
        source,
    })?;
    Flock::lock(opened, FlockArg::LockExclusiveNonblock)
        .map_err(|_| RunDirectoryError::Locked(path.to_owned()))
}

fn read(path: &Path) -> Result<String, RunDirectoryError> {
    fs::read_to_string(path).map_err(|source| RunDirectoryError::Io {
        action: "read",
        path: path.into(),
        source,
    })
}

/// Writes a file whole or not at all: temporary name in the same folder, synced, renamed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), RunDirectoryError> {
    let fail = |source| RunDirectoryError::Io { action: "write", path: path.into(), source };
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    // Temporary files are for their owner only; what is written here is meant for others too.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)
}
