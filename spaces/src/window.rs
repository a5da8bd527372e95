//! Windows that move over padded maps, as the reference interpreters see them.

use crate::Shape;

/// Position in the map of a position in the padded map, if it isn't padding.
pub(crate) fn inside(padded: usize, padding: usize, size: usize) -> Option<usize> {
    padded.checked_sub(padding).filter(|&at| at < size)
}

/// Applies `pool` to the values of every window that lie inside the map, and to the number of
/// positions of the window inside the padded map.
pub(crate) fn windows<T: Copy>(
    x: &[T],
    shape: Shape,
    out: Shape,
    (kernel, stride, padding): (usize, usize, usize),
    pool: impl Fn(&[T], usize) -> T,
) -> Vec<T> {
    let mut result = Vec::with_capacity(out.elements());
    let mut values = Vec::with_capacity(kernel * kernel);
    for map in x.chunks(shape.h * shape.w) {
        for y in 0..out.h {
            for z in 0..out.w {
                values.clear();
                let rows = (y * stride..y * stride + kernel).filter_map(|at| inside(at, padding, shape.h));
                for row in rows {
                    let columns =
                        (z * stride..z * stride + kernel).filter_map(|at| inside(at, padding, shape.w));
                    values.extend(columns.map(|column| map[row * shape.w + column]));
                }
                result.push(pool(&values, kernel * kernel));
            }
        }
    }
    result
}
