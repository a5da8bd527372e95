//! What people search over: parts of networks, each with a text form such as `ibn k5 e4 se`.
//!
//! A block is made of primitives ([`OpSpec`](crate::OpSpec)), so whatever knows primitives knows blocks:
//! engines, file formats, counts, predictors. A new block is one file of this folder and one line of
//! [`BLOCKS`].

mod cas_vit;
mod cells;
mod conv;
mod fbnet;
mod fused;
mod hgnet;
mod inverted;
mod kind;
mod layers;
mod lowformer;
mod mhsa;
mod sesr;
mod shvit;
mod site;
mod text;
mod tinyvit;
mod tucker;

pub use kind::{BlockKind, Example, Parameter, Values};
pub use sesr::collapse;
pub use text::{Block, BlockError};

pub(crate) use site::Site;

/// All kinds of blocks, in the order in which they are listed.
pub static BLOCKS: &[&BlockKind] = &[
    &conv::CONV,
    &conv::DEPTHWISE,
    &inverted::MBCONV,
    &inverted::IBN,
    &fused::FUSED,
    &tucker::TUCKER,
    &lowformer::LOWFORMER,
    &mhsa::MHSA,
    &shvit::SHVIT,
    &shvit::STEM16,
    &shvit::MERGING,
    &cas_vit::CAS_VIT,
    &hgnet::STEM,
    &hgnet::BLOCK,
    &tinyvit::STEM,
    &tinyvit::MBCONV,
    &tinyvit::MERGING,
    &tinyvit::BLOCK,
    &sesr::COLLAPSIBLE,
    &cells::SEPARABLE,
    &cells::DILATED,
    &cells::NORMAL,
    &cells::SKIP,
    &fbnet::FBNET,
    &layers::POOL,
    &layers::NORM,
    &layers::ACTIVATION,
    &layers::LINEAR,
    &layers::DEPTH_TO_SPACE,
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
