//! Dense convolutions.

use super::{Extent, Flow, table::RawDense};
use crate::{
    profile::kernel,
    supernet::fused::lanes::{Element, LANES, Lanes},
};

/// A dense convolution: 1×1 that may start at (`offset`, `offset`), or larger with the padding that
/// keeps the size at stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dense {
    /// Side of the kernel.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// First row and column, for a 1×1 kernel.
    pub offset: usize,
    /// Whether the input is rectified first.
    pub rectify: bool,
    /// Channels that come out.
    pub outputs: usize,
    /// What goes in.
    pub input: Extent,
}

/// Positions that the kernel handles at once.
const BLOCK: usize = 32;

impl Dense {
    /// What comes out.
    pub fn output(self) -> Extent {
        let size =
            |size: usize| if self.kernel == 1 { size / self.stride } else { (size - 1) / self.stride + 1 };
        Extent { channels: self.outputs, height: size(self.input.height), width: size(self.input.width) }
    }

    /// Weights of an output channel.
    pub fn terms(self) -> usize {
        self.input.channels * self.kernel * self.kernel
    }

    fn raw<T: Element>(self, images: usize, first: usize, count: usize) -> RawDense<T> {
        let output = self.output();
        RawDense {
            kernel: self.kernel as i32,
            stride: self.stride as i32,
            offset: self.offset as i32,
            rectify: i32::from(self.rectify),
            inputs: self.input.channels as i32,
            outputs: self.outputs as i32,
            height: self.input.height as i32,
            width: self.input.width as i32,
            rows: output.height as i32,
            columns: output.width as i32,
            images: images as i32,
            first: first as i32,
            count: count as i32,
            reserved: 0,
            x: std::ptr::null(),
            weight: std::ptr::null(),
            z: std::ptr::null_mut(),
            scratch: std::ptr::null_mut(),
            sums: std::ptr::null_mut(),
            g: std::ptr::null(),
            g_pitch: 0,
            factors: std::ptr::null(),
            input: std::ptr::null_mut(),
            gradient: std::ptr::null_mut(),
        }
    }

    fn check<T: Element>(self, x: &[Lanes<T>], weight: &[T], images: usize) {
        assert!(x.len() == self.input.volume(), "a tensor's length");
        assert!(weight.len() == self.outputs * self.terms(), "a kernel's length");
        assert!(images <= LANES, "images of a block");
    }

    /// Writes output channels from `first` on, as many as `z` has room for; returns `[count, 2]`: sum and
    /// sum of squares.
    pub fn forward<T: Element>(
        self,
        x: &[Lanes<T>],
        weight: &[T],
        images: usize,
        first: usize,
        z: &mut [Lanes<T>],
    ) -> Vec<f64> {
        self.check(x, weight, images);
        let area = self.output().area();
        let count = z.len() / area;
        assert!(z.len() == count * area && first + count <= self.outputs, "a tensor's length");
        let mut sums = vec![0.0; 2 * count];
        T::scratch(self.terms() * BLOCK + 4 * count, |scratch| {
            let mut raw = self.raw(images, first, count);
            raw.x = x.as_ptr();
            raw.weight = weight.as_ptr();
            raw.z = z.as_mut_ptr();
            raw.scratch = scratch.as_mut_ptr();
            raw.sums = sums.as_mut_ptr();
            // SAFETY: all lengths were checked against the extents that the kernel walks.
            kernel("dense convolution", || unsafe { (T::kernels().dense)(&raw const raw) });
        });
        sums
    }

    /// Adds to `input` the gradient of input channels from `first` on, `count` of them, and returns the
    /// gradient of their weights `[O, count·K·K]` on demand.
    #[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
    pub fn backward<T: Element>(
        self,
        x: &[Lanes<T>],
        weight: &[T],
        images: usize,
        flow: Flow<'_, T>,
        [first, count]: [usize; 2],
        input: Option<&mut [Lanes<T>]>,
        weights: bool,
    ) -> Vec<f64> {
        self.check(x, weight, images);
        flow.check(self.output());
        assert!(first + count <= self.input.channels, "channels of the input");
        let taps = self.kernel * self.kernel;
        let mine = count * taps;
        let mut gradient = vec![0.0; if weights { self.outputs * mine } else { 0 }];
        let length = (self.outputs + 2 * mine) * BLOCK + self.outputs * mine;
        T::scratch(length, |scratch| {
            let mut raw = self.raw(images, first, count);
            raw.x = x.as_ptr();
            raw.weight = weight.as_ptr();
            raw.z = flow.z.as_ptr().cast_mut();
            raw.scratch = scratch.as_mut_ptr();
            raw.g = flow.g.as_ptr();
            raw.g_pitch = flow.pitch as i64;
            raw.factors = flow.factors.as_ptr();
            raw.input = input.map_or(std::ptr::null_mut(), |input| {
                assert!(input.len() == count * self.input.area(), "a tensor's length");
                input.as_mut_ptr()
            });
            if weights {
                raw.gradient = gradient.as_mut_ptr();
            }
            // SAFETY: all lengths were checked against the extents that the kernel walks; `z` is only read.
            kernel("dense convolution, back", || unsafe { (T::kernels().dense_back)(&raw const raw) });
        });
        gradient
    }
}
