//! A search that is under way: its epochs.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tch::{Device, Kind, Tensor};

use super::{
    Progress, SearchError, SearchTask,
    guard::Past,
    held::Held,
    policy::BETAS,
    state::{Position, Sums, identity},
};
use crate::{
    Augmentation, Loader, Method, RecordError, Split,
    constraint::Schedule,
    derive_unconstrained,
    distributed::{CollectiveError, Share},
    halves::halves,
    objective::Costs,
    optimizer::{Adam, Sgd},
    regressor::{LEAST, Regressor},
    resident::Resident,
    supernet::{Architecture, Model},
};

/// Longest time that a killed process loses.
const CHECKPOINT_INTERVAL: Duration = Duration::from_mins(2);

pub(super) struct Run<'a> {
    pub task: &'a SearchTask<'a>,
    pub model: Model<f32>,
    pub architecture: Architecture,
    pub sgd: Sgd,
    pub adam: Adam,
    /// Costs of the first device, for the record.
    pub costs: Option<Costs>,
    pub held: Option<Held>,
    /// What no sum of parts says, where the method asks for it.
    pub regressor: Option<Regressor>,
    /// Of the policy's rewards the running mean, and how many there were.
    pub baseline: Tensor,
    pub schedule: Schedule,
    /// The training images, where they are worked on; none on the processor.
    pub resident: Option<Rc<Resident>>,
    /// Indices of the training images: weights, architecture.
    pub halves: [Vec<usize>; 2],
    pub identity: BTreeMap<String, String>,
    pub position: Position,
    pub sums: Sums,
    /// What the epochs of the warm-up came to.
    pub warmed: Vec<(Position, Sums)>,
    /// What every epoch left behind.
    pub past: Vec<Past>,
}

/// The regressor of a task whose method has one.
fn regressor(task: &SearchTask<'_>) -> Result<Option<Regressor>, SearchError> {
    if task.objective.method != Method::Regressor {
        return Ok(None);
    }
    let limits = super::held::limits(task)?;
    let Some(limit) = limits.first().filter(|_| task.measured.len() >= LEAST) else {
        return Err(SearchError::Setting {
            what: "measured networks for the method `regressor`",
            got: task.measured.len().to_string(),
            expected: format!("at least {LEAST}, and a target; hint: raise `measure.networks`"),
        });
    };
    let regressor = Regressor::fit(task.space, limit, task.measured, task.seed);
    let [by_sum, by_both] = regressor.errors.map(|error| error * 100.0);
    tracing::info!(by_sum, by_both, "median error on held-out networks, %: sum of parts, with the regressor");
    Ok(Some(regressor))
}

impl<'a> Run<'a> {
    pub(super) fn new(task: &'a SearchTask<'a>) -> Result<Self, SearchError> {
        let model = Model::new(task.space, task.supernet, task.seed, task.threads, task.collective.clone())?;
        let mut architecture = Architecture::new(task.space, Kind::Float, task.seed)?;
        architecture.move_to(model.device());
        let sgd = Sgd::new(&model.parameters().flat);
        let adam = match task.objective.method {
            Method::Reinforce => Adam::with(&architecture.flat, BETAS),
            _ => Adam::new(&architecture.flat),
        };
        Ok(Self {
            task,
            sgd,
            adam,
            costs: task.table.map(|table| Costs::new(task.space, table)),
            regressor: regressor(task)?,
            held: Held::new(task)?,
            baseline: Tensor::from_slice(&[0.0f64, 0.0]),
            schedule: Schedule::new(&task.settings, &task.objective),
            resident: (model.device() != Device::Cpu)
                .then(|| Resident::upload(&task.dataset, Split::Train, model.device()))
                .flatten(),
            halves: halves(&task.dataset, task.seed),
            identity: identity(task),
            position: Position::default(),
            sums: Sums::default(),
            warmed: Vec::new(),
            past: Vec::new(),
            model,
            architecture,
        })
    }

    /// One epoch, or what is left of it; false if it was stopped.
    pub(super) fn epoch(
        &mut self,
        sink: &mut dyn FnMut(Progress) -> Result<(), RecordError>,
    ) -> Result<bool, SearchError> {
        let Self { task, .. } = *self;
        let settings = &task.settings;
        let epoch = self.position.epoch;
        let learns = epoch >= settings.warmup_epochs;
        let draws = task.objective.method == Method::Reinforce;
        let steps = self.halves[0].len().div_ceil(settings.batch);
        let mut weights = self.loader(0, "search weights");
        let mut architecture = learns.then(|| self.loader(1, "search architecture"));
        // The order of an epoch's images depends on nothing but seed and epoch: pass over what was done.
        for _ in 0..self.position.step {
            weights.next();
            if let Some(loader) = &mut architecture {
                loader.next();
            }
        }
        let waited = |weights: &Loader, architecture: &Option<Loader>| {
            (weights.waited() + architecture.as_ref().map_or(Duration::ZERO, Loader::waited)).as_secs_f64()
        };
        let waited_before = waited(&weights, &architecture);
        let began = Instant::now();
        let before = self.sums;
        let mut saved = Instant::now();
        while self.position.step < steps {
            let step = self.position.step;
            let stop = self.anybody(task.stop.load(Ordering::Relaxed))?;
            if stop || saved.elapsed() > CHECKPOINT_INTERVAL {
                self.save()?;
                saved = Instant::now();
            }
            if stop {
                return Ok(false);
            }
            let images = |half| SearchError::Images { half, step, steps };
            let device = self.model.device();
            let batch = weights.next().ok_or_else(|| images("weights"))?.to_device(device);
            if let Some(loader) = &mut architecture {
                let held_out = loader.next().ok_or_else(|| images("architecture"))?.to_device(device);
                if draws {
                    self.policy_step(&held_out, steps)?;
                } else {
                    self.architecture_step(&held_out, &batch, step as f64 / steps as f64)?;
                }
            }
            let drawn = draws.then(|| self.draw("drawn weights", &self.architecture.scores(), steps));
            let only = drawn.map(|drawn| self.only(&drawn)).transpose()?;
            let loss = self.weight_step(&batch, only.as_ref())?;
            self.position.step += 1;
            self.sums.seconds = before.seconds + began.elapsed().as_secs_f64();
            self.sums.waited = before.waited + waited(&weights, &architecture) - waited_before;
            let (done, total) = (epoch * steps + self.position.step, settings.epochs * steps);
            sink(Progress::Step { done, total, loss })?;
        }
        self.probe()?;
        let eigenvalue = self.curvature()?;
        // The record first: an epoch that is told twice is dropped there, one never told is lost.
        sink(Progress::Event(self.event(eigenvalue)))?;
        let stop = self.remember(eigenvalue);
        if let Some(stop) = &stop {
            sink(Progress::Event(self.stop_early(stop)))?;
        }
        if !learns {
            self.warmed.push((self.position.clone(), self.sums));
        }
        let next = if stop.is_some() { settings.epochs } else { epoch + 1 };
        self.position = Position { epoch: next, adam_steps: self.adam.steps, ..Position::default() };
        self.sums = Sums::default();
        self.save()?;
        if epoch + 1 == settings.warmup_epochs {
            self.save_warm_up()?;
        }
        Ok(true)
    }

    /// Has the network that would be derived now measured, if it is time to, and corrects the expectation by
    /// what its prediction was wrong by.
    fn probe(&mut self) -> Result<(), SearchError> {
        let (task, epoch) = (self.task, self.position.epoch);
        let Some(every) = task.objective.measure_every_epochs else { return Ok(()) };
        let done = epoch + 1;
        // The last epoch has nothing left to correct: what is derived then is measured anyway.
        let due = done > task.settings.warmup_epochs
            && done < task.settings.epochs
            && (done - task.settings.warmup_epochs).is_multiple_of(every);
        let Some(count) = self.held.as_ref().map(|held| held.limits.len()).filter(|_| due) else {
            return Ok(());
        };
        let genotype = derive_unconstrained(task.space, &self.architecture.scores());
        let mut measured = vec![None; count];
        if let Some(probe) = task.probe.filter(|_| self.first()) {
            match probe.measure(epoch, &genotype) {
                Ok(values) => measured = values,
                Err(reason) => tracing::warn!(epoch, reason, "the device was not measured in this epoch"),
            }
        }
        // The first process tells the others: a value and whether there is one.
        let mut told = Vec::new();
        for index in 0..count {
            let value = measured.get(index).copied().flatten();
            let [value, known] = self.total([value.unwrap_or(0.0), f64::from(u8::from(value.is_some()))])?;
            told.push((known > 0.5).then_some(value));
        }
        let beyond = self.beyond_of(&genotype);
        if let Some(held) = self.held.as_mut().filter(|_| told.iter().any(Option::is_some)) {
            held.correct(task.space, &genotype, beyond, &told);
        }
        Ok(())
    }

    fn loader(&self, half: usize, purpose: &str) -> Loader {
        let task = self.task;
        let augmentation = Augmentation {
            crop_padding: task.dataset.resolution / 8,
            flip: true,
            cutout: task.settings.cutout,
        };
        let loader = Loader::new(
            Arc::clone(&task.dataset),
            Split::Train,
            self.halves[half].clone(),
            task.settings.batch,
            augmentation,
            Some((task.seed, purpose, self.position.epoch as u64)),
            false,
        )
        .share(task.collective.as_deref().map_or(Share::WHOLE, Share::from));
        match &self.resident {
            Some(images) => loader.resident(Rc::clone(images)),
            None => loader,
        }
    }

    /// Sums over the processes.
    pub(super) fn total<const N: usize>(&self, mut values: [f64; N]) -> Result<[f64; N], CollectiveError> {
        if let Some(collective) = &self.task.collective {
            collective.sum(&mut values)?;
        }
        Ok(values)
    }

    /// Whether any process says so.
    pub(super) fn anybody(&self, says: bool) -> Result<bool, CollectiveError> {
        Ok(self.total([if says { 1.0 } else { 0.0 }])?[0] > 0.5)
    }

    /// Whether this process keeps the checkpoint.
    pub(super) fn first(&self) -> bool {
        self.task.collective.as_ref().is_none_or(|collective| collective.rank() == 0)
    }
}
