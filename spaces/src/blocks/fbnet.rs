//! The block of `FBNet` (Wu et al. 2019).

use super::{BlockKind, Example, Parameter};
use crate::{OpSpec, network::NORM};

/// `fbnet`.
pub static FBNET: BlockKind = BlockKind {
    name: "fbnet",
    about: "1x1, depthwise and 1x1 convolution, channels shuffled between groups; its input is added (FBNet)",
    parameters: &[
        Parameter::number("k", 3, "side of the depthwise window"),
        Parameter::number("e", 1, "width of the middle over that of the input"),
        Parameter::number("g", 1, "groups of the 1x1 convolutions"),
    ],
    build: |site, x| {
        let (kernel, groups, stride) = (site.number("k"), site.number("g"), site.stride);
        let wide = site.shape(x).c * site.number("e");
        let pointwise = |out_channels| OpSpec::Conv2d {
            out_channels,
            kernel: 1,
            stride: 1,
            padding: 0,
            dilation: 1,
            groups,
            bias: false,
        };
        let mut y = site.add("expand", pointwise(wide), &[x])?;
        y = site.add("norm1", NORM, &[y])?;
        y = site.add("relu1", OpSpec::Relu, &[y])?;
        if groups > 1 {
            // Lets the groups of the two 1×1 convolutions talk to each other.
            y = site.add("shuffle", OpSpec::ChannelShuffle { groups }, &[y])?;
        }
        y = site.add("depthwise", OpSpec::depthwise(wide, kernel, stride, 1), &[y])?;
        y = site.add("norm2", NORM, &[y])?;
        y = site.add("relu2", OpSpec::Relu, &[y])?;
        y = site.add("project", pointwise(site.channels), &[y])?;
        y = site.add("norm3", NORM, &[y])?;
        if stride == 1 && site.shape(x).c == site.channels { site.sum("sum", x, y) } else { Ok(y) }
    },
    examples: &[Example::new("fbnet k5 e3", [4, 6, 5], 4, 1), Example::new("fbnet g2", [4, 6, 6], 6, 2)],
};
