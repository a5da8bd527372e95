//! What can go wrong between processes.

use std::time::Duration;

use thiserror::Error;

/// Why processes could not work together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CollectiveError {
    /// The processes did not find each other.
    #[error(
        "connect rank {rank} with the other {} at {host}:{port}: {reason}; hint: {hint}",
        processes(size - 1)
    )]
    Connect {
        /// Number of this process.
        rank: usize,
        /// Number of processes.
        size: usize,
        /// Where they were to meet.
        host: String,
        /// Port there.
        port: u16,
        /// The library's words.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// An exchange that did not come to its end.
    #[error(
        "{what} over {}: rank {rank} waited {:.1} s in exchange {number}, {}: {reason}; hint: {}",
        processes(*size), waited.as_secs_f64(), blame(silent.as_deref()), look(silent.as_deref())
    )]
    Exchange {
        /// What was to be done: `sum 3 values`.
        what: String,
        /// Number of this process.
        rank: usize,
        /// Number of processes.
        size: usize,
        /// How many exchanges this process had begun, this one included.
        number: u64,
        /// How long this one took to fail.
        waited: Duration,
        /// Processes that did not even report a failure within some seconds: dead or stuck. `None` if
        /// they could not be asked, because the launcher that holds the store does not answer.
        silent: Option<Vec<usize>>,
        /// The library's words.
        reason: String,
    },
    /// Processes that were started with different things to do.
    #[error(
        "train in {}: {} {} another {what} than rank 0; hint: start all processes alike",
        processes(*size), numbered(ranks), if ranks.len() == 1 { "has" } else { "have" }
    )]
    Disagree {
        /// What differs.
        what: &'static str,
        /// Number of processes.
        size: usize,
        /// Whose is not that of rank 0.
        ranks: Vec<usize>,
    },
    /// An exchange after one that failed: the connections are closed.
    #[error("{what}: rank {rank} lost the other processes in exchange {number}")]
    Lost {
        /// What was to be done.
        what: String,
        /// Number of this process.
        rank: usize,
        /// The exchange that failed.
        number: u64,
    },
}

fn processes(count: usize) -> String {
    if count == 1 { "1 process".to_owned() } else { format!("{count} processes") }
}

fn numbered(ranks: &[usize]) -> String {
    let numbers: Vec<String> = ranks.iter().map(usize::to_string).collect();
    format!("rank{} {}", if ranks.len() == 1 { "" } else { "s" }, numbers.join(", "))
}

fn blame(silent: Option<&[usize]>) -> String {
    match silent {
        None => "and the launcher does not answer".to_owned(),
        Some([]) => "and all others failed too".to_owned(),
        Some(silent) => format!("with no sign of life from {}", numbered(silent)),
    }
}

fn look(silent: Option<&[usize]>) -> String {
    match silent {
        None => "the launcher's output should say why it ended".to_owned(),
        Some([]) => "the first error in the output of any process is the cause".to_owned(),
        Some(silent) => format!("the output of {} should say what ended it or holds it up", numbered(silent)),
    }
}
