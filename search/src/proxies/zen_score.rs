//! Zen-score (Lin et al. 2021): how much an untrained network's features change with its input.

use lathe_spaces::{Graph, OpSpec, Stream};
use tch::{Kind, Tensor, no_grad};

use super::{
    ProxyError,
    initial::{Spread, initial, normal},
};
use crate::graph_module::{GraphModule, Normalised};

/// Size of the perturbation, as in the authors' code.
const PERTURBATION: f64 = 0.01;
/// Images of noise per draw of weights.
const IMAGES: i64 = 16;
/// Draws of weights and images, whose scores are averaged.
const REPEATS: u64 = 2;

/// log E‖f(x) − f(x + 0.01 ε)‖₁ + Σ log σ, where x and ε are standard normal, f is the network up to its global
/// pooling with standard normal weights, and σ² is the mean over channels of the variance in front of each batch
/// norm (algorithm 1; absolute differences as in the authors' code).
///
/// Sums stay as they are, where the paper takes residual connections out: in a cell they are what is to
/// be judged. Batch norms of constant inputs (behind `none`) carry nothing and don't count. Minus
/// infinity if the features don't depend on the input.
pub(super) fn zen_score(graph: &Graph, seed: u64) -> Result<f64, ProxyError> {
    let shape = graph.input_shape().ok_or(ProxyError::Inputs)?;
    let extents = [IMAGES, shape.c as i64, shape.h as i64, shape.w as i64];
    let count: i64 = extents.iter().product();
    let mut sum = 0.0;
    for repeat in 0..REPEATS {
        let mut stream = Stream::new(seed, "zen-score", repeat);
        let mut noise = || {
            let values: Vec<f32> = (0..count).map(|_| normal(&mut stream) as f32).collect();
            Tensor::from_slice(&values).view(extents)
        };
        let image = noise();
        let moved = &image + PERTURBATION * noise();
        let seed = seed.wrapping_mul(REPEATS).wrapping_add(repeat);
        let module = GraphModule::frozen(graph, &initial(graph, Spread::Standard, seed))?;
        let (features, scale) = features(&module, &image)?;
        let (others, _) = self::features(&module, &moved)?;
        let change = (features - others).abs().sum(Kind::Double).double_value(&[]) / IMAGES as f64;
        sum += change.ln() + scale;
    }
    let score = sum / REPEATS as f64;
    if score.is_nan() || score == f64::INFINITY { Err(ProxyError::Overflow) } else { Ok(score) }
}

/// What goes into the (last) global pooling, and Σ log σ.
fn features(module: &GraphModule, images: &Tensor) -> Result<(Tensor, f64), ProxyError> {
    let mut features = None;
    let mut scale = 0.0;
    no_grad(|| {
        module.observed(images, Normalised::ByBatch, &mut |node, input, _| match node.op {
            OpSpec::BatchNorm { .. } => {
                let variances = input.to_kind(Kind::Double).var_dim([0i64, 2, 3].as_slice(), false, false);
                let variance = variances.mean(Kind::Double).double_value(&[]);
                if variance > 0.0 {
                    scale += 0.5 * variance.ln();
                }
            }
            OpSpec::GlobalAvgPool => features = Some(input.shallow_clone()),
            _ => {}
        })
    });
    Ok((features.ok_or(ProxyError::NoPooling)?, scale))
}
