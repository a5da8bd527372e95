//! How far above a prediction the truth may lie.

/// Errors of few samples are larger than they look: Student's distribution is approximated by a normal
/// one whose variance is `n / (n − 2)` times as large, for no fewer than this many samples.
const LEAST: f64 = 4.0;

/// Factor on a prediction that the truth stays below with probability `level`, if relative errors
/// `(measured − predicted) / measured` are normal around zero with the spread that leave-one-out found.
pub(super) fn safety_factor(errors: &[f64], level: f64) -> f64 {
    1.0 + normal_quantile(level) * relative_spread(errors)
}

/// Standard deviation of the truth around a prediction, as a share of the prediction, from leave-one-out
/// errors relative to the measurement.
pub fn relative_spread(errors: &[f64]) -> f64 {
    let count = (errors.len() as f64).max(LEAST);
    // Relative to the prediction: that is what the factor multiplies.
    let of_prediction = |error: &f64| (error / (1.0 - error).max(0.1)).powi(2);
    (errors.iter().map(of_prediction).sum::<f64>() / (count - 2.0)).sqrt()
}

/// Quantile of the standard normal distribution for a probability from 0.5 to below 1, to ±0.00045
/// (Abramowitz & Stegun, Handbook of Mathematical Functions, 26.2.23).
fn normal_quantile(probability: f64) -> f64 {
    let t = (-2.0 * (1.0 - probability).ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    (t - above / below).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (probability, quantile) in
            [(0.5, 0.0), (0.8, 0.8416), (0.9, 1.2816), (0.95, 1.6449), (0.99, 2.3263)]
        {
            let got = normal_quantile(probability);
            assert!((got - quantile).abs() < 5e-4, "{probability}: {got}");
        }
    }

    #[test]
    fn a_factor_grows_with_the_level_and_the_errors() {
        let small = [0.01, -0.01, 0.02, -0.02, 0.0, 0.01];
        let large = small.map(|error| 5.0 * error);
        assert!((safety_factor(&small, 0.5) - 1.0).abs() < 1e-3);
        assert!(safety_factor(&small, 0.9) < safety_factor(&small, 0.95));
        assert!(safety_factor(&small, 0.9) < safety_factor(&large, 0.9));
    }
}
