//! What an operator costs: multiply-accumulates, parameters, bytes, tensor ranks. Every operator has an arm of its
//! own, so that the compiler asks what a new one costs.

use super::OpSpec;
use crate::Shape;

/// Bytes that an operator reads and writes when it runs by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BytesMoved {
    /// Activations read; an input that is read twice counts twice.
    pub read: u64,
    /// Activations written.
    pub written: u64,
    /// Learned parameters read; statistics of batch norms are not among them.
    pub parameters: u64,
}

impl BytesMoved {
    /// All of them.
    pub const fn total(self) -> u64 {
        self.read + self.written + self.parameters
    }
}

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
            Self::Input
            | Self::BatchNorm { .. }
            | Self::Relu
            | Self::MaxPool { .. }
            | Self::AvgPool { .. }
            | Self::GlobalAvgPool
            | Self::Activation { .. }
            | Self::Add
            | Self::Mul
            | Self::Concat
            | Self::Crop { .. }
            | Self::ChannelShuffle { .. }
            | Self::Zero { .. }
            | Self::Mean
            | Self::Prelu
            | Self::GroupNorm { .. }
            | Self::LayerNorm
            | Self::ScalarAffine
            | Self::Slice { .. }
            | Self::Pad { .. }
            | Self::CropEnd { .. }
            | Self::DepthToSpace { .. } => 0,
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
            Self::BatchNorm { affine: false }
            | Self::Input
            | Self::Relu
            | Self::MaxPool { .. }
            | Self::AvgPool { .. }
            | Self::GlobalAvgPool
            | Self::Activation { .. }
            | Self::Add
            | Self::Mul
            | Self::Concat
            | Self::Crop { .. }
            | Self::ChannelShuffle { .. }
            | Self::Zero { .. }
            | Self::Mean
            | Self::Slice { .. }
            | Self::Pad { .. }
            | Self::CropEnd { .. }
            | Self::DepthToSpace { .. }
            | Self::Attention { relative_bias: false, .. } => Vec::new(),
        }
    }

    /// Running statistics, as `(suffix, extents)`: a batch norm's mean and variance.
    pub fn statistics(&self, input: Shape) -> Vec<(&'static str, Vec<usize>)> {
        match self {
            Self::BatchNorm { .. } => vec![("running_mean", vec![input.c]), ("running_var", vec![input.c])],
            Self::Input
            | Self::Relu
            | Self::MaxPool { .. }
            | Self::AvgPool { .. }
            | Self::GlobalAvgPool
            | Self::Activation { .. }
            | Self::Add
            | Self::Mul
            | Self::Concat
            | Self::Crop { .. }
            | Self::ChannelShuffle { .. }
            | Self::Zero { .. }
            | Self::Mean
            | Self::Prelu
            | Self::GroupNorm { .. }
            | Self::LayerNorm
            | Self::ScalarAffine
            | Self::Slice { .. }
            | Self::Pad { .. }
            | Self::CropEnd { .. }
            | Self::DepthToSpace { .. }
            | Self::Conv2d { .. }
            | Self::ConvTranspose2d { .. }
            | Self::Linear { .. }
            | Self::Attention { .. } => Vec::new(),
        }
    }

    /// What the operator reads and writes for these inputs, at `bytes_per_element`. An input of the graph moves
    /// nothing.
    pub fn bytes_moved(&self, inputs: &[Shape], output: Shape, bytes_per_element: u64) -> BytesMoved {
        if *self == Self::Input {
            return BytesMoved::default();
        }
        let source = inputs.first().copied().unwrap_or(output);
        let parameters = self.parameters(source);
        let parameters = parameters.iter().map(|(_, dims)| dims.iter().product::<usize>());
        let bytes = |elements: usize| elements as u64 * bytes_per_element;
        BytesMoved {
            read: bytes(inputs.iter().map(|shape| shape.elements()).sum()),
            written: bytes(output.elements()),
            parameters: bytes(parameters.sum()),
        }
    }

    /// Largest number of extents of any tensor on the way, in the chain of standard operators that files
    /// say it with: engines for phones and microcontrollers often stop at 4.
    pub const fn max_tensor_rank(&self) -> usize {
        match self {
            Self::ChannelShuffle { .. } => 5,
            Self::Attention { window: Some(_), .. } => 6,
            Self::Input
            | Self::BatchNorm { .. }
            | Self::Relu
            | Self::MaxPool { .. }
            | Self::AvgPool { .. }
            | Self::GlobalAvgPool
            | Self::Activation { .. }
            | Self::Add
            | Self::Mul
            | Self::Concat
            | Self::Crop { .. }
            | Self::Zero { .. }
            | Self::Mean
            | Self::Prelu
            | Self::GroupNorm { .. }
            | Self::LayerNorm
            | Self::ScalarAffine
            | Self::Slice { .. }
            | Self::Pad { .. }
            | Self::CropEnd { .. }
            | Self::DepthToSpace { .. }
            | Self::Conv2d { .. }
            | Self::ConvTranspose2d { .. }
            | Self::Linear { .. }
            | Self::Attention { window: None, .. } => 4,
        }
    }
}
