//! One convolution with its norm and activation.

use super::{
    BlockKind, Example, Parameter,
    site::{ACTIVATIONS, Conv},
};

/// `conv`.
pub static CONV: BlockKind = BlockKind {
    name: "conv",
    about: "convolution, batch norm, activation",
    parameters: &[
        Parameter::number("k", 3, "side of the window"),
        Parameter::number("g", 1, "groups"),
        Parameter::word("act", ACTIVATIONS, "activation"),
        Parameter::flag("bias", "with a bias"),
        Parameter::flag("nonorm", "without the batch norm"),
        Parameter::flag("same", "zeros as TensorFlow's SAME: more below and to the right"),
        Parameter::flag("res", "the input is added"),
    ],
    build: |site, x| {
        let (kernel, groups) = (site.number("k"), site.number("g"));
        let conv = Conv::square(site.channels, kernel, site.stride)
            .grouped(groups)
            .biased(site.flag("bias"))
            .normed(!site.flag("nonorm"))
            .same(site.flag("same"))
            .then(site.activation());
        let y = site.conv("conv", x, conv)?;
        if site.flag("res") { site.sum("sum", x, y) } else { Ok(y) }
    },
    examples: &[
        Example::new("conv k3 same prelu", [3, 8, 7], 6, 2),
        Example::new("conv k5 g2 gelu bias nonorm res", [6, 5, 5], 6, 1),
    ],
};

/// `dwconv`.
pub static DEPTHWISE: BlockKind = BlockKind {
    name: "dwconv",
    about: "depthwise convolution, batch norm, activation",
    parameters: &[
        Parameter::number("k", 3, "side of the window"),
        Parameter::word("act", ACTIVATIONS, "activation"),
        Parameter::flag("bias", "with a bias"),
        Parameter::flag("nonorm", "without the batch norm"),
        Parameter::flag("same", "zeros as TensorFlow's SAME"),
        Parameter::flag("res", "the input is added"),
    ],
    build: |site, x| {
        if site.shape(x).c != site.channels {
            return Err(site.refuse(x, "it keeps the channels"));
        }
        let conv = Conv::depthwise(site.channels, site.number("k"), site.stride)
            .biased(site.flag("bias"))
            .normed(!site.flag("nonorm"))
            .same(site.flag("same"))
            .then(site.activation());
        let y = site.conv("conv", x, conv)?;
        if site.flag("res") { site.sum("sum", x, y) } else { Ok(y) }
    },
    examples: &[
        Example::new("dwconv k3 none", [5, 7, 7], 5, 2),
        Example::new("dwconv k5 hard_swish res", [4, 6, 6], 4, 1),
    ],
};
