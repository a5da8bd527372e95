//! Separable convolutions.

use super::{
    Extent, Padding, Window,
    table::{RawSeparable, RawSeparableBack},
};
use crate::{
    profile::kernel,
    supernet::fused::lanes::{Element, LANES, Lanes},
};

/// What a separable convolution works on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeparableInput<'a, T> {
    /// Its window.
    pub window: Window,
    /// Extent of the input, before `step` and padding.
    pub extent: Extent,
    /// The rectified input with at least the window's padding; `None` where nothing depends on it: in a
    /// backward pass without the weights' gradients that adds to a sum.
    pub padded: Option<&'a [Lanes<T>]>,
    /// How it is padded.
    pub padding: Padding,
    /// `[C, K·K]`.
    pub depthwise: &'a [T],
    /// `[C, C]`.
    pub pointwise: &'a [T],
    /// Images of the block.
    pub images: usize,
}

impl<T: Element> SeparableInput<'_, T> {
    /// Checks all lengths; returns the kernel's number, the padded input where its own padding begins, and
    /// the length of a padded row.
    fn check(&self) -> (i32, *const Lanes<T>, i32) {
        let Self { window, extent, padding, .. } = self;
        let channels = extent.channels;
        let padded = padding.of(*extent);
        assert!(padding.step == window.step && padding.zeros >= window.padding(), "a window's padding");
        assert!(self.padded.is_none_or(|input| input.len() == padded.volume()), "a tensor's length");
        assert!(
            self.depthwise.len() == channels * window.kernel * window.kernel,
            "a depthwise kernel's length"
        );
        assert!(self.pointwise.len() == channels * channels, "a pointwise kernel's length");
        assert!(self.images <= LANES, "images of a block");
        let kind = window.kind().unwrap_or_else(|| unreachable!("a window is only made for a kernel"));
        let start = padding.zeros - window.padding();
        let pointer = self.padded.map_or(std::ptr::null(), |input| input[start..].as_ptr());
        (kind, pointer, padded.width as i32)
    }
}

/// Writes the convolution to `z`; returns `[C, 2]`: sum and sum of squares.
pub(crate) fn separable<T: Element>(input: SeparableInput<'_, T>, z: &mut [Lanes<T>]) -> Vec<f64> {
    let (kind, padded, pitch) = input.check();
    let SeparableInput { window, extent, .. } = input;
    assert!(input.padded.is_some(), "an input");
    assert!(z.len() == window.output(extent).volume(), "a tensor's length");
    let mut sums = vec![0.0; 2 * extent.channels];
    T::scratch(window.scratch(extent), |scratch| {
        let raw = RawSeparable {
            kind,
            channels: extent.channels as i32,
            height: (extent.height / window.step) as i32,
            width: (extent.width / window.step) as i32,
            images: input.images as i32,
            pitch,
            padded,
            depthwise: input.depthwise.as_ptr(),
            pointwise: input.pointwise.as_ptr(),
            z: z.as_mut_ptr(),
            scratch: scratch.as_mut_ptr(),
            sums: sums.as_mut_ptr(),
        };
        // SAFETY: all lengths were checked against the extents that the kernel walks.
        kernel("separable convolution", || unsafe { (T::kernels().separable)(&raw const raw) });
    });
    sums
}

/// Gradient of a plain sum's input: where it goes.
#[derive(Debug)]
pub(crate) enum Into<'a, T> {
    /// Written, zero where the rectified input is zero (`step` 1 and stride 1 only).
    Rectified(&'a mut [Lanes<T>]),
    /// Added, not yet rectified.
    Sum(&'a mut [Lanes<T>]),
}

/// Gradients of the weights of a separable convolution.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeparableGradient {
    /// `[C, K·K]`.
    pub depthwise: Vec<f64>,
    /// `[C, C]`.
    pub pointwise: Vec<f64>,
}

/// The gradient of the output is factors·(g, z, 1) per channel; `factors`: `[3, C]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow<'a, T> {
    /// Gradient that flows in, channel planes `pitch` apart.
    pub g: &'a [Lanes<T>],
    /// Distance of the channels of `g`.
    pub pitch: usize,
    /// What was normalised.
    pub z: &'a [Lanes<T>],
    /// `[3, C]`.
    pub factors: &'a [T],
}

impl<T: Element> Flow<'_, T> {
    pub(super) fn check(&self, output: Extent) {
        assert!(self.z.len() == output.volume(), "a tensor's length");
        assert!(self.factors.len() == 3 * output.channels, "factors per channel");
        let end = self.pitch * (output.channels - 1) + output.area();
        assert!(self.pitch >= output.area() && self.g.len() >= end, "a gradient's length");
    }
}

/// Gradients of [`separable`]; of the weights only on demand.
pub(crate) fn separable_back<T: Element>(
    input: SeparableInput<'_, T>,
    flow: Flow<'_, T>,
    into: Into<'_, T>,
    weights: bool,
) -> Option<SeparableGradient> {
    let (kind, padded, pitch) = input.check();
    let SeparableInput { window, extent, .. } = input;
    flow.check(window.output(extent));
    let (to, accumulate) = match into {
        Into::Rectified(to) => {
            assert!(window.step == 1 && window.stride == 1, "a stride of one");
            (to, 0)
        }
        Into::Sum(to) => (to, 1),
    };
    assert!(to.len() == extent.volume(), "a tensor's length");
    assert!(input.padded.is_some() || (accumulate == 1 && !weights), "an input");
    let mut gradient = weights.then(|| SeparableGradient {
        depthwise: vec![0.0; input.depthwise.len()],
        pointwise: vec![0.0; input.pointwise.len()],
    });
    let [depthwise, pointwise] = gradient.as_mut().map_or([std::ptr::null_mut(); 2], |gradient| {
        [gradient.depthwise.as_mut_ptr(), gradient.pointwise.as_mut_ptr()]
    });
    T::scratch(window.scratch_back(extent), |scratch| {
        let raw = RawSeparableBack {
            kind,
            channels: extent.channels as i32,
            height: (extent.height / window.step) as i32,
            width: (extent.width / window.step) as i32,
            images: input.images as i32,
            pitch,
            padded,
            depthwise: input.depthwise.as_ptr(),
            pointwise: input.pointwise.as_ptr(),
            z: flow.z.as_ptr(),
            g: flow.g.as_ptr(),
            g_pitch: flow.pitch as i64,
            factors: flow.factors.as_ptr(),
            input: to.as_mut_ptr(),
            accumulate,
            step: window.step as i32,
            scratch: scratch.as_mut_ptr(),
            depthwise_gradient: depthwise,
            pointwise_gradient: pointwise,
        };
        // SAFETY: all lengths were checked against the extents that the kernel walks.
        kernel("separable convolution, back", || unsafe { (T::kernels().separable_back)(&raw const raw) });
    });
    gradient
}
