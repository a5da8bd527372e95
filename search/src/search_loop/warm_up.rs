//! The warm-up of a search, which searches of other targets can begin with.
//!
//! While the architecture rests, nothing that a target, a limit or a cost table says has any influence: searches
//! that differ in these only go through the same warm-up, to the last bit.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use super::{
    Progress, SearchError,
    guard::Past,
    run::Run,
    state::{Position, Sums},
};
use crate::{
    Method, RecordError,
    checkpoint::{self, CheckpointError},
};

/// Name of its folder beside a search's own checkpoint.
const FOLDER: &str = "warm-up";
/// What of a search's identity the warm-up does not depend on.
const NO_INFLUENCE: [&str; 4] = ["objective", "cost table", "limits", "measured networks"];

#[derive(Serialize, Deserialize)]
struct WarmUp {
    identity: BTreeMap<String, String>,
    epochs: Vec<Position>,
}

/// Lets the search with the checkpoint folder `to`, which was not begun yet, start from the end of the warm-up of the
/// search with the checkpoint folder `from`. Returns whether there is one; whether it is the same warm-up the search
/// sees for itself, and begins at the beginning if not.
///
/// # Errors
/// If files can't be read or written.
pub fn share_warm_up(from: &Path, to: &Path) -> Result<bool, CheckpointError> {
    checkpoint::copy(&from.join(FOLDER), &to.join(FOLDER))
}

impl Run<'_> {
    /// Keeps what the warm-up came to.
    pub(super) fn save_warm_up(&self) -> Result<(), SearchError> {
        if !self.first() {
            return Ok(());
        }
        let mut tensors: Vec<(String, Tensor)> = self
            .warm_up_tensors()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.to_device(tch::Device::Cpu)))
            .collect();
        tensors.push(("sums".into(), sums_of(&self.warmed)));
        let epochs = self.warmed.iter().map(|(position, _)| position.clone()).collect();
        let state = WarmUp { identity: self.warm_up_identity(), epochs };
        Ok(checkpoint::save(&self.task.checkpoint.join(FOLDER), &tensors, &state)?)
    }

    /// Begins where the warm-up of another search ended, if there is one and it would be this search's; false if not.
    pub(super) fn take_warm_up(&mut self) -> Result<bool, SearchError> {
        let folder = self.task.checkpoint.join(FOLDER);
        let Some((tensors, state)) = checkpoint::load::<WarmUp>(&folder)? else { return Ok(false) };
        let warmed = tensors.get("sums").and_then(|sums| warmed(&state.epochs, sums));
        let Some(warmed) = warmed.filter(|_| state.identity == self.warm_up_identity()) else {
            tracing::warn!(folder = %folder.display(), "this is the warm-up of another search");
            return Ok(false);
        };
        for (name, tensor) in self.warm_up_tensors() {
            let stored = tensors.get(&name).filter(|stored| stored.size() == tensor.size());
            let Some(stored) = stored else {
                let path = folder.clone();
                return Err(SearchError::OtherSearch { path, keys: format!("`{name}`") });
            };
            no_grad(|| tensor.shallow_clone().copy_(stored));
        }
        self.position = Position { epoch: warmed.len(), ..Position::default() };
        self.past = (0..warmed.len())
            .map(|_| Past { architecture: self.architecture.flat.copy(), eigenvalue: None })
            .collect();
        self.warmed = warmed;
        Ok(true)
    }

    /// Tells of the epochs of a warm-up that was taken over as if they had been this search's; they took no time.
    pub(super) fn tell_warm_up(
        &mut self,
        sink: &mut dyn FnMut(Progress) -> Result<(), RecordError>,
    ) -> Result<(), SearchError> {
        let now = (self.position.clone(), self.sums);
        for (position, sums) in self.warmed.clone() {
            (self.position, self.sums) = (position, sums);
            sink(Progress::Event(self.event(None)))?;
        }
        (self.position, self.sums) = now;
        Ok(())
    }

    fn warm_up_identity(&self) -> BTreeMap<String, String> {
        let mut identity = self.identity.clone();
        identity.retain(|key, _| !NO_INFLUENCE.contains(&key.as_str()));
        // REINFORCE trains the weights of drawn networks from the first step on.
        let draws = self.task.objective.method == Method::Reinforce;
        identity.insert("weights of drawn networks".into(), draws.to_string());
        identity
    }

    /// Every tensor that the warm-up changes.
    fn warm_up_tensors(&self) -> Vec<(String, &Tensor)> {
        let parameters = self.model.parameters();
        let mut tensors = vec![
            ("weights".to_owned(), &parameters.flat),
            ("weights.momentum".to_owned(), &self.sgd.momentum),
        ];
        tensors.extend(parameters.statistics.iter().map(|(name, tensor)| (name.clone(), tensor)));
        tensors
    }
}

/// Per epoch the sum of losses, as `[epochs]`. How long an epoch took is no part of a state: two equal searches have
/// equal checkpoints.
pub(super) fn sums_of(warmed: &[(Position, Sums)]) -> Tensor {
    let values: Vec<f64> = warmed.iter().map(|(_, sums)| sums.loss).collect();
    Tensor::from_slice(&values)
}

/// The epochs again; `None` if the two don't belong together.
pub(super) fn warmed(epochs: &[Position], sums: &Tensor) -> Option<Vec<(Position, Sums)>> {
    if sums.size() != [epochs.len() as i64] {
        return None;
    }
    let read = |(row, position): (usize, &Position)| {
        let loss = sums.double_value(&[row as i64]);
        (position.clone(), Sums { loss, ..Sums::default() })
    };
    Some(epochs.iter().enumerate().map(read).collect())
}
