//! NASWOT (Mellor et al. 2021): how differently an untrained network's rectifiers answer to different images.

use lathe_spaces::{Function, Graph, OpSpec};
use tch::{Kind, Tensor, no_grad};

use super::{
    ProxyError,
    initial::{Spread, initial},
};
use crate::graph_module::{GraphModule, Normalised, check_images};

/// Eigenvalues below this share of the largest are zero.
const ROUNDING: f64 = 1e-10;

/// log |det K| where K[i, j] is the number of rectifiers that are on for both of the images i and j, or off for
/// both (equation 2). Batch norms use the batch, as in the authors' code. Minus infinity if two images can't
/// be told apart.
pub(super) fn naswot(graph: &Graph, images: &Tensor, seed: u64) -> Result<f64, ProxyError> {
    check_images(graph, images)?;
    let module = GraphModule::frozen(graph, &initial(graph, Spread::Default, seed))?;
    let batch = images.size()[0];
    let mut kernel = Tensor::zeros([batch, batch], (Kind::Double, tch::Device::Cpu));
    let mut rectifiers = 0;
    no_grad(|| {
        module.observed(images, Normalised::ByBatch, &mut |node, input, _| {
            let rectifier = OpSpec::Activation { function: Function::Relu6 };
            if node.op != OpSpec::Relu && node.op != rectifier {
                return;
            }
            rectifiers += 1;
            // Counts are below 2^24: exact in single precision.
            let on = input.gt(0.0).to_kind(Kind::Float).flatten(1, -1);
            let off = on.ones_like() - &on;
            kernel += (on.matmul(&on.tr()) + off.matmul(&off.tr())).to_kind(Kind::Double);
        })
    });
    if rectifiers == 0 {
        return Err(ProxyError::NoRectifier);
    }
    Ok(log_determinant(&kernel))
}

/// Of a symmetric matrix without negative eigenvalues.
pub(super) fn log_determinant(kernel: &Tensor) -> f64 {
    let eigenvalues = kernel.linalg_eigvalsh("L");
    let least = eigenvalues.min().double_value(&[]);
    let most = eigenvalues.max().double_value(&[]);
    if least <= ROUNDING * most {
        return f64::NEG_INFINITY;
    }
    eigenvalues.log().sum(Kind::Double).double_value(&[])
}
