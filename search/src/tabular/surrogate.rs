//! What is believed of accuracies after some were seen.

/// Variance of the noise, in units of the variance of the targets.
const NOISE: f64 = 0.3;
/// Least standard deviation of what the model leaves over, in units of the targets'.
const LEAST_SPREAD: f64 = 0.1;

/// Features of architectures, one column per feature.
#[derive(Clone, Debug)]
pub(super) struct Features {
    columns: Vec<Vec<f32>>,
}

impl Features {
    /// From groups of features; each group is standardised, and has the same variance in total.
    pub(super) fn of_groups(groups: Vec<Vec<Vec<f64>>>) -> Self {
        let count = groups.len() as f64;
        let mut columns = Vec::new();
        for group in groups {
            let group: Vec<Vec<f64>> = group.into_iter().filter_map(standardised).collect();
            let scale = (1.0 / (count * group.len() as f64)).sqrt();
            columns.extend(
                group
                    .into_iter()
                    .map(|column| column.into_iter().map(|value| (value * scale) as f32).collect()),
            );
        }
        Self { columns }
    }

    /// The same features of some of the rows.
    pub(super) fn rows(&self, rows: &[usize]) -> Self {
        let pick = |column: &Vec<f32>| rows.iter().map(|&row| column[row]).collect();
        Self { columns: self.columns.iter().map(pick).collect() }
    }

    fn of(&self, row: usize) -> Vec<f64> {
        self.columns.iter().map(|column| f64::from(column[row])).collect()
    }
}

/// Of mean 0 and variance 1; nothing if it is the same everywhere.
fn standardised(column: Vec<f64>) -> Option<Vec<f64>> {
    let count = column.len() as f64;
    let mean = column.iter().sum::<f64>() / count;
    let deviation = (column.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    (deviation > 1e-9).then(|| column.into_iter().map(|value| (value - mean) / deviation).collect())
}

/// A Bayesian linear model (ridge regression) of a transformed accuracy: the logarithm of how far an
/// architecture stays behind an accuracy a little above the best that was seen. Differences between good
/// architectures count for more there than differences between bad ones.
#[derive(Clone, Debug)]
pub(super) struct Surrogate<'f> {
    features: &'f Features,
    /// `Σ x·xᵀ` of what was seen, row by row.
    gram: Vec<f64>,
    seen: Vec<(Vec<f64>, f64)>,
    /// What the best is behind the accuracy that all are compared with.
    margin: f64,
}

/// Predictions in the units of the transformed accuracy.
#[derive(Clone, Debug)]
pub(super) struct Estimates {
    /// Of the rows that were asked for, in their order.
    pub means: Vec<f32>,
    /// Standard deviation of the truth around them.
    pub spread: f64,
    best: f64,
    margin: f64,
    centre: f64,
    scale: f64,
}

impl Estimates {
    /// The transformed accuracy of an accuracy.
    pub(super) fn transformed(&self, accuracy: f64) -> f64 {
        // Nothing seen is above the best, and what is foreseen above the margin has no logarithm.
        let behind = (self.best + self.margin - accuracy).max(1e-3 * self.margin);
        (-behind.ln() - self.centre) / self.scale
    }
}

impl<'f> Surrogate<'f> {
    /// Knows nothing; `margin` is in units of the accuracy.
    pub(super) fn new(features: &'f Features, margin: f64) -> Self {
        let size = features.columns.len();
        Self { features, gram: vec![0.0; size * size], seen: Vec::new(), margin: margin.max(1e-6) }
    }

    /// Sees the accuracy of a row.
    pub(super) fn see(&mut self, row: usize, accuracy: f64) {
        let features = self.features.of(row);
        let size = features.len();
        for (i, left) in features.iter().enumerate() {
            for (entry, right) in self.gram[i * size..=i * size + i].iter_mut().zip(&features) {
                *entry += left * right;
            }
        }
        self.seen.push((features, accuracy));
    }

    /// What is believed now of these rows' features.
    pub(super) fn estimates(&self, rows: &Features) -> Estimates {
        let best = self.seen.iter().map(|(_, accuracy)| *accuracy).fold(f64::NEG_INFINITY, f64::max);
        let mut estimates =
            Estimates { means: Vec::new(), spread: 1.0, best, margin: self.margin, centre: 0.0, scale: 1.0 };
        let mut targets: Vec<f64> =
            self.seen.iter().map(|(_, accuracy)| estimates.transformed(*accuracy)).collect();
        let count = targets.len() as f64;
        estimates.centre = targets.iter().sum::<f64>() / count;
        let variance = targets.iter().map(|target| (target - estimates.centre).powi(2)).sum::<f64>() / count;
        estimates.scale = variance.sqrt().max(1e-6);
        for target in &mut targets {
            *target = (*target - estimates.centre) / estimates.scale;
        }
        let weights = self.weights(&targets);
        let errors = self.seen.iter().zip(&targets).map(|((features, _), target)| {
            let predicted: f64 =
                features.iter().zip(&weights).map(|(feature, weight)| feature * weight).sum();
            (target - predicted).powi(2)
        });
        estimates.spread = (errors.sum::<f64>() / count).sqrt().max(LEAST_SPREAD);
        estimates.means = vec![0.0; rows.columns.first().map_or(0, Vec::len)];
        for (column, weight) in rows.columns.iter().zip(&weights) {
            let weight = *weight as f32;
            for (mean, feature) in estimates.means.iter_mut().zip(column) {
                *mean += weight * feature;
            }
        }
        estimates
    }

    /// Posterior mean of the weights, of unit variance before anything is seen: `(X·Xᵀ + noise·I)⁻¹·X·t`.
    fn weights(&self, targets: &[f64]) -> Vec<f64> {
        let size = self.features.columns.len();
        let mut rhs = vec![0.0; size];
        for ((features, _), target) in self.seen.iter().zip(targets) {
            for (sum, feature) in rhs.iter_mut().zip(features) {
                *sum += feature * target;
            }
        }
        let mut lower = self.gram.clone();
        for i in 0..size {
            lower[i * size + i] += NOISE;
        }
        // Cholesky's factor in the lower triangle; the noise on the diagonal keeps it positive.
        for i in 0..size {
            for j in 0..=i {
                let (left, right) = (&lower[i * size..i * size + j], &lower[j * size..j * size + j]);
                let sum: f64 = left.iter().zip(right).map(|(left, right)| left * right).sum();
                let value = lower[i * size + j] - sum;
                lower[i * size + j] = if i == j { value.sqrt() } else { value / lower[j * size + j] };
            }
        }
        for i in 0..size {
            let sum: f64 = lower[i * size..i * size + i].iter().zip(&rhs).map(|(factor, x)| factor * x).sum();
            rhs[i] = (rhs[i] - sum) / lower[i * size + i];
        }
        for i in (0..size).rev() {
            rhs[i] /= lower[i * size + i];
            let value = rhs[i];
            for (x, factor) in rhs[..i].iter_mut().zip(&lower[i * size..]) {
                *x -= factor * value;
            }
        }
        rhs
    }
}

/// Expected amount by which a normal variable exceeds a bound (Jones, Schonlau & Welch 1998, eq. 15, for a
/// maximum).
pub(super) fn expected_improvement(mean: f64, spread: f64, bound: f64) -> f64 {
    let z = (mean - bound) / spread;
    let density = density(z);
    spread * (z * below(z, density) + density)
}

/// Density of the standard normal distribution.
fn density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Probability that a standard normal variable is below `z`, to 7.5e-8 (Abramowitz & Stegun 26.2.17).
pub(super) fn normal_probability(z: f64) -> f64 {
    below(z, density(z))
}

/// The same, where the density is known.
fn below(z: f64, density: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let sum = t
        * (0.319_381_530
            + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let above = density * sum;
    if z >= 0.0 { 1.0 - above } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_and_improvements_are_those_of_the_tables() {
        for (z, expected) in [(0.0, 0.5), (1.0, 0.841_344_7), (-1.0, 0.158_655_3), (2.5, 0.993_790_3)] {
            assert!((normal_probability(z) - expected).abs() < 1e-6);
        }
        // Integrated by hand: E[max(X, 0)] = 1/√(2π) for a standard normal X.
        assert!((expected_improvement(0.0, 1.0, 0.0) - 0.398_942_3).abs() < 1e-6);
        let slices = 200_000;
        let sum: f64 = (0..slices)
            .map(|slice| {
                let z = -8.0 + 16.0 * (f64::from(slice) + 0.5) / f64::from(slices);
                let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
                (0.3 + 0.7 * z - 0.5_f64).max(0.0) * density * 16.0 / f64::from(slices)
            })
            .sum();
        assert!((expected_improvement(0.3, 0.7, 0.5) - sum).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn a_linear_truth_is_ordered_as_it_is() {
        let column = |seed: usize| (0..200).map(|row| ((row * seed) % 17) as f64).collect::<Vec<f64>>();
        let columns = vec![column(3), column(5), column(7)];
        let truth: Vec<f64> = (0..200).map(|row| 70.0 - 1.5 * columns[0][row] + columns[2][row]).collect();
        let features = Features::of_groups(vec![columns]);
        let mut surrogate = Surrogate::new(&features, 30.0);
        for (row, accuracy) in truth.iter().enumerate().take(100) {
            surrogate.see(row, *accuracy);
        }
        let estimates = surrogate.estimates(&features);
        let (mut right, mut pairs) = (0, 0);
        for left in 100..200 {
            for other in 100..left {
                if (truth[left] - truth[other]).abs() > 2.0 {
                    pairs += 1;
                    let same =
                        (truth[left] > truth[other]) == (estimates.means[left] > estimates.means[other]);
                    right += usize::from(same);
                }
            }
        }
        assert!(right as f64 > 0.97 * f64::from(pairs), "{right} of {pairs}");
        // The better, the higher, and never beyond what has a logarithm.
        let rising = [10.0, 60.0, 80.0, 200.0].map(|accuracy| estimates.transformed(accuracy));
        assert!(rising.is_sorted() && rising.iter().all(|value| value.is_finite()), "{rising:?}");
    }
}
