//! What is shown: one self-contained HTML file from a run's directory.
//!
//! Three layers, each of which knows nothing of the next: a *view* (plain data and the words for it,
//! taken from the run's record), *figures* (SVG), and a *page* (the HTML template). The page names no
//! outside resource and can be read without scripts. A run may be unfinished: every part that is not
//! there yet says so.
//!
//! ```
//! let run = tempfile::tempdir()?;
//! std::fs::write(
//!     run.path().join("record.jsonl"),
//!     concat!(
//!         r#"{"event":"started","name":"my <first> run","at":"2026-01-01T10:00:00Z","#,
//!         r#""version":"0.1.0","seed":1,"config_sha256":"69cb"}"#,
//!         "\n"
//!     ),
//! )?;
//! let page = lathe_reports::render(run.path())?;
//! assert!(page.starts_with("<!DOCTYPE html>"));
//! assert!(page.contains("my &lt;first&gt; run"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod figures;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod fixtures;
mod genotype_text;
mod history;
mod interval;
mod page;
mod palette;
mod quantity;
mod run_files;
mod study;
mod view;

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

pub use error::ReportError;
use figures::Figures;
use run_files::RunFiles;
pub use study::{Study, StudyDevice, StudyGroup, StudyNetwork, StudyVolume};
use view::View;

/// Name of the report in a run's directory.
const REPORT: &str = "report.html";

/// The report of a run as HTML text, from `record.jsonl`, `resolved.toml` and `cost-table.json` in
/// its directory. Nothing is written, so a run that is still going can be looked at.
///
/// # Errors
/// [`ReportError`] if there is no record, or if one of its lines (other than a half-written last
/// one) is no event.
pub fn render(run_directory: &Path) -> Result<String, ReportError> {
    let files = RunFiles::read(run_directory)?;
    let view = View::of(&files);
    let figures = Figures::of(&view)?;
    page::render(&view, &figures)
}

/// Writes `report.html` into the run's directory, whole or not at all, and returns its path.
///
/// # Errors
/// As [`render`], and if the file can't be written.
pub fn write(run_directory: &Path) -> Result<PathBuf, ReportError> {
    let page = render(run_directory)?;
    let path = run_directory.join(REPORT);
    replace(run_directory, &path, page.as_bytes())
        .map_err(|source| ReportError::Write { path: path.clone(), source })?;
    Ok(path)
}

/// Temporary name in the same folder, synced, renamed.
fn replace(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".report-").suffix(".html").tempfile_in(folder)?;
    file.write_all(bytes)?;
    readable(file.as_file())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

/// Temporary files are for their owner only; a report is meant for others.
#[cfg(unix)]
fn readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
