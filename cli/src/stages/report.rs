//! Writes the HTML file.

use miette::Report;

use crate::{
    failure::failed,
    run::{Run, StageEnd},
};

/// The stage.
pub fn run(run: &mut Run<'_>) -> Result<StageEnd, Report> {
    lathe_reports::write(&run.directory.path).map_err(failed)?;
    Ok(StageEnd::Done)
}
