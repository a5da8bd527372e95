//! What a node of a graph computes, without sizes.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Shape;

/// Epsilon of every batch norm (`PyTorch`'s default).
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

/// An operator with its parameters; sizes come from the graph that it stands in.
///
/// Kernels are square and padding is symmetric. Weight layouts are `PyTorch`'s: a convolution's is
/// `[out, in / groups, kernel, kernel]`, a linear layer's `[out, in]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum OpSpec {
    /// The graph's input.
    Input,
    /// Two-dimensional convolution.
    Conv2d {
        /// Output channels.
        out_channels: usize,
        /// Side of the square kernel.
        kernel: usize,
        /// Stride in both directions.
        stride: usize,
        /// Zeros on every side.
        padding: usize,
        /// Distance of the kernel's taps.
        dilation: usize,
        /// Groups; equal to the input channels for a depthwise convolution.
        groups: usize,
        /// With a bias per output channel.
        bias: bool,
    },
    /// Batch normalisation over channels, with [`BATCH_NORM_EPSILON`].
    BatchNorm {
        /// With a learned scale and shift per channel.
        affine: bool,
    },
    /// `max(x, 0)`.
    Relu,
    /// Max pooling.
    MaxPool {
        /// Side of the window.
        kernel: usize,
        /// Stride.
        stride: usize,
        /// Padding (with minus infinity).
        padding: usize,
    },
    /// Average pooling.
    AvgPool {
        /// Side of the window.
        kernel: usize,
        /// Stride.
        stride: usize,
        /// Padding (with zeros).
        padding: usize,
        /// Whether padded zeros count in the divisor.
        count_include_pad: bool,
    },
    /// Mean over rows and columns; the result is `n × c × 1 × 1`.
    GlobalAvgPool,
    /// Fully connected layer on the flattened input.
    Linear {
        /// Output features.
        out_features: usize,
        /// With a bias.
        bias: bool,
    },
    /// Another element-wise function than [`OpSpec::Relu`].
    Activation {
        /// Which.
        function: Function,
    },
    /// Sum of two or more tensors of equal shape.
    Add,
    /// Product of two tensors; the second may be `n × c × 1 × 1` (a gate per channel).
    Mul,
    /// Concatenation along channels.
    Concat,
    /// The input without its first rows and columns, `x[:, :, top:, left:]`.
    Crop {
        /// Rows left out.
        top: usize,
        /// Columns left out.
        left: usize,
    },
    /// Channel shuffle: `out[c·g + i] = in[i·(C/g) + c]` for `g` groups.
    ChannelShuffle {
        /// Number of groups.
        groups: usize,
    },
    /// Zeros in the shape of the input, subsampled by `stride` (the operation `none`).
    Zero {
        /// Stride.
        stride: usize,
    },
}

/// An element-wise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// `min(max(x + 3, 0), 6) / 6`.
    HardSigmoid,
    /// `x · sigmoid(x)`.
    Swish,
    /// `x · hard_sigmoid(x)`.
    HardSwish,
    /// Hyperbolic tangent.
    Tanh,
}

impl Function {
    /// Short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relu6 => "relu6",
            Self::Sigmoid => "sigmoid",
            Self::HardSigmoid => "hard_sigmoid",
            Self::Swish => "swish",
            Self::HardSwish => "hard_swish",
            Self::Tanh => "tanh",
        }
    }

    /// The value at `x`.
    pub fn apply(self, x: f64) -> f64 {
        let gate = || ((x + 3.0) / 6.0).clamp(0.0, 1.0);
        let sigmoid = || 1.0 / (1.0 + (-x).exp());
        match self {
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Sigmoid => sigmoid(),
            Self::HardSigmoid => gate(),
            Self::Swish => x * sigmoid(),
            Self::HardSwish => x * gate(),
            Self::Tanh => x.tanh(),
        }
    }
}

/// Why an operator can't take the inputs that it was given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpError {
    /// Wrong number of inputs.
    #[error("infer the shape of {op}: it takes {expected} inputs, got {got}")]
    Arity {
        /// Operator.
        op: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What it was given.
        got: usize,
    },
    /// Inputs whose shapes don't fit each other.
    #[error("infer the shape of {op}: input {index} is {got}, which does not fit {expected}")]
    Mismatch {
        /// Operator.
        op: &'static str,
        /// Which input.
        index: usize,
        /// The first input's shape.
        expected: Shape,
        /// This input's shape.
        got: Shape,
    },
    /// Channels that the operator can't divide.
    #[error("infer the shape of {op}: {channels} channels can't be divided into {groups} groups")]
    Groups {
        /// Operator.
        op: &'static str,
        /// Channels.
        channels: usize,
        /// Groups.
        groups: usize,
    },
    /// A window that doesn't fit into its input, or a stride of zero.
    #[error("infer the shape of {op}: a window of {window} with stride {stride} does not fit into {input}")]
    Window {
        /// Operator.
        op: &'static str,
        /// Effective extent of the window.
        window: usize,
        /// Stride.
        stride: usize,
        /// Input shape.
        input: Shape,
    },
}

impl OpSpec {
    /// A convolution without bias whose padding keeps the size at stride 1.
    pub const fn conv(out_channels: usize, kernel: usize, stride: usize) -> Self {
        Self::Conv2d {
            out_channels,
            kernel,
            stride,
            padding: kernel / 2,
            dilation: 1,
            groups: 1,
            bias: false,
        }
    }

    /// A depthwise convolution of `channels` channels without bias, padded to keep the size at stride 1.
    pub const fn depthwise(channels: usize, kernel: usize, stride: usize, dilation: usize) -> Self {
        Self::Conv2d {
            out_channels: channels,
            kernel,
            stride,
            padding: dilation * (kernel - 1) / 2,
            dilation,
            groups: channels,
            bias: false,
        }
    }

    /// Short name for messages, reports and grouping.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Conv2d { .. } => "conv2d",
            Self::BatchNorm { .. } => "batch_norm",
            Self::Relu => "relu",
            Self::MaxPool { .. } => "max_pool",
            Self::AvgPool { .. } => "avg_pool",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::Linear { .. } => "linear",
            Self::Activation { function } => function.name(),
            Self::Add => "add",
            Self::Mul => "mul",
            Self::Concat => "concat",
            Self::Crop { .. } => "crop",
            Self::ChannelShuffle { .. } => "channel_shuffle",
            Self::Zero { .. } => "zero",
        }
    }

    /// Shape of the output for these inputs.
    pub fn infer(&self, inputs: &[Shape]) -> Result<Shape, OpError> {
        let op = self.name();
        let many = matches!(self, Self::Add | Self::Concat);
        let wanted = if *self == Self::Mul { 2 } else { 1 };
        if many && inputs.is_empty() || !many && inputs.len() != wanted {
            let expected = if many { "one or more" } else { ["1", "2"][wanted - 1] };
            return Err(OpError::Arity { op, expected, got: inputs.len() });
        }
        let x = inputs[0];
        let window = |kernel: usize, dilation: usize, stride: usize, padding: usize| {
            let extent = dilation * kernel.saturating_sub(1) + 1;
            let out = |size: usize| {
                if kernel == 0 || stride == 0 || size + 2 * padding < extent {
                    return Err(OpError::Window { op, window: extent, stride, input: x });
                }
                Ok((size + 2 * padding - extent) / stride + 1)
            };
            Ok::<_, OpError>((out(x.h)?, out(x.w)?))
        };
        Ok(match *self {
            Self::Input | Self::BatchNorm { .. } | Self::Relu | Self::Activation { .. } => x,
            Self::Mul => {
                let got = inputs[1];
                if got != x && got != (Shape { h: 1, w: 1, ..x }) {
                    return Err(OpError::Mismatch { op, index: 1, expected: x, got });
                }
                x
            }
            Self::Conv2d { out_channels, kernel, stride, padding, dilation, groups, .. } => {
                for channels in [x.c, out_channels] {
                    if groups == 0 || channels == 0 || channels % groups != 0 {
                        return Err(OpError::Groups { op, channels, groups });
                    }
                }
                let (h, w) = window(kernel, dilation, stride, padding)?;
                Shape::new(x.n, out_channels, h, w)
            }
            Self::MaxPool { kernel, stride, padding } | Self::AvgPool { kernel, stride, padding, .. } => {
                let (h, w) = window(kernel, 1, stride, padding)?;
                Shape::new(x.n, x.c, h, w)
            }
            Self::GlobalAvgPool => Shape::new(x.n, x.c, 1, 1),
            Self::Linear { out_features, .. } => Shape::new(x.n, out_features, 1, 1),
            Self::Add => {
                for (index, &got) in inputs.iter().enumerate() {
                    if got != x {
                        return Err(OpError::Mismatch { op, index, expected: x, got });
                    }
                }
                x
            }
            Self::Concat => {
                let mut channels = 0;
                for (index, &got) in inputs.iter().enumerate() {
                    if (got.n, got.h, got.w) != (x.n, x.h, x.w) {
                        return Err(OpError::Mismatch { op, index, expected: x, got });
                    }
                    channels += got.c;
                }
                Shape { c: channels, ..x }
            }
            Self::Crop { top, left } => {
                if top >= x.h || left >= x.w {
                    return Err(OpError::Window { op, window: top.max(left), stride: 1, input: x });
                }
                Shape { h: x.h - top, w: x.w - left, ..x }
            }
            Self::ChannelShuffle { groups } => {
                if groups == 0 || !x.c.is_multiple_of(groups) {
                    return Err(OpError::Groups { op, channels: x.c, groups });
                }
                x
            }
            Self::Zero { stride } => {
                let (h, w) = window(1, 1, stride, 0)?;
                Shape { h, w, ..x }
            }
        })
    }

    /// Multiply-accumulates of convolutions and linear layers; everything else counts as none.
    pub fn macs(&self, input: Shape, output: Shape) -> u64 {
        let per_output = match *self {
            Self::Conv2d { kernel, groups, .. } => input.c / groups * kernel * kernel,
            Self::Linear { .. } => input.elements() / input.n.max(1),
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
            Self::BatchNorm { affine: true } => vec![("weight", vec![input.c]), ("bias", vec![input.c])],
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
}
