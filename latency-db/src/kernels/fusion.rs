//! Which operators an engine merges into one kernel: found by measuring, kept as data.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Share of the cheaper operator's time that must be saved, beyond doubt, for a pair to count as
/// fused. nn-Meter (Zhang et al. 2021) takes the same half, without an interval.
const LEAST_SAVING: f64 = 0.5;

/// Pairs of operator kinds, in the order of the graph, that a device runs as one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fusion {
    /// Pairs such as `("conv", "relu")`.
    pub pairs: BTreeSet<(String, String)>,
    /// Whether the pairs were measured on the device; otherwise they are what engines commonly do.
    pub detected: bool,
}

/// Latency with its interval, in microseconds: median, lower and upper end.
pub type Interval = [f64; 3];

/// Times of two operators, alone and one behind the other, and of an empty run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairTimes {
    /// T(a).
    pub first: Interval,
    /// T(b).
    pub second: Interval,
    /// T(ab).
    pub both: Interval,
    /// What a run costs that computes next to nothing; a run of both pays it once.
    pub overhead: f64,
}

/// What a measured pair says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FusionEvidence {
    /// First operator.
    pub first: String,
    /// Second operator.
    pub second: String,
    /// The times.
    pub times: PairTimes,
    /// `T(a) + T(b) − T(ab)` less the overhead that is paid once, in microseconds.
    pub saving: f64,
    /// Its interval: the ends of the three intervals against each other.
    pub interval: [f64; 2],
    /// Whether the pair counts as fused.
    pub fused: bool,
}

impl Fusion {
    /// What engines commonly do: batch norms and functions go into the convolution before them,
    /// functions into sums.
    pub fn common() -> Self {
        let mut pairs = BTreeSet::new();
        let mut pair = |first: &str, second: &str| pairs.insert((first.to_owned(), second.to_owned()));
        for first in ["conv", "dwconv", "gconv"] {
            pair(first, "batch_norm");
            pair(first, "relu");
            pair(first, "relu6");
        }
        pair("batch_norm", "relu");
        pair("batch_norm", "relu6");
        Self { pairs, detected: false }
    }

    /// The pairs that the evidence shows; pairs that were not measured are taken from
    /// [`Fusion::common`].
    pub fn from_evidence(evidence: &[FusionEvidence]) -> Self {
        let mut fusion = Self::common();
        for found in evidence {
            let pair = (found.first.clone(), found.second.clone());
            if found.fused {
                fusion.pairs.insert(pair)
            } else {
                fusion.pairs.remove(&pair)
            };
        }
        fusion.detected = !evidence.is_empty();
        fusion
    }

    /// Whether `second` joins the kernel that ends with `first`.
    pub fn joins(&self, first: &str, second: &str) -> bool {
        self.pairs.iter().any(|(a, b)| a == first && b == second)
    }
}

impl FusionEvidence {
    /// Judges a pair: fused if even the lower end of the saving is above half the cheaper operator.
    pub fn of(first: &str, second: &str, times: PairTimes) -> Self {
        let PairTimes { first: a, second: b, both: ab, overhead } = times;
        let saving = a[0] + b[0] - ab[0] - overhead;
        let interval = [a[1] + b[1] - ab[2] - overhead, a[2] + b[2] - ab[1] - overhead];
        let cheaper = (a[0].min(b[0]) - overhead).max(0.0);
        let fused = cheaper > 0.0 && interval[0] > LEAST_SAVING * cheaper;
        Self { first: first.to_owned(), second: second.to_owned(), times, saving, interval, fused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(value: f64, width: f64) -> Interval {
        [value, value - width, value + width]
    }

    #[test]
    fn a_pair_is_fused_only_beyond_doubt() {
        let times = |both, width| PairTimes {
            first: around(50.0, width),
            second: around(20.0, width),
            both: around(both, width),
            overhead: 5.0,
        };
        // 50 + 20 - 5 would be unfused; 50 is the second for nothing.
        assert!(FusionEvidence::of("conv", "relu", times(50.0, 1.0)).fused);
        assert!(!FusionEvidence::of("conv", "relu", times(65.0, 1.0)).fused);
        assert!(!FusionEvidence::of("conv", "relu", times(50.0, 5.0)).fused);
        let evidence = [FusionEvidence::of("conv", "relu", times(65.0, 1.0))];
        let fusion = Fusion::from_evidence(&evidence);
        assert!(fusion.detected && !fusion.joins("conv", "relu") && fusion.joins("conv", "batch_norm"));
    }
}
