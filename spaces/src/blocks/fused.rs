//! The fused inverted bottleneck: one dense convolution for expansion and depthwise convolution.

use super::{
    BlockKind, Example, Parameter,
    site::{Conv, in_eights},
};

/// `fused`.
pub static FUSED: BlockKind = BlockKind {
    name: "fused",
    about: "fused inverted bottleneck (Gupta and Akin 2020; MobileDets, LowFormer)",
    parameters: &[
        Parameter::number("k", 3, "side of the window"),
        Parameter::number("e", 4, "width of the middle over that of the input"),
        Parameter::word("act", &["relu6", "hard_swish", "relu", "swish", "gelu"], "activation"),
        Parameter::flag("se", "squeeze-and-excite in the middle, of a quarter of its width in eights"),
        Parameter::flag("bias", "a bias in the first convolution"),
        Parameter::flag("nores", "the input is not added"),
        Parameter::flag("same", "zeros as TensorFlow's SAME"),
    ],
    build: |site, x| {
        let wide = site.shape(x).c * site.number("e");
        let act = site.activation();
        let expand = Conv::square(wide, site.number("k"), site.stride)
            .same(site.flag("same"))
            .biased(site.flag("bias"))
            .then(act);
        let mut y = site.conv("expand", x, expand)?;
        if site.flag("se") {
            y = site.squeeze_excite("se", y, in_eights(wide / 4), act)?;
        }
        y = site.conv("project", y, Conv::pointwise(site.channels))?;
        site.residual(x, y)
    },
    examples: &[
        Example::new("fused k3 e4 hard_swish", [4, 7, 7], 4, 1),
        Example::new("fused k5 e2 se same", [4, 8, 9], 6, 2),
    ],
};
