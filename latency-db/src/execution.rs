//! How the engine executed a workload, as far as it can be seen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What was really executed: not always what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Nodes that each provider executed, after the engine's own rewriting: a fused group is one node.
    /// Empty where the engine doesn't tell.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, usize>,
    /// Numeric type that the engine computed in, as it says itself (`f32`, `bf16`); absent where it
    /// doesn't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// Nodes that another provider than the asked one executed, as `name (operator) on provider`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<String>,
    /// Whatever else the engine did to the graph.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}
