//! Real peers that tests start for themselves, and what every transport must do with them.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod contract;
pub mod fake;
#[cfg(feature = "ssh")]
pub mod sshd;
