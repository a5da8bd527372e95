//! The simplest transfer: latency = scale × the proxy's latency + shift.

use super::{PredictorError, additive::check, encoding::Codes, prior::Prior};
use crate::fit::spearman;

/// Least rank correlation of the leave-one-out predictions with the measurements.
const NEEDED: f64 = 0.5;

/// Latencies of one other device (as its additive model predicts them), scaled and shifted by weighted
/// least squares in closed form. The proxy is the source whose leave-one-out relative errors are least.
#[derive(Clone, Debug)]
pub struct ScaleAndShift<'a> {
    prior: &'a Prior,
    proxy: usize,
    scale: f64,
    shift: f64,
    correlation: f64,
    errors: Vec<f64>,
}

impl<'a> ScaleAndShift<'a> {
    /// Fits every source of the prior and keeps the best.
    ///
    /// # Errors
    /// [`PredictorError::UnlikeProxy`] when even the best orders the samples otherwise than the target
    /// does; [`PredictorError::TooFew`] without sources, or with fewer than 5 samples.
    pub fn fit(prior: &'a Prior, codes: &[&Codes], latencies: &[f64]) -> Result<Self, PredictorError> {
        check("", codes.len(), latencies)?;
        let mut best: Option<(f64, Self)> = None;
        for (proxy, (_, source)) in prior.sources.iter().enumerate() {
            let features: Vec<f64> = codes.iter().map(|codes| source.predict(codes)).collect();
            let Some((scale, shift)) = line(&features, latencies, None) else { continue };
            let left_out: Option<Vec<f64>> = (0..latencies.len())
                .map(|sample| {
                    let (scale, shift) = line(&features, latencies, Some(sample))?;
                    Some(scale * features[sample] + shift)
                })
                .collect();
            let Some(left_out) = left_out else { continue };
            let errors: Vec<f64> =
                left_out.iter().zip(latencies).map(|(left, right)| 1.0 - left / right).collect();
            let error: f64 = errors.iter().map(|error| error * error).sum();
            // A negative slope says that the proxy orders architectures the other way round.
            let correlation = if scale > 0.0 { spearman(&left_out, latencies) } else { -1.0 };
            if best.as_ref().is_none_or(|(least, _)| error < *least) {
                best = Some((error, Self { prior, proxy, scale, shift, correlation, errors }));
            }
        }
        let (_, best) = best.ok_or(PredictorError::TooFew { device: "a proxy".into(), got: 0, needed: 1 })?;
        if best.correlation < NEEDED {
            let (proxy, correlation) = (best.proxy().to_owned(), best.correlation);
            return Err(PredictorError::UnlikeProxy { proxy, correlation, needed: NEEDED });
        }
        Ok(best)
    }

    /// Name of the proxy.
    pub fn proxy(&self) -> &str {
        &self.prior.sources[self.proxy].0
    }

    /// Spearman correlation of the leave-one-out predictions with the measurements.
    pub const fn correlation(&self) -> f64 {
        self.correlation
    }

    /// Relative errors `(measured − predicted) / measured` of the samples, each predicted without it.
    pub fn leave_one_out(&self) -> &[f64] {
        &self.errors
    }

    /// Predicted latency in milliseconds.
    pub fn predict(&self, codes: &Codes) -> f64 {
        (self.scale * self.prior.sources[self.proxy].1.predict(codes) + self.shift).max(0.0)
    }
}

/// Scale and shift of the least squares of relative errors, one sample left out if so asked; the ratio
/// of the means where a line cannot be told from a point.
pub fn line(features: &[f64], latencies: &[f64], without: Option<usize>) -> Option<(f64, f64)> {
    let (mut pp, mut p, mut one, mut py, mut y) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (index, (feature, latency)) in features.iter().zip(latencies).enumerate() {
        if Some(index) != without {
            let weight = 1.0 / (latency * latency);
            pp += weight * feature * feature;
            p += weight * feature;
            one += weight;
            py += weight * feature * latency;
            y += weight * latency;
        }
    }
    let determinant = pp * one - p * p;
    let (scale, shift) = if determinant > 1e-9 * pp * one {
        ((one * py - p * y) / determinant, (pp * y - p * py) / determinant)
    } else {
        (y / p, 0.0)
    };
    (scale.is_finite() && shift.is_finite()).then_some((scale, shift))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_and_a_point_gives_a_ratio() {
        let (scale, shift) = line(&[1.0, 2.0, 4.0], &[5.0, 7.0, 11.0], None).unwrap();
        assert!((scale - 2.0).abs() < 1e-9 && (shift - 3.0).abs() < 1e-9, "{scale} {shift}");
        let (scale, shift) = line(&[2.0, 2.0], &[6.0, 6.0], None).unwrap();
        assert!((scale - 3.0).abs() < 1e-9 && shift == 0.0, "{scale} {shift}");
    }
}
