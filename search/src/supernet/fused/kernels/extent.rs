//! Sizes of tensors and windows, and padding.

use crate::{
    profile::kernel,
    supernet::fused::lanes::{Element, Lanes},
};

/// Channels, height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Extent {
    /// Pixels of a channel.
    pub fn area(self) -> usize {
        self.height * self.width
    }

    /// Pixels of all channels.
    pub fn volume(self) -> usize {
        self.channels * self.area()
    }

    /// The same with another number of channels.
    pub fn with_channels(self, channels: usize) -> Self {
        Self { channels, ..self }
    }
}

/// A depthwise convolution of this kernel, stride and dilation, then a pointwise one, of as many
/// channels as there are. With `step` 2 only every other row and column of the input takes part:
/// that is what a dilation of 2 at stride 2 comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Side of the kernel: 3 or 5.
    pub kernel: usize,
    /// Stride on what `step` leaves.
    pub stride: usize,
    /// Dilation on what `step` leaves.
    pub dilation: usize,
    /// Every how many pixels of the input.
    pub step: usize,
}

impl Window {
    /// The window of an operation; `None` if there is no kernel for it.
    pub fn new(kernel: usize, stride: usize, dilation: usize) -> Option<Self> {
        let window = if stride == 2 && dilation == 2 {
            Self { kernel, stride: 1, dilation: 1, step: 2 }
        } else {
            Self { kernel, stride, dilation, step: 1 }
        };
        window.kind().map(|_| window)
    }

    pub(super) fn kind(self) -> Option<i32> {
        match (self.kernel, self.stride, self.dilation) {
            (3, 1, 1) => Some(0),
            (5, 1, 1) => Some(1),
            (3, 1, 2) => Some(2),
            (5, 1, 2) => Some(3),
            (3, 2, 1) => Some(4),
            (5, 2, 1) => Some(5),
            _ => None,
        }
    }

    /// Zeros left and right of a row.
    pub fn padding(self) -> usize {
        self.dilation * (self.kernel - 1) / 2
    }

    /// Extent of the output.
    pub fn output(self, input: Extent) -> Extent {
        let by = self.step * self.stride;
        Extent { channels: input.channels, height: input.height / by, width: input.width / by }
    }

    /// Scratch of [`separable`].
    pub fn scratch(self, input: Extent) -> usize {
        let Extent { channels, width, .. } = self.output(input);
        // The sums are doubles, twice as wide as floats.
        channels * width + 4 * channels
    }

    /// Scratch of [`separable_back`].
    pub fn scratch_back(self, input: Extent) -> usize {
        let Extent { channels, height, width } = self.output(input);
        channels * height * (width + 2 * self.padding())
            + 2 * channels * width.max(input.width)
            + channels * channels
    }
}

/// Which pixels of an input take part in a convolution, and how many zeros stand left and right of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Padding {
    /// Every how many rows and columns.
    pub step: usize,
    /// Zeros on each side.
    pub zeros: usize,
}

impl Padding {
    /// Extent of the padded input.
    pub fn of(self, input: Extent) -> Extent {
        let Extent { channels, height, width } = input;
        Extent { channels, height: height / self.step, width: width / self.step + 2 * self.zeros }
    }
}

/// max(scale·x + shift, 0), or max(x, 0) without `affine`, of the pixels that take part, padded.
pub(crate) fn pad<T: Element>(
    x: &[Lanes<T>],
    extent: Extent,
    padding: Padding,
    affine: Option<(&[T], &[T])>,
    out: &mut [Lanes<T>],
) {
    assert!(x.len() == extent.volume() && out.len() == padding.of(extent).volume(), "a tensor's length");
    let (scale, shift) = affine.map_or((std::ptr::null(), std::ptr::null()), |(scale, shift)| {
        assert!(scale.len() == extent.channels && shift.len() == extent.channels, "a factor per channel");
        (scale.as_ptr(), shift.as_ptr())
    });
    let Extent { channels, height, width } = extent;
    // SAFETY: the lengths are those that the kernel walks.
    kernel("pad", || unsafe {
        (T::kernels().pad)(
            x.as_ptr(),
            out.as_mut_ptr(),
            channels as i32,
            height as i32,
            width as i32,
            padding.zeros as i32,
            padding.step as i32,
            scale,
            shift,
        );
    });
}
