//! The operations of DARTS and the mixture of them on one edge, on a part of the channels.

use lathe_spaces::Shape;
use tch::Tensor;

use super::{
    layers::{Layers, Window},
    parameters::ParameterBuilder,
};

/// Names that [`operation`] knows.
pub(crate) const OPERATIONS: [&str; 8] = [
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
];

/// What a choice computes.
#[derive(Debug)]
pub(crate) enum Operation {
    /// `none`: always zero, so never computed.
    Nothing,
    /// Anything else.
    Layers(Layers),
}

/// Builds the operation of a choice for `channels` channels, without learned batch norms; `None` for
/// a name that isn't in [`OPERATIONS`].
pub(crate) fn operation(
    build: &mut ParameterBuilder,
    name: &str,
    choice: &str,
    channels: usize,
    stride: usize,
) -> Option<Operation> {
    let mut layers = Layers::default();
    // ReLU, depthwise, pointwise, batch norm.
    let mut separable = |kernel: usize, strides: &[usize], dilation: usize, layers: &mut Layers| {
        for &stride in strides {
            layers.relu();
            layers.depthwise(build, name, channels, Window { kernel, stride, dilation });
            layers.conv(build, name, [channels; 2], Window { kernel: 1, stride: 1, dilation: 1 });
            layers.batch_norm(build, name, channels, false);
        }
    };
    match choice {
        "none" => return Some(Operation::Nothing),
        "max_pool_3x3" => {
            layers.max_pool(stride);
            layers.batch_norm(build, name, channels, false);
        }
        "avg_pool_3x3" => {
            layers.avg_pool(stride);
            layers.batch_norm(build, name, channels, false);
        }
        "skip_connect" if stride == 1 => {}
        "skip_connect" => layers = factorized_reduce(build, name, [channels; 2]),
        "sep_conv_3x3" => separable(3, &[stride, 1], 1, &mut layers),
        "sep_conv_5x5" => separable(5, &[stride, 1], 1, &mut layers),
        "dil_conv_3x3" => separable(3, &[stride], 2, &mut layers),
        "dil_conv_5x5" => separable(5, &[stride], 2, &mut layers),
        _ => return None,
    }
    Some(Operation::Layers(layers))
}

/// `ReLU`, two shifted 1×1 convolutions of stride 2, batch norm.
pub(crate) fn factorized_reduce(build: &mut ParameterBuilder, name: &str, channels: [usize; 2]) -> Layers {
    let mut layers = Layers::default();
    layers.relu();
    layers.halve(build, name, channels);
    layers.batch_norm(build, name, channels[1], false);
    layers
}

/// All operations of one edge, of any space. Only the first 1/K of the channels pass through them; the rest goes
/// around, and a channel shuffle mixes both (partial channel connection).
#[derive(Debug)]
pub(crate) struct MixedOperation {
    operations: Vec<Operation>,
    /// K.
    partial: i64,
    stride: i64,
}

impl MixedOperation {
    /// `partial` must divide the channels of the input.
    pub fn new(operations: Vec<Operation>, partial: usize, stride: usize) -> Self {
        Self { operations, partial: partial as i64, stride: stride as i64 }
    }

    /// `weights`: one scalar tensor per choice. `[B, C, H, W]` → `[B, C, H/stride, W/stride]`.
    pub fn forward(&self, input: &Tensor, weights: &[Tensor], training: bool) -> Tensor {
        let channels = input.size()[1];
        let processed = channels / self.partial;
        let part = input.narrow(1, 0, processed);
        let mut mixed: Option<Tensor> = None;
        for (operation, weight) in self.operations.iter().zip(weights) {
            let Operation::Layers(layers) = operation else { continue };
            let term = layers.forward(&part, training) * weight;
            mixed = Some(match mixed {
                Some(sum) => sum + term,
                None => term,
            });
        }
        // An edge that offers only `none`.
        let mixed =
            mixed.unwrap_or_else(|| part.slice(2, 0, None, self.stride).slice(3, 0, None, self.stride) * 0.0);
        if self.partial == 1 {
            return mixed;
        }
        let rest = input.narrow(1, processed, channels - processed);
        let rest =
            if self.stride == 1 { rest } else { rest.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false) };
        channel_shuffle(&Tensor::cat(&[mixed, rest], 1), self.partial)
    }

    /// Shape of the output; multiply-accumulates are added to `macs`.
    pub fn trace(&self, input: Shape, macs: &mut u64) -> Shape {
        let part = Shape { c: input.c / self.partial as usize, ..input };
        for operation in &self.operations {
            if let Operation::Layers(layers) = operation {
                layers.trace(part, macs);
            }
        }
        let stride = self.stride as usize;
        Shape { h: input.h.div_ceil(stride), w: input.w.div_ceil(stride), ..input }
    }
}

/// Output channel c·K + g is input channel g·(C/K) + c, for K = `groups`. `[B, C, H, W]` → the same.
pub(crate) fn channel_shuffle(x: &Tensor, groups: i64) -> Tensor {
    let size = x.size();
    let grouped = x.view([size[0], groups, size[1] / groups, size[2], size[3]]);
    grouped.transpose(1, 2).contiguous().view(size.as_slice())
}
