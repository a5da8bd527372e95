//! Every algorithm on every device, limit, budget and seed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lathe_latency_db::LatencyTable;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    TabularError,
    belief::Knowledge,
    draw::{Algorithm, LEAST_SAMPLES, Outcome, Plan, draw, reference},
    finalists::Goal,
    summary::{Reference, SearchRow, SearchSummary},
    target::{Architectures, Target},
};

/// Limits where none are named: these shares of the device's architectures meet them.
const QUANTILES: [f64; 5] = [0.1, 0.3, 0.5, 0.7, 0.9];

/// What to run.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// Source devices; `None` for every column that is not the target's device.
    pub sources: Option<Vec<String>>,
    /// Targets; `None` for every column that has latencies.
    pub targets: Option<Vec<String>>,
    /// Limits in milliseconds, of every target; `None` for five quantiles of its latencies.
    pub limits_ms: Option<Vec<f64>>,
    /// Measurements of the target, those of what is about to be chosen included.
    pub samples: usize,
    /// Numbers of architectures whose accuracy is looked up.
    pub budgets: Vec<usize>,
    /// Searches of each kind.
    pub seeds: u64,
    /// Accuracy of every row, in any unit; rows without one are left out.
    pub accuracies: Vec<Option<f64>>,
    /// Algorithms.
    pub algorithms: Vec<Algorithm>,
    /// Where latencies come from.
    pub knowledge: Vec<Knowledge>,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchBenchmark {
    /// Over all devices and limits.
    pub summary: Vec<SearchSummary>,
    /// By device, limit (null: the whole front), knowledge, algorithm and budget.
    pub rows: Vec<SearchRow>,
}

/// Runs every search; `progress` gets the draws (target and seed) that are done and their total. Seeds are
/// shared out among rayon's threads; the same tables and options give the same figures whatever their number.
///
/// # Errors
/// [`TabularError`]; [`TabularError::Interrupted`] soon after `stop` was raised.
pub fn search_benchmark(
    table: &LatencyTable,
    options: &SearchOptions,
    stop: &AtomicBool,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<SearchBenchmark, TabularError> {
    check(table, options)?;
    let targets = match &options.targets {
        Some(targets) => targets.clone(),
        None => table.devices().filter(|device| is_any_known(table, device)).map(str::to_owned).collect(),
    };
    // All names are checked before the first run: no one waits for a typing error.
    for name in targets.iter().chain(options.sources.iter().flatten()) {
        table.latencies(name)?;
    }
    let architectures = Architectures::of(table)?;
    let plan = Plan {
        algorithms: options.algorithms.clone(),
        knowledge: options.knowledge.clone(),
        budgets: options.budgets.clone(),
        samples: options.samples,
    };
    let target_of = |name: &'_ str| -> Result<Target<'_>, TabularError> {
        let name = table.devices().find(|device| *device == name).unwrap_or_default();
        let sources = options.sources.as_deref();
        Target::of(table, &architectures, &options.accuracies, sources, name)
    };
    for name in &targets {
        goals(&target_of(name)?, options)?;
    }
    let (done, total) = (AtomicUsize::new(0), targets.len() * options.seeds as usize);
    let mut rows = Vec::new();
    for name in &targets {
        let target = target_of(name)?;
        let goals = goals(&target, options)?;
        let failed = |source| TabularError::Predictor { target: name.clone(), source };
        let draws: Vec<Vec<Outcome>> = (0..options.seeds)
            .into_par_iter()
            .map(|seed| {
                if stop.load(Ordering::Relaxed) {
                    return Err(TabularError::Interrupted);
                }
                let outcomes = draw(&target, &goals, &plan, seed).map_err(failed)?;
                progress(1 + done.fetch_add(1, Ordering::Relaxed), total);
                Ok(outcomes)
            })
            .collect::<Result<_, TabularError>>()?;
        rows.extend(summarised(&target, &goals, &plan, &draws));
    }
    Ok(SearchBenchmark { summary: SearchSummary::of(&rows), rows })
}

/// Whether a column has any latency at all.
fn is_any_known(table: &LatencyTable, device: &str) -> bool {
    table.latencies(device).is_ok_and(|latencies| latencies.iter().any(Option::is_some))
}

fn check(table: &LatencyTable, options: &SearchOptions) -> Result<(), TabularError> {
    let wrong = |reason: String| Err(TabularError::Options { reason });
    if options.seeds == 0 {
        return wrong("at least one seed is needed, got 0".into());
    }
    if options.budgets.is_empty() || options.budgets.contains(&0) {
        return wrong(
            "a budget is a number of evaluated architectures from 1, as in --budgets 50,200".into(),
        );
    }
    if options.samples < LEAST_SAMPLES {
        let got = options.samples;
        return wrong(format!(
            "a latency predictor needs at least {LEAST_SAMPLES} measurements, got --samples {got}"
        ));
    }
    if options.algorithms.is_empty() || options.knowledge.is_empty() {
        return wrong("at least one algorithm and one source of latencies are needed".into());
    }
    if let Some(limits) = &options.limits_ms {
        if limits.is_empty() {
            return wrong("at least one limit is needed; leave --limits-ms out for five quantiles".into());
        }
        if let Some(limit) = limits.iter().find(|limit| !limit.is_finite() || **limit <= 0.0) {
            return wrong(format!("a limit is a positive number of milliseconds, got {limit}"));
        }
    }
    let rows = table.codes().len();
    if options.accuracies.len() != rows {
        return wrong(format!("{rows} rows came with {} accuracies", options.accuracies.len()));
    }
    Ok(())
}

/// The limits of a target, and its whole front.
fn goals(target: &Target<'_>, options: &SearchOptions) -> Result<Vec<Goal>, TabularError> {
    let rows = target.latencies.len();
    let budget = options.budgets.iter().copied().max().unwrap_or(0);
    if rows < budget.max(options.samples + 1) {
        let (target, samples) = (target.name.to_owned(), options.samples);
        return Err(TabularError::TooShort { target, rows, budget, samples });
    }
    let mut sorted = target.latencies.clone();
    sorted.sort_by(f64::total_cmp);
    let limits = match &options.limits_ms {
        Some(limits) => limits.clone(),
        None => QUANTILES.map(|share| sorted[((rows - 1) as f64 * share) as usize]).to_vec(),
    };
    if let Some(&limit_ms) = limits.iter().find(|limit| **limit < sorted[0]) {
        let (target, fastest_ms) = (target.name.to_owned(), sorted[0]);
        return Err(TabularError::Limit { target, limit_ms, fastest_ms });
    }
    Ok(limits.into_iter().map(Goal::Limit).chain([Goal::Front]).collect())
}

fn summarised(target: &Target<'_>, goals: &[Goal], plan: &Plan, draws: &[Vec<Outcome>]) -> Vec<SearchRow> {
    let mut rows = Vec::new();
    for &goal in goals {
        let limit_ms = if let Goal::Limit(limit_ms) = goal { Some(limit_ms) } else { None };
        let meeting =
            |limit: f64| target.latencies.iter().filter(|latency| **latency <= limit).count() as f64;
        let optimum = target.optimum(limit_ms.unwrap_or(f64::INFINITY));
        let reference = reference(target, goal);
        for &latency in &plan.knowledge {
            for &algorithm in &plan.algorithms {
                for &budget in &plan.budgets {
                    let index = rows.len();
                    let outcomes: Vec<Outcome> = draws.iter().map(|draw| draw[index]).collect();
                    let row = SearchRow {
                        target: target.name.to_owned(),
                        limit_ms,
                        meet_the_limit: limit_ms.map(|limit| meeting(limit) / target.latencies.len() as f64),
                        algorithm,
                        latency,
                        budget,
                        evaluations: 0.0,
                        measurements: 0.0,
                        seeds: draws.len() as u64,
                        optimum: optimum.map_or(0.0, |row| target.accuracies[row]),
                        accuracy: None,
                        regret: None,
                        broken: None,
                        broken_by_5_percent: None,
                        hypervolume: SearchRow::NOTHING,
                        reference: Reference { latency_ms: reference[0], accuracy: -reference[1] },
                    };
                    rows.push(row.with(&outcomes));
                }
            }
        }
    }
    rows
}
