//! Dense symmetric systems, small enough for plain loops.

/// A square matrix in row order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Square {
    pub size: usize,
    pub values: Vec<f64>,
}

impl Square {
    pub(crate) fn zeros(size: usize) -> Self {
        Self { size, values: vec![0.0; size * size] }
    }

    pub(crate) fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.size..(row + 1) * self.size]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.values[row * self.size..(row + 1) * self.size]
    }

    /// The lower triangle `L` with `L·Lᵀ = self`; `None` if the matrix is not positive definite.
    pub(crate) fn cholesky(mut self) -> Option<Lower> {
        for i in 0..self.size {
            for j in 0..=i {
                let sum = dot(&self.row(i)[..j], &self.row(j)[..j]);
                let value = self.row(i)[j] - sum;
                if i == j {
                    if value <= 0.0 || !value.is_finite() {
                        return None;
                    }
                    self.row_mut(i)[i] = value.sqrt();
                } else {
                    let pivot = self.row(j)[j];
                    self.row_mut(i)[j] = value / pivot;
                }
            }
        }
        Some(Lower(self))
    }
}

/// A Cholesky factor; what stands above the diagonal is never read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lower(Square);

impl Lower {
    pub(crate) fn at(&self, row: usize, column: usize) -> f64 {
        if column > row { 0.0 } else { self.0.row(row)[column] }
    }

    /// Solves `L·Lᵀ·x = rhs`.
    pub(crate) fn solve(&self, rhs: &[f64]) -> Vec<f64> {
        let mut x = self.forward(rhs);
        for i in (0..self.0.size).rev() {
            x[i] /= self.0.row(i)[i];
            let value = x[i];
            for (entry, factor) in x[..i].iter_mut().zip(self.0.row(i)) {
                *entry -= factor * value;
            }
        }
        x
    }

    /// Solves `L·x = rhs`.
    fn forward(&self, rhs: &[f64]) -> Vec<f64> {
        let mut x = rhs.to_vec();
        for i in 0..self.0.size {
            let row = self.0.row(i);
            x[i] = (x[i] - dot(&row[..i], &x[..i])) / row[i];
        }
        x
    }

    /// Diagonal of the inverse of `L·Lᵀ`: sums of squares of the columns of `L⁻¹`.
    pub(crate) fn inverse_diagonal(&self) -> Vec<f64> {
        let size = self.0.size;
        // Column `j` of L⁻¹ starts at row `j`; kept as rows of the transpose.
        let mut inverse = Square::zeros(size);
        for j in 0..size {
            inverse.row_mut(j)[j] = 1.0 / self.0.row(j)[j];
            for i in j + 1..size {
                let sum = dot(&self.0.row(i)[j..i], &inverse.row(j)[j..i]);
                inverse.row_mut(j)[i] = -sum / self.0.row(i)[i];
            }
        }
        (0..size).map(|j| inverse.row(j)[j..].iter().map(|value| value * value).sum()).collect()
    }
}

pub(crate) fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn solves_and_inverts_a_matrix_done_by_hand() {
        // [4 2; 2 3] has the inverse [3 -2; -2 4] / 8.
        let matrix = Square { size: 2, values: vec![4.0, 2.0, 2.0, 3.0] };
        let lower = matrix.cholesky().unwrap();
        let close = |left: &[f64], right: &[f64]| {
            assert!(left.iter().zip(right).all(|(left, right)| (left - right).abs() < 1e-12), "{left:?}");
        };
        close(&lower.solve(&[8.0, 16.0]), &[-1.0, 6.0]);
        close(&lower.inverse_diagonal(), &[0.375, 0.5]);
        close(&[lower.at(0, 0), lower.at(0, 1), lower.at(1, 0)], &[2.0, 0.0, 1.0]);
    }

    #[test]
    fn an_indefinite_matrix_has_no_factor() {
        assert!(Square { size: 2, values: vec![1.0, 2.0, 2.0, 1.0] }.cholesky().is_none());
        assert!(Square { size: 1, values: vec![f64::NAN] }.cholesky().is_none());
    }
}
