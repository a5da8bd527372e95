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
        "{what} over {}: rank {rank} waited {:.1} s in exchange {number}, {}: {reason}; hint: the message of the process that ended first says why, rank by rank",
        processes(*size), waited.as_secs_f64(), blame(silent.as_deref())
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
        /// they could not be asked, because the process that keeps the words of all is gone.
        silent: Option<Vec<usize>>,
        /// The library's words.
        reason: String,
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

fn blame(silent: Option<&[usize]>) -> String {
    match silent {
        None => "and rank 0, or whoever keeps the words of all, is gone".to_owned(),
        Some([]) => "as did all others".to_owned(),
        Some([rank]) => format!("with no sign of life from rank {rank}"),
        Some(ranks) => {
            let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
            format!("with no sign of life from ranks {}", ranks.join(", "))
        }
    }
}
