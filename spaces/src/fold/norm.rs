//! A batch norm in inference mode is a scale and a shift per channel.

use crate::{BATCH_NORM_EPSILON, Node, OpSpec, Weights, WeightsError};

/// Scale and shift per channel of a batch norm.
pub(crate) fn scale_and_shift(node: &Node, weights: &Weights) -> Result<(Vec<f32>, Vec<f32>), WeightsError> {
    let dims = [node.shape.c];
    let tensor = |suffix: &str| weights.get(&format!("{}.{suffix}", node.name), &dims);
    let (mean, variance) = (tensor("running_mean")?, tensor("running_var")?);
    let learned = if node.op == (OpSpec::BatchNorm { affine: true }) {
        Some((tensor("weight")?, tensor("bias")?))
    } else {
        None
    };
    let of = |channel: usize| {
        let (weight, bias) = learned
            .map_or((1.0, 0.0), |(weight, bias)| (f64::from(weight[channel]), f64::from(bias[channel])));
        let scale = weight / (f64::from(variance[channel]) + BATCH_NORM_EPSILON).sqrt();
        (scale as f32, (bias - f64::from(mean[channel]) * scale) as f32)
    };
    Ok((0..node.shape.c).map(of).unzip())
}

/// Scales and shifts what a layer puts out: its weights, output channel by output channel, and biases.
pub(crate) fn behind(weight: &mut [f32], bias: &mut [f32], scale: &[f32], shift: &[f32]) {
    let each = weight.len() / bias.len().max(1);
    for (channel, values) in weight.chunks_mut(each.max(1)).enumerate() {
        for value in values {
            *value *= scale[channel];
        }
        bias[channel] = bias[channel] * scale[channel] + shift[channel];
    }
}
