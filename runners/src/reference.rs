//! The workload that is timed between the others, to notice a machine that changes.

use lathe_latency_db::Protocol;
use lathe_spaces::{GraphBuilder, GraphError, Level, OpSpec, Shape, Workload};

/// Label of the reference workload.
pub(crate) const LABEL: &str = "reference";

/// Two 3×3 convolutions with a `ReLU` between them on 16×32×32: 4.7 M multiply-accumulates.
pub(crate) fn workload() -> Result<Workload, GraphError> {
    let conv = OpSpec::Conv2d {
        out_channels: 16,
        kernel: 3,
        stride: 1,
        padding: 1,
        dilation: 1,
        groups: 1,
        bias: false,
    };
    let mut builder = GraphBuilder::new();
    let input = builder.input("input", Shape::new(1, 16, 32, 32))?;
    let first = builder.add("first", conv, &[input])?;
    let relu = builder.add("relu", OpSpec::Relu, &[first])?;
    let second = builder.add("second", conv, &[relu])?;
    Ok(Workload::new(LABEL, Level::Operator, builder.finish(&[second])?))
}

/// Rules for the reference: one short process.
pub(crate) fn protocol(rules: &Protocol) -> Protocol {
    Protocol {
        min_runs: rules.min_runs.min(50),
        min_seconds: rules.min_seconds.min(0.1),
        processes: 1,
        warmup_runs: rules.warmup_runs.min(10),
        warmup_seconds: rules.warmup_seconds.min(0.1),
        ..*rules
    }
}

/// The largest distance of the given medians from the median of all that were seen, relative and
/// signed.
pub(crate) fn drift(around: &[f64], all: &[f64]) -> Option<f64> {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let baseline = *sorted.get(sorted.len() / 2)?;
    around.iter().map(|median| median / baseline - 1.0).max_by(|a, b| a.abs().total_cmp(&b.abs()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn drift_is_the_largest_distance_from_the_median_of_all() {
        let all = [100.0, 101.0, 99.0, 100.0, 110.0];
        assert!((drift(&[100.0, 110.0], &all).unwrap() - 0.1).abs() < 1e-9);
        assert!((drift(&[99.0, 100.0], &all).unwrap() + 0.01).abs() < 1e-9);
        assert_eq!(drift(&[], &[]), None);
    }

    #[test]
    fn the_reference_is_a_small_graph() {
        assert_eq!(workload().unwrap().graph.macs(), 2 * 16 * 16 * 9 * 32 * 32);
    }
}
