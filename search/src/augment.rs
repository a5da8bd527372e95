//! What happens to an image between memory and network.

use rand::{Rng, RngExt as _};

/// Standard augmentation of small images, and cutout (`DeVries` & Taylor 2017).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augmentation {
    /// Black pixels put on every side before a random crop of the old size; 0 for no crop.
    pub crop_padding: usize,
    /// Mirror every second image, left to right.
    pub flip: bool,
    /// Side of the square that is blanked (set to the mean) around a random pixel; parts of it may
    /// fall outside.
    pub cutout: Option<usize>,
}

impl Augmentation {
    /// Images as they are.
    pub const fn none() -> Self {
        Self { crop_padding: 0, flip: false, cutout: None }
    }
}

/// What is subtracted from and divided by, per channel, on the scale 0..1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normalisation {
    /// Mean.
    pub mean: [f32; 3],
    /// Standard deviation.
    pub deviation: [f32; 3],
}

/// What chance decides for one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decisions {
    /// Rows and columns that the image is shifted by, up and to the left.
    pub shift: [i64; 2],
    /// Whether it is mirrored.
    pub mirrored: bool,
    /// First row that is blanked and the row after the last one, then columns; nothing if they are equal.
    pub blank: [i64; 4],
}

impl Decisions {
    /// Draws them for an image of `side × side` pixels.
    pub fn draw<R: Rng>(side: usize, augmentation: Augmentation, random: &mut R) -> Self {
        let Augmentation { crop_padding: padding, flip, cutout } = augmentation;
        let shift = if padding > 0 {
            [(); 2].map(|()| random.random_range(0..=2 * padding) as i64 - padding as i64)
        } else {
            [0, 0]
        };
        let mirrored = flip && random.random::<bool>();
        let mut blank = [0; 4];
        if let Some(length) = cutout {
            for ends in blank.chunks_mut(2) {
                let centre = random.random_range(0..side);
                ends[0] = centre.saturating_sub(length / 2) as i64;
                ends[1] = (centre + length.div_ceil(2)).min(side) as i64;
            }
        }
        Self { shift, mirrored, blank }
    }
}

/// Augments and normalises an image of `side × side` pixels into `out` (both as three planes).
pub(crate) fn prepare<R: Rng>(
    pixels: &[u8],
    side: usize,
    augmentation: Augmentation,
    normalisation: Normalisation,
    random: &mut R,
    out: &mut Vec<f32>,
) {
    let Decisions { shift, mirrored, blank } = Decisions::draw(side, augmentation, random);
    let within = |at: i64| usize::try_from(at).ok().filter(|&at| at < side);
    let begin = out.len();
    for channel in 0..3 {
        let (mean, deviation) = (normalisation.mean[channel], normalisation.deviation[channel]);
        let plane = &pixels[channel * side * side..(channel + 1) * side * side];
        for y in 0..side {
            // Outside of the image is black.
            let row = within(y as i64 + shift[0]);
            for x in 0..side {
                let x = if mirrored { side - 1 - x } else { x };
                let column = within(x as i64 + shift[1]);
                let raw = row.zip(column).map_or(0, |(row, column)| plane[row * side + column]);
                out.push((f32::from(raw) / 255.0 - mean) / deviation);
            }
        }
    }
    let [top, bottom, left, right] = blank.map(|end| end as usize);
    for channel in 0..3 {
        for y in top..bottom {
            let line = begin + (channel * side + y) * side;
            out[line + left..line + right].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use lathe_spaces::Stream;

    use super::*;

    const SIDE: usize = 8;
    const PLAIN: Normalisation = Normalisation { mean: [0.0; 3], deviation: [1.0 / 255.0; 3] };

    fn picture() -> Vec<u8> {
        (1..=(3 * SIDE * SIDE) as u8).collect()
    }

    fn augmented(augmentation: Augmentation, index: u64) -> Vec<f32> {
        let mut out = Vec::new();
        let mut random = Stream::new(0, "test", index);
        prepare(&picture(), SIDE, augmentation, PLAIN, &mut random, &mut out);
        out
    }

    #[test]
    fn none_only_normalises() {
        let mut out = Vec::new();
        let scale = Normalisation { mean: [0.5; 3], deviation: [0.25; 3] };
        prepare(&picture(), SIDE, Augmentation::none(), scale, &mut Stream::new(0, "test", 0), &mut out);
        for (value, pixel) in out.iter().zip(picture()) {
            assert!((value - (f32::from(pixel) / 255.0 - 0.5) / 0.25).abs() < 1e-6);
        }
    }

    #[test]
    fn every_crop_is_a_shifted_picture_with_black_around_it() {
        let augmentation = Augmentation { crop_padding: 2, ..Augmentation::none() };
        let mut shifts = std::collections::BTreeSet::new();
        for index in 0..300 {
            let out = augmented(augmentation, index);
            let shift = (0..25).find(|shift| {
                let (down, right) = (shift / 5, shift % 5);
                (0..3 * SIDE * SIDE).all(|at| {
                    let (plane, y, x) = (at / SIDE / SIDE, at / SIDE % SIDE + down, at % SIDE + right);
                    let within = (2..SIDE + 2).contains(&y) && (2..SIDE + 2).contains(&x);
                    let raw = if within { picture()[(plane * SIDE + y - 2) * SIDE + x - 2] } else { 0 };
                    (out[at] - f32::from(raw)).abs() < 1e-3
                })
            });
            shifts.insert(shift);
        }
        assert!(!shifts.contains(&None) && shifts.len() == 25, "{shifts:?}");
    }

    #[test]
    fn half_of_the_images_are_mirrored() {
        let augmentation = Augmentation { flip: true, ..Augmentation::none() };
        let plain = augmented(Augmentation::none(), 0);
        let mirror: Vec<f32> = plain.chunks(SIDE).flat_map(|row| row.iter().rev()).copied().collect();
        let results: Vec<Vec<f32>> = (0..400).map(|index| augmented(augmentation, index)).collect();
        assert!(results.iter().all(|result| *result == plain || *result == mirror));
        let flipped = results.iter().filter(|result| **result == mirror).count();
        assert!((150..250).contains(&flipped), "{flipped}");
    }

    #[test]
    fn cutout_blanks_one_clipped_square_of_all_channels() {
        let augmentation = Augmentation { cutout: Some(4), ..Augmentation::none() };
        let mut counts = std::collections::BTreeSet::new();
        for index in 0..300 {
            let out = augmented(augmentation, index);
            let blank = |plane: usize| -> Vec<usize> {
                (0..SIDE * SIDE).filter(|at| out[plane * SIDE * SIDE + at] == 0.0).collect()
            };
            let first = blank(0);
            assert!(first == blank(1) && first == blank(2));
            let rows: std::collections::BTreeSet<usize> = first.iter().map(|at| at / SIDE).collect();
            let columns: std::collections::BTreeSet<usize> = first.iter().map(|at| at % SIDE).collect();
            assert_eq!(rows.len() * columns.len(), first.len());
            counts.insert(first.len());
        }
        assert!(counts.last() == Some(&16) && counts.first() == Some(&4), "{counts:?}");
    }
}
