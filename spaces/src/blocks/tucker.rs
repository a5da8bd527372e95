//! The Tucker convolution: a dense convolution between two narrow 1×1.

use super::{BlockKind, Example, Parameter, site::Conv};

/// `tucker`.
pub static TUCKER: BlockKind = BlockKind {
    name: "tucker",
    about: "Tucker convolution of MobileDets (Xiong et al. 2021): 1x1 down, dense, 1x1 up",
    parameters: &[
        Parameter::number("k", 3, "side of the window"),
        Parameter::number("i", 25, "channels after the first 1x1, in percent of the input's, in eights"),
        Parameter::number("o", 75, "channels before the last 1x1, in percent of the output's, in eights"),
        Parameter::word("act", &["relu6", "hard_swish", "relu", "swish"], "activation"),
        Parameter::flag("nores", "the input is not added"),
        Parameter::flag("same", "zeros as TensorFlow's SAME"),
    ],
    build: |site, x| {
        let act = site.activation();
        let (input, output) = (site.shape(x).c * site.number("i"), site.channels * site.number("o"));
        // The nearest multiple of 8 of a number that is not whole.
        let rank = |percent: usize| (percent + 400) / 800 * 8;
        let mut y = site.conv("reduce", x, Conv::pointwise(rank(input).max(8)).then(act))?;
        let dense = Conv::square(rank(output).max(8), site.number("k"), site.stride);
        y = site.conv("dense", y, dense.same(site.flag("same")).then(act))?;
        y = site.conv("project", y, Conv::pointwise(site.channels))?;
        site.residual(x, y)
    },
    examples: &[
        Example::new("tucker k3 i25 o75", [16, 6, 6], 16, 1),
        Example::new("tucker k5 i75 same", [8, 7, 8], 16, 2),
    ],
};
