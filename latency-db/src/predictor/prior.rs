//! What other devices say about a device of which little is known.

use super::{
    PredictorError,
    additive::{Additive, check, look_up},
    encoding::{Codes, Encoding},
};
use crate::linear::{Square, dot};

/// Architectures that settle the scale of the features.
const SCALE_SAMPLE: usize = 2000;

/// A device of which many architectures are measured.
#[derive(Clone, Debug)]
pub struct SourceDevice<'a> {
    /// Name, for messages.
    pub name: &'a str,
    /// Measured architectures.
    pub codes: Vec<&'a Codes>,
    /// Their latencies in milliseconds.
    pub latencies: Vec<f64>,
}

/// Linear features of an architecture: the rows of a matrix that its (position, operation) pairs pick,
/// summed, less their mean over the space. Of unit variance in total.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// What the features are, for messages.
    pub name: &'static str,
    /// Features.
    dimensions: usize,
    /// One row of `dimensions` per (position, operation).
    rows: Vec<f64>,
    centre: Vec<f64>,
}

impl Block {
    fn new(name: &'static str, dimensions: usize, mut rows: Vec<f64>, sample: &[&Codes]) -> Option<Self> {
        let bare = Self { name, dimensions, rows: rows.clone(), centre: vec![0.0; dimensions] };
        let features: Vec<Vec<f64>> = sample.iter().map(|codes| bare.features(codes)).collect();
        let count = features.len() as f64;
        let mut centre = vec![0.0; dimensions];
        for features in &features {
            for (centre, feature) in centre.iter_mut().zip(features) {
                *centre += feature / count;
            }
        }
        let deviation = |features: &Vec<f64>| {
            features.iter().zip(&centre).map(|(feature, centre)| (feature - centre).powi(2)).sum::<f64>()
        };
        let scale = (features.iter().map(deviation).sum::<f64>() / count).sqrt();
        // Features that are the same for every architecture tell nothing.
        if scale <= 1e-9 {
            return None;
        }
        for value in rows.iter_mut().chain(&mut centre) {
            *value /= scale;
        }
        Some(Self { rows, centre, ..bare })
    }

    pub(super) fn features(&self, codes: &Codes) -> Vec<f64> {
        let operations = self.rows.len() / self.dimensions / codes.0.len();
        let mut features: Vec<f64> = self.centre.iter().map(|centre| -centre).collect();
        for (position, &code) in codes.0.iter().enumerate() {
            let row = (position * operations + usize::from(code)) * self.dimensions;
            for (feature, value) in features.iter_mut().zip(&self.rows[row..row + self.dimensions]) {
                *feature += value;
            }
        }
        features
    }

    /// Adds `Σ weights·features` to a table of (position, operation) and its intercept.
    pub(super) fn collapse(&self, weights: &[f64], intercept: &mut f64, table: &mut [f64]) {
        *intercept -= dot(&self.centre, weights);
        for (entry, row) in table.iter_mut().zip(self.rows.chunks_exact(self.dimensions)) {
            *entry += dot(row, weights);
        }
    }
}

/// What is believed of latencies in a space before a new device is measured: groups of features, each
/// of which [`super::TablePredictor::fit`] weighs or switches off by leave-one-out.
///
/// - `one-hot`: every (position, operation) has a latency of its own;
/// - `counts`: the same operation costs the same everywhere;
/// - `sources`: the device is a mixture of the source devices, each of them an additive model fitted to
///   its own rows, and `consensus`: their mean;
/// - `spread`: one-hot again, where a (position, operation) may deviate as much as it varies among and
///   within the sources (the diagonal of an empirical-Bayes covariance);
/// - `separable`: coefficients covary over positions and over operations as the sources' do (a Kronecker
///   product of two covariances), and `operations`: over operations alone.
#[derive(Clone, Debug)]
pub struct Prior {
    pub(super) encoding: Encoding,
    pub(super) blocks: Vec<Block>,
    pub(super) sources: Vec<(String, Additive)>,
    /// Whether some source measured an architecture with each (position, operation).
    pub(super) seen: Vec<bool>,
}

impl Prior {
    /// Learns from source devices, of which there may be none. `population` are architectures as the
    /// space has them (at least two; the first 2,000 are used).
    ///
    /// # Errors
    /// [`PredictorError`] if a source has too few rows or one that is no latency.
    pub fn new(
        encoding: &Encoding,
        population: &[&Codes],
        sources: &[SourceDevice<'_>],
    ) -> Result<Self, PredictorError> {
        let sample = &population[..population.len().min(SCALE_SAMPLE)];
        if sample.len() < 2 {
            let (device, got) = (String::new(), sample.len());
            return Err(PredictorError::TooFew { device, got, needed: 2 });
        }
        let mut seen = vec![false; encoding.columns()];
        for codes in sources.iter().flat_map(|source| &source.codes) {
            mark(&mut seen, codes);
        }
        let sources: Vec<(String, Additive)> = sources
            .iter()
            .map(|source| {
                check(source.name, source.codes.len(), &source.latencies)?;
                let additive = Additive::fit(encoding, source.name, &source.codes, &source.latencies)?;
                Ok((source.name.to_owned(), additive))
            })
            .collect::<Result<_, PredictorError>>()?;
        let (width, operations, columns) = (encoding.width(), encoding.choices().len(), encoding.columns());
        let mut blocks = vec![
            Block::new("one-hot", columns, identity(columns), sample),
            Block::new("counts", operations * width / encoding.positions(), counts(encoding), sample),
        ];
        let centred: Vec<Vec<f64>> =
            sources.iter().filter_map(|(_, source)| centred(&source.table, operations, sample)).collect();
        if !centred.is_empty() {
            blocks.extend(learned(&centred, width, operations, sample));
        }
        Ok(Self { encoding: encoding.clone(), blocks: blocks.into_iter().flatten().collect(), sources, seen })
    }

    /// The group `one-hot` alone: a plain ridge, to compare with.
    ///
    /// # Errors
    /// [`PredictorError::TooFew`] with fewer than two architectures.
    pub fn one_hot(encoding: &Encoding, population: &[&Codes]) -> Result<Self, PredictorError> {
        let mut prior = Self::new(encoding, population, &[])?;
        prior.blocks.retain(|block| block.name == "one-hot");
        Ok(prior)
    }

    /// How architectures are encoded.
    pub const fn encoding(&self) -> &Encoding {
        &self.encoding
    }

    /// Index of the group with one feature per source, and how many features it has.
    pub(super) fn source_features(&self) -> Option<(usize, usize)> {
        let group = self.blocks.iter().position(|block| block.name == "sources")?;
        Some((group, self.blocks[group].dimensions))
    }

    /// Names of the source devices.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|(name, _)| name.as_str())
    }
}

/// Marks every (position, operation) of an architecture.
pub(super) fn mark(seen: &mut [bool], codes: &Codes) {
    let operations = seen.len() / codes.0.len();
    for (entries, &code) in seen.chunks_exact_mut(operations).zip(&codes.0) {
        entries[usize::from(code)] = true;
    }
}

fn identity(columns: usize) -> Vec<f64> {
    let mut rows = vec![0.0; columns * columns];
    for entry in rows.iter_mut().step_by(columns + 1) {
        *entry = 1.0;
    }
    rows
}

/// How often each operation occurs; where there is a second half without dead edges, there too.
fn counts(encoding: &Encoding) -> Vec<f64> {
    let operations = encoding.choices().len();
    let dimensions = operations * encoding.width() / encoding.positions();
    let mut rows = vec![0.0; encoding.columns() * dimensions];
    for (column, row) in rows.chunks_exact_mut(dimensions).enumerate() {
        let half = column / operations / encoding.positions();
        row[half * operations + column % operations] = 1.0;
    }
    rows
}

/// A source's table with mean zero at every position and unit variance over the space: devices count
/// the same however flat their latencies are. `None` for a device that takes every architecture alike.
fn centred(table: &[f64], operations: usize, sample: &[&Codes]) -> Option<Vec<f64>> {
    let count = sample.len() as f64;
    let mut table = table.to_vec();
    for (position, entries) in table.chunks_exact_mut(operations).enumerate() {
        let sum: f64 = sample.iter().map(|codes| entries[usize::from(codes.0[position])]).sum();
        for entry in entries {
            *entry -= sum / count;
        }
    }
    let variance = sample.iter().map(|codes| look_up(&table, codes).powi(2)).sum::<f64>() / count;
    let scale = variance.sqrt();
    (scale > 1e-9).then(|| table.iter().map(|entry| entry / scale).collect())
}

/// The groups of features that the sources teach.
fn learned(sources: &[Vec<f64>], width: usize, operations: usize, sample: &[&Codes]) -> Vec<Option<Block>> {
    let (columns, count) = (width * operations, sources.len());
    let mut mixture = vec![0.0; columns * count];
    for (index, table) in sources.iter().enumerate() {
        for (column, entry) in table.iter().enumerate() {
            mixture[column * count + index] = *entry;
        }
    }
    let consensus: Vec<f64> = mixture.chunks_exact(count).map(|row| row.iter().sum::<f64>()).collect();
    let mut spread = vec![0.0; columns * columns];
    for (column, row) in mixture.chunks_exact(count).enumerate() {
        spread[column * columns + column] = (dot(row, row) / count as f64).sqrt();
    }
    let (mut by_position, mut by_operation) = (Square::zeros(width), Square::zeros(operations));
    for table in sources {
        let entries: Vec<&[f64]> = table.chunks_exact(operations).collect();
        for (i, left) in entries.iter().enumerate() {
            for (j, right) in entries.iter().enumerate() {
                by_position.row_mut(i)[j] += dot(left, right);
            }
            for (o, entry) in left.iter().enumerate() {
                for (total, other) in by_operation.row_mut(o).iter_mut().zip(*left) {
                    *total += entry * other;
                }
            }
        }
    }
    let importance: Vec<f64> = (0..width).map(|i| by_position.row(i)[i].max(0.0).sqrt()).collect();
    let mut blocks = vec![
        Block::new("sources", count, mixture, sample),
        Block::new("consensus", 1, consensus, sample),
        Block::new("spread", columns, spread, sample),
    ];
    if let (Some(positions), Some(choices)) = (root(by_position), root(by_operation)) {
        let (mut separable, mut shared) = (Vec::new(), Vec::new());
        for position in 0..width {
            for choice in 0..operations {
                let choice_row = &choices[choice * operations..(choice + 1) * operations];
                shared.extend(choice_row.iter().map(|entry| importance[position] * entry));
                for left in &positions[position * width..(position + 1) * width] {
                    separable.extend(choice_row.iter().map(|right| left * right));
                }
            }
        }
        blocks.push(Block::new("separable", columns, separable, sample));
        blocks.push(Block::new("operations", operations, shared, sample));
    }
    blocks
}

/// Any `R` with `R·Rᵀ = covariance`, in row order; the little added to the diagonal makes up for fewer
/// sources than dimensions.
fn root(mut covariance: Square) -> Option<Vec<f64>> {
    let size = covariance.size;
    let trace: f64 = (0..size).map(|i| covariance.row(i)[i]).sum();
    for i in 0..size {
        covariance.row_mut(i)[i] += 1e-8 * trace;
    }
    let lower = covariance.cholesky()?;
    Some((0..size * size).map(|index| lower.at(index / size, index % size)).collect())
}
