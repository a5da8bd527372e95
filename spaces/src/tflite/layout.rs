//! From channels first to channels last.

use crate::Shape;

/// Extents of an activation, `[n, h, w, c]`.
pub(super) fn dims(shape: Shape) -> Vec<i32> {
    [shape.n, shape.h, shape.w, shape.c].map(|extent| extent as i32).to_vec()
}

/// `[out, in, k, k]` as `[out, k, k, in]`: also what a linear layer's columns need, with the map's
/// extents in place of the kernel's.
pub(super) fn channels_last<T: Copy>(values: &[T], inputs: usize, height: usize, width: usize) -> Vec<T> {
    let area = height * width;
    let each = inputs * area;
    let position = |index: usize| {
        let (outer, rest) = (index / each, index % each);
        outer * each + rest % inputs * area + rest / inputs
    };
    (0..values.len()).map(|index| values[position(index)]).collect()
}

/// `[out, 1, k, k]` as `[1, k, k, out]`.
pub(super) fn outputs_last<T: Copy>(values: &[T], outputs: usize) -> Vec<T> {
    let area = values.len() / outputs.max(1);
    (0..values.len()).map(|index| values[index % outputs * area + index / outputs]).collect()
}

/// How a window of some extent is padded in a format that knows `SAME` and `VALID` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// Nothing is padded.
    Valid,
    /// The format's own padding is the wanted one.
    Same,
    /// To be padded before, by so much in front and behind of rows and columns.
    Before { rows: [usize; 2], columns: [usize; 2] },
}

impl Padding {
    /// Of a window of `extent` that moves by `stride` over `input`, padded by `padding` on all sides, to
    /// `output`.
    pub(super) fn of(extent: usize, stride: usize, padding: usize, input: Shape, output: Shape) -> Self {
        if padding == 0 {
            return Self::Valid;
        }
        let needed = |size: usize, out: usize| ((out - 1) * stride + extent).saturating_sub(size);
        let same = |size: usize, out: usize| out == size.div_ceil(stride) && needed(size, out) / 2 == padding;
        if same(input.h, output.h) && same(input.w, output.w) {
            return Self::Same;
        }
        let both = |size: usize, out: usize| [padding, needed(size, out).saturating_sub(padding)];
        Self::Before { rows: both(input.h, output.h), columns: both(input.w, output.w) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_move_to_the_end() {
        // Two outputs, two inputs, one row of three columns.
        let values: Vec<usize> = (0..12).collect();
        assert_eq!(channels_last(&values, 2, 1, 3), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(outputs_last(&values, 3), [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
    }

    #[test]
    fn padding_is_the_formats_own_where_it_agrees() {
        let of = |extent, stride, padding, size: usize, out: usize| {
            Padding::of(extent, stride, padding, Shape::new(1, 1, size, size), Shape::new(1, 1, out, out))
        };
        assert_eq!(of(3, 1, 1, 8, 8), Padding::Same);
        assert_eq!(of(9, 1, 4, 8, 8), Padding::Same);
        assert_eq!(of(3, 2, 1, 7, 4), Padding::Same);
        assert_eq!(of(1, 2, 0, 8, 4), Padding::Valid);
        // An even size at stride 2: the format would pad behind only.
        assert_eq!(of(3, 2, 1, 8, 4), Padding::Before { rows: [1, 0], columns: [1, 0] });
        assert_eq!(of(5, 1, 1, 8, 6), Padding::Before { rows: [1, 1], columns: [1, 1] });
    }
}
