//! What the smallest published network of every family computes, operator by operator, as reviewed against its
//! definition: counts don't see a wrong activation, a sum too many, or gates in another order.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write;

use lathe_spaces::{Graph, Node, NodeId, OpSpec, ZooNetwork};

/// An operator in words. Channels stand behind it; what is usual (stride 1, zeros that keep the size, no bias) is
/// left out.
fn operator(graph: &Graph, node: &Node) -> String {
    let flag = |there: bool, word: &str| if there { format!(" {word}") } else { String::new() };
    let stride_of = |stride: usize| if stride == 1 { String::new() } else { format!("/{stride}") };
    match node.op {
        OpSpec::Conv2d { out_channels, kernel, stride, padding, dilation, groups, bias } => {
            let kind = if groups == 1 {
                "conv".to_owned()
            } else if groups == out_channels && groups == graph.source_shape(node).c {
                "depthwise".to_owned()
            } else {
                format!("conv of {groups} groups")
            };
            let unusual = padding != dilation * (kernel - 1) / 2;
            let padded = if unusual { format!(" padded {padding}") } else { String::new() };
            let dilated = if dilation == 1 { String::new() } else { format!(" dilated {dilation}") };
            let stride = stride_of(stride);
            format!("{kind} {kernel}x{kernel}{stride}{padded}{dilated}{}", flag(bias, "bias"))
        }
        OpSpec::ConvTranspose2d { kernel, stride, padding, groups, bias, .. } => {
            let stride = stride_of(stride);
            format!("transposed {kernel}x{kernel}{stride} g{groups} cut {padding}{}", flag(bias, "bias"))
        }
        OpSpec::MaxPool { kernel, stride, padding } => {
            format!("max_pool {kernel}x{kernel}{} padded {padding}", stride_of(stride))
        }
        OpSpec::AvgPool { kernel, stride, padding, count_include_pad } => {
            let counted = flag(count_include_pad, "counted");
            format!("avg_pool {kernel}x{kernel}{} padded {padding}{counted}", stride_of(stride))
        }
        OpSpec::Linear { bias, .. } => format!("linear{}", flag(bias, "bias")),
        OpSpec::BatchNorm { affine } => format!("batch_norm{}", flag(!affine, "fixed")),
        OpSpec::GroupNorm { groups } => format!("group_norm of {groups}"),
        OpSpec::ChannelShuffle { groups } => format!("channel_shuffle of {groups}"),
        OpSpec::Zero { stride } => format!("zero{}", stride_of(stride)),
        OpSpec::Slice { start, channels } => format!("channels {start}..{}", start + channels),
        OpSpec::Crop { top, left } => format!("crop top {top} left {left}"),
        OpSpec::CropEnd { bottom, right } => format!("crop bottom {bottom} right {right}"),
        OpSpec::Pad { top, left, bottom, right } => {
            format!("pad top {top} left {left} bottom {bottom} right {right}")
        }
        OpSpec::DepthToSpace { block } => format!("depth_to_space {block}"),
        OpSpec::Attention { heads, key_dim, value_dim, window, relative_bias } => {
            let window = window.map_or(String::new(), |side| format!(" in {side}x{side}"));
            let bias = flag(relative_bias, "with relative biases");
            format!("attention of {heads}: queries and keys {key_dim}, values {value_dim}{window}{bias}")
        }
        OpSpec::Input
        | OpSpec::Relu
        | OpSpec::Activation { .. }
        | OpSpec::Add
        | OpSpec::Mul
        | OpSpec::Concat
        | OpSpec::Mean
        | OpSpec::Prelu
        | OpSpec::LayerNorm
        | OpSpec::GlobalAvgPool
        | OpSpec::ScalarAffine => node.op.name().to_owned(),
    }
}

/// Layer and repetition of a node: `3.0` of `3.0.cas_vit.local.in`.
fn layer(node: &Node) -> String {
    node.name.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Layer by layer the operators with what they read: operators of the layer by their number in it, `x` for the
/// output of the layer in front, others by layer and number. A layer like the one in front is a line.
fn described(graph: &Graph) -> String {
    let nodes = graph.nodes();
    let mut layers: Vec<(String, Vec<NodeId>)> = Vec::new();
    for (id, node) in nodes.iter().enumerate() {
        let name = layer(node);
        match layers.last_mut() {
            Some((last, ids)) if *last == name => ids.push(id),
            _ => layers.push((name, vec![id])),
        }
    }
    let place = |id: NodeId| {
        let (name, ids) = layers.iter().find(|(_, ids)| ids.contains(&id)).unwrap();
        (name, id - ids[0] + 1)
    };
    let mut text = String::new();
    let mut before = String::new();
    for (name, ids) in &layers {
        let mut lines = String::new();
        for (index, &id) in ids.iter().enumerate() {
            let node = &nodes[id];
            let reads: Vec<String> = node
                .inputs
                .iter()
                .map(|&input| match place(input) {
                    (other, number) if other == name => number.to_string(),
                    _ if input + 1 == ids[0] => "x".to_owned(),
                    (other, number) => format!("{other}#{number}"),
                })
                .collect();
            let shape = node.shape;
            let size = format!("{}x{}x{}", shape.c, shape.h, shape.w);
            writeln!(lines, "  {} {} ({}) {size}", index + 1, operator(graph, node), reads.join(", "))
                .unwrap();
        }
        if lines == before {
            writeln!(text, "{name} the same").unwrap();
        } else {
            write!(text, "{name}\n{lines}").unwrap();
        }
        before = lines;
    }
    writeln!(text, "out: {:?}", graph.outputs().iter().map(|&id| place(id)).collect::<Vec<_>>()).unwrap();
    text
}

fn of(name: &str) -> String {
    described(&ZooNetwork::named(name).unwrap().unwrap().graph(None).unwrap())
}

#[test]
fn lowformer_is_as_reviewed() {
    insta::assert_snapshot!(of("lowformer-b0"));
}

#[test]
fn mobiledets_are_as_reviewed() {
    insta::assert_snapshot!("mobiledet-cpu", of("mobiledet-cpu"));
    insta::assert_snapshot!("mobiledet-edgetpu", of("mobiledet-edgetpu"));
}

#[test]
fn shvit_is_as_reviewed() {
    insta::assert_snapshot!(of("shvit-s1"));
}

#[test]
fn sesr_is_as_reviewed() {
    insta::assert_snapshot!("sesr-m3", of("sesr-m3"));
    insta::assert_snapshot!("sesr-m5-expanded", of("sesr-m5-expanded"));
}

#[test]
fn cas_vit_is_as_reviewed() {
    insta::assert_snapshot!(of("cas-vit-xs"));
}

#[test]
fn hgnetv2_is_as_reviewed() {
    insta::assert_snapshot!("hgnetv2-atto", of("hgnetv2-atto"));
    // Its last blocks add their input, those of Atto do not.
    insta::assert_snapshot!("hgnetv2-pico", of("hgnetv2-pico"));
}

#[test]
fn tinyvit_is_as_reviewed() {
    insta::assert_snapshot!(of("tinyvit-5m-sam"));
}
