//! Linear convolutions that are trained as two and run as one.

use std::collections::BTreeMap;

use lathe_spaces::{Graph, LinearPair, NodeId, OpSpec, linear_pairs};
use tch::Tensor;

use super::NodeTensors;

/// The pairs of a graph whose product costs less than it saves.
#[derive(Debug, Default)]
pub(super) struct Collapses {
    /// By their second nodes.
    pairs: BTreeMap<NodeId, Collapse>,
    firsts: Vec<NodeId>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Collapse(LinearPair);

impl Collapses {
    pub fn of(graph: &Graph) -> Self {
        let pairs: Vec<LinearPair> =
            linear_pairs(graph).into_iter().filter(|pair| pays(graph, pair)).collect();
        let mut firsts: Vec<NodeId> = pairs.iter().map(|pair| pair.first).collect();
        firsts.sort_unstable();
        Self { firsts, pairs: pairs.into_iter().map(|pair| (pair.second, Collapse(pair))).collect() }
    }

    pub fn is_first(&self, node: NodeId) -> bool {
        self.firsts.binary_search(&node).is_ok()
    }

    pub fn ending_with(&self, node: NodeId) -> Option<Collapse> {
        self.pairs.get(&node).copied()
    }
}

/// Whether weights are multiplied, once per step, with less work than one image takes otherwise.
fn pays(graph: &Graph, pair: &LinearPair) -> bool {
    let (first, second) = (&graph.nodes()[pair.first], &graph.nodes()[pair.second]);
    let source = graph.source_shape(first);
    let both = first.op.macs(source, first.shape) + second.op.macs(first.shape, second.shape);
    let one = pair.op.macs(source, second.shape);
    let OpSpec::Conv2d { kernel, .. } = pair.op else { return false };
    // What is dropped between the two is not linear.
    if first.drop_path {
        return false;
    }
    let product = second.shape.c * first.shape.c * source.c * kernel * kernel;
    one + product as u64 <= both
}

impl Collapse {
    pub const fn first(&self) -> NodeId {
        self.0.first
    }

    /// The output of the second one for the input of the first.
    pub fn run(&self, first: &NodeTensors, second: &NodeTensors, x: &Tensor) -> Tensor {
        let (Some(inner), Some(outer), OpSpec::Conv2d { stride, padding, dilation, .. }) =
            (&first.weight, &second.weight, self.0.op)
        else {
            return x.shallow_clone();
        };
        let size = inner.size();
        let matrix = outer.flatten(1, -1);
        let weight = matrix.matmul(&inner.flatten(1, -1)).view([-1, size[1], size[2], size[3]]);
        let passed = first.bias.as_ref().map(|bias| matrix.mv(bias));
        let bias = match (passed, &second.bias) {
            (Some(passed), Some(own)) => Some(passed + own),
            (passed, own) => passed.or_else(|| own.as_ref().map(Tensor::shallow_clone)),
        };
        let pair = |extent: usize| [extent as i64; 2];
        x.conv2d(&weight, bias.as_ref(), pair(stride), pair(padding), pair(dilation), 1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_spaces::{Block, GraphBuilder, Shape, Weights};
    use tch::{Device, Kind, no_grad};

    use super::*;
    use crate::GraphModule;

    #[test]
    fn one_convolution_gives_the_outputs_and_gradients_of_two() {
        let mut builder = GraphBuilder::new();
        let x = builder.input("x", Shape::new(1, 3, 9, 8)).unwrap();
        let block: Block = "collapsible k3 p24 expanded res prelu".parse().unwrap();
        let y = builder.add("in", OpSpec::conv(5, 3, 1), &[x]).unwrap();
        let y = block.build(&mut builder, "b", y, 5, 1).unwrap();
        // With biases, and one that does not pay: its middle is narrow.
        let conv = |out_channels, kernel| OpSpec::Conv2d {
            out_channels,
            kernel,
            stride: 1,
            padding: kernel / 2,
            dilation: 1,
            groups: 1,
            bias: true,
        };
        let y = builder.add("wide", conv(30, 3), &[y]).unwrap();
        let y = builder.add("narrow", conv(4, 1), &[y]).unwrap();
        let y = builder.add("less", conv(1, 3), &[y]).unwrap();
        let y = builder.add("more", conv(9, 1), &[y]).unwrap();
        let graph = builder.finish(&[y]).unwrap();
        assert_eq!(Collapses::of(&graph).firsts.len(), 2);
        let weights = Weights::seeded(&graph, 3);
        let module = || GraphModule::new(&graph, &weights, Kind::Double).unwrap();
        let images = Tensor::randn([2, 3, 9, 8], (Kind::Double, Device::Cpu));
        let step = |module: GraphModule| {
            let output = module.forward(&images, None).swap_remove(0);
            let loss = output.square().sum(Kind::Double);
            let leaves = module.parameters();
            let gradients = Tensor::run_backward(&[&loss], &leaves, false, false);
            (output, gradients)
        };
        let (one, two) = (step(module()), step(module().expanded()));
        let near = |a: &Tensor, b: &Tensor| no_grad(|| a.allclose(b, 1e-10, 1e-10, false));
        assert!(near(&one.0, &two.0));
        assert_eq!(one.1.len(), two.1.len());
        assert!(one.1.iter().zip(&two.1).all(|(a, b)| near(a, b)));
        assert!(one.1.iter().all(|gradient| gradient.abs().max().double_value(&[]) > 0.0));
    }
}
