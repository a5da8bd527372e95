//! Running other programs, and what is said when they fail.

use std::{
    fmt,
    io::Write,
    process::{Command, Output},
};

/// Why a task stopped.
#[derive(Debug)]
pub struct Failure {
    /// What failed, where, and what to do.
    pub message: String,
    /// Status of the program that failed, if the user asked for that program.
    pub status: Option<u8>,
}

impl Failure {
    /// With a message that says what, where and what to do.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A line for the user, on standard error.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A line of data, on standard output.
pub fn print(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Runs a program with its output shown; anything but success is a failure.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let words = words(command);
    say(&format!("$ {words}"));
    let status =
        command.status().map_err(|error| Failure::new(format!("failed to start `{words}`: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{words}` ended with {status}")))
}

/// Runs a program and takes its output.
pub fn capture(command: &mut Command) -> Result<Output, Failure> {
    let words = words(command);
    command.output().map_err(|error| Failure::new(format!("failed to start `{words}`: {error}")))
}

fn words(command: &Command) -> String {
    let arguments = command.get_args().map(|word| word.to_string_lossy().into_owned());
    std::iter::once(command.get_program().to_string_lossy().into_owned())
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}
