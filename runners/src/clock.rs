//! The clock that samples are taken with.

use nix::time::ClockId;

/// Nanoseconds of the raw monotonic clock: not slewed by time synchronisation, and read on the device.
pub(crate) fn now_ns() -> Result<u64, nix::Error> {
    let time = ClockId::CLOCK_MONOTONIC_RAW.now()?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// Nanoseconds that `batch` runs of nothing take, with the two readings of the clock: the least of
/// several tries.
pub(crate) fn empty_loop_ns(batch: usize) -> Result<u64, nix::Error> {
    let mut least = u64::MAX;
    for _ in 0..9 {
        let start = now_ns()?;
        for run in 0..batch {
            std::hint::black_box(run);
        }
        least = least.min(now_ns()? - start);
    }
    Ok(least)
}
