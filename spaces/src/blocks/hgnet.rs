//! `HGNetv2` (`PaddlePaddle`; `RT-DETR`, `D-FINE`, `DEIMv2`).

use super::{
    BlockKind, Example, Parameter,
    site::{Conv, RELU, SIGMOID},
};
use crate::OpSpec;

/// `hg_stem`.
pub static STEM: BlockKind = BlockKind {
    name: "hg_stem",
    about: "3x3, two 2x2 beside a pool, 3x3 and 1x1: to a quarter of the size (HGNetv2)",
    parameters: &[
        Parameter::number("m", 16, "channels in the middle"),
        Parameter::flag("lab", "a learned scale and shift behind every activation"),
    ],
    build: |site, x| {
        let (middle, lab) = (site.number("m"), site.flag("lab"));
        if !middle.is_multiple_of(2) || site.stride != 4 {
            return Err(site.refuse(x, "it halves its middle channels and has stride 4"));
        }
        let conv = |out, kernel, stride| Conv::square(out, kernel, stride).then(RELU).scaled(lab);
        let pad = OpSpec::Pad { top: 0, left: 0, bottom: 1, right: 1 };
        let first = site.conv("first", x, conv(middle, 3, 2))?;
        let padded = site.add("padded", pad, &[first])?;
        let branch = site.conv("branch1", padded, conv(middle / 2, 2, 1).padded(0))?;
        let branch = site.add("branch.padded", pad, &[branch])?;
        let branch = site.conv("branch2", branch, conv(middle, 2, 1).padded(0))?;
        let pooled = site.add("pool", OpSpec::MaxPool { kernel: 2, stride: 1, padding: 0 }, &[padded])?;
        let joined = site.add("joined", OpSpec::Concat, &[pooled, branch])?;
        let second = site.conv("second", joined, conv(middle, 3, 2))?;
        site.conv("third", second, conv(site.channels, 1, 1))
    },
    examples: &[Example::new("hg_stem m4 lab", [3, 16, 13], 6, 4)],
};

/// `hg_block`.
pub static BLOCK: BlockKind = BlockKind {
    name: "hg_block",
    about: "a chain of convolutions whose outputs are all joined and aggregated (HGNetv2)",
    parameters: &[
        Parameter::number("m", 32, "channels of every convolution of the chain"),
        Parameter::number("l", 3, "convolutions of the chain"),
        Parameter::number("k", 3, "side of their windows"),
        Parameter::flag("light", "1x1 and depthwise convolutions in place of dense ones"),
        Parameter::flag("ese", "aggregation by 1x1 and a gate per channel in place of two 1x1"),
        Parameter::flag("lab", "a learned scale and shift behind every activation"),
        Parameter::flag("res", "the input is added, as in all blocks of a stage but the first"),
    ],
    build: |site, x| {
        if site.stride != 1 {
            return Err(site.refuse(x, "it has stride 1; put `dwconv none` with the stride in front"));
        }
        let (middle, kernel, lab) = (site.number("m"), site.number("k"), site.flag("lab"));
        let channels = site.channels;
        let act = |conv: Conv| conv.then(RELU).scaled(lab);
        let mut all = vec![x];
        let mut y = x;
        for index in 0..site.number("l") {
            let name = format!("chain{index}");
            y = if site.flag("light") {
                let mixed = site.conv(&format!("{name}.mix"), y, Conv::pointwise(middle))?;
                site.conv(&name, mixed, act(Conv::depthwise(middle, kernel, 1)))?
            } else {
                site.conv(&name, y, act(Conv::square(middle, kernel, 1)))?
            };
            all.push(y);
        }
        let joined = site.add("joined", OpSpec::Concat, &all)?;
        let y = if site.flag("ese") {
            let out = site.conv("aggregate", joined, act(Conv::pointwise(channels)))?;
            let mean = site.add("ese.mean", OpSpec::GlobalAvgPool, &[out])?;
            let gate = Conv::pointwise(channels).plain().biased(true).then(Some(SIGMOID));
            let gate = site.conv("ese.gate", mean, gate)?;
            site.add("ese.gated", OpSpec::Mul, &[out, gate])?
        } else {
            let half = site.conv("squeeze", joined, act(Conv::pointwise(channels / 2)))?;
            site.conv("excite", half, act(Conv::pointwise(channels)))?
        };
        if site.flag("res") { site.sum("sum", x, y) } else { Ok(y) }
    },
    examples: &[
        Example::new("hg_block m4 l2 lab", [6, 6, 5], 8, 1),
        Example::new("hg_block m4 l3 k5 light ese res", [8, 5, 5], 8, 1),
    ],
};
