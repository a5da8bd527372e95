//! `CAS-ViT` (Zhang et al. 2024): sums of gated queries and keys in place of attention.

use super::{
    BlockError, BlockKind, Example, Parameter, Site,
    site::{Conv, GELU, SIGMOID},
};
use crate::{NodeId, OpSpec, network::NORM};

/// `cas_vit`.
pub static CAS_VIT: BlockKind = BlockKind {
    name: "cas_vit",
    about: "local integration, additive token mixer, 1x1 layers, each added to its input (CAS-ViT)",
    parameters: &[
        Parameter::number("e", 4, "width of the 1x1 layers over that of the block"),
        Parameter::flag("mixer", "the additive token mixer by itself, without the rest"),
    ],
    build: |site, x| {
        site.keeps(x)?;
        let channels = site.channels;
        let mut y = x;
        let alone = site.flag("mixer");
        if !alone {
            let local = site.conv("local.in", y, Conv::pointwise(channels).biased(true))?;
            let spread = Conv::depthwise(channels, 3, 1).plain().biased(true).then(GELU);
            let local = site.conv("local.depthwise", local, spread)?;
            let local = site.conv("local.out", local, Conv::pointwise(channels).plain().biased(true))?;
            y = site.sum("local.sum", y, local)?;
        }
        let normed = site.add("mixer.norm", NORM, &[y])?;
        let mixed = mixer(site, normed)?;
        y = site.sum("mixer.sum", y, mixed)?;
        if alone {
            return Ok(y);
        }
        let normed = site.add("mlp.norm", NORM, &[y])?;
        let wide = Conv::pointwise(channels * site.number("e")).plain().biased(true).then(GELU);
        let hidden = site.conv("mlp.expand", normed, wide)?;
        let narrow = site.conv("mlp.project", hidden, Conv::pointwise(channels).plain().biased(true))?;
        site.sum("sum", y, narrow)
    },
    examples: &[Example::new("cas_vit e2", [6, 5, 7], 6, 1), Example::new("cas_vit mixer", [6, 4, 4], 6, 1)],
};

/// `depthwise(depthwise(Φ(q) + Φ(k)) · v)`.
fn mixer(site: &mut Site<'_>, x: NodeId) -> Result<NodeId, BlockError> {
    let channels = site.channels;
    let qkv = site.conv("mixer.qkv", x, Conv::pointwise(3 * channels).plain())?;
    let mut gated = Vec::new();
    for (index, name) in ["mixer.queries", "mixer.keys"].into_iter().enumerate() {
        let part = OpSpec::Slice { start: index * channels, channels };
        let part = site.add(name, part, &[qkv])?;
        gated.push(gates(site, name, part)?);
    }
    let sum = site.add("mixer.context", OpSpec::Add, &gated)?;
    let depthwise = Conv::depthwise(channels, 3, 1).plain().biased(true);
    let context = site.conv("mixer.spread", sum, depthwise)?;
    let values = site.add("mixer.values", OpSpec::Slice { start: 2 * channels, channels }, &[qkv])?;
    let product = site.add("mixer.product", OpSpec::Mul, &[context, values])?;
    site.conv("mixer.project", product, depthwise)
}

/// `Φ`: a gate per position, then a gate per channel.
fn gates(site: &mut Site<'_>, name: &str, x: NodeId) -> Result<NodeId, BlockError> {
    let channels = site.channels;
    let spatial = Conv::depthwise(channels, 3, 1).biased(true).then(Some(OpSpec::Relu));
    let gate = site.conv(&format!("{name}.spatial"), x, spatial)?;
    let gate =
        site.conv(&format!("{name}.position"), gate, Conv::pointwise(1).plain().then(Some(SIGMOID)))?;
    let y = site.add(&format!("{name}.positions"), OpSpec::Mul, &[x, gate])?;
    let mean = site.add(&format!("{name}.mean"), OpSpec::GlobalAvgPool, &[y])?;
    let gate =
        site.conv(&format!("{name}.channel"), mean, Conv::pointwise(channels).plain().then(Some(SIGMOID)))?;
    site.add(&format!("{name}.channels"), OpSpec::Mul, &[y, gate])
}
