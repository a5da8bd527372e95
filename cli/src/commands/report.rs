//! `lathe report`.

use miette::Report;

use crate::{arguments::ReportArguments, config, exit_codes, failure::failed, terminal, terminal::Terminal};

/// Writes the report of a run, finished or not.
pub fn run(arguments: &ReportArguments, _terminal: Terminal) -> Result<u8, Report> {
    let directory =
        if arguments.run.is_file() { config::load(&arguments.run)?.directory } else { arguments.run.clone() };
    let file = lathe_reports::write(&directory).map_err(failed)?;
    terminal::data(&file.display().to_string());
    Ok(exit_codes::OK)
}
