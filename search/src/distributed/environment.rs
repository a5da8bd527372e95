//! Which of several processes this one is: what torchrun, Slurm and Kubernetes tell it.

use std::{env, ffi::OsString, time::Duration};

use thiserror::Error;

/// Variable with the longest wait for other processes.
const TIMEOUT: &str = "LATHE_COLLECTIVE_TIMEOUT_SECONDS";
/// Longest wait if that is absent: that of `PyTorch`.
const TIMEOUT_SECONDS: u64 = 1800;
/// Longest wait that can be asked for: a week.
const TIMEOUT_SECONDS_MAX: u64 = 7 * 24 * 3600;

/// Place of this process among the processes of a training.
///
/// | | torchrun, Kubernetes (`PyTorchJob`) | Slurm, if `RANK` is absent and `SLURM_PROCID` is set |
/// |---|---|---|
/// | rank | `RANK` | `SLURM_PROCID` |
/// | size | `WORLD_SIZE` | `WORLD_SIZE`, else `SLURM_NTASKS` |
/// | host | `MASTER_ADDR` | `MASTER_ADDR`, else `SLURM_LAUNCH_NODE_IPADDR` |
/// | port | `MASTER_PORT` | `MASTER_PORT`, else 20000 + the last four digits of `SLURM_JOB_ID` |
///
/// An empty variable counts as absent. There is one process, and no environment, if the size is 1 or
/// neither rank nor size is set; the address alone says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Number of this process, from 0.
    pub rank: usize,
    /// Number of processes, at least 2.
    pub size: usize,
    /// Name or address of the machine where the processes meet: that of rank 0.
    pub host: String,
    /// Port there.
    pub port: u16,
    /// Longest wait for the others: `LATHE_COLLECTIVE_TIMEOUT_SECONDS`, half an hour if absent.
    pub timeout: Duration,
    /// Who listens at the port.
    pub store: StoreHost,
}

/// Who holds the words that the processes leave for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreHost {
    /// The process of rank 0.
    RankZero,
    /// The launcher: torchrun listens at `MASTER_PORT` itself and says so in
    /// `TORCHELASTIC_USE_AGENT_STORE`.
    Launcher {
        /// How often it started the processes anew: `TORCHELASTIC_RESTART_COUNT`.
        attempt: u64,
    },
}

/// Why the place of this process isn't clear.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// A variable that makes no sense.
    #[error("join the other processes: the environment has {name}={value}, expected {expected}")]
    Value {
        /// Variable.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What would do.
        expected: String,
    },
    /// Half of the variables are there.
    #[error(
        "join the other processes: the environment has {given} but no {missing}; hint: torchrun, Slurm's srun and Kubernetes' PyTorchJob set all of them; for a single process unset {}",
        given.split('=').next().unwrap_or(given)
    )]
    Missing {
        /// A variable that is set, with its value.
        given: String,
        /// What is absent.
        missing: &'static str,
    },
}

impl Environment {
    /// From the variables of this process; `None` if it is the only one.
    pub fn from_process() -> Result<Option<Self>, EnvironmentError> {
        Self::read(env::var_os)
    }

    fn read(variable: impl Fn(&'static str) -> Option<OsString>) -> Result<Option<Self>, EnvironmentError> {
        // What isn't text is no number either: it fails as a value, and a host fails to be found.
        let text = |name| {
            let value = variable(name)?.to_string_lossy().trim().to_owned();
            (!value.is_empty()).then_some((name, value))
        };
        let slurm = if text("RANK").is_none() { text("SLURM_PROCID") } else { None };
        let of_slurm = |name| slurm.as_ref().and_then(|_| text(name));
        let rank = text("RANK").or_else(|| slurm.clone());
        let size = text("WORLD_SIZE").or_else(|| of_slurm("SLURM_NTASKS"));
        let (rank, size) = match (rank, size) {
            // Slurm numbers a batch script that starts no tasks, too.
            (None, None) => return Ok(None),
            (Some(_), None) if slurm.is_some() => return Ok(None),
            (Some(rank), None) => return Err(missing(&rank, "WORLD_SIZE")),
            (None, Some(size)) if number(&size, 1, i32::MAX as u64)? == 1 => return Ok(None),
            (None, Some(size)) => return Err(missing(&size, "RANK")),
            (Some(rank), Some(size)) => (rank, size),
        };
        let count = number(&size, 1, i32::MAX as u64)?;
        let below = format!("a whole number from 0 to {} ({}={count})", count - 1, size.0);
        let place = number_or(&rank, 0, count - 1, &below)?;
        if count == 1 {
            return Ok(None);
        }
        let host = text("MASTER_ADDR").or_else(|| of_slurm("SLURM_LAUNCH_NODE_IPADDR"));
        let host = host.ok_or_else(|| missing(&size, "MASTER_ADDR"))?.1;
        let port = match (text("MASTER_PORT"), of_slurm("SLURM_JOB_ID")) {
            (Some(port), _) => number(&port, 1, u64::from(u16::MAX))?,
            (None, Some(job)) => 20_000 + number(&job, 0, u64::MAX)? % 10_000,
            (None, None) => return Err(missing(&size, "MASTER_PORT")),
        };
        let timeout = match text(TIMEOUT) {
            Some(seconds) => number(&seconds, 1, TIMEOUT_SECONDS_MAX)?,
            None => TIMEOUT_SECONDS,
        };
        let store = match text("TORCHELASTIC_USE_AGENT_STORE") {
            Some((_, value)) if value == "True" => {
                let attempt = text("TORCHELASTIC_RESTART_COUNT");
                StoreHost::Launcher {
                    attempt: attempt.map_or(Ok(0), |attempt| number(&attempt, 0, u64::MAX))?,
                }
            }
            _ => StoreHost::RankZero,
        };
        Ok(Some(Self {
            rank: place as usize,
            size: count as usize,
            host,
            port: port as u16,
            timeout: Duration::from_secs(timeout),
            store,
        }))
    }
}

fn missing((name, value): &(&'static str, String), missing: &'static str) -> EnvironmentError {
    EnvironmentError::Missing { given: format!("{name}={value}"), missing }
}

fn number(variable: &(&'static str, String), least: u64, most: u64) -> Result<u64, EnvironmentError> {
    let expected = match most {
        u64::MAX => format!("a whole number from {least}"),
        _ => format!("a whole number from {least} to {most}"),
    };
    number_or(variable, least, most, &expected)
}

fn number_or(
    (name, value): &(&'static str, String),
    least: u64,
    most: u64,
    expected: &str,
) -> Result<u64, EnvironmentError> {
    let fault = || EnvironmentError::Value { name, value: value.clone(), expected: expected.to_owned() };
    value.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(fault)
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
