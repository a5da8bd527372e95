//! The two steps of a search, and what an epoch of them came to.

use lathe_spaces::Micros;
use tch::{Device, Kind, Tensor};

use super::{SearchError, correct, cross_entropy, run::Run, state::Position};
use crate::{
    Batch, BlockSigns, Event, SearchSettings, derive_unconstrained,
    objective::expected,
    optimizer::{SgdStep, cosine},
    supernet::{Architecture, Learn, Pass},
    unrolled::{DISTANCE, Unrolled, look_ahead},
};

impl Run<'_> {
    /// Moves α, β and λ; only α and β get gradients. `next` is the batch that the weights move on next.
    pub(super) fn architecture_step(
        &mut self,
        batch: &Batch,
        next: &Batch,
        progress: f64,
    ) -> Result<(), SearchError> {
        let (task, epoch) = (self.task, self.position.epoch);
        let second_order = task.settings.second_order;
        let mut ahead = None;
        if second_order {
            let step = self.sgd_step();
            ahead = Some(look_ahead(&mut self.model, &self.architecture, next, &self.sgd.momentum, &step)?);
        }
        let pass = self.model.forward(&batch.images, &self.architecture, Learn::Architecture, true)?;
        let cross_entropy = cross_entropy(&pass.logits, &batch.labels, batch.whole);
        let (value, right) = self.quality(&pass, batch)?;
        let mut loss = cross_entropy.to_device(Device::Cpu).to_kind(Kind::Double);
        let mut multipliers = None;
        let beyond = self.beyond();
        if let Some(held) = &self.held {
            let moment = (&self.schedule, epoch, progress);
            let (held_loss, after) =
                held.loss((loss, value), &self.architecture, beyond.as_ref(), moment, &task.objective);
            (loss, multipliers) = (held_loss, Some(after));
        }
        self.finite("architecture", loss.double_value(&[]) + value)?;
        let mut gradient = self.model.architecture_gradient(&self.architecture, &pass, &loss)?;
        if let Some(ahead) = ahead {
            gradient += self.correction(ahead, batch, next)?;
        }
        let SearchSettings { arch_learning_rate, arch_weight_decay, .. } = task.settings;
        self.adam.step(&mut self.architecture.flat, &gradient, arch_learning_rate, arch_weight_decay);
        if let Some((held, after)) = self.held.as_mut().zip(multipliers) {
            held.multipliers = after;
        }
        self.count(value, right, batch.whole);
        Ok(())
    }

    /// Cross-entropy and number of right answers of a pass, over all processes.
    pub(super) fn quality(&self, pass: &Pass, batch: &Batch) -> Result<(f64, f64), SearchError> {
        let loss = cross_entropy(&pass.logits, &batch.labels, batch.whole).double_value(&[]);
        let right = correct(&pass.logits, &batch.labels) as f64;
        let [loss, right] = self.total([loss, right])?;
        Ok((loss, right))
    }

    /// Adds a step of the architecture to the epoch's sums.
    pub(super) fn count(&mut self, loss: f64, right: f64, images: usize) {
        self.sums.arch_loss += loss * images as f64;
        self.position.adam_steps = self.adam.steps;
        self.position.arch_images += images;
        self.position.arch_correct += right as usize;
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

    /// Moves the weights, of the whole supernet or of `only` one network of it; only they get gradients.
    /// Returns the loss.
    pub(super) fn weight_step(
        &mut self,
        batch: &Batch,
        only: Option<&Architecture>,
    ) -> Result<f64, SearchError> {
        let shares = only.unwrap_or(&self.architecture);
        let pass = self.model.forward(&batch.images, shares, Learn::Weights, true)?;
        let loss = cross_entropy(&pass.logits, &batch.labels, batch.whole);
        let (value, right) = self.quality(&pass, batch)?;
        self.finite("weights", value)?;
        let gradient = self.model.weight_gradient(&pass, &loss)?;
        let step = self.sgd_step();
        self.sgd.step(&mut self.model.parameters_mut().flat, &gradient, &step);
        self.sums.loss += value * batch.whole as f64;
        self.position.images += batch.whole;
        self.position.correct += right as usize;
        Ok(value)
    }

    pub(super) fn finite(&self, half: &'static str, loss: f64) -> Result<(), SearchError> {
        let Position { epoch, step, .. } = self.position;
        if loss.is_finite() { Ok(()) } else { Err(SearchError::Diverged { half, epoch, step, loss }) }
    }

    /// What the epoch that was just done came to.
    pub(super) fn event(&self, eigenvalue: Option<f64>) -> Event {
        let Self { task, position, sums, .. } = self;
        let space = task.space;
        let scores = self.architecture.scores();
        let temperature = self.schedule.temperature(position.epoch);
        let genotype = derive_unconstrained(space, &scores);
        let share = |sum: f64, count: usize| sum / count.max(1) as f64;
        let learned = position.arch_images > 0;
        let moment = (&self.schedule, position.epoch);
        let beyond = [self.expected_beyond(), self.beyond_of(&genotype)];
        let limits = self.held.as_ref().map(|held| held.epoch(space, &scores, (&genotype, beyond), moment));
        let limits = limits.unwrap_or_default();
        let lambda = limits.first().filter(|_| task.objective.target.is_some()).map_or(0.0, |l| l.lambda);
        Event::Epoch {
            epoch: position.epoch,
            epochs: task.settings.epochs,
            train_loss: share(sums.loss, position.images),
            train_accuracy: share(position.correct as f64, position.images),
            valid_loss: learned.then(|| share(sums.arch_loss, position.arch_images)),
            valid_accuracy: learned.then(|| share(position.arch_correct as f64, position.arch_images)),
            expected: self
                .costs
                .as_ref()
                .map(|costs| Micros(expected(space, &scores, costs, temperature) + beyond[0])),
            lambda,
            limits,
            temperature,
            signs: BlockSigns::of(space, &genotype),
            eigenvalue,
            genotype: space.format(&genotype),
            derived: task
                .table
                .and_then(|table| Some(table.mean(space, &genotype).ok()? + Micros(beyond[1]))),
            arch: scores.snapshots(space),
            seconds: sums.seconds,
            data_wait: if sums.seconds > 0.0 { (sums.waited / sums.seconds).min(1.0) } else { 0.0 },
        }
    }
}
