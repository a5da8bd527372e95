//! Trains the supernet with its architecture parameters under the latency target.

use std::{
    cell::RefCell,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use lathe_latency_db::CostTable;
use lathe_search::{
    Collective, Dataset, Event, Limit, Probe, Progress, SearchEnd, SearchTask, StopReason, search,
};
use lathe_spaces::{Genotype, Micros, Space};
use miette::Report;
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    failure::failed,
    run::{Bred, Run, StageEnd, load_images},
    run_directory::write_atomically,
    stages::{limits, paths, probe::Prepared},
    terminal::Terminal,
};

/// Name of the final architecture parameters in a run's directory.
pub const SCORES: &str = "scores.json";

/// What the first process of a shared search tells the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// The search is finished already.
    Nothing,
    /// Take part in it.
    Search {
        /// What the fit found.
        table: Box<CostTable>,
        /// What the fit settled.
        target: Option<Micros>,
        /// Further limits.
        limits: Vec<Limit>,
        /// Whole networks that were measured.
        measured: Vec<(Genotype, Micros)>,
    },
}

impl Task {
    /// Tells it to the other processes.
    pub fn tell(&self, collective: &dyn Collective) -> Result<(), Report> {
        let text = serde_json::to_string(self).map_err(failed)?;
        lathe_search::tell(collective, &text).map_err(failed)?;
        Ok(())
    }
}

/// Takes part in a search whose run another process keeps; returns whether it was finished.
pub fn follow(
    config: &Config,
    collective: Arc<dyn Collective>,
    terminal: Terminal,
    stop: &AtomicBool,
) -> Result<bool, Report> {
    let text = lathe_search::tell(collective.as_ref(), "").map_err(failed)?;
    let task = serde_json::from_str(&text).map_err(|error| {
        miette::miette!(
            help = "start all processes with the same lathe",
            "failed to understand what the first process says: {error}"
        )
    })?;
    let Task::Search { table, target, limits, measured } = task else { return Ok(true) };
    let space = config.space();
    let task = SearchTask {
        space: &space,
        dataset: load_images(config, terminal)?,
        supernet: config.supernet,
        settings: config.search,
        objective: config.objective(target),
        table: Some(&table),
        limits: &limits,
        measured: &measured,
        probe: None,
        seed: config.seed,
        threads: config.threads,
        collective: Some(collective),
        // Only the first process reads or writes there.
        checkpoint: &config.directory,
        stop,
    };
    let end = search(&task, &mut |_| Ok(())).map_err(failed)?;
    Ok(matches!(end, SearchEnd::Finished(_)))
}

/// What a search of a run works with.
pub struct Inputs {
    table: CostTable,
    dataset: Arc<Dataset>,
    /// Directory of its checkpoint.
    pub checkpoint: PathBuf,
    target: Option<Micros>,
    limits: Vec<Limit>,
    measured: Vec<(Genotype, Micros)>,
}

impl Inputs {
    /// Of a run whose predictor is fitted.
    pub fn of(run: &Run<'_>) -> Result<Self, Report> {
        let (target, limits) = limits::of_search(run)?;
        let (table, dataset, checkpoint) = (run.table()?, run.dataset()?, run.checkpoint("search")?);
        Ok(Self { table, dataset, checkpoint, target, limits, measured: measured(run) })
    }

    /// The search of a run of this configuration, by itself and without measurements on the way.
    pub fn task<'a>(&'a self, config: &Config, space: &'a Space, stop: &'a AtomicBool) -> SearchTask<'a> {
        SearchTask {
            space,
            dataset: Arc::clone(&self.dataset),
            supernet: config.supernet,
            settings: config.search,
            objective: config.objective(self.target),
            table: Some(&self.table),
            limits: &self.limits,
            measured: &self.measured,
            probe: None,
            seed: config.seed,
            threads: config.threads,
            collective: None,
            checkpoint: &self.checkpoint,
            stop,
        }
    }
}

/// The networks behind the fit, with what they took on the first device.
fn measured(run: &Run<'_>) -> Vec<(Genotype, Micros)> {
    let points = run.directory.record.events().iter().find_map(|event| match event {
        Event::Fitted { quality, .. } => Some(&quality.points),
        _ => None,
    });
    let time =
        |name: &str| points?.iter().find(|point| point.label == name).map(|point| point.measured.median);
    let networks = run.fit_networks().into_iter();
    networks.filter_map(|(name, genotype)| Some((genotype, time(&name)?))).collect()
}

/// The stage.
pub fn run(run: &mut Run<'_>) -> Result<StageEnd, Report> {
    if let Some(bred) = run.bred.clone() {
        let Bred { supernet, evaluations, images, front } = bred;
        run.push(Event::Bred { supernet, evaluations, images, front })?;
        return Ok(StageEnd::Done);
    }
    if let Some(paths) = run.config.paths {
        return paths::run(run, &paths);
    }
    let inputs = Inputs::of(run)?;
    let probe = run.config.objective.measure_every_epochs.map(|_| Prepared::new(run, &limits::all(run)?));
    let probe = probe.transpose()?;
    if let Some(collective) = &run.collective {
        let Inputs { table, target, limits, measured, .. } = &inputs;
        let (limits, measured) = (limits.clone(), measured.clone());
        Task::Search { table: Box::new(table.clone()), target: *target, limits, measured }
            .tell(collective.as_ref())?;
    }
    let mut bar = run.terminal.bar("search", 0);
    let record = RefCell::new(&mut run.directory.record);
    let probe = probe.map(|probe| probe.with(&record));
    let task = SearchTask {
        probe: probe.as_ref().map(|probe| probe as &dyn Probe),
        collective: run.collective.clone(),
        ..inputs.task(&run.config, &run.space, run.stop)
    };
    let end = search(&task, &mut |progress| {
        match progress {
            Progress::Step { done, total, loss } => bar.set(done, total, &format!("loss {loss:.3}")),
            Progress::Event(event) => {
                if let Event::Epoch { epoch, epochs, train_accuracy, derived, lambda, .. } = &event {
                    let derived = derived.map_or_else(String::new, |time| format!(", derived {time}"));
                    bar.say(&format!(
                        "      epoch {}/{epochs}: accuracy {:.1} %{derived}, λ {lambda:.2}",
                        epoch + 1,
                        train_accuracy * 100.0
                    ));
                }
                if let Event::SearchStopped { epoch, criterion, value, limit, kept } = &event {
                    bar.say(&format!(
                        "      stopped after epoch {} ({criterion}: {value:.2}, limit {limit:.2}); α and β are those of epoch {}",
                        epoch + 1,
                        kept + 1
                    ));
                }
                record.borrow_mut().push(event)?;
            }
        }
        Ok(())
    })
    .map_err(failed)?;
    bar.done();
    match end {
        SearchEnd::Interrupted => Ok(StageEnd::Stop(StopReason::Interrupted)),
        SearchEnd::Finished(scores) => {
            let text = serde_json::to_string_pretty(&scores)
                .map_err(|error| miette::miette!("failed to write the scores: {error}"))?;
            write_atomically(&run.path(SCORES), text.as_bytes()).map_err(failed)?;
            Ok(StageEnd::Done)
        }
    }
}
