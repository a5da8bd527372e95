//! The one unit of latency.

use std::{fmt, iter::Sum, ops};

use serde::{Deserialize, Serialize};

/// A latency in microseconds.
///
/// Every latency that crosses a crate border has this type, so that a milli- and a microsecond can
/// never be mixed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub f64);

impl Micros {
    /// No time at all.
    pub const ZERO: Self = Self(0.0);

    /// From nanoseconds.
    pub fn from_nanos(nanos: f64) -> Self {
        Self(nanos / 1e3)
    }

    /// From milliseconds.
    pub fn from_millis(millis: f64) -> Self {
        Self(millis * 1e3)
    }

    /// In milliseconds.
    pub fn millis(self) -> f64 {
        self.0 / 1e3
    }

    /// Total order (IEEE 754 `totalOrder`), for sorting.
    pub fn total_cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// `12.3 µs` below a millisecond, `1.234 ms` above.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.abs() < 1e3 { write!(f, "{:.1} µs", self.0) } else { write!(f, "{:.3} ms", self.millis()) }
    }
}

impl ops::Add for Micros {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl ops::AddAssign for Micros {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl ops::Sub for Micros {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl ops::Mul<f64> for Micros {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self(self.0 * factor)
    }
}

/// The ratio of two latencies.
impl ops::Div for Micros {
    type Output = f64;
    fn div(self, other: Self) -> f64 {
        self.0 / other.0
    }
}

impl Sum for Micros {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, ops::Add::add)
    }
}
