//! Random scores and cost tables for the tests of this crate.

use lathe_latency_db::{CostTable, Provenance, SlotCosts};
use lathe_spaces::{BlockSpec, DartsSkeleton, EdgeSpec, Micros, NodeSpec, Skeleton, Space, Stem, Stream};
use rand::RngExt as _;

use crate::{Method, ObjectiveSettings, Scores, Sides};

pub(crate) fn darts() -> Space {
    darts_of(36, 20, 32)
}

pub(crate) fn darts_of(width: usize, layers: usize, resolution: usize) -> Space {
    Space::darts(DartsSkeleton { stem: Stem::Cifar, width, layers, resolution, classes: 10 })
}

/// Two blocks of two nodes with three deployable choices; keeps 2 of 2, 2 of 3, 1 of 2 and 1 of 3
/// edges: 13,122 networks, few enough to try them all.
pub(crate) fn small() -> Space {
    let choices: Vec<String> =
        ["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3"].map(str::to_owned).to_vec();
    let node = |edges: usize, keep: usize| NodeSpec {
        edges: (0..edges).map(|from| EdgeSpec { from, choices: choices.clone() }).collect(),
        keep,
    };
    let block = |name: &str, keep: usize| BlockSpec {
        name: name.to_owned(),
        inputs: 2,
        nodes: vec![node(2, keep), node(3, keep)],
    };
    Space {
        name: "small".into(),
        blocks: vec![block("normal", 2), block("reduce", 1)],
        relaxation_only: vec!["none".into()],
        skeleton: Skeleton::Darts(DartsSkeleton {
            stem: Stem::Cifar,
            width: 8,
            layers: 3,
            resolution: 8,
            classes: 2,
        }),
    }
}

/// Dual ascent to no target.
#[cfg(feature = "torch")]
pub(crate) fn objective() -> ObjectiveSettings {
    ObjectiveSettings {
        target: None,
        method: Method::Dual,
        weight: 0.0,
        exponent: 1.0,
        sides: Sides::Upper,
        dual_rate: 0.5,
        dual_max: 5.0,
        temperature_start: 1.0,
        temperature_end: 0.2,
        anneal_epochs: 1,
        measure_every_epochs: None,
    }
}

/// Logits uniform in ±`scale`.
pub(crate) fn scores(space: &Space, scale: f64, seed: u64) -> Scores {
    let mut random = Stream::new(seed, "test scores", 0);
    let mut scores = Scores::uniform(space);
    for logit in scores.alpha.iter_mut().flatten().chain(&mut scores.beta) {
        *logit = random.random_range(-scale..=scale);
    }
    scores
}

/// Costs uniform in 1 … 100 µs for all deployable choices, a fixed part of 50 µs, upper factor 1.1.
pub(crate) fn table(space: &Space, seed: u64) -> CostTable {
    let mut random = Stream::new(seed, "test costs", 0);
    let slots = space
        .slots()
        .into_iter()
        .map(|slot| {
            let names = space.deployable(slot).into_iter().map(str::to_owned).collect::<Vec<_>>();
            let choices =
                names.into_iter().map(|name| (name, Micros(random.random_range(1.0..100.0)))).collect();
            SlotCosts { slot, choices }
        })
        .collect();
    CostTable {
        space: space.name.clone(),
        device: "0123456789abcdef".into(),
        provenance: Provenance::Measured,
        fixed: Micros(50.0),
        slots,
        relative_sigma: 0.05,
        ratio_quantiles: [0.9, 1.1],
        measured_range: [Micros(100.0), Micros(1000.0)],
    }
}
