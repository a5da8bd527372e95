//! What can be wrong with images on a disk.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Paths that a message lists at most.
const LISTED: usize = 5;

/// Why images can't be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file system refused.
    #[error("read `{}`: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The folder isn't there, or lacks what it should hold.
    #[error("find images in `{}`: {problem}; hint: {expected}", path.display())]
    Layout {
        /// Folder that was looked into.
        path: PathBuf,
        /// What is missing.
        problem: String,
        /// What is expected there.
        expected: &'static str,
    },
    /// A binary file of a wrong length.
    #[error(
        "read `{}`: expected a positive multiple of {record} bytes (1 label and 32 x 32 x 3 pixels each), got {got}",
        path.display()
    )]
    Length {
        /// File.
        path: PathBuf,
        /// Bytes of an image with its label.
        record: usize,
        /// Bytes of the file.
        got: u64,
    },
    /// A label that stands for no class.
    #[error("read `{}`: image {index} has label {label}, expected 0 to 9", path.display())]
    Label {
        /// File.
        path: PathBuf,
        /// Image, from 0.
        index: usize,
        /// Its label.
        label: u8,
    },
    /// Images that can't be decoded.
    #[error(
        "decode {count} of {total} images: {}; hint: copy these files again, or remove them",
        listed(examples)
    )]
    Undecodable {
        /// How many.
        count: usize,
        /// Images that were tried.
        total: usize,
        /// The first of them, each with its fault.
        examples: Vec<(PathBuf, String)>,
    },
    /// More images wanted than there are.
    #[error("choose {wanted} {split} images: there are {available}")]
    TooFew {
        /// `training` or `test`.
        split: &'static str,
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        available: usize,
    },
    /// A setting that makes no sense.
    #[error("load the data: {key} = {got}, expected {expected}")]
    Setting {
        /// Key.
        key: &'static str,
        /// Its value.
        got: usize,
        /// What would do.
        expected: &'static str,
    },
}

fn listed(examples: &[(PathBuf, String)]) -> String {
    let shown = |(path, fault): &(PathBuf, String)| format!("`{}` ({fault})", path.display());
    examples.iter().take(LISTED).map(shown).collect::<Vec<_>>().join(", ")
}

/// The error for files that could not be decoded.
pub(super) fn undecodable(mut faults: Vec<(PathBuf, String)>, total: usize) -> DataError {
    let count = faults.len();
    faults.truncate(LISTED);
    DataError::Undecodable { count, total, examples: faults }
}
