//! How bytes and commands reach a device: a process on this machine, SSH, or Android's adb.

mod adb;
mod error;
mod local;
mod shell;
#[cfg(feature = "ssh")]
mod ssh;

use std::{fmt, time::Duration};

use nix::sys::signal::Signal;

pub use adb::{AdbSettings, AdbTransport, adb_devices};
pub use error::TransportError;
pub use local::LocalTransport;
pub use shell::{join_words, quote, split_words};
#[cfg(feature = "ssh")]
pub use ssh::{SshIdentity, SshSettings, SshTransport};

/// What is kept of a command's standard error.
const TAIL_BYTES: usize = 4096;
/// What is kept of a command's standard output: commands print status lines, data travels as files.
const OUTPUT_BYTES: usize = 1 << 20;

/// Reaches one device. Every call ends by its own deadline, whatever the device does.
///
/// An error for which [`TransportError::is_lost`] holds leaves the transport without a connection;
/// the next call connects again.
pub trait Transport: fmt::Debug + Send {
    /// Which device this is and how it is reached, for messages.
    fn peer(&self) -> String;

    /// Whether the device can be reached; connects if there is no connection.
    fn probe(&mut self) -> Result<(), TransportError>;

    /// Writes a file under a temporary name and renames it: a file under `path` is always whole.
    /// Folders above it are made. The file may be executed.
    fn put(&mut self, content: &[u8], path: &str) -> Result<(), TransportError>;

    /// Reads a whole file of at most `limit` bytes.
    fn get(&mut self, path: &str, limit: usize) -> Result<Vec<u8>, TransportError>;

    /// Runs a line of POSIX shell. Its standard input stays open and empty until it has ended; output
    /// and complaints are read together, so that it never waits for a reader. At the deadline the call
    /// ends and so does the connection: what it started must be ended by whoever knows its number.
    fn run(&mut self, line: &str, deadline: Duration) -> Result<Finished, TransportError>;
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By a signal: its name without `SIG`, or its number.
    Signal(String),
}

impl Exit {
    /// Whether it ended by itself with code 0.
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }

    /// By the signal of this number.
    pub(crate) fn of_signal(number: i32) -> Self {
        Self::Signal(
            Signal::try_from(number)
                .map_or_else(|_| number.to_string(), |signal| signal.as_str().replacen("SIG", "", 1)),
        )
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(name) => write!(f, "signal {name}"),
        }
    }
}

/// What a command left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output, cut off after one mebibyte.
    pub stdout: Vec<u8>,
    /// The end of its standard error, at most 4,096 bytes.
    pub stderr: Vec<u8>,
}

/// Output and complaints of a command, bounded while they come in.
#[derive(Debug, Default)]
struct Gathered {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Gathered {
    fn output(&mut self, bytes: &[u8]) {
        let room = OUTPUT_BYTES.saturating_sub(self.stdout.len());
        self.stdout.extend(&bytes[..bytes.len().min(room)]);
    }

    fn complaint(&mut self, bytes: &[u8]) {
        self.stderr.extend(bytes);
        // Cut now and then, so that a flood is moved once and not per chunk.
        if self.stderr.len() > 16 * TAIL_BYTES {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let surplus = self.stderr.len().saturating_sub(TAIL_BYTES);
        self.stderr.drain(..surplus);
    }

    fn finished(mut self, exit: Exit) -> Finished {
        self.cut();
        Finished { exit, stdout: self.stdout, stderr: self.stderr }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_either_kind_stays_bounded_and_the_last_words_are_kept() {
        let mut gathered = Gathered::default();
        for _ in 0..3000 {
            gathered.output(&[b'o'; 1000]);
            gathered.complaint(&[b'e'; 1000]);
        }
        gathered.complaint(b"last words");
        let finished = gathered.finished(Exit::Code(3));
        assert_eq!((finished.stdout.len(), finished.stderr.len()), (OUTPUT_BYTES, TAIL_BYTES));
        assert!(finished.stderr.ends_with(b"last words"));
        assert!(!finished.exit.success() && !Exit::Signal("KILL".into()).success());
    }
}
