//! Inverted bottlenecks: wide in the middle, depthwise there.

use super::{
    BlockError, BlockKind, Example, Parameter, Site,
    site::{ACTIVATIONS, Conv, in_eights},
};
use crate::NodeId;

/// `mbconv`.
pub static MBCONV: BlockKind = BlockKind {
    name: "mbconv",
    about: "inverted bottleneck (Sandler et al. 2018), norms behind every convolution or, as LowFormer, the last",
    parameters: &[
        Parameter::number("k", 3, "side of the depthwise window"),
        Parameter::number("e", 6, "width of the middle over that of the input"),
        Parameter::word("act", ACTIVATIONS, "activation"),
        Parameter::flag("se", "squeeze-and-excite in the middle, of a quarter of its width"),
        Parameter::flag("lastnorm", "biases in place of the norms in the middle"),
        Parameter::flag("nores", "the input is not added"),
    ],
    build: |site, x| {
        let (kernel, wide) = (site.number("k"), site.shape(x).c * site.number("e"));
        let last = site.flag("lastnorm");
        let act = site.activation();
        let expand = Conv::pointwise(wide).normed(!last).biased(last).then(act);
        let mut y = site.conv("expand", x, expand)?;
        let depthwise = Conv::depthwise(wide, kernel, site.stride).normed(!last).biased(last).then(act);
        y = site.conv("depthwise", y, depthwise)?;
        if site.flag("se") {
            y = site.squeeze_excite("se", y, in_eights(wide / 4), act)?;
        }
        y = site.conv("project", y, Conv::pointwise(site.channels))?;
        site.residual(x, y)
    },
    examples: &[
        Example::new("mbconv k3 e4 hard_swish lastnorm", [6, 7, 6], 6, 1),
        Example::new("mbconv k5 e2 relu6 se", [4, 8, 8], 6, 2),
    ],
};

/// `ibn`.
pub static IBN: BlockKind = BlockKind {
    name: "ibn",
    about: "inverted bottleneck of MobileDets (Xiong et al. 2021); e1 has no expanding convolution",
    parameters: &[
        Parameter::number("k", 3, "side of the depthwise window"),
        Parameter::number("e", 8, "width of the middle over that of the input"),
        Parameter::word("act", &["relu6", "hard_swish", "relu", "swish"], "activation"),
        Parameter::flag("se", "squeeze-and-excite in the middle, of a quarter of its width in eights"),
        Parameter::flag("nores", "the input is not added"),
        Parameter::flag("same", "zeros as TensorFlow's SAME"),
    ],
    build: inverted_bottleneck,
    examples: &[
        Example::new("ibn k3 e1 se hard_swish same", [8, 6, 6], 4, 1),
        Example::new("ibn k5 e4 se same", [4, 8, 7], 6, 2),
        Example::new("ibn e2", [4, 5, 5], 4, 1),
    ],
};

fn inverted_bottleneck(site: &mut Site<'_>, x: NodeId) -> Result<NodeId, BlockError> {
    let (kernel, expansion) = (site.number("k"), site.number("e"));
    let wide = site.shape(x).c * expansion;
    let same = site.flag("same");
    let act = site.activation();
    let mut y = x;
    if expansion > 1 {
        y = site.conv("expand", y, Conv::pointwise(wide).then(act))?;
    }
    y = site.conv("depthwise", y, Conv::depthwise(wide, kernel, site.stride).same(same).then(act))?;
    if site.flag("se") {
        y = site.squeeze_excite("se", y, in_eights(wide / 4), act)?;
    }
    y = site.conv("project", y, Conv::pointwise(site.channels))?;
    site.residual(x, y)
}
