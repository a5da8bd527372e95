//! Synaptic flow (Tanaka et al. 2020), summed over a network (Abdelfattah et al. 2021).

use lathe_spaces::{Graph, OpSpec};
use tch::{Kind, Tensor};

use super::{
    ProxyError,
    initial::{Spread, initial},
};
use crate::graph_module::{GraphModule, Normalised};

/// Logarithm of Σ |w · ∂R/∂w| over the weights of convolutions and linear layers, where R is the sum of the
/// outputs for an image of ones, every weight is replaced by its absolute value, and batch norms are left out
/// (else R would not depend on the weights in front of them). Double precision: R grows exponentially with
/// depth, to 1e60 for NAS-Bench-201. Minus infinity if nothing gets through.
pub(super) fn synflow(graph: &Graph, seed: u64) -> Result<f64, ProxyError> {
    let mut weights = initial(graph, Spread::Default, seed);
    for value in weights.0.values_mut().flat_map(|tensor| &mut tensor.values) {
        *value = value.abs();
    }
    let shape = graph.input_shape().ok_or(ProxyError::Inputs)?;
    let module = GraphModule::new(graph, &weights, Kind::Double)?;
    let ones = Tensor::ones(
        [1, shape.c, shape.h, shape.w].map(|extent| extent as i64),
        (Kind::Double, tch::Device::Cpu),
    );
    let outputs = module.observed(&ones, Normalised::Not, &mut |_, _, _| {});
    let flow = outputs.iter().fold(Tensor::zeros([1], (Kind::Double, tch::Device::Cpu)), |sum, output| {
        sum + output.sum(Kind::Double)
    });
    if flow.requires_grad() {
        flow.sum(Kind::Double).backward();
    }
    let mut sum = 0.0;
    for (spec, weight) in graph.parameters().iter().zip(module.parameters()) {
        let layer = matches!(graph.nodes()[spec.node].op, OpSpec::Conv2d { .. } | OpSpec::Linear { .. });
        let gradient = weight.grad();
        if layer && spec.suffix == "weight" && gradient.defined() {
            sum += (weight.detach() * gradient).abs().sum(Kind::Double).double_value(&[]);
        }
    }
    if sum.is_finite() { Ok(sum.ln()) } else { Err(ProxyError::Overflow) }
}
