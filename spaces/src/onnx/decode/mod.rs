//! From the bytes of an ONNX file, of whatever origin, to a graph.

mod attention;
mod constants;
mod operators;
mod partial;
mod primitives;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use prost::Message;
use thiserror::Error;

use self::values::{Attributes, Known, Value, extents};
use super::message::{Model, NodeMessage};
use crate::{Graph, GraphBuilder, NodeId, OpSpec, Shape, Tensor, Weights};

/// Names of nodes that a message holds of each kind.
const NAMES_SHOWN: usize = 4;

/// What was understood of an ONNX file.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The network. Behind an unknown operator whose output's extents the file tells, it goes on from
    /// a further input.
    pub graph: Graph,
    /// Its numbers; absent if they are not in the file, or not single precision.
    pub weights: Option<Weights>,
    /// Every operator that a graph can't express, each kind once.
    pub unknown: Vec<UnknownOperator>,
    /// Nodes that could not be placed because they stand behind an unknown operator.
    pub lost: Vec<String>,
    /// Where the graph is not exactly the file's, but of the same shapes and work.
    pub notes: Vec<String>,
}

/// A kind of operator that a graph can't express.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownOperator {
    /// Its name in the file.
    pub kind: String,
    /// What in particular is not known of it (`kernel_shape [1, 7]`); empty if nothing is.
    pub reason: String,
    /// Nodes that have it.
    pub nodes: Vec<String>,
}

impl fmt::Display for UnknownOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        write!(f, ", {}x: {}", self.nodes.len(), first_names(&self.nodes))
    }
}

/// The names, or the first few and how many more there are.
fn first_names(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMES_SHOWN)].join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl Decoded {
    /// What was not understood, a line per kind of operator, and what stands behind it; empty if nothing
    /// was left out.
    pub fn left_out(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.unknown.iter().map(ToString::to_string).collect();
        if !self.lost.is_empty() {
            let count = self.lost.len();
            lines.push(format!("{count} nodes behind them, of unknown shape: {}", first_names(&self.lost)));
        }
        lines
    }
}

/// Why an ONNX file can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Not an ONNX file, or not a whole one.
    #[error("read the ONNX file: it is cut off or not ONNX: {reason} ({bytes} bytes)")]
    Broken {
        /// What the reader of protocol buffers says.
        reason: String,
        /// Length of the file.
        bytes: usize,
    },
    /// A file without a network.
    #[error("read the ONNX file: it holds no graph")]
    NoGraph,
    /// An input that isn't an image.
    #[error(
        "read the ONNX file: input `{name}` has extents {got}, expected 4 (NCHW), only the batch may be symbolic"
    )]
    Input {
        /// Input.
        name: String,
        /// Its extents.
        got: String,
    },
    /// Weights that contradict themselves.
    #[error("read the ONNX file: tensor `{name}`: {reason}")]
    Tensor {
        /// Tensor.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A node that reads what nobody writes.
    #[error("read the ONNX file: node `{node}` ({kind}) reads `{input}`, which nothing before it writes")]
    Missing {
        /// Node.
        node: String,
        /// Its operator.
        kind: String,
        /// What it reads.
        input: String,
    },
    /// A node that can't take its inputs.
    #[error("read the ONNX file: node `{node}` ({kind}): {reason}")]
    Node {
        /// Node.
        node: String,
        /// Its operator.
        kind: String,
        /// What is wrong.
        reason: String,
    },
    /// No output that could be computed.
    #[error(
        "read the ONNX file: none of its outputs can be reached through operators that are known ({unknown})"
    )]
    NoOutput {
        /// The unknown ones.
        unknown: String,
    },
}

/// Reads an ONNX file into a graph in inference mode.
///
/// Symbolic batches become 1. Operators that a graph can't express are listed in
/// [`Decoded::unknown`], all at once, and never replaced by a guess.
///
/// # Errors
/// [`DecodeError`] if the file is cut off, contradicts itself, or nothing of it is known.
pub fn decode_onnx(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let model = Model::decode(bytes)
        .map_err(|error| DecodeError::Broken { reason: error.to_string(), bytes: bytes.len() })?;
    let message = model.graph.ok_or(DecodeError::NoGraph)?;
    if message.nodes.is_empty() {
        return Err(DecodeError::NoGraph);
    }
    let mut reader = Reader { whole: true, ..Reader::default() };
    for tensor in &message.initializers {
        let known = Known::read(tensor)
            .map_err(|reason| DecodeError::Tensor { name: tensor.name.clone(), reason })?;
        reader.values.insert(tensor.name.clone(), Value::Known(known));
    }
    for info in &message.values {
        if let Some(dims) = extents(info) {
            reader.described.insert(info.name.clone(), dims);
        }
    }
    for info in &message.inputs {
        // Old files list weights among the inputs.
        if reader.values.contains_key(&info.name) {
            continue;
        }
        let dims = extents(info).unwrap_or_default();
        let Some(shape) = four(&dims) else {
            let words: Vec<String> =
                dims.iter().map(|dim| dim.map_or_else(|| "?".into(), |dim| dim.to_string())).collect();
            return Err(DecodeError::Input {
                name: info.name.clone(),
                got: format!("[{}]", words.join(", ")),
            });
        };
        reader.input(&info.name, shape)?;
    }
    for node in &message.nodes {
        reader.node(node)?;
    }
    let outputs: Vec<&str> = message.outputs.iter().map(|info| info.name.as_str()).collect();
    reader.finish(&outputs)
}

/// Four extents, the batch 1 where it is symbolic.
fn four(dims: &[Option<usize>]) -> Option<Shape> {
    match *dims {
        [n, Some(c), Some(h), Some(w)] => Some(Shape::new(n.unwrap_or(1), c, h, w)),
        _ => None,
    }
}

/// What became of one node.
enum Step {
    Value(Value),
    /// Several outputs, in order.
    Values(Vec<Value>),
    /// Not expressible; the reason may be empty.
    Unknown(String),
}

/// The graph as far as it is read.
#[derive(Default)]
struct Reader {
    builder: GraphBuilder,
    shapes: Vec<Shape>,
    names: BTreeSet<String>,
    values: BTreeMap<String, Value>,
    described: BTreeMap<String, Vec<Option<usize>>>,
    weights: BTreeMap<String, Tensor>,
    /// Whether all weights were in the file.
    whole: bool,
    read: BTreeSet<NodeId>,
    unknown: BTreeMap<(String, String), Vec<String>>,
    lost: Vec<String>,
    notes: Vec<String>,
}

impl Reader {
    fn input(&mut self, name: &str, shape: Shape) -> Result<NodeId, DecodeError> {
        let unique = self.unique(name);
        let id = self.builder.input(&unique, shape).map_err(|error| DecodeError::Node {
            node: name.into(),
            kind: "input".into(),
            reason: error.to_string(),
        })?;
        self.shapes.push(shape);
        self.values.insert(name.into(), Value::Node { id, dims: shape.dims().to_vec() });
        Ok(id)
    }

    /// A name that no node has yet.
    fn unique(&mut self, name: &str) -> String {
        let mut unique = name.to_owned();
        let mut count = 1;
        while !self.names.insert(unique.clone()) {
            count += 1;
            unique = format!("{name}~{count}");
        }
        unique
    }

    fn node(&mut self, node: &NodeMessage) -> Result<(), DecodeError> {
        let output = node.outputs.first().cloned().unwrap_or_default();
        let name = if node.name.is_empty() { output.clone() } else { node.name.clone() };
        for input in node.inputs.iter().filter(|input| !input.is_empty()) {
            match self.values.get(input) {
                None => {
                    return Err(DecodeError::Missing {
                        node: name,
                        kind: node.kind.clone(),
                        input: input.clone(),
                    });
                }
                Some(Value::Lost) => {
                    self.lost.push(name);
                    self.abandon(node)?;
                    return Ok(());
                }
                Some(_) => {}
            }
        }
        let foreign = !matches!(node.domain.as_str(), "" | "ai.onnx");
        let step = if foreign {
            Step::Unknown(format!("domain {}", node.domain))
        } else {
            self.step(node, &name).map_err(|reason| DecodeError::Node {
                node: name.clone(),
                kind: node.kind.clone(),
                reason,
            })?
        };
        match step {
            Step::Value(value) => {
                self.values.insert(output, value);
            }
            Step::Values(values) => self.values.extend(node.outputs.iter().cloned().zip(values)),
            Step::Unknown(reason) => {
                self.unknown.entry((node.kind.clone(), reason)).or_default().push(name);
                self.abandon(node)?;
            }
        }
        Ok(())
    }

    /// The outputs of a node that isn't known: further inputs where the file tells their extents.
    fn abandon(&mut self, node: &NodeMessage) -> Result<(), DecodeError> {
        for output in node.outputs.iter().filter(|output| !output.is_empty()) {
            match self.described.get(output).and_then(|dims| four(dims)) {
                Some(shape) => drop(self.input(output, shape)?),
                None => drop(self.values.insert(output.clone(), Value::Lost)),
            }
        }
        Ok(())
    }

    fn finish(mut self, wanted: &[&str]) -> Result<Decoded, DecodeError> {
        for &name in wanted {
            if let Some(Value::Partial(partial)) = self.values.get(name) {
                let kind = ("output".to_owned(), partial.reason().to_owned());
                self.unknown.entry(kind).or_default().push(name.into());
            }
        }
        let unknown: Vec<UnknownOperator> = self
            .unknown
            .into_iter()
            .map(|((kind, reason), nodes)| UnknownOperator { kind, reason, nodes })
            .collect();
        let mut outputs: Vec<NodeId> = Vec::new();
        for name in wanted {
            if let Some(Value::Node { id, .. }) = self.values.get(*name) {
                outputs.push(*id);
            }
        }
        if !unknown.is_empty() {
            // The known part is everything that was placed, whether or not an output needs it.
            outputs.extend((0..self.shapes.len()).filter(|id| !self.read.contains(id)));
        }
        let mut seen = BTreeSet::new();
        outputs.retain(|id| seen.insert(*id));
        if outputs.is_empty() {
            let names: Vec<&str> = unknown.iter().map(|operator| operator.kind.as_str()).collect();
            return Err(DecodeError::NoOutput { unknown: names.join(", ") });
        }
        let graph = self.builder.finish(&outputs).map_err(|error| DecodeError::Node {
            node: "graph".into(),
            kind: "output".into(),
            reason: error.to_string(),
        })?;
        let weights = Weights(self.weights);
        let weights = (self.whole && weights.check(&graph).is_ok()).then_some(weights);
        Ok(Decoded { graph, weights, unknown, lost: self.lost, notes: self.notes })
    }

    fn add(&mut self, name: &str, op: OpSpec, inputs: &[NodeId]) -> Result<(NodeId, String), String> {
        let unique = self.unique(name);
        let id = self.builder.add(&unique, op, inputs).map_err(|error| error.to_string())?;
        self.shapes.push(self.builder.shape(id));
        self.read.extend(inputs);
        Ok((id, unique))
    }

    /// Adds a node whose output has four extents in the file.
    fn place(&mut self, name: &str, op: OpSpec, inputs: &[NodeId]) -> Result<Step, String> {
        let (id, _) = self.add(name, op, inputs)?;
        Ok(self.image(id))
    }

    /// A node's output with its four extents.
    fn image(&self, id: NodeId) -> Step {
        Step::Value(Value::Node { id, dims: self.shapes[id].dims().to_vec() })
    }

    /// A list of integers: an input, or an attribute in older files.
    fn integers(&self, node: &NodeMessage, index: usize, attribute: &str) -> Option<Vec<i64>> {
        let known = self.known(node, index).and_then(|known| known.ints.clone());
        known.or_else(|| Attributes(node).ints(attribute).map(<[i64]>::to_vec))
    }

    fn value(&self, node: &NodeMessage, index: usize) -> Option<&Value> {
        node.inputs.get(index).filter(|name| !name.is_empty()).and_then(|name| self.values.get(name))
    }

    fn known(&self, node: &NodeMessage, index: usize) -> Option<&Known> {
        match self.value(node, index) {
            Some(Value::Known(known)) => Some(known),
            _ => None,
        }
    }

    fn operand(&self, node: &NodeMessage, index: usize) -> Option<(NodeId, Vec<usize>)> {
        match self.value(node, index) {
            Some(Value::Node { id, dims }) => Some((*id, dims.clone())),
            _ => None,
        }
    }

    fn keep(&mut self, name: String, dims: Vec<usize>, values: Option<Vec<f32>>) {
        match values {
            Some(values) => drop(self.weights.insert(name, Tensor { dims, values })),
            None => self.whole = false,
        }
    }

    /// A tensor of zeros as an operand: some node of the same batch and channels, subsampled.
    fn zeros(&mut self, name: &str, known: &Known) -> Option<NodeId> {
        let zero = known.floats.as_ref()?.iter().all(|&value| value == 0.0);
        let &[n, c, h, w] = known.dims.as_slice() else { return None };
        if !zero {
            return None;
        }
        for source in (0..self.shapes.len()).rev() {
            let shape = self.shapes[source];
            if (shape.n, shape.c) != (n, c) || h == 0 {
                continue;
            }
            let stride = shape.h.div_ceil(h);
            let op = OpSpec::Zero { stride };
            if op.infer(&[shape]) == Ok(Shape::new(n, c, h, w)) {
                return self.add(name, op, &[source]).ok().map(|(id, _)| id);
            }
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
