//! The two optimisers, on flat vectors: a handful of operations a step, and a state that is plain
//! tensors.

use tch::{Tensor, no_grad};

/// Stochastic gradient descent with momentum, weight decay and a clipped gradient.
#[derive(Debug)]
pub(crate) struct Sgd {
    /// Running sum of gradients, one per value.
    pub momentum: Tensor,
}

/// Numbers of one [`Sgd`] step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SgdStep {
    /// Step size.
    pub learning_rate: f64,
    /// Share of the running sum that is kept.
    pub momentum: f64,
    /// Weight of the values themselves in their gradient.
    pub weight_decay: f64,
    /// Largest Euclidean norm of the gradient.
    pub clip: f64,
}

impl Sgd {
    /// At rest.
    pub fn new(values: &Tensor) -> Self {
        Self { momentum: values.zeros_like() }
    }

    /// v ← momentum · v + clipped gradient + decay · w; w ← w − rate · v.
    pub fn step(&mut self, values: &mut Tensor, gradient: &Tensor, step: &SgdStep) {
        no_grad(|| {
            let mut gradient = gradient.copy();
            // PyTorch's clip_grad_norm_ has this 1e-6 too.
            let scale = (step.clip / (gradient.norm().double_value(&[]) + 1e-6)).min(1.0);
            let _ = gradient.g_mul_scalar_(scale);
            gradient += &*values * step.weight_decay;
            let _ = self.momentum.g_mul_scalar_(step.momentum);
            self.momentum += gradient;
            *values -= &self.momentum * step.learning_rate;
        });
    }
}

/// Adam (Kingma & Ba 2015) with weight decay added to the gradient.
#[derive(Debug)]
pub(crate) struct Adam {
    /// First moment.
    pub first: Tensor,
    /// Second moment.
    pub second: Tensor,
    /// Steps taken.
    pub steps: i32,
    /// Decay of the first and second moment.
    betas: [f64; 2],
}

/// Decay of the moments in DARTS.
const BETAS: [f64; 2] = [0.5, 0.999];
const EPSILON: f64 = 1e-8;

impl Adam {
    /// At rest.
    pub fn new(values: &Tensor) -> Self {
        Self::with(values, BETAS)
    }

    /// At rest, with other decays of the moments.
    pub fn with(values: &Tensor, betas: [f64; 2]) -> Self {
        Self { first: values.zeros_like(), second: values.zeros_like(), steps: 0, betas }
    }

    /// One step.
    pub fn step(&mut self, values: &mut Tensor, gradient: &Tensor, learning_rate: f64, weight_decay: f64) {
        no_grad(|| {
            let gradient = gradient + &*values * weight_decay;
            self.steps += 1;
            let [first, second] = self.betas;
            self.first = &self.first * first + &gradient * (1.0 - first);
            self.second = &self.second * second + &gradient * &gradient * (1.0 - second);
            let [bias1, bias2] = self.betas.map(|beta| 1.0 - beta.powi(self.steps));
            let root = self.second.sqrt() / bias2.sqrt() + EPSILON;
            *values -= &self.first / root * (learning_rate / bias1);
        });
    }
}

/// Tensors one after the other, as one vector.
pub(crate) fn flatten(tensors: &[Tensor]) -> Tensor {
    let flat: Vec<Tensor> = tensors.iter().map(|tensor| tensor.flatten(0, -1)).collect();
    Tensor::cat(&flat, 0)
}

/// Rate of an epoch: half a cosine from `highest` at the first to (almost) `lowest` at the last.
pub(crate) fn cosine(highest: f64, lowest: f64, epoch: usize, epochs: usize) -> f64 {
    let progress = epoch as f64 / epochs as f64;
    lowest + (highest - lowest) * (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0
}

/// Gradient of `loss` with respect to `leaves` and nothing else.
pub(crate) fn gradients(loss: &Tensor, leaves: &[&Tensor]) -> Vec<Tensor> {
    let gradients = Tensor::run_backward(&[loss], leaves, false, false);
    // What the loss does not depend on comes back undefined.
    let defined = |(gradient, leaf): (Tensor, &&Tensor)| {
        if gradient.defined() { gradient } else { no_grad(|| leaf.zeros_like()) }
    };
    gradients.into_iter().zip(leaves).map(defined).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(tensor: &Tensor, expected: &[f64]) {
        for (index, expected) in expected.iter().enumerate() {
            let got = tensor.double_value(&[index as i64]);
            assert!((got - expected).abs() < 1e-12, "element {index}: got {got}, expected {expected}");
        }
    }

    #[test]
    fn sgd_steps_are_those_by_hand() {
        let mut w = Tensor::from_slice(&[1.0f64, -2.0]);
        let mut sgd = Sgd::new(&w);
        let step = SgdStep { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.01, clip: 5.0 };
        // Gradient (6, 8) has norm 10 and is halved (but for the 1e-6 in the divisor).
        let half = 5.0 / (10.0 + 1e-6);
        let v = [6.0 * half + 0.01, 8.0 * half - 0.02];
        sgd.step(&mut w, &Tensor::from_slice(&[6.0f64, 8.0]), &step);
        let after = [1.0 - 0.1 * v[0], -2.0 - 0.1 * v[1]];
        close(&w, &after);
        // A small gradient is not clipped, and the momentum carries on.
        sgd.step(&mut w, &Tensor::from_slice(&[0.3f64, 0.4]), &step);
        let v = [0.9 * v[0] + 0.3 + 0.01 * after[0], 0.9 * v[1] + 0.4 + 0.01 * after[1]];
        close(&w, &[after[0] - 0.1 * v[0], after[1] - 0.1 * v[1]]);
    }

    #[test]
    fn adam_steps_are_those_by_hand() {
        let mut w = Tensor::from_slice(&[0.5f64]);
        let mut adam = Adam::new(&w);
        let (mut expected, mut m, mut v) = (0.5, 0.0, 0.0);
        for (step, gradient) in [(1, 0.2), (2, -0.7), (3, 0.1)] {
            adam.step(&mut w, &Tensor::from_slice(&[gradient]), 0.01, 0.1);
            let g: f64 = gradient + 0.1 * expected;
            m = 0.5 * m + 0.5 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (m_hat, v_hat) = (m / (1.0 - 0.5f64.powi(step)), v / (1.0 - 0.999f64.powi(step)));
            expected -= 0.01 * m_hat / (v_hat.sqrt() + 1e-8);
            close(&w, &[expected]);
        }
    }

    #[test]
    fn cosine_starts_high_and_falls_to_the_lowest() {
        assert!((cosine(0.1, 0.001, 0, 50) - 0.1).abs() < 1e-15);
        assert!((cosine(0.1, 0.0, 25, 50) - 0.05).abs() < 1e-15);
        assert!((cosine(0.1, 0.001, 50, 50) - 0.001).abs() < 1e-15);
    }
}
