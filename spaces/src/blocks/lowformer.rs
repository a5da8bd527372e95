//! `LowFormer` (Nottebaum et al. 2025): attention at a lower resolution between convolutions.

use super::{
    BlockError, BlockKind, Example, Parameter, Site,
    site::{Conv, GELU},
};
use crate::{NodeId, OpSpec};

/// `lowformer`.
pub static LOWFORMER: BlockKind = BlockKind {
    name: "lowformer",
    about: "low-resolution attention, 1x1 layers and a local bottleneck, each added to its input (LowFormer)",
    parameters: &[
        Parameter::number("k", 5, "side of the window in front of the attention"),
        Parameter::number("s", 2, "stride of the attention"),
        Parameter::number("e", 4, "width of the middles over that of the block"),
        Parameter::word(
            "act",
            &["hard_swish", "relu", "relu6", "swish", "gelu"],
            "activation of the bottleneck",
        ),
        Parameter::flag("unfused", "a plain bottleneck in place of the fused one, as from 256 channels on"),
        Parameter::flag("noattention", "without the attention"),
        Parameter::flag("nomlp", "without the 1x1 layers"),
    ],
    build: |site, x| {
        site.keeps(x)?;
        let (channels, expansion) = (site.channels, site.number("e"));
        let mut y = x;
        if !site.flag("noattention") {
            let attended = attention(site, y)?;
            y = site.sum("attention.sum", y, attended)?;
        }
        if !site.flag("nomlp") {
            let normed = site.add("mlp.norm", OpSpec::GroupNorm { groups: 1 }, &[y])?;
            let wide = Conv::pointwise(channels * expansion).plain().biased(true).then(GELU);
            let hidden = site.conv("mlp.expand", normed, wide)?;
            let narrow = site.conv("mlp.project", hidden, Conv::pointwise(channels).plain().biased(true))?;
            y = site.sum("mlp.sum", y, narrow)?;
        }
        let act = site.activation();
        let wide = channels * expansion;
        let local = if site.flag("unfused") {
            let biased = |conv: Conv| conv.plain().biased(true).then(act);
            let hidden = site.conv("local.expand", y, biased(Conv::pointwise(wide)))?;
            site.conv("local.depthwise", hidden, biased(Conv::depthwise(wide, 3, 1)))?
        } else {
            site.conv("local.expand", y, Conv::square(wide, 3, 1).biased(true).then(act))?
        };
        let local = site.conv("local.project", local, Conv::pointwise(channels))?;
        site.sum("sum", y, local)
    },
    examples: &[
        Example::new("lowformer k5 s2 e2", [60, 6, 6], 60, 1),
        Example::new("lowformer k3 s1 e2 unfused", [30, 3, 4], 30, 1),
    ],
};

/// Attention of `ConvAttention`: heads of 30 channels or a little more, half of the channels where there are
/// more than 80; the transposed convolution behind it is projection and return to the resolution in one.
fn attention(site: &mut Site<'_>, x: NodeId) -> Result<NodeId, BlockError> {
    let shape = site.shape(x);
    let (kernel, stride) = (site.number("k"), site.number("s"));
    let channels = shape.c;
    let half = if channels > 80 { 2 } else { 1 };
    let heads = (channels / half / 30).max(1);
    let dim = channels / heads / half;
    let normed = site.add("attention.norm", OpSpec::GroupNorm { groups: 1 }, &[x])?;
    let reduced = site.conv("attention.reduce", normed, Conv::depthwise(channels, kernel, stride))?;
    let qkv = site.conv("attention.qkv", reduced, Conv::pointwise(3 * heads * dim).plain())?;
    let attention =
        OpSpec::Attention { heads, key_dim: dim, value_dim: dim, window: None, relative_bias: false };
    let mixed = site.add("attention.heads", attention, &[qkv])?;
    let (kernel, padding) = if stride == 1 { (3, 1) } else { (2 * stride, stride / 2) };
    let up =
        OpSpec::ConvTranspose2d { out_channels: channels, kernel, stride, padding, groups: 1, bias: true };
    let whole = site.add("attention.up", up, &[mixed])?;
    let got = site.shape(whole);
    if (got.h, got.w) == (shape.h, shape.w) {
        return Ok(whole);
    }
    if got.h < shape.h || got.w < shape.w {
        return Err(site.refuse(x, "the attention's stride does not bring back the size"));
    }
    site.add("attention.crop", OpSpec::CropEnd { bottom: got.h - shape.h, right: got.w - shape.w }, &[whole])
}
