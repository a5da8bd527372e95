//! The interval of a proportion.

/// Standard normal quantile of a two-sided 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % score interval of a proportion `share` (0..1) seen in `trials` independent trials;
/// `None` without trials, or if the share is no proportion.
///
/// Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
pub(crate) fn wilson(share: f64, trials: usize) -> Option<[f64; 2]> {
    if trials == 0 || !(0.0..=1.0).contains(&share) {
        return None;
    }
    let n = trials as f64;
    let scale = 1.0 + Z * Z / n;
    let centre = (share + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some([(centre - half).max(0.0), (centre + half).min(1.0)])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn known_intervals() {
        // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29 by the score method.
        for (successes, trials, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let [found_low, found_high] = wilson(f64::from(successes) / trials as f64, trials).unwrap();
            assert!((found_low - low).abs() < 5e-5, "{found_low} for {low}");
            assert!((found_high - high).abs() < 5e-5, "{found_high} for {high}");
        }
    }

    #[test]
    fn no_trials_and_no_proportion_have_no_interval() {
        assert_eq!(wilson(0.5, 0), None);
        assert_eq!(wilson(1.5, 10), None);
        assert_eq!(wilson(f64::NAN, 10), None);
    }
}
