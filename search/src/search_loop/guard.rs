//! Guards against collapse: the curvature of the loss in α and β, and stopping in time.

use std::sync::Arc;

use lathe_spaces::Stream;
use rand::RngExt as _;
use tch::{Device, Kind, Tensor, no_grad};

use super::{SearchError, cross_entropy, run::Run, state::read_numbers};
use crate::{Augmentation, Batch, BlockSigns, Event, Loader, Split, distributed::Share, supernet::Learn};

/// Half of the distance between the two gradients of a difference, along a direction of length 1.
const DISTANCE: f64 = 1e-2;
/// Products of the power iteration.
pub(super) const ITERATIONS: usize = 15;
/// Evaluations that an eigenvalue is averaged over, and that it is compared across (Zela et al. 2020, section 5.1).
const WINDOW: usize = 5;

/// What an epoch left behind.
#[derive(Debug)]
pub(super) struct Past {
    /// α and β, flat.
    pub architecture: Tensor,
    /// Dominant eigenvalue, where it was asked for.
    pub eigenvalue: Option<f64>,
}

/// Why a search ends before its last epoch.
pub(super) struct Stop {
    criterion: &'static str,
    value: f64,
    limit: f64,
    /// Epoch whose α and β are kept.
    kept: usize,
}

impl Run<'_> {
    /// The dominant eigenvalue of the Hessian of the architecture half's loss in α and β, if this epoch is one for it.
    pub(super) fn curvature(&mut self) -> Result<Option<f64>, SearchError> {
        let (settings, epoch) = (&self.task.settings, self.position.epoch);
        let Some(every) = settings.hessian_every_epochs else { return Ok(None) };
        let learned = (epoch + 1).saturating_sub(settings.warmup_epochs);
        if learned == 0 || !learned.is_multiple_of(every) {
            return Ok(None);
        }
        let batch = self.curvature_batch()?;
        let at = self.architecture.flat.copy();
        let statistics = self.model.parameters().flat_statistics.copy();
        let centre = read_numbers(&at);
        let start = direction(centre.len(), self.task.seed);
        let mut gradient = |values: &[f64]| self.gradient_at(&batch, values);
        let found = dominant_eigenvalue(&mut gradient, &centre, start, ITERATIONS);
        // Whatever happened: the search goes on where it was, to the last bit.
        no_grad(|| {
            self.architecture.flat.copy_(&at);
            self.model.parameters_mut().flat_statistics.copy_(&statistics);
        });
        found.map(Some)
    }

    /// Gradient of a batch's loss at other values of α and β, which stay there.
    pub(super) fn gradient_at(&mut self, batch: &Batch, values: &[f64]) -> Result<Vec<f64>, SearchError> {
        let flat = &mut self.architecture.flat;
        let values = Tensor::from_slice(values).to_kind(flat.kind()).to_device(flat.device());
        no_grad(|| flat.copy_(&values));
        let pass = self.model.forward(&batch.images, &self.architecture, Learn::Architecture, true)?;
        let loss = cross_entropy(&pass.logits, &batch.labels, batch.whole);
        let loss = loss.to_device(Device::Cpu).to_kind(Kind::Double);
        Ok(read_numbers(&self.model.architecture_gradient(&self.architecture, &pass, &loss)?))
    }

    /// The images that the curvature is seen on: always the same batch.
    pub(super) fn curvature_batch(&self) -> Result<Batch, SearchError> {
        let mut loader = Loader::new(
            Arc::clone(&self.task.dataset),
            Split::Train,
            self.halves[1].clone(),
            self.task.settings.batch,
            Augmentation::none(),
            Some((self.task.seed, "search curvature", 0)),
            false,
        )
        .share(self.task.collective.as_deref().map_or(Share::WHOLE, Share::from));
        let images = SearchError::Images { half: "architecture", step: 0, steps: 1 };
        Ok(loader.next().ok_or(images)?.to_device(self.model.device()))
    }

    /// Remembers the epoch that was just done, and says whether the search shall end with it.
    pub(super) fn remember(&mut self, eigenvalue: Option<f64>) -> Option<Stop> {
        self.past.push(Past { architecture: self.architecture.flat.copy(), eigenvalue });
        if self.position.epoch < self.task.settings.warmup_epochs {
            return None;
        }
        self.too_many_skips().or_else(|| self.too_curved())
    }

    /// The criterion of DARTS+ (Liang et al. 2019): so many skip connections in the first kind of cell.
    fn too_many_skips(&self) -> Option<Stop> {
        let most = self.task.settings.stop_at_skips?;
        // Before the first epoch there is nothing to go back to.
        let kept = self.position.epoch.checked_sub(1)?;
        let space = self.task.space;
        let genotype = crate::derive_unconstrained(space, &self.architecture.scores());
        let skips = BlockSigns::of(space, &genotype).first()?.skips;
        (skips >= most).then_some(Stop {
            criterion: "skip connections",
            value: skips as f64,
            limit: most as f64,
            kept,
        })
    }

    /// The criterion of `RobustDARTS` (Zela et al. 2020, section 5.1).
    fn too_curved(&self) -> Option<Stop> {
        let limit = self.task.settings.stop_eigenvalue_ratio?;
        let seen: Vec<(usize, f64)> = self
            .past
            .iter()
            .enumerate()
            .filter_map(|(epoch, past)| Some((epoch, past.eigenvalue?)))
            .collect();
        // Only an epoch that was looked at can end the search.
        self.past.last()?.eigenvalue?;
        let (kept, value) = rise(&seen)?;
        (value < limit).then_some(Stop { criterion: "eigenvalue", value, limit, kept })
    }

    /// Ends the search with the α and β that a criterion keeps.
    pub(super) fn stop_early(&mut self, stop: &Stop) -> Event {
        let kept = self.past[stop.kept].architecture.shallow_clone();
        no_grad(|| self.architecture.flat.copy_(&kept));
        let epoch = self.position.epoch;
        Event::SearchStopped {
            epoch,
            criterion: stop.criterion.into(),
            value: stop.value,
            limit: stop.limit,
            kept: stop.kept,
        }
    }
}

/// The mean size of the `WINDOW` evaluations before the last `WINDOW` over that of the last ones, and the epoch of the
/// last of the earlier ones; `None` while there are not as many. `seen`: epochs and eigenvalues.
fn rise(seen: &[(usize, f64)]) -> Option<(usize, f64)> {
    let size = |values: &[(usize, f64)]| values.iter().map(|(_, value)| value.abs()).sum::<f64>();
    let split = seen.len().checked_sub(WINDOW)?;
    let earlier = &seen[split.checked_sub(WINDOW)?..split];
    let (epoch, _) = earlier.last()?;
    Some((*epoch, size(earlier) / size(&seen[split..])))
}

/// A unit vector that depends on the seed only.
pub(super) fn direction(length: usize, seed: u64) -> Vec<f64> {
    let mut random = Stream::new(seed, "search curvature direction", 0);
    unit((0..length).map(|_| random.random_range(-1.0..1.0)).collect())
}

fn unit(mut vector: Vec<f64>) -> Vec<f64> {
    let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
    if length > 0.0 {
        for value in &mut vector {
            *value /= length;
        }
    }
    vector
}

/// The gradient of a function at a point.
type GradientAt<'f, E> = dyn FnMut(&[f64]) -> Result<Vec<f64>, E> + 'f;

/// The eigenvalue of largest size of the Hessian whose gradient is given, by power iteration on
/// H·v ≈ (g(x + εv) − g(x − εv)) / 2ε; its Rayleigh quotient, with its sign.
pub(super) fn dominant_eigenvalue<E>(
    gradient: &mut GradientAt<'_, E>,
    at: &[f64],
    start: Vec<f64>,
    iterations: usize,
) -> Result<f64, E> {
    let mut vector = start;
    let mut value = 0.0;
    for _ in 0..iterations {
        let mut beside = |sign: f64| {
            let moved: Vec<f64> = at.iter().zip(&vector).map(|(x, v)| x + sign * DISTANCE * v).collect();
            gradient(&moved)
        };
        let (ahead, behind) = (beside(1.0)?, beside(-1.0)?);
        let product: Vec<f64> =
            ahead.iter().zip(&behind).map(|(ahead, behind)| (ahead - behind) / (2.0 * DISTANCE)).collect();
        value = vector.iter().zip(&product).map(|(v, p)| v * p).sum();
        vector = unit(product);
    }
    Ok(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn the_eigenvalue_of_a_known_hessian_is_found_with_its_sign() {
        // H = Q·diag(−5, 3, 1)·Qᵀ with Q a rotation in the first two coordinates; g = H·x.
        let (cos, sin) = (0.8, 0.6);
        let hessian = [
            [-5.0 * cos * cos + 3.0 * sin * sin, -8.0 * cos * sin, 0.0],
            [-8.0 * cos * sin, -5.0 * sin * sin + 3.0 * cos * cos, 0.0],
            [0.0, 0.0, 1.0],
        ];
        let mut gradient = |x: &[f64]| -> Result<Vec<f64>, Infallible> {
            Ok(hessian.iter().map(|row| row.iter().zip(x).map(|(h, x)| h * x).sum()).collect())
        };
        let found = dominant_eigenvalue(&mut gradient, &[0.3, -1.0, 2.0], direction(3, 1), 60).unwrap();
        assert!((found + 5.0).abs() < 1e-6, "{found}");
    }

    #[test]
    fn a_rise_is_seen_once_two_windows_are_there() {
        let seen = |values: &[f64]| values.iter().copied().enumerate().collect::<Vec<_>>();
        assert_eq!(rise(&seen(&[1.0; 9])), None);
        assert_eq!(rise(&seen(&[1.0; 10])), Some((4, 1.0)));
        assert_eq!(rise(&seen(&[[1.0; 5], [2.0; 5]].concat())), Some((4, 0.5)));
        // Only the last ten count, and a change of sign is no rise.
        assert_eq!(rise(&seen(&[[9.0; 5], [-1.0; 5], [1.0; 5]].concat())), Some((9, 1.0)));
    }
}
