//! A kernel model as a file.

use std::path::Path;

use lathe_spaces::Precision;
use serde::{Deserialize, Serialize};

use super::{FusionEvidence, KernelModel, Validation};
use crate::{Device, ModelFileError, ModelKind, Provenance, model_file};

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
    /// Numeric type that it is about.
    #[serde(default)]
    pub precision: Precision,
    /// Graphs that went in.
    pub rows: usize,
    /// Of them whole networks.
    pub networks: usize,
    /// Of them those whose measurement has a quality flag.
    pub flagged: usize,
    /// Error on held-out graphs.
    pub validation: Validation,
    /// What the fusion rules rest on; empty if no pair was measured.
    pub fusion: Vec<FusionEvidence>,
}

impl KernelModel {
    /// Writes the model with its header as JSON; never over an existing file.
    ///
    /// # Errors
    /// [`ModelFileError`]
    pub fn save(&self, path: &Path, header: &ModelHeader) -> Result<(), ModelFileError> {
        model_file::save(path, ModelKind::Kernels, header, self)
    }

    /// Reads a file that [`KernelModel::save`] wrote.
    ///
    /// # Errors
    /// [`ModelFileError`]
    pub fn load(path: &Path) -> Result<(Self, ModelHeader), ModelFileError> {
        let (header, mut model): (ModelHeader, Self) = model_file::load(path, ModelKind::Kernels)?;
        if model.restore() {
            Ok((model, header))
        } else {
            Err(ModelFileError::parse(path, &"its numbers contradict each other"))
        }
    }
}
