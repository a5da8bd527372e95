//! What can go wrong with tables of latencies.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::predictor::PredictorError;

/// What can go wrong with tables of latencies. The messages complete "failed to …".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LatencyTableError {
    /// The operating system refused.
    #[error("read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not a table.
    #[error("read {} as a table: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A cell that cannot be understood.
    #[error("read {}, column `{column}`, row {row}: {reason}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// Name of the column.
        column: String,
        /// Row of data, from 1.
        row: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// No column says which architecture a row is.
    #[error(
        "read {}: no column names the architectures; expected one of {}, got columns {}",
        path.display(),
        expected.join(", "),
        got.join(", ")
    )]
    Architectures {
        /// The file.
        path: PathBuf,
        /// Names that would do.
        expected: Vec<&'static str>,
        /// Names that there are.
        got: Vec<String>,
    },
    /// No numeric column besides.
    #[error("read {}: it has no column of latencies (numbers, in milliseconds; one column per device)", path.display())]
    NoDevice {
        /// The file.
        path: PathBuf,
    },
    /// No such device.
    #[error("find the device `{device}` in {}: {hint}", path.display())]
    Device {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        device: String,
        /// What could have been meant.
        hint: String,
    },
    /// None of the layouts.
    #[error(
        "recognise the layout of {}: found {found}; there are wide and long (.parquet or .csv), hw-nas-bench (its \
         .pickle) and help (its data folder)",
        path.display()
    )]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// A pickle that holds something else, or code.
    #[error("read {}: {reason}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Not one number per architecture.
    #[error(
        "read {}: `{device}` has {got} rows, and there are {expected} architectures",
        path.display()
    )]
    Rows {
        /// The file or folder.
        path: PathBuf,
        /// The column.
        device: String,
        /// Architectures.
        expected: usize,
        /// Rows that it has.
        got: usize,
    },
    /// A table is never written over a file.
    #[error("write {}: the file exists; name another one or remove it first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A table could not be written.
    #[error("write {}: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The space cannot be encoded.
    #[error(transparent)]
    Predictor(#[from] PredictorError),
}
