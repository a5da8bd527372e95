//! A graph cut into the kernels that an engine runs.

use std::fmt::Write;

use lathe_spaces::{Graph, Node, NodeId, OpSpec};
use serde::{Deserialize, Serialize};

use super::Fusion;

/// Bytes of a number.
const BYTES: f64 = 4.0;

/// One or more operators that run as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// Kinds of its operators: `conv+batch_norm+relu`.
    pub kind: String,
    /// Name of its first node.
    pub name: String,
    /// Kind, extents and parameters: equal signatures are equal work.
    pub signature: String,
    /// Nodes of the graph, in order.
    #[serde(skip)]
    pub nodes: Vec<NodeId>,
    /// Kinds of the kernels whose outputs it reads, one per value; `input` for the graph's own.
    pub sources: Vec<String>,
    /// Multiply-accumulates, with one per output of a pool's window.
    pub macs: f64,
    /// Bytes of activations read.
    pub read: f64,
    /// Bytes of activations written.
    pub written: f64,
    /// Bytes of weights.
    pub weights: f64,
    /// Multiply-accumulates over the outputs of a channel group: what is left to do one after the other if all
    /// outputs of a group are computed at once. The reverse of parallelism: a depthwise convolution has as many
    /// groups as channels.
    #[serde(default)]
    pub steps: f64,
}

impl Kernel {
    /// What its time is a sum of, none negative: the launch, arithmetic, activations read and
    /// written, weights, steps. Units: million multiply-accumulates, megabytes, thousand steps.
    pub fn features(&self) -> [f64; 6] {
        [1.0, self.macs / 1e6, self.read / 1e6, self.written / 1e6, self.weights / 1e6, self.steps / 1e3]
    }
}

/// Short name of an operator's kind, with depthwise and grouped convolutions apart.
fn kind(graph: &Graph, node: &Node) -> String {
    match node.op {
        OpSpec::Conv2d { groups, .. } if groups > 1 => {
            let depthwise = groups == graph.source_shape(node).c;
            if depthwise { "dwconv".into() } else { "gconv".into() }
        }
        OpSpec::Conv2d { .. } => "conv".into(),
        op => op.name().into(),
    }
}

/// Family of a kernel: convolutions of different windows and strides run in different loops, so each
/// learns its own speed.
fn family(graph: &Graph, node: &Node) -> String {
    let kind = kind(graph, node);
    match node.op {
        OpSpec::Conv2d { kernel, stride, dilation, .. } => {
            let strided = if stride > 1 { "s2" } else { "" };
            let dilated = if dilation > 1 { "d2" } else { "" };
            format!("{kind}{kernel}{strided}{dilated}")
        }
        OpSpec::MaxPool { kernel, .. }
        | OpSpec::AvgPool { kernel, .. }
        | OpSpec::ConvTranspose2d { kernel, .. } => format!("{kind}{kernel}"),
        OpSpec::Attention { window: Some(_), .. } => format!("window_{kind}"),
        OpSpec::Input
        | OpSpec::BatchNorm { .. }
        | OpSpec::Relu
        | OpSpec::GlobalAvgPool
        | OpSpec::Activation { .. }
        | OpSpec::Add
        | OpSpec::Mul
        | OpSpec::Concat
        | OpSpec::Crop { .. }
        | OpSpec::ChannelShuffle { .. }
        | OpSpec::Zero { .. }
        | OpSpec::Mean
        | OpSpec::Prelu
        | OpSpec::GroupNorm { .. }
        | OpSpec::LayerNorm
        | OpSpec::ScalarAffine
        | OpSpec::Slice { .. }
        | OpSpec::Pad { .. }
        | OpSpec::CropEnd { .. }
        | OpSpec::DepthToSpace { .. }
        | OpSpec::Linear { .. }
        | OpSpec::Attention { window: None, .. } => kind,
    }
}

/// Groups of channels that are computed apart from each other.
fn groups(node: &Node) -> usize {
    match node.op {
        OpSpec::Conv2d { groups, .. } | OpSpec::ConvTranspose2d { groups, .. } => groups,
        OpSpec::MaxPool { .. } | OpSpec::AvgPool { .. } => node.shape.c,
        OpSpec::Attention { heads, .. } => heads,
        // Nothing is multiplied, or every output from all channels.
        OpSpec::Input
        | OpSpec::BatchNorm { .. }
        | OpSpec::Relu
        | OpSpec::GlobalAvgPool
        | OpSpec::Activation { .. }
        | OpSpec::Add
        | OpSpec::Mul
        | OpSpec::Concat
        | OpSpec::Crop { .. }
        | OpSpec::ChannelShuffle { .. }
        | OpSpec::Zero { .. }
        | OpSpec::Mean
        | OpSpec::Prelu
        | OpSpec::GroupNorm { .. }
        | OpSpec::LayerNorm
        | OpSpec::ScalarAffine
        | OpSpec::Slice { .. }
        | OpSpec::Pad { .. }
        | OpSpec::CropEnd { .. }
        | OpSpec::DepthToSpace { .. }
        | OpSpec::Linear { .. } => 1,
    }
}

/// Cuts a graph into kernels: an operator joins the kernel of its first input that ends there, is
/// read by nobody else, and may be joined by the rules. What an engine takes out before it runs is in no
/// kernel: nodes that no output needs, what depends on constants only, and repetitions of an operator
/// without parameters on the same input (several convolutions behind the same activation).
pub fn split(graph: &Graph, fusion: &Fusion) -> Vec<Kernel> {
    let nodes = graph.nodes();
    let simplified = Simplified::of(graph);
    let mut readers = vec![0_usize; nodes.len()];
    for id in simplified.running() {
        for input in simplified.inputs(&nodes[id]) {
            readers[input] += 1;
        }
    }
    for &output in graph.outputs() {
        readers[simplified.first[output]] += 1;
    }
    let mut groups: Vec<Vec<NodeId>> = Vec::new();
    let mut group_of = vec![usize::MAX; nodes.len()];
    for id in simplified.running() {
        let node = &nodes[id];
        let name = kind(graph, node);
        let joined = simplified.inputs(node).find(|&input| {
            nodes[input].op != OpSpec::Input
                && readers[input] == 1
                && groups.get(group_of[input]).is_some_and(|group| group.last() == Some(&input))
                && fusion.joins(&kind(graph, &nodes[input]), &name)
        });
        group_of[id] = if let Some(input) = joined {
            groups[group_of[input]].push(id);
            group_of[input]
        } else {
            groups.push(vec![id]);
            groups.len() - 1
        };
    }
    let mut kernels: Vec<Kernel> = groups.into_iter().map(|group| measure(graph, group)).collect();
    // Between which kinds values pass: layouts are converted there.
    for index in 0..kernels.len() {
        let mut sources = Vec::new();
        for &id in &kernels[index].nodes {
            for input in simplified.inputs(&nodes[id]) {
                match group_of[input] {
                    group if group == index => {}
                    usize::MAX => sources.push("input".to_owned()),
                    group => sources.push(kernels[group].kind.clone()),
                }
            }
        }
        kernels[index].sources = sources;
    }
    kernels
}

/// What is left of a graph when an engine has simplified it.
struct Simplified {
    /// The first node that computes the same, per node.
    first: Vec<NodeId>,
    /// Nodes that some output needs and that are not known beforehand.
    needed: Vec<bool>,
}

impl Simplified {
    fn of(graph: &Graph) -> Self {
        let nodes = graph.nodes();
        let mut first: Vec<NodeId> = Vec::with_capacity(nodes.len());
        let mut constant = vec![false; nodes.len()];
        let mut seen: Vec<(OpSpec, Vec<NodeId>, NodeId)> = Vec::new();
        for (id, node) in nodes.iter().enumerate() {
            constant[id] = matches!(node.op, OpSpec::Zero { .. })
                || !node.inputs.is_empty() && node.inputs.iter().all(|&input| constant[input]);
            let source = graph.source_shape(node);
            let own = node.op.parameters(source).is_empty() && node.op.statistics(source).is_empty();
            let inputs: Vec<NodeId> = node.inputs.iter().map(|&input| first[input]).collect();
            let same = seen.iter().find(|(op, read, _)| own && *op == node.op && *read == inputs);
            first.push(same.map_or(id, |(_, _, same)| *same));
            if own && node.op != OpSpec::Input && first[id] == id {
                seen.push((node.op, inputs, id));
            }
        }
        let mut needed = vec![false; nodes.len()];
        for &output in graph.outputs() {
            needed[first[output]] = true;
        }
        for id in (0..nodes.len()).rev() {
            needed[id] &= !constant[id];
            if needed[id] {
                for &input in &nodes[id].inputs {
                    needed[first[input]] = true;
                }
            }
        }
        for (id, node) in nodes.iter().enumerate() {
            needed[id] &= node.op != OpSpec::Input && !constant[id];
        }
        Self { first, needed }
    }

    /// Nodes that run, in order.
    fn running(&self) -> impl Iterator<Item = NodeId> {
        (0..self.needed.len()).filter(|&id| self.needed[id])
    }

    /// What a node reads.
    fn inputs<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = NodeId> + 'a {
        node.inputs.iter().map(|&input| self.first[input])
    }
}

fn measure(graph: &Graph, group: Vec<NodeId>) -> Kernel {
    let nodes = graph.nodes();
    let (mut macs, mut read, mut weights, mut steps) = (0.0, 0.0, 0.0, 0.0);
    let mut signature = String::new();
    let mut kinds = Vec::new();
    for (place, &id) in group.iter().enumerate() {
        let node = &nodes[id];
        let source = graph.source_shape(node);
        kinds.push(if place == 0 { family(graph, node) } else { kind(graph, node) });
        let window = match node.op {
            OpSpec::MaxPool { kernel, .. } | OpSpec::AvgPool { kernel, .. } => {
                (kernel * kernel * node.shape.elements()) as f64
            }
            _ => 0.0,
        };
        let own = node.op.macs(source, node.shape) as f64 + window;
        macs += own;
        steps += own * groups(node) as f64 / node.shape.elements().max(1) as f64;
        for &input in node.inputs.iter().filter(|input| !group.contains(input)) {
            read += nodes[input].shape.elements() as f64 * BYTES;
        }
        let tensors = node.op.parameters(source).into_iter().chain(node.op.statistics(source));
        weights += tensors.map(|(_, dims)| dims.iter().product::<usize>() as f64 * BYTES).sum::<f64>();
        let inputs: Vec<String> = node.inputs.iter().map(|&input| nodes[input].shape.to_string()).collect();
        // Writing to a string can't fail.
        let _ = write!(signature, "{:?}({})>{};", node.op, inputs.join(","), node.shape);
    }
    let last = &nodes[group[group.len() - 1]];
    Kernel {
        kind: kinds.join("+"),
        name: nodes[group[0]].name.clone(),
        signature,
        macs,
        read,
        written: last.shape.elements() as f64 * BYTES,
        weights,
        steps,
        nodes: group,
        sources: Vec::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_spaces::{GraphBuilder, NetworkOptions, Shape, Space, Stream};

    use super::*;

    #[test]
    fn chains_are_merged_and_shared_values_are_not() {
        let mut builder = GraphBuilder::new();
        let input = builder.input("x", Shape::new(1, 8, 6, 6)).unwrap();
        let mut add = |name: &str, op, inputs: &[NodeId]| builder.add(name, op, inputs).unwrap();
        let conv = add("conv", OpSpec::conv(8, 3, 1), &[input]);
        let norm = add("norm", OpSpec::BatchNorm { affine: true }, &[conv]);
        let relu = add("relu", OpSpec::Relu, &[norm]);
        let depthwise = add("depthwise", OpSpec::depthwise(8, 3, 1, 1), &[relu]);
        let sum = add("sum", OpSpec::Add, &[depthwise, relu]);
        let graph = builder.finish(&[sum]).unwrap();
        let kernels = split(&graph, &Fusion::common());
        let kinds: Vec<&str> = kernels.iter().map(|kernel| kernel.kind.as_str()).collect();
        assert_eq!(kinds, ["conv3+batch_norm+relu", "dwconv3", "add"]);
        assert_eq!(kernels[0].sources, ["input"]);
        assert_eq!(kernels[2].sources, ["dwconv3", "conv3+batch_norm+relu"]);
        assert_eq!(split(&graph, &Fusion::default()).len(), 5);
    }

    #[test]
    fn what_an_engine_takes_out_is_in_no_kernel() {
        let mut builder = GraphBuilder::new();
        let input = builder.input("x", Shape::new(1, 8, 6, 6)).unwrap();
        let mut add = |name: &str, op, inputs: &[NodeId]| builder.add(name, op, inputs).unwrap();
        let first = add("relu of one", OpSpec::Relu, &[input]);
        let again = add("relu of another", OpSpec::Relu, &[input]);
        let one = add("one", OpSpec::conv(8, 1, 1), &[first]);
        let other = add("other", OpSpec::conv(8, 1, 1), &[again]);
        let zero = add("zero", OpSpec::Zero { stride: 1 }, &[input]);
        add("of zeros", OpSpec::conv(8, 1, 1), &[zero]);
        add("unread", OpSpec::conv(8, 3, 1), &[input]);
        let sum = add("sum", OpSpec::Add, &[one, other, zero]);
        let graph = builder.finish(&[sum]).unwrap();
        let kernels = split(&graph, &Fusion::common());
        let names: Vec<&str> = kernels.iter().map(|kernel| kernel.name.as_str()).collect();
        // Two convolutions of the same input stay two: their weights differ.
        assert_eq!(names, ["relu of one", "one", "other", "sum"]);
        assert_eq!(kernels[2].sources, ["relu"]);
    }

    #[test]
    fn every_node_is_in_one_kernel_and_work_adds_up() {
        let space = Space::fbnet(32, 10);
        for index in 0..5 {
            let genotype = space.sample(&mut Stream::new(0, "split", index));
            let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
            let kernels = split(&graph, &Fusion::common());
            let nodes: usize = kernels.iter().map(|kernel| kernel.nodes.len()).sum();
            assert_eq!(nodes, graph.nodes().len() - 1);
            let macs: f64 = kernels.iter().map(|kernel| kernel.macs).sum();
            assert!(macs >= graph.macs() as f64);
        }
    }
}
