//! Runs a graph of `lathe-spaces` through libtorch, for training and in inference mode.

mod collapse;
mod primitives;

use std::collections::BTreeMap;

use collapse::Collapses;
use lathe_spaces::NodeId;
use lathe_spaces::{
    BATCH_NORM_EPSILON, Function, Graph, Node, OpSpec, Shape, Stream, Tensor as Values, Weights, WeightsError,
};
use rand::RngExt as _;
use tch::{Kind, TchError, Tensor, no_grad};
use thiserror::Error;

/// Momentum of the running statistics (`PyTorch`'s default).
const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// Why a graph can't be run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GraphModuleError {
    /// The weights don't fit the graph.
    #[error("run the network: {0}")]
    Weights(#[from] WeightsError),
    /// The images don't fit the graph.
    #[error("run the network: expected images of extents [batch, {}, {}, {}], got {got:?}", expected.c, expected.h, expected.w)]
    Images {
        /// Shape of the graph's input.
        expected: Shape,
        /// Extents of the images.
        got: Vec<i64>,
    },
    /// A graph without or with several inputs.
    #[error("run the network: the graph must have 1 input, it has {0}")]
    Inputs(usize),
    /// libtorch refused.
    #[error("run the network: {0}")]
    Torch(#[from] TchError),
}

/// Drop path of one training step (Larsson et al. 2017): the marked nodes' outputs vanish with this
/// probability, image by image, and are scaled up otherwise so that their mean stays.
///
/// Which ones depends on seed and step only, so that a resumed training repeats them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropPath {
    /// Probability, 0 up to but not including 1.
    pub probability: f64,
    /// Seed of the training.
    pub seed: u64,
    /// Step, over all epochs.
    pub step: u64,
}

/// What batch norms do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Normalised {
    /// By the statistics of the batch, which the running ones follow.
    ByBatch,
    /// By the running statistics.
    ByRunning,
    /// Nothing.
    Not,
}

/// A graph with its tensors on the CPU.
#[derive(Debug)]
pub struct GraphModule {
    graph: Graph,
    /// Names and leaves of autograd, in the order of [`Graph::parameters`]; they share `flat`'s storage.
    learned: Vec<(String, Tensor)>,
    /// Running statistics, in the order of [`Graph::statistics`].
    statistics: Vec<(String, Tensor)>,
    /// All learned values in one vector; not part of autograd.
    flat: Tensor,
    /// Per node its tensors.
    tensors: Vec<NodeTensors>,
    /// Per node how often its output is read.
    uses: Vec<usize>,
    /// Pairs of convolutions that run as one.
    collapses: Collapses,
}

/// How a graph is walked through.
#[derive(Clone, Copy)]
struct Pass<'a> {
    training: Option<&'a DropPath>,
    norms: Normalised,
    /// Shares of the inputs of nodes that are means otherwise.
    mixtures: &'a BTreeMap<NodeId, Tensor>,
    /// Whether linear pairs run as one.
    collapsed: bool,
}

#[derive(Debug, Default)]
struct NodeTensors {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    mean: Option<Tensor>,
    variance: Option<Tensor>,
}

impl GraphModule {
    /// A graph to be trained: `kind` is that of all tensors ([`Kind::Float`], or [`Kind::Double`] for
    /// comparisons).
    pub fn new(graph: &Graph, weights: &Weights, kind: Kind) -> Result<Self, GraphModuleError> {
        Self::build(graph, weights, kind, true)
    }

    /// The same without gradients: for inference only.
    pub(crate) fn frozen(graph: &Graph, weights: &Weights) -> Result<Self, GraphModuleError> {
        Self::build(graph, weights, Kind::Float, false)
    }

    /// A graph whose learned tensors are given, in the order of [`Graph::parameters`]; of statistics it has none, so
    /// batch norms can use those of the batch only.
    pub(crate) fn of_leaves(graph: &Graph, leaves: &[Tensor]) -> Result<Self, GraphModuleError> {
        let inputs = graph.inputs().count();
        if inputs != 1 {
            return Err(GraphModuleError::Inputs(inputs));
        }
        let mut tensors: Vec<NodeTensors> = graph.nodes().iter().map(|_| NodeTensors::default()).collect();
        let mut learned = Vec::with_capacity(leaves.len());
        for (spec, leaf) in graph.parameters().into_iter().zip(leaves) {
            let place = &mut tensors[spec.node];
            let slot = if spec.suffix == "weight" { &mut place.weight } else { &mut place.bias };
            *slot = Some(leaf.shallow_clone());
            learned.push((spec.name, leaf.shallow_clone()));
        }
        let flat = Tensor::zeros([0], (Kind::Float, tch::Device::Cpu));
        let (uses, collapses) = (uses(graph), Collapses::of(graph));
        Ok(Self { graph: graph.clone(), learned, statistics: Vec::new(), flat, tensors, uses, collapses })
    }

    fn build(graph: &Graph, weights: &Weights, kind: Kind, trained: bool) -> Result<Self, GraphModuleError> {
        let inputs = graph.inputs().count();
        if inputs != 1 {
            return Err(GraphModuleError::Inputs(inputs));
        }
        weights.check(graph)?;
        let values = |name: &str| -> Result<Tensor, GraphModuleError> {
            let Values { dims, values } = weights
                .0
                .get(name)
                .ok_or_else(|| WeightsError::Missing { name: name.to_owned(), dims: Vec::new() })?;
            let dims: Vec<i64> = dims.iter().map(|&extent| extent as i64).collect();
            Ok(Tensor::from_slice(values).to_kind(kind).f_view(dims.as_slice())?)
        };
        let mut tensors: Vec<NodeTensors> = graph.nodes().iter().map(|_| NodeTensors::default()).collect();
        let specs = graph.parameters();
        let initial = specs.iter().map(|spec| values(&spec.name)).collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<Tensor> = initial.iter().map(|tensor| tensor.flatten(0, -1)).collect();
        let flat = if parts.is_empty() {
            Tensor::zeros([0], (kind, tch::Device::Cpu))
        } else {
            Tensor::cat(&parts, 0)
        };
        let mut learned = Vec::with_capacity(specs.len());
        let mut start = 0;
        for (spec, tensor) in specs.into_iter().zip(&initial) {
            let length = tensor.numel() as i64;
            let view = flat.narrow(0, start, length).view(tensor.size().as_slice());
            let leaf = view.detach().set_requires_grad(trained);
            start += length;
            let place = &mut tensors[spec.node];
            let slot = if spec.suffix == "weight" { &mut place.weight } else { &mut place.bias };
            *slot = Some(leaf.shallow_clone());
            learned.push((spec.name, leaf));
        }
        let mut statistics = Vec::new();
        for spec in graph.statistics() {
            let tensor = values(&spec.name)?;
            let place = &mut tensors[spec.node];
            let slot = if spec.suffix == "running_mean" { &mut place.mean } else { &mut place.variance };
            *slot = Some(tensor.shallow_clone());
            statistics.push((spec.name, tensor));
        }
        let (uses, collapses) = (uses(graph), Collapses::of(graph));
        Ok(Self { graph: graph.clone(), learned, statistics, flat, tensors, uses, collapses })
    }

    /// The graph.
    pub(crate) const fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The same module, with every operator run as it stands in the graph: linear pairs are not collapsed.
    #[must_use]
    pub fn expanded(self) -> Self {
        Self { collapses: Collapses::default(), ..self }
    }

    /// All outputs of the graph for images `[batch, channels, rows, columns]` of any batch size; a
    /// classifier's is `[batch, classes]`. With `training`, batch norms use and update the statistics
    /// of the batch and drop path is at work; without, neither.
    ///
    /// Two linear convolutions run as the one that they are (SESR, Bhardwaj et al. 2022, section 3.3), and gradients
    /// reach both.
    ///
    /// # Panics
    /// If the images have other extents than the graph's input.
    pub fn forward(&self, x: &Tensor, training: Option<&DropPath>) -> Vec<Tensor> {
        let norms = if training.is_some() { Normalised::ByBatch } else { Normalised::ByRunning };
        let pass = Pass { training, norms, mixtures: &BTreeMap::new(), collapsed: true };
        self.walk(x, pass, &mut |_, _, _| {})
    }

    /// The outputs in training, without drop path, where some means are sums with these shares `[inputs]`.
    pub(crate) fn mixed(&self, x: &Tensor, mixtures: &BTreeMap<NodeId, Tensor>) -> Vec<Tensor> {
        let pass = Pass { training: None, norms: Normalised::ByBatch, mixtures, collapsed: true };
        self.walk(x, pass, &mut |_, _, _| {})
    }

    /// The outputs without drop path, with a choice of what batch norms do; `observe` sees every node with
    /// its first input and its output, in order.
    pub(crate) fn observed(
        &self,
        x: &Tensor,
        norms: Normalised,
        observe: &mut dyn FnMut(&Node, &Tensor, &Tensor),
    ) -> Vec<Tensor> {
        let pass = Pass { training: None, norms, mixtures: &BTreeMap::new(), collapsed: false };
        self.walk(x, pass, observe)
    }

    fn walk(
        &self,
        x: &Tensor,
        Pass { training, norms, mixtures, collapsed }: Pass<'_>,
        observe: &mut dyn FnMut(&Node, &Tensor, &Tensor),
    ) -> Vec<Tensor> {
        let mut random = training.map(|drop| Stream::new(drop.seed, "drop path", drop.step));
        let mut left = self.uses.clone();
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(self.uses.len());
        for (id, node) in self.graph.nodes().iter().enumerate() {
            let inputs: Vec<Tensor> = node
                .inputs
                .iter()
                .filter_map(|&input| {
                    left[input] -= 1;
                    // The last reader takes it, so that it is freed as soon as possible.
                    if left[input] == 0 {
                        values[input].take()
                    } else {
                        values[input].as_ref().map(Tensor::shallow_clone)
                    }
                })
                .collect();
            let mut value = if node.op == OpSpec::Input {
                x.shallow_clone()
            } else if let Some(shares) = mixtures.get(&id) {
                mixture(&inputs, shares)
            } else if collapsed && self.collapses.is_first(id) {
                // The second one of the pair does it all.
                inputs[0].shallow_clone()
            } else if let (true, Some(pair)) = (collapsed, self.collapses.ending_with(id)) {
                pair.run(&self.tensors[pair.first()], &self.tensors[id], &inputs[0])
            } else {
                run(node, &self.tensors[id], &inputs, norms)
            };
            observe(node, inputs.first().unwrap_or(x), &value);
            if let (true, Some(drop), Some(random)) = (node.drop_path, training, &mut random)
                && drop.probability > 0.0
            {
                let keep = 1.0 - drop.probability;
                let factors: Vec<f64> = (0..value.size()[0])
                    .map(|_| if random.random::<f64>() < keep { 1.0 / keep } else { 0.0 })
                    .collect();
                // Not in place: the backward pass may need the value as it was, and so may other nodes.
                value = &value * Tensor::from_slice(&factors).to_kind(x.kind()).view([-1, 1, 1, 1]);
            }
            values.push((left[id] > 0).then_some(value));
        }
        let output = |&id: &usize| values[id].as_ref().map(Tensor::shallow_clone);
        self.graph.outputs().iter().filter_map(output).collect()
    }

    /// The tensors as they are now, by the names of the graph.
    pub fn weights(&self) -> Weights {
        let tensors = self.learned.iter().chain(&self.statistics).map(|(name, tensor)| {
            let dims = tensor.size().iter().map(|&extent| extent as usize).collect();
            let flat = tensor.detach().to_kind(Kind::Float).flatten(0, -1);
            let mut values = vec![0.0; tensor.numel()];
            let count = values.len();
            flat.copy_data(&mut values, count);
            (name.clone(), Values { dims, values })
        });
        Weights(tensors.collect())
    }

    /// The learned tensors, in the order of [`Graph::parameters`].
    pub fn parameters(&self) -> Vec<Tensor> {
        self.learned.iter().map(|(_, tensor)| tensor.shallow_clone()).collect()
    }

    /// All learned values in one vector that shares their storage.
    pub(crate) fn flat_mut(&mut self) -> &mut Tensor {
        &mut self.flat
    }

    /// The learned values and the running statistics, by name: all that training changes.
    pub(crate) fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = vec![("weights".to_owned(), self.flat.shallow_clone())];
        state.extend(self.statistics.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())));
        state
    }
}

/// Σ share · input.
fn mixture(inputs: &[Tensor], shares: &Tensor) -> Tensor {
    let terms = inputs.iter().enumerate().map(|(index, input)| input * shares.get(index as i64));
    terms.reduce(|sum, term| sum + term).unwrap_or_else(|| shares.shallow_clone())
}

/// Per node how often its output is read.
fn uses(graph: &Graph) -> Vec<usize> {
    let mut uses = vec![0; graph.nodes().len()];
    for input in graph.nodes().iter().flat_map(|node| &node.inputs).chain(graph.outputs()) {
        uses[*input] += 1;
    }
    uses
}

/// Logits `[batch, classes]` of the deployed network in inference mode for normalised images
/// `[batch, 3, resolution, resolution]`.
pub fn logits(graph: &Graph, weights: &Weights, images: &Tensor) -> Result<Tensor, GraphModuleError> {
    let graph = graph.without_auxiliary();
    let module = GraphModule::frozen(&graph, weights)?;
    check_images(&graph, images)?;
    let mut outputs = no_grad(|| module.forward(images, None));
    Ok(outputs.swap_remove(0))
}

/// Whether images have the extents of the graph's input, but for the batch.
pub(crate) fn check_images(graph: &Graph, images: &Tensor) -> Result<(), GraphModuleError> {
    let expected = graph.input_shape().ok_or(GraphModuleError::Inputs(0))?;
    let got = images.size();
    let inner = [expected.c, expected.h, expected.w].map(|extent| extent as i64);
    if got.len() == 4 && got[1..] == inner { Ok(()) } else { Err(GraphModuleError::Images { expected, got }) }
}

fn run(node: &Node, tensors: &NodeTensors, inputs: &[Tensor], norms: Normalised) -> Tensor {
    let x = &inputs[0];
    let pair = |extent: usize| [extent as i64; 2];
    match node.op {
        OpSpec::Conv2d { stride, padding, dilation, groups, .. } => {
            let Some(weight) = &tensors.weight else { return x.shallow_clone() };
            let bias = tensors.bias.as_ref();
            x.conv2d(weight, bias, pair(stride), pair(padding), pair(dilation), groups as i64)
        }
        OpSpec::BatchNorm { .. } if norms == Normalised::Not => x.shallow_clone(),
        OpSpec::BatchNorm { .. } => x.batch_norm(
            tensors.weight.as_ref(),
            tensors.bias.as_ref(),
            tensors.mean.as_ref(),
            tensors.variance.as_ref(),
            norms == Normalised::ByBatch,
            BATCH_NORM_MOMENTUM,
            BATCH_NORM_EPSILON,
            false,
        ),
        OpSpec::Relu => x.relu(),
        OpSpec::MaxPool { kernel, stride, padding } => {
            x.max_pool2d(pair(kernel), pair(stride), pair(padding), pair(1), false)
        }
        OpSpec::AvgPool { kernel, stride, padding, count_include_pad } => {
            x.avg_pool2d(pair(kernel), pair(stride), pair(padding), false, count_include_pad, None)
        }
        OpSpec::GlobalAvgPool => x.mean_dim([2i64, 3].as_slice(), true, None::<Kind>),
        OpSpec::Linear { .. } => {
            let Some(weight) = &tensors.weight else { return x.shallow_clone() };
            x.flatten(1, -1).linear(weight, tensors.bias.as_ref())
        }
        OpSpec::Add => inputs[1..].iter().fold(x.shallow_clone(), |sum, input| sum + input),
        OpSpec::Mul => inputs[1..].iter().fold(x.shallow_clone(), |product, input| product * input),
        OpSpec::Activation { function } => match function {
            Function::Relu6 => x.clamp(0.0, 6.0),
            Function::Sigmoid => x.sigmoid(),
            Function::HardSigmoid => x.hardsigmoid(),
            Function::Swish => x.silu(),
            Function::HardSwish => x.hardswish(),
            Function::Tanh => x.tanh(),
            Function::Gelu => x.gelu("none"),
        },
        OpSpec::Concat => Tensor::cat(inputs, 1),
        OpSpec::Crop { top, left } => {
            x.slice(2, top as i64, None::<i64>, 1).slice(3, left as i64, None::<i64>, 1)
        }
        OpSpec::ChannelShuffle { groups } => {
            let size = x.size();
            let each = size[1] / groups as i64;
            // The batch stays open, so that a traced network takes any.
            x.view([-1, groups as i64, each, size[2], size[3]])
                .transpose(1, 2)
                .reshape([-1, size[1], size[2], size[3]])
        }
        OpSpec::Zero { stride } => {
            let stride = stride as i64;
            x.slice(2, 0, None::<i64>, stride).slice(3, 0, None::<i64>, stride).zeros_like()
        }
        OpSpec::Input => x.shallow_clone(),
        _ => primitives::run(node, tensors, inputs),
    }
}

#[cfg(test)]
#[path = "graph_module_tests.rs"]
mod tests;
