//! Batch norm from sums (Ioffe & Szegedy 2015), forward and back, as factors of the kernels.

use lathe_spaces::BATCH_NORM_EPSILON;

use super::{lanes::Element, plan::NormPlan};

/// Momentum of the running statistics (`PyTorch`'s default).
const MOMENTUM: f64 = 0.1;

/// Mean and inverse deviation per channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Norm {
    pub mean: Vec<f64>,
    pub inverse: Vec<f64>,
}

impl Norm {
    /// From the sums and sums of squares of each channel over `count` values.
    pub fn of_batch(sums: impl Iterator<Item = [f64; 2]>, count: f64) -> (Self, Vec<f64>) {
        let mut norm = Self::default();
        let mut variances = Vec::new();
        for [sum, squares] in sums {
            let mean = sum / count;
            // Rounding can push a variance of zero below it; a loss that is no number stays one.
            let variance = squares / count - mean * mean;
            let variance = if variance < 0.0 { 0.0 } else { variance };
            norm.mean.push(mean);
            norm.inverse.push(1.0 / (variance + BATCH_NORM_EPSILON).sqrt());
            variances.push(variance);
        }
        (norm, variances)
    }

    /// From the running statistics.
    pub fn of_statistics<T: Element>(plan: &NormPlan, statistics: &[T]) -> Self {
        Self {
            mean: statistics[plan.mean.clone()].iter().map(|mean| mean.double()).collect(),
            inverse: (statistics[plan.variance.clone()].iter())
                .map(|variance| 1.0 / (variance.double() + BATCH_NORM_EPSILON).sqrt())
                .collect(),
        }
    }

    /// Moves the running statistics towards this batch's.
    pub fn record<T: Element>(&self, plan: &NormPlan, variances: &[f64], count: f64, statistics: &mut [T]) {
        let mut towards = |at: usize, value: f64| {
            let old = statistics[at].double();
            statistics[at] = T::of((1.0 - MOMENTUM) * old + MOMENTUM * value);
        };
        let unbiased = count / (count - 1.0);
        for (channel, (mean, variance)) in self.mean.iter().zip(variances).enumerate() {
            towards(plan.mean.start + channel, *mean);
            towards(plan.variance.start + channel, variance * unbiased);
        }
    }

    /// Scale and shift of a channel.
    pub fn affine(&self, channel: usize) -> [f64; 2] {
        let scale = self.inverse[channel];
        [scale, -scale * self.mean[channel]]
    }

    /// Scale and shift of all channels.
    pub fn affines<T: Element>(&self) -> (Vec<T>, Vec<T>) {
        (0..self.mean.len())
            .map(|channel| {
                let [scale, shift] = self.affine(channel);
                (T::of(scale), T::of(shift))
            })
            .unzip()
    }

    /// Sum over the batch of g·u for the normalised values u, from the sums of g and of g·z.
    pub fn along(&self, channel: usize, [sum_g, sum_gz]: [f64; 2]) -> f64 {
        self.inverse[channel] * (sum_gz - self.mean[channel] * sum_g)
    }

    /// The gradient of z is `[a, b, c]`·(g, z, 1), where `weight`·g is the gradient of the normalised
    /// values and both sums are over the `count` values of the batch.
    pub fn back(&self, channel: usize, weight: f64, sums: [f64; 2], count: f64) -> [f64; 3] {
        let inverse = self.inverse[channel];
        let a = inverse * weight;
        let b = -a * inverse * self.along(channel, sums) / count;
        [a, b, -a * sums[0] / count - b * self.mean[channel]]
    }
}

/// Factors of several channels, as the kernels want them: all `a`, all `b`, all `c`.
pub(super) fn factors<T: Element>(per_channel: &[[f64; 3]]) -> Vec<T> {
    (0..3).flat_map(|which| per_channel.iter().map(move |factors| T::of(factors[which]))).collect()
}
