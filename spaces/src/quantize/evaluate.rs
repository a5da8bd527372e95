//! A plain interpreter of networks of integers, against which engines are compared.

use super::{Affine, Filter, Quantized};
use crate::{
    Function, Node, NodeId, OpSpec, Shape, WeightsError,
    window::{inside, windows},
};

impl Quantized {
    /// Rounds the input, computes the output in integers, and gives back what it stands for. Sums are
    /// exact; each operator rounds its result once, halves to even. Engines that rescale in fixed point
    /// or in single precision may be off by one integer per operator.
    ///
    /// # Errors
    /// [`WeightsError::Input`] if the input has another number of values than its shape.
    pub fn evaluate(&self, input: &[f32]) -> Result<Vec<f32>, WeightsError> {
        let output = self.graph.outputs()[0];
        let affine = self.affine[output];
        Ok(self.evaluate_integers(input)?.iter().map(|&value| affine.dequantize(value) as f32).collect())
    }

    /// The same, with the output as integers.
    ///
    /// # Errors
    /// See [`Quantized::evaluate`].
    pub fn evaluate_integers(&self, input: &[f32]) -> Result<Vec<i8>, WeightsError> {
        let shape = self.graph.input_shape().ok_or(WeightsError::Inputs { got: 0 })?;
        if input.len() != shape.elements() {
            return Err(WeightsError::Input { shape, expected: shape.elements(), got: input.len() });
        }
        let mut values: Vec<Vec<i8>> = Vec::with_capacity(self.graph.nodes().len());
        for (id, node) in self.graph.nodes().iter().enumerate() {
            let value = if node.op == OpSpec::Input {
                input.iter().map(|&value| self.affine[id].quantize(f64::from(value))).collect()
            } else {
                Step { network: self, id, node, values: &values }.run()
            };
            values.push(value);
        }
        Ok(values.swap_remove(self.graph.outputs()[0]))
    }
}

/// One node with everything that it reads.
struct Step<'a> {
    network: &'a Quantized,
    id: NodeId,
    node: &'a Node,
    values: &'a [Vec<i8>],
}

impl Step<'_> {
    fn run(&self) -> Vec<i8> {
        let x = &self.values[self.node.inputs[0]];
        let shape = self.network.graph.source_shape(self.node);
        let out = self.node.shape;
        match self.node.op {
            OpSpec::Conv2d { .. } => self.filtered(|filter| self.convolution(filter, x, shape)),
            OpSpec::Linear { .. } => self.filtered(|filter| self.linear(filter, x, shape)),
            OpSpec::Relu => self.each(|value| value.max(0.0)),
            OpSpec::Activation { function } => self.each(|value| Function::apply(function, value)),
            OpSpec::Add => self.pairs(|a, b| a + b),
            OpSpec::Mul => self.pairs(|a, b| a * b),
            OpSpec::Prelu => self.filtered(|filter| {
                let (from, to, area) = (self.source(), self.affine(), shape.h * shape.w);
                let slope = |at: usize| {
                    let channel = at / area % shape.c;
                    f64::from(filter.weights[channel]) * f64::from(filter.scale(channel))
                };
                let one = |(at, &value): (usize, &i8)| {
                    let value = from.dequantize(value);
                    to.quantize(if value < 0.0 { value * slope(at) } else { value })
                };
                x.iter().enumerate().map(one).collect()
            }),
            OpSpec::Slice { start, channels } => {
                let area = shape.h * shape.w;
                let images = x.chunks(shape.c * area);
                images.flat_map(|image| &image[start * area..(start + channels) * area]).copied().collect()
            }
            OpSpec::Pad { top, left, .. } => self.moved(|channel, row, column| {
                let (row, column) = (row.checked_sub(top)?, column.checked_sub(left)?);
                (row < shape.h && column < shape.w).then_some((channel, row, column))
            }),
            OpSpec::CropEnd { .. } => self.moved(|channel, row, column| Some((channel, row, column))),
            OpSpec::DepthToSpace { block } => self.moved(|channel, row, column| {
                let within = row % block * block + column % block;
                Some((channel * block * block + within, row / block, column / block))
            }),
            OpSpec::MaxPool { kernel, stride, padding } => {
                windows(x, shape, out, (kernel, stride, padding), |values, _| {
                    values.iter().copied().max().unwrap_or(i8::MIN)
                })
            }
            OpSpec::AvgPool { kernel, stride, padding, count_include_pad } => {
                let affine = self.affine();
                windows(x, shape, out, (kernel, stride, padding), |values, padded| {
                    let count = if count_include_pad { padded } else { values.len() };
                    affine.round(sum(values, affine) as f64 / count as f64)
                })
            }
            OpSpec::GlobalAvgPool => {
                let source = self.source();
                let ratio = f64::from(source.scale) / f64::from(self.affine().scale);
                let mean = |map: &[i8]| sum(map, source) as f64 / map.len() as f64;
                x.chunks(shape.h * shape.w).map(|map| self.affine().round(mean(map) * ratio)).collect()
            }
            OpSpec::Concat => (0..out.n).flat_map(|image| self.image_of_all_inputs(image)).collect(),
            OpSpec::Crop { top, left } => {
                let row = |row: usize| &x[row * shape.w + left..(row + 1) * shape.w];
                let kept = (0..shape.n * shape.c * shape.h).filter(|index| index % shape.h >= top);
                kept.flat_map(row).copied().collect()
            }
            OpSpec::ChannelShuffle { groups } => {
                let (area, each) = (shape.h * shape.w, shape.c / groups);
                let source = |map: usize| {
                    let (image, channel) = (map / shape.c, map % shape.c);
                    image * shape.c + channel % groups * each + channel / groups
                };
                let maps = (0..shape.n * shape.c).map(source);
                maps.flat_map(|map| &x[map * area..(map + 1) * area]).copied().collect()
            }
            OpSpec::Zero { .. } => vec![self.affine().zero_point; out.elements()],
            // Folded away, refused before, or handled by the caller.
            _ => x.clone(),
        }
    }

    fn affine(&self) -> Affine {
        self.network.affine[self.id]
    }

    fn source(&self) -> Affine {
        self.network.affine[self.node.inputs[0]]
    }

    fn filtered(&self, run: impl FnOnce(&Filter) -> Vec<i8>) -> Vec<i8> {
        self.network.filters.get(&self.id).map(run).unwrap_or_default()
    }

    fn each(&self, apply: impl Fn(f64) -> f64) -> Vec<i8> {
        let (from, to) = (self.source(), self.affine());
        let x = &self.values[self.node.inputs[0]];
        x.iter().map(|&value| to.quantize(apply(from.dequantize(value)))).collect()
    }

    /// Every number of the output from the place of the input that it is at; zero where it is at none.
    fn moved(&self, from: impl Fn(usize, usize, usize) -> Option<(usize, usize, usize)>) -> Vec<i8> {
        let (x, zero) = (&self.values[self.node.inputs[0]], self.affine().zero_point);
        let (shape, out) = (self.network.graph.source_shape(self.node), self.node.shape);
        let mut moved = Vec::with_capacity(out.elements());
        for image in 0..out.n {
            for channel in 0..out.c {
                for place in 0..out.h * out.w {
                    let source = from(channel, place / out.w, place % out.w);
                    moved.push(source.map_or(zero, |(channel, row, column)| {
                        x[((image * shape.c + channel) * shape.h + row) * shape.w + column]
                    }));
                }
            }
        }
        moved
    }

    /// Two inputs, number by number; the second may have one number for all channels, or for all positions.
    fn pairs(&self, combine: impl Fn(f64, f64) -> f64) -> Vec<i8> {
        let [shape, other] = [0, 1].map(|index| self.network.graph.nodes()[self.node.inputs[index]].shape);
        let second = |at: usize| {
            let area = shape.h * shape.w;
            let (image, channel, place) = (at / area / shape.c, at / area % shape.c, at % area);
            let channel = if other.c == 1 { 0 } else { channel };
            let place = if other.h * other.w == 1 { 0 } else { place };
            (image * other.c + channel) * other.h * other.w + place
        };
        let [a, b] = [0, 1].map(|index| {
            let id = self.node.inputs[index];
            (&self.values[id], self.network.affine[id])
        });
        let to = self.affine();
        let at = |(at, &value): (usize, &i8)| {
            to.quantize(combine(a.1.dequantize(value), b.1.dequantize(b.0[second(at)])))
        };
        a.0.iter().enumerate().map(at).collect()
    }

    /// One image of every input, one after the other.
    fn image_of_all_inputs(&self, image: usize) -> impl Iterator<Item = i8> {
        let part = move |&id: &NodeId| {
            let len = self.values[id].len() / self.node.shape.n;
            self.values[id][image * len..(image + 1) * len].iter().copied()
        };
        self.node.inputs.iter().flat_map(part)
    }

    /// The result of a channel from its exact sum.
    fn rescale(&self, filter: &Filter, channel: usize, sum: i64) -> i8 {
        let product = f64::from(self.source().scale) * f64::from(filter.scale(channel));
        self.affine().round(sum as f64 * (product / f64::from(self.affine().scale)))
    }

    fn convolution(&self, filter: &Filter, x: &[i8], shape: Shape) -> Vec<i8> {
        let out = self.node.shape;
        let OpSpec::Conv2d { out_channels, kernel, stride, padding, dilation, groups, .. } = self.node.op
        else {
            return Vec::new();
        };
        let zero = i64::from(self.source().zero_point);
        let each = shape.c / groups;
        let mut result = Vec::with_capacity(out.elements());
        let mut sums = vec![0_i64; out.h * out.w];
        for image in 0..out.n {
            for channel in 0..out_channels {
                sums.fill(i64::from(filter.bias[channel]));
                let group = channel / (out_channels / groups);
                for source in 0..each {
                    let map = ((image * shape.c) + group * each + source) * shape.h * shape.w;
                    let map = &x[map..map + shape.h * shape.w];
                    for row in 0..kernel {
                        for column in 0..kernel {
                            let tap =
                                filter.weights[((channel * each + source) * kernel + row) * kernel + column];
                            for y in 0..out.h {
                                let Some(top) = inside(y * stride + row * dilation, padding, shape.h) else {
                                    continue;
                                };
                                for z in 0..out.w {
                                    if let Some(left) =
                                        inside(z * stride + column * dilation, padding, shape.w)
                                    {
                                        sums[y * out.w + z] +=
                                            i64::from(tap) * (i64::from(map[top * shape.w + left]) - zero);
                                    }
                                }
                            }
                        }
                    }
                }
                result.extend(sums.iter().map(|&sum| self.rescale(filter, channel, sum)));
            }
        }
        result
    }

    fn linear(&self, filter: &Filter, x: &[i8], shape: Shape) -> Vec<i8> {
        let features = shape.elements() / shape.n;
        let zero = i64::from(self.source().zero_point);
        let mut result = Vec::with_capacity(self.node.shape.elements());
        for image in x.chunks(features) {
            for (row, weights) in filter.weights.chunks(features).enumerate() {
                let products = image.iter().zip(weights).map(|(&a, &b)| (i64::from(a) - zero) * i64::from(b));
                result.push(self.rescale(filter, row, products.sum::<i64>() + i64::from(filter.bias[row])));
            }
        }
        result
    }
}

/// Exact sum, in scales.
fn sum(values: &[i8], affine: Affine) -> i64 {
    values.iter().map(|&value| i64::from(value) - i64::from(affine.zero_point)).sum()
}
