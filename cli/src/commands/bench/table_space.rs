//! The spaces that published tables are of, at the sizes they were measured.

use lathe_latency_db::LatencyTable;
use lathe_spaces::{Nas201Skeleton, NetworkOptions, Space};
use miette::Report;

use crate::{arguments::TableSpace, failure::failed};

/// NAS-Bench-201 as HW-NAS-Bench measured it (CIFAR-10), FBNet at ImageNet's size.
pub fn space(choice: TableSpace) -> Space {
    match choice {
        TableSpace::Nb201 => {
            Space::nas201(Nas201Skeleton { width: 16, cells: 5, resolution: 32, classes: 10 })
        }
        TableSpace::Fbnet => Space::fbnet(224, 1000),
    }
}

/// Multiply-accumulates of every row; only for NAS-Bench-201, whose skeleton is known exactly.
pub fn macs(choice: TableSpace, space: &Space, latencies: &LatencyTable) -> Result<Option<Vec<f64>>, Report> {
    if choice == TableSpace::Fbnet {
        return Ok(None);
    }
    let of = |genotype| {
        let network = space.network(genotype, NetworkOptions::default()).map_err(failed)?;
        Ok(network.macs() as f64)
    };
    latencies.genotypes().iter().map(of).collect::<Result<_, Report>>().map(Some)
}
