//! What a checkpoint of a search by paths holds.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use super::{
    PathTask, WeightOptimizer,
    run::Run,
    shared::{Extent, SharedTensor},
};
use crate::{SearchError, checkpoint};

/// Where a search is: with the tensors all that a checkpoint holds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Position {
    pub epoch: usize,
    pub step: usize,
    pub images: usize,
    pub policy_images: usize,
    pub drawn: usize,
}

/// Numbers that a checkpoint must give back to the last bit; they travel as a tensor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub loss: f64,
    pub quality: f64,
    pub policy_loss: f64,
    pub policy_quality: f64,
    pub expected: f64,
    pub seconds: f64,
    pub waited: f64,
}

#[derive(Serialize, Deserialize)]
struct State {
    /// Per input of the task its digest.
    identity: BTreeMap<String, String>,
    position: Position,
    extents: BTreeMap<String, Extent>,
}

impl Run<'_> {
    pub fn save(&self) -> Result<(), SearchError> {
        let Sums { loss, quality, policy_loss, policy_quality, expected, seconds, waited } = self.sums;
        let sums = [loss, quality, policy_loss, policy_quality, expected, seconds, waited];
        let flat = |rows: &[Vec<f64>]| Tensor::from_slice(&rows.concat());
        let mut tensors = vec![
            ("sums".to_owned(), Tensor::from_slice(&sums)),
            ("policy.logits".to_owned(), flat(&self.policy.logits)),
            ("policy.squares".to_owned(), flat(&self.policy.squares)),
            (
                "policy.rewards".to_owned(),
                Tensor::from_slice(&[self.policy.steps, self.policy.baseline, self.policy.distance]),
            ),
        ];
        let mut extents = BTreeMap::new();
        for (name, shared) in &self.weights.tensors {
            tensors.push((format!("weights.{name}"), shared.values.shallow_clone()));
            tensors.push((format!("momentum.{name}"), shared.momentum.shallow_clone()));
            tensors.extend(
                shared.squares.iter().map(|squares| (format!("squares.{name}"), squares.shallow_clone())),
            );
            extents.insert(name.clone(), shared.extent.clone());
        }
        let state = State { identity: self.identity.clone(), position: self.position, extents };
        Ok(checkpoint::save(self.task.checkpoint, &tensors, &state)?)
    }

    /// Takes up the checkpoint, if there is one.
    pub fn restore(&mut self) -> Result<(), SearchError> {
        let path = self.task.checkpoint;
        let Some((mut tensors, state)) = checkpoint::load::<State>(path)? else { return Ok(()) };
        let keys = self.identity.keys().chain(state.identity.keys());
        let differing: BTreeSet<&str> = keys
            .filter(|key| self.identity.get(*key) != state.identity.get(*key))
            .map(String::as_str)
            .collect();
        let other = |keys: String| SearchError::OtherSearch { path: path.to_owned(), keys };
        if !differing.is_empty() {
            return Err(other(differing.into_iter().collect::<Vec<_>>().join(", ")));
        }
        let numbers = |name: &str, count: usize| {
            let tensor =
                tensors.get(name).filter(|tensor| tensor.numel() == count && tensor.kind() == Kind::Double);
            tensor
                .and_then(|tensor| Vec::<f64>::try_from(tensor).ok())
                .ok_or_else(|| other(format!("`{name}`")))
        };
        let count = self.policy.logits.iter().map(Vec::len).sum();
        let (logits, squares) = (numbers("policy.logits", count)?, numbers("policy.squares", count)?);
        let (mut logits, mut squares) = (logits.into_iter(), squares.into_iter());
        for (to, from) in [(&mut self.policy.logits, &mut logits), (&mut self.policy.squares, &mut squares)] {
            to.iter_mut().flatten().zip(from).for_each(|(to, from)| *to = from);
        }
        let rewards = numbers("policy.rewards", 3)?;
        (self.policy.steps, self.policy.baseline, self.policy.distance) =
            (rewards[0], rewards[1], rewards[2]);
        let sums = numbers("sums", 7)?;
        self.sums = Sums {
            loss: sums[0],
            quality: sums[1],
            policy_loss: sums[2],
            policy_quality: sums[3],
            expected: sums[4],
            seconds: sums[5],
            waited: sums[6],
        };
        for (name, extent) in state.extents {
            let dims: Vec<i64> = extent.axes.iter().map(|axis| axis.extent() as i64).collect();
            let mut tensor = |key: String| {
                tensors
                    .remove(&key)
                    .filter(|tensor| tensor.size() == dims)
                    .ok_or_else(|| other(format!("`{key}`")))
            };
            let (values, momentum) =
                (tensor(format!("weights.{name}"))?, tensor(format!("momentum.{name}"))?);
            let adaptive = self.task.paths.optimizer == WeightOptimizer::RmsProp;
            let squares = adaptive.then(|| tensor(format!("squares.{name}"))).transpose()?;
            self.weights.tensors.insert(name, SharedTensor { extent, values, momentum, squares });
        }
        self.position = state.position;
        tracing::info!(epoch = self.position.epoch, step = self.position.step, "resumed the search");
        Ok(())
    }
}

/// Digests of all that the result depends on, but for the threads.
pub(super) fn identity(task: &PathTask<'_>) -> BTreeMap<String, String> {
    fn digest(value: &impl Serialize) -> String {
        let text = serde_json::to_string(value).unwrap_or_default();
        Sha256::digest(text).iter().take(8).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
    let dataset = &task.dataset;
    [
        ("space", digest(task.space)),
        ("search schedule", digest(&(&task.settings, &task.paths))),
        ("limits", digest(&task.limits)),
        ("data set", digest(&(&dataset.classes, dataset.resolution, dataset.train.len()))),
        ("teacher", task.teacher.as_ref().map(|teacher| teacher.digest.clone()).unwrap_or_default()),
        ("seed", task.seed.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}
