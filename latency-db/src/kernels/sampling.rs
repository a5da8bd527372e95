//! Which kernels to measure next.

use std::collections::BTreeSet;

use lathe_spaces::{Graph, GraphBuilder, Level, OpSpec, Shape, Stream, Workload};
use rand::RngExt;

use super::{Fusion, Kernel, KernelModel, kernel};

/// Candidates per kernel that is asked for.
const CANDIDATES: usize = 20;

/// A kernel that is worth measuring.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelSample {
    /// What to time.
    pub workload: Workload,
    /// Why: the kind's held-out relative error, or `None` for a kind or size that was never measured.
    pub error: Option<f64>,
}

/// The next `count` kernels to measure, around those of `graphs`, more where held-out errors are
/// larger (the adaptive sampling of nn-Meter, `MobiSys` 2021, §5.2): sizes and channels of a kernel are
/// varied by factors between 0.4 and 1.2, and kinds that were never measured come first. Without a
/// model everything is new. The same seed gives the same kernels.
pub fn next_kernels(
    model: Option<&KernelModel>,
    fusion: &Fusion,
    graphs: &[Graph],
    count: usize,
    seed: u64,
) -> Vec<KernelSample> {
    let mut pool: Vec<(f64, Option<f64>, &Graph, Kernel)> = Vec::new();
    let mut seen = BTreeSet::new();
    for graph in graphs {
        for kernel in kernel::split(graph, fusion) {
            if !seen.insert(kernel.signature.clone()) {
                continue;
            }
            let error = model
                .filter(|model| model.knows(&kernel))
                .and_then(|model| model.kind_errors.get(&kernel.kind).copied());
            let weight = error.unwrap_or(1.0).max(1e-4) * (1.0 + kernel.macs).ln().max(1.0);
            pool.push((weight, error, graph, kernel));
        }
    }
    let total: f64 = pool.iter().map(|(weight, ..)| weight).sum();
    let mut samples = Vec::new();
    let mut known = BTreeSet::new();
    let mut stream = Stream::new(seed, "kernel samples", 0);
    for _ in 0..count * CANDIDATES {
        if samples.len() == count || pool.is_empty() {
            break;
        }
        let mut ticket = stream.random::<f64>() * total;
        let chosen = pool
            .iter()
            .find(|(weight, ..)| {
                ticket -= weight;
                ticket <= 0.0
            })
            .unwrap_or(&pool[pool.len() - 1]);
        // The kernel itself first, then its surroundings.
        let factors = if stream.random_bool(0.25) {
            [1.0; 3]
        } else {
            std::array::from_fn(|_| 0.4 + 0.8 * stream.random::<f64>())
        };
        if let Some(workload) = varied(chosen.2, &chosen.3, factors)
            && known.insert(workload.id())
        {
            samples.push(KernelSample { workload, error: chosen.1 });
        }
    }
    samples
}

/// The kernel by itself at another size: factors of side, input channels and output channels. `None`
/// if it reads more than one tensor, or doesn't fit.
fn varied(graph: &Graph, kernel: &Kernel, [side, c_in, c_out]: [f64; 3]) -> Option<Workload> {
    let nodes = graph.nodes();
    let first = &nodes[*kernel.nodes.first()?];
    let source = graph.source_shape(first);
    let scale = |value: usize, factor: f64| ((value as f64 * factor).round() as usize).max(1);
    let even = |value: usize| if value > 8 { value.div_ceil(8) * 8 } else { value };
    let grow = |channels: usize, factor: f64| {
        if (factor - 1.0).abs() < f64::EPSILON { channels } else { even(scale(channels, factor)) }
    };
    let mut builder = GraphBuilder::new();
    let mut shape = source;
    let grouped = kernel.nodes.iter().any(|&id| match nodes[id].op {
        OpSpec::Conv2d { groups, .. } => groups > 1 && groups != source.c,
        // Their parameters say how many channels they read.
        OpSpec::ChannelShuffle { .. }
        | OpSpec::GroupNorm { .. }
        | OpSpec::Slice { .. }
        | OpSpec::ConvTranspose2d { .. }
        | OpSpec::DepthToSpace { .. }
        | OpSpec::Attention { .. } => true,
        _ => false,
    });
    shape.h = scale(source.h, side);
    shape.w = scale(source.w, side);
    if !grouped {
        shape.c = grow(source.c, c_in);
    }
    let mut x = builder.input("input", Shape { n: 1, ..shape }).ok()?;
    for &id in &kernel.nodes {
        let node = &nodes[id];
        let op = match node.op {
            OpSpec::Conv2d { out_channels, kernel, stride, padding, dilation, groups, bias } => {
                let depthwise = groups > 1 && groups == source.c;
                let (out_channels, groups) = if depthwise {
                    (builder.shape(x).c, builder.shape(x).c)
                } else if grouped {
                    (out_channels, groups)
                } else {
                    (grow(out_channels, c_out), groups)
                };
                OpSpec::Conv2d { out_channels, kernel, stride, padding, dilation, groups, bias }
            }
            op => op,
        };
        let inputs = vec![x; node.inputs.len()];
        if node.inputs.len() > 1 && !matches!(op, OpSpec::Add | OpSpec::Mean | OpSpec::Concat | OpSpec::Mul) {
            return None;
        }
        x = builder.add(&node.name, op, &inputs).ok()?;
    }
    let graph = builder.finish(&[x]).ok()?;
    Some(Workload::new(format!("{} {}", kernel.kind, shape), Level::Operator, graph))
}
