//! A plain interpreter of graphs, against which engines are compared.

mod primitives;

use primitives::{depth_to_space, gather};

use crate::{
    BATCH_NORM_EPSILON, Graph, Node, NodeId, OpSpec, Shape, Weights, WeightsError,
    window::{inside, windows},
};

/// Computes the first output of a graph in inference mode, in the most obvious way.
///
/// Sums are taken in double precision and rounded once per operator, so that differences to an
/// engine are the engine's. `input` has the shape of the graph's only input, NCHW; so has the result
/// that of the first output.
///
/// # Errors
/// [`WeightsError`] if the graph has not one input, or the input or a tensor doesn't fit it.
pub fn evaluate(graph: &Graph, weights: &Weights, input: &[f32]) -> Result<Vec<f32>, WeightsError> {
    Ok(evaluate_all(graph, weights, input)?.swap_remove(graph.outputs()[0]))
}

/// The outputs of all nodes, in node order. Errors are those of [`evaluate`].
pub(crate) fn evaluate_all(
    graph: &Graph,
    weights: &Weights,
    input: &[f32],
) -> Result<Vec<Vec<f32>>, WeightsError> {
    let inputs: Vec<Shape> = graph.inputs().map(|node| node.shape).collect();
    let [shape] = inputs[..] else { return Err(WeightsError::Inputs { got: inputs.len() }) };
    if input.len() != shape.elements() {
        return Err(WeightsError::Input { shape, expected: shape.elements(), got: input.len() });
    }
    weights.check(graph)?;
    let mut values: Vec<Vec<f32>> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let value = if node.op == OpSpec::Input {
            input.to_vec()
        } else {
            Step { graph, weights, node, values: &values }.run()?
        };
        values.push(value);
    }
    Ok(values)
}

/// One node with everything that it reads.
struct Step<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    node: &'a Node,
    values: &'a [Vec<f32>],
}

impl Step<'_> {
    fn run(&self) -> Result<Vec<f32>, WeightsError> {
        let out = self.node.shape;
        let x = &self.values[self.node.inputs[0]];
        let shape = self.graph.source_shape(self.node);
        Ok(match self.node.op {
            OpSpec::Input => x.clone(),
            OpSpec::Conv2d { .. } => self.convolution(x, shape)?,
            OpSpec::BatchNorm { affine } => self.batch_norm(x, shape, affine)?,
            OpSpec::Relu => x.iter().map(|value| value.max(0.0)).collect(),
            OpSpec::Activation { function } => {
                x.iter().map(|&value| function.apply(f64::from(value)) as f32).collect()
            }
            OpSpec::Mul => {
                let id = self.node.inputs[1];
                let (factor, gate) = (&self.values[id], self.graph.nodes()[id].shape);
                let product = |(at, &value): (usize, &f32)| value * factor[broadcast(at, shape, gate)];
                x.iter().enumerate().map(product).collect()
            }
            OpSpec::MaxPool { kernel, stride, padding } => {
                windows(x, shape, out, (kernel, stride, padding), |values, _| {
                    values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
                })
            }
            OpSpec::AvgPool { kernel, stride, padding, count_include_pad } => {
                windows(x, shape, out, (kernel, stride, padding), |values, padded| {
                    let sum: f64 = values.iter().copied().map(f64::from).sum();
                    (sum / if count_include_pad { padded } else { values.len() } as f64) as f32
                })
            }
            OpSpec::GlobalAvgPool => {
                let mean = |map: &[f32]| map.iter().copied().map(f64::from).sum::<f64>() / map.len() as f64;
                x.chunks(shape.h * shape.w).map(|map| mean(map) as f32).collect()
            }
            OpSpec::Linear { out_features, bias } => self.linear(x, shape, out_features, bias)?,
            OpSpec::Add => {
                let term = |id: NodeId, at| {
                    f64::from(self.values[id][broadcast(at, out, self.graph.nodes()[id].shape)])
                };
                let sum = |at| self.node.inputs.iter().map(|&id| term(id, at)).sum::<f64>() as f32;
                (0..out.elements()).map(sum).collect()
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
            OpSpec::Zero { .. } => vec![0.0; out.elements()],
            OpSpec::Mean => {
                let inputs = &self.node.inputs;
                let sum = |at| inputs.iter().map(|&id| f64::from(self.values[id][at])).sum::<f64>();
                (0..out.elements()).map(|at| (sum(at) / inputs.len() as f64) as f32).collect()
            }
            OpSpec::Prelu => self.prelu(x, shape)?,
            OpSpec::GroupNorm { groups } => self.group_norm(x, shape, groups)?,
            OpSpec::LayerNorm => self.layer_norm(x, shape)?,
            OpSpec::ScalarAffine => self.scalar_affine(x)?,
            OpSpec::Slice { start, channels } => {
                let area = shape.h * shape.w;
                let images = x.chunks(shape.c * area);
                images.flat_map(|image| &image[start * area..(start + channels) * area]).copied().collect()
            }
            OpSpec::Pad { top, left, .. } => {
                gather(out, |y, z| Some((inside(y, top, shape.h)?, inside(z, left, shape.w)?)), x, shape)
            }
            OpSpec::CropEnd { .. } => gather(out, |y, z| Some((y, z)), x, shape),
            OpSpec::ConvTranspose2d { .. } => self.transposed_convolution(x, shape)?,
            OpSpec::DepthToSpace { block } => depth_to_space(x, shape, block),
            OpSpec::Attention { .. } => self.attention(x, shape)?,
        })
    }

    /// A tensor of the node by its suffix and extents.
    fn tensor(&self, suffix: &str, dims: &[usize]) -> Result<&[f32], WeightsError> {
        self.weights.get(&format!("{}.{suffix}", self.node.name), dims)
    }

    /// One image of every input, one after the other.
    fn image_of_all_inputs(&self, image: usize) -> impl Iterator<Item = f32> {
        let part = move |&id: &NodeId| {
            let len = self.values[id].len() / self.node.shape.n;
            self.values[id][image * len..(image + 1) * len].iter().copied()
        };
        self.node.inputs.iter().flat_map(part)
    }

    fn convolution(&self, x: &[f32], shape: Shape) -> Result<Vec<f32>, WeightsError> {
        let out = self.node.shape;
        let OpSpec::Conv2d { out_channels, kernel, stride, padding, dilation, groups, bias } = self.node.op
        else {
            return Ok(Vec::new());
        };
        let each = shape.c / groups;
        let weight = self.tensor("weight", &[out_channels, each, kernel, kernel])?;
        let bias = if bias { Some(self.tensor("bias", &[out_channels])?) } else { None };
        let mut result = Vec::with_capacity(out.elements());
        let mut sums = vec![0.0_f64; out.h * out.w];
        for image in 0..out.n {
            for channel in 0..out_channels {
                sums.fill(bias.map_or(0.0, |bias| f64::from(bias[channel])));
                let group = channel / (out_channels / groups);
                for source in 0..each {
                    let map = ((image * shape.c) + group * each + source) * shape.h * shape.w;
                    let map = &x[map..map + shape.h * shape.w];
                    for row in 0..kernel {
                        for column in 0..kernel {
                            let tap = weight[((channel * each + source) * kernel + row) * kernel + column];
                            for y in 0..out.h {
                                // In padded coordinates; outside the map the padding is zero.
                                let Some(top) = inside(y * stride + row * dilation, padding, shape.h) else {
                                    continue;
                                };
                                for z in 0..out.w {
                                    if let Some(left) =
                                        inside(z * stride + column * dilation, padding, shape.w)
                                    {
                                        sums[y * out.w + z] +=
                                            f64::from(tap) * f64::from(map[top * shape.w + left]);
                                    }
                                }
                            }
                        }
                    }
                }
                result.extend(sums.iter().map(|&sum| sum as f32));
            }
        }
        Ok(result)
    }

    fn batch_norm(&self, x: &[f32], shape: Shape, affine: bool) -> Result<Vec<f32>, WeightsError> {
        let dims = [shape.c];
        let mean = self.tensor("running_mean", &dims)?;
        let variance = self.tensor("running_var", &dims)?;
        let learned =
            if affine { Some((self.tensor("weight", &dims)?, self.tensor("bias", &dims)?)) } else { None };
        let normalise = |(index, &value): (usize, &f32)| {
            let channel = index / (shape.h * shape.w) % shape.c;
            let deviation = (f64::from(variance[channel]) + BATCH_NORM_EPSILON).sqrt();
            let standard = (f64::from(value) - f64::from(mean[channel])) / deviation;
            let scaled = learned.map_or(standard, |(weight, bias)| {
                standard * f64::from(weight[channel]) + f64::from(bias[channel])
            });
            scaled as f32
        };
        Ok(x.iter().enumerate().map(normalise).collect())
    }

    fn linear(&self, x: &[f32], shape: Shape, out: usize, bias: bool) -> Result<Vec<f32>, WeightsError> {
        let features = shape.elements() / shape.n;
        let weight = self.tensor("weight", &[out, features])?;
        let bias = if bias { Some(self.tensor("bias", &[out])?) } else { None };
        let mut result = Vec::with_capacity(shape.n * out);
        for image in x.chunks(features) {
            for (row, weights) in weight.chunks(features).enumerate() {
                let products = image.iter().zip(weights).map(|(&a, &b)| f64::from(a) * f64::from(b));
                result.push((products.sum::<f64>() + bias.map_or(0.0, |bias| f64::from(bias[row]))) as f32);
            }
        }
        Ok(result)
    }
}

/// Where a tensor of shape `part` that is broadcast over `whole` has the number for position `at`.
fn broadcast(at: usize, whole: Shape, part: Shape) -> usize {
    let area = whole.h * whole.w;
    if part == whole {
        at
    } else if (part.h, part.w) == (1, 1) && part.c == whole.c {
        at / area
    } else {
        at / (area * whole.c) * area + at % area
    }
}
