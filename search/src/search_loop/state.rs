//! What a checkpoint of a search holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor, no_grad};

use super::{
    SearchError, SearchTask,
    guard::Past,
    run::Run,
    warm_up::{sums_of, warmed},
};
use crate::{
    Method, checkpoint,
    distributed::{Collective, agree},
};

/// Where a search is: with the tensors all that a checkpoint holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Position {
    pub epoch: usize,
    pub step: usize,
    pub adam_steps: i32,
    pub images: usize,
    pub correct: usize,
    pub arch_images: usize,
    pub arch_correct: usize,
}

/// Numbers that a checkpoint must give back to the last bit; they travel as a tensor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub loss: f64,
    pub arch_loss: f64,
    pub seconds: f64,
    pub waited: f64,
}

#[derive(Serialize, Deserialize)]
struct State {
    /// Per input of the task its digest.
    identity: BTreeMap<String, String>,
    position: Position,
    /// Where each epoch of the warm-up ended.
    warm_up: Vec<Position>,
}

/// Where a search goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restored {
    /// At the beginning.
    Nothing,
    /// Where it was stopped.
    Checkpoint,
    /// At the end of another search's warm-up.
    WarmUp,
}

impl Run<'_> {
    pub(super) fn save(&self) -> Result<(), SearchError> {
        if !self.first() {
            return Ok(());
        }
        let Sums { loss, arch_loss, seconds, waited } = self.sums;
        let mut tensors: Vec<(String, Tensor)> =
            self.tensors().into_iter().map(|(name, tensor)| (name, tensor.to_device(Device::Cpu))).collect();
        tensors.push(("sums".into(), Tensor::from_slice(&[loss, arch_loss, seconds, waited])));
        tensors.push(("warm_up.sums".into(), sums_of(&self.warmed)));
        let past: Vec<Tensor> =
            self.past.iter().map(|past| past.architecture.to_device(Device::Cpu)).collect();
        if !past.is_empty() {
            tensors.push(("past.architecture".into(), Tensor::stack(&past, 0)));
        }
        // What was not asked for is no number.
        let eigenvalues: Vec<f64> =
            self.past.iter().map(|past| past.eigenvalue.unwrap_or(f64::NAN)).collect();
        tensors.push(("past.eigenvalues".into(), Tensor::from_slice(&eigenvalues)));
        let state = State {
            identity: self.identity.clone(),
            position: self.position.clone(),
            warm_up: self.warmed.iter().map(|(position, _)| position.clone()).collect(),
        };
        Ok(checkpoint::save(self.task.checkpoint, &tensors, &state)?)
    }

    /// Takes up the checkpoint, if there is one; the first process tells the others what it found.
    pub(super) fn restore(&mut self) -> Result<Restored, SearchError> {
        let Some(collective) = self.task.collective.clone() else { return self.read() };
        let text = serde_json::to_string(&self.identity).unwrap_or_default();
        agree(collective.as_ref(), "search", &text)?;
        let read = if collective.rank() == 0 { self.read() } else { Ok(Restored::Nothing) };
        if self.anybody(read.is_err())? {
            return read.and(Err(SearchError::First));
        }
        let restored = read?;
        for (_, tensor) in self.tensors() {
            let mut values = vec![0.0; tensor.numel()];
            let count = values.len();
            tensor.to_device(Device::Cpu).to_kind(Kind::Double).copy_data(&mut values, count);
            collective.broadcast(&mut values)?;
            let values = Tensor::from_slice(&values).view(tensor.size().as_slice());
            no_grad(|| tensor.shallow_clone().copy_(&values));
        }
        let Position { epoch, step, adam_steps, images, correct, arch_images, arch_correct } = self.position;
        let Sums { loss, arch_loss, seconds, waited } = self.sums;
        let counts = [epoch, step, adam_steps as usize, images, correct, arch_images, arch_correct];
        let mut values: Vec<f64> = counts.map(|count| count as f64).to_vec();
        values.extend([loss, arch_loss, seconds, waited]);
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
        self.sums = Sums { loss: values[7], arch_loss: values[8], seconds: values[9], waited: values[10] };
        self.share_past(collective.as_ref())?;
        self.adam.steps = self.position.adam_steps;
        Ok(restored)
    }

    fn read(&mut self) -> Result<Restored, SearchError> {
        let path = self.task.checkpoint;
        let Some((tensors, state)) = checkpoint::load::<State>(path)? else {
            return Ok(if self.take_warm_up()? { Restored::WarmUp } else { Restored::Nothing });
        };
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
            tensors.get("sums").filter(|sums| sums.size() == [4]).ok_or_else(|| other("`sums`".into()))?;
        let [loss, arch_loss, seconds, waited] = [0, 1, 2, 3].map(|index| sums.double_value(&[index]));
        self.sums = Sums { loss, arch_loss, seconds, waited };
        let epochs = tensors.get("warm_up.sums").and_then(|sums| warmed(&state.warm_up, sums));
        self.warmed = epochs.ok_or_else(|| other("`warm_up.sums`".into()))?;
        self.past = self.read_past(&tensors).ok_or_else(|| other("`past`".into()))?;
        self.adam.steps = state.position.adam_steps;
        self.position = state.position;
        tracing::info!(epoch = self.position.epoch, step = self.position.step, "resumed the search");
        Ok(Restored::Checkpoint)
    }

    /// The first process tells the others what the epochs so far left behind: all decide by it when to stop.
    fn share_past(&mut self, collective: &dyn Collective) -> Result<(), SearchError> {
        let mut count = [self.past.len() as f64];
        collective.broadcast(&mut count)?;
        let (rows, width) = (count[0] as usize, self.architecture.flat.numel());
        let mut values: Vec<f64> =
            self.past.iter().flat_map(|past| read_numbers(&past.architecture)).collect();
        values.extend(self.past.iter().map(|past| past.eigenvalue.unwrap_or(f64::NAN)));
        values.resize(rows * (width + 1), 0.0);
        collective.broadcast(&mut values)?;
        let (flat, eigenvalues) = values.split_at(rows * width);
        let like = &self.architecture.flat;
        let past = |(row, value): (&[f64], &f64)| Past {
            architecture: Tensor::from_slice(row).to_kind(like.kind()).to_device(like.device()),
            eigenvalue: Some(*value).filter(|value| !value.is_nan()),
        };
        self.past = flat.chunks(width.max(1)).zip(eigenvalues).map(past).collect();
        Ok(())
    }

    /// What the epochs of a checkpoint left behind; `None` if it can't be.
    fn read_past(&self, tensors: &BTreeMap<String, Tensor>) -> Option<Vec<Past>> {
        let eigenvalues = read_numbers(tensors.get("past.eigenvalues")?);
        let Some(rows) = tensors.get("past.architecture") else { return Some(Vec::new()) };
        let flat = &self.architecture.flat;
        if rows.size() != [eigenvalues.len() as i64, flat.numel() as i64] {
            return None;
        }
        let past = |(row, value): (usize, f64)| Past {
            architecture: rows.get(row as i64).to_device(flat.device()),
            eigenvalue: Some(value).filter(|value| !value.is_nan()),
        };
        Some(eigenvalues.into_iter().enumerate().map(past).collect())
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
        if self.task.objective.method == Method::Reinforce {
            tensors.push(("baseline".into(), &self.baseline));
        }
        if let Some(held) = &self.held {
            tensors.push(("multipliers".into(), &held.multipliers));
            tensors.push(("corrections".into(), &held.corrections));
        }
        tensors.extend(parameters.statistics.iter().map(|(name, tensor)| (name.clone(), tensor)));
        tensors
    }
}

/// Digests of all that the result depends on, but for the threads.
pub(super) fn identity(task: &SearchTask) -> BTreeMap<String, String> {
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
        ("limits", digest(&task.limits)),
        ("measured networks", digest(&task.measured)),
        ("data set", digest(&(&dataset.classes, dataset.resolution, dataset.train.len()))),
        ("seed", task.seed.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// A vector's elements.
pub(super) fn read_numbers(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.detach().to_kind(Kind::Double).contiguous();
    let mut values = vec![0.0; tensor.numel()];
    let count = values.len();
    tensor.copy_data(&mut values, count);
    values
}
