//! Stub.
use std::path::{Path, PathBuf};
/// Stub error.
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct ReportError;
/// Stub.
pub fn write(d: &Path) -> Result<PathBuf, ReportError> { let p=d.join("report.html"); std::fs::write(&p, "stub searched <svg").map_err(|_| ReportError)?; Ok(p) }
