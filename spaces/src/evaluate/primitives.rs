//! Norms, transposed convolution, attention, and what moves numbers.

use super::Step;
use crate::{BATCH_NORM_EPSILON, OpSpec, Shape, WeightsError, window::inside};

impl Step<'_> {
    pub(super) fn prelu(&self, x: &[f32], shape: Shape) -> Result<Vec<f32>, WeightsError> {
        let slopes = self.tensor("weight", &[shape.c])?;
        let slope = |at: usize| slopes[at / (shape.h * shape.w) % shape.c];
        let bent = |(at, &value): (usize, &f32)| if value > 0.0 { value } else { value * slope(at) };
        Ok(x.iter().enumerate().map(bent).collect())
    }

    pub(super) fn scalar_affine(&self, x: &[f32]) -> Result<Vec<f32>, WeightsError> {
        let (scale, shift) = (self.tensor("weight", &[1])?[0], self.tensor("bias", &[1])?[0]);
        let affine = |&value: &f32| f64::from(value) * f64::from(scale) + f64::from(shift);
        Ok(x.iter().map(|value| affine(value) as f32).collect())
    }

    pub(super) fn group_norm(
        &self,
        x: &[f32],
        shape: Shape,
        groups: usize,
    ) -> Result<Vec<f32>, WeightsError> {
        let (weight, bias) = (self.tensor("weight", &[shape.c])?, self.tensor("bias", &[shape.c])?);
        let (area, each) = (shape.h * shape.w, shape.c / groups);
        let mut result = Vec::with_capacity(x.len());
        for (index, group) in x.chunks(each * area).enumerate() {
            let standard = standardised(group.iter().copied());
            result.extend(standard.iter().enumerate().map(|(at, value)| {
                let channel = index % groups * each + at / area;
                (value * f64::from(weight[channel]) + f64::from(bias[channel])) as f32
            }));
        }
        Ok(result)
    }

    pub(super) fn layer_norm(&self, x: &[f32], shape: Shape) -> Result<Vec<f32>, WeightsError> {
        let (weight, bias) = (self.tensor("weight", &[shape.c])?, self.tensor("bias", &[shape.c])?);
        let area = shape.h * shape.w;
        let mut result = vec![0.0; x.len()];
        for image in 0..shape.n {
            for position in 0..area {
                let at = |channel: usize| (image * shape.c + channel) * area + position;
                let standard = standardised((0..shape.c).map(|channel| x[at(channel)]));
                for (channel, value) in standard.into_iter().enumerate() {
                    result[at(channel)] =
                        (value * f64::from(weight[channel]) + f64::from(bias[channel])) as f32;
                }
            }
        }
        Ok(result)
    }

    pub(super) fn transposed_convolution(&self, x: &[f32], shape: Shape) -> Result<Vec<f32>, WeightsError> {
        let OpSpec::ConvTranspose2d { out_channels, kernel, stride, padding, groups, bias } = self.node.op
        else {
            return Ok(Vec::new());
        };
        let out = self.node.shape;
        let (each_in, each_out) = (shape.c / groups, out_channels / groups);
        let weight = self.tensor("weight", &[shape.c, each_out, kernel, kernel])?;
        let bias = if bias { Some(self.tensor("bias", &[out_channels])?) } else { None };
        let mut sums = vec![0.0_f64; out.elements()];
        for (map, values) in x.chunks(shape.h * shape.w).enumerate() {
            let (image, source) = (map / shape.c, map % shape.c);
            for of_group in 0..each_out {
                let channel = source / each_in * each_out + of_group;
                let to = (image * out_channels + channel) * out.h * out.w;
                let taps = &weight[(source * each_out + of_group) * kernel * kernel..][..kernel * kernel];
                for (position, &value) in values.iter().enumerate() {
                    let (y, z) = (position / shape.w * stride, position % shape.w * stride);
                    for (tap, &factor) in taps.iter().enumerate() {
                        if let Some(row) = inside(y + tap / kernel, padding, out.h)
                            && let Some(column) = inside(z + tap % kernel, padding, out.w)
                        {
                            sums[to + row * out.w + column] += f64::from(value) * f64::from(factor);
                        }
                    }
                }
            }
        }
        let shift = |at: usize| bias.map_or(0.0, |bias| f64::from(bias[at / (out.h * out.w) % out_channels]));
        Ok(sums.iter().enumerate().map(|(at, sum)| (sum + shift(at)) as f32).collect())
    }

    pub(super) fn attention(&self, x: &[f32], shape: Shape) -> Result<Vec<f32>, WeightsError> {
        let OpSpec::Attention { heads, key_dim, value_dim, window, relative_bias } = self.node.op else {
            return Ok(Vec::new());
        };
        let (rows, columns) = window.map_or((shape.h, shape.w), |window| (window, window));
        let tokens = rows * columns;
        let bias = if relative_bias { Some(self.tensor("bias", &[heads, tokens])?) } else { None };
        let area = shape.h * shape.w;
        let each = 2 * key_dim + value_dim;
        let mut result = vec![0.0; self.node.shape.elements()];
        let scale = 1.0 / (key_dim as f64).sqrt();
        for image in 0..shape.n {
            for head in 0..heads {
                let source = &x[(image * shape.c + head * each) * area..][..each * area];
                let target = &mut result[(image * heads + head) * value_dim * area..][..value_dim * area];
                for first in (0..area).filter(|at| {
                    (at / shape.w).is_multiple_of(rows) && (at % shape.w).is_multiple_of(columns)
                }) {
                    let place = |token: usize| first + token / columns * shape.w + token % columns;
                    let of = |channel: usize, token: usize| f64::from(source[channel * area + place(token)]);
                    for query in 0..tokens {
                        let score = |key: usize| {
                            let product: f64 =
                                (0..key_dim).map(|k| of(k, query) * of(key_dim + k, key)).sum();
                            let distance = (query / columns).abs_diff(key / columns) * columns
                                + (query % columns).abs_diff(key % columns);
                            product * scale
                                + bias.map_or(0.0, |bias| f64::from(bias[head * tokens + distance]))
                        };
                        let scores: Vec<f64> = (0..tokens).map(score).collect();
                        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                        let total: f64 = weights.iter().sum();
                        for value in 0..value_dim {
                            let row = 2 * key_dim + value;
                            let sum: f64 =
                                weights.iter().enumerate().map(|(key, weight)| weight * of(row, key)).sum();
                            target[value * area + place(query)] = (sum / total) as f32;
                        }
                    }
                }
            }
        }
        Ok(result)
    }
}

/// Less their mean and divided by their deviation.
fn standardised(values: impl Iterator<Item = f32> + Clone) -> Vec<f64> {
    let count = values.clone().count() as f64;
    let mean = values.clone().map(f64::from).sum::<f64>() / count;
    let variance = values.clone().map(|value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
    let deviation = (variance + BATCH_NORM_EPSILON).sqrt();
    values.map(|value| (f64::from(value) - mean) / deviation).collect()
}

/// A map of which every position is one of the input's, or zero.
pub(super) fn gather(
    out: Shape,
    source: impl Fn(usize, usize) -> Option<(usize, usize)>,
    x: &[f32],
    shape: Shape,
) -> Vec<f32> {
    let mut result = Vec::with_capacity(out.elements());
    for map in x.chunks(shape.h * shape.w) {
        for y in 0..out.h {
            result.extend(
                (0..out.w).map(|z| source(y, z).map_or(0.0, |(row, column)| map[row * shape.w + column])),
            );
        }
    }
    result
}

pub(super) fn depth_to_space(x: &[f32], shape: Shape, block: usize) -> Vec<f32> {
    let (maps, area) = (shape.n * shape.c / (block * block), shape.h * shape.w);
    let mut result = Vec::with_capacity(x.len());
    for map in 0..maps {
        for y in 0..shape.h * block {
            result.extend((0..shape.w * block).map(|z| {
                let channel = map * block * block + y % block * block + z % block;
                x[channel * area + y / block * shape.w + z / block]
            }));
        }
    }
    result
}
