//! Functions of single numbers.

use serde::{Deserialize, Serialize};

/// An element-wise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// `min(max(x + 3, 0), 6) / 6`.
    HardSigmoid,
    /// `x · sigmoid(x)`.
    Swish,
    /// `x · hard_sigmoid(x)`.
    HardSwish,
    /// Hyperbolic tangent.
    Tanh,
    /// `x · Φ(x)` with the normal distribution's `Φ`, by the exact error function (Hendrycks and Gimpel
    /// 2016).
    Gelu,
}

impl Function {
    /// Short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relu6 => "relu6",
            Self::Sigmoid => "sigmoid",
            Self::HardSigmoid => "hard_sigmoid",
            Self::Swish => "swish",
            Self::HardSwish => "hard_swish",
            Self::Tanh => "tanh",
            Self::Gelu => "gelu",
        }
    }

    /// The value at `x`.
    pub fn apply(self, x: f64) -> f64 {
        let gate = || ((x + 3.0) / 6.0).clamp(0.0, 1.0);
        let sigmoid = || 1.0 / (1.0 + (-x).exp());
        match self {
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Sigmoid => sigmoid(),
            Self::HardSigmoid => gate(),
            Self::Swish => x * sigmoid(),
            Self::HardSwish => x * gate(),
            Self::Tanh => x.tanh(),
            Self::Gelu => 0.5 * x * complementary_error(-x / std::f64::consts::SQRT_2),
        }
    }
}

/// `erfc(x)`: the Taylor series of `erf` near zero, the continued fraction of `erfc` (Abramowitz and
/// Stegun 7.1.6 and 7.1.14) beyond. Relative error below 1e-12.
fn complementary_error(x: f64) -> f64 {
    let size = x.abs();
    let value = if size < 2.5 {
        let (mut term, mut sum) = (size, size);
        for n in 1..100 {
            term *= 2.0 * size * size / f64::from(2 * n + 1);
            sum += term;
            if term < 1e-18 * sum {
                break;
            }
        }
        1.0 - 2.0 / std::f64::consts::PI.sqrt() * (-size * size).exp() * sum
    } else {
        let tail = (1..=60).rev().fold(size, |tail, k| size + f64::from(k) / 2.0 / tail);
        (-size * size).exp() / (tail * std::f64::consts::PI.sqrt())
    };
    if x < 0.0 { 2.0 - value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_exact() {
        // Φ from tables: Φ(1) = 0.841344746068543, Φ(-3) = 0.001349898031630, Φ(-5) = 2.866515718791939e-7.
        for (x, phi) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_543),
            (-3.0, 0.001_349_898_031_630),
            (-5.0, 2.866_515_718_791_939e-7),
        ] {
            let got = Function::Gelu.apply(x);
            assert!((got - x * phi).abs() <= 1e-12 * (x * phi).abs(), "{x}: {got}");
        }
    }
}
