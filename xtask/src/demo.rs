//! The README's first command, and lathe itself in the right environment.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    command::{self, Failure},
    environment::Environment,
};

/// Builds everything and does the demo run, or goes on with one that was stopped.
pub fn run(environment: &Environment) -> Result<(), Failure> {
    let lathe = environment.build()?;
    let directory = next(&environment.root.join("runs"))?;
    let shown = directory.strip_prefix(&environment.root).unwrap_or(&directory);
    // Ctrl-C reaches lathe too, which finishes its step and says how to go on: this process waits for it.
    ctrlc::set_handler(|| {})
        .map_err(|error| Failure::new(format!("failed to watch for Ctrl-C: {error}")))?;
    let status = environment
        .command(lathe)
        .args(["run", "examples/demo.toml", "--resume", "--directory"])
        .arg(shown)
        .status()
        .map_err(|error| Failure::new(format!("failed to start lathe: {error}")))?;
    // 3: the run ended, and its report says that the target was missed.
    if !matches!(status.code(), Some(0 | 3)) {
        return Err(Failure {
            status: status.code().and_then(|code| u8::try_from(code).ok()),
            ..Failure::new(format!("the demo ended with {status}\nhint: `cargo xtask demo` goes on with it"))
        });
    }
    let report = directory.join("report.html");
    command::say("\nThe report:");
    command::print(&report.display().to_string());
    let display = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    if display {
        let _ = Command::new("xdg-open").arg(&report).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
    Ok(())
}

/// The last demo goes on unless it has ended; then the next one gets a directory of its own.
fn next(runs: &Path) -> Result<PathBuf, Failure> {
    let name = |number: usize| runs.join(if number == 1 { "demo".into() } else { format!("demo-{number}") });
    let mut number = 1;
    while name(number + 1).exists() {
        number += 1;
    }
    Ok(if ended(&name(number))? { name(number + 1) } else { name(number) })
}

/// Whether the record says so and the report is there: a device that broke down leaves none.
fn ended(run: &Path) -> Result<bool, Failure> {
    let path = run.join("record.jsonl");
    if !path.exists() {
        return Ok(false);
    }
    let text = fs::read_to_string(&path).map_err(|error| {
        Failure::new(format!("failed to read {}: {error}\nhint: delete {}", path.display(), run.display()))
    })?;
    let finished = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .any(|event| event["event"] == "finished");
    Ok(finished && run.join("report.html").is_file())
}

/// `cargo xtask lathe -- …`: takes this process's place, so that signals and status are lathe's own.
pub fn lathe(environment: &Environment, words: &[String]) -> Result<(), Failure> {
    let lathe = environment.build()?;
    let here = std::env::current_dir()
        .map_err(|error| Failure::new(format!("failed to find this folder: {error}")))?;
    let error = environment.command(lathe).current_dir(here).args(words).exec();
    Err(Failure::new(format!("failed to start lathe: {error}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_demo_goes_on_and_a_finished_one_makes_room() {
        let runs = std::env::temp_dir().join(format!("lathe-xtask-demo-{}", std::process::id()));
        assert_eq!(next(&runs).unwrap(), runs.join("demo"));

        fs::create_dir_all(runs.join("demo")).unwrap();
        let record = runs.join("demo/record.jsonl");
        fs::write(&record, "{\"event\":\"started\"}\n{\"event\":\"fini").unwrap();
        assert_eq!(next(&runs).unwrap(), runs.join("demo"));

        fs::write(&record, "{\"event\":\"finished\"}\n").unwrap();
        assert_eq!(next(&runs).unwrap(), runs.join("demo"), "no report: it has not ended well");
        fs::write(runs.join("demo/report.html"), "<html>").unwrap();
        assert_eq!(next(&runs).unwrap(), runs.join("demo-2"));

        fs::create_dir_all(runs.join("demo-2")).unwrap();
        assert_eq!(next(&runs).unwrap(), runs.join("demo-2"));
        fs::remove_dir_all(runs).unwrap();
    }
}
