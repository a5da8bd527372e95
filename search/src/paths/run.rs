//! A search by paths that is under way: its epochs.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use lathe_spaces::{Genotype, Graph, Micros, NetworkOptions, Space, Stream};
use rand::RngExt as _;
use tch::{Tensor, no_grad};

use super::{
    PathTask,
    axis::Owner,
    learning::{Learning, Truth},
    policy::{Outcome, Policy, by_node, chosen, distance, rate},
    relaxed::Relaxed,
    shared::{SharedWeights, Taken},
    state::{Position, Sums, identity},
};
use crate::{
    Augmentation, Batch, BlockSigns, Event, GraphModule, LimitEpoch, Loader, Progress, Quantity, RecordError,
    SearchError, Split,
    halves::halves,
    optimizer::{SgdStep, cosine, gradients},
};

/// Longest time that a killed process loses.
const CHECKPOINT_INTERVAL: Duration = Duration::from_mins(5);

/// A network on a batch of the policy's half.
struct Judged {
    output: Tensor,
    loss: f64,
    /// Per mixed node the loss' gradient in the logits of its choices.
    mixed: BTreeMap<usize, Vec<f64>>,
}

pub(super) struct Run<'a> {
    pub task: &'a PathTask<'a>,
    pub learning: Learning,
    pub weights: SharedWeights,
    pub policy: Policy,
    /// Indices of the training images: weights, policy.
    pub halves: [Vec<usize>; 2],
    pub identity: BTreeMap<String, String>,
    pub position: Position,
    pub sums: Sums,
}

impl<'a> Run<'a> {
    pub fn new(task: &'a PathTask<'a>) -> Result<Self, SearchError> {
        let first = task.space.sample(&mut Stream::new(task.seed, "what networks are for", 0));
        let graph = task.space.network(&first, NetworkOptions::default())?;
        if let Some(teacher) = &task.teacher
            && !teacher.output_is_like(&graph)
        {
            return Err(SearchError::Setting {
                what: "output of the networks",
                got: graph.output_shape().to_string(),
                expected: format!(
                    "that of the teacher, {:?}; hint: end the space's head with it",
                    teacher.output
                ),
            });
        }
        let halves = halves(&task.dataset, task.seed);
        let least = halves.iter().map(Vec::len).min().unwrap_or_default();
        if least < 2 || task.settings.batch < 2 {
            return Err(SearchError::Setting {
                what: "images in each half, or images per step",
                got: least.min(task.settings.batch).to_string(),
                expected: "at least 2: batch norms need them".into(),
            });
        }
        Ok(Self {
            task,
            learning: Learning::with(&graph, task.teacher.as_deref()),
            weights: SharedWeights::new(task.seed, task.paths.optimizer),
            policy: Policy::new(task.space),
            halves,
            identity: identity(task),
            position: Position::default(),
            sums: Sums::default(),
        })
    }

    fn steps(&self) -> usize {
        let (images, batch) = (self.halves[0].len(), self.task.settings.batch);
        images / batch + usize::from(images % batch > 1)
    }

    /// One epoch, or what is left of it; false if it was stopped.
    pub fn epoch(
        &mut self,
        sink: &mut dyn FnMut(Progress) -> Result<(), RecordError>,
    ) -> Result<bool, SearchError> {
        let Self { task, .. } = *self;
        let epoch = self.position.epoch;
        let learns = epoch >= task.settings.warmup_epochs;
        let steps = self.steps();
        let mut weights = self.loader(0, 1, "path weights").skip_batches(self.position.step);
        let several = task.paths.policy_batches;
        let mut policy =
            learns.then(|| self.loader(1, several, "path policy").skip_batches(self.position.step));
        let began = Instant::now();
        let before = self.sums;
        let mut saved = Instant::now();
        while self.position.step < steps {
            let step = self.position.step;
            let stop = task.stop.load(Ordering::Relaxed);
            if stop || saved.elapsed() > CHECKPOINT_INTERVAL {
                self.save()?;
                saved = Instant::now();
            }
            if stop {
                return Ok(false);
            }
            let images = |half| SearchError::Images { half, step, steps };
            if let Some(loader) = &mut policy {
                let batch = loader.next().ok_or_else(|| images("policy"))?;
                self.policy_step(&batch, steps)?;
            }
            let batch = weights.next().ok_or_else(|| images("weights"))?;
            let loss = self.weight_step(&batch, steps)?;
            self.position.step += 1;
            self.sums.seconds = before.seconds + began.elapsed().as_secs_f64();
            let waited = weights.waited() + policy.as_ref().map_or(Duration::ZERO, Loader::waited);
            self.sums.waited = before.waited + waited.as_secs_f64();
            let (done, total) = (epoch * steps + self.position.step, task.settings.epochs * steps);
            sink(Progress::Step { done, total, loss })?;
        }
        // The record first: an epoch that is told twice is dropped there, one never told is lost.
        sink(Progress::Event(self.event()))?;
        self.position = Position { epoch: epoch + 1, ..Position::default() };
        self.sums = Sums::default();
        self.save()?;
        Ok(true)
    }

    /// Batches of a half in random order, each as large as `several` of the settings': every image comes so many times.
    fn loader(&self, half: usize, several: usize, purpose: &str) -> Loader {
        let task = self.task;
        let augmentation = Augmentation {
            crop_padding: task.dataset.resolution / 8,
            flip: true,
            cutout: task.settings.cutout,
        };
        let indices = self.halves[half].repeat(several);
        let shuffle = Some((task.seed, purpose, self.position.epoch as u64));
        let batch = task.settings.batch * several;
        let alone = indices.len() % batch == 1;
        Loader::new(Arc::clone(&task.dataset), Split::Train, indices, batch, augmentation, shuffle, alone)
    }

    fn random(&self, purpose: &str, steps: usize) -> rand_chacha::ChaCha8Rng {
        let index = (self.position.epoch * steps + self.position.step) as u64;
        Stream::new(self.task.seed, purpose, index)
    }

    /// Moves the policy by the reward of a drawn network.
    fn policy_step(&mut self, batch: &Batch, steps: usize) -> Result<(), SearchError> {
        let task = self.task;
        let genotype = self.policy.draw(task.space, &mut self.random("drawn path of the policy", steps));
        let truth = self.learning.truth(batch, &task.dataset, task.teacher.as_deref())?;
        let images = batch.labels.numel();
        let Judged { output, loss, mixed } = if let Some(parts) = task.paths.relaxed {
            self.relaxed_step(&genotype, parts, &truth)?
        } else {
            let graph = network(task.space, &genotype)?;
            let taken = self.weights.take(&graph, Owner::Paths);
            let output = no_grad(|| run(&graph, &taken, &truth))?;
            let loss = no_grad(|| self.learning.loss(&output, &truth, images)).double_value(&[]);
            Judged { output, loss, mixed: BTreeMap::new() }
        };
        self.finite("policy", loss)?;
        let quality = self.learning.quality(&output, &truth);
        let ratio = |limit: &crate::Limit| limit.upper(task.space, &genotype) / limit.at_most;
        let outcome = Outcome {
            quality: self.learning.share(quality / images as f64),
            distance: distance(task.paths.weight, task.limits.iter().map(ratio)),
            mixed,
        };
        let settings = &task.settings;
        let first = settings.warmup_epochs * steps;
        let done = (self.position.epoch * steps + self.position.step).saturating_sub(first) as f64;
        let progress = done / ((settings.epochs * steps).saturating_sub(first)).max(1) as f64;
        self.policy.learn(task.space, &genotype, &outcome, rate(settings.arch_learning_rate, progress));
        self.position.policy_images += images;
        self.sums.policy_loss += loss * images as f64;
        self.sums.policy_quality += quality;
        if let Some(limit) = task.limits.first() {
            self.sums.expected += limit.mean(task.space, &genotype);
        }
        self.position.drawn += 1;
        Ok(())
    }

    /// The relaxed network of a genotype on a batch of the policy's half.
    fn relaxed_step(
        &mut self,
        genotype: &Genotype,
        parts: usize,
        truth: &Truth,
    ) -> Result<Judged, SearchError> {
        let relaxed = Relaxed::of(self.task.space, genotype, parts, &self.policy)?;
        let taken = self.weights.take(&relaxed.graph, relaxed.owner);
        let frozen: Vec<Tensor> = taken.leaves.iter().map(Tensor::detach).collect();
        let module = GraphModule::of_leaves(&relaxed.graph, &frozen)?;
        let output = module.mixed(&truth.inputs, &relaxed.shares()).swap_remove(0);
        let images = truth.inputs.size()[0] as usize;
        let loss = self.learning.loss(&output, truth, images);
        let value = loss.double_value(&[]);
        let leaves = relaxed.leaves();
        let found = if leaves.is_empty() { Vec::new() } else { gradients(&loss, &leaves) };
        let mixed = relaxed.by_node(&self.policy, &found);
        Ok(Judged { output: output.detach(), loss: value, mixed })
    }

    /// Moves the weights of a drawn network; returns its loss.
    fn weight_step(&mut self, batch: &Batch, steps: usize) -> Result<f64, SearchError> {
        let task = self.task;
        let truth = self.learning.truth(batch, &task.dataset, task.teacher.as_deref())?;
        let at = self.position.epoch * steps + self.position.step;
        let (taken, output) = match task.paths.relaxed {
            // Every other step, the first one among them.
            Some(parts) if at.is_multiple_of(2) => {
                let drawn =
                    self.policy.draw(task.space, &mut self.random("drawn path of the weights", steps));
                let relaxed = Relaxed::of(task.space, &drawn, parts, &self.policy)?;
                let taken = self.weights.take(&relaxed.graph, relaxed.owner);
                let module = GraphModule::of_leaves(&relaxed.graph, &taken.leaves)?;
                let shares = no_grad(|| relaxed.shares());
                let output = module.mixed(&truth.inputs, &shares).swap_remove(0);
                (taken, output)
            }
            _ => {
                let graph = self.trained(steps)?;
                let taken = self.weights.take(&graph, Owner::Paths);
                let output = run(&graph, &taken, &truth)?;
                (taken, output)
            }
        };
        let images = batch.labels.numel();
        let loss = self.learning.loss(&output, &truth, images);
        let value = loss.double_value(&[]);
        self.finite("weights", value)?;
        let gradients = gradients(&loss, &taken.leaves.iter().collect::<Vec<_>>());
        let settings = &task.settings;
        let rates = (settings.learning_rate, settings.learning_rate_min);
        let step = SgdStep {
            learning_rate: cosine(rates.0, rates.1, self.position.epoch, settings.epochs),
            momentum: settings.momentum,
            weight_decay: settings.weight_decay,
            clip: settings.gradient_clip,
        };
        self.weights.step(&taken, &gradients, &step);
        self.position.images += images;
        self.sums.loss += value * images as f64;
        self.sums.quality += self.learning.quality(&output, &truth);
        Ok(value)
    }

    /// The network whose weights move in this step. During the warm-up, with a probability that falls from 1 to 0,
    /// its widths are the greatest, and its positions are means of several blocks.
    fn trained(&self, steps: usize) -> Result<Graph, SearchError> {
        let (space, paths) = (self.task.space, &self.task.paths);
        let mut random = self.random("drawn path of the weights", steps);
        let drawn = self.policy.draw(space, &mut random);
        let warm_up = (self.task.settings.warmup_epochs * steps) as f64;
        let done = (self.position.epoch * steps + self.position.step) as f64;
        let left = (1.0 - done / warm_up.max(1.0)).max(0.0);
        let [wide, mixed] = [(); 2].map(|()| random.random::<f64>() < left);
        let first = if wide && paths.warmup_widths { widest(space, &drawn) } else { drawn };
        if !mixed || paths.warmup_blocks < 2 {
            return network(space, &first);
        }
        let mut all = vec![first];
        all.extend((1..paths.warmup_blocks).map(|_| self.policy.draw(space, &mut random)));
        match space.network_of_means(&all, TRAINED) {
            Ok(graph) => Ok(graph),
            // Blocks of a position whose outputs differ in size have no mean.
            Err(error) => {
                tracing::debug!(%error, "no mean of blocks");
                network(space, &all[0])
            }
        }
    }

    fn finite(&self, half: &'static str, loss: f64) -> Result<(), SearchError> {
        let Position { epoch, step, .. } = self.position;
        if loss.is_finite() { Ok(()) } else { Err(SearchError::Diverged { half, epoch, step, loss }) }
    }

    /// The line of the record for the epoch that has just ended.
    fn event(&self) -> Event {
        let (space, limits) = (self.task.space, self.task.limits);
        let derived = self.policy.likeliest(space);
        let Position { epoch, images, policy_images, drawn, .. } = self.position;
        let sums = &self.sums;
        let over = |sum: f64, count: usize| (count > 0).then(|| sum / count as f64);
        let expected = over(sums.expected, drawn);
        let of_limit = |(index, limit): (usize, &crate::Limit)| {
            let value = limit.mean(space, &derived);
            LimitEpoch {
                limit: limit.name.clone(),
                quantity: limit.quantity,
                expected: expected.filter(|_| index == 0).unwrap_or(value),
                correction: 0.0,
                target: limit.at_most,
                lambda: self.task.paths.weight,
                derived: value,
            }
        };
        let latency = limits.first().filter(|limit| limit.quantity == Quantity::Latency);
        Event::Epoch {
            epoch,
            epochs: self.task.settings.epochs,
            train_loss: sums.loss / images.max(1) as f64,
            train_accuracy: sums.quality / images.max(1) as f64,
            valid_loss: over(sums.policy_loss, policy_images),
            valid_accuracy: over(sums.policy_quality, policy_images),
            expected: latency.and(expected).map(Micros),
            lambda: self.task.paths.weight,
            limits: limits.iter().enumerate().map(of_limit).collect(),
            temperature: 1.0,
            genotype: space.format(&derived),
            derived: latency.map(|limit| Micros(limit.mean(space, &derived))),
            arch: self.policy.scores().snapshots(space),
            signs: BlockSigns::of(space, &derived),
            eigenvalue: None,
            seconds: sums.seconds,
            data_wait: sums.waited / sums.seconds.max(1e-9),
        }
    }
}

/// Networks as they are trained.
pub(super) const TRAINED: NetworkOptions = NetworkOptions { auxiliary: false, expanded: true };

/// A network of the space, as it is trained.
pub(super) fn network(space: &Space, genotype: &Genotype) -> Result<Graph, SearchError> {
    Ok(space.network(genotype, TRAINED)?)
}

/// The first output of a network with weights that it took.
pub(super) fn run(graph: &Graph, taken: &Taken, truth: &Truth) -> Result<Tensor, SearchError> {
    let module = GraphModule::of_leaves(graph, &taken.leaves)?;
    Ok(module
        .forward(&truth.inputs, Some(&crate::DropPath { probability: 0.0, seed: 0, step: 0 }))
        .swap_remove(0))
}

/// The same network with the greatest width of every stage.
pub(super) fn widest(space: &Space, genotype: &Genotype) -> Genotype {
    let picks = chosen(space, genotype);
    let greatest = |block: usize, node: usize| {
        let choices = &space.blocks[block].nodes[node].edges[0].choices;
        let width =
            |index: &usize| choices[*index].strip_prefix('w').and_then(|width| width.parse::<usize>().ok());
        (0..choices.len()).filter(|index| width(index).is_some()).max_by_key(width)
    };
    by_node(space, |place| {
        let (block, node, choice) = picks[place];
        // Widths are numbers behind a `w`; blocks have names.
        if node == 0 { greatest(block, node).unwrap_or(choice) } else { choice }
    })
}
