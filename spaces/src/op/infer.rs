//! Which inputs an operator takes, and what shape comes out.

use thiserror::Error;

use super::OpSpec;
use crate::Shape;

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
    /// Not the channels that the operator's parameters describe.
    #[error("infer the shape of {op}: its parameters describe {expected} channels, its input is {got}")]
    Channels {
        /// Operator.
        op: &'static str,
        /// Channels that it takes, or takes at least.
        expected: usize,
        /// Input shape.
        got: Shape,
    },
    /// Maps that windows can't cut without rest.
    #[error(
        "infer the shape of {op}: maps of {input} can't be cut into windows of {window}; pad them to a \
         multiple first"
    )]
    Tiles {
        /// Operator.
        op: &'static str,
        /// Side of a window.
        window: usize,
        /// Input shape.
        input: Shape,
    },
}

impl OpSpec {
    /// Shape of the output for these inputs.
    pub fn infer(&self, inputs: &[Shape]) -> Result<Shape, OpError> {
        let op = self.name();
        let many = matches!(self, Self::Add | Self::Concat | Self::Mean);
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
            Self::Input
            | Self::BatchNorm { .. }
            | Self::Relu
            | Self::Activation { .. }
            | Self::Prelu
            | Self::LayerNorm
            | Self::ScalarAffine => x,
            Self::Mul => {
                let got = inputs[1];
                let gates = [Shape { h: 1, w: 1, ..x }, Shape { c: 1, ..x }];
                if got != x && !gates.contains(&got) {
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
            Self::Add | Self::Mean => {
                let broadcast = Shape { c: 1, ..x };
                for (index, &got) in inputs.iter().enumerate() {
                    if got != x && (*self == Self::Mean || got != broadcast) {
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
            Self::ChannelShuffle { groups } | Self::GroupNorm { groups } => {
                if groups == 0 || !x.c.is_multiple_of(groups) {
                    return Err(OpError::Groups { op, channels: x.c, groups });
                }
                x
            }
            Self::Zero { stride } => {
                let (h, w) = window(1, 1, stride, 0)?;
                Shape { h, w, ..x }
            }
            Self::Slice { start, channels } => {
                if channels == 0 || start + channels > x.c {
                    return Err(OpError::Channels { op, expected: start + channels, got: x });
                }
                Shape { c: channels, ..x }
            }
            Self::Pad { top, left, bottom, right } => {
                Shape { h: x.h + top + bottom, w: x.w + left + right, ..x }
            }
            Self::CropEnd { bottom, right } => {
                if bottom >= x.h || right >= x.w {
                    return Err(OpError::Window { op, window: bottom.max(right), stride: 1, input: x });
                }
                Shape { h: x.h - bottom, w: x.w - right, ..x }
            }
            Self::ConvTranspose2d { out_channels, kernel, stride, padding, groups, .. } => {
                for channels in [x.c, out_channels] {
                    if groups == 0 || channels == 0 || channels % groups != 0 {
                        return Err(OpError::Groups { op, channels, groups });
                    }
                }
                let out = |size: usize| {
                    let whole = size.saturating_sub(1) * stride + kernel;
                    if kernel == 0 || stride == 0 || size == 0 || whole <= 2 * padding {
                        return Err(OpError::Window { op, window: kernel, stride, input: x });
                    }
                    Ok(whole - 2 * padding)
                };
                Shape::new(x.n, out_channels, out(x.h)?, out(x.w)?)
            }
            Self::DepthToSpace { block } => {
                let groups = block * block;
                if groups == 0 || !x.c.is_multiple_of(groups) {
                    return Err(OpError::Groups { op, channels: x.c, groups });
                }
                Shape::new(x.n, x.c / groups, x.h * block, x.w * block)
            }
            Self::Attention { heads, key_dim, value_dim, window, .. } => {
                let expected = heads * (2 * key_dim + value_dim);
                if heads * key_dim * value_dim == 0 || x.c != expected {
                    return Err(OpError::Channels { op, expected, got: x });
                }
                if let Some(window) = window
                    && (window == 0 || !x.h.is_multiple_of(window) || !x.w.is_multiple_of(window))
                {
                    return Err(OpError::Tiles { op, window, input: x });
                }
                Shape { c: heads * value_dim, ..x }
            }
        })
    }
}
