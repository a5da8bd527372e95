//! The supernet as the search sees it: one of three implementations of the same mathematics.

use std::sync::Arc;

use lathe_spaces::{Skeleton, Space};
use tch::{Device, Tensor};

use super::{
    Architecture, Element, Fused, Grouped, GroupedNas201, Parameters, Plan, Shares, Supernet, SupernetError,
    fused,
};
use crate::{
    Implementation, Precision, SupernetSettings, TrainingDevice,
    cuda::half_precision,
    distributed::{Collective, CollectiveError, sum_tensor},
    optimizer::{flatten, gradients},
};

/// What gradients a forward pass must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learn {
    /// None.
    Nothing,
    /// Those of the weights; α and β are constants.
    Weights,
    /// Those of α and β.
    Architecture,
}

/// A forward pass.
#[derive(Debug)]
pub(crate) struct Pass {
    /// `[B, classes]`; part of autograd.
    pub logits: Tensor,
    /// `[B, F]`: where autograd ends in the fused implementation.
    features: Option<Tensor>,
}

/// The supernet with its weights.
#[derive(Debug)]
pub(crate) struct Model<T> {
    supernet: Supernet,
    fused: Option<Fused<T>>,
    /// The grouped form, and the flat vector of weights as autograd sees it.
    grouped: Option<(GroupedForm, Tensor)>,
    device: Device,
    precision: Precision,
    collective: Option<Arc<dyn Collective>>,
}

/// The grouped form of a kind of space.
#[derive(Debug)]
enum GroupedForm {
    Darts(Box<Grouped>),
    Nas201(Box<GroupedNas201>),
}

impl<T: Element> Model<T> {
    /// Builds it; initial weights depend on `seed` only. Several processes need the fused implementation,
    /// whose batch norms see all of them.
    pub fn new(
        space: &Space,
        settings: SupernetSettings,
        seed: u64,
        threads: usize,
        collective: Option<Arc<dyn Collective>>,
    ) -> Result<Self, SupernetError> {
        let mut supernet = Supernet::new(space, settings, T::KIND, seed)?;
        let device = match settings.device {
            TrainingDevice::Cpu => Device::Cpu,
            TrainingDevice::Auto => Device::cuda_if_available(),
            TrainingDevice::Cuda if tch::Cuda::is_available() => Device::Cuda(0),
            TrainingDevice::Cuda => return Err(SupernetError::NoGpu),
        };
        if settings.precision == Precision::Bfloat16 && device == Device::Cpu {
            return Err(SupernetError::Precision);
        }
        // The fused kernels are for processors, and the plain layers stay on theirs.
        if matches!(space.skeleton, Skeleton::Nas201(_)) && settings.implementation == Implementation::Fused {
            return Err(SupernetError::Fused { space: space.name.clone() });
        }
        let implementation =
            if device == Device::Cpu { settings.implementation } else { Implementation::Grouped };
        if implementation != Implementation::Fused && collective.is_some() {
            return Err(SupernetError::Processes);
        }
        let (mut fused, mut grouped) = (None, None);
        match implementation {
            Implementation::Plain => {}
            Implementation::Fused => {
                fused = Some(Fused::new(space, settings, &supernet, threads, collective.clone())?);
            }
            Implementation::Grouped => {
                let parameters = supernet.parameters();
                let form = if let Skeleton::Nas201(_) = space.skeleton {
                    let (cells, partial) = (settings.layers, settings.partial_channels);
                    GroupedForm::Nas201(Box::new(GroupedNas201::new(space, cells, partial, parameters)))
                } else {
                    let plan = Plan::of(space, settings, parameters)?;
                    GroupedForm::Darts(Box::new(Grouped::new(plan, parameters)))
                };
                supernet.parameters_mut().move_to(device);
                let leaf = supernet.parameters().flat.detach().set_requires_grad(true);
                grouped = Some((form, leaf));
            }
        }
        Ok(Self { supernet, fused, grouped, device, precision: settings.precision, collective })
    }

    /// Where its tensors lie, and images must.
    pub fn device(&self) -> Device {
        self.device
    }

    /// All tensors.
    pub fn parameters(&self) -> &Parameters {
        self.supernet.parameters()
    }

    /// All tensors, to change them in place.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        self.supernet.parameters_mut()
    }

    /// Images `[B, 3, R, R]` to logits. With `training` batch norms use the batch's statistics and record
    /// them.
    pub fn forward(
        &mut self,
        images: &Tensor,
        architecture: &Architecture,
        learn: Learn,
        training: bool,
    ) -> Result<Pass, CollectiveError> {
        if let Some((grouped, leaf)) = &self.grouped {
            let leaf = if learn == Learn::Weights { leaf.shallow_clone() } else { leaf.detach() };
            let shares = architecture.probabilities(learn == Learn::Architecture);
            let statistics = &self.supernet.parameters().flat_statistics;
            let forward = || {
                let logits = match grouped {
                    GroupedForm::Darts(form) => form.forward(&leaf, statistics, images, &shares, training),
                    GroupedForm::Nas201(form) => form.forward(&leaf, statistics, images, &shares, training),
                };
                logits.to_kind(T::KIND)
            };
            let half = self.precision == Precision::Bfloat16;
            let forward = || if half { half_precision(forward) } else { forward() };
            let logits = if learn == Learn::Nothing { tch::no_grad(forward) } else { forward() };
            return Ok(Pass { logits, features: None });
        }
        let Some(fused) = &mut self.fused else {
            let mixture = architecture.mixture(learn == Learn::Architecture);
            let forward = || self.supernet.forward(images, &mixture, training);
            let logits = if learn == Learn::Nothing { tch::no_grad(forward) } else { forward() };
            return Ok(Pass { logits, features: None });
        };
        let shares = architecture.probabilities(false).iter().map(numbers).collect();
        let features = fused.forward(self.supernet.parameters_mut(), images, shares, training)?;
        let features = features.set_requires_grad(learn != Learn::Nothing);
        Ok(Pass { logits: self.supernet.classify(&features), features: Some(features) })
    }

    /// Gradient of a loss of the last pass's logits with respect to all learned values, in the order of the
    /// flat vector. The losses of several processes add up to the whole: each gets the whole's gradient.
    pub fn weight_gradient(&mut self, pass: &Pass, loss: &Tensor) -> Result<Tensor, CollectiveError> {
        if let Some((_, leaf)) = &self.grouped {
            return Ok(flatten(&gradients(loss, &[leaf])));
        }
        let learned: Vec<&Tensor> =
            self.supernet.parameters().learned.iter().map(|(_, tensor)| tensor).collect();
        let (Some(fused), Some(features)) = (&mut self.fused, &pass.features) else {
            return Ok(flatten(&gradients(loss, &learned)));
        };
        // The classifier's weight and bias are the last ones.
        let classifier = &learned[learned.len() - 2..];
        let found = gradients(loss, &[features, classifier[0], classifier[1]]);
        let flat = fused.weight_gradient(&found[0])?;
        let classifier = flatten(&found[1..]);
        let length = classifier.numel() as i64;
        flat.narrow(0, flat.numel() as i64 - length, length).copy_(&classifier);
        self.total(flat)
    }

    /// Gradient of a loss of the last pass's logits, and of a term in α and β themselves, with respect to α
    /// and β, in the order of the architecture's flat vector. Of several processes the losses of the logits
    /// add up to the whole, while all have the same term in α and β.
    pub fn architecture_gradient(
        &mut self,
        architecture: &Architecture,
        pass: &Pass,
        loss: &Tensor,
    ) -> Result<Tensor, CollectiveError> {
        let leaves: Vec<&Tensor> = architecture.leaves().iter().collect();
        let (Some(fused), Some(features)) = (&mut self.fused, &pass.features) else {
            return Ok(flatten(&gradients(loss, &leaves)));
        };
        let mut wanted = vec![features];
        wanted.extend(&leaves);
        let direct = gradients(loss, &wanted);
        let shares = fused.share_gradient(&direct[0])?;
        // The chain rule through both softmaxes is autograd's.
        let mut sum = Tensor::zeros([], (T::KIND, tch::Device::Cpu));
        for ([alpha, beta], shares) in architecture.probabilities(true).iter().zip(&shares) {
            let rows: Vec<f64> = shares.alpha.concat();
            let towards = |values: &[f64], like: &Tensor| {
                Tensor::from_slice(values).to_kind(like.kind()).view(like.size().as_slice())
            };
            sum += (alpha * towards(&rows, alpha)).sum(alpha.kind());
            sum += (beta * towards(&shares.beta, beta)).sum(beta.kind());
        }
        let processes = self.collective.as_ref().map_or(1, |collective| collective.size());
        let flat = flatten(&direct[1..]) / processes as f64 + flatten(&gradients(&sum, &leaves));
        self.total(flat)
    }

    /// The sum over the processes.
    fn total(&self, mut gradient: Tensor) -> Result<Tensor, CollectiveError> {
        if let Some(collective) = &self.collective {
            sum_tensor(collective.as_ref(), &mut gradient)?;
        }
        Ok(gradient)
    }
}

fn numbers([alpha, beta]: &[Tensor; 2]) -> Shares {
    let choices = alpha.size()[1] as usize;
    let alpha: Vec<f64> = fused::values(alpha);
    Shares { alpha: alpha.chunks(choices).map(<[f64]>::to_vec).collect(), beta: fused::values(beta) }
}
