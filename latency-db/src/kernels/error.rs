//! What can go wrong with a kernel model.

use std::{io, path::PathBuf};

use thiserror::Error;

/// What can go wrong with a kernel model. The messages complete "failed to …".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Nothing, or almost nothing, to learn from.
    #[error("fit the kernel model: it needs at least {needed} timed graphs, got {got}")]
    TooFew {
        /// Least number.
        needed: usize,
        /// What there is.
        got: usize,
    },
    /// A latency that is not a positive number.
    #[error("fit the kernel model: graph `{label}` has a latency of {micros} µs")]
    Latency {
        /// Graph.
        label: String,
        /// Its latency.
        micros: f64,
    },
    /// The measurements have several provenances.
    #[error("fit the kernel model: the measurements are of different kinds ({})", kinds.join(", "))]
    MixedProvenance {
        /// The kinds.
        kinds: Vec<String>,
    },
    /// The numbers don't determine a model.
    #[error("fit the kernel model: the least-squares problem has no solution")]
    Singular,
    /// The file is never overwritten.
    #[error("write the kernel model {}: the file exists; name another one or remove it first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not a file of this kind.
    #[error("read {}: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a later version of Lathe.
    #[error(
        "read the kernel model {}: it has format {found}, and this version of lathe reads up to {supported}; use a \
         newer lathe",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that can be read.
        supported: u32,
    },
}
