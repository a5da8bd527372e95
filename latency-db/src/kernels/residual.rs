//! What the physical sum leaves over, learned at three levels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Kernel;
use crate::linear::{Lower, Square, dot};

/// Share of a graph's time per kernel kind and per signature, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Shares {
    pub(super) kinds: BTreeMap<String, f64>,
    pub(super) signatures: BTreeMap<String, f64>,
    pub(super) passages: BTreeMap<String, f64>,
}

/// Prior variances, in units of the noise variance. Zero switches a level off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Levels {
    pub(super) overall: f64,
    pub(super) kind: f64,
    pub(super) signature: f64,
    pub(super) passage: f64,
    pub(super) interaction: f64,
}

const OFF: Levels = Levels { overall: 0.0, kind: 0.0, signature: 0.0, passage: 0.0, interaction: 0.0 };

/// A Gaussian process on relative residuals: every kind and every signature may be slower or faster
/// than the physical sum says, and whole mixtures of kinds may interact. How much each level may say
/// is chosen by leave-one-out; a level that doesn't help is off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Residual {
    pub(super) levels: Levels,
    rows: Vec<Shares>,
    /// `K⁻¹·y`.
    dual: Vec<f64>,
    /// Noise's standard deviation.
    scale: f64,
    #[serde(skip)]
    factor: Option<Lower>,
    /// Noise variance per row, relative to a network's.
    noise: Vec<f64>,
}

impl Shares {
    /// Adds what a kernel takes.
    pub(super) fn add(&mut self, kernel: &Kernel, share: f64) {
        *self.kinds.entry(kernel.kind.clone()).or_default() += share;
        *self.signatures.entry(kernel.signature.clone()).or_default() += share;
        for source in &kernel.sources {
            let each = share / kernel.sources.len() as f64;
            *self.passages.entry(format!("{source} > {}", kernel.kind)).or_default() += each;
        }
    }
}

fn product(a: &BTreeMap<String, f64>, b: &BTreeMap<String, f64>) -> f64 {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    short.iter().filter_map(|(name, share)| Some(share * long.get(name)?)).sum()
}

/// The similarities of two graphs, level by level.
pub(super) fn similarity(a: &Shares, b: &Shares) -> [f64; 5] {
    let kind = product(&a.kinds, &b.kinds);
    let distance = product(&a.kinds, &a.kinds) + product(&b.kinds, &b.kinds) - 2.0 * kind;
    let (signature, passage) = (product(&a.signatures, &b.signatures), product(&a.passages, &b.passages));
    [1.0, kind, signature, passage, (-distance / 0.05).exp()]
}

impl Levels {
    pub(super) fn join(self, similar: [f64; 5]) -> f64 {
        self.overall * similar[0]
            + self.kind * similar[1]
            + self.signature * similar[2]
            + self.passage * similar[3]
            + self.interaction * similar[4]
    }
}

impl Residual {
    /// Learns residuals; `noise` is the relative noise variance of each row (1 for a network).
    pub(super) fn fit(
        rows: &[Shares],
        residuals: &[f64],
        noise: &[f64],
        fixed: Option<Levels>,
    ) -> Option<Self> {
        let n = rows.len();
        let mut similar = vec![vec![[0.0; 5]; n]; n];
        for i in 0..n {
            for j in 0..=i {
                similar[i][j] = similarity(&rows[i], &rows[j]);
                similar[j][i] = similar[i][j];
            }
        }
        let mut best: Option<(f64, Self)> = None;
        let grid = fixed.map_or_else(grid, |levels| vec![levels]);
        for levels in grid {
            let mut covariance = Square::zeros(n);
            for i in 0..n {
                for (entry, similar) in covariance.row_mut(i).iter_mut().zip(&similar[i]) {
                    *entry = levels.join(*similar);
                }
                covariance.row_mut(i)[i] += noise[i];
            }
            let factor = covariance.cholesky()?;
            let dual = factor.solve(residuals);
            // Leave-one-out in closed form (Rasmussen and Williams 2006, equation 5.12).
            let mut score = 0.0;
            let mut weight = 0.0;
            let mut spread = 0.0;
            for ((dual, diagonal), noise) in dual.iter().zip(factor.inverse_diagonal()).zip(noise) {
                let error = dual / diagonal;
                score += error.abs() / noise;
                weight += 1.0 / noise;
                spread += error * error * diagonal;
            }
            let score = score / weight;
            if best.as_ref().is_none_or(|(least, _)| score < least * 0.99) {
                let scale = (spread / n as f64).sqrt();
                let (rows, noise, factor) = (rows.to_vec(), noise.to_vec(), Some(factor));
                best = Some((score, Self { levels, rows, dual, scale, factor, noise }));
            }
        }
        best.map(|(_, residual)| residual)
    }

    /// Relative residual and its standard deviation.
    pub(super) fn predict(&self, shares: &Shares) -> [f64; 2] {
        let similar: Vec<f64> =
            self.rows.iter().map(|row| self.levels.join(similarity(row, shares))).collect();
        let mean = dot(&similar, &self.dual);
        let explained = self.factor.as_ref().map_or(0.0, |factor| dot(&similar, &factor.solve(&similar)));
        let own = self.levels.join(similarity(shares, shares));
        [mean, self.scale * (1.0 + (own - explained).max(0.0)).sqrt()]
    }

    /// How much slower (+) or faster (−) a kernel is than its physical sum, relative.
    pub(super) fn kernel(&self, kind: &str, signature: &str) -> f64 {
        let mut change = 0.0;
        for (row, dual) in self.rows.iter().zip(&self.dual) {
            change += dual
                * (self.levels.overall
                    + self.levels.kind * row.kinds.get(kind).unwrap_or(&0.0)
                    + self.levels.signature * row.signatures.get(signature).unwrap_or(&0.0));
        }
        change
    }

    /// Computes what the file doesn't hold; `false` if the rows are damaged.
    pub(super) fn restore(&mut self) -> bool {
        let n = self.rows.len();
        if self.dual.len() != n || self.noise.len() != n {
            return false;
        }
        let mut covariance = Square::zeros(n);
        for i in 0..n {
            for (entry, row) in covariance.row_mut(i).iter_mut().zip(&self.rows) {
                *entry = self.levels.join(similarity(&self.rows[i], row));
            }
            covariance.row_mut(i)[i] += self.noise[i];
        }
        self.factor = covariance.cholesky();
        self.factor.is_some()
    }
}

fn grid() -> Vec<Levels> {
    let mut grid = vec![OFF];
    for kind in [0.0, 30.0, 300.0, 3000.0, 30_000.0] {
        for signature in [0.0, 30.0, 300.0, 3000.0] {
            for passage in [0.0, 30.0, 300.0, 3000.0] {
                for interaction in [0.0, 1.0, 10.0] {
                    grid.push(Levels { overall: 100.0, kind, signature, passage, interaction });
                }
            }
        }
    }
    grid
}
