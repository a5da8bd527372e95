//! The collapsible linear block of SESR (Bhardwaj et al. 2022).

use super::{
    BlockKind, Example, Parameter,
    site::{ACTIVATIONS, Conv},
};

/// `collapsible`.
pub static COLLAPSIBLE: BlockKind = BlockKind {
    name: "collapsible",
    about: "wide linear block that is trained expanded and runs as one convolution (SESR)",
    parameters: &[
        Parameter::number("k", 3, "side of the window"),
        Parameter::number("p", 256, "width of the middle while it is expanded"),
        Parameter::word("act", ACTIVATIONS, "activation behind it"),
        Parameter::flag("expanded", "as it is trained: kxk to the middle, 1x1 to the output"),
        Parameter::flag("res", "the input is added in front of the activation; part of the one convolution"),
    ],
    build: |site, x| {
        if site.flag("res") {
            site.keeps(x)?;
        }
        let (kernel, act) = (site.number("k"), site.activation());
        if !site.flag("expanded") {
            // The sum with the input is a one in the middle of the window.
            return site.conv("conv", x, Conv::square(site.channels, kernel, site.stride).plain().then(act));
        }
        let wide = site.conv("expand", x, Conv::square(site.number("p"), kernel, site.stride).plain())?;
        let mut y = site.conv("project", wide, Conv::pointwise(site.channels).plain())?;
        if site.flag("res") {
            y = site.sum("sum", x, y)?;
        }
        site.activate("act", y, act)
    },
    examples: &[
        Example::new("collapsible k5 p16 prelu", [1, 6, 5], 4, 1),
        Example::new("collapsible k3 p8 expanded res prelu", [4, 5, 5], 4, 1),
    ],
};
