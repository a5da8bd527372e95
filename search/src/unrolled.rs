//! The second-order gradient of the architecture (Liu et al. 2019, section 2.3).
//!
//! With w′ = w − ξ·(momentum·v + ∇w L(w, α) + decay·w) on a training batch, the gradient of the held-out
//! loss L′(w′(α), α) is ∇α L′(w′, α) − ξ·∇²αw L(w, α)·∇w′ L′(w′, α). The product with the second
//! derivative is a central difference (equation 8): with d = ∇w′ L′ and ε = 0.01 / ‖d‖ it is
//! (∇α L(w + ε·d, α) − ∇α L(w − ε·d, α)) / 2ε. The gradient is not clipped in w′, as in the authors' code.

use tch::{Tensor, no_grad};

use crate::{
    Batch,
    distributed::CollectiveError,
    optimizer::SgdStep,
    search_loop::cross_entropy,
    supernet::{Architecture, Element, Learn, Model},
};

/// ε·‖d‖ of the central difference: the paper's.
pub(crate) const DISTANCE: f64 = 0.01;

/// What the weights and running statistics were before the step ahead.
#[derive(Debug)]
pub(crate) struct Unrolled {
    weights: Tensor,
    statistics: Tensor,
    rate: f64,
}

/// Moves the weights one step ahead on a training batch. The architecture's gradient of the held-out loss
/// is to be taken there; then [`Unrolled::correction`] takes the weights back. `velocity` is the
/// optimiser's running sum.
pub(crate) fn look_ahead<T: Element>(
    model: &mut Model<T>,
    architecture: &Architecture,
    training: &Batch,
    velocity: &Tensor,
    step: &SgdStep,
) -> Result<Unrolled, CollectiveError> {
    let parameters = model.parameters();
    let (weights, statistics) = (parameters.flat.copy(), parameters.flat_statistics.copy());
    let pass = model.forward(&training.images, architecture, Learn::Weights, true)?;
    let loss = cross_entropy(&pass.logits, &training.labels, training.whole);
    let gradient = model.weight_gradient(&pass, &loss)?;
    let direction = velocity * step.momentum + gradient + &weights * step.weight_decay;
    let rate = step.learning_rate;
    move_to(model, &(&weights - direction * rate), &statistics);
    Ok(Unrolled { weights, statistics, rate })
}

impl Unrolled {
    /// What is to be added to the gradient taken at w′, in the order of the architecture's flat vector, by a
    /// central difference over ±`distance` ([`DISTANCE`]).
    /// Weights and running statistics are then as before the step ahead.
    pub fn correction<T: Element>(
        self,
        model: &mut Model<T>,
        architecture: &Architecture,
        held_out: &Batch,
        training: &Batch,
        distance: f64,
    ) -> Result<Tensor, CollectiveError> {
        let Self { weights, statistics, rate } = self;
        let pass = model.forward(&held_out.images, architecture, Learn::Weights, true)?;
        let loss = cross_entropy(&pass.logits, &held_out.labels, held_out.whole);
        let direction = model.weight_gradient(&pass, &loss)?;
        let epsilon = distance / (direction.norm().double_value(&[]) + f64::MIN_POSITIVE);
        let mut gradient_at = |epsilon: f64| {
            move_to(model, &(&weights + &direction * epsilon), &statistics);
            let pass = model.forward(&training.images, architecture, Learn::Architecture, true)?;
            let loss = cross_entropy(&pass.logits, &training.labels, training.whole);
            model.architecture_gradient(architecture, &pass, &loss)
        };
        let difference = gradient_at(epsilon)? - gradient_at(-epsilon)?;
        move_to(model, &weights, &statistics);
        Ok(difference * (-rate / (2.0 * epsilon)))
    }
}

fn move_to<T: Element>(model: &mut Model<T>, weights: &Tensor, statistics: &Tensor) {
    let parameters = model.parameters_mut();
    no_grad(|| {
        parameters.flat.copy_(weights);
        parameters.flat_statistics.copy_(statistics);
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use lathe_spaces::{Shape, seeded_input};
    use tch::Kind;

    use super::*;
    use crate::{Implementation, Precision, SupernetSettings, TrainingDevice, fixtures};

    fn batch(seed: u64) -> Batch {
        let values = seeded_input(Shape::new(8, 3, 8, 8), seed);
        let labels: Vec<i64> = (0..8).map(|image| (image * 3 + seed as i64) % 10).collect();
        Batch {
            images: Tensor::from_slice(&values).to_kind(Kind::Double).view([8, 3, 8, 8]),
            labels: Tensor::from_slice(&labels),
            whole: 8,
        }
    }

    /// Held-out loss after one step of the weights, as a function of the architecture.
    fn loss_ahead(
        model: &mut Model<f64>,
        architecture: &Architecture,
        velocity: &Tensor,
        step: &SgdStep,
        [held_out, training]: [&Batch; 2],
    ) -> f64 {
        let ahead = look_ahead(model, architecture, training, velocity, step).unwrap();
        let pass = model.forward(&held_out.images, architecture, Learn::Nothing, true).unwrap();
        let loss = cross_entropy(&pass.logits, &held_out.labels, held_out.whole).double_value(&[]);
        move_to(model, &ahead.weights, &ahead.statistics);
        loss
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss_one_step_ahead() {
        tch::set_num_threads(1);
        let space = fixtures::darts_of(8, 3, 8);
        for implementation in [Implementation::Fused, Implementation::Plain] {
            let settings = SupernetSettings {
                width: 4,
                layers: 3,
                partial_channels: 2,
                implementation,
                device: TrainingDevice::Cpu,
                precision: Precision::Float32,
            };
            let mut model: Model<f64> = Model::new(&space, settings, 7, 1, None).unwrap();
            let mut architecture = Architecture::new(&space, Kind::Double, 7).unwrap();
            let velocity = model.parameters().flat.sin() * 0.05;
            // A long step: the second-order part must not drown in the first-order one.
            let step = SgdStep { learning_rate: 0.5, momentum: 0.9, weight_decay: 1e-2, clip: 5.0 };
            let (held_out, training) = (batch(1), batch(2));
            let before = model.parameters().flat.copy();
            let statistics = model.parameters().flat_statistics.copy();

            // A short difference: over a longer one rectifications switch, which a slope at a point does not see.
            let ahead = look_ahead(&mut model, &architecture, &training, &velocity, &step).unwrap();
            let pass = model.forward(&held_out.images, &architecture, Learn::Architecture, true).unwrap();
            let loss = cross_entropy(&pass.logits, &held_out.labels, held_out.whole);
            let first = model.architecture_gradient(&architecture, &pass, &loss).unwrap();
            let second = ahead.correction(&mut model, &architecture, &held_out, &training, 1e-6).unwrap();
            assert!(model.parameters().flat.equal(&before));
            assert!(model.parameters().flat_statistics.equal(&statistics));
            let gradient = &first + &second;

            // Slopes along directions that move all of α and β at once.
            for seed in 0..4 {
                let length = architecture.flat.numel() as i64;
                let direction = (Tensor::arange(length, (Kind::Double, tch::Device::Cpu))
                    * (1.3 + f64::from(seed)))
                .sin();
                let center = architecture.flat.copy();
                let mut at = |distance: f64| {
                    no_grad(|| architecture.flat.copy_(&(&center + &direction * distance)));
                    loss_ahead(&mut model, &architecture, &velocity, &step, [&held_out, &training])
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                no_grad(|| architecture.flat.copy_(&center));
                let along = |gradient: &Tensor| (gradient * &direction).sum(Kind::Double).double_value(&[]);
                let error = (along(&gradient) - slope).abs();
                let correction = along(&second).abs();
                assert!(
                    error < 0.02 * correction.max(along(&first).abs() * 0.05),
                    "{implementation:?}, direction {seed}: slope {slope}, gradient {}, of it second order {}",
                    along(&gradient),
                    along(&second)
                );
            }
        }
    }
}
