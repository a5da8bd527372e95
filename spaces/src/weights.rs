//! The numbers that fill a graph's tensors.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

use crate::{Function, Graph, Node, NodeId, OpSpec, Shape, Stream};

/// A dense tensor of single-precision numbers, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Extents.
    pub dims: Vec<usize>,
    /// Values, the last extent running fastest.
    pub values: Vec<f32>,
}

/// Parameters and statistics of a graph, by [`TensorSpec`](crate::TensorSpec) name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights(pub BTreeMap<String, Tensor>);

/// Why weights, or an input, don't fit a graph.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WeightsError {
    /// A tensor that the graph needs isn't there.
    #[error("find tensor `{name}` ({dims:?}) among the weights")]
    Missing {
        /// Its name.
        name: String,
        /// Extents that it must have.
        dims: Vec<usize>,
    },
    /// A tensor of another shape.
    #[error("use tensor `{name}`: expected extents {expected:?}, got {got:?}")]
    Dims {
        /// Its name.
        name: String,
        /// What the graph needs.
        expected: Vec<usize>,
        /// What the weights have.
        got: Vec<usize>,
    },
    /// A tensor whose number of values contradicts its own extents.
    #[error("use tensor `{name}`: its extents need {expected} values, it has {got}")]
    Values {
        /// Its name.
        name: String,
        /// Product of the extents.
        expected: usize,
        /// Number of values.
        got: usize,
    },
    /// An input of the wrong length.
    #[error("feed the input: its shape {shape} needs {expected} values, got {got}")]
    Input {
        /// Shape of the graph's input.
        shape: Shape,
        /// Number of values that it needs.
        expected: usize,
        /// Number of values given.
        got: usize,
    },
    /// A graph that doesn't have exactly one input.
    #[error("feed the input: the graph must have 1 input, it has {got}")]
    Inputs {
        /// Number of inputs.
        got: usize,
    },
}

impl Weights {
    /// Seeded random weights for every tensor of the graph.
    ///
    /// Convolutions and linear layers are normal with the deviation that keeps the mean square of
    /// activations at one: He et al. (2015) with the fan-in of a group, where the gain is not a
    /// constant but follows from the operators in front (2 behind a rectifier, 1 behind a
    /// convolution, less behind a sum), and where taps that fall into the padding don't count.
    /// Norms are close to the identity: weight 1, bias 0, mean 0, variance 1, each with a
    /// small variation, so that a wrong order of tensors can't go unnoticed.
    ///
    /// A tensor depends on the seed, its name, its extents and its place, not on other tensors.
    pub fn seeded(graph: &Graph, seed: u64) -> Self {
        let moments = mean_squares(graph);
        let mut tensors = BTreeMap::new();
        for spec in graph.parameters().into_iter().chain(graph.statistics()) {
            let node = &graph.nodes()[spec.node];
            let mut normal = Normal::new(Stream::new(seed, &format!("weights {}", spec.name), 0));
            let count = spec.dims.iter().product();
            let affine = matches!(
                node.op,
                OpSpec::BatchNorm { .. }
                    | OpSpec::GroupNorm { .. }
                    | OpSpec::LayerNorm
                    | OpSpec::ScalarAffine
            );
            let (mean, deviation) = match spec.suffix {
                "weight" if affine => (1.0, 0.05),
                "weight" if node.op == OpSpec::Prelu => (0.25, 0.05),
                "weight" => (0.0, deviation(graph, node, &moments)),
                "running_var" => (1.0, 0.03),
                _ => (0.0, 0.02),
            };
            let draw = |_| {
                let value = mean + deviation * normal.next();
                // A variance is positive, however unlikely the draw.
                (if spec.suffix == "running_var" { value.max(0.5) } else { value }) as f32
            };
            let values = (0..count).map(draw).collect();
            tensors.insert(spec.name, Tensor { dims: spec.dims, values });
        }
        Self(tensors)
    }

    /// Whether every tensor of the graph is there with its extents. Tensors that the graph doesn't
    /// know (those of an auxiliary head, say) are no fault.
    ///
    /// # Errors
    /// [`WeightsError`] names the first tensor that is missing or of another shape.
    pub fn check(&self, graph: &Graph) -> Result<(), WeightsError> {
        for spec in graph.parameters().into_iter().chain(graph.statistics()) {
            self.get(&spec.name, &spec.dims)?;
        }
        Ok(())
    }

    /// The values of a tensor, checked against the extents that it must have.
    pub(crate) fn get(&self, name: &str, dims: &[usize]) -> Result<&[f32], WeightsError> {
        let Some(tensor) = self.0.get(name) else {
            return Err(WeightsError::Missing { name: name.into(), dims: dims.into() });
        };
        if tensor.dims != dims {
            return Err(WeightsError::Dims {
                name: name.into(),
                expected: dims.into(),
                got: tensor.dims.clone(),
            });
        }
        let expected = dims.iter().product();
        if tensor.values.len() != expected {
            return Err(WeightsError::Values { name: name.into(), expected, got: tensor.values.len() });
        }
        Ok(&tensor.values)
    }
}

/// Standard normal values for an input of this shape.
pub fn seeded_input(shape: Shape, seed: u64) -> Vec<f32> {
    let mut normal = Normal::new(Stream::new(seed, "input", 0));
    (0..shape.elements()).map(|_| normal.next() as f32).collect()
}

/// Deviation of a convolution's or linear layer's weights that gives outputs of mean square one.
fn deviation(graph: &Graph, node: &Node, moments: &[f64]) -> f64 {
    let input = graph.source_shape(node);
    let moment = node.inputs.first().map_or(1.0, |&input| moments[input]).max(1e-6);
    let fan_in = match node.op {
        OpSpec::Conv2d { kernel, stride, padding, dilation, groups, .. } => {
            let taps = |size, out| taps_inside(size, out, kernel, stride, padding, dilation);
            (input.c / groups) as f64 * taps(input.h, node.shape.h) * taps(input.w, node.shape.w)
        }
        OpSpec::ConvTranspose2d { kernel, stride, groups, .. } => {
            (input.c / groups * kernel * kernel) as f64 / (stride * stride) as f64
        }
        _ => (input.elements() / input.n.max(1)) as f64,
    };
    (1.0 / (fan_in.max(1e-6) * moment)).sqrt()
}

/// Mean number of a kernel's taps, along one direction, that don't fall into the padding.
fn taps_inside(
    size: usize,
    out: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
) -> f64 {
    let inside = |position: usize| {
        let taps = (0..kernel).map(|tap| position * stride + tap * dilation);
        taps.filter(|&at| at >= padding && at < size + padding).count()
    };
    (0..out).map(inside).sum::<usize>() as f64 / out.max(1) as f64
}

/// Rough mean square of every node's output when the input is standard normal and weights are seeded.
fn mean_squares(graph: &Graph) -> Vec<f64> {
    let mut moments: Vec<f64> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let of = |id: &NodeId| moments[*id];
        let first = node.inputs.first().map_or(1.0, of);
        moments.push(match node.op {
            OpSpec::Conv2d { .. }
            | OpSpec::Linear { .. }
            | OpSpec::ConvTranspose2d { .. }
            | OpSpec::GroupNorm { .. }
            | OpSpec::LayerNorm => 1.0,
            // A rectifier halves it. A pool's neighbours are neither independent nor equal: an average
            // is between 1/9 and 1, a maximum above 1.
            OpSpec::Relu
            | OpSpec::AvgPool { .. }
            | OpSpec::Prelu
            | OpSpec::Activation { function: Function::Gelu } => first / 2.0,
            OpSpec::MaxPool { .. } => first * 1.8,
            OpSpec::Add => node.inputs.iter().map(of).sum(),
            OpSpec::Concat => {
                let weighted = |id: &NodeId| of(id) * graph.nodes()[*id].shape.c as f64;
                node.inputs.iter().map(weighted).sum::<f64>() / node.shape.c.max(1) as f64
            }
            OpSpec::Zero { .. } => 0.0,
            // Of almost equal weights: a mean over tokens, of which few count.
            OpSpec::Attention { .. } => first / 8.0,
            OpSpec::Mean => {
                node.inputs.iter().map(of).sum::<f64>() / (node.inputs.len().pow(2)).max(1) as f64
            }
            OpSpec::Input
            | OpSpec::BatchNorm { .. }
            | OpSpec::GlobalAvgPool
            | OpSpec::Activation { .. }
            | OpSpec::Mul
            | OpSpec::Crop { .. }
            | OpSpec::ChannelShuffle { .. }
            | OpSpec::ScalarAffine
            | OpSpec::Slice { .. }
            | OpSpec::Pad { .. }
            | OpSpec::CropEnd { .. }
            | OpSpec::DepthToSpace { .. } => first,
        });
    }
    moments
}

/// Standard normal numbers from a uniform stream (Box and Muller 1958).
struct Normal {
    rng: ChaCha8Rng,
    spare: Option<f64>,
}

impl Normal {
    fn new(rng: ChaCha8Rng) -> Self {
        Self { rng, spare: None }
    }

    fn next(&mut self) -> f64 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        // 1 - u lies in (0, 1], whose logarithm is finite.
        let radius = (-2.0 * (1.0 - self.rng.random::<f64>()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * self.rng.random::<f64>()).sin_cos();
        self.spare = Some(radius * sine);
        radius * cosine
    }
}
