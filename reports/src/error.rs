//! What can go wrong with a report.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a report can't be made. The messages complete "failed to …".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The directory holds no record.
    #[error(
        "find the run's record `{}`; hint: give the directory of a run, the one that holds record.jsonl",
        path.display()
    )]
    NoRecord {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file system refused to let a file be read.
    #[error("read `{}`: {source}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A whole line of the record that is no event.
    #[error(
        "read the run's record `{}`: line {line} is not an event: {reason}; it begins with `{start}`{}",
        path.display(), hint(reason)
    )]
    Line {
        /// File.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
        /// Its first characters.
        start: String,
    },
    /// A figure that can't be drawn.
    #[error("draw the figure `{figure}`: {reason}")]
    Figure {
        /// Which one.
        figure: &'static str,
        /// What the drawing library says.
        reason: String,
    },
    /// The template failed.
    #[error("fill the report's template: {0}")]
    Template(#[from] minijinja::Error),
    /// The file system refused to let the report be written.
    #[error(
        "write the report `{}`: {source}; hint: the run's directory must be writable and have free space",
        path.display()
    )]
    Write {
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// What the two usual faults of a line mean.
fn hint(reason: &str) -> &'static str {
    if reason.contains("null") {
        "; hint: a number that was infinite or not a number is written as null: the run has diverged there"
    } else if reason.contains("unknown variant") {
        "; hint: a newer version of lathe may have written it"
    } else {
        ""
    }
}
