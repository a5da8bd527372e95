//! `TinyViT` (Wu et al. 2022), `MobileSAM`'s encoder (Zhang et al. 2023).

use super::{
    BlockKind, Example, Parameter,
    site::{Conv, GELU},
};
use crate::OpSpec;

/// `tinyvit_stem`.
pub static STEM: BlockKind = BlockKind {
    name: "tinyvit_stem",
    about: "two 3x3 convolutions of stride 2 with GELU between (TinyViT)",
    parameters: &[],
    build: |site, x| {
        if !site.channels.is_multiple_of(2) || site.stride != 4 {
            return Err(site.refuse(x, "it halves its channels and has stride 4"));
        }
        let half = site.conv("half", x, Conv::square(site.channels / 2, 3, 2).then(GELU))?;
        site.conv("quarter", half, Conv::square(site.channels, 3, 2))
    },
    examples: &[Example::new("tinyvit_stem", [3, 9, 12], 8, 4)],
};

/// `tinyvit_conv`.
pub static MBCONV: BlockKind = BlockKind {
    name: "tinyvit_conv",
    about: "inverted bottleneck with GELU behind the sum as well (TinyViT)",
    parameters: &[Parameter::number("e", 4, "width of the middle over that of the block")],
    build: |site, x| {
        site.keeps(x)?;
        let wide = site.channels * site.number("e");
        let y = site.conv("expand", x, Conv::pointwise(wide).then(GELU))?;
        let y = site.conv("depthwise", y, Conv::depthwise(wide, 3, 1).then(GELU))?;
        let y = site.conv("project", y, Conv::pointwise(site.channels))?;
        let sum = site.sum("sum", x, y)?;
        site.activate("act", sum, GELU)
    },
    examples: &[Example::new("tinyvit_conv e2", [6, 5, 5], 6, 1)],
};

/// `tinyvit_merging`.
pub static MERGING: BlockKind = BlockKind {
    name: "tinyvit_merging",
    about: "1x1, depthwise 3x3 with the stride, 1x1 at the output's width (TinyViT)",
    parameters: &[],
    build: |site, x| {
        let channels = site.channels;
        let y = site.conv("expand", x, Conv::pointwise(channels).then(GELU))?;
        let y = site.conv("depthwise", y, Conv::depthwise(channels, 3, site.stride).then(GELU))?;
        site.conv("project", y, Conv::pointwise(channels))
    },
    examples: &[Example::new("tinyvit_merging", [4, 7, 7], 8, 2)],
};

/// `tinyvit`.
pub static BLOCK: BlockKind = BlockKind {
    name: "tinyvit",
    about: "window attention with relative biases, depthwise 3x3, 1x1 layers (TinyViT)",
    parameters: &[
        Parameter::number("h", 4, "heads, among which the channels are divided"),
        Parameter::window("w", 7, "side of the windows; 0 attends over the whole map"),
        Parameter::number("e", 4, "width of the 1x1 layers over that of the block"),
        Parameter::number("k", 3, "side of the depthwise window"),
    ],
    build: |site, x| {
        site.keeps(x)?;
        let shape = site.shape(x);
        let (heads, window, channels) = (site.number("h"), site.number("w"), site.channels);
        if !channels.is_multiple_of(heads) {
            return Err(site.refuse(x, format!("{channels} channels can't be divided among {heads} heads")));
        }
        let missing = |size: usize| if window == 0 { 0 } else { size.next_multiple_of(window) - size };
        let (bottom, right) = (missing(shape.h), missing(shape.w));
        let mut y = x;
        if bottom + right > 0 {
            // Before the norm, as published: what is padded attends like the rest.
            y = site.add("attention.pad", OpSpec::Pad { top: 0, left: 0, bottom, right }, &[y])?;
        }
        y = site.add("attention.norm", OpSpec::LayerNorm, &[y])?;
        y = site.conv("attention.qkv", y, Conv::pointwise(3 * channels).plain().biased(true))?;
        let padded = site.shape(y);
        let whole = window == 0 || (window, window) == (padded.h, padded.w);
        let dim = channels / heads;
        let attention = OpSpec::Attention {
            heads,
            key_dim: dim,
            value_dim: dim,
            window: (!whole).then_some(window),
            relative_bias: true,
        };
        y = site.add("attention.heads", attention, &[y])?;
        y = site.conv("attention.project", y, Conv::pointwise(channels).plain().biased(true))?;
        if bottom + right > 0 {
            y = site.add("attention.crop", OpSpec::CropEnd { bottom, right }, &[y])?;
        }
        y = site.sum("attention.sum", x, y)?;
        y = site.conv("local", y, Conv::depthwise(channels, site.number("k"), 1))?;
        let normed = site.add("mlp.norm", OpSpec::LayerNorm, &[y])?;
        let wide = Conv::pointwise(channels * site.number("e")).plain().biased(true).then(GELU);
        let hidden = site.conv("mlp.expand", normed, wide)?;
        let narrow = site.conv("mlp.project", hidden, Conv::pointwise(channels).plain().biased(true))?;
        site.sum("sum", y, narrow)
    },
    examples: &[
        Example::new("tinyvit h2 w3 e2", [8, 6, 6], 8, 1),
        Example::new("tinyvit h2 w4 e2", [8, 6, 7], 8, 1),
        Example::new("tinyvit h1 w0 e2", [6, 4, 5], 6, 1),
    ],
};
