//! Single layers: pools, norms, activations, classifiers, and from channels to positions.

use super::{BlockKind, Example, Parameter, site::ACTIVATIONS};
use crate::{OpSpec, network};

/// `pool`.
pub static POOL: BlockKind = BlockKind {
    name: "pool",
    about: "pooling over windows, or the mean of all positions",
    parameters: &[
        Parameter::word("which", &["global", "max", "average"], "the mean of all positions, or windows"),
        Parameter::number("k", 3, "side of the window"),
    ],
    build: |site, x| {
        if site.shape(x).c != site.channels {
            return Err(site.refuse(x, "it keeps the channels"));
        }
        let (kernel, stride) = (site.number("k"), site.stride);
        let padding = kernel / 2;
        let op = match site.number("which") {
            1 => OpSpec::MaxPool { kernel, stride, padding },
            2 => OpSpec::AvgPool { kernel, stride, padding, count_include_pad: false },
            _ => OpSpec::GlobalAvgPool,
        };
        site.add("pool", op, &[x])
    },
    examples: &[
        Example::new("pool", [4, 5, 6], 4, 1),
        Example::new("pool max", [4, 5, 6], 4, 2),
        Example::new("pool average k2", [4, 6, 6], 4, 2),
    ],
};

/// `norm`.
pub static NORM: BlockKind = BlockKind {
    name: "norm",
    about: "a norm by itself: over the batch, the channels of a position, or the whole image",
    parameters: &[Parameter::word("which", &["batch", "layer", "group"], "what is normalised over")],
    build: |site, x| {
        site.keeps(x)?;
        let op = [network::NORM, OpSpec::LayerNorm, OpSpec::GroupNorm { groups: 1 }];
        site.add("norm", op[site.number("which")], &[x])
    },
    examples: &[Example::new("norm layer", [4, 3, 3], 4, 1), Example::new("norm group", [4, 3, 3], 4, 1)],
};

/// `act`.
pub static ACTIVATION: BlockKind = BlockKind {
    name: "act",
    about: "an activation by itself",
    parameters: &[Parameter::word("act", ACTIVATIONS, "which")],
    build: |site, x| {
        site.keeps(x)?;
        site.activate("act", x, site.activation())
    },
    examples: &[Example::new("act gelu", [4, 3, 3], 4, 1)],
};

/// `linear`.
pub static LINEAR: BlockKind = BlockKind {
    name: "linear",
    about: "fully connected layer, or the mean of two (a classifier and one that was distilled)",
    parameters: &[
        Parameter::word("act", &["none", "relu", "hard_swish", "gelu"], "activation"),
        Parameter::flag("nobias", "without a bias"),
        Parameter::flag("twice", "two layers, whose outputs are averaged"),
    ],
    build: |site, x| {
        let op = OpSpec::Linear { out_features: site.channels, bias: !site.flag("nobias") };
        let mut y = site.add("linear", op, &[x])?;
        if site.flag("twice") {
            let other = site.add("distilled", op, &[x])?;
            y = site.add("mean", OpSpec::Mean, &[y, other])?;
        }
        let activation = site.activation();
        site.activate("act", y, activation)
    },
    examples: &[
        Example::new("linear relu nobias", [4, 2, 2], 6, 1),
        Example::new("linear twice", [4, 1, 1], 6, 1),
    ],
};

/// `depth_to_space`.
pub static DEPTH_TO_SPACE: BlockKind = BlockKind {
    name: "depth_to_space",
    about: "channels to positions: the last step of a network that enlarges",
    parameters: &[Parameter::number("b", 2, "positions of the output per position, in both directions")],
    build: |site, x| {
        let block = site.number("b");
        if site.channels * block * block != site.shape(x).c || site.stride != 1 {
            return Err(
                site.refuse(x, format!("its input must have {} channels", site.channels * block * block))
            );
        }
        site.add("shuffle", OpSpec::DepthToSpace { block }, &[x])
    },
    examples: &[Example::new("depth_to_space b2", [8, 3, 4], 2, 1)],
};
