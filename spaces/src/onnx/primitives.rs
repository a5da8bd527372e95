//! Operators that ONNX says with one or several of its own: norms, attention, and what moves numbers.

use super::{
    build::{float, int, ints, text},
    encode::{OnnxError, Writer},
};
use crate::{BATCH_NORM_EPSILON, Node, OpSpec, Shape};

impl Writer<'_> {
    /// Writes one of the operators that [`Writer`] leaves to this file; others are not written.
    pub(super) fn primitive(&mut self, node: &Node, mut inputs: Vec<String>) -> Result<(), OnnxError> {
        let name = node.name.as_str();
        let shape = self.graph.source_shape(node);
        match node.op {
            OpSpec::Mean => self.message.push(name, "Mean", inputs, name, Vec::new()),
            OpSpec::Prelu => {
                inputs.push(self.parameter(node, "weight", &[shape.c], &[shape.c, 1, 1])?);
                self.message.push(name, "PRelu", inputs, name, Vec::new());
            }
            OpSpec::ScalarAffine => {
                inputs.push(self.parameter(node, "weight", &[1], &[1])?);
                let scaled = self.step(name, "scaled", "Mul", inputs, Vec::new());
                let shift = self.parameter(node, "bias", &[1], &[1])?;
                self.message.push(name, "Add", vec![scaled, shift], name, Vec::new());
            }
            OpSpec::GroupNorm { groups } => self.group_norm(node, groups, inputs)?,
            OpSpec::LayerNorm => {
                // ONNX normalises over the last extents.
                let last = self.step(name, "last", "Transpose", inputs, vec![ints("perm", &[0, 2, 3, 1])]);
                let mut inputs = vec![last];
                self.weights_of(node, &mut inputs)?;
                let attributes = vec![float("epsilon", BATCH_NORM_EPSILON)];
                let normed = self.step(name, "normed", "LayerNormalization", inputs, attributes);
                self.message.push(name, "Transpose", vec![normed], name, vec![ints("perm", &[0, 3, 1, 2])]);
            }
            OpSpec::Slice { start, channels } => {
                self.slice(name, inputs, &[start], &[start + channels], &[1]);
            }
            OpSpec::CropEnd { .. } => {
                self.slice(name, inputs, &[0, 0], &[node.shape.h, node.shape.w], &[2, 3]);
            }
            OpSpec::Pad { top, left, bottom, right } => {
                let pads = [0, 0, top, left, 0, 0, bottom, right];
                inputs.push(self.message.integers(&format!("{name}.pads"), &pads));
                self.message.push(name, "Pad", inputs, name, Vec::new());
            }
            OpSpec::ConvTranspose2d { kernel, stride, padding, groups, .. } => {
                self.weights_of(node, &mut inputs)?;
                let attributes = vec![
                    ints("kernel_shape", &[kernel; 2]),
                    ints("strides", &[stride; 2]),
                    ints("pads", &[padding; 4]),
                    int("group", groups),
                ];
                self.message.push(name, "ConvTranspose", inputs, name, attributes);
            }
            OpSpec::DepthToSpace { block } => {
                let attributes = vec![int("blocksize", block), text("mode", "CRD")];
                self.message.push(name, "DepthToSpace", inputs, name, attributes);
            }
            OpSpec::Attention { .. } => self.attention(node, inputs)?,
            // Written by `Writer::operator`.
            OpSpec::Input
            | OpSpec::Conv2d { .. }
            | OpSpec::BatchNorm { .. }
            | OpSpec::Relu
            | OpSpec::Activation { .. }
            | OpSpec::Mul
            | OpSpec::MaxPool { .. }
            | OpSpec::AvgPool { .. }
            | OpSpec::GlobalAvgPool
            | OpSpec::Linear { .. }
            | OpSpec::Add
            | OpSpec::Concat
            | OpSpec::Crop { .. }
            | OpSpec::ChannelShuffle { .. }
            | OpSpec::Zero { .. } => {}
        }
        Ok(())
    }

    /// One of the standard operators on the way, called `<name>.<step>`.
    fn step(
        &mut self,
        name: &str,
        step: &str,
        kind: &str,
        inputs: Vec<String>,
        attributes: Vec<crate::onnx::message::Attribute>,
    ) -> String {
        let output = format!("{name}.{step}");
        self.message.push(&output, kind, inputs, &output, attributes);
        output
    }

    fn reshape(&mut self, name: &str, step: &str, input: String, dims: &[usize]) -> String {
        let extents = self.message.integers(&format!("{name}.{step}.extents"), dims);
        self.step(name, step, "Reshape", vec![input, extents], Vec::new())
    }

    /// A tensor of the node, written with other extents than it has, so that it is broadcast.
    fn parameter(
        &mut self,
        node: &Node,
        suffix: &str,
        dims: &[usize],
        written: &[usize],
    ) -> Result<String, OnnxError> {
        let name = format!("{}.{suffix}", node.name);
        let values = self.weights.get(&name, dims)?;
        Ok(self.message.floats(&name, written, values))
    }

    fn slice(
        &mut self,
        name: &str,
        mut inputs: Vec<String>,
        starts: &[usize],
        ends: &[usize],
        axes: &[usize],
    ) {
        for (what, values) in [("starts", starts), ("ends", ends), ("axes", axes)] {
            inputs.push(self.message.integers(&format!("{name}.{what}"), values));
        }
        self.message.push(name, "Slice", inputs, name, Vec::new());
    }

    /// Instance norm over one long row per group, then scale and shift: engines know it longer than
    /// ONNX' own group norm.
    fn group_norm(&mut self, node: &Node, groups: usize, inputs: Vec<String>) -> Result<(), OnnxError> {
        let name = node.name.as_str();
        let Shape { n, c, h, w } = node.shape;
        let mut rows = inputs;
        rows.push(self.message.integers(&format!("{name}.rows.extents"), &[n, groups, c / groups * h * w]));
        let rows = self.step(name, "rows", "Reshape", rows, Vec::new());
        let ones = self.message.floats(&format!("{name}.ones"), &[groups], &vec![1.0; groups]);
        let zeros = self.message.floats(&format!("{name}.zeros"), &[groups], &vec![0.0; groups]);
        let attributes = vec![float("epsilon", BATCH_NORM_EPSILON)];
        let normed = self.step(name, "normed", "InstanceNormalization", vec![rows, ones, zeros], attributes);
        let map = self.reshape(name, "map", normed, &node.shape.dims());
        let weight = self.parameter(node, "weight", &[c], &[c, 1, 1])?;
        let scaled = self.step(name, "scaled", "Mul", vec![map, weight], Vec::new());
        let bias = self.parameter(node, "bias", &[c], &[c, 1, 1])?;
        self.message.push(name, "Add", vec![scaled, bias], name, Vec::new());
        Ok(())
    }

    /// Products of matrices around a softmax, as frameworks write it out.
    fn attention(&mut self, node: &Node, inputs: Vec<String>) -> Result<(), OnnxError> {
        let OpSpec::Attention { heads, key_dim, value_dim, window, relative_bias } = node.op else {
            return Ok(());
        };
        let name = node.name.as_str();
        let Shape { n, c, h, w } = self.graph.source_shape(node);
        let (rows, columns) = window.map_or((h, w), |window| (window, window));
        let tokens = rows * columns;
        let windows = (h / rows, w / columns);
        let mut x = inputs.into_iter().next().unwrap_or_default();
        if window.is_some() {
            x = self.reshape(name, "cut", x, &[n, c, windows.0, rows, windows.1, columns]);
            x = self.step(name, "windows", "Transpose", vec![x], vec![ints("perm", &[0, 2, 4, 1, 3, 5])]);
        }
        let images = n * windows.0 * windows.1;
        x = self.reshape(name, "heads", x, &[images, heads, 2 * key_dim + value_dim, tokens]);
        let sizes = self.message.integers(&format!("{name}.sizes"), &[key_dim, key_dim, value_dim]);
        let parts = ["queries", "keys", "values"].map(|part| format!("{name}.{part}"));
        self.message.push(&format!("{name}.parts"), "Split", vec![x, sizes], &parts[0], vec![int("axis", 2)]);
        if let Some(split) = self.message.nodes.last_mut() {
            split.outputs.extend_from_slice(&parts[1..]);
        }
        let [queries, keys, values] = parts;
        let swap = || vec![ints("perm", &[0, 1, 3, 2])];
        let turned = self.step(name, "queries.turned", "Transpose", vec![queries], swap());
        let product = self.step(name, "product", "MatMul", vec![turned, keys], Vec::new());
        let scale = (1.0 / (key_dim as f64).sqrt()) as f32;
        let scale = self.message.floats(&format!("{name}.scale"), &[], &[scale]);
        let mut scores = self.step(name, "scores", "Mul", vec![product, scale], Vec::new());
        if relative_bias {
            let biases = self.weights.get(&format!("{name}.bias"), &[heads, tokens])?;
            let pair = |at: usize| {
                let (head, query, key) = (at / (tokens * tokens), at / tokens % tokens, at % tokens);
                let distance = (query / columns).abs_diff(key / columns) * columns
                    + (query % columns).abs_diff(key % columns);
                biases[head * tokens + distance]
            };
            let all: Vec<f32> = (0..heads * tokens * tokens).map(pair).collect();
            let bias = self.message.floats(&format!("{name}.bias"), &[heads, tokens, tokens], &all);
            scores = self.step(name, "biased", "Add", vec![scores, bias], Vec::new());
        }
        let weights = self.step(name, "weights", "Softmax", vec![scores], Vec::new());
        let turned = self.step(name, "weights.turned", "Transpose", vec![weights], swap());
        let mut y = self.step(name, "mixed", "MatMul", vec![values, turned], Vec::new());
        if window.is_some() {
            let extents = [n, windows.0, windows.1, heads * value_dim, rows, columns];
            y = self.reshape(name, "mixed.cut", y, &extents);
            y = self.step(name, "joined", "Transpose", vec![y], vec![ints("perm", &[0, 3, 1, 4, 2, 5])]);
        }
        let extents = self.message.integers(&format!("{name}.extents"), &node.shape.dims());
        self.message.push(name, "Reshape", vec![y, extents], name, Vec::new());
        Ok(())
    }
}
