//! The least error that any predictor of a device can have.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Least distinct latencies from which a step can be told.
const LEAST: usize = 3;

/// What is known of a device's measurement noise from its latencies alone. A table with one latency per
/// architecture holds no repeats, so the spread of a measurement cannot be known from it, and is not
/// guessed; only how coarsely the clock counts shows in the numbers themselves. It is a lower bound: what
/// varies from one measurement to the next comes on top.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NoiseFloor {
    /// The clock counts in whole steps: half a step can never be predicted.
    Quantised {
        /// Step in milliseconds.
        step_ms: f64,
        /// Half a step relative to the median latency.
        relative: f64,
    },
    /// One measurement each, and no step to be seen: not known, which is not zero.
    Unknown,
}

impl NoiseFloor {
    /// From the latencies of a device in milliseconds. Only whole multiples of a step of at least one
    /// millisecond are told apart from chance.
    pub fn of(latencies: &[f64]) -> Self {
        let mut values = latencies.to_vec();
        values.sort_by(f64::total_cmp);
        let median = values.get(values.len() / 2).copied().unwrap_or(0.0);
        values.dedup();
        let whole = values.iter().all(|value| value.fract() == 0.0 && *value > 0.0);
        if values.len() < LEAST || !whole {
            return Self::Unknown;
        }
        let step = values.windows(2).map(|pair| (pair[1] - pair[0]) as u64).fold(0, greatest_common_divisor);
        let step_ms = step as f64;
        Self::Quantised { step_ms, relative: step_ms / 2.0 / median }
    }
}

impl fmt::Display for NoiseFloor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantised { step_ms, relative } => {
                write!(formatter, "≥ ±{:.1} % (steps of {step_ms} ms)", relative * 100.0)
            }
            Self::Unknown => write!(formatter, "not known"),
        }
    }
}

fn greatest_common_divisor(left: u64, right: u64) -> u64 {
    if right == 0 { left } else { greatest_common_divisor(right, left % right) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_milliseconds_have_a_step_and_others_are_unknown() {
        let floor = NoiseFloor::of(&[10.0, 12.0, 14.0, 20.0, 20.0]);
        assert_eq!(floor, NoiseFloor::Quantised { step_ms: 2.0, relative: 1.0 / 14.0 });
        assert_eq!(floor.to_string(), "≥ ±7.1 % (steps of 2 ms)");
        assert_eq!(NoiseFloor::of(&[10.0, 12.5, 14.0]), NoiseFloor::Unknown);
        assert_eq!(NoiseFloor::of(&[10.0, 12.0]), NoiseFloor::Unknown);
        assert_eq!(NoiseFloor::of(&[]), NoiseFloor::Unknown);
        assert_eq!(NoiseFloor::Unknown.to_string(), "not known");
    }
}
