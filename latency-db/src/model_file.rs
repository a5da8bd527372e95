//! Fitted models as files: JSON with a header that says where they come from.

use std::{
    fmt, fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::atomic_file;

/// Format that is written; the newest that is read.
const FORMAT: u32 = 1;

/// What kind of model a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// [`crate::kernels::KernelModel`]: any network.
    Kernels,
    /// [`crate::predictor::TableModel`]: architectures of one space, with other devices as sources.
    Table,
}

/// What can go wrong with a file of a model. The messages complete "failed to …".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelFileError {
    /// The file is never overwritten.
    #[error("write the model {}: the file exists; name another one or remove it first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{action} the model {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not a file of this kind, or a damaged one.
    #[error("read the model {}: {reason}; write one with `lathe fit --device NAME`", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a later version of Lathe.
    #[error(
        "read the model {}: it has format {found}, and this version of lathe reads up to {supported}; use a newer lathe",
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

#[derive(Serialize)]
struct Written<'a, H, M> {
    kind: ModelKind,
    format: u32,
    header: &'a H,
    model: &'a M,
}

#[derive(Deserialize)]
struct Start {
    kind: ModelKind,
    format: u32,
}

#[derive(Deserialize)]
struct Read<H, M> {
    header: H,
    model: M,
}

impl ModelFileError {
    pub(crate) fn parse(path: &Path, reason: &dyn fmt::Display) -> Self {
        Self::Parse { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Writes a model whole or not at all, never over an existing file.
pub(crate) fn save<H: Serialize, M: Serialize>(
    path: &Path,
    kind: ModelKind,
    header: &H,
    model: &M,
) -> Result<(), ModelFileError> {
    atomic_file::create(path, |writer| {
        serde_json::to_writer_pretty(&mut *writer, &Written { kind, format: FORMAT, header, model })?;
        writer.write_all(b"\n")
    })
    .map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => ModelFileError::Exists { path: path.to_owned() },
        _ => ModelFileError::Io { action: "write", path: path.to_owned(), source },
    })
}

/// Reads what [`save`] wrote.
pub(crate) fn load<H: DeserializeOwned, M: DeserializeOwned>(
    path: &Path,
    kind: ModelKind,
) -> Result<(H, M), ModelFileError> {
    let text = read(path)?;
    let found = start(path, &text)?;
    if found != kind {
        let reason = format!("expected a model of kind {kind:?}, got one of kind {found:?}");
        return Err(ModelFileError::parse(path, &reason));
    }
    let Read { header, model } =
        serde_json::from_str(&text).map_err(|error| ModelFileError::parse(path, &error))?;
    Ok((header, model))
}

/// What kind of model a file holds.
///
/// # Errors
/// [`ModelFileError`] if it is none, or of a later version.
pub fn model_kind(path: &Path) -> Result<ModelKind, ModelFileError> {
    start(path, &read(path)?)
}

fn read(path: &Path) -> Result<String, ModelFileError> {
    fs::read_to_string(path).map_err(|source| ModelFileError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

fn start(path: &Path, text: &str) -> Result<ModelKind, ModelFileError> {
    let Start { kind, format } = serde_json::from_str(text)
        .map_err(|error| ModelFileError::parse(path, &format!("it is no model of lathe's ({error})")))?;
    if format > FORMAT {
        return Err(ModelFileError::Newer { path: path.to_owned(), found: format, supported: FORMAT });
    }
    Ok(kind)
}
