//! What an ONNX file computes before its network runs: constants and arithmetic of shapes.

use super::{
    Reader,
    values::{Attributes, Known},
};
use crate::onnx::message::NodeMessage;

impl Reader {
    /// The value of a node that depends on nothing that is read at run time; `None` for others.
    pub(super) fn fold(&self, node: &NodeMessage) -> Result<Option<Known>, String> {
        let attributes = Attributes(node);
        let kind = node.kind.as_str();
        if kind == "Constant" {
            if let Some(tensor) = attributes.get("value").and_then(|found| found.tensor.as_ref()) {
                return Known::read(tensor).map(Some);
            }
            if let Some(value) = attributes.get("value_int").and_then(|found| found.int) {
                return Ok(Some(Known { dims: Vec::new(), floats: None, ints: Some(vec![value]) }));
            }
            if let Some(values) = attributes.ints("value_ints") {
                return Ok(Some(Known::ints(values.to_vec())));
            }
            if let Some(value) = attributes.get("value_float").and_then(|found| found.float) {
                return Ok(Some(Known { dims: Vec::new(), floats: Some(vec![value]), ints: None }));
            }
            return Ok(None);
        }
        if kind == "Shape" {
            let dims = self
                .operand(node, 0)
                .map(|(_, dims)| dims)
                .or_else(|| Some(self.known(node, 0)?.dims.clone()));
            return Ok(dims.map(|dims| Known::ints(dims.into_iter().map(|dim| dim as i64).collect())));
        }
        let ints = |index| self.known(node, index).and_then(|known| known.ints.clone());
        let Some(first) = ints(0) else {
            let same = matches!(kind, "Identity" | "Cast");
            return Ok(if same { self.known(node, 0).cloned() } else { None });
        };
        Ok(match kind {
            "Identity" | "Cast" => self.known(node, 0).cloned(),
            "Unsqueeze" => Some(Known::ints(first)),
            "Squeeze" => self.known(node, 0).map(|known| Known { dims: Vec::new(), ..known.clone() }),
            "Gather" => ints(1).and_then(|indices| {
                let at = |&index: &i64| {
                    let index = if index < 0 { index + first.len() as i64 } else { index };
                    first.get(usize::try_from(index).ok()?).copied()
                };
                let picked = indices.iter().map(at).collect::<Option<Vec<i64>>>()?;
                let dims = self.known(node, 1)?.dims.clone();
                Some(Known { dims, floats: None, ints: Some(picked) })
            }),
            "Concat" => {
                let parts: Option<Vec<Vec<i64>>> = (0..node.inputs.len()).map(ints).collect();
                parts.map(|parts| Known::ints(parts.concat()))
            }
            "Slice" => ints(1).zip(ints(2)).and_then(|(start, end)| {
                let len = first.len() as i64;
                let at = |value: i64| (if value < 0 { value + len } else { value }).clamp(0, len) as usize;
                Some(Known::ints(first.get(at(*start.first()?)..at(*end.first()?))?.to_vec()))
            }),
            "Mul" | "Add" | "Sub" | "Div" => ints(1).and_then(|second| {
                let apply = |a: i64, b: i64| match kind {
                    "Mul" => a.checked_mul(b),
                    "Add" => a.checked_add(b),
                    "Sub" => a.checked_sub(b),
                    _ => a.checked_div(b),
                };
                if first.len() != second.len() {
                    return None;
                }
                let values =
                    first.iter().zip(&second).map(|(&a, &b)| apply(a, b)).collect::<Option<Vec<_>>>()?;
                let dims = self.known(node, 0)?.dims.clone();
                Some(Known { dims, floats: None, ints: Some(values) })
            }),
            _ => None,
        })
    }
}

/// The extents that a `Reshape` asks for: 0 keeps one, -1 is what is left.
pub(super) fn resolve(wanted: &[i64], dims: &[usize]) -> Option<Vec<usize>> {
    let total: usize = dims.iter().product();
    let mut resolved = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (index, &extent) in wanted.iter().enumerate() {
        resolved.push(match extent {
            0 => *dims.get(index)?,
            -1 if open.is_none() => {
                open = Some(index);
                1
            }
            extent => usize::try_from(extent).ok()?,
        });
    }
    let product = resolved.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent))?;
    if let Some(open) = open {
        if product == 0 || !total.is_multiple_of(product) {
            return None;
        }
        resolved[open] = total / product;
        return Some(resolved);
    }
    (product == total).then_some(resolved)
}
