//! Initial values as the papers of zero-cost proxies have them.

use lathe_spaces::{Graph, OpSpec, Stream, Tensor, Weights};
use rand::RngExt as _;

/// How widely the weights of convolutions and linear layers spread around zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// `PyTorch`'s default: uniform in ±1/√(fan-in).
    Default,
    /// Standard normal (Lin et al. 2021, algorithm 1).
    Standard,
}

/// Weights for every tensor of the graph. Batch norms are the identity, biases zero.
///
/// A tensor depends on the seed, its name and its extents, not on other tensors.
pub(super) fn initial(graph: &Graph, spread: Spread, seed: u64) -> Weights {
    let specs = graph.parameters().into_iter().chain(graph.statistics());
    let tensors = specs.map(|spec| {
        let count: usize = spec.dims.iter().product();
        let affine = matches!(graph.nodes()[spec.node].op, OpSpec::BatchNorm { .. });
        let mut stream = Stream::new(seed, &format!("proxy {}", spec.name), 0);
        let values = match spec.suffix {
            "weight" if !affine => {
                let fan_in: usize = spec.dims.iter().skip(1).product();
                let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
                let draw = |_| match spread {
                    Spread::Default => stream.random_range(-bound..=bound) as f32,
                    Spread::Standard => normal(&mut stream) as f32,
                };
                (0..count).map(draw).collect()
            }
            "weight" | "running_var" => vec![1.0; count],
            _ => vec![0.0; count],
        };
        (spec.name, Tensor { dims: spec.dims, values })
    });
    Weights(tensors.collect())
}

/// A standard normal number (Box and Muller 1958).
pub(super) fn normal<R: rand::Rng + ?Sized>(stream: &mut R) -> f64 {
    // 1 - u is never zero.
    let radius = (-2.0 * (1.0 - stream.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * stream.random::<f64>()).cos()
}
