//! How good predictors are on a table: few measurements of a target, many of other devices.

use std::{collections::BTreeSet, time::Instant};

use lathe_spaces::Stream;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    BoostedTrees, Codes, NoiseFloor, PredictorError, Prior, ScaleAndShift, SourceDevice, TablePredictor,
    line, select_next,
};
use crate::{LatencyTable, LatencyTableError, fit::spearman};

/// Architectures 0–899 are for fitting, 900–1899 for testing (HELP, Lee et al. 2021, `loader.py`).
const HELP_POOL: usize = 900;
/// End of HELP's test set.
const HELP_END: usize = 1900;
/// Rows of every source where the protocol names none (NASFLAT, Akhauri & Abdelfattah 2024).
const SOURCE_ROWS: usize = 800;
/// Rows of the target that gradient boosting gets, if there are so many.
const BOOSTED_ROWS: usize = 900;
/// Least rows to test on.
const LEAST_TEST: usize = 10;

/// Which rows of a table are for fitting and which for testing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableProtocol {
    /// HELP's: rows 0–899 are the pool of samples, rows 900–1899 the test, both without the tenth that
    /// is slowest and the tenth that is fastest on the target; sources are known on rows 0–899.
    Help,
    /// NASFLAT's: samples are drawn from all rows, and all others are the test; sources are known on 800
    /// rows drawn at random, anew for every seed.
    All,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct BenchmarkOptions {
    /// Source devices; `None` for every column that is not the target's device, whatever the batch size
    /// (`1080ti_1` and `1080ti_32` are one device).
    pub sources: Option<Vec<String>>,
    /// Targets; `None` for every column.
    pub targets: Option<Vec<String>>,
    /// Which rows.
    pub protocol: TableProtocol,
    /// Numbers of target measurements.
    pub samples: Vec<usize>,
    /// Draws of samples per target.
    pub seeds: u64,
    /// Multiply-accumulates of every row, if the method `flops` should run.
    pub macs: Option<Vec<f64>>,
}

/// Figures of a method on a target, averaged over seeds. Shares are of the test rows, from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkRow {
    /// Device column.
    pub target: String,
    /// `lathe` (the hierarchical predictor on random samples), `lathe_designed` (on samples that
    /// [`select_next`] chose), `ridge_onehot` (the same without sources), `scale_and_shift` (from the best
    /// proxy), `flops` (a line through the multiply-accumulates), `gbdt_900` ([`BoostedTrees`] without sources
    /// on 900 rows, or the whole pool, or nine tenths of a short table: what many measurements give).
    pub method: String,
    /// Measurements of the target.
    pub samples: usize,
    /// Draws that gave figures.
    pub seeds: u64,
    /// Draws in which the method refused to predict: they are in none of the figures.
    pub refused: u64,
    /// Spearman correlation of predictions and measurements; null if all draws were refused.
    pub spearman_mean: Option<f64>,
    /// Its standard deviation over draws.
    pub spearman_sd: Option<f64>,
    /// Share of predictions within ±5 % of the measurement.
    pub within_5_percent: Option<f64>,
    /// Share within ±10 %.
    pub within_10_percent: Option<f64>,
    /// How much slower the architecture is that is predicted to be fastest than the fastest one, relative.
    pub selection_regret: Option<f64>,
    /// Share of measurements inside the 90 % interval; null for methods without one.
    pub coverage_90: Option<f64>,
    /// What is known of the device's noise.
    pub noise_floor: NoiseFloor,
}

/// What can go wrong. The messages complete "failed to …".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BenchmarkError {
    /// The table.
    #[error(transparent)]
    Table(#[from] LatencyTableError),
    /// A predictor.
    #[error("benchmark predictors on `{target}`: cannot {source}")]
    Predictor {
        /// Device column.
        target: String,
        /// Why not.
        source: PredictorError,
    },
    /// The table is too short.
    #[error(
        "benchmark predictors on `{target}`: it has {pool} rows to draw samples from and {test} to test on, and \
         {samples} samples and at least {LEAST_TEST} test rows are wanted; ask for fewer samples, or use the protocol `all`"
    )]
    TooShort {
        /// Device column.
        target: String,
        /// Rows to draw from.
        pool: usize,
        /// Rows to test on.
        test: usize,
        /// Samples asked for.
        samples: usize,
    },
    /// Nothing to transfer from.
    #[error("benchmark predictors on `{target}`: no source device is left; name some with --sources")]
    NoSource {
        /// Device column.
        target: String,
    },
    /// An option that asks for nothing.
    #[error("benchmark predictors: {reason}")]
    Options {
        /// What is wrong.
        reason: String,
    },
}

/// Runs every method on every target, number of samples and seed; `progress` gets the runs that are done
/// and their total. The same table and options give the same figures.
///
/// # Errors
/// [`BenchmarkError`] if a device is not in the table or the table is too short.
pub fn benchmark(
    table: &LatencyTable,
    options: &BenchmarkOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<BenchmarkRow>, BenchmarkError> {
    let nothing = |reason: &str| Err(BenchmarkError::Options { reason: reason.into() });
    if options.seeds == 0 {
        return nothing("at least one seed is needed, got 0");
    }
    if options.samples.is_empty() {
        return nothing("at least one number of samples is needed");
    }
    let targets = match &options.targets {
        Some(targets) => targets.clone(),
        None => table.devices().map(str::to_owned).collect(),
    };
    // All names are checked before the first run: no one waits for a typing error.
    for name in targets.iter().chain(options.sources.iter().flatten()) {
        table.latencies(name)?;
    }
    let done = std::sync::atomic::AtomicUsize::new(0);
    let total = targets.len() * options.seeds as usize;
    let mut rows = Vec::new();
    for target in &targets {
        let sources = sources(table, options.sources.as_deref(), target)?;
        let runs: Vec<Vec<Run>> = (0..options.seeds)
            .into_par_iter()
            .map(|seed| {
                let runs = runs(table, options, target, &sources, seed)?;
                progress(1 + done.fetch_add(1, std::sync::atomic::Ordering::Relaxed), total);
                Ok(runs)
            })
            .collect::<Result<_, BenchmarkError>>()?;
        let known: Vec<f64> = table.latencies(target)?.iter().flatten().copied().collect();
        rows.extend(summarise(target, NoiseFloor::of(&known), &runs));
    }
    Ok(rows)
}

/// Predictions per second of [`TablePredictor::predict_all`] over the table's architectures, repeated
/// until there are a million.
///
/// # Errors
/// [`BenchmarkError`] if nothing can be fitted.
pub fn throughput(table: &LatencyTable) -> Result<f64, BenchmarkError> {
    let device = table.devices().next().unwrap_or_default().to_owned();
    let rows = known(table, &device)?;
    let rows = &rows[..rows.len().min(100)];
    let population: Vec<&Codes> = table.codes().iter().collect();
    let failed = |source| BenchmarkError::Predictor { target: device.clone(), source };
    let prior = Prior::new(table.encoding(), &population, &[]).map_err(failed)?;
    let (codes, latencies) = samples(table, rows);
    let predictor = TablePredictor::fit(&prior, &codes, &latencies).map_err(failed)?;
    let many: Vec<Codes> = table.codes().iter().cycle().take(1_000_000).cloned().collect();
    let start = Instant::now();
    std::hint::black_box(predictor.predict_all(&many));
    Ok(many.len() as f64 / start.elapsed().as_secs_f64())
}

/// `1080ti_32` is the device `1080ti` with batches of 32.
fn without_batch(column: &str) -> &str {
    match column.rsplit_once('_') {
        Some((device, batch)) if !batch.is_empty() && batch.bytes().all(|byte| byte.is_ascii_digit()) => {
            device
        }
        _ => column,
    }
}

/// The devices to transfer to a target from: those named, or every column that is not the target's device,
/// whatever the batch size behind its name.
///
/// # Errors
/// [`BenchmarkError::NoSource`] if none is left.
pub fn sources(
    table: &LatencyTable,
    sources: Option<&[String]>,
    target: &str,
) -> Result<Vec<String>, BenchmarkError> {
    let sources: Vec<String> = if let Some(sources) = sources {
        sources.iter().filter(|source| *source != target).cloned().collect()
    } else {
        let other = |column: &&str| without_batch(column) != without_batch(target);
        table.devices().filter(other).map(str::to_owned).collect()
    };
    if sources.is_empty() { Err(BenchmarkError::NoSource { target: target.to_owned() }) } else { Ok(sources) }
}

/// Rows (with their latencies in milliseconds) of a device that have one and compute something.
///
/// # Errors
/// [`LatencyTableError`] for a device that is not in the table.
pub fn known(table: &LatencyTable, device: &str) -> Result<Vec<(usize, f64)>, LatencyTableError> {
    let latencies = table.latencies(device)?.iter().enumerate();
    Ok(latencies
        .filter(|(row, _)| table.encoding().connected(&table.codes()[*row]))
        .filter_map(|(row, latency)| latency.map(|latency| (row, latency)))
        .collect())
}

pub(super) fn samples<'t>(table: &'t LatencyTable, rows: &[(usize, f64)]) -> (Vec<&'t Codes>, Vec<f64>) {
    rows.iter().map(|&(row, latency)| (&table.codes()[row], latency)).unzip()
}

/// Without the tenth that is slowest and the tenth that is fastest.
fn trimmed(rows: &[(usize, f64)], from: usize, to: usize) -> Vec<(usize, f64)> {
    let mut rows: Vec<(usize, f64)> =
        rows.iter().copied().filter(|(row, _)| (from..to).contains(row)).collect();
    rows.sort_by(|left, right| left.1.total_cmp(&right.1));
    let tenth = rows.len() / 10;
    rows.truncate(rows.len() - tenth);
    rows.drain(..tenth);
    rows.sort_by_key(|(row, _)| *row);
    rows
}

/// Figures of one method in one draw; `None` where it refused.
struct Run {
    method: &'static str,
    samples: usize,
    figures: Option<Figures>,
}

struct Figures {
    spearman: f64,
    within_5: f64,
    within_10: f64,
    regret: f64,
    coverage: Option<f64>,
}

fn runs(
    table: &LatencyTable,
    options: &BenchmarkOptions,
    target: &str,
    sources: &[String],
    seed: u64,
) -> Result<Vec<Run>, BenchmarkError> {
    let failed = |source| BenchmarkError::Predictor { target: target.to_owned(), source };
    let rows = known(table, target)?;
    let (pool, fixed_test) = match options.protocol {
        TableProtocol::Help => (trimmed(&rows, 0, HELP_POOL), Some(trimmed(&rows, HELP_POOL, HELP_END))),
        TableProtocol::All => (rows.clone(), None),
    };
    let prior = prior(table, options.protocol, sources, seed, target)?;
    let population: Vec<&Codes> = pool.iter().map(|(row, _)| &table.codes()[*row]).collect();
    let one_hot = Prior::one_hot(table.encoding(), &population).map_err(failed)?;
    let mut order: Vec<usize> = (0..pool.len()).collect();
    order.shuffle(&mut Stream::new(seed, "samples of a target", 0));
    let mut runs = Vec::new();
    for &count in &options.samples {
        let test_rows = fixed_test.as_ref().map_or_else(|| pool.len().saturating_sub(count), Vec::len);
        if pool.len() < count || test_rows < LEAST_TEST {
            let (pool, test, target) = (pool.len(), test_rows, target.to_owned());
            return Err(BenchmarkError::TooShort { target, pool, test, samples: count });
        }
        let designed = select_next(&prior, &[], &population, count, seed);
        for (picks, is_design) in [(&order[..count], false), (&designed[..], true)] {
            let picked: Vec<(usize, f64)> = picks.iter().map(|&pick| pool[pick]).collect();
            let (codes, latencies) = samples(table, &picked);
            let test: Vec<(usize, f64)> = match &fixed_test {
                Some(test) => test.clone(),
                None => without(&pool, &picked),
            };
            let mut add = |method, figures| runs.push(Run { method, samples: count, figures });
            let lathe = TablePredictor::fit(&prior, &codes, &latencies).map_err(failed)?;
            let name = if is_design { "lathe_designed" } else { "lathe" };
            add(name, Some(Figures::of_predictor(table, &test, &lathe)));
            if is_design {
                continue;
            }
            let ridge = TablePredictor::fit(&one_hot, &codes, &latencies).map_err(failed)?;
            add("ridge_onehot", Some(Figures::of_predictor(table, &test, &ridge)));
            let transfer = match ScaleAndShift::fit(&prior, &codes, &latencies) {
                Ok(transfer) => Some(Figures::of(&test, |row| transfer.predict(&table.codes()[row]))),
                Err(PredictorError::UnlikeProxy { .. }) => None,
                Err(error) => return Err(failed(error)),
            };
            add("scale_and_shift", transfer);
            if let Some(macs) = &options.macs {
                let features: Vec<f64> = picked.iter().map(|(row, _)| macs[*row]).collect();
                let fitted = line(&features, &latencies, None);
                add(
                    "flops",
                    fitted.map(|(scale, shift)| Figures::of(&test, |row| scale * macs[row] + shift)),
                );
            }
        }
    }
    // The pool as a whole is the same in every draw, and trees are not random.
    if fixed_test.is_none() || seed == 0 {
        let most = if fixed_test.is_some() { pool.len() } else { pool.len() * 9 / 10 };
        order.truncate(BOOSTED_ROWS.min(most));
        let picked: Vec<(usize, f64)> = order.iter().map(|&pick| pool[pick]).collect();
        let test = fixed_test.unwrap_or_else(|| without(&pool, &picked));
        let (codes, latencies) = samples(table, &picked);
        let trees = BoostedTrees::fit(table.encoding().choices().len(), &codes, &latencies);
        let trees = trees.map_err(failed)?;
        let figures = Some(Figures::of(&test, |row| trees.predict(&table.codes()[row])));
        runs.push(Run { method: "gbdt_900", samples: picked.len(), figures });
    }
    Ok(runs)
}

/// The rows that were not picked.
fn without(rows: &[(usize, f64)], picked: &[(usize, f64)]) -> Vec<(usize, f64)> {
    let picked: BTreeSet<usize> = picked.iter().map(|(row, _)| *row).collect();
    rows.iter().copied().filter(|(row, _)| !picked.contains(row)).collect()
}

/// What the sources teach.
pub(super) fn prior(
    table: &LatencyTable,
    protocol: TableProtocol,
    sources: &[String],
    seed: u64,
    target: &str,
) -> Result<Prior, BenchmarkError> {
    let failed = |source| BenchmarkError::Predictor { target: target.to_owned(), source };
    let devices: Vec<SourceDevice<'_>> = sources
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let mut rows = known(table, name)?;
            match protocol {
                TableProtocol::Help => rows.retain(|(row, _)| *row < HELP_POOL),
                TableProtocol::All => {
                    rows.shuffle(&mut Stream::new(seed, "rows of a source", index as u64));
                    rows.truncate(SOURCE_ROWS);
                }
            }
            let (codes, latencies) = samples(table, &rows);
            Ok(SourceDevice { name, codes, latencies })
        })
        .collect::<Result<_, LatencyTableError>>()?;
    let population: Vec<&Codes> = table.codes().iter().collect();
    Prior::new(table.encoding(), &population, &devices).map_err(failed)
}

impl Figures {
    fn of_predictor(table: &LatencyTable, test: &[(usize, f64)], predictor: &TablePredictor) -> Self {
        let inside = test.iter().filter(|(row, latency)| {
            let interval = predictor.interval(&table.codes()[*row]);
            (interval.low..=interval.high).contains(latency)
        });
        let coverage = inside.count() as f64 / test.len() as f64;
        let figures = Self::of(test, |row| predictor.predict(&table.codes()[row]));
        Self { coverage: Some(coverage), ..figures }
    }

    fn of(test: &[(usize, f64)], predict: impl Fn(usize) -> f64) -> Self {
        let predicted: Vec<f64> = test.iter().map(|(row, _)| predict(*row)).collect();
        let measured: Vec<f64> = test.iter().map(|(_, latency)| *latency).collect();
        let within = |share: f64| {
            let near = predicted.iter().zip(&measured).filter(|(p, m)| ((*p - *m) / *m).abs() <= share);
            near.count() as f64 / test.len() as f64
        };
        let chosen = predicted.iter().zip(&measured).min_by(|left, right| left.0.total_cmp(right.0));
        let fastest = measured.iter().copied().fold(f64::INFINITY, f64::min);
        Self {
            spearman: spearman(&predicted, &measured),
            within_5: within(0.05),
            within_10: within(0.10),
            regret: chosen.map_or(0.0, |(_, latency)| latency / fastest - 1.0),
            coverage: None,
        }
    }
}

/// One row per method and number of samples, in the order of the first draw.
fn summarise(target: &str, noise_floor: NoiseFloor, runs: &[Vec<Run>]) -> Vec<BenchmarkRow> {
    let kinds = runs.first().into_iter().flatten().enumerate();
    kinds
        .map(|(index, kind)| {
            let draws: Vec<&Run> = runs.iter().filter_map(|draw| draw.get(index)).collect();
            let drawn: Vec<&Figures> = draws.iter().filter_map(|run| run.figures.as_ref()).collect();
            let mean = |value: &dyn Fn(&Figures) -> Option<f64>| {
                let values: Option<Vec<f64>> = drawn.iter().map(|figures| value(figures)).collect();
                values
                    .filter(|values| !values.is_empty())
                    .map(|values| values.iter().sum::<f64>() / values.len() as f64)
            };
            let spearman_mean = mean(&|figures| Some(figures.spearman));
            let spearman_sd = spearman_mean
                .and_then(|centre| mean(&|figures| Some((figures.spearman - centre).powi(2))).map(f64::sqrt));
            BenchmarkRow {
                target: target.to_owned(),
                method: kind.method.to_owned(),
                samples: kind.samples,
                seeds: drawn.len() as u64,
                refused: (draws.len() - drawn.len()) as u64,
                spearman_mean,
                spearman_sd,
                within_5_percent: mean(&|figures| Some(figures.within_5)),
                within_10_percent: mean(&|figures| Some(figures.within_10)),
                selection_regret: mean(&|figures| Some(figures.regret)),
                coverage_90: mean(&|figures| figures.coverage),
                noise_floor,
            }
        })
        .collect()
}
