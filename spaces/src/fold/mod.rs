//! The same function in fewer operators, before a network is exported or timed.

mod collapse;
mod norm;
mod numbers;
mod pool;
mod rules;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{Graph, GraphBuilder, GraphError, Node, NodeId, OpSpec, Tensor, Weights, WeightsError};
use numbers::numbers;
use rules::Round;

pub(crate) use collapse::product;
pub use collapse::{LinearPair, linear_pairs};
pub(crate) use norm::{behind, scale_and_shift};

/// A network after [`fold`].
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// Fewer nodes, the same function, the result as only output.
    pub graph: Graph,
    /// Its tensors.
    pub weights: Weights,
    /// How often each rule was applied.
    pub applied: BTreeMap<FoldRule, usize>,
    /// What is left that other networks lose, and why.
    pub left: Vec<String>,
}

/// A way in which two operators become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoldRule {
    /// A batch norm behind a convolution or linear layer goes into its weights.
    NormBehind,
    /// A batch norm in front of a linear layer, or of a convolution without padding, goes into its weights.
    NormInFront,
    /// A 1×1 convolution behind a convolution: their product, where it does not cost more.
    Collapse,
    /// An input that is added to the output of its convolution: a one in the middle of the window.
    Identity,
}

impl FoldRule {
    /// Name for messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NormBehind => "batch norm into the layer in front of it",
            Self::NormInFront => "batch norm into the layer behind it",
            Self::Collapse => "two linear convolutions into one",
            Self::Identity => "residual into its convolution",
        }
    }
}

/// Why a network can't be folded. The messages complete "failed to …".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FoldError {
    /// Weights that don't fit.
    #[error("fold the network: {0}")]
    Weights(#[from] WeightsError),
    /// The folded graph can't be built.
    #[error("fold the network: {0}")]
    Graph(#[from] GraphError),
}

/// Folds batch norms, chains of linear convolutions (SESR's collapse) and residual convolutions (`SHViT`'s,
/// `RepVGG`'s) until nothing more can be folded; a batch norm goes through a mean over positions into the linear
/// layer behind it (`CAS-ViT`'s). Auxiliary outputs are left out.
///
/// # Errors
/// [`FoldError`] if weights are missing or of other extents.
pub fn fold(graph: &Graph, weights: &Weights) -> Result<Folded, FoldError> {
    let mut graph = pool::norms_behind_means(&graph.without_auxiliary())?;
    weights.check(&graph)?;
    let mut weights = weights.clone();
    let mut applied = BTreeMap::new();
    loop {
        let changes = Round::changes(&graph);
        if changes.is_empty() {
            break;
        }
        for change in changes.values() {
            *applied.entry(change.rule).or_insert(0) += 1;
        }
        let next = rebuilt(&graph, &changes)?;
        weights = carried(&graph, &weights, &changes, &next)?;
        graph = next;
    }
    let left = left(&graph);
    Ok(Folded { graph, weights, applied, left })
}

/// The graph that [`fold`] gives, whatever the weights are.
///
/// # Errors
/// [`GraphError`] if the folded graph can't be built.
pub fn fold_graph(graph: &Graph) -> Result<Graph, GraphError> {
    let mut graph = pool::norms_behind_means(&graph.without_auxiliary())?;
    loop {
        let changes = Round::changes(&graph);
        if changes.is_empty() {
            return Ok(graph);
        }
        graph = rebuilt(&graph, &changes)?;
    }
}

/// What becomes of a pair: the second node vanishes into the first, or the first into the second.
struct Change {
    rule: FoldRule,
    /// Node that stays, with another operator and other tensors.
    kept: NodeId,
    op: OpSpec,
    /// What the kept node reads from now on.
    input: NodeId,
}

/// The graph with changes, by the node that vanishes; readers of a vanished node read the kept one.
fn rebuilt(graph: &Graph, changes: &BTreeMap<NodeId, Change>) -> Result<Graph, GraphError> {
    let by_kept: BTreeMap<NodeId, &Change> = changes.values().map(|change| (change.kept, change)).collect();
    let mut builder = GraphBuilder::new();
    let mut ids: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    // A kept node may stand for one that comes later, so nothing between them reads it: see `Round`.
    for (id, node) in graph.nodes().iter().enumerate() {
        if changes.contains_key(&id) {
            continue;
        }
        let resolve = |input: &NodeId| ids[changes.get(input).map_or(input, |change| &change.kept)];
        let new = match (by_kept.get(&id), node.op) {
            (Some(change), _) => builder.add(&node.name, change.op, &[resolve(&change.input)])?,
            (None, OpSpec::Input) => builder.input(&node.name, node.shape)?,
            (None, op) => {
                let inputs: Vec<NodeId> = node.inputs.iter().map(resolve).collect();
                builder.add(&node.name, op, &inputs)?
            }
        };
        ids.insert(id, new);
    }
    let output = graph.outputs()[0];
    let output = ids[changes.get(&output).map_or(&output, |change| &change.kept)];
    builder.finish(&[output])
}

/// The tensors of the graph that changes lead to: those of kept nodes are new, all others stay.
fn carried(
    graph: &Graph,
    weights: &Weights,
    changes: &BTreeMap<NodeId, Change>,
    next: &Graph,
) -> Result<Weights, WeightsError> {
    let mut new = BTreeMap::new();
    for (&gone, change) in changes {
        let (weight, bias) = numbers(graph, weights, gone, change)?;
        let name = &graph.nodes()[change.kept].name;
        new.insert(format!("{name}.weight"), weight);
        new.extend(bias.map(|bias| (format!("{name}.bias"), bias)));
    }
    let mut tensors = BTreeMap::new();
    for spec in next.parameters().into_iter().chain(next.statistics()) {
        let values = match new.remove(&spec.name) {
            Some(values) => values,
            None => weights.get(&spec.name, &spec.dims)?.to_vec(),
        };
        tensors.insert(spec.name, Tensor { dims: spec.dims, values });
    }
    Ok(Weights(tensors))
}

/// What stays though it is linear, and what stands in the way.
fn left(graph: &Graph) -> Vec<String> {
    let nodes = graph.nodes();
    let behind = |node: &Node| node.inputs.first().map_or("nothing", |&input| nodes[input].op.name());
    let read_by = |id: NodeId| {
        let readers: Vec<&Node> = nodes.iter().filter(|node| node.inputs.contains(&id)).collect();
        match readers[..] {
            [] => "that is the result".to_owned(),
            [Node { op: OpSpec::Conv2d { padding: 1.., .. }, name, .. }] => {
                format!("in front of {name}, whose zeros around the map it must not shift")
            }
            [Node { op, .. }] => format!("in front of {}, which takes no scale and shift", op.name()),
            _ => format!("that {} operators read", readers.len()),
        }
    };
    let why = |(id, node): (NodeId, &Node)| match node.op {
        OpSpec::BatchNorm { .. } => {
            Some(format!("{}: a batch norm behind {} and {}", node.name, behind(node), read_by(id)))
        }
        OpSpec::ScalarAffine => {
            Some(format!("{}: a scale and shift behind {}, which is not linear", node.name, behind(node)))
        }
        _ => None,
    };
    nodes.iter().enumerate().filter_map(why).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
