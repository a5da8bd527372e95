//! What the tensors of a file mean while it is read.

use super::partial::Partial;
use crate::NodeId;
use crate::onnx::message::{Attribute, FLOAT, INT64, NodeMessage, TensorMessage, ValueInfo};

/// Value of [`TensorMessage::data_type`] for 32-bit integers.
const INT32: i32 = 6;
/// Value of [`TensorMessage::data_type`] for 64-bit floats.
const DOUBLE: i32 = 11;
/// Value of [`TensorMessage::location`] for values in another file.
const EXTERNAL: i32 = 1;

/// A tensor that is known before the network runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) dims: Vec<usize>,
    /// Values, if they are floating-point numbers that are in the file.
    pub(super) floats: Option<Vec<f32>>,
    /// Values, if they are integers.
    pub(super) ints: Option<Vec<i64>>,
}

impl Known {
    pub(super) fn ints(values: Vec<i64>) -> Self {
        Self { dims: vec![values.len()], floats: None, ints: Some(values) }
    }

    pub(super) fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Reads a tensor; the error says what is wrong with it.
    pub(super) fn read(tensor: &TensorMessage) -> Result<Self, String> {
        let mut dims = Vec::with_capacity(tensor.dims.len());
        for &extent in &tensor.dims {
            dims.push(usize::try_from(extent).map_err(|_| format!("it has an extent of {extent}"))?);
        }
        let count = dims.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent));
        let count = count.ok_or("its extents overflow")?;
        let mut known = Self { dims, floats: None, ints: None };
        if tensor.location == Some(EXTERNAL) {
            return Ok(known);
        }
        let raw = &tensor.raw;
        match tensor.data_type.unwrap_or_default() {
            FLOAT => {
                let listed = raw.is_empty().then(|| tensor.floats.clone());
                known.floats = Some(listed.unwrap_or_else(|| words(raw, f32::from_le_bytes)));
            }
            DOUBLE => {
                let listed = raw.is_empty().then(|| tensor.doubles.clone());
                let values = listed.unwrap_or_else(|| words(raw, f64::from_le_bytes));
                known.floats = Some(values.into_iter().map(|value| value as f32).collect());
            }
            INT64 => {
                let listed = raw.is_empty().then(|| tensor.longs.clone());
                known.ints = Some(listed.unwrap_or_else(|| words(raw, i64::from_le_bytes)));
            }
            INT32 => {
                let listed = raw.is_empty().then(|| tensor.ints.clone());
                let values = listed.unwrap_or_else(|| words(raw, i32::from_le_bytes));
                known.ints = Some(values.into_iter().map(i64::from).collect());
            }
            // Half precision and quantised weights: the extents are enough for a latency.
            _ => return Ok(known),
        }
        let got = known.floats.as_ref().map_or(0, Vec::len) + known.ints.as_ref().map_or(0, Vec::len);
        if got == count { Ok(known) } else { Err(format!("its extents need {count} values, it has {got}")) }
    }
}

fn words<const WIDTH: usize, T>(raw: &[u8], read: fn([u8; WIDTH]) -> T) -> Vec<T> {
    // A rest shows as a wrong number of values.
    let (whole, rest) = raw.as_chunks::<WIDTH>();
    if rest.is_empty() { whole.iter().map(|&word| read(word)).collect() } else { Vec::new() }
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// The output of a node, with the extents that the file gives it.
    Node {
        id: NodeId,
        dims: Vec<usize>,
    },
    Known(Known),
    /// In the midst of an operator that the file says with several.
    Partial(Partial),
    /// Behind an unknown operator, of unknown extents.
    Lost,
}

/// The attributes of one node.
pub(super) struct Attributes<'a>(pub(super) &'a NodeMessage);

impl Attributes<'_> {
    pub(super) fn get(&self, name: &str) -> Option<&Attribute> {
        self.0.attributes.iter().find(|attribute| attribute.name == name)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.get(name).and_then(|attribute| attribute.int).unwrap_or(default)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.get(name).and_then(|attribute| attribute.float).unwrap_or(default)
    }

    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.get(name).map(|attribute| attribute.ints.as_slice()).filter(|list| !list.is_empty())
    }

    pub(super) fn text(&self, name: &str) -> String {
        let bytes = self.get(name).and_then(|attribute| attribute.text.clone()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Two equal extents, or a reason why a square operator can't stand for them.
    pub(super) fn square(&self, name: &str, default: usize) -> Result<usize, String> {
        match self.ints(name) {
            None => Ok(default),
            Some(&[a, b]) if a == b && a >= 0 => Ok(a as usize),
            Some(other) => Err(format!("{name} {other:?}")),
        }
    }
}

/// Extents of an input or of a value that the file describes: symbolic ones are `None`.
pub(super) fn extents(info: &ValueInfo) -> Option<Vec<Option<usize>>> {
    let shape = info.kind.as_ref()?.tensor.as_ref()?.shape.as_ref()?;
    let extent = |value: Option<i64>| value.filter(|&value| value > 0).map(|value| value as usize);
    Some(shape.dims.iter().map(|dim| extent(dim.value)).collect())
}
