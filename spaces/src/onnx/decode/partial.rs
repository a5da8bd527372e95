//! Operators that ONNX says with several of its own: what stands between the first and the last of them.

use super::{
    Reader, Step,
    attention::Attending,
    constants::resolve,
    values::{Attributes, Known, Value},
};
use crate::{BATCH_NORM_EPSILON, NodeId, OpSpec, Shape, onnx::message::NodeMessage};

/// What a name stands for in the midst of one of these operators.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Partial {
    /// Channels split into groups, the first step of a channel shuffle.
    Split { id: NodeId, groups: usize },
    /// Groups and channels swapped, the second step.
    Swapped { id: NodeId, groups: usize },
    /// A node's output with its channels as the last extent, as ONNX' layer norm wants them.
    Last { id: NodeId },
    /// One long row per group of channels.
    Rows { id: NodeId, groups: usize },
    /// These rows normalised.
    NormedRows { id: NodeId, groups: usize },
    /// The same as a map.
    Normed { id: NodeId, groups: usize },
    /// The same times a number per channel.
    NormedScaled { id: NodeId, weight: Known, groups: usize },
    /// A node's output times one number.
    Scaled { id: NodeId, dims: Vec<usize>, weight: Known },
    /// Inside of an attention.
    Attention(Attending),
}

impl Partial {
    /// What it is, for those who can't go on from it.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Split { .. } | Self::Swapped { .. } => "of channels in groups",
            Self::Last { .. } => "of maps with channels as the last extent",
            Self::Rows { .. } | Self::NormedRows { .. } => "of one row for each group of channels",
            Self::Normed { .. } | Self::NormedScaled { .. } => "of a norm without scales and shifts",
            Self::Scaled { .. } => "of a product with one number",
            Self::Attention(_) => "inside of an attention, or of heads that are none",
        }
    }
}

impl Reader {
    /// A step of an operator of several; `None` if the node is none.
    pub(super) fn partial(&mut self, node: &NodeMessage, name: &str) -> Option<Result<Step, String>> {
        if let Some(step) = self.attention(node, name) {
            return Some(step);
        }
        let attributes = Attributes(node);
        let perm = attributes.ints("perm").unwrap_or_default();
        // A sum or a product may name its constant first.
        let (first, second) = match (self.value(node, 0), self.value(node, 1)) {
            (Some(Value::Known(_)), Some(second)) if matches!(node.kind.as_str(), "Add" | "Mul") => {
                (second.clone(), self.known(node, 0).cloned())
            }
            (Some(first), _) => (first.clone(), self.known(node, 1).cloned()),
            (None, _) => return None,
        };
        let pending = |partial| Some(Ok(Step::Value(Value::Partial(partial))));
        match (node.kind.as_str(), first) {
            ("Transpose", Value::Node { id, dims }) if dims.len() == 4 && perm == [0, 2, 3, 1] => {
                pending(Partial::Last { id })
            }
            ("Mul", Value::Node { id, dims }) => {
                let weight = second.filter(|weight| weight.elements() == 1)?;
                pending(Partial::Scaled { id, dims, weight })
            }
            ("Reshape", Value::Node { id, dims }) => {
                let wanted = resolve(second?.ints.as_deref()?, &dims)?;
                let shape = self.shapes[id];
                match wanted[..] {
                    [n, groups, _, h, w] if (n, h, w) == (shape.n, shape.h, shape.w) => {
                        pending(Partial::Split { id, groups })
                    }
                    [n, groups, _] if n == shape.n && shape.c.is_multiple_of(groups.max(1)) => {
                        pending(Partial::Rows { id, groups })
                    }
                    _ => None,
                }
            }
            (_, Value::Partial(partial)) => self.goes_on(node, name, partial, second.as_ref()),
            _ => None,
        }
    }

    /// The step behind one that was a part of an operator.
    fn goes_on(
        &mut self,
        node: &NodeMessage,
        name: &str,
        partial: Partial,
        second: Option<&Known>,
    ) -> Option<Result<Step, String>> {
        let attributes = Attributes(node);
        let perm = attributes.ints("perm").unwrap_or_default();
        let pending = |partial| Some(Ok(Step::Value(Value::Partial(partial))));
        match (node.kind.as_str(), partial) {
            ("Transpose", Partial::Split { id, groups }) => Some(Ok(if perm == [0, 2, 1, 3, 4] {
                Step::Value(Value::Partial(Partial::Swapped { id, groups }))
            } else {
                Step::Unknown("of 5 extents".into())
            })),
            ("Reshape", Partial::Swapped { id, groups }) => {
                let shape = self.shapes[id];
                let swapped = [shape.n, shape.c / groups.max(1), groups, shape.h, shape.w];
                Some(if wanted(second, &swapped).as_deref() == Some(&shape.dims()[..]) {
                    self.place(name, OpSpec::ChannelShuffle { groups }, &[id])
                } else {
                    Ok(Step::Unknown("after a transposition".into()))
                })
            }
            ("LayerNormalization", Partial::Last { id }) => Some(self.layer_norm(node, name, id)),
            ("Transpose", Partial::Last { id }) if perm == [0, 3, 1, 2] => {
                Some(Ok(Step::Value(Value::Node { id, dims: self.shapes[id].dims().to_vec() })))
            }
            ("InstanceNormalization", Partial::Rows { id, groups }) => Some(Ok({
                let all = |index, value: f32| {
                    let known = self.known(node, index);
                    known.is_some_and(|known| {
                        known
                            .floats
                            .as_ref()
                            .is_none_or(|list| list.iter().all(|each| each.to_bits() == value.to_bits()))
                    })
                };
                if let Err(reason) = epsilon(&attributes) {
                    Step::Unknown(reason)
                } else if all(1, 1.0) && all(2, 0.0) {
                    Step::Value(Value::Partial(Partial::NormedRows { id, groups }))
                } else {
                    Step::Unknown("of groups, with scales or shifts".into())
                }
            })),
            ("Reshape", Partial::NormedRows { id, groups }) => {
                let dims = self.shapes[id].dims();
                let rows = [dims[0], groups, dims[1..].iter().product::<usize>() / groups.max(1)];
                (wanted(second, &rows).as_deref() == Some(&dims[..]))
                    .then_some(Ok(Step::Value(Value::Partial(Partial::Normed { id, groups }))))
            }
            ("Mul", Partial::Normed { id, groups }) => {
                let weight = second.filter(|weight| per_channel(weight, self.shapes[id]))?.clone();
                pending(Partial::NormedScaled { id, groups, weight })
            }
            ("Add", Partial::NormedScaled { id, groups, weight }) => {
                let bias = second.filter(|bias| per_channel(bias, self.shapes[id]))?.clone();
                Some(self.with_vectors(name, OpSpec::GroupNorm { groups }, id, weight, bias))
            }
            ("Add", Partial::Scaled { id, dims, weight }) => {
                let bias = second.filter(|bias| bias.elements() == 1)?.clone();
                let placed = self.with_vectors(name, OpSpec::ScalarAffine, id, weight, bias);
                Some(placed.map(|step| match step {
                    Step::Value(Value::Node { id, .. }) => Step::Value(Value::Node { id, dims }),
                    other => other,
                }))
            }
            _ => None,
        }
    }

    fn layer_norm(&mut self, node: &NodeMessage, name: &str, x: NodeId) -> Result<Step, String> {
        let attributes = Attributes(node);
        let axis = attributes.int("axis", -1);
        if !matches!(axis, -1 | 3) {
            return Ok(Step::Unknown(format!("from axis {axis} on")));
        }
        if let Err(reason) = epsilon(&attributes) {
            return Ok(Step::Unknown(reason));
        }
        let channels = self.shapes[x].c;
        let Some(weight) = self.known(node, 1).cloned() else {
            return Ok(Step::Unknown("with computed scales".into()));
        };
        let zeros = || Known { dims: vec![channels], floats: Some(vec![0.0; channels]), ints: None };
        let bias = self.known(node, 2).cloned().unwrap_or_else(zeros);
        for known in [&weight, &bias] {
            if known.elements() != channels {
                return Err(format!("{:?} values for {channels} channels", known.dims));
            }
        }
        Ok(match self.with_vectors(name, OpSpec::LayerNorm, x, weight, bias)? {
            Step::Value(Value::Node { id, .. }) => Step::Value(Value::Partial(Partial::Last { id })),
            other => other,
        })
    }

    /// Adds a node with a scale and a shift.
    fn with_vectors(
        &mut self,
        name: &str,
        op: OpSpec,
        x: NodeId,
        weight: Known,
        bias: Known,
    ) -> Result<Step, String> {
        let (id, unique) = self.add(name, op, &[x])?;
        for (suffix, known) in [("weight", weight), ("bias", bias)] {
            self.keep(format!("{unique}.{suffix}"), vec![known.elements()], known.floats);
        }
        Ok(Step::Value(Value::Node { id, dims: self.shapes[id].dims().to_vec() }))
    }
}

/// The extents that a reshape asks for.
pub(super) fn wanted(known: Option<&Known>, dims: &[usize]) -> Option<Vec<usize>> {
    resolve(known?.ints.as_deref()?, dims)
}

/// Norms of a graph have one epsilon.
fn epsilon(attributes: &Attributes<'_>) -> Result<(), String> {
    let epsilon = f64::from(attributes.float("epsilon", BATCH_NORM_EPSILON as f32));
    let same = (epsilon - BATCH_NORM_EPSILON).abs() < 1e-3 * BATCH_NORM_EPSILON;
    if same { Ok(()) } else { Err(format!("epsilon {epsilon:e}")) }
}

/// Whether a constant is broadcast as one number for each channel.
pub(super) fn per_channel(known: &Known, shape: Shape) -> bool {
    matches!(known.dims[..], [c, 1, 1] | [1, c, 1, 1] if c == shape.c)
}
