//! What a node of a graph computes, without sizes.

mod counts;
mod function;
mod infer;

use serde::{Deserialize, Serialize};

pub use counts::BytesMoved;
pub use function::Function;
pub use infer::OpError;

/// Epsilon of every batch, group and layer norm (`PyTorch`'s default).
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
    /// Sum of two or more tensors of equal shape; all but the first may be `n × 1 × h × w`, the same
    /// for every channel.
    Add,
    /// Product of two tensors; the second may be `n × c × 1 × 1` (a gate per channel) or
    /// `n × 1 × h × w` (a gate per position).
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
    /// Mean of two or more tensors of equal shape (of two classifiers' logits, say).
    Mean,
    /// `x` where positive, else `x` times a learned slope per channel (He et al. 2015).
    Prelu,
    /// Normalisation over the channels of a group and all positions (Wu and He 2018), with
    /// [`BATCH_NORM_EPSILON`] and a learned scale and shift per channel.
    GroupNorm {
        /// Groups of channels; 1 normalises over the whole image.
        groups: usize,
    },
    /// Normalisation over the channels of each position, with [`BATCH_NORM_EPSILON`] and a learned scale
    /// and shift per channel.
    LayerNorm,
    /// One learned scale and one learned shift for all numbers (the LAB of `HGNetv2`).
    ScalarAffine,
    /// Some of the channels, `x[:, start..start + channels]`.
    Slice {
        /// First channel.
        start: usize,
        /// How many.
        channels: usize,
    },
    /// Zeros around the input, side by side as many as wanted.
    Pad {
        /// Rows above.
        top: usize,
        /// Columns to the left.
        left: usize,
        /// Rows below.
        bottom: usize,
        /// Columns to the right.
        right: usize,
    },
    /// The input without its last rows and columns.
    CropEnd {
        /// Rows left out.
        bottom: usize,
        /// Columns left out.
        right: usize,
    },
    /// Transposed convolution; its weight's layout is `[in, out / groups, kernel, kernel]`.
    ConvTranspose2d {
        /// Output channels.
        out_channels: usize,
        /// Side of the square kernel.
        kernel: usize,
        /// Positions of the output per position of the input, in both directions.
        stride: usize,
        /// Rows and columns of the result left out on every side.
        padding: usize,
        /// Groups.
        groups: usize,
        /// With a bias per output channel.
        bias: bool,
    },
    /// Channels to positions: `out[c, y·b + i, x·b + j] = in[c·b² + i·b + j, y, x]` for a block of `b`
    /// (the pixel shuffle of Shi et al. 2016).
    DepthToSpace {
        /// Side of the block.
        block: usize,
    },
    /// Multi-head attention on maps: the input's channels are, head after head, queries, keys and values;
    /// the output's are the heads' results, `softmax(q·kᵀ / √key_dim) · v` with positions as tokens.
    Attention {
        /// Heads.
        heads: usize,
        /// Channels of a head's queries, and of its keys.
        key_dim: usize,
        /// Channels of a head's values.
        value_dim: usize,
        /// Side of the windows that attend to themselves only and that cut the map without rest; `None`
        /// for the whole map.
        window: Option<usize>,
        /// With a learned number per head and distance (rows, columns) that is added to `q·kᵀ / √key_dim`
        /// (`TinyViT`'s attention biases).
        relative_bias: bool,
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
            Self::Mean => "mean",
            Self::Prelu => "prelu",
            Self::GroupNorm { .. } => "group_norm",
            Self::LayerNorm => "layer_norm",
            Self::ScalarAffine => "scalar_affine",
            Self::Slice { .. } => "slice",
            Self::Pad { .. } => "pad",
            Self::CropEnd { .. } => "crop_end",
            Self::ConvTranspose2d { .. } => "conv_transpose2d",
            Self::DepthToSpace { .. } => "depth_to_space",
            Self::Attention { .. } => "attention",
        }
    }
}
