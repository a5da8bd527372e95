//! A kernel model as a file.

use std::{fs, io, io::Write, path::Path};

use serde::{Deserialize, Serialize};

use super::{FusionEvidence, KernelError, KernelModel, Validation};
use crate::{Device, Provenance, atomic_file};

/// Format that is written; the newest that is read.
const FORMAT: u32 = 1;

/// Where a kernel model comes from, written above it in its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelHeader {
    /// Version of Lathe that fitted it.
    pub version: String,
    /// When, RFC 3339.
    pub created: String,
    /// Device that was measured.
    pub device: Device,
    /// Where its numbers come from.
    pub provenance: Provenance,
    /// Graphs that went in.
    pub rows: usize,
    /// Of them whole networks.
    pub networks: usize,
    /// Error on held-out graphs.
    pub validation: Validation,
    /// What the fusion rules rest on; empty if no pair was measured.
    pub fusion: Vec<FusionEvidence>,
}

#[derive(Serialize)]
struct Written<'a> {
    kind: &'a str,
    format: u32,
    header: &'a ModelHeader,
    model: &'a KernelModel,
}

#[derive(Deserialize)]
struct Format {
    kind: String,
    format: u32,
}

#[derive(Deserialize)]
struct Read {
    header: ModelHeader,
    model: KernelModel,
}

impl KernelModel {
    /// Writes the model with its header as JSON; never over an existing file.
    pub fn save(&self, path: &Path, header: &ModelHeader) -> Result<(), KernelError> {
        let written = Written { kind: "kernel model", format: FORMAT, header, model: self };
        atomic_file::create(path, |writer| {
            serde_json::to_writer_pretty(&mut *writer, &written)?;
            writer.write_all(b"\n")
        })
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KernelError::Exists { path: path.to_owned() },
            _ => KernelError::Io { action: "write the kernel model", path: path.to_owned(), source },
        })
    }

    /// Reads a file that [`KernelModel::save`] wrote.
    pub fn load(path: &Path) -> Result<(Self, ModelHeader), KernelError> {
        let action = "read the kernel model";
        let text = fs::read_to_string(path).map_err(|source| KernelError::Io {
            action,
            path: path.to_owned(),
            source,
        })?;
        let parse = |reason: String| KernelError::Parse { path: path.to_owned(), reason };
        let Format { kind, format } = serde_json::from_str(&text).map_err(|error| {
            parse(format!("it is no kernel model ({error}); write one with `lathe predictor fit`"))
        })?;
        if kind != "kernel model" {
            return Err(parse(format!("it is a {kind}, expected a kernel model")));
        }
        if format > FORMAT {
            return Err(KernelError::Newer { path: path.to_owned(), found: format, supported: FORMAT });
        }
        let Read { header, mut model } =
            serde_json::from_str(&text).map_err(|error| parse(error.to_string()))?;
        if model.restore() {
            Ok((model, header))
        } else {
            Err(parse("its numbers contradict each other".into()))
        }
    }
}
