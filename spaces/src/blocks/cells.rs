//! Operations of cells: those of DARTS (Liu et al. 2019) and of NAS-Bench-201 (Dong and Yang 2020). They rectify
//! in front of their convolutions.

use super::{BlockError, BlockKind, Example, Parameter, Site};
use crate::{NodeId, OpSpec, network::NORM};

/// `sep_conv`.
pub static SEPARABLE: BlockKind = BlockKind {
    name: "sep_conv",
    about: "rectifier, depthwise and 1x1 convolution, batch norm, and all of it again (DARTS)",
    parameters: &[Parameter::number("k", 3, "side of the windows")],
    build: |site, x| {
        let (kernel, stride) = (site.number("k"), site.stride);
        let first = OpSpec::depthwise(site.shape(x).c, kernel, stride, 1);
        let y = rectified(site, x, [("relu", OpSpec::Relu), ("depthwise", first)], ["pointwise", "norm"])?;
        let second = OpSpec::depthwise(site.channels, kernel, 1, 1);
        rectified(site, y, [("relu2", OpSpec::Relu), ("depthwise2", second)], ["pointwise2", "norm2"])
    },
    examples: &[Example::new("sep_conv", [4, 6, 5], 4, 1), Example::new("sep_conv k5", [4, 6, 6], 6, 2)],
};

/// `dil_conv`.
pub static DILATED: BlockKind = BlockKind {
    name: "dil_conv",
    about: "rectifier, depthwise convolution with a distance of 2 between its taps, 1x1, batch norm (DARTS)",
    parameters: &[Parameter::number("k", 3, "taps in a row")],
    build: |site, x| {
        let depthwise = OpSpec::depthwise(site.shape(x).c, site.number("k"), site.stride, 2);
        rectified(site, x, [("relu", OpSpec::Relu), ("depthwise", depthwise)], ["pointwise", "norm"])
    },
    examples: &[Example::new("dil_conv", [4, 6, 5], 4, 1), Example::new("dil_conv k5", [4, 8, 8], 6, 2)],
};

/// `nor_conv`.
pub static NORMAL: BlockKind = BlockKind {
    name: "nor_conv",
    about: "rectifier, convolution, batch norm (NAS-Bench-201)",
    parameters: &[Parameter::number("k", 3, "side of the window")],
    build: |site, x| {
        let conv = OpSpec::conv(site.channels, site.number("k"), site.stride);
        let y = site.add("relu", OpSpec::Relu, &[x])?;
        let y = site.add("conv", conv, &[y])?;
        site.add("norm", NORM, &[y])
    },
    examples: &[Example::new("nor_conv", [4, 6, 5], 4, 1), Example::new("nor_conv k1", [4, 6, 6], 6, 2)],
};

/// `skip`.
pub static SKIP: BlockKind = BlockKind {
    name: "skip",
    about: "the input itself where the place keeps its shape; else what brings it into shape",
    parameters: &[Parameter::word(
        "how",
        &["factorized", "projected"],
        "two 1x1 convolutions, the second one pixel off (DARTS), or one, with batch norm and rectifier (FBNet)",
    )],
    build: |site, x| {
        if site.stride == 1 && site.shape(x).c == site.channels {
            return Ok(x);
        }
        if site.number("how") == 1 {
            let conv = OpSpec::conv(site.channels, 1, site.stride);
            let y = site.add("conv", conv, &[x])?;
            let y = site.add("norm", NORM, &[y])?;
            return site.add("relu", OpSpec::Relu, &[y]);
        }
        let shape = site.shape(x);
        if site.stride != 2 || !shape.h.is_multiple_of(2) || !shape.w.is_multiple_of(2) {
            return Err(
                site.refuse(x, "it halves even maps, or keeps the shape; `skip projected` does the rest")
            );
        }
        let (channels, relu) = (site.channels, site.add("relu", OpSpec::Relu, &[x])?);
        let even = site.add("conv1", OpSpec::conv(channels / 2, 1, 2), &[relu])?;
        let crop = site.add("crop", OpSpec::Crop { top: 1, left: 1 }, &[relu])?;
        let odd = site.add("conv2", OpSpec::conv(channels - channels / 2, 1, 2), &[crop])?;
        let both = site.add("concat", OpSpec::Concat, &[even, odd])?;
        site.add("norm", NORM, &[both])
    },
    examples: &[Example::new("skip", [4, 6, 6], 6, 2), Example::new("skip projected", [4, 6, 5], 6, 1)],
};

/// Two operators, a 1×1 convolution to the place's channels, and a norm.
fn rectified(
    site: &mut Site<'_>,
    mut x: NodeId,
    first: [(&str, OpSpec); 2],
    [pointwise, norm]: [&str; 2],
) -> Result<NodeId, BlockError> {
    for (name, op) in first {
        x = site.add(name, op, &[x])?;
    }
    x = site.add(pointwise, OpSpec::conv(site.channels, 1, 1), &[x])?;
    site.add(norm, NORM, &[x])
}
