//! Any picture to a square of planes.

use image::{RgbImage, imageops};

/// The picture as `3 × resolution × resolution` planes: its short side is scaled bilinearly to the
/// resolution, then the middle is cut out.
pub(super) fn square(picture: &RgbImage, resolution: usize) -> Vec<u8> {
    let side = resolution as u32;
    let (width, height) = picture.dimensions();
    let scaled = |extent: u32| {
        let ratio = f64::from(extent) * f64::from(side) / f64::from(width.min(height));
        (ratio.round() as u32).max(side)
    };
    let (wide, high) = (scaled(width), scaled(height));
    if (wide, high) == (width, height) {
        return middle(picture, resolution);
    }
    middle(&imageops::resize(picture, wide, high, imageops::FilterType::Triangle), resolution)
}

fn middle(picture: &RgbImage, resolution: usize) -> Vec<u8> {
    let side = resolution as u32;
    let (left, top) = ((picture.width() - side) / 2, (picture.height() - side) / 2);
    let mut planes = Vec::with_capacity(3 * resolution * resolution);
    for channel in 0..3 {
        for y in top..top + side {
            planes.extend((left..left + side).map(|x| picture.get_pixel(x, y).0[channel]));
        }
    }
    planes
}
