//! Pools.

use super::Extent;
use crate::{
    profile::kernel,
    supernet::fused::lanes::{Element, LANES, Lanes},
};

/// Extent of a 3×3 pool's output.
fn pooled(extent: Extent, stride: usize) -> Extent {
    let size = |size: usize| (size - 1) / stride + 1;
    Extent { height: size(extent.height), width: size(extent.width), ..extent }
}

/// 3×3 maximum and mean; returns `[C, 4]`: sum and sum of squares of the maximum, then of the mean.
pub(crate) fn pools<T: Element>(
    x: &[Lanes<T>],
    extent: Extent,
    stride: usize,
    images: usize,
    maximum: &mut [Lanes<T>],
    mean: &mut [Lanes<T>],
) -> Vec<f64> {
    let volume = pooled(extent, stride).volume();
    assert!(
        x.len() == extent.volume() && maximum.len() == volume && mean.len() == volume,
        "a tensor's length"
    );
    assert!(images <= LANES, "images of a block");
    let Extent { channels, height, width } = extent;
    let mut sums = vec![0.0; 4 * channels];
    // SAFETY: the lengths are those that the kernel walks.
    kernel("pools", || unsafe {
        (T::kernels().pools)(
            x.as_ptr(),
            maximum.as_mut_ptr(),
            mean.as_mut_ptr(),
            channels as i32,
            height as i32,
            width as i32,
            stride as i32,
            images as i32,
            sums.as_mut_ptr(),
        );
    });
    sums
}

/// Adds to `d` the gradients of both pools of [`pools`].
pub(crate) fn pools_back<T: Element>(
    x: &[Lanes<T>],
    extent: Extent,
    stride: usize,
    maximum: &[Lanes<T>],
    gradients: [&[Lanes<T>]; 2],
    d: &mut [Lanes<T>],
) {
    let volume = pooled(extent, stride).volume();
    assert!(x.len() == extent.volume() && d.len() == x.len(), "a tensor's length");
    assert!(maximum.len() == volume && gradients.iter().all(|g| g.len() == volume), "a tensor's length");
    let Extent { channels, height, width } = extent;
    // SAFETY: the lengths are those that the kernel walks.
    kernel("pools, back", || unsafe {
        (T::kernels().pools_back)(
            x.as_ptr(),
            maximum.as_ptr(),
            gradients[0].as_ptr(),
            gradients[1].as_ptr(),
            d.as_mut_ptr(),
            channels as i32,
            height as i32,
            width as i32,
            stride as i32,
        );
    });
}

/// 2×2 maximum with stride 2.
pub(crate) fn halve<T: Element>(x: &[Lanes<T>], extent: Extent, out: &mut [Lanes<T>]) {
    assert!(x.len() == extent.volume() && 4 * out.len() == x.len(), "a tensor's length");
    let Extent { channels, height, width } = extent;
    // SAFETY: the lengths are those that the kernel walks; height and width are even.
    kernel("2x2 maximum", || unsafe {
        (T::kernels().halve)(x.as_ptr(), out.as_mut_ptr(), channels as i32, height as i32, width as i32);
    });
}

/// Adds to `d` the gradient of [`halve`].
pub(crate) fn halve_back<T: Element>(
    x: &[Lanes<T>],
    extent: Extent,
    maximum: &[Lanes<T>],
    g: &[Lanes<T>],
    d: &mut [Lanes<T>],
) {
    assert!(x.len() == extent.volume() && d.len() == x.len(), "a tensor's length");
    assert!(4 * maximum.len() == x.len() && g.len() == maximum.len(), "a tensor's length");
    let Extent { channels, height, width } = extent;
    // SAFETY: the lengths are those that the kernel walks; height and width are even.
    kernel("2x2 maximum, back", || unsafe {
        (T::kernels().halve_back)(
            x.as_ptr(),
            maximum.as_ptr(),
            g.as_ptr(),
            d.as_mut_ptr(),
            channels as i32,
            height as i32,
            width as i32,
        );
    });
}
