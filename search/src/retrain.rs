//! Training of a derived network from scratch (PC-DARTS' `train.py`, on CIFAR).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lathe_spaces::{Graph, OpSpec, Stream, Weights};
use rand::seq::SliceRandom as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Kind, Reduction, Tensor, no_grad};
use thiserror::Error;

use crate::{
    Augmentation, Batch, Dataset, DropPath, Event, GraphModule, GraphModuleError, Learning, Loader, Progress,
    RecordError, RetrainSettings, Split, Teacher, TeacherError,
    checkpoint::{self, CheckpointError},
    optimizer::{Sgd, SgdStep, cosine, flatten, gradients},
};

/// Longest time that a killed process loses.
const CHECKPOINT_INTERVAL: Duration = Duration::from_mins(2);
/// Largest batch of the test; smaller than the training's memory by far.
const TEST_BATCH: usize = 256;

/// What to train, with what, and where to keep the state.
#[derive(Clone, Debug)]
pub struct RetrainTask<'a> {
    /// Network; with an auxiliary output if the settings give it a weight.
    pub graph: &'a Graph,
    /// Name of the candidate, for the events.
    pub name: &'a str,
    /// Images.
    pub dataset: Arc<Dataset>,
    /// What it learns to give, in place of classes or images.
    pub teacher: Option<Rc<Teacher>>,
    /// Schedule.
    pub settings: RetrainSettings,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads of libtorch; the result depends on them in the last bits.
    pub threads: usize,
    /// Directory of the checkpoint; one of its own for every candidate.
    pub checkpoint: &'a Path,
    /// Set to end after the running step.
    pub stop: &'a AtomicBool,
}

/// How a training ended.
#[derive(Clone, Debug, PartialEq)]
pub enum RetrainEnd {
    /// All epochs are done.
    Finished {
        /// Weights after the last epoch, those of the auxiliary head included.
        weights: Weights,
        /// Quality of these weights on the test images: accuracy, 0..1, or decibels ([`Learning`]). The test images
        /// choose nothing.
        test_accuracy: f64,
        /// Number of test images.
        test_images: usize,
        /// Quality on the held-out training images, where the settings hold some out, and their number. Of
        /// several trainings this chooses one.
        validation: Option<(f64, usize)>,
    },
    /// Stopped by [`RetrainTask::stop`]; the same call goes on from the checkpoint.
    Interrupted,
}

/// Why a training failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RetrainError {
    /// The network can't be run.
    #[error("train `{name}`: {source}")]
    Network {
        /// Candidate.
        name: String,
        /// Cause.
        source: GraphModuleError,
    },
    /// The teacher can't be run.
    #[error("train a network: {0}")]
    Teacher(#[from] TeacherError),
    /// The checkpoint can't be written or read.
    #[error("train a network: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The record can't be written.
    #[error("train a network: {0}")]
    Record(#[from] RecordError),
    /// A setting that makes no sense.
    #[error("train `{name}`: {what} = {got}, expected {expected}")]
    Setting {
        /// Candidate.
        name: String,
        /// Setting.
        what: &'static str,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// A checkpoint of another training.
    #[error(
        "resume the training of `{name}` from `{}`: it was begun with another {keys}; hint: restore that, or use another run directory",
        path.display()
    )]
    OtherTraining {
        /// Candidate.
        name: String,
        /// Directory of the checkpoint.
        path: PathBuf,
        /// What differs.
        keys: String,
    },
    /// The loss is infinite or not a number.
    #[error(
        "train `{name}`: the loss is {loss} at step {step} of epoch {epoch}; hint: lower the learning rate"
    )]
    Diverged {
        /// Candidate.
        name: String,
        /// Epoch, from 0.
        epoch: usize,
        /// Step, from 0.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// The loader gave fewer batches than there are.
    #[error("train `{name}`: the {split} images ended at batch {batch} of {batches}")]
    Images {
        /// Candidate.
        name: String,
        /// `training`, `held-out` or `test`.
        split: &'static str,
        /// Batch, from 0.
        batch: usize,
        /// Batches of an epoch.
        batches: usize,
    },
}

/// Trains a network from scratch and tests the weights of the last epoch; resumes from the
/// checkpoint if there is one, and returns at once if it holds a finished training.
///
/// Initial weights are [`Weights::seeded`] (He et al. 2015) with every batch norm exactly the
/// identity. SGD with momentum, weight decay and clipped gradient; the rate falls along a cosine to
/// zero, drop path rises linearly from zero. A last batch of a single image is left out, as batch
/// norm can't normalise one value. The same task gives the same weights, interrupted or not.
pub fn retrain(
    task: &RetrainTask,
    sink: &mut dyn FnMut(Progress) -> Result<(), RecordError>,
) -> Result<RetrainEnd, RetrainError> {
    check(task)?;
    tch::set_num_threads(task.threads as i32);
    let mut run = Run::new(task)?;
    run.restore()?;
    while run.position.epoch < task.settings.epochs {
        if !run.epoch(sink)? {
            return Ok(RetrainEnd::Interrupted);
        }
    }
    if run.position.tested.is_none() {
        let held_out = run.answers(Split::Train, run.validation.clone())?;
        let tested = run.answers(Split::Test, (0..task.dataset.test.len()).collect())?;
        let (Some(held_out), Some(tested)) = (held_out, tested) else { return Ok(RetrainEnd::Interrupted) };
        run.position.tested = Some(Tested { held_out, test: tested });
        run.save()?;
    }
    let Tested { held_out, test } = run.position.tested.unwrap_or_default();
    let share = |[millionths, images]: [u64; 2]| millionths as f64 * 1e-6 / images.max(1) as f64;
    Ok(RetrainEnd::Finished {
        weights: run.module.weights(),
        test_accuracy: share(test),
        test_images: test[1] as usize,
        validation: (held_out[1] > 0).then(|| (share(held_out), held_out[1] as usize)),
    })
}

/// Quality of a finished training, summed over the images in millionths, which JSON keeps to the last one, and the
/// images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Tested {
    held_out: [u64; 2],
    test: [u64; 2],
}

/// Where a training is: with the tensors all that a checkpoint holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Position {
    epoch: usize,
    step: usize,
    images: usize,
    /// What it came to, once the training is finished.
    tested: Option<Tested>,
}

/// Numbers that a checkpoint must give back to the last bit; they travel as a tensor.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    loss: f64,
    seconds: f64,
    quality: f64,
}

#[derive(Serialize, Deserialize)]
struct State {
    /// Per input of the task its digest.
    identity: BTreeMap<String, String>,
    position: Position,
}

struct Run<'a> {
    task: &'a RetrainTask<'a>,
    learning: Learning,
    module: GraphModule,
    sgd: Sgd,
    /// Indices of the training images that are trained on, and of those held out.
    training: Vec<usize>,
    validation: Vec<usize>,
    steps: usize,
    identity: BTreeMap<String, String>,
    position: Position,
    sums: Sums,
}

impl<'a> Run<'a> {
    fn new(task: &'a RetrainTask<'a>) -> Result<Self, RetrainError> {
        let network = |source| RetrainError::Network { name: task.name.to_owned(), source };
        let weights = initial(task.graph, task.seed);
        let mut module = GraphModule::new(task.graph, &weights, Kind::Float).map_err(network)?;
        let sgd = Sgd::new(module.flat_mut());
        let (training, validation) = held_out(&task.dataset, task.settings.validation);
        let (images, batch) = (training.len(), task.settings.batch);
        Ok(Self {
            task,
            learning: Learning::with(task.graph, task.teacher.as_deref()),
            module,
            sgd,
            training,
            validation,
            steps: images / batch + usize::from(images % batch > 1),
            identity: identity(task),
            position: Position::default(),
            sums: Sums::default(),
        })
    }

    /// One epoch, or what is left of it; false if it was stopped.
    fn epoch(
        &mut self,
        sink: &mut dyn FnMut(Progress) -> Result<(), RecordError>,
    ) -> Result<bool, RetrainError> {
        let task = self.task;
        let (epoch, steps, epochs) = (self.position.epoch, self.steps, task.settings.epochs);
        let images = self.training.len();
        let mut loader = Loader::new(
            Arc::clone(&task.dataset),
            Split::Train,
            self.training.clone(),
            task.settings.batch,
            Augmentation {
                crop_padding: task.dataset.resolution / 8,
                flip: true,
                cutout: task.settings.cutout,
            },
            Some((task.seed, "retrain", epoch as u64)),
            images % task.settings.batch == 1,
        )
        .skip_batches(self.position.step);
        let before = self.sums.seconds;
        let began = Instant::now();
        let mut saved = Instant::now();
        while self.position.step < steps {
            let stop = task.stop.load(Ordering::Relaxed);
            if stop || saved.elapsed() > CHECKPOINT_INTERVAL {
                self.save()?;
                saved = Instant::now();
            }
            if stop {
                return Ok(false);
            }
            let batch = loader.next().ok_or_else(|| self.ended("training", self.position.step, steps))?;
            let loss = self.step(&batch)?;
            self.position.step += 1;
            self.sums.seconds = before + began.elapsed().as_secs_f64();
            let (done, total) = (epoch * steps + self.position.step, epochs * steps);
            sink(Progress::Step { done, total, loss })?;
        }
        // The record first: an epoch that is told twice is dropped there, one never told is lost.
        let images = self.position.images as f64;
        sink(Progress::Event(Event::TrainEpoch {
            candidate: task.name.to_owned(),
            epoch,
            epochs,
            train_loss: self.sums.loss / images,
            train_accuracy: self.sums.quality / images,
            seconds: self.sums.seconds,
        }))?;
        self.position = Position { epoch: epoch + 1, ..Position::default() };
        self.sums = Sums::default();
        self.save()?;
        Ok(true)
    }

    /// Moves the weights; returns the loss of the classifier proper.
    fn step(&mut self, batch: &Batch) -> Result<f64, RetrainError> {
        let settings = &self.task.settings;
        let Position { epoch, step, .. } = self.position;
        let drop_path = DropPath {
            probability: settings.drop_path * epoch as f64 / settings.epochs as f64,
            seed: self.task.seed,
            step: (epoch * self.steps + step) as u64,
        };
        let truth = self.learning.truth(batch, &self.task.dataset, self.task.teacher.as_deref())?;
        let outputs = self.module.forward(&truth.inputs, Some(&drop_path));
        let mut loss = self.learning.loss(&outputs[0], &truth, batch.labels.numel());
        let value = loss.double_value(&[]);
        if let (Some(weight), Some(auxiliary)) = (settings.auxiliary, outputs.get(1)) {
            loss += cross_entropy(auxiliary, &batch.labels) * weight;
        }
        let total = loss.double_value(&[]);
        if !total.is_finite() {
            return Err(RetrainError::Diverged { name: self.task.name.to_owned(), epoch, step, loss: total });
        }
        let leaves = self.module.parameters();
        let gradients = gradients(&loss, &leaves.iter().collect::<Vec<_>>());
        let step = SgdStep {
            learning_rate: cosine(settings.learning_rate, 0.0, epoch, settings.epochs),
            momentum: settings.momentum,
            weight_decay: settings.weight_decay,
            clip: settings.gradient_clip,
        };
        self.sgd.step(self.module.flat_mut(), &flatten(&gradients), &step);
        let images = batch.labels.numel();
        self.sums.loss += value * images as f64;
        self.position.images += images;
        self.sums.quality += self.learning.quality(&outputs[0], &truth);
        Ok(value)
    }

    /// Quality (in millionths) and images of some of a split; `None` if it was stopped.
    fn answers(&self, split: Split, indices: Vec<usize>) -> Result<Option<[u64; 2]>, RetrainError> {
        let images = indices.len();
        let batches = images.div_ceil(TEST_BATCH);
        let dataset = Arc::clone(&self.task.dataset);
        let mut loader = Loader::new(dataset, split, indices, TEST_BATCH, Augmentation::none(), None, false);
        let mut quality = 0.0;
        for index in 0..batches {
            if self.task.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let name = if split == Split::Test { "test" } else { "held-out" };
            let batch = loader.next().ok_or_else(|| self.ended(name, index, batches))?;
            let truth = self.learning.truth(&batch, &self.task.dataset, self.task.teacher.as_deref())?;
            let outputs = no_grad(|| self.module.forward(&truth.inputs, None));
            quality += self.learning.quality(&outputs[0], &truth);
        }
        Ok(Some([(quality * 1e6).round() as u64, images as u64]))
    }

    fn ended(&self, split: &'static str, batch: usize, batches: usize) -> RetrainError {
        RetrainError::Images { name: self.task.name.to_owned(), split, batch, batches }
    }

    /// Every tensor that the training changes.
    fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut tensors = self.module.state();
        tensors.push(("weights.momentum".into(), self.sgd.momentum.shallow_clone()));
        tensors
    }

    fn save(&self) -> Result<(), RetrainError> {
        let mut tensors = self.tensors();
        tensors.push((
            "sums".into(),
            Tensor::from_slice(&[self.sums.loss, self.sums.seconds, self.sums.quality]),
        ));
        let state = State { identity: self.identity.clone(), position: self.position.clone() };
        Ok(checkpoint::save(self.task.checkpoint, &tensors, &state)?)
    }

    fn restore(&mut self) -> Result<(), RetrainError> {
        let path = self.task.checkpoint;
        let Some((tensors, state)) = checkpoint::load::<State>(path)? else { return Ok(()) };
        let name = self.task.name.to_owned();
        let other = |keys| RetrainError::OtherTraining { name: name.clone(), path: path.to_owned(), keys };
        let keys = self.identity.keys().chain(state.identity.keys());
        let differing: BTreeSet<&str> = keys
            .filter(|key| self.identity.get(*key) != state.identity.get(*key))
            .map(String::as_str)
            .collect();
        if !differing.is_empty() {
            return Err(other(differing.into_iter().collect::<Vec<_>>().join(", ")));
        }
        for (name, mut tensor) in self.tensors() {
            let stored = tensors.get(&name).filter(|stored| stored.size() == tensor.size());
            let stored = stored.ok_or_else(|| other(format!("`{name}`")))?;
            no_grad(|| tensor.copy_(stored));
        }
        let sums =
            tensors.get("sums").filter(|sums| sums.size() == [3]).ok_or_else(|| other("`sums`".into()))?;
        let [loss, seconds, quality] = [0, 1, 2].map(|index| sums.double_value(&[index]));
        self.sums = Sums { loss, seconds, quality };
        self.position = state.position;
        tracing::info!(
            candidate = name,
            epoch = self.position.epoch,
            step = self.position.step,
            "resumed the training"
        );
        Ok(())
    }
}

/// Indices of the training images to train on, and of those held out: of every class the same share, drawn in the
/// same way whatever the seed of the training, so that trainings of several seeds can be compared.
fn held_out(dataset: &Dataset, share: f64) -> (Vec<usize>, Vec<usize>) {
    let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in 0..dataset.train.len() {
        classes.entry(dataset.train.label(index)).or_default().push(index);
    }
    let (mut training, mut validation) = (Vec::new(), Vec::new());
    for (class, mut indices) in classes {
        indices.shuffle(&mut Stream::new(0, "retrain validation", class as u64));
        let out = (indices.len() as f64 * share).round() as usize;
        validation.extend(indices.drain(..out));
        training.append(&mut indices);
    }
    training.sort_unstable();
    validation.sort_unstable();
    (training, validation)
}

/// Seeded weights with every batch norm the identity.
fn initial(graph: &Graph, seed: u64) -> Weights {
    let mut weights = Weights::seeded(graph, seed);
    for spec in graph.parameters().into_iter().chain(graph.statistics()) {
        if matches!(graph.nodes()[spec.node].op, OpSpec::BatchNorm { .. })
            && let Some(tensor) = weights.0.get_mut(&spec.name)
        {
            let one = matches!(spec.suffix, "weight" | "running_var");
            tensor.values.fill(if one { 1.0 } else { 0.0 });
        }
    }
    weights
}

fn check(task: &RetrainTask) -> Result<(), RetrainError> {
    let fault = |what, got: String, expected: &str| {
        Err(RetrainError::Setting { name: task.name.to_owned(), what, got, expected: expected.into() })
    };
    let RetrainSettings { epochs, batch, auxiliary, drop_path, validation, .. } = task.settings;
    let outputs = task.graph.outputs().len();
    if epochs == 0 {
        return fault("epochs", "0".into(), "at least 1");
    }
    if batch < 2 {
        return fault("batch", batch.to_string(), "at least 2: batch norm can't normalise a single image");
    }
    if task.threads == 0 {
        return fault("threads", "0".into(), "at least 1");
    }
    if !(0.0..1.0).contains(&drop_path) {
        return fault("drop_path", drop_path.to_string(), "0 or more and less than 1");
    }
    if outputs != 1 + usize::from(auxiliary.is_some()) {
        let expected = if auxiliary.is_some() { "2: logits and auxiliary" } else { "1: logits" };
        return fault("outputs of the network", outputs.to_string(), expected);
    }
    if !(0.0..1.0).contains(&validation) {
        return fault("validation", validation.to_string(), "0 or more and less than 1");
    }
    let dataset = &task.dataset;
    let (training, held_out) = held_out(dataset, validation);
    if training.len() < 2 {
        return fault("training images", training.len().to_string(), "at least 2");
    }
    if validation > 0.0 && held_out.is_empty() {
        return fault("validation", validation.to_string(), "enough to hold out an image of some class");
    }
    if dataset.test.is_empty() {
        return fault("test images", "0".into(), "at least 1");
    }
    let (side, classes) = (dataset.resolution, dataset.classes.len());
    let learning = Learning::with(task.graph, task.teacher.as_deref());
    if let Some(teacher) = task.teacher.as_ref().filter(|teacher| !teacher.output_is_like(task.graph)) {
        let expected = format!("that of the teacher, {:?}", teacher.output);
        return fault("output of the network", task.graph.output_shape().to_string(), &expected);
    }
    let (channels, side) = match learning {
        Learning::Classes | Learning::Embeddings => (3, side),
        Learning::Resolution { scale } => (1, side / scale),
    };
    if let Some(input) = task.graph.input_shape()
        && (input.c, input.h, input.w) != (channels, side, side)
    {
        let expected = format!("images of {channels}x{side}x{side}");
        return fault("input of the network", input.to_string(), &expected);
    }
    if learning != Learning::Classes {
        return Ok(());
    }
    let got = task.graph.output_shape().c;
    if got != classes {
        return fault("classes of the network", got.to_string(), &format!("the {classes} of the data set"));
    }
    Ok(())
}

/// Digests of all that the result depends on, but for the threads.
fn identity(task: &RetrainTask) -> BTreeMap<String, String> {
    fn digest(value: &impl Serialize) -> String {
        let text = serde_json::to_string(value).unwrap_or_default();
        Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
    let dataset = &task.dataset;
    let data = (&dataset.classes, dataset.resolution, dataset.train.labels(), dataset.test.labels());
    let moments = (dataset.mean, dataset.deviation);
    [
        ("network", digest(task.graph)),
        ("teacher", task.teacher.as_ref().map(|teacher| teacher.digest.clone()).unwrap_or_default()),
        ("training schedule", digest(&task.settings)),
        ("data set", digest(&(data, moments))),
        ("seed", task.seed.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    logits.cross_entropy_loss(labels, None::<Tensor>, Reduction::Mean, -100, 0.0)
}

#[cfg(test)]
#[path = "retrain_tests.rs"]
mod tests;
