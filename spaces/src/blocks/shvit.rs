//! `SHViT` (Yun and Ro 2024): one head of attention on part of the channels.

use super::{
    BlockKind, Example, Parameter,
    site::{Conv, RELU, in_eights},
};
use crate::OpSpec;

/// `shvit`.
pub static SHVIT: BlockKind = BlockKind {
    name: "shvit",
    about: "depthwise 3x3, single-head attention on some channels, 1x1 layers, each added to its input (SHViT)",
    parameters: &[
        Parameter::count("p", 0, "channels that attend; 0 leaves the attention out"),
        Parameter::number("qk", 16, "channels of queries and of keys"),
        Parameter::number("e", 2, "width of the 1x1 layers over that of the block"),
        Parameter::flag("attention", "the attention by itself, without the rest"),
    ],
    build: |site, x| {
        site.keeps(x)?;
        let channels = site.channels;
        let (part, key_dim) = (site.number("p"), site.number("qk"));
        let alone = site.flag("attention");
        if part >= channels || alone && part == 0 {
            return Err(site.refuse(x, format!("{part} of {channels} channels can't attend beside the rest")));
        }
        let mut y = x;
        if !alone {
            let local = site.conv("local", y, Conv::depthwise(channels, 3, 1))?;
            y = site.sum("local.sum", y, local)?;
        }
        if part > 0 {
            let some = site.add("attention.part", OpSpec::Slice { start: 0, channels: part }, &[y])?;
            let rest =
                site.add("attention.rest", OpSpec::Slice { start: part, channels: channels - part }, &[y])?;
            let normed = site.add("attention.norm", OpSpec::GroupNorm { groups: 1 }, &[some])?;
            let qkv = site.conv("attention.qkv", normed, Conv::pointwise(2 * key_dim + part))?;
            let head =
                OpSpec::Attention { heads: 1, key_dim, value_dim: part, window: None, relative_bias: false };
            let head = site.add("attention.head", head, &[qkv])?;
            let joined = site.add("attention.joined", OpSpec::Concat, &[head, rest])?;
            let clipped = site.add("attention.relu", OpSpec::Relu, &[joined])?;
            let mixed = site.conv("attention.project", clipped, Conv::pointwise(channels))?;
            y = site.sum("attention.sum", y, mixed)?;
        }
        if alone {
            return Ok(y);
        }
        let wide = Conv::pointwise(channels * site.number("e")).then(RELU);
        let hidden = site.conv("mlp.expand", y, wide)?;
        let narrow = site.conv("mlp.project", hidden, Conv::pointwise(channels))?;
        site.sum("sum", y, narrow)
    },
    examples: &[
        Example::new("shvit p6 qk4", [16, 5, 4], 16, 1),
        Example::new("shvit p0", [8, 5, 5], 8, 1),
        Example::new("shvit p4 qk4 attention", [8, 4, 4], 8, 1),
    ],
};

/// `patch_stem16`.
pub static STEM16: BlockKind = BlockKind {
    name: "patch_stem16",
    about: "four 3x3 convolutions of stride 2, doubling the channels, to a sixteenth of the size (SHViT)",
    parameters: &[],
    build: |site, x| {
        let channels = site.channels;
        if !channels.is_multiple_of(8) || site.stride != 16 {
            return Err(site.refuse(x, "it divides the channels by 8 and has stride 16"));
        }
        let mut y = x;
        for (name, divisor) in [("half", 8), ("quarter", 4), ("eighth", 2)] {
            y = site.conv(name, y, Conv::square(channels / divisor, 3, 2).then(RELU))?;
        }
        site.conv("sixteenth", y, Conv::square(channels, 3, 2))
    },
    examples: &[Example::new("patch_stem16", [3, 34, 32], 16, 16)],
};

/// `patch_merging_se`.
pub static MERGING: BlockKind = BlockKind {
    name: "patch_merging_se",
    about: "wide bottleneck of stride 2 with squeeze-and-excite that halves the size (SHViT)",
    parameters: &[Parameter::number("e", 4, "width of the middle over that of the input")],
    build: |site, x| {
        let wide = site.shape(x).c * site.number("e");
        let mut y = site.conv("expand", x, Conv::pointwise(wide).then(RELU))?;
        y = site.conv("depthwise", y, Conv::depthwise(wide, 3, site.stride).then(RELU))?;
        y = site.squeeze_excite("se", y, in_eights(wide / 4), RELU)?;
        site.conv("project", y, Conv::pointwise(site.channels))
    },
    examples: &[Example::new("patch_merging_se", [8, 5, 5], 12, 2)],
};
