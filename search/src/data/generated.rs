//! Generated images that need no download: a textured shape somewhere on a noisy ground.
//!
//! A class is a shape together with a texture. Place, size, rotation, phase, colours and their
//! polarity are random, so that a shape is as often lighter than its ground as darker and the mean
//! image of every class is nearly the same: a linear model finds little, a small network with local
//! filters and pooling finds the class.

use std::f64::consts::TAU;

use lathe_spaces::Stream;
use rand::{Rng, RngExt as _};
use rayon::prelude::*;

use super::{DataError, ImageSet, Loaded};
use crate::DataSettings;

/// Images if the settings name no number.
const TRAIN_IMAGES: usize = 4096;
const TEST_IMAGES: usize = 1024;
/// Smallest side on which shapes can be told apart.
const SMALLEST: usize = 8;
const SHAPES: [&str; 5] = ["disc", "ring", "square", "triangle", "cross"];
const TEXTURES: [&str; 2] = ["stripes", "checks"];
/// Images drawn between two calls of the progress function.
const CHUNK: usize = 512;
/// Standard deviation of the noise on every pixel, 0..1.
const NOISE: f64 = 0.07;

/// Draws both splits.
pub(super) fn load(
    settings: &DataSettings,
    seed: u64,
    progress: &dyn Fn(usize, usize),
) -> Result<Loaded, DataError> {
    let resolution = settings.resolution;
    if resolution < SMALLEST {
        let expected = "at least 8 for generated images";
        return Err(DataError::Setting { key: "resolution", got: resolution, expected });
    }
    let counts = [settings.train_images.unwrap_or(TRAIN_IMAGES), settings.test_images.unwrap_or(TEST_IMAGES)];
    let total = counts.iter().sum();
    let classes: Vec<String> =
        SHAPES.iter().flat_map(|shape| TEXTURES.map(|texture| format!("{shape}-{texture}"))).collect();
    let mut done = 0;
    progress(done, total);
    let [train, test] =
        [("generated train", counts[0]), ("generated test", counts[1])].map(|(purpose, count)| {
            let mut pixels = Vec::with_capacity(count * 3 * resolution * resolution);
            for start in (0..count).step_by(CHUNK) {
                let end = (start + CHUNK).min(count);
                let images: Vec<Vec<u8>> = (start..end)
                    .into_par_iter()
                    .map(|index| {
                        draw(index % classes.len(), resolution, &mut Stream::new(seed, purpose, index as u64))
                    })
                    .collect();
                pixels.extend(images.concat());
                done += end - start;
                progress(done, total);
            }
            ImageSet::new(pixels, (0..count).map(|index| index % classes.len()).collect())
        });
    Ok((train, test, classes))
}

/// One image of a class as planes.
fn draw<R: Rng>(class: usize, resolution: usize, random: &mut R) -> Vec<u8> {
    let (shape, texture) = (class / TEXTURES.len(), class % TEXTURES.len());
    let side = resolution as f64;
    let radius = random.random_range(0.3..0.42);
    let centre = [(); 2].map(|()| random.random_range(radius..1.0 - radius));
    let (sin, cos) = random.random_range(-0.3..0.3_f64).sin_cos();
    // Waves are at least three pixels long: shorter ones would vanish in the sampling.
    let wave = (0.16 * side).max(3.0) * random.random_range(0.85..1.15);
    let tilt = random.random_range(0.0..TAU);
    let phases = [(); 2].map(|()| random.random_range(0.0..TAU));
    let ground = [(); 3].map(|()| random.random_range(0.3..0.7));
    let contrast = colour(random, 0.45..0.75);
    let shift = colour(random, 0.15..0.35);
    let slope = [(); 2].map(|()| random.random_range(-0.15..0.15));
    let mut planes = vec![0; 3 * resolution * resolution];
    for y in 0..resolution {
        for x in 0..resolution {
            let at = [(x as f64 + 0.5) / side, (y as f64 + 0.5) / side];
            let [right, down] = [at[0] - centre[0], at[1] - centre[1]];
            let place = [(cos * right + sin * down) / radius, (cos * down - sin * right) / radius];
            let painted = inside(shape, place);
            let waves = [0.0, TAU / 4.0].map(|turn| {
                let along = x as f64 * (tilt + turn).cos() + y as f64 * (tilt + turn).sin();
                along * TAU / wave
            });
            let value = match texture {
                0 => (waves[0] + phases[0]).sin(),
                // The factor gives checks the mean square of stripes.
                _ => (waves[0] + phases[0]).sin() * (waves[1] + phases[1]).sin() * std::f64::consts::SQRT_2,
            };
            let shade = slope[0] * (at[0] - 0.5) + slope[1] * (at[1] - 0.5);
            for channel in 0..3 {
                let paint = if painted { shift[channel] + contrast[channel] * value / 2.0 } else { 0.0 };
                let bright = ground[channel] + shade + paint + NOISE * normal(random);
                planes[(channel * resolution + y) * resolution + x] =
                    (bright.clamp(0.0, 1.0) * 255.0).round() as u8;
            }
        }
    }
    planes
}

/// Whether a place, in units of the shape's radius, is painted.
fn inside(shape: usize, [x, y]: [f64; 2]) -> bool {
    let square = x * x + y * y;
    match SHAPES[shape] {
        "disc" => square < 0.85,
        "ring" => (0.3..1.15).contains(&square),
        "square" => x.abs().max(y.abs()) < 0.8,
        "triangle" => y < 0.75 && y > 1.9 * x.abs() - 1.0,
        _ => x.abs().min(y.abs()) < 0.32 && x.abs().max(y.abs()) < 1.0,
    }
}

/// A random colour difference of a length from `lengths`, in any direction.
fn colour<R: Rng>(random: &mut R, lengths: std::ops::Range<f64>) -> [f64; 3] {
    let direction = [(); 3].map(|()| normal(random));
    let norm = direction.iter().map(|value| value * value).sum::<f64>().sqrt().max(1e-9);
    let length = random.random_range(lengths);
    direction.map(|value| value / norm * length)
}

/// Standard normal (Box & Muller 1958).
fn normal<R: Rng>(random: &mut R) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (TAU * random.random::<f64>()).cos()
}

#[cfg(test)]
#[path = "generated_tests.rs"]
mod tests;
