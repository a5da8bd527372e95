//! Pairs of which the authors say that one is faster than its multiply-accumulates tell.

use lathe_spaces::{Shape, Workload, ZooNetwork};
use miette::Report;

use super::{block, workload};
use crate::failure::failed;

/// Two workloads and what is published about them.
pub struct Direction {
    /// What is compared.
    pub title: String,
    /// What the authors say; never asserted.
    pub published: &'static str,
    /// The one in the numerator of the ratios.
    pub first: Workload,
    /// The one in the denominator.
    pub second: Workload,
}

/// All pairs, in single precision.
pub fn all() -> Result<Vec<Direction>, Report> {
    let mut all = Vec::new();
    let mut pair = |first: &str, second: &str, [channels, side]: [usize; 2], published: &'static str| {
        let input = Shape::new(1, channels, side, side);
        all.push(Direction {
            title: format!("{first} / {second}, {channels}x{side}x{side}"),
            published,
            first: block(first, input, channels)?,
            second: block(second, input, channels)?,
        });
        Ok::<(), Report>(())
    };
    for place in [[32, 56], [64, 28], [128, 14], [256, 7]] {
        let said = "LowFormer: fused costs less time than its MACs tell, most at few channels";
        pair("fused e4 hard_swish", "mbconv e4 hard_swish lastnorm", place, said)?;
    }
    for place in [[32, 80], [64, 40], [144, 20]] {
        pair("ibn e8", "fused e4", place, "MobileDets: early, fused is faster though it has more MACs")?;
    }
    let said = "SHViT: one head on some channels is faster than all heads";
    pair("mhsa h7", "shvit p48 attention", [224, 14], said)?;
    let said = "CAS-ViT: sums of gated queries and keys are faster than attention";
    pair("mhsa h3", "cas_vit mixer", [96, 28], said)?;
    let network = |name: &str| match ZooNetwork::named(name) {
        Some(network) => workload(&network.map_err(failed)?, None),
        None => Err(miette::miette!("failed to find {name}: it is missing from the zoo; please report this")),
    };
    all.push(Direction {
        title: "sesr-m5 expanded / collapsed, 1x180x320".into(),
        published: "SESR: collapsed is faster by more than its MACs tell",
        first: network("sesr-m5-expanded")?,
        second: network("sesr-m5")?,
    });
    Ok(all)
}
