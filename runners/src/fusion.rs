//! What must be timed to find out which operators an engine merges.

use lathe_spaces::{Function, GraphBuilder, GraphError, Level, NodeId, OpSpec, Shape, Workload};

/// A pair of operators: each alone, and the second behind the first.
#[derive(Clone, Debug, PartialEq)]
pub struct FusionPair {
    /// Kind of the first operator, as kernels are named (`conv`, `dwconv`).
    pub first: String,
    /// Kind of the second.
    pub second: String,
    /// The first by itself.
    pub alone: Workload,
    /// The second by itself.
    pub next: Workload,
    /// Both.
    pub both: Workload,
}

/// Input of the pairs: large enough that a separate pass over it can be told from noise.
const SHAPE: Shape = Shape::new(1, 64, 28, 28);

/// The pairs that are tried, on 64 channels of 28×28.
///
/// # Errors
/// [`GraphError`] if an operator doesn't fit, which would be a fault of this list.
pub fn fusion_pairs() -> Result<Vec<FusionPair>, GraphError> {
    let pool = OpSpec::MaxPool { kernel: 3, stride: 1, padding: 1 };
    let mean = OpSpec::AvgPool { kernel: 3, stride: 1, padding: 1, count_include_pad: false };
    let norm = OpSpec::BatchNorm { affine: true };
    let grouped = OpSpec::Conv2d {
        out_channels: 64,
        kernel: 1,
        stride: 1,
        padding: 0,
        dilation: 1,
        groups: 2,
        bias: false,
    };
    let operators = [
        ("conv", OpSpec::conv(64, 1, 1)),
        ("dwconv", OpSpec::depthwise(64, 3, 1, 1)),
        ("gconv", grouped),
        ("max_pool", pool),
        ("avg_pool", mean),
        ("batch_norm", norm),
        ("relu", OpSpec::Relu),
        ("relu6", OpSpec::Activation { function: Function::Relu6 }),
        ("hard_swish", OpSpec::Activation { function: Function::HardSwish }),
        ("add", OpSpec::Add),
    ];
    let tried = [
        ("conv", "batch_norm"),
        ("conv", "relu"),
        ("conv", "relu6"),
        ("conv", "hard_swish"),
        ("conv", "add"),
        ("conv", "dwconv"),
        ("dwconv", "batch_norm"),
        ("dwconv", "relu"),
        ("dwconv", "conv"),
        ("gconv", "batch_norm"),
        ("max_pool", "batch_norm"),
        ("avg_pool", "batch_norm"),
        ("max_pool", "relu"),
        ("batch_norm", "relu"),
        ("add", "relu"),
        ("add", "batch_norm"),
        ("relu", "conv"),
    ];
    let find = |name: &str| operators.iter().find(|(kind, _)| *kind == name);
    let mut pairs = Vec::new();
    for (first, second) in tried {
        if let (Some(&a), Some(&b)) = (find(first), find(second)) {
            pairs.push(FusionPair {
                first: first.into(),
                second: second.into(),
                alone: workload(&[a])?,
                next: workload(&[b])?,
                both: workload(&[a, b])?,
            });
        }
    }
    Ok(pairs)
}

/// A run that computes next to nothing: what every run costs.
///
/// # Errors
/// See [`fusion_pairs`].
pub fn empty_run() -> Result<Workload, GraphError> {
    let mut builder = GraphBuilder::new();
    let x = builder.input("input", Shape::new(1, 1, 1, 1))?;
    let y = builder.add("relu", OpSpec::Relu, &[x])?;
    Ok(Workload::new("empty run", Level::Operator, builder.finish(&[y])?))
}

fn workload(operators: &[(&str, OpSpec)]) -> Result<Workload, GraphError> {
    let mut builder = GraphBuilder::new();
    let input = builder.input("input", SHAPE)?;
    let mut x: NodeId = input;
    for (name, op) in operators {
        let inputs = if *op == OpSpec::Add { vec![x, input] } else { vec![x] };
        x = builder.add(name, *op, &inputs)?;
    }
    let names: Vec<&str> = operators.iter().map(|(name, _)| *name).collect();
    let label = format!("{} {}x{}x{}", names.join("+"), SHAPE.c, SHAPE.h, SHAPE.w);
    Ok(Workload::new(label, Level::Operator, builder.finish(&[x])?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_the_nodes_of_both() {
        let pairs = fusion_pairs().unwrap();
        assert_eq!(pairs.len(), 17);
        for pair in pairs {
            assert_eq!(pair.both.graph.nodes().len(), 3, "{}", pair.both.label);
            assert_eq!(pair.both.graph.macs(), pair.alone.graph.macs() + pair.next.graph.macs());
        }
        assert_eq!(empty_run().unwrap().graph.nodes().len(), 2);
    }
}
