//! A fingerprint of an output that survives differences in rounding.

use serde::{Deserialize, Serialize};

/// Three sums over an output. Two programs that compute the same function agree in them up to
/// rounding; one that leaves out an operator or mixes up channels doesn't.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputSums {
    /// `Σ x`.
    pub sum: f64,
    /// `Σ |x|`.
    pub absolute: f64,
    /// `Σ ± x` with a fixed sign per position: notices elements in the wrong place.
    pub projected: f64,
    /// Number of elements.
    pub elements: usize,
}

impl OutputSums {
    /// The sums of an output; absent if they aren't finite.
    pub fn of(output: &[f32]) -> Option<Self> {
        let mut sums = Self { sum: 0.0, absolute: 0.0, projected: 0.0, elements: output.len() };
        for (index, &value) in output.iter().enumerate() {
            let value = f64::from(value);
            sums.sum += value;
            sums.absolute += value.abs();
            sums.projected += if negative(index as u64) { -value } else { value };
        }
        sums.absolute.is_finite().then_some(sums)
    }

    /// Largest difference to the expected sums, relative to the expected `Σ |x|` (or to the larger one,
    /// if nothing but zeros is expected). A different number of elements is an infinite difference.
    pub fn deviation(&self, expected: &Self) -> f64 {
        if self.elements != expected.elements {
            return f64::INFINITY;
        }
        let largest = (self.sum - expected.sum)
            .abs()
            .max((self.absolute - expected.absolute).abs())
            .max((self.projected - expected.projected).abs());
        let scale = if expected.absolute > 0.0 { expected.absolute } else { self.absolute };
        if largest > 0.0 { largest / scale } else { 0.0 }
    }
}

/// A fixed, irregular sign per position (finaliser of the `SplitMix64` generator).
fn negative(index: u64) -> bool {
    let mut bits = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ (bits >> 31)) & 1 == 1
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_forgiven_and_a_permutation_is_not() {
        let values: Vec<f32> = (0..1000u16).map(|index| f32::from(index % 37) - 18.0).collect();
        let expected = OutputSums::of(&values).unwrap();
        let rounded: Vec<f32> = values.iter().map(|value| value * 1.000_001).collect();
        assert!(OutputSums::of(&rounded).unwrap().deviation(&expected) < 1e-5);
        let mut turned = values.clone();
        turned.rotate_left(1);
        assert!(OutputSums::of(&turned).unwrap().deviation(&expected) > 1e-3);
        let shorter = OutputSums::of(&values[1..]).unwrap();
        assert!(shorter.deviation(&expected).is_infinite());
    }

    #[test]
    fn zeros_are_compared_without_dividing_by_them() {
        let zeros = OutputSums::of(&[0.0; 8]).unwrap();
        assert!(zeros.deviation(&zeros).abs() < f64::EPSILON);
        let other = OutputSums::of(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1e-9]).unwrap();
        assert!(other.deviation(&zeros) >= 1.0);
    }

    #[test]
    fn what_is_not_finite_has_no_sums() {
        assert_eq!(OutputSums::of(&[1.0, f32::NAN]), None);
        assert_eq!(OutputSums::of(&[1.0, f32::NEG_INFINITY]), None);
    }
}
