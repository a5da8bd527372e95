//! What can go wrong with operator look-up tables.

use std::{io, path::PathBuf};

use thiserror::Error;

/// What can go wrong with operator look-up tables. The messages complete "failed to …".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LookupTableError {
    /// The operating system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried (`read`, `write`).
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line that the format does not have.
    #[error("read {}, line {line}, key `{key}`: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Key that the line belongs to; empty above the first one.
        key: String,
        /// What was expected and what is there.
        reason: String,
    },
    /// No operator at all.
    #[error("read {}: it has no operators", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// An export never overwrites.
    #[error("write {}: the file exists; name another one or remove it first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
}
