//! What the exit status of `lathe` means.

/// Everything was done.
pub const OK: u8 = 0;
/// Something failed; the message says what.
pub const FAILED: u8 = 1;
/// The command line or the configuration is wrong. Nothing was started.
pub const USAGE: u8 = 2;
/// The run ended, but no network meets the latency target by measurement, or none was found that keeps the limits.
pub const TARGET_MISSED: u8 = 3;
/// The device gave no usable result.
pub const DEVICE_FAILED: u8 = 4;
/// The user asked to stop (Ctrl-C); `--resume` goes on.
pub const INTERRUPTED: u8 = 130;
