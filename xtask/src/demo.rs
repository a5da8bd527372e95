//! The README's first command, and lathe itself in the right environment.

use std::process::{Command, Stdio};

use crate::{
    command::{self, Failure},
    environment::Environment,
};

const RUN: &str = "runs/demo";

/// Builds everything and does the demo run, or goes on with one that was stopped.
pub fn run(environment: &Environment) -> Result<(), Failure> {
    let lathe = environment.build()?;
    let report = environment.root.join(RUN).join("report.html");
    let status = environment
        .command(lathe)
        .args(["run", "examples/demo.toml", "--resume"])
        .status()
        .map_err(|error| Failure::new(format!("failed to start lathe: {error}")))?;
    // 3: the run ended, and its report says that the target was missed.
    if !matches!(status.code(), Some(0 | 3)) {
        return Err(Failure {
            status: status.code().and_then(|code| u8::try_from(code).ok()),
            ..Failure::new(format!("the demo ended with {status}\nhint: `cargo xtask demo` goes on with it"))
        });
    }
    command::say("\nThe report:");
    command::print(&report.display().to_string());
    let display = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    if display {
        let _ = Command::new("xdg-open").arg(&report).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
    Ok(())
}

/// `cargo xtask lathe -- …`.
pub fn lathe(environment: &Environment, words: &[String]) -> Result<(), Failure> {
    let lathe = environment.build()?;
    let here = std::env::current_dir().map_err(|error| Failure::new(format!("failed to find this folder: {error}")))?;
    let status = environment
        .command(lathe)
        .current_dir(here)
        .args(words)
        .status()
        .map_err(|error| Failure::new(format!("failed to start lathe: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure {
        status: status.code().and_then(|code| u8::try_from(code).ok()),
        ..Failure::new(format!("lathe ended with {status}"))
    })
}
