//! Plain multi-head self-attention, to compare with.

use super::{BlockKind, Example, Parameter, site::Conv};
use crate::OpSpec;

/// `mhsa`.
pub static MHSA: BlockKind = BlockKind {
    name: "mhsa",
    about: "multi-head self-attention over all positions (Vaswani et al. 2017) with a group norm in front",
    parameters: &[
        Parameter::number("h", 4, "heads, among which the channels are divided"),
        Parameter::flag("nores", "the input is not added"),
    ],
    build: |site, x| {
        site.keeps(x)?;
        let (heads, channels) = (site.number("h"), site.channels);
        if !channels.is_multiple_of(heads) {
            return Err(site.refuse(x, format!("{channels} channels can't be divided among {heads} heads")));
        }
        let dim = channels / heads;
        let normed = site.add("norm", OpSpec::GroupNorm { groups: 1 }, &[x])?;
        let qkv = site.conv("qkv", normed, Conv::pointwise(3 * channels))?;
        let attention =
            OpSpec::Attention { heads, key_dim: dim, value_dim: dim, window: None, relative_bias: false };
        let mixed = site.add("heads", attention, &[qkv])?;
        let y = site.conv("project", mixed, Conv::pointwise(channels))?;
        site.residual(x, y)
    },
    examples: &[Example::new("mhsa h3", [12, 4, 5], 12, 1)],
};
