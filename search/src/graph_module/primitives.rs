//! Norms, attention, and what moves numbers, in libtorch.

use lathe_spaces::{BATCH_NORM_EPSILON, Node, OpSpec};
use tch::{Kind, Tensor};

use super::NodeTensors;

/// The operators that [`super::run`] leaves to this file; others pass their input on.
pub(super) fn run(node: &Node, tensors: &NodeTensors, inputs: &[Tensor]) -> Tensor {
    let x = &inputs[0];
    let weight = || tensors.weight.as_ref();
    let bias = || tensors.bias.as_ref();
    match node.op {
        OpSpec::Mean => {
            inputs[1..].iter().fold(x.shallow_clone(), |sum, input| sum + input) / inputs.len() as f64
        }
        OpSpec::Prelu => weight().map_or_else(|| x.shallow_clone(), |weight| x.prelu(weight)),
        OpSpec::GroupNorm { groups } => {
            x.group_norm(groups as i64, weight(), bias(), BATCH_NORM_EPSILON, false)
        }
        // Behind a linear layer there are no positions.
        OpSpec::LayerNorm if x.dim() == 2 => {
            x.layer_norm([node.shape.c as i64].as_slice(), weight(), bias(), BATCH_NORM_EPSILON, false)
        }
        OpSpec::LayerNorm => x
            .permute([0, 2, 3, 1])
            .layer_norm([node.shape.c as i64].as_slice(), weight(), bias(), BATCH_NORM_EPSILON, false)
            .permute([0, 3, 1, 2]),
        OpSpec::ScalarAffine => match (weight(), bias()) {
            (Some(weight), Some(bias)) => x * weight + bias,
            _ => x.shallow_clone(),
        },
        OpSpec::Slice { start, channels } => x.narrow(1, start as i64, channels as i64),
        OpSpec::Pad { top, left, bottom, right } => {
            let sides = [left, right, top, bottom].map(|extent| extent as i64);
            x.constant_pad_nd(sides.as_slice())
        }
        OpSpec::CropEnd { .. } => x.narrow(2, 0, node.shape.h as i64).narrow(3, 0, node.shape.w as i64),
        OpSpec::ConvTranspose2d { stride, padding, groups, .. } => {
            let Some(weight) = weight() else { return x.shallow_clone() };
            let pair = |extent: usize| [extent as i64; 2];
            x.conv_transpose2d(weight, bias(), pair(stride), pair(padding), pair(0), groups as i64, pair(1))
        }
        OpSpec::DepthToSpace { block } => x.pixel_shuffle(block as i64),
        OpSpec::Attention { .. } => attention(node, bias(), x),
        _ => x.shallow_clone(),
    }
}

/// As [`OpSpec::Attention`] defines it; the batch stays open.
fn attention(node: &Node, bias: Option<&Tensor>, x: &Tensor) -> Tensor {
    let OpSpec::Attention { heads, key_dim, value_dim, window, .. } = node.op else {
        return x.shallow_clone();
    };
    let [heads, key, value] = [heads, key_dim, value_dim].map(|extent| extent as i64);
    let (h, w) = (node.shape.h as i64, node.shape.w as i64);
    let (rows, columns) = window.map_or((h, w), |window| (window as i64, window as i64));
    let (down, across, tokens) = (h / rows, w / columns, rows * columns);
    let each = 2 * key + value;
    let cut = if window.is_some() {
        &x.reshape([-1, heads * each, down, rows, across, columns]).permute([0, 2, 4, 1, 3, 5])
    } else {
        x
    };
    // [batch · windows, heads, channels, tokens]
    let cut = cut.reshape([-1, heads, each, tokens]);
    let (queries, keys, values) =
        (cut.narrow(2, 0, key), cut.narrow(2, key, key), cut.narrow(2, 2 * key, value));
    let scores = queries.transpose(-2, -1).matmul(&keys) * (1.0 / (key as f64).sqrt());
    let scores = if let Some(bias) = bias {
        let token = Tensor::arange(tokens, (Kind::Int64, x.device()));
        let (row, column) = (token.divide_scalar_mode(columns, "floor"), token.remainder(columns));
        let apart = |at: &Tensor| (at.unsqueeze(1) - at.unsqueeze(0)).abs();
        let distance = apart(&row) * columns + apart(&column);
        scores + bias.index_select(1, &distance.flatten(0, -1)).view([1, heads, tokens, tokens])
    } else {
        scores
    };
    let weights = scores.softmax(-1, None::<Kind>);
    let mixed = values.matmul(&weights.transpose(-2, -1));
    if window.is_none() {
        return mixed.reshape([-1, heads * value, h, w]);
    }
    mixed.reshape([-1, down, across, heads * value, rows, columns]).permute([0, 3, 1, 4, 2, 5]).reshape([
        -1,
        heads * value,
        h,
        w,
    ])
}
