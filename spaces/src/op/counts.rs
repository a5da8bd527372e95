//! What an operator costs: multiply-accumulates, parameters, tensor ranks.

use super::OpSpec;
use crate::Shape;

impl OpSpec {
    /// Multiply-accumulates of convolutions, linear layers and attention's two products; everything else
    /// counts as none.
    pub fn macs(&self, input: Shape, output: Shape) -> u64 {
        let per_output = match *self {
            Self::Conv2d { kernel, groups, .. } => input.c / groups * kernel * kernel,
            Self::Linear { .. } => input.elements() / input.n.max(1),
            Self::ConvTranspose2d { out_channels, kernel, groups, .. } => {
                return (input.elements() * out_channels / groups * kernel * kernel) as u64;
            }
            Self::Attention { heads, key_dim, value_dim, window, .. } => {
                let tokens = window.map_or(input.h * input.w, |window| window * window);
                return (input.n * input.h * input.w * tokens * heads * (key_dim + value_dim)) as u64;
            }
            _ => 0,
        };
        output.elements() as u64 * per_output as u64
    }

    /// Learned parameters, as `(suffix, extents)`; batch-norm statistics are not among them.
    pub fn parameters(&self, input: Shape) -> Vec<(&'static str, Vec<usize>)> {
        match *self {
            Self::Conv2d { out_channels, kernel, groups, bias, .. } => {
                let mut list = vec![("weight", vec![out_channels, input.c / groups, kernel, kernel])];
                if bias {
                    list.push(("bias", vec![out_channels]));
                }
                list
            }
            Self::BatchNorm { affine: true } | Self::GroupNorm { .. } | Self::LayerNorm => {
                vec![("weight", vec![input.c]), ("bias", vec![input.c])]
            }
            Self::Prelu => vec![("weight", vec![input.c])],
            Self::ScalarAffine => vec![("weight", vec![1]), ("bias", vec![1])],
            Self::ConvTranspose2d { out_channels, kernel, groups, bias, .. } => {
                let mut list = vec![("weight", vec![input.c, out_channels / groups, kernel, kernel])];
                if bias {
                    list.push(("bias", vec![out_channels]));
                }
                list
            }
            Self::Attention { heads, window, relative_bias: true, .. } => {
                let distances = window.map_or(input.h * input.w, |window| window * window);
                vec![("bias", vec![heads, distances])]
            }
            Self::Linear { out_features, bias } => {
                let mut list = vec![("weight", vec![out_features, input.elements() / input.n.max(1)])];
                if bias {
                    list.push(("bias", vec![out_features]));
                }
                list
            }
            _ => Vec::new(),
        }
    }

    /// Running statistics, as `(suffix, extents)`: a batch norm's mean and variance.
    pub fn statistics(&self, input: Shape) -> Vec<(&'static str, Vec<usize>)> {
        match self {
            Self::BatchNorm { .. } => vec![("running_mean", vec![input.c]), ("running_var", vec![input.c])],
            _ => Vec::new(),
        }
    }

    /// Largest number of extents of any tensor on the way, in the chain of standard operators that files
    /// say it with: engines for phones and microcontrollers often stop at 4.
    pub const fn max_tensor_rank(&self) -> usize {
        match self {
            Self::ChannelShuffle { .. } => 5,
            Self::Attention { window: Some(_), .. } => 6,
            _ => 4,
        }
    }
}
