//! Small dense symmetric matrices.

/// The inverse of a symmetric positive definite matrix in row order; `None` if it isn't.
pub(super) fn inverse(matrix: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
    let n = matrix.len();
    let mut lower = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let (done, rest) = lower.split_at(i);
            let row = &rest[0];
            let other = if j == i { row } else { &done[j] };
            let sum: f64 = row[..j].iter().zip(&other[..j]).map(|(a, b)| a * b).sum();
            let value = matrix[i][j] - sum;
            if i == j {
                if value <= 0.0 || !value.is_finite() {
                    return None;
                }
                lower[i][i] = value.sqrt();
            } else {
                lower[i][j] = value / lower[j][j];
            }
        }
    }
    // Rows of the inverse of the factor, then its square.
    let mut factor = vec![vec![0.0; n]; n];
    for column in 0..n {
        factor[column][column] = 1.0 / lower[column][column];
        for i in column + 1..n {
            let sum: f64 = (column..i).map(|k| lower[i][k] * factor[column][k]).sum();
            factor[column][i] = -sum / lower[i][i];
        }
    }
    let mut result = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = factor[i][i..].iter().zip(&factor[j][i..]).map(|(a, b)| a * b).sum();
            result[i][j] = sum;
            result[j][i] = sum;
        }
    }
    Some(result)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn times_itself_is_the_identity() {
        let matrix = vec![vec![4.0, 1.0, 0.5], vec![1.0, 3.0, 0.2], vec![0.5, 0.2, 2.0]];
        let inverse = inverse(&matrix).unwrap();
        for (i, row) in matrix.iter().enumerate() {
            for j in 0..row.len() {
                let product: f64 = row.iter().zip(&inverse).map(|(entry, column)| entry * column[j]).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
        assert!(super::inverse(&[vec![1.0, 2.0], vec![2.0, 1.0]]).is_none());
    }
}
