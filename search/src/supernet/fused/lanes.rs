//! Sixteen images side by side.

use std::cell::RefCell;

use tch::{Tensor, kind::Element as TensorElement};

use super::kernels::{InstructionSet, Table};

/// Images of a block.
pub(super) const LANES: usize = 16;

/// The same pixel of sixteen images.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Lanes<T>(pub [T; LANES]);

/// `[channels][height][width]` of [`Lanes`]: a tensor of sixteen images.
pub(super) type Plane<T> = Vec<Lanes<T>>;

/// A kind of number that the kernels know.
pub(crate) trait Element:
    Copy + Default + Send + Sync + std::fmt::Debug + TensorElement + 'static
{
    /// From a double.
    fn of(value: f64) -> Self;

    /// To a double.
    fn double(self) -> f64;

    /// Kernels for this machine.
    fn kernels() -> &'static Table<Self>;

    /// Lends `count` lanes of this thread's scratch memory; what they hold is arbitrary.
    fn scratch<R>(count: usize, work: impl FnOnce(&mut [Lanes<Self>]) -> R) -> R;
}

macro_rules! element {
    ($kind:ty, $scratch:ident, $kernels:path) => {
        thread_local! {
            static $scratch: RefCell<Vec<Plane<$kind>>> = const { RefCell::new(Vec::new()) };
        }

        impl Element for $kind {
            fn of(value: f64) -> Self {
                value as Self
            }

            #[allow(clippy::cast_lossless, reason = "one macro for both kinds")]
            fn double(self) -> f64 {
                self as f64
            }

            fn kernels() -> &'static Table<Self> {
                static TABLE: std::sync::OnceLock<&'static Table<$kind>> = std::sync::OnceLock::new();
                TABLE.get_or_init(|| $kernels(InstructionSet::chosen()))
            }

            fn scratch<R>(count: usize, work: impl FnOnce(&mut [Lanes<Self>]) -> R) -> R {
                // A stack: work that borrows again gets memory of its own, the same as the last time.
                let mut memory = $scratch.with_borrow_mut(Vec::pop).unwrap_or_default();
                if memory.len() < count {
                    memory = plane(count);
                }
                let result = work(&mut memory[..count]);
                $scratch.with_borrow_mut(|stack| stack.push(memory));
                result
            }
        }
    };
}

element!(f32, SCRATCH_F32, super::kernels::table_f32);
element!(f64, SCRATCH_F64, super::kernels::table_f64);

/// Zeros.
pub(super) fn plane<T: Element>(count: usize) -> Plane<T> {
    vec![Lanes([T::default(); LANES]); count]
}

/// The values of a tensor in order.
pub(crate) fn values<T: Element>(tensor: &Tensor) -> Vec<T> {
    let tensor = tensor.detach().to_device(tch::Device::Cpu).to_kind(T::KIND).contiguous();
    let mut values = vec![T::default(); tensor.numel()];
    let count = values.len();
    tensor.copy_data(&mut values, count);
    values
}

/// `[B, C, H, W]` as blocks of sixteen images; absent images of the last block are zeros.
pub(super) fn blocks<T: Element>(images: &Tensor) -> Vec<Plane<T>> {
    let size = images.size();
    let (batch, pixels) = (size[0] as usize, size[1..].iter().product::<i64>() as usize);
    let values = values::<T>(images);
    (0..batch.div_ceil(LANES))
        .map(|block| {
            let mut lanes = plane::<T>(pixels);
            for (lane, image) in (block * LANES..batch.min((block + 1) * LANES)).enumerate() {
                let image = &values[image * pixels..(image + 1) * pixels];
                for (to, from) in lanes.iter_mut().zip(image) {
                    to.0[lane] = *from;
                }
            }
            lanes
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_one_pixel_of_sixteen_images_and_zeros_for_absent_ones() {
        let images = Tensor::arange(18 * 2 * 3, (tch::Kind::Float, tch::Device::Cpu)).view([18, 2, 1, 3]);
        let blocks = blocks::<f32>(&images);
        assert_eq!(blocks.iter().map(Vec::len).collect::<Vec<_>>(), [6, 6]);
        for image in 0..18 {
            for (pixel, lanes) in blocks[image / 16].iter().enumerate() {
                let got = lanes.0[image % 16];
                assert!((got - (image * 6 + pixel) as f32).abs() < f32::EPSILON);
            }
        }
        assert!(blocks[1].iter().all(|lanes| lanes.0[2..].iter().all(|value| *value == 0.0)));
    }
}
