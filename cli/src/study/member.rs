//! One run of a study.

use std::{fs, path::PathBuf, sync::Arc};

use lathe_latency_db::{CostTable, TableHeader};
use lathe_search::{Dataset, Event, RunRecord, Stage, StopReason, share_warm_up};
use lathe_spaces::{Genotype, Micros};
use miette::Report;

use super::{Approach, Study, done, ending};
use crate::{
    config::{Config, Counted, LimitConfig},
    failure::failed,
    run::{Run, now},
    run_directory::RunDirectory,
    stages::fit,
};

/// Folder of the run that measures for all.
const MEASURED: &str = "measured";

/// What was measured and fitted once, for all members.
pub struct Measured {
    directory: PathBuf,
    /// Name of its rows in the database.
    pub campaign: String,
    seed: u64,
    /// Its record.
    pub events: Vec<Event>,
    /// Targets on the first device.
    pub targets: Vec<Micros>,
    /// Per target the limit on multiply-accumulates that is as strict.
    pub macs: Vec<f64>,
}

/// A member: where it lies and what it is held to.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Number of the seed, from 0.
    pub seed: usize,
    /// How it finds its network.
    pub approach: Approach,
    /// Target that it stands for.
    pub target: Option<Micros>,
    /// Limit on multiply-accumulates, in place of the target.
    macs: Option<f64>,
    /// Whether baselines are trained with it.
    baselines: bool,
}

/// Measures and fits, unless it is done.
pub fn measured(study: &Study<'_>, images: &Arc<Dataset>) -> Result<Result<Measured, StopReason>, Report> {
    let mut config = study.config.clone();
    config.directory = study.config.directory.join(MEASURED);
    (config.objective.target_ms, config.objective.target_quantile) = (None, None);
    let directory = open(study, &config)?;
    let mut run = Run::new(config, directory, study.terminal, study.stop).on_images(Arc::clone(images));
    for stage in [Stage::Measure, Stage::Fit] {
        if let Err(reason) = done(run.stage(stage)?) {
            return Ok(Err(reason));
        }
    }
    let path = run.path(fit::TABLE);
    let (_, header) = CostTable::load(&path).map_err(failed)?;
    let mut points = Vec::new();
    for (name, genotype) in run.fit_networks() {
        let measured = header.quality.points.iter().find(|point| point.label == name);
        if let Some(point) = measured {
            let macs = run.network(&name, &genotype)?.graph.macs() as f64;
            points.push((macs, point.measured.median.0));
        }
    }
    let targets = targets(study, &header)?;
    if points.is_empty() && study.plan.compare.contains(&Approach::Macs) {
        return Err(miette::miette!(
            help = "measure some (`measure.networks`), or leave out `--compare macs`",
            "failed to turn targets into multiply-accumulates: no network was measured"
        ));
    }
    let macs = targets.iter().map(|target| as_strict(*target, &points)).collect();
    Ok(Ok(Measured {
        directory: run.directory.path.clone(),
        campaign: run.campaign(Stage::Measure),
        seed: study.config.seed,
        events: run.directory.record.events().to_vec(),
        targets,
        macs,
    }))
}

/// The targets, those that are quantiles of what was measured among them.
fn targets(study: &Study<'_>, header: &TableHeader) -> Result<Vec<Micros>, Report> {
    let mut measured: Vec<Micros> = header.quality.points.iter().map(|point| point.measured.median).collect();
    measured.sort_by(Micros::total_cmp);
    let mut targets: Vec<Micros> = study.plan.targets_ms.iter().copied().map(Micros::from_millis).collect();
    for quantile in &study.plan.quantiles {
        let last = measured.len().checked_sub(1).ok_or_else(|| {
            miette::miette!(
                help = "measure some networks (`measure.networks`), or give targets in milliseconds",
                "failed to settle the targets: no network was measured"
            )
        })?;
        targets.push(measured[(quantile * last as f64).round() as usize]);
    }
    targets.sort_by(Micros::total_cmp);
    targets.dedup();
    Ok(targets)
}

/// The limit on multiply-accumulates that as many of the measured networks keep as keep the target. Beyond the fastest
/// or slowest of them it goes on in proportion. `points`: multiply-accumulates and microseconds.
fn as_strict(target: Micros, points: &[(f64, f64)]) -> f64 {
    let sorted = |value: &dyn Fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = points.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (macs, times) = (sorted(&|point| point.0), sorted(&|point| point.1));
    let keep = times.iter().filter(|time| **time <= target.0).count();
    match (keep, times.first(), times.last()) {
        (0, Some(fastest), _) => macs[0] * target.0 / fastest,
        (keep, _, Some(slowest)) if keep == times.len() => macs[keep - 1] * target.0 / slowest,
        _ => macs.get(keep.wrapping_sub(1)).copied().unwrap_or(f64::NAN),
    }
}

/// All members, in the order in which they are run.
pub fn all(study: &Study<'_>, measured: &Measured) -> Vec<Member> {
    let plan = &study.plan;
    let mut members = Vec::new();
    for seed in 0..plan.seeds {
        let mut of_seed = Vec::new();
        let mut add = |approach, target, macs| {
            of_seed.push(Member { seed, approach, target, macs, baselines: false });
        };
        if plan.compare.contains(&Approach::Unconstrained) || !plan.has_targets() {
            add(Approach::Unconstrained, None, None);
        }
        for (index, &target) in measured.targets.iter().enumerate() {
            add(Approach::Latency, Some(target), None);
            if plan.compare.contains(&Approach::Macs) {
                add(Approach::Macs, Some(target), measured.macs.get(index).copied());
            }
        }
        if plan.evolve.is_some() {
            for &target in &measured.targets {
                add(Approach::Evolved, Some(target), None);
            }
        }
        if let Some(first) = of_seed.first_mut() {
            first.baselines = true;
        }
        members.append(&mut of_seed);
    }
    members
}

impl Measured {
    /// Lets a member begin with what was measured, unless it did before.
    pub fn give(&self, run: &mut Run<'_>) -> Result<(), Report> {
        if run.directory.record.finished(Stage::Measure) {
            return Ok(());
        }
        let names: Vec<String> = run.devices().into_iter().map(|device| device.name).collect();
        for event in &self.events {
            match event {
                Event::Device { .. } => run.push(event.clone())?,
                Event::OtherDevice { name, .. } if names.contains(name) => run.push(event.clone())?,
                _ => {}
            }
        }
        run.push(Event::Shared {
            from: self.directory.clone(),
            campaign: self.campaign.clone(),
            seed: self.seed,
        })?;
        run.push(Event::StageStarted { stage: Stage::Measure, at: now() })?;
        run.push(Event::StageFinished { stage: Stage::Measure, at: now(), seconds: 0.0 })
    }
}

impl Member {
    /// Its name among those of its seed.
    pub fn name(&self) -> String {
        let word = self.approach.word();
        self.target.map_or_else(|| word.to_owned(), |target| format!("{word}-{:.3}ms", target.0 / 1e3))
    }

    /// For people.
    pub fn title(&self) -> String {
        let target = self.target.map(|target| format!(", {target}")).unwrap_or_default();
        format!("{}{target}, seed {}", self.approach.word(), self.seed + 1)
    }

    /// Its directory.
    pub fn directory(&self, study: &Study<'_>) -> PathBuf {
        study.config.directory.join(format!("seed-{}", self.seed + 1)).join(self.name())
    }

    /// Its configuration.
    pub fn config(&self, study: &Study<'_>) -> Config {
        let mut config = study.config.clone();
        config.name = format!("{} {} {}", config.name, self.name(), self.seed + 1);
        config.directory = self.directory(study);
        config.seed += self.seed as u64;
        let objective = &mut config.objective;
        (objective.target_ms, objective.target_quantile) = (None, None);
        match self.approach {
            Approach::Latency | Approach::Evolved => {
                objective.target_ms = self.target.map(|target| target.0 / 1e3);
            }
            Approach::Macs | Approach::Unconstrained => {
                objective.device.clear();
                objective.measure_every_epochs = None;
            }
        }
        if let Some(at_most) = self.macs {
            objective.limit.retain(|limit| limit.quantity != Counted::Macs);
            objective.limit.push(LimitConfig { quantity: Counted::Macs, at_most });
        }
        if !self.baselines {
            (config.baselines.random, config.baselines.preselected) = (0, 0);
            config.baselines.published.clear();
        }
        config
    }

    /// Opens its run.
    pub fn open(&self, study: &Study<'_>, images: &Arc<Dataset>) -> Result<Run<'static>, Report> {
        let config = self.config(study);
        let directory = open(study, &config)?;
        Ok(Run::new(config, directory, study.terminal, study.stop).on_images(Arc::clone(images)))
    }

    /// Its record, empty if it was not begun.
    pub fn events(&self, study: &Study<'_>) -> Result<Vec<Event>, Report> {
        let path = self.directory(study).join("record.jsonl");
        if !path.is_file() {
            return Ok(Vec::new());
        }
        Ok(RunRecord::open(&path).map_err(failed)?.events().to_vec())
    }

    /// Whether nothing is left to do.
    pub fn ended(&self, study: &Study<'_>) -> Result<bool, Report> {
        Ok(ending(&self.events(study)?).is_some())
    }

    /// Lets its search begin after the warm-up of another member of the same seed.
    pub fn share_warm_up(&self, study: &Study<'_>, members: &[Self]) -> Result<(), Report> {
        let folder = |member: &Self| member.directory(study).join("checkpoint").join("search");
        let to = folder(self);
        if to.join("checkpoint.safetensors").exists() {
            return Ok(());
        }
        for other in members.iter().filter(|other| other.seed == self.seed && *other != self) {
            if share_warm_up(&folder(other), &to).map_err(failed)? {
                study.terminal.say(&format!("      the warm-up is that of {}", other.name()));
                break;
            }
        }
        Ok(())
    }

    /// The networks that it trained: name and genotype, the one it found first.
    pub fn networks(&self, study: &Study<'_>) -> Result<Vec<(String, Genotype)>, Report> {
        let space = study.config.space();
        let mut networks = Vec::new();
        for event in self.events(study)? {
            if let Event::Candidate { name, genotype, .. } = event {
                networks.push((name, space.parse(&genotype).map_err(failed)?));
            }
        }
        Ok(networks)
    }
}

/// Opens the directory of a run of the study, new or not.
fn open(study: &Study<'_>, config: &Config) -> Result<RunDirectory, Report> {
    fs::create_dir_all(&config.directory)
        .map_err(|error| miette::miette!("failed to create {}: {error}", config.directory.display()))?;
    RunDirectory::open(study.file, config, true).map_err(failed)
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_limit_on_operations_is_as_strict_as_the_target() {
        let points = [(10.0, 3.0), (30.0, 1.0), (20.0, 2.0), (40.0, 4.0)];
        let limit = |micros| as_strict(Micros(micros), &points);
        // Two of four networks take 2.5 µs or less; two of four need 20 or fewer operations.
        assert_eq!(limit(2.5), 20.0);
        assert_eq!(limit(1.0), 10.0);
        assert_eq!(limit(0.5), 5.0, "twice as fast as the fastest: half of the least");
        assert_eq!(limit(8.0), 80.0, "twice the slowest");
        assert!(as_strict(Micros(1.0), &[]).is_nan());
    }
}
