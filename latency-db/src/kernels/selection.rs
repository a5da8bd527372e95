//! Which networks to measure next.

use super::{
    Kernel, TimedGraph,
    residual::{Levels, Shares, similarity},
};

/// What the levels of the residual may say before anything is known of the device.
const PRIOR: Levels =
    Levels { overall: 100.0, kind: 300.0, signature: 300.0, passage: 300.0, interaction: 1.0 };
/// Multiply-accumulates, and bytes moved, that take as long as the launch of a kernel: the guess that
/// shares are computed with while nothing is measured. Only ratios matter.
const MACS_PER_LAUNCH: f64 = 40e3;
const BYTES_PER_LAUNCH: f64 = 20e3;

/// The `count` candidates that would tell most about all of them, best first, as their indices.
///
/// Greedy: each next one is the candidate whose latency is least certain, given the graphs that are
/// known and those chosen before it, under the Gaussian process that the model puts on its residual
/// (sequential D-optimal design; the choice needs no latencies). Indices come in order of choice;
/// fewer than `count` if there are not as many candidates.
pub fn next_networks(known: &[TimedGraph], candidates: &[Vec<Kernel>], count: usize) -> Vec<usize> {
    let shares: Vec<Shares> = candidates.iter().map(|kernels| guess(kernels)).collect();
    let mut design = Design::new(&shares);
    for graph in known {
        design.observe(&guess(&graph.kernels));
    }
    let mut chosen = Vec::new();
    while chosen.len() < count.min(candidates.len()) {
        let open = (0..candidates.len()).filter(|index| !chosen.contains(index));
        let Some(best) =
            open.max_by(|&a, &b| design.variance[a].total_cmp(&design.variance[b]).then(b.cmp(&a)))
        else {
            break;
        };
        design.observe(&shares[best]);
        chosen.push(best);
    }
    chosen
}

/// Shares of a graph's time as a roofline would have them.
fn guess(kernels: &[Kernel]) -> Shares {
    let time = |kernel: &Kernel| {
        1.0 + kernel.macs / MACS_PER_LAUNCH
            + (kernel.read + kernel.written + kernel.weights) / BYTES_PER_LAUNCH
    };
    let sum: f64 = kernels.iter().map(time).sum();
    let mut shares = Shares::default();
    for kernel in kernels {
        shares.add(kernel, time(kernel) / sum);
    }
    shares
}

/// Variances of the candidates, given what was observed.
struct Design<'a> {
    candidates: &'a [Shares],
    variance: Vec<f64>,
    /// Per observation: its graph, and its covariance with every candidate and itself, over its standard
    /// deviation with noise. They are rows of a Cholesky factor.
    observed: Vec<(Shares, Vec<f64>)>,
}

impl<'a> Design<'a> {
    fn new(candidates: &'a [Shares]) -> Self {
        let variance = candidates.iter().map(|shares| PRIOR.join(similarity(shares, shares))).collect();
        Self { candidates, variance, observed: Vec::new() }
    }

    /// Noise has unit variance.
    fn observe(&mut self, shares: &Shares) {
        let mut own = Vec::with_capacity(self.observed.len());
        for (other, _) in &self.observed {
            own.push(PRIOR.join(similarity(other, shares)));
        }
        // Forward substitution: what earlier observations say of this one.
        for row in 0..own.len() {
            let (before, rest) = own.split_at(row);
            let factor = &self.observed[row].1[self.candidates.len()..];
            let sum: f64 = before.iter().zip(factor).map(|(a, b)| a * b).sum();
            own[row] = (rest[0] - sum) / factor[row];
        }
        let deviation = (PRIOR.join(similarity(shares, shares))
            - own.iter().map(|value| value * value).sum::<f64>()
            + 1.0)
            .max(1.0)
            .sqrt();
        let mut column = Vec::with_capacity(self.candidates.len() + own.len() + 1);
        for (index, candidate) in self.candidates.iter().enumerate() {
            let known: f64 = self.observed.iter().zip(&own).map(|((_, row), value)| row[index] * value).sum();
            let entry = (PRIOR.join(similarity(candidate, shares)) - known) / deviation;
            self.variance[index] -= entry * entry;
            column.push(entry);
        }
        column.extend(own);
        column.push(deviation);
        self.observed.push((shares.clone(), column));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_spaces::{DartsSkeleton, NetworkOptions, Space, Stem, Stream};

    use super::*;
    use crate::{
        kernels::{Fusion, split},
        linear::Square,
    };

    fn candidates(count: u64) -> Vec<Vec<Kernel>> {
        let stem = Stem::Cifar;
        let space = Space::darts(DartsSkeleton { stem, width: 8, layers: 3, resolution: 16, classes: 10 });
        let network = |index| {
            let genotype = space.sample(&mut Stream::new(0, "candidates", index));
            split(&space.network(&genotype, NetworkOptions::default()).unwrap(), &Fusion::common())
        };
        (0..count).map(network).collect()
    }

    #[test]
    fn variances_are_those_of_the_full_matrix() {
        let shares: Vec<Shares> = candidates(12).iter().map(|kernels| guess(kernels)).collect();
        let mut design = Design::new(&shares);
        let seen = [3, 7, 0, 11];
        for index in seen {
            design.observe(&shares[index]);
        }
        let covariance = |a: usize, b: usize| PRIOR.join(similarity(&shares[a], &shares[b]));
        let mut matrix = Square::zeros(seen.len());
        for (i, &a) in seen.iter().enumerate() {
            for (entry, &b) in matrix.row_mut(i).iter_mut().zip(&seen) {
                *entry = covariance(a, b) + f64::from(u8::from(a == b));
            }
        }
        let factor = matrix.cholesky().unwrap();
        for candidate in 0..12 {
            let towards: Vec<f64> = seen.iter().map(|&index| covariance(index, candidate)).collect();
            let known: f64 = factor.solve(&towards).iter().zip(&towards).map(|(a, b)| a * b).sum();
            let expected = covariance(candidate, candidate) - known;
            assert!((design.variance[candidate] - expected).abs() < 1e-6 * covariance(candidate, candidate));
        }
    }

    #[test]
    fn what_is_known_is_not_chosen_and_choices_are_distinct() {
        let candidates = candidates(20);
        let chosen = next_networks(&[], &candidates, 6);
        let mut sorted = chosen.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 6);
        let known: Vec<TimedGraph> = chosen
            .iter()
            .map(|&index| TimedGraph {
                label: index.to_string(),
                id: lathe_spaces::WorkloadId(index.to_string()),
                kernels: candidates[index].clone(),
                latency: lathe_spaces::Micros(1.0),
                noise: 0.0,
                flagged: false,
                network: true,
            })
            .collect();
        let next = next_networks(&known, &candidates, 6);
        assert!(next.iter().all(|index| !chosen.contains(index)), "{chosen:?} {next:?}");
        assert_eq!(next_networks(&[], &candidates, 99).len(), 20);
    }
}
