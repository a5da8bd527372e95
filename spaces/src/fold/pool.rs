//! A batch norm in front of a mean over positions does the same behind it.

use std::collections::BTreeMap;

use crate::{Graph, GraphBuilder, GraphError, NodeId, OpSpec};

/// The graph in which every batch norm that only a [`OpSpec::GlobalAvgPool`] reads stands behind the pool, where a
/// linear layer takes it: the mean of `a·x + b` is `a` times the mean plus `b`. Names and tensors stay.
///
/// # Errors
/// [`GraphError`] if the graph can't be built; never for one that could be.
pub(super) fn norms_behind_means(graph: &Graph) -> Result<Graph, GraphError> {
    let nodes = graph.nodes();
    let mut readers = vec![Vec::new(); nodes.len()];
    for (id, node) in nodes.iter().enumerate() {
        for &input in &node.inputs {
            readers[input].push(id);
        }
    }
    // Where a norm stands, the pool is built, and the other way round.
    let mut swapped: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for (id, node) in nodes.iter().enumerate() {
        let ([reader], OpSpec::BatchNorm { .. }) = (&readers[id][..], node.op) else { continue };
        if nodes[*reader].op == OpSpec::GlobalAvgPool && !graph.outputs().contains(&id) {
            swapped.insert(id, *reader);
            swapped.insert(*reader, id);
        }
    }
    if swapped.is_empty() {
        return Ok(graph.clone());
    }
    let mut builder = GraphBuilder::new();
    let mut ids = Vec::with_capacity(nodes.len());
    for (id, place) in nodes.iter().enumerate() {
        let node = swapped.get(&id).map_or(place, |&other| &nodes[other]);
        let inputs: Vec<NodeId> = place.inputs.iter().map(|&input| ids[input]).collect();
        ids.push(match node.op {
            OpSpec::Input => builder.input(&node.name, node.shape)?,
            op => builder.add(&node.name, op, &inputs)?,
        });
    }
    builder.finish(&graph.outputs().iter().map(|&output| ids[output]).collect::<Vec<_>>())
}
