//! How expected values and their targets enter the architecture's loss: dual ascent and, for comparison, the
//! published alternatives.
//!
//! Every form but FBNet's is in the ratio of a value to its target, so that the unit has no part in it. The two
//! logarithmic forms take logarithms of the values themselves, in microseconds, operations or parameters; a
//! value of 1 or less would turn their sign and give no number under a fractional power, which is refused
//! before the search ([`logarithm_of_too_little`]).

use tch::{Kind, Tensor};

use crate::{Limit, Method, ObjectiveSettings};

/// Half the width of the part around the target in which the absolute value is a parabola.
const SMOOTH: f64 = 0.02;

/// What a step's loss is made of.
pub(crate) struct Terms<'a> {
    /// This process's part of the cross-entropy, a function of the logits.
    pub cross_entropy: Tensor,
    /// The whole cross-entropy.
    pub value: f64,
    /// Expected values, `[limits]`, functions of α and β.
    pub expected: &'a Tensor,
    /// What they should be.
    pub targets: &'a [f64],
    /// λ of each.
    pub multipliers: &'a [f64],
}

impl Terms<'_> {
    /// The loss whose gradient moves α and β. Of several processes the parts of the logits add up to the
    /// whole, while the part in α and β is the whole's in each.
    pub fn loss(&self, objective: &ObjectiveSettings) -> Tensor {
        let targets = Tensor::from_slice(self.targets);
        let excess = self.expected / &targets - 1.0;
        let weight = objective.weight;
        let sum = |terms: Tensor| terms.sum(Kind::Double);
        match objective.method {
            Method::Dual | Method::Regressor => {
                &self.cross_entropy + sum(excess * Tensor::from_slice(self.multipliers))
            }
            // The policy has no part in the loss of the relaxation.
            Method::Reinforce => self.cross_entropy.shallow_clone(),
            Method::Linear => &self.cross_entropy + sum(excess) * weight,
            Method::Absolute => {
                let size = excess.abs();
                let near = &size * &size / (2.0 * SMOOTH);
                let far = &size - SMOOTH / 2.0;
                &self.cross_entropy + sum(near.where_self(&size.lt(SMOOTH), &far)) * weight
            }
            Method::Logarithmic => self.times(&(self.expected.log() / targets.log()), objective),
            Method::Fbnet => self.times(&self.expected.log(), objective),
        }
    }

    /// CE · w · Π factor^x.
    fn times(&self, factors: &Tensor, objective: &ObjectiveSettings) -> Tensor {
        let factor = (factors.log().sum(Kind::Double) * objective.exponent).exp() * objective.weight;
        &self.cross_entropy * factor.detach() + factor * self.value
    }
}

/// Whether a limit can become 1 or less in its unit, which the logarithmic forms have no answer for.
pub(crate) fn logarithm_of_too_little(method: Method, limit: &Limit, least: f64) -> bool {
    matches!(method, Method::Logarithmic | Method::Fbnet) && (least <= 1.0 || limit.mean_at_most() <= 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixtures, optimizer::gradients};

    /// Loss and its derivative with respect to an expected value, at a cross-entropy of 2.
    fn at(method: Method, expected: f64, target: f64, lambda: f64) -> [f64; 2] {
        let [weight, exponent] = method.published();
        let objective = ObjectiveSettings { method, weight, exponent, ..fixtures::objective() };
        let leaf = Tensor::from_slice(&[expected]).set_requires_grad(true);
        let cross_entropy = Tensor::from_slice(&[2.0f64]).set_requires_grad(true);
        let terms = Terms {
            cross_entropy: cross_entropy.get(0),
            value: 2.0,
            expected: &leaf,
            targets: &[target],
            multipliers: &[lambda],
        };
        let loss = terms.loss(&objective);
        let slope = gradients(&loss, &[&leaf])[0].double_value(&[0]);
        [loss.double_value(&[]), slope]
    }

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-9 * expected.abs().max(1.0), "{got}, expected {expected}");
    }

    #[test]
    fn every_form_has_the_slope_of_its_formula() {
        let (e, t) = (1500.0, 1000.0);
        close(at(Method::Dual, e, t, 0.7)[1], 0.7 / t);
        close(at(Method::Dual, e, t, 0.7)[0], 2.0 + 0.7 * 0.5);
        close(at(Method::Linear, e, t, 0.0)[1], 0.2 / t);
        close(at(Method::Absolute, e, t, 0.0)[1], 0.1 / t);
        close(at(Method::Absolute, 500.0, t, 0.0)[1], -0.1 / t);
        // d/dE 2·(ln E / ln T)^0.6 = 2·0.6·(ln E / ln T)^−0.4 / (E ln T).
        let slope = 2.0 * 0.6 * (e.ln() / t.ln()).powf(-0.4) / (e * t.ln());
        close(at(Method::Logarithmic, e, t, 0.0)[1], slope);
        let slope = 2.0 * 0.2 * 0.6 * e.ln().powf(-0.4) / e;
        close(at(Method::Fbnet, e, t, 0.0)[1], slope);
    }

    #[test]
    fn the_absolute_value_does_not_jump_at_the_target() {
        for excess in [-0.02, -0.01, 0.0, 0.01, 0.02] {
            let slope = at(Method::Absolute, 1000.0 * (1.0 + excess), 1000.0, 0.0)[1];
            close(slope * 1000.0, 0.1 * excess / 0.02);
        }
    }

    #[test]
    fn ratio_forms_do_not_know_the_unit() {
        for method in [Method::Dual, Method::Linear, Method::Absolute] {
            let [in_micros, _] = at(method, 1500.0, 1000.0, 0.3);
            let [in_millis, _] = at(method, 1.5, 1.0, 0.3);
            close(in_millis, in_micros);
        }
    }

    #[test]
    fn a_logarithm_below_zero_is_refused() {
        let space = fixtures::small();
        let table = fixtures::table(&space, 1);
        let limit = |target| Limit::latency("l", &space, &table, lathe_spaces::Micros(target));
        for (target, least, refused) in [(300.0, 60.0, false), (0.5, 60.0, true), (300.0, 0.9, true)] {
            let limit = limit(target).unwrap_or_else(|error| unreachable!("{error}"));
            assert_eq!(logarithm_of_too_little(Method::Logarithmic, &limit, least), refused);
            assert_eq!(logarithm_of_too_little(Method::Fbnet, &limit, least), refused);
            assert!(!logarithm_of_too_little(Method::Linear, &limit, least));
        }
    }
}
