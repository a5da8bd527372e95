//! Parts of ONNX files that are written.

use std::collections::BTreeSet;

use super::message::{
    ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS, ATTRIBUTE_TEXT, Attribute, Dimension, FLOAT,
    GraphMessage, INT64, NodeMessage, ShapeMessage, TensorMessage, TensorType, Type, ValueInfo,
};

impl GraphMessage {
    pub(super) fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        self.constant(name, dims, FLOAT, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    pub(super) fn integers(&mut self, name: &str, values: &[usize]) -> String {
        let raw = values.iter().flat_map(|&value| (value as i64).to_le_bytes()).collect();
        self.constant(name, &[values.len()], INT64, raw)
    }

    pub(super) fn constant(&mut self, name: &str, dims: &[usize], data_type: i32, raw: Vec<u8>) -> String {
        let dims = dims.iter().map(|&extent| extent as i64).collect();
        let tensor =
            TensorMessage { dims, data_type: Some(data_type), name: name.into(), raw, ..Default::default() };
        self.initializers.push(tensor);
        name.into()
    }

    pub(super) fn push(
        &mut self,
        name: &str,
        kind: &str,
        inputs: Vec<String>,
        output: &str,
        attributes: Vec<Attribute>,
    ) {
        self.nodes.push(NodeMessage {
            inputs,
            outputs: vec![output.into()],
            name: name.into(),
            kind: kind.into(),
            attributes,
            domain: String::new(),
        });
    }

    /// Every value of the file is written once.
    pub(super) fn check_names(&self) -> Result<(), String> {
        let inputs = self.inputs.iter().map(|value| &value.name);
        let constants = self.initializers.iter().map(|tensor| &tensor.name);
        let computed = self.nodes.iter().flat_map(|node| &node.outputs);
        let mut seen = BTreeSet::new();
        match inputs.chain(constants).chain(computed).find(|name| !seen.insert(name.as_str())) {
            Some(name) => Err(name.clone()),
            None => Ok(()),
        }
    }
}

pub(super) fn window(kernel: usize, stride: usize, padding: usize) -> Vec<Attribute> {
    vec![ints("kernel_shape", &[kernel; 2]), ints("strides", &[stride; 2]), ints("pads", &[padding; 4])]
}

pub(super) fn float(name: &str, value: f64) -> Attribute {
    Attribute {
        name: name.into(),
        float: Some(value as f32),
        kind: Some(ATTRIBUTE_FLOAT),
        ..Attribute::default()
    }
}

pub(super) fn int(name: &str, value: usize) -> Attribute {
    Attribute {
        name: name.into(),
        int: Some(value as i64),
        kind: Some(ATTRIBUTE_INT),
        ..Attribute::default()
    }
}

pub(super) fn ints(name: &str, values: &[usize]) -> Attribute {
    Attribute {
        name: name.into(),
        ints: values.iter().map(|&value| value as i64).collect(),
        kind: Some(ATTRIBUTE_INTS),
        ..Attribute::default()
    }
}

pub(super) fn text(name: &str, value: &str) -> Attribute {
    Attribute {
        name: name.into(),
        text: Some(value.as_bytes().to_vec()),
        kind: Some(ATTRIBUTE_TEXT),
        ..Attribute::default()
    }
}

pub(super) fn value_info(name: &str, dims: &[usize]) -> ValueInfo {
    let dims = dims.iter().map(|&extent| Dimension { value: Some(extent as i64), parameter: None }).collect();
    let tensor = TensorType { element: Some(FLOAT), shape: Some(ShapeMessage { dims }) };
    ValueInfo { name: name.into(), kind: Some(Type { tensor: Some(tensor) }) }
}
