//! The search: weights and architecture parameters take turns, under a latency target.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lathe_latency_db::CostTable;
use lathe_spaces::{Micros, Space, Stream};
use rand::seq::SliceRandom as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Reduction, Tensor, no_grad};
use thiserror::Error;

use crate::{
    Augmentation, Batch, Dataset, DeriveError, Event, Loader, ObjectiveSettings, RecordError, Scores,
    SearchSettings, Split, SupernetSettings,
    checkpoint::{self, CheckpointError},
    constraint::{Schedule, ascend},
    derive, derive_unconstrained,
    distributed::{Collective, CollectiveError, Share, agree},
    objective::{Costs, expected},
    optimizer::{Adam, Sgd, SgdStep, cosine},
    relaxed_latency::RelaxedLatency,
    resident::Resident,
    supernet::{Architecture, Learn, Model, SupernetError},
    unrolled::{DISTANCE, Unrolled, look_ahead},
};

/// Longest time that a killed process loses.
const CHECKPOINT_INTERVAL: Duration = Duration::from_mins(2);

/// What to search, with what, and where to keep the state.
#[derive(Clone, Debug)]
pub struct SearchTask<'a> {
    /// Space of normal and reduction cells.
    pub space: &'a Space,
    /// Images; half of the training images train the weights, the other half the architecture.
    pub dataset: Arc<Dataset>,
    /// Size of the supernet.
    pub supernet: SupernetSettings,
    /// Schedule.
    pub settings: SearchSettings,
    /// Latency target.
    pub objective: ObjectiveSettings,
    /// Costs at deployment widths; needed if there is a target.
    pub table: Option<&'a CostTable>,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads of libtorch; the result depends on them in the last bits.
    pub threads: usize,
    /// The other processes that train the same network, each with its share of every batch; the first one
    /// alone reads and writes the checkpoint. The result depends on their number in the last bits.
    pub collective: Option<Arc<dyn Collective>>,
    /// Directory of the checkpoint.
    pub checkpoint: &'a Path,
    /// Set to end after the running step.
    pub stop: &'a AtomicBool,
}

/// What a training tells while it runs.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a step takes far longer than moving it")]
pub enum Progress {
    /// A step was made.
    Step {
        /// Steps done, over all epochs.
        done: usize,
        /// Steps in all.
        total: usize,
        /// Loss of the weights on this step's batch.
        loss: f64,
    },
    /// A line for the record.
    Event(Event),
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq)]
pub enum SearchEnd {
    /// All epochs are done.
    Finished(Scores),
    /// Stopped by [`SearchTask::stop`]; the same call goes on from the checkpoint.
    Interrupted,
}

/// Why a search failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The supernet can't be built.
    #[error("search: {0}")]
    Supernet(#[from] SupernetError),
    /// The other processes can't be reached.
    #[error("search: {0}")]
    Collective(#[from] CollectiveError),
    /// The first process could not begin; its own error says why.
    #[error("search: the first process could not begin; hint: its output says why")]
    First,
    /// The checkpoint can't be written or read.
    #[error("search: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The record can't be written.
    #[error("search: {0}")]
    Record(#[from] RecordError),
    /// The target can't be met, or the cost table does not fit.
    #[error("search: {0}")]
    Derive(#[from] DeriveError),
    /// A setting that makes no sense.
    #[error("search: {what} = {got}, expected {expected}")]
    Setting {
        /// Setting.
        what: &'static str,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// A checkpoint of another search.
    #[error("resume the search from `{}`: it was begun with another {keys}; hint: restore that, or use another run directory", path.display())]
    OtherSearch {
        /// Directory of the checkpoint.
        path: PathBuf,
        /// What differs.
        keys: String,
    },
    /// The loss is infinite or not a number.
    #[error(
        "search: the loss of the {half} is {loss} at step {step} of epoch {epoch}; hint: lower the learning rate"
    )]
    Diverged {
        /// `weights` or `architecture`.
        half: &'static str,
        /// Epoch, from 0.
        epoch: usize,
        /// Step, from 0.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// The loader gave fewer batches than there are.
    #[error("search: the images of the {half} ended at step {step} of {steps}")]
    Images {
        /// `weights` or `architecture`.
        half: &'static str,
        /// Step, from 0.
        step: usize,
        /// Steps of an epoch.
        steps: usize,
    },
}

/// Trains the supernet and its architecture parameters; resumes from the checkpoint if there is one.
///
/// Each step first moves α and β on a batch of the architecture half (Adam; not during the warm-up; of
/// first order, or of second where the settings say so), then the weights on a batch of the other half (SGD). With a target, the architecture's loss is
/// cross-entropy + λ·(E/T − 1), where E is [`expected_latency`](crate::expected_latency) and T what
/// the table's mean may be so that the upper bound keeps the target: derivation asks for that bound.
/// The same task gives the same scores, interrupted or not.
pub fn search(
    task: &SearchTask,
    sink: &mut dyn FnMut(Progress) -> Result<(), RecordError>,
) -> Result<SearchEnd, SearchError> {
    check(task)?;
    tch::set_num_threads(task.threads as i32);
    let mut run = Run::new(task)?;
    run.restore()?;
    while run.position.epoch < task.settings.epochs {
        if !run.epoch(sink)? {
            return Ok(SearchEnd::Interrupted);
        }
    }
    Ok(SearchEnd::Finished(run.architecture.scores()))
}

/// Where a search is: with the tensors all that a checkpoint holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Position {
    epoch: usize,
    step: usize,
    adam_steps: i32,
    images: usize,
    correct: usize,
    arch_images: usize,
    arch_correct: usize,
}

/// Numbers that a checkpoint must give back to the last bit; they travel as a tensor.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    lambda: f64,
    loss: f64,
    arch_loss: f64,
    seconds: f64,
    waited: f64,
}

#[derive(Serialize, Deserialize)]
struct State {
    /// Per input of the task its digest.
    identity: BTreeMap<String, String>,
    position: Position,
}

/// Latency in the loss.
struct Latency {
    relaxed: RelaxedLatency,
    costs: Costs,
    /// Where the target starts and ends, in microseconds of the table's mean; `None` without a target.
    target: Option<[f64; 2]>,
}

struct Run<'a> {
    task: &'a SearchTask<'a>,
    model: Model<f32>,
    architecture: Architecture,
    sgd: Sgd,
    adam: Adam,
    latency: Option<Latency>,
    schedule: Schedule,
    /// The training images, where they are worked on; none on the processor.
    resident: Option<Rc<Resident>>,
    /// Indices of the training images: weights, architecture.
    halves: [Vec<usize>; 2],
    identity: BTreeMap<String, String>,
    position: Position,
    sums: Sums,
}

impl<'a> Run<'a> {
    fn new(task: &'a SearchTask<'a>) -> Result<Self, SearchError> {
        let model = Model::new(task.space, task.supernet, task.seed, task.threads, task.collective.clone())?;
        let mut architecture = Architecture::new(task.space, Kind::Float, task.seed)?;
        architecture.move_to(model.device());
        let sgd = Sgd::new(&model.parameters().flat);
        let adam = Adam::new(&architecture.flat);
        let latency = task.table.map(|table| {
            let costs = Costs::new(task.space, table);
            let relaxed = RelaxedLatency::new(task.space, &costs);
            let mean = expected(task.space, &Scores::uniform(task.space), &costs, 1.0);
            let target = task.objective.target.map(|target| [mean, target.0 / table.upper_factor()]);
            Latency { relaxed, costs, target }
        });
        Ok(Self {
            task,
            sgd,
            adam,
            latency,
            schedule: Schedule::new(&task.settings, &task.objective),
            resident: (model.device() != Device::Cpu)
                .then(|| Resident::upload(&task.dataset, Split::Train, model.device()))
                .flatten(),
            halves: halves(&task.dataset, task.seed),
            identity: identity(task),
            position: Position::default(),
            sums: Sums::default(),
            model,
            architecture,
        })
    }

    /// One epoch, or what is left of it; false if it was stopped.
    fn epoch(
        &mut self,
        sink: &mut dyn FnMut(Progress) -> Result<(), RecordError>,
    ) -> Result<bool, SearchError> {
        let Self { task, .. } = *self;
        let settings = &task.settings;
        let epoch = self.position.epoch;
        let learns = epoch >= settings.warmup_epochs;
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
                self.architecture_step(&held_out, &batch, step as f64 / steps as f64)?;
            }
            let loss = self.weight_step(&batch)?;
            self.position.step += 1;
            self.sums.seconds = before.seconds + began.elapsed().as_secs_f64();
            self.sums.waited = before.waited + waited(&weights, &architecture) - waited_before;
            let (done, total) = (epoch * steps + self.position.step, settings.epochs * steps);
            sink(Progress::Step { done, total, loss })?;
        }
        // The record first: an epoch that is told twice is dropped there, one never told is lost.
        sink(Progress::Event(self.event()))?;
        self.position = Position { epoch: epoch + 1, adam_steps: self.adam.steps, ..Position::default() };
        self.sums = Sums { lambda: self.sums.lambda, ..Sums::default() };
        self.save()?;
        Ok(true)
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
    fn total<const N: usize>(&self, mut values: [f64; N]) -> Result<[f64; N], CollectiveError> {
        if let Some(collective) = &self.task.collective {
            collective.sum(&mut values)?;
        }
        Ok(values)
    }

    /// Whether any process says so.
    fn anybody(&self, says: bool) -> Result<bool, CollectiveError> {
        Ok(self.total([if says { 1.0 } else { 0.0 }])?[0] > 0.5)
    }

    /// Whether this process keeps the checkpoint.
    fn first(&self) -> bool {
        self.task.collective.as_ref().is_none_or(|collective| collective.rank() == 0)
    }

    /// Moves α, β and λ; only α and β get gradients. `next` is the batch that the weights move on next.
    fn architecture_step(&mut self, batch: &Batch, next: &Batch, progress: f64) -> Result<(), SearchError> {
        let (task, epoch) = (self.task, self.position.epoch);
        let second_order = task.settings.second_order;
        let mut ahead = None;
        if second_order {
            let step = self.sgd_step();
            ahead = Some(look_ahead(&mut self.model, &self.architecture, next, &self.sgd.momentum, &step)?);
        }
        let pass = self.model.forward(&batch.images, &self.architecture, Learn::Architecture, true)?;
        let cross_entropy = cross_entropy(&pass.logits, &batch.labels, batch.whole);
        let right = correct(&pass.logits, &batch.labels) as f64;
        let [value, right] = self.total([cross_entropy.double_value(&[]), right])?;
        let mut loss = cross_entropy.to_device(Device::Cpu).to_kind(Kind::Double);
        let mut lambda = self.sums.lambda;
        if let Some(Latency { relaxed, target: Some([from, to]), .. }) = &self.latency {
            let (alpha, beta) = self.architecture.rows();
            let latency = relaxed.of(&alpha, &beta, self.schedule.temperature(epoch));
            let excess = latency / self.schedule.target(epoch, progress, *from, *to) - 1.0;
            lambda = ascend(lambda, excess.double_value(&[]), &task.objective);
            loss += excess * self.sums.lambda;
        }
        self.finite("architecture", loss.double_value(&[]) + value)?;
        let mut gradient = self.model.architecture_gradient(&self.architecture, &pass, &loss)?;
        if let Some(ahead) = ahead {
            gradient += self.correction(ahead, batch, next)?;
        }
        let SearchSettings { arch_learning_rate, arch_weight_decay, .. } = task.settings;
        self.adam.step(&mut self.architecture.flat, &gradient, arch_learning_rate, arch_weight_decay);
        self.sums.lambda = lambda;
        self.sums.arch_loss += value * batch.whole as f64;
        self.position.adam_steps = self.adam.steps;
        self.position.arch_images += batch.whole;
        self.position.arch_correct += right as usize;
        Ok(())
    }

    /// What the second order adds to the gradient that was taken one step ahead; the weights are then where
    /// they were.
    fn correction(&mut self, ahead: Unrolled, batch: &Batch, next: &Batch) -> Result<Tensor, SearchError> {
        Ok(ahead.correction(&mut self.model, &self.architecture, batch, next, DISTANCE)?)
    }

    fn sgd_step(&self) -> SgdStep {
        let settings = &self.task.settings;
        let (highest, lowest) = (settings.learning_rate, settings.learning_rate_min);
        SgdStep {
            learning_rate: cosine(highest, lowest, self.position.epoch, settings.epochs),
            momentum: settings.momentum,
            weight_decay: settings.weight_decay,
            clip: settings.gradient_clip,
        }
    }

    /// Moves the weights; only they get gradients. Returns the loss.
    fn weight_step(&mut self, batch: &Batch) -> Result<f64, SearchError> {
        let pass = self.model.forward(&batch.images, &self.architecture, Learn::Weights, true)?;
        let loss = cross_entropy(&pass.logits, &batch.labels, batch.whole);
        let right = correct(&pass.logits, &batch.labels) as f64;
        let [value, right] = self.total([loss.double_value(&[]), right])?;
        self.finite("weights", value)?;
        let gradient = self.model.weight_gradient(&pass, &loss)?;
        let step = self.sgd_step();
        self.sgd.step(&mut self.model.parameters_mut().flat, &gradient, &step);
        self.sums.loss += value * batch.whole as f64;
        self.position.images += batch.whole;
        self.position.correct += right as usize;
        Ok(value)
    }

    fn finite(&self, half: &'static str, loss: f64) -> Result<(), SearchError> {
        let Position { epoch, step, .. } = self.position;
        if loss.is_finite() { Ok(()) } else { Err(SearchError::Diverged { half, epoch, step, loss }) }
    }

    /// What the epoch that was just done came to.
    fn event(&self) -> Event {
        let Self { task, position, sums, .. } = self;
        let space = task.space;
        let scores = self.architecture.scores();
        let temperature = self.schedule.temperature(position.epoch);
        let genotype = derive_unconstrained(space, &scores);
        let share = |sum: f64, count: usize| sum / count.max(1) as f64;
        let learned = position.arch_images > 0;
        Event::Epoch {
            epoch: position.epoch,
            epochs: task.settings.epochs,
            train_loss: share(sums.loss, position.images),
            train_accuracy: share(position.correct as f64, position.images),
            valid_loss: learned.then(|| share(sums.arch_loss, position.arch_images)),
            valid_accuracy: learned.then(|| share(position.arch_correct as f64, position.arch_images)),
            expected: self.latency.as_ref().map(|l| Micros(expected(space, &scores, &l.costs, temperature))),
            lambda: sums.lambda,
            temperature,
            genotype: space.format(&genotype),
            derived: task.table.and_then(|table| table.mean(space, &genotype).ok()),
            arch: scores.snapshots(space),
            seconds: sums.seconds,
            data_wait: if sums.seconds > 0.0 { (sums.waited / sums.seconds).min(1.0) } else { 0.0 },
        }
    }

    fn save(&self) -> Result<(), SearchError> {
        if !self.first() {
            return Ok(());
        }
        let Sums { lambda, loss, arch_loss, seconds, waited } = self.sums;
        let mut tensors: Vec<(String, Tensor)> =
            self.tensors().into_iter().map(|(name, tensor)| (name, tensor.to_device(Device::Cpu))).collect();
        tensors.push(("sums".into(), Tensor::from_slice(&[lambda, loss, arch_loss, seconds, waited])));
        let state = State { identity: self.identity.clone(), position: self.position.clone() };
        Ok(checkpoint::save(self.task.checkpoint, &tensors, &state)?)
    }

    /// Takes up the checkpoint, if there is one; the first process tells the others what it found.
    fn restore(&mut self) -> Result<(), SearchError> {
        let Some(collective) = self.task.collective.clone() else { return self.read() };
        let text = serde_json::to_string(&self.identity).unwrap_or_default();
        agree(collective.as_ref(), "search", &text)?;
        let read = if collective.rank() == 0 { self.read() } else { Ok(()) };
        if self.anybody(read.is_err())? {
            return read.and(Err(SearchError::First));
        }
        for (_, tensor) in self.tensors() {
            let mut values = vec![0.0; tensor.numel()];
            let count = values.len();
            tensor.to_device(Device::Cpu).to_kind(Kind::Double).copy_data(&mut values, count);
            collective.broadcast(&mut values)?;
            let values = Tensor::from_slice(&values).view(tensor.size().as_slice());
            no_grad(|| tensor.shallow_clone().copy_(&values));
        }
        let Position { epoch, step, adam_steps, images, correct, arch_images, arch_correct } = self.position;
        let Sums { lambda, loss, arch_loss, seconds, waited } = self.sums;
        let counts = [epoch, step, adam_steps as usize, images, correct, arch_images, arch_correct];
        let mut values: Vec<f64> = counts.map(|count| count as f64).to_vec();
        values.extend([lambda, loss, arch_loss, seconds, waited]);
        collective.broadcast(&mut values)?;
        let count = |index: usize| values[index] as usize;
        self.position = Position {
            epoch: count(0),
            step: count(1),
            adam_steps: count(2) as i32,
            images: count(3),
            correct: count(4),
            arch_images: count(5),
            arch_correct: count(6),
        };
        self.sums = Sums {
            lambda: values[7],
            loss: values[8],
            arch_loss: values[9],
            seconds: values[10],
            waited: values[11],
        };
        self.adam.steps = self.position.adam_steps;
        Ok(())
    }

    fn read(&mut self) -> Result<(), SearchError> {
        let path = self.task.checkpoint;
        let Some((tensors, state)) = checkpoint::load::<State>(path)? else { return Ok(()) };
        let keys = self.identity.keys().chain(state.identity.keys());
        let differing = keys.filter(|key| self.identity.get(*key) != state.identity.get(*key));
        let differing: std::collections::BTreeSet<&str> = differing.map(String::as_str).collect();
        let other = |keys: String| SearchError::OtherSearch { path: path.to_owned(), keys };
        if !differing.is_empty() {
            return Err(other(differing.into_iter().collect::<Vec<_>>().join(", ")));
        }
        for (name, tensor) in self.tensors() {
            let stored = tensors.get(&name).filter(|stored| stored.size() == tensor.size());
            let stored = stored.ok_or_else(|| other(format!("`{name}`")))?;
            no_grad(|| tensor.shallow_clone().copy_(stored));
        }
        let sums =
            tensors.get("sums").filter(|sums| sums.size() == [5]).ok_or_else(|| other("`sums`".into()))?;
        let [lambda, loss, arch_loss, seconds, waited] =
            [0, 1, 2, 3, 4].map(|index| sums.double_value(&[index]));
        self.sums = Sums { lambda, loss, arch_loss, seconds, waited };
        self.adam.steps = state.position.adam_steps;
        self.position = state.position;
        tracing::info!(epoch = self.position.epoch, step = self.position.step, "resumed the search");
        Ok(())
    }

    /// Every tensor that the search changes.
    fn tensors(&self) -> Vec<(String, &Tensor)> {
        let parameters = self.model.parameters();
        let mut tensors = vec![
            ("weights".to_owned(), &parameters.flat),
            ("weights.momentum".to_owned(), &self.sgd.momentum),
            ("architecture".to_owned(), &self.architecture.flat),
            ("architecture.first_moment".to_owned(), &self.adam.first),
            ("architecture.second_moment".to_owned(), &self.adam.second),
        ];
        tensors.extend(parameters.statistics.iter().map(|(name, tensor)| (name.clone(), tensor)));
        tensors
    }
}

fn check(task: &SearchTask) -> Result<(), SearchError> {
    let fault = |what, got: String, expected: &str| {
        Err(SearchError::Setting { what, got, expected: expected.into() })
    };
    let SearchSettings { epochs, warmup_epochs, batch, .. } = task.settings;
    if batch == 0 {
        return fault("batch", batch.to_string(), "at least 1");
    }
    if warmup_epochs >= epochs {
        let expected = format!("less than the {epochs} epochs, or no architecture is learned");
        return fault("warmup_epochs", warmup_epochs.to_string(), &expected);
    }
    if task.threads == 0 {
        return fault("threads", "0".into(), "at least 1");
    }
    let images = task.dataset.train.len();
    if images < 2 {
        return fault(
            "training images",
            images.to_string(),
            "at least 2: half of them learn the architecture",
        );
    }
    let ObjectiveSettings { target, temperature_start, temperature_end, .. } = task.objective;
    for (what, value) in [("temperature_start", temperature_start), ("temperature_end", temperature_end)] {
        if !(value > 0.0 && value.is_finite()) {
            return fault(what, value.to_string(), "a number above zero");
        }
    }
    match (target, task.table) {
        (Some(target), None) => fault("target", target.to_string(), "a cost table to go with it"),
        // Finds a foreign or incomplete table, and a target below everything, before the hours of work.
        (Some(target), Some(table)) => {
            derive(task.space, &Scores::uniform(task.space), Some((table, target)))?;
            Ok(())
        }
        (None, _) => Ok(()),
    }
}

/// Digests of all that the result depends on, but for the threads.
fn identity(task: &SearchTask) -> BTreeMap<String, String> {
    fn digest(value: &impl Serialize) -> String {
        let text = serde_json::to_string(value).unwrap_or_default();
        Sha256::digest(text).iter().take(8).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
    let dataset = &task.dataset;
    [
        ("space", digest(task.space)),
        ("supernet", digest(&task.supernet)),
        ("search schedule", digest(&task.settings)),
        ("objective", digest(&task.objective)),
        ("cost table", digest(&task.table)),
        ("data set", digest(&(&dataset.classes, dataset.resolution, dataset.train.len()))),
        ("seed", task.seed.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Indices of the training images for weights and architecture. Every class is split in the middle of
/// a seeded shuffle; of odd classes the one image goes to the architecture first, then in turns, so
/// that the architecture's half is never the smaller one.
fn halves(dataset: &Dataset, seed: u64) -> [Vec<usize>; 2] {
    let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in 0..dataset.train.len() {
        classes.entry(dataset.train.label(index)).or_default().push(index);
    }
    let mut halves = [Vec::new(), Vec::new()];
    for (class, mut indices) in classes {
        indices.shuffle(&mut Stream::new(seed, "search halves", class as u64));
        let extra_to_weights = halves[1].len() > halves[0].len();
        let middle = if extra_to_weights { indices.len().div_ceil(2) } else { indices.len() / 2 };
        halves[1].extend_from_slice(&indices[middle..]);
        indices.truncate(middle);
        halves[0].append(&mut indices);
    }
    for half in &mut halves {
        half.sort_unstable();
    }
    halves
}

/// This process's part of the mean over a batch of `whole` images.
pub(crate) fn cross_entropy(logits: &Tensor, labels: &Tensor, whole: usize) -> Tensor {
    logits.cross_entropy_loss(labels, None::<Tensor>, Reduction::Sum, -100, 0.0) / whole as f64
}

fn correct(logits: &Tensor, labels: &Tensor) -> usize {
    logits.detach().argmax(-1, false).eq_tensor(labels).sum(Kind::Int64).int64_value(&[]) as usize
}

#[cfg(test)]
#[path = "search_loop_tests.rs"]
mod tests;
