//! What is timed.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Graph;

/// Numeric type of weights and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    Fp32,
    /// 8-bit integers, quantised after training ([`Quantized`](crate::Quantized)).
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Int8 => "int8",
        })
    }
}

/// What part of a network a workload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// One choice of a search space, at one place's width and resolution.
    Operator,
    /// A part that every network of the space has: stem, preprocessing, classifier.
    Fixed,
    /// A whole network.
    Network,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "operator",
            Self::Fixed => "fixed",
            Self::Network => "network",
        })
    }
}

/// Stable name of a workload: the first 32 hexadecimal digits of the SHA-256 of its canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkloadId(pub String);

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A graph to be timed at a precision: an operator is a graph of a few nodes, a network one of many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Human-readable name, not part of the identity (`sep_conv_3x3 16x32x32 s1`).
    pub label: String,
    /// What part of a network it is; not part of the identity.
    pub level: Level,
    /// What is computed.
    pub graph: Graph,
    /// At which precision.
    pub precision: Precision,
}

impl Workload {
    /// A single-precision workload.
    pub fn new(label: impl Into<String>, level: Level, graph: Graph) -> Self {
        Self { label: label.into(), level, graph, precision: Precision::Fp32 }
    }

    /// The same computation at another precision.
    #[must_use]
    pub fn at(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The identity: operators, edges, input shapes and precision. Names, labels and drop-path marks
    /// don't count, so that the same computation found in two places is timed once.
    pub fn id(&self) -> WorkloadId {
        let nodes: Vec<_> = self
            .graph
            .nodes()
            .iter()
            .map(|node| serde_json::json!([node.op, node.inputs, node.shape.dims()]))
            .collect();
        let mut canonical = serde_json::json!({
            "nodes": nodes,
            "outputs": self.graph.outputs(),
            "precision": self.precision,
        });
        // Whether JSON objects keep their order depends on what else is in the build.
        canonical.sort_all_objects();
        let digest = Sha256::digest(canonical.to_string().as_bytes());
        let prefix = digest.iter().take(16).fold(0_u128, |bits, &byte| bits << 8 | u128::from(byte));
        WorkloadId(format!("{prefix:032x}"))
    }
}
