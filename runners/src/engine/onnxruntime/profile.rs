//! What ONNX Runtime's profile tells: which node ran where, and on which numbers.

use std::collections::{BTreeMap, BTreeSet};

use lathe_latency_db::Execution;
use serde::Deserialize;

use super::provider::Provider;

/// One node that was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) operator: String,
    /// A word of [`Provider`], or the name that ONNX Runtime gave.
    pub(super) provider: String,
    /// Element types of its inputs and outputs.
    types: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    args: Arguments,
}

#[derive(Default, Deserialize)]
struct Arguments {
    op_name: Option<String>,
    provider: Option<String>,
    #[serde(default)]
    input_type_shape: Vec<BTreeMap<String, serde_json::Value>>,
    #[serde(default)]
    output_type_shape: Vec<BTreeMap<String, serde_json::Value>>,
}

/// The nodes of a profile, each once however often it ran, in the order of their first run. None at all,
/// but a run: the engine has computed everything while it loaded the model, whose output doesn't depend on
/// its input (a cell of NAS-Bench-201 may be cut off by `none`).
pub(super) fn nodes(profile: &[u8]) -> Result<Vec<Node>, String> {
    let events: Vec<Event> =
        serde_json::from_slice(profile).map_err(|error| format!("it isn't a profile: {error}"))?;
    let ran = events.iter().any(|event| event.name == "model_run");
    let mut seen = BTreeSet::new();
    let nodes: Vec<Node> = events
        .into_iter()
        .filter(|event| event.cat == "Node")
        .filter_map(|event| {
            let name = event.name.strip_suffix("_kernel_time")?.to_owned();
            let provider = event.args.provider?;
            let word = Provider::of_name(&provider).map_or(provider, |known| known.word().to_owned());
            let shapes = event.args.input_type_shape.iter().chain(&event.args.output_type_shape);
            let types = shapes.flat_map(BTreeMap::keys).cloned().collect();
            seen.insert(name.clone()).then(|| Node {
                name,
                operator: event.args.op_name.unwrap_or_default(),
                provider: word,
                types,
            })
        })
        .collect();
    if nodes.is_empty() && !ran { Err("it has neither nodes nor a run".to_owned()) } else { Ok(nodes) }
}

/// How a model was executed that was asked of `provider`.
pub(super) fn execution(nodes: &[Node], provider: Provider) -> Execution {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut operators: BTreeMap<&str, usize> = BTreeMap::new();
    for node in nodes {
        *counts.entry(node.provider.clone()).or_default() += 1;
        *operators.entry(&node.operator).or_default() += 1;
    }
    let elsewhere = nodes
        .iter()
        .filter(|node| node.provider != provider.word())
        .map(|node| format!("{} ({}) on {}", node.name, node.operator, node.provider))
        .collect();
    let operators: Vec<String> =
        operators.iter().map(|(operator, count)| format!("{operator} {count}")).collect();
    Execution {
        nodes: counts,
        precision: if provider.compiles() { None } else { precision(nodes) },
        elsewhere,
        notes: vec![if nodes.is_empty() {
            "the engine folded the whole model into a constant".to_owned()
        } else {
            format!("executed operators: {}", operators.join(", "))
        }],
    }
}

/// The element types that were computed with; integers that only index or shape aren't among them.
fn precision(nodes: &[Node]) -> Option<String> {
    const NAMES: [(&str, &str); 5] =
        [("float", "f32"), ("float16", "f16"), ("bfloat16", "bf16"), ("int8", "i8"), ("uint8", "u8")];
    let found: Vec<&str> = NAMES
        .into_iter()
        .filter(|(name, _)| nodes.iter().any(|node| node.types.contains(*name)))
        .map(|(_, word)| word)
        .collect();
    (!found.is_empty()).then(|| found.join("+"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const PROFILE: &str = r#"[
        {"cat":"Session","name":"model_loading_uri","args":{}},
        {"cat":"Node","name":"a_fence_before","args":{"op_name":"Conv"}},
        {"cat":"Node","name":"a_kernel_time","args":{"op_name":"Conv","provider":"XnnpackExecutionProvider",
            "input_type_shape":[{"float":[1,3]},{"float":[8]}],"output_type_shape":[{"float":[1,8]}]}},
        {"cat":"Node","name":"b_kernel_time","args":{"op_name":"Reshape","provider":"CPUExecutionProvider",
            "input_type_shape":[{"float":[1,8]},{"int64":[2]}],"output_type_shape":[{"float":[8]}]}},
        {"cat":"Node","name":"a_kernel_time","args":{"op_name":"Conv","provider":"XnnpackExecutionProvider"}}
    ]"#;

    #[test]
    fn nodes_are_counted_once_per_provider_and_those_elsewhere_are_named() {
        let nodes = nodes(PROFILE.as_bytes()).unwrap();
        let execution = execution(&nodes, Provider::Xnnpack);
        assert_eq!(execution.nodes, [("cpu".to_owned(), 1), ("xnnpack".to_owned(), 1)].into());
        assert_eq!(execution.elsewhere, ["b (Reshape) on cpu"]);
        assert_eq!(execution.precision.as_deref(), Some("f32"));
        assert_eq!(execution.notes, ["executed operators: Conv 1, Reshape 1"]);
        assert!(super::execution(&nodes, Provider::Cpu).elsewhere == ["a (Conv) on xnnpack"]);
        assert_eq!(super::execution(&nodes, Provider::Qnn).precision, None);
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        assert!(nodes(b"{").unwrap_err().contains("isn't a profile"));
        assert_eq!(nodes(b"[]").unwrap_err(), "it has neither nodes nor a run");
    }

    #[test]
    fn a_model_without_nodes_is_a_constant() {
        let nodes = nodes(br#"[{"cat": "Session", "name": "model_run"}]"#).unwrap();
        let execution = super::execution(&nodes, Provider::Cpu);
        assert!(execution.nodes.is_empty() && execution.elsewhere.is_empty());
        assert!(execution.notes[0].contains("constant"), "{execution:?}");
    }
}
