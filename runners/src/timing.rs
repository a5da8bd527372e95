//! When a warm-up is over, how many runs make a sample, and what a sample is.

#![cfg_attr(
    not(any(feature = "agent", feature = "static-agent")),
    allow(dead_code, reason = "the agent times, the runner doesn't")
)]

use lathe_latency_db::Protocol;

/// Runs below this are timed in batches.
const BATCH_BELOW_NS: u64 = 50_000;
/// What a batch should last.
const BATCH_NS: u64 = 250_000;
/// Runs in each of the two windows whose medians are compared.
const WINDOW: usize = 5;
/// Largest difference of the windows' medians, relative.
const SETTLED: f64 = 0.02;
/// A warm-up gives up after this many times its least duration (and at least one second).
const WARMUP_LIMIT: f64 = 10.0;

/// What to do after a warm-up run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WarmUp {
    /// Run again.
    Continue,
    /// The times have settled.
    Settled,
    /// The limit is reached and they haven't.
    Limit,
}

/// Judges a warm-up: at least `warmup_runs` and `warmup_seconds`, and the median of the last five runs
/// within 2 % of that of the five before; at ten times `warmup_seconds` (at least one second) it gives up.
pub(crate) fn warm_up(runs_ns: &[u64], elapsed_ns: u64, protocol: &Protocol) -> WarmUp {
    let seconds = elapsed_ns as f64 * 1e-9;
    if runs_ns.len() < protocol.warmup_runs.max(2 * WINDOW) || seconds < protocol.warmup_seconds {
        return WarmUp::Continue;
    }
    let (before, last) = runs_ns[runs_ns.len() - 2 * WINDOW..].split_at(WINDOW);
    let (before, last) = (median(before) as f64, median(last) as f64);
    if (last - before).abs() <= SETTLED * before {
        WarmUp::Settled
    } else if seconds >= (WARMUP_LIMIT * protocol.warmup_seconds).max(1.0) {
        WarmUp::Limit
    } else {
        WarmUp::Continue
    }
}

/// Runs per sample: one from 50 µs on, below it as many as last about 250 µs.
pub(crate) fn batch_size(run_ns: u64) -> usize {
    if run_ns >= BATCH_BELOW_NS { 1 } else { BATCH_NS.div_ceil(run_ns.max(1)) as usize }
}

/// Nanoseconds per run of a batch, without the cost of the empty loop (clock included). A single run
/// is taken as it is.
pub(crate) fn per_run(total_ns: u64, empty_ns: u64, batch: usize) -> u64 {
    if batch == 1 {
        return total_ns;
    }
    let net = total_ns.saturating_sub(empty_ns);
    (net as f64 / batch as f64).round() as u64
}

/// Whether one process has sampled its share.
pub(crate) fn enough(samples: usize, elapsed_ns: u64, protocol: &Protocol) -> bool {
    let processes = protocol.processes.max(1);
    samples >= protocol.min_runs.div_ceil(processes).max(1)
        && elapsed_ns as f64 * 1e-9 >= protocol.min_seconds / processes as f64
}

/// The middle one, the upper of two.
pub(crate) fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Protocol = Protocol {
        min_runs: 30,
        min_seconds: 0.3,
        processes: 3,
        warmup_runs: 12,
        warmup_seconds: 0.2,
        timeout_seconds: 9.0,
        retries: 0,
        cool_down_seconds: 0.0,
    };
    const MILLISECOND: u64 = 1_000_000;

    #[test]
    fn a_warm_up_needs_runs_time_and_calm() {
        let calm = vec![20 * MILLISECOND; 12];
        assert_eq!(warm_up(&calm[..11], 220 * MILLISECOND, &RULES), WarmUp::Continue);
        assert_eq!(warm_up(&calm, 199 * MILLISECOND, &RULES), WarmUp::Continue);
        assert_eq!(warm_up(&calm, 240 * MILLISECOND, &RULES), WarmUp::Settled);
        let falling: Vec<u64> = (0..12).map(|run| (40 - run) * MILLISECOND).collect();
        assert_eq!(warm_up(&falling, 400 * MILLISECOND, &RULES), WarmUp::Continue);
        assert_eq!(warm_up(&falling, 2000 * MILLISECOND, &RULES), WarmUp::Limit);
    }

    #[test]
    fn short_runs_are_batched_and_the_empty_loop_is_taken_off() {
        assert_eq!(batch_size(50_000), 1);
        assert_eq!(batch_size(49_999), 6);
        assert_eq!(batch_size(0), 250_000);
        assert_eq!(per_run(1_000_060, 60, 1), 1_000_060);
        assert_eq!(per_run(1_060, 60, 10), 100);
        assert_eq!(per_run(50, 60, 10), 0);
    }

    #[test]
    fn a_process_does_its_share_of_runs_and_of_time() {
        assert!(!enough(9, 200 * MILLISECOND, &RULES));
        assert!(!enough(10, 99 * MILLISECOND, &RULES));
        assert!(enough(10, 100 * MILLISECOND, &RULES));
    }
}
