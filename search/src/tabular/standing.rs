//! How an architecture of a table stands among those that take about as long.

use serde::{Deserialize, Serialize};

/// An architecture and its peers: the others of a table whose latency is within a share of its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Milliseconds.
    pub latency_ms: f64,
    /// Accuracy.
    pub accuracy: f64,
    /// Number of peers.
    pub peers: usize,
    /// Accuracy of the median peer.
    pub median: f64,
    /// Accuracy of the best peer.
    pub best: f64,
    /// Share of the peers that are less accurate; those that are equal count half. A peer drawn at random
    /// has 0.5 in the mean.
    pub quantile: f64,
}

impl Standing {
    /// Of the architecture at `row`, among all others with a latency (milliseconds) and an accuracy whose
    /// latency differs by at most `within` (a share) from its own. `None` if it lacks one of them, or peers.
    pub fn of(
        latencies: &[Option<f64>],
        accuracies: &[Option<f64>],
        row: usize,
        within: f64,
    ) -> Option<Self> {
        let (latency_ms, accuracy) = ((*latencies.get(row)?)?, (*accuracies.get(row)?)?);
        let peer = |(other, (latency, value)): (usize, (&Option<f64>, &Option<f64>))| {
            let (latency, value) = ((*latency)?, (*value)?);
            (other != row && (latency / latency_ms - 1.0).abs() <= within).then_some(value)
        };
        let mut peers: Vec<f64> = latencies.iter().zip(accuracies).enumerate().filter_map(peer).collect();
        peers.sort_by(f64::total_cmp);
        let middle = peers.len() / 2;
        let median = if peers.len() % 2 == 1 {
            peers[middle]
        } else {
            (peers.get(middle.checked_sub(1)?)? + peers[middle]) / 2.0
        };
        let below = peers.iter().filter(|value| **value < accuracy).count() as f64;
        let equal = peers.iter().filter(|value| **value <= accuracy).count() as f64 - below;
        Some(Self {
            latency_ms,
            accuracy,
            peers: peers.len(),
            median,
            best: peers[peers.len() - 1],
            quantile: (below + equal / 2.0) / peers.len() as f64,
        })
    }

    /// Whether it is more accurate than its median peer.
    pub fn beats_the_median(&self) -> bool {
        self.accuracy > self.median
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn peers_are_those_that_take_about_as_long() {
        let latencies = [Some(10.0), Some(9.6), Some(10.4), Some(9.0), None, Some(10.5), Some(10.0)];
        let accuracies = [Some(70.0), Some(60.0), Some(70.0), Some(99.0), Some(99.0), None, Some(80.0)];
        let standing = Standing::of(&latencies, &accuracies, 0, 0.05).unwrap();
        assert_eq!((standing.peers, standing.median, standing.best), (3, 70.0, 80.0));
        assert_eq!(standing.quantile, 0.5);
        assert!(!standing.beats_the_median());
        let best = Standing::of(&latencies, &accuracies, 6, 0.05).unwrap();
        assert_eq!((best.peers, best.median, best.quantile), (3, 70.0, 1.0));
        assert!(best.beats_the_median());
        // An even number of peers: the mean of the two in the middle.
        assert_eq!(Standing::of(&latencies, &accuracies, 1, 0.05).unwrap().median, 75.0);
        for (row, within) in [(4, 0.05), (5, 0.05), (3, 0.01), (7, 0.05)] {
            assert_eq!(Standing::of(&latencies, &accuracies, row, within), None);
        }
    }
}
