//! Least squares without negative coefficients.

/// A square matrix in row order.
pub(crate) type Matrix = Vec<Vec<f64>>;

/// Minimises `½ xᵀ·gram·x − rhsᵀ·x` over `x ≥ 0`, the normal-equation form of non-negative least
/// squares, for a positive definite `gram` (n × n). Lawson & Hanson, Solving Least Squares Problems
/// (1974), chapter 23: the passive set holds the coefficients that are free, grows by the one with
/// the steepest gradient and shrinks whenever its unconstrained solution leaves the feasible side.
///
/// `None` if `gram` is not positive definite or the active set does not settle.
pub(crate) fn nnls(gram: &Matrix, rhs: &[f64]) -> Option<Vec<f64>> {
    let n = rhs.len();
    let scale = rhs.iter().fold(0.0_f64, |largest, value| largest.max(value.abs())).max(f64::MIN_POSITIVE);
    let tolerance = 1e-12 * scale;
    let mut x = vec![0.0; n];
    let mut passive = vec![false; n];
    // Each round lowers the objective, so no set comes twice; the bound only stops rounding errors.
    for _ in 0..(30 * n + 30) {
        let steepest = (0..n)
            .filter(|&j| !passive[j])
            .map(|j| (j, rhs[j] - dot(&gram[j], &x)))
            .max_by(|left, right| left.1.total_cmp(&right.1));
        match steepest {
            Some((j, gradient)) if gradient > tolerance => passive[j] = true,
            _ => return Some(x),
        }
        loop {
            let free: Vec<usize> = (0..n).filter(|&j| passive[j]).collect();
            let solution = solve(gram, rhs, &free)?;
            let step = free
                .iter()
                .zip(&solution)
                .filter(|(_, value)| **value <= 0.0)
                .map(|(&j, &value)| x[j] / (x[j] - value))
                .min_by(f64::total_cmp);
            let Some(step) = step else {
                for (&j, value) in free.iter().zip(solution) {
                    x[j] = value;
                }
                break;
            };
            let step = if step.is_finite() { step.clamp(0.0, 1.0) } else { 0.0 };
            for (&j, &value) in free.iter().zip(&solution) {
                x[j] += step * (value - x[j]);
                if value <= 0.0 && x[j] <= 1e-14 * value.abs().max(1e-300) {
                    x[j] = 0.0;
                    passive[j] = false;
                }
            }
            // The one that limits the step always leaves, whatever rounding says.
            if free.iter().all(|&j| passive[j]) {
                let blocking = free
                    .iter()
                    .zip(&solution)
                    .filter(|(_, value)| **value <= 0.0)
                    .min_by(|left, right| x[*left.0].total_cmp(&x[*right.0]))
                    .map(|(&j, _)| j);
                if let Some(j) = blocking {
                    x[j] = 0.0;
                    passive[j] = false;
                }
            }
        }
    }
    None
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

/// Solves the rows and columns `free` of `gram · x = rhs` by Cholesky's decomposition.
fn solve(gram: &Matrix, rhs: &[f64], free: &[usize]) -> Option<Vec<f64>> {
    let n = free.len();
    let mut lower = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let rest = gram[free[i]][free[j]] - dot(&lower[i][..j], &lower[j][..j]);
            if i == j {
                if rest <= 0.0 || !rest.is_finite() {
                    return None;
                }
                lower[i][i] = rest.sqrt();
            } else {
                lower[i][j] = rest / lower[j][j];
            }
        }
    }
    let mut x = vec![0.0; n];
    for i in 0..n {
        x[i] = (rhs[free[i]] - dot(&lower[i][..i], &x[..i])) / lower[i][i];
    }
    for i in (0..n).rev() {
        let above: f64 = (i + 1..n).map(|k| lower[k][i] * x[k]).sum();
        x[i] = (x[i] - above) / lower[i][i];
    }
    Some(x)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unconstrained_optimum_inside_is_found() {
        let x = nnls(&vec![vec![2.0, 1.0], vec![1.0, 3.0]], &[4.0, 7.0]).unwrap();
        assert!((x[0] - 1.0).abs() < 1e-12 && (x[1] - 2.0).abs() < 1e-12, "{x:?}");
    }

    #[test]
    fn a_negative_coefficient_is_held_at_zero() {
        // Unconstrained (−1, 3); on the border x₀ = 0 the optimum is 5.5 / 2.
        let x = nnls(&vec![vec![1.0, 0.5], vec![0.5, 2.0]], &[0.5, 5.5]).unwrap();
        assert_eq!(x[0].to_bits(), 0.0_f64.to_bits());
        assert!((x[1] - 2.75).abs() < 1e-12, "{x:?}");
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_refused() {
        assert_eq!(nnls(&vec![vec![0.0]], &[1.0]), None);
        assert_eq!(nnls(&vec![vec![-1.0, 0.0], vec![0.0, 1.0]], &[1.0, 0.0]), None);
    }

    /// The best of all supports, each solved without constraint.
    fn brute_force(gram: &Matrix, rhs: &[f64]) -> f64 {
        let n = rhs.len();
        let mut best = 0.0_f64;
        for support in 1..1_usize << n {
            let free: Vec<usize> = (0..n).filter(|j| support >> j & 1 == 1).collect();
            if let Some(values) = solve(gram, rhs, &free)
                && values.iter().all(|value| *value >= 0.0)
            {
                let mut x = vec![0.0; n];
                free.iter().zip(&values).for_each(|(&j, &value)| x[j] = value);
                best = best.min(objective(gram, rhs, &x));
            }
        }
        best
    }

    fn objective(gram: &Matrix, rhs: &[f64], x: &[f64]) -> f64 {
        gram.iter().zip(x).map(|(row, value)| 0.5 * value * dot(row, x)).sum::<f64>() - dot(rhs, x)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn optimality_conditions_hold(
            rows in prop::collection::vec(prop::collection::vec(-3.0_f64..3.0, 5), 3..12),
            targets in prop::collection::vec(-3.0_f64..3.0, 12),
        ) {
            let mut gram = vec![vec![0.0; 5]; 5];
            let mut rhs = vec![0.0; 5];
            for (row, target) in rows.iter().zip(&targets) {
                for i in 0..5 {
                    rhs[i] += row[i] * target;
                    for j in 0..5 {
                        gram[i][j] += row[i] * row[j];
                    }
                }
            }
            for (i, row) in gram.iter_mut().enumerate() {
                row[i] += 1e-3;
            }
            let x = nnls(&gram, &rhs).unwrap();
            for j in 0..5 {
                let gradient = dot(&gram[j], &x) - rhs[j];
                prop_assert!(x[j] >= 0.0);
                prop_assert!(gradient > -1e-8, "gradient {gradient}");
                prop_assert!((x[j] * gradient).abs() < 1e-7, "{} · {gradient}", x[j]);
            }
            let best = brute_force(&gram, &rhs);
            prop_assert!(objective(&gram, &rhs, &x) <= best + 1e-8 * (1.0 + best.abs()));
        }
    }
}
