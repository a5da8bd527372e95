//! Weights and biases as integers.

use super::{Affine, QuantizeError};
use crate::{Node, OpSpec, Shape, Weights};

/// Largest bias, so that the sum in front of it can't overflow 32 bits.
const LARGEST_BIAS: f64 = (1_u32 << 30) as f64;

/// Weights and bias of a convolution or linear layer; or slopes, without a bias.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Filter {
    /// In the layout of [`OpSpec`].
    pub(crate) weights: Vec<i8>,
    /// What a weight of an output channel stands for: `scale · q`. One for all in a linear layer.
    pub(crate) scales: Vec<f32>,
    /// Per output channel, in units of its [`Filter::bias_scale`].
    pub(crate) bias: Vec<i32>,
}

impl Filter {
    /// Rounds the weights of a folded node that reads `source`.
    pub(super) fn of(
        node: &Node,
        input: Shape,
        weights: &Weights,
        source: Affine,
    ) -> Result<Self, QuantizeError> {
        let mut parameters = node.op.parameters(input).into_iter();
        let mut next = || match parameters.next() {
            Some((suffix, dims)) => weights.get(&format!("{}.{suffix}", node.name), &dims),
            None => Ok(&[][..]),
        };
        let (values, shifts) = (next()?, next()?);
        let channels = shifts.len().max(1);
        let each = (values.len() / channels).max(1);
        let largest = |values: &[f32]| values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        // A bias that is huge beside its weights needs a coarser scale to stay within 32 bits.
        let scale = |values: &[f32], shift: f32| {
            let coarse = f64::from(shift.abs()) / (LARGEST_BIAS * f64::from(source.scale));
            let scale = (f64::from(largest(values)) / 127.0).max(coarse);
            (if scale > 0.0 { scale } else { 1.0 / 127.0 }) as f32
        };
        let scales: Vec<f32> = if let OpSpec::Linear { .. } = node.op {
            vec![scale(values, largest(shifts))]
        } else {
            values.chunks(each).zip(shifts).map(|(values, &shift)| scale(values, shift)).collect()
        };
        let of = |channel: usize| f64::from(scales[channel.min(scales.len() - 1)]);
        let round = |(index, &value): (usize, &f32)| {
            (f64::from(value) / of(index / each)).round_ties_even().clamp(-127.0, 127.0) as i8
        };
        let bias = |(channel, &shift): (usize, &f32)| {
            (f64::from(shift) / (of(channel) * f64::from(source.scale))).round_ties_even() as i32
        };
        Ok(Self {
            weights: values.iter().enumerate().map(round).collect(),
            bias: shifts.iter().enumerate().map(bias).collect(),
            scales,
        })
    }

    /// Slopes of negative values, one scale for all.
    pub(super) fn slopes(values: &[f32]) -> Self {
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 / 127.0 };
        let round = |value: &f32| (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
        Self { weights: values.iter().map(round).collect(), scales: vec![scale], bias: Vec::new() }
    }

    /// Scale of an output channel's weights.
    pub(crate) fn scale(&self, channel: usize) -> f32 {
        self.scales[channel.min(self.scales.len() - 1)]
    }

    /// Scales of the biases, as many as of the weights.
    pub(crate) fn bias_scales(&self, source: Affine) -> Vec<f32> {
        self.scales.iter().map(|scale| scale * source.scale).collect()
    }
}
