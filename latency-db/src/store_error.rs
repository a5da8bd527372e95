//! What can go wrong with files of measurements.

use std::{io, path::PathBuf};

use thiserror::Error;

/// What can go wrong with files of measurements. The messages complete "failed to …".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused.
    #[error("{action} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was tried (`write`, `read`, `create the folder`).
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A Parquet file that is half-written, damaged or not made by Lathe.
    #[error(
        "read measurements from {}: {reason}; move the file out of the folder (it is not needed to read the others) \
         and measure again what is missing: `lathe measure --only-missing`",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a later version of Lathe.
    #[error(
        "read measurements from {}: it has schema version {found}, and this version of lathe reads up to {supported}; \
         use a newer lathe",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The newest one that can be read.
        supported: u32,
    },
    /// Measurements could not be turned into Parquet.
    #[error("write measurements to {}: {reason}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// An export never overwrites.
    #[error("write {}: the file exists; name another one or remove it first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The extension of an export says its format.
    #[error("write {}: expected a name that ends in .csv, .json, .jsonl or .parquet", path.display())]
    Extension {
        /// The file.
        path: PathBuf,
    },
    /// A line of a journal that was written whole cannot be read.
    #[error("read line {line} of {}: {source}; the file was changed by something else: move it away to start anew", path.display())]
    JournalLine {
        /// The journal.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A line of the files that say what workloads compute cannot be read.
    #[error(
        "read line {line} of {}: {reason}; move the file out of the folder (measurements stay usable, only predictions of \
         unseen graphs lose what it holds)",
        path.display()
    )]
    WorkloadLine {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// What to do about the errors that have one cause.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            " (hint: a latency database is a folder; name another one with --database)"
        }
        io::ErrorKind::StorageFull => " (hint: make room; nothing that was stored is lost)",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (hint: name a folder that you may write with --database)"
        }
        _ => "",
    }
}
