//! Attention, as frameworks and Lathe itself write it: two products of matrices around a softmax.
//!
//! ```text
//! [reshape, transpose: windows] → reshape: heads → split: queries, keys, values
//!   → queriesᵀ · keys → · 1/√d → [+ biases] → softmax → values · weightsᵀ → [reshape, transpose] → reshape
//! ```

use super::{
    Reader, Step,
    partial::{Partial, wanted},
    values::{Attributes, Known, Value},
};
use crate::{NodeId, OpSpec, onnx::message::NodeMessage};

/// An attention that is being read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attending {
    /// What attends.
    id: NodeId,
    /// Rows and columns of a window; those of the map where there are none.
    window: [usize; 2],
    heads: usize,
    key_dim: usize,
    value_dim: usize,
    /// What is added to the scores.
    bias: Option<Known>,
    at: At,
}

/// Which of its values it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Rows and columns cut, and these brought together.
    Cut,
    Windows,
    Heads,
    Queries,
    Keys,
    Values,
    QueriesTurned,
    /// Queries times keys, then scaled, then shares.
    Product,
    Scores,
    Shares,
    SharesTurned,
    /// Values times shares; its windows apart, and joined.
    Mixed,
    MixedCut,
    Joined,
}

impl Attending {
    fn at(&self, at: At) -> Step {
        Step::Value(Value::Partial(Partial::Attention(Self { at, ..self.clone() })))
    }

    fn tokens(&self) -> usize {
        self.window[0] * self.window[1]
    }
}

impl Reader {
    /// A step of an attention; `None` if the node is none.
    pub(super) fn attention(&mut self, node: &NodeMessage, name: &str) -> Option<Result<Step, String>> {
        let attending = |index| match self.value(node, index) {
            Some(Value::Partial(Partial::Attention(attending))) => Some(attending.clone()),
            _ => None,
        };
        let kind = node.kind.as_str();
        let attributes = Attributes(node);
        let perm = attributes.ints("perm").unwrap_or_default();
        let (first, second) = (attending(0), attending(1));
        let Some(found) = first.as_ref().or(second.as_ref()) else {
            return (kind == "Reshape").then(|| self.attention_begins(node)).flatten().map(Ok);
        };
        let step = match (kind, found.at) {
            ("Transpose", At::Cut) if perm == [0, 2, 4, 1, 3, 5] => found.at(At::Windows),
            ("Reshape", At::Windows) => self.heads(node, found)?,
            ("Split", At::Heads) => self.parts(node, found)?,
            ("Transpose", At::Queries) if perm == [0, 1, 3, 2] => found.at(At::QueriesTurned),
            ("MatMul", At::QueriesTurned)
                if second.as_ref()?.at == At::Keys && same(first.as_ref(), second.as_ref()) =>
            {
                found.at(At::Product)
            }
            ("Mul", At::Product) => {
                let known = self.known(node, 1).or_else(|| self.known(node, 0))?;
                let scale = 1.0 / (found.key_dim as f32).sqrt();
                let fits = |list: &Vec<f32>| list.iter().all(|each| (each / scale - 1.0).abs() < 1e-4);
                if known.elements() != 1 || !known.floats.as_ref().is_none_or(fits) {
                    return Some(Ok(Step::Unknown(
                        "of scores by another number than 1/√(channels of a key)".into(),
                    )));
                }
                found.at(At::Scores)
            }
            ("Add", At::Scores) if found.bias.is_none() => {
                let known = self.known(node, 1).or_else(|| self.known(node, 0))?.clone();
                Attending { bias: Some(known), ..found.clone() }.at(At::Scores)
            }
            ("Softmax", At::Scores) if matches!(attributes.int("axis", -1), -1 | 3) => found.at(At::Shares),
            ("Transpose", At::Shares) if perm == [0, 1, 3, 2] => found.at(At::SharesTurned),
            ("MatMul", At::Values) => {
                // The shares know of the biases.
                let shares = second.as_ref().filter(|shares| shares.at == At::SharesTurned)?;
                let one = (shares.id, shares.window, shares.heads) == (found.id, found.window, found.heads);
                one.then(|| shares.at(At::Mixed))?
            }
            ("Reshape", At::Mixed | At::Joined) => return self.attention_ends(node, name, found),
            ("Transpose", At::MixedCut) if perm == [0, 3, 1, 4, 2, 5] => found.at(At::Joined),
            _ => return None,
        };
        Some(Ok(step))
    }

    /// A map cut into windows, or its channels into heads.
    fn attention_begins(&self, node: &NodeMessage) -> Option<Step> {
        let (id, dims) = self.operand(node, 0)?;
        let shape = self.shapes[id];
        if dims != shape.dims() {
            return None;
        }
        let fresh = |window, at| Attending { id, window, heads: 0, key_dim: 0, value_dim: 0, bias: None, at };
        let wanted = wanted(self.known(node, 1), &dims)?;
        match wanted[..] {
            [n, c, down, rows, across, columns]
                if (n, c, down * rows, across * columns) == (shape.n, shape.c, shape.h, shape.w) =>
            {
                Some(fresh([rows, columns], At::Cut).at(At::Cut))
            }
            [_, _, _, _] if wanted != shape.dims() => self.heads(node, &fresh([shape.h, shape.w], At::Heads)),
            _ => None,
        }
    }

    /// Images or windows × heads × channels of a head × tokens.
    fn heads(&self, node: &NodeMessage, found: &Attending) -> Option<Step> {
        let shape = self.shapes[found.id];
        let images = shape.elements() / shape.c / found.tokens();
        let listed = self.known(node, 1)?.ints.clone()?;
        let wanted = super::constants::resolve(&listed, &[images, shape.c, found.tokens()])?;
        match wanted[..] {
            [first, heads, _, tokens] if (first, tokens) == (images, found.tokens()) && heads > 0 => {
                Some(Attending { heads, ..found.clone() }.at(At::Heads))
            }
            _ => None,
        }
    }

    /// Queries, keys and values of every head.
    fn parts(&self, node: &NodeMessage, found: &Attending) -> Option<Step> {
        let attributes = Attributes(node);
        let sizes = self.known(node, 1).and_then(|known| known.ints.clone());
        let sizes = sizes.or_else(|| attributes.ints("split").map(<[i64]>::to_vec))?;
        let &[queries, keys, values] = sizes.as_slice() else { return None };
        let whole = (queries + keys + values) * found.heads as i64 == self.shapes[found.id].c as i64;
        let right =
            matches!(attributes.int("axis", 0), 2 | -2) && queries == keys && queries > 0 && values > 0;
        if !whole || !right {
            return None;
        }
        let cut = Attending { key_dim: queries as usize, value_dim: values as usize, ..found.clone() };
        let value = |at| Value::Partial(Partial::Attention(Attending { at, ..cut.clone() }));
        Some(Step::Values([At::Queries, At::Keys, At::Values].map(value).to_vec()))
    }

    /// The result as a map again.
    fn attention_ends(
        &mut self,
        node: &NodeMessage,
        name: &str,
        found: &Attending,
    ) -> Option<Result<Step, String>> {
        let shape = self.shapes[found.id];
        let [rows, columns] = found.window;
        let channels = found.heads * found.value_dim;
        let (down, across) = (shape.h / rows, shape.w / columns);
        let whole = (down, across) == (1, 1);
        let listed = self.known(node, 1)?.ints.clone()?;
        let wanted = super::constants::resolve(&listed, &[shape.n, channels, shape.h, shape.w])?;
        if wanted == [shape.n, down, across, channels, rows, columns] && found.at == At::Mixed {
            return Some(Ok(found.at(At::MixedCut)));
        }
        if wanted != [shape.n, channels, shape.h, shape.w] || found.at == At::Mixed && !whole {
            return None;
        }
        let mut op = OpSpec::Attention {
            heads: found.heads,
            key_dim: found.key_dim,
            value_dim: found.value_dim,
            window: None,
            relative_bias: found.bias.is_some(),
        };
        if let (OpSpec::Attention { window, .. }, At::Joined) = (&mut op, found.at) {
            if rows != columns {
                return Some(Ok(Step::Unknown(format!("to windows of {rows}x{columns}"))));
            }
            *window = Some(rows);
        }
        let bias = match found.bias.as_ref().map(|bias| distances(bias, found)) {
            Some(Err(reason)) => return Some(Ok(Step::Unknown(reason))),
            Some(Ok(table)) => Some(table),
            None => None,
        };
        let (id, unique) = match self.add(name, op, &[found.id]) {
            Ok(added) => added,
            Err(reason) => return Some(Err(reason)),
        };
        if let Some(table) = bias {
            self.keep(format!("{unique}.bias"), vec![found.heads, found.tokens()], table);
        }
        Some(Ok(Step::Value(Value::Node { id, dims: self.shapes[id].dims().to_vec() })))
    }
}

/// Whether two values belong to one attention.
fn same(first: Option<&Attending>, second: Option<&Attending>) -> bool {
    let strip = |found: Option<&Attending>| found.map(|found| Attending { at: At::Heads, ..found.clone() });
    strip(first) == strip(second)
}

/// A number for each head and distance of the numbers for each head, query and key; `None` where they are not in the
/// file.
fn distances(bias: &Known, found: &Attending) -> Result<Option<Vec<f32>>, String> {
    let tokens = found.tokens();
    let other = || "of numbers to scores that are not one for each head and distance".to_owned();
    let dims = bias.dims.strip_prefix(&[1]).filter(|rest| rest.len() == 3).unwrap_or(&bias.dims);
    if dims != [found.heads, tokens, tokens] {
        return Err(other());
    }
    let Some(all) = &bias.floats else { return Ok(None) };
    let columns = found.window[1];
    let table: Vec<f32> =
        (0..found.heads).flat_map(|head| &all[head * tokens * tokens..][..tokens]).copied().collect();
    let fits = all.iter().enumerate().all(|(at, value)| {
        let (head, query, key) = (at / (tokens * tokens), at / tokens % tokens, at % tokens);
        let distance =
            (query / columns).abs_diff(key / columns) * columns + (query % columns).abs_diff(key % columns);
        table[head * tokens + distance].to_bits() == value.to_bits()
    });
    if fits { Ok(Some(table)) } else { Err(other()) }
}
