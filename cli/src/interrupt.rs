//! Ctrl-C: once finishes the step and keeps everything, twice ends at once.

use std::sync::atomic::{AtomicBool, Ordering};

use miette::Report;

use crate::{exit_codes, terminal::Terminal};

static STOP: AtomicBool = AtomicBool::new(false);

/// The flag that Ctrl-C (or a termination signal) raises.
pub fn watch(terminal: Terminal) -> Result<&'static AtomicBool, Report> {
    ctrlc::set_handler(move || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(exit_codes::INTERRUPTED));
        }
        terminal.say("\nstopping after this step; press Ctrl-C again to stop at once");
    })
    .map_err(|error| miette::miette!("failed to watch for Ctrl-C: {error}"))?;
    Ok(&STOP)
}
