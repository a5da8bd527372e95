//! What a search gets that trusts a predictor: the best architecture under a latency limit.

use lathe_spaces::Stream;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Codes, NoiseFloor, PredictorError, Prior, ScaleAndShift, TablePredictor,
    benchmark::{BenchmarkError, TableProtocol, known, prior, samples, sources},
    line, safety_factor, select_next,
};
use crate::LatencyTable;

/// Safety level of choices where none is asked for.
pub const DEFAULT_SAFETY: f64 = 0.8;
/// Measurements that `lathe_verified` keeps for its choice.
const VERIFYING: usize = 4;
/// Least measurements of any predictor.
const LEAST: usize = 5;
/// A limit counts as clearly broken above this factor.
const CLEARLY: f64 = 1.05;

/// A latency limit of one device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Share of the device's architectures that meet it, from 0 to 1.
    Quantile(f64),
    /// Milliseconds.
    Milliseconds(f64),
}

/// What to run.
#[derive(Clone, Debug)]
pub struct SelectionOptions {
    /// Source devices; `None` for every column that is not the target's device.
    pub sources: Option<Vec<String>>,
    /// Targets; `None` for every column.
    pub targets: Option<Vec<String>>,
    /// Limits of every target.
    pub limits: Vec<Limit>,
    /// Measurements of the target.
    pub samples: usize,
    /// Draws of samples per target.
    pub seeds: u64,
    /// Probability, from 0.5 to below 1, with which a choice should meet its limit: predictions are
    /// raised by what their leave-one-out errors say this takes.
    pub safety: f64,
    /// Accuracy of every row, in any unit; rows without one are no candidates.
    pub accuracies: Vec<Option<f64>>,
    /// Multiply-accumulates of every row, if the method `macs` should run.
    pub macs: Option<Vec<f64>>,
}

/// Choices of a method under a limit, over draws. Shares are from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelectionRow {
    /// Device column.
    pub target: String,
    /// `lathe` (random samples), `lathe_designed` (samples that [`select_next`] chose), `lathe_verified` (four
    /// of the measurements are of what is about to be chosen), `scale_and_shift` (from the best proxy),
    /// `macs` (a line through the multiply-accumulates). All have the same number of measurements, and all
    /// raise predictions of what they did not measure by the same rule.
    pub method: String,
    /// The limit in milliseconds; null in a row over several.
    pub limit_ms: Option<f64>,
    /// Draws.
    pub cases: u64,
    /// Draws in which the method refused to predict or nothing seemed to meet the limit: they are in none
    /// of the shares.
    pub without_choice: u64,
    /// Mean accuracy of the choices over the best that perfect knowledge of latencies could choose. A
    /// choice that breaks the limit counts as no more than one; null without any choice.
    pub accuracy_of_oracle: Option<f64>,
    /// Share of choices whose measured latency is above the limit.
    pub broken: Option<f64>,
    /// Share of choices whose measured latency is above the limit by more than 5 %.
    pub broken_by_5_percent: Option<f64>,
    /// What is known of the device's noise.
    pub noise_floor: NoiseFloor,
}

/// What one choice came to.
#[derive(Clone, Copy)]
struct Choice {
    accuracy_of_oracle: f64,
    /// Measured latency over the limit.
    ratio: f64,
}

/// Methods of a draw, each with one choice per limit.
type Draw = Vec<(&'static str, Vec<Option<Choice>>)>;

/// A target and its candidates.
struct Candidates<'t> {
    target: &'t str,
    /// Row and measured milliseconds of every architecture whose accuracy is known.
    rows: Vec<(usize, f64)>,
    codes: Vec<&'t Codes>,
    accuracies: Vec<f64>,
    limits: Vec<f64>,
}

/// Lets every method choose, on every target and for every limit and seed; `progress` gets the draws that
/// are done and their total. Candidates are all rows with a latency and an accuracy, samples are drawn
/// from them, and each source is known on 800 random rows. The same input gives the same choices.
///
/// # Errors
/// [`BenchmarkError`] if a device is not in the table, an option is out of range or there are too few rows.
pub fn selection_benchmark(
    table: &LatencyTable,
    options: &SelectionOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<SelectionRow>, BenchmarkError> {
    check(table, options)?;
    let targets = match &options.targets {
        Some(targets) => targets.clone(),
        None => table.devices().map(str::to_owned).collect(),
    };
    for name in targets.iter().chain(options.sources.iter().flatten()) {
        table.latencies(name)?;
    }
    let done = std::sync::atomic::AtomicUsize::new(0);
    let total = targets.len() * options.seeds as usize;
    let mut rows = Vec::new();
    for target in &targets {
        let sources = sources(table, options.sources.as_deref(), target)?;
        let candidates = Candidates::of(table, options, target)?;
        let draws: Vec<Draw> = (0..options.seeds)
            .into_par_iter()
            .map(|seed| {
                let draw = candidates.draw(table, options, &sources, seed)?;
                progress(1 + done.fetch_add(1, std::sync::atomic::Ordering::Relaxed), total);
                Ok(draw)
            })
            .collect::<Result<_, BenchmarkError>>()?;
        let known: Vec<f64> = table.latencies(target)?.iter().flatten().copied().collect();
        rows.extend(summarise(&candidates, NoiseFloor::of(&known), &draws));
    }
    Ok(rows)
}

fn check(table: &LatencyTable, options: &SelectionOptions) -> Result<(), BenchmarkError> {
    let wrong = |reason: String| Err(BenchmarkError::Options { reason });
    if options.seeds == 0 || options.limits.is_empty() {
        return wrong("at least one seed and one limit are needed".into());
    }
    if !(0.5..1.0).contains(&options.safety) {
        return wrong(format!("the safety level is from 0.5 to below 1, got {}", options.safety));
    }
    for limit in &options.limits {
        match *limit {
            Limit::Quantile(share) if !(share > 0.0 && share <= 1.0) => {
                return wrong(format!("a limit as a quantile is above 0 and at most 1, got {share}"));
            }
            Limit::Milliseconds(value) if !(value > 0.0 && value.is_finite()) => {
                return wrong(format!("a limit is a positive number of milliseconds, got {value}"));
            }
            _ => {}
        }
    }
    let rows = table.codes().len();
    if options.accuracies.len() != rows {
        return wrong(format!("{rows} rows came with {} accuracies", options.accuracies.len()));
    }
    Ok(())
}

impl<'t> Candidates<'t> {
    fn of(
        table: &'t LatencyTable,
        options: &SelectionOptions,
        target: &'t str,
    ) -> Result<Self, BenchmarkError> {
        let known = known(table, target)?.into_iter();
        let (rows, accuracies): (Vec<(usize, f64)>, Vec<f64>) =
            known.filter_map(|row| Some((row, options.accuracies[row.0]?))).unzip();
        if rows.len() <= options.samples {
            let (pool, samples, target) = (rows.len(), options.samples, target.to_owned());
            return Err(BenchmarkError::TooShort { target, pool, test: 0, samples });
        }
        let mut sorted: Vec<f64> = rows.iter().map(|(_, latency)| *latency).collect();
        sorted.sort_by(f64::total_cmp);
        let limit = |limit: &Limit| match *limit {
            Limit::Quantile(share) => sorted[((sorted.len() - 1) as f64 * share) as usize],
            Limit::Milliseconds(value) => value,
        };
        let limits = options.limits.iter().map(limit).collect();
        let codes = rows.iter().map(|(row, _)| &table.codes()[*row]).collect();
        Ok(Self { target, rows, codes, accuracies, limits })
    }

    fn draw(
        &self,
        table: &LatencyTable,
        options: &SelectionOptions,
        sources: &[String],
        seed: u64,
    ) -> Result<Draw, BenchmarkError> {
        let failed = |source| BenchmarkError::Predictor { target: self.target.to_owned(), source };
        let prior = prior(table, TableProtocol::All, sources, seed, self.target)?;
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.shuffle(&mut Stream::new(seed, "samples of a target", 0));
        order.truncate(options.samples);
        let mut draw = Vec::new();
        let designed = select_next(&prior, &[], &self.codes, options.samples, seed);
        for (picks, method) in [(&order, "lathe"), (&designed, "lathe_designed")] {
            let picked: Vec<(usize, f64)> = picks.iter().map(|&pick| self.rows[pick]).collect();
            let (codes, latencies) = samples(table, &picked);
            let predictor = TablePredictor::fit(&prior, &codes, &latencies).map_err(failed)?;
            let factor = predictor.safety_factor(options.safety);
            draw.push((method, self.choose(|index| factor * predictor.predict(self.codes[index]))));
        }
        let first = &order[..options.samples - VERIFYING.min(options.samples.saturating_sub(LEAST))];
        let verified = self.limits.iter().map(|&limit| self.verify(table, &prior, options, first, limit));
        draw.push(("lathe_verified", verified.collect::<Result<_, _>>().map_err(failed)?));
        let picked: Vec<(usize, f64)> = order.iter().map(|&pick| self.rows[pick]).collect();
        let (codes, latencies) = samples(table, &picked);
        let choices = match ScaleAndShift::fit(&prior, &codes, &latencies) {
            Ok(transfer) => {
                let factor = safety_factor(transfer.leave_one_out(), options.safety);
                self.choose(|index| factor * transfer.predict(self.codes[index]))
            }
            Err(PredictorError::UnlikeProxy { .. }) => vec![None; self.limits.len()],
            Err(error) => return Err(failed(error)),
        };
        draw.push(("scale_and_shift", choices));
        if let Some(macs) = &options.macs {
            let features: Vec<f64> = picked.iter().map(|(row, _)| macs[*row]).collect();
            draw.push(("macs", self.choose_by_line(&features, &latencies, macs, options.safety)));
        }
        Ok(draw)
    }

    /// Spends the last measurements on the choice itself: what seems best is measured, and what turns out
    /// to break the limit teaches the predictor. The best of what was seen to meet the limit is chosen,
    /// or, if nothing was, what meets it at the safety level.
    fn verify(
        &self,
        table: &LatencyTable,
        prior: &Prior,
        options: &SelectionOptions,
        first: &[usize],
        limit: f64,
    ) -> Result<Option<Choice>, PredictorError> {
        let mut measured = first.to_vec();
        loop {
            let picked: Vec<(usize, f64)> = measured.iter().map(|&pick| self.rows[pick]).collect();
            let (codes, latencies) = samples(table, &picked);
            let predictor = TablePredictor::fit(prior, &codes, &latencies)?;
            let is_last = measured.len() == options.samples;
            // A guess that will be measured needs no safety.
            let factor = if is_last { predictor.safety_factor(options.safety) } else { 1.0 };
            let believed: Vec<f64> =
                self.codes.iter().map(|codes| factor * predictor.predict(codes)).collect();
            let chosen = self.best(limit, |index| {
                if measured.contains(&index) { self.rows[index].1 } else { believed[index] }
            });
            match chosen {
                Some(chosen) if !is_last && !measured.contains(&chosen) => measured.push(chosen),
                // The best of all is measured already, or no measurement is left, or nothing seems to do.
                Some(chosen) => return Ok(self.outcome(chosen, limit)),
                None if is_last => return Ok(None),
                None => {
                    // Measure what is fastest: it may do, and teaches where the limit is.
                    let free = (0..self.rows.len()).filter(|index| !measured.contains(index));
                    match free.min_by(|&left, &right| believed[left].total_cmp(&believed[right])) {
                        Some(fastest) => measured.push(fastest),
                        None => return Ok(None),
                    }
                }
            }
        }
    }

    fn outcome(&self, chosen: usize, limit: f64) -> Option<Choice> {
        let best = self.best(limit, |index| self.rows[index].1)?;
        let accuracy_of_oracle = (self.accuracies[chosen] / self.accuracies[best]).min(1.0);
        Some(Choice { accuracy_of_oracle, ratio: self.rows[chosen].1 / limit })
    }

    fn choose_by_line(
        &self,
        features: &[f64],
        latencies: &[f64],
        macs: &[f64],
        safety: f64,
    ) -> Vec<Option<Choice>> {
        let error = |sample: usize| {
            let (scale, shift) = line(features, latencies, Some(sample))?;
            Some(1.0 - (scale * features[sample] + shift) / latencies[sample])
        };
        let errors: Option<Vec<f64>> = (0..latencies.len()).map(error).collect();
        match (line(features, latencies, None), errors) {
            (Some((scale, shift)), Some(errors)) => {
                let factor = safety_factor(&errors, safety);
                self.choose(|index| factor * (scale * macs[self.rows[index].0] + shift))
            }
            _ => vec![None; self.limits.len()],
        }
    }

    /// Per limit, the candidate of highest accuracy whose latency is believed to meet it.
    fn choose(&self, believed: impl Fn(usize) -> f64) -> Vec<Option<Choice>> {
        let believed: Vec<f64> = (0..self.rows.len()).map(believed).collect();
        let choice = |limit: f64| self.outcome(self.best(limit, |index| believed[index])?, limit);
        self.limits.iter().map(|&limit| choice(limit)).collect()
    }

    fn best(&self, limit: f64, latency: impl Fn(usize) -> f64) -> Option<usize> {
        (0..self.rows.len())
            .filter(|&index| latency(index) <= limit)
            .max_by(|&left, &right| self.accuracies[left].total_cmp(&self.accuracies[right]))
    }
}

fn summarise(candidates: &Candidates<'_>, noise_floor: NoiseFloor, draws: &[Draw]) -> Vec<SelectionRow> {
    let mut rows = Vec::new();
    for (method, (name, _)) in draws.first().into_iter().flatten().enumerate() {
        for (limit, &limit_ms) in candidates.limits.iter().enumerate() {
            let choices: Vec<Choice> = draws.iter().filter_map(|draw| draw[method].1[limit]).collect();
            let mean = |value: &dyn Fn(&Choice) -> f64| {
                let sum: f64 = choices.iter().map(value).sum();
                (!choices.is_empty()).then(|| sum / choices.len() as f64)
            };
            let above = |factor: f64| mean(&|choice| f64::from(u8::from(choice.ratio > factor)));
            rows.push(SelectionRow {
                target: candidates.target.to_owned(),
                method: (*name).to_owned(),
                limit_ms: Some(limit_ms),
                cases: draws.len() as u64,
                without_choice: (draws.len() - choices.len()) as u64,
                accuracy_of_oracle: mean(&|choice| choice.accuracy_of_oracle),
                broken: above(1.0),
                broken_by_5_percent: above(CLEARLY),
                noise_floor,
            });
        }
    }
    rows
}

/// Means of each method over all targets, limits and draws, as a row whose target is `all`.
pub fn overall(rows: &[SelectionRow]) -> Vec<SelectionRow> {
    let mut methods: Vec<&str> = Vec::new();
    for row in rows {
        if !methods.contains(&row.method.as_str()) {
            methods.push(&row.method);
        }
    }
    methods.into_iter().map(|method| overall_of(rows, method)).collect()
}

fn overall_of(rows: &[SelectionRow], method: &str) -> SelectionRow {
    let rows: Vec<&SelectionRow> = rows.iter().filter(|row| row.method == method).collect();
    let cases = rows.iter().map(|row| row.cases).sum();
    let without_choice = rows.iter().map(|row| row.without_choice).sum();
    let made = (cases - without_choice) as f64;
    let mean = |value: &dyn Fn(&SelectionRow) -> Option<f64>| {
        let sum: f64 =
            rows.iter().filter_map(|row| Some(value(row)? * (row.cases - row.without_choice) as f64)).sum();
        (made > 0.0).then(|| sum / made)
    };
    SelectionRow {
        target: "all".into(),
        method: method.to_owned(),
        limit_ms: None,
        cases,
        without_choice,
        accuracy_of_oracle: mean(&|row| row.accuracy_of_oracle),
        broken: mean(&|row| row.broken),
        broken_by_5_percent: mean(&|row| row.broken_by_5_percent),
        noise_floor: NoiseFloor::Unknown,
    }
}
