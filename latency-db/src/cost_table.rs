//! What the search sees of latency: a plain table of numbers.

use std::{collections::BTreeMap, fmt, io, path::PathBuf};

use lathe_spaces::{Genotype, GenotypeError, Micros, Slot, Space};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Provenance;

/// How an answer was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The very network was measured on the device.
    Measured,
    /// Composed from measured parts, within the range of the measured networks.
    Interpolated,
    /// Composed from measured parts, outside the range of the measured networks.
    Extrapolated,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Measured => "measured",
            Self::Interpolated => "interpolated",
            Self::Extrapolated => "extrapolated",
        })
    }
}

/// A predicted latency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Expected latency.
    pub mean: Micros,
    /// Standard deviation of the prediction's error.
    pub sigma: Micros,
    /// Lower end of the 90 % interval.
    pub low: Micros,
    /// Upper end of the 90 % interval.
    pub high: Micros,
    /// How it was come by.
    pub source: Source,
}

/// Latency of every choice at every slot at deployment widths, summed over all copies of the block
/// in the network, plus the part that every network has. The end-to-end composition is already in
/// the numbers: a genotype's latency is `fixed` plus the sum of its picks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostTable {
    /// Space that it belongs to.
    pub space: String,
    /// Fingerprint of the device.
    pub device: String,
    /// Where the measurements come from.
    pub provenance: Provenance,
    /// Latency of what every network of the space has.
    pub fixed: Micros,
    /// Per slot and choice.
    pub slots: Vec<SlotCosts>,
    /// Standard deviation of the relative error of a prediction (k-fold).
    pub relative_sigma: f64,
    /// 5 % and 95 % quantiles of measured / predicted (k-fold).
    pub ratio_quantiles: [f64; 2],
    /// Smallest and largest end-to-end latency among the measured networks.
    pub measured_range: [Micros; 2],
}

/// The choices of one slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotCosts {
    /// Place.
    pub slot: Slot,
    /// Latency per choice.
    pub choices: BTreeMap<String, Micros>,
}

/// What can go wrong with a table. The messages complete "failed to …".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CostError {
    /// The table belongs to another space.
    #[error("use a cost table of the space `{table}` for `{space}`; fit one: `lathe fit`")]
    OtherSpace {
        /// Space of the table.
        table: String,
        /// Space that was asked about.
        space: String,
    },
    /// The genotype is not of the space.
    #[error(transparent)]
    Genotype(#[from] GenotypeError),
    /// The table has no entry for a choice of the space.
    #[error(
        "find `{choice}` at block {}, node {}, edge {} in the cost table; it was fitted for another version of the \
         space: fit it again with `lathe fit`",
        slot.block, slot.node, slot.edge
    )]
    NoCost {
        /// Place.
        slot: Slot,
        /// Choice.
        choice: String,
    },
    /// A table is never overwritten.
    #[error("write the cost table {}: the file exists; name another one or remove it first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{action} the cost table {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not a cost table.
    #[error("read the cost table {}: {source}; write it again with `lathe fit`", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Written by a later version of Lathe.
    #[error(
        "read the cost table {}: it has format {found}, and this version of lathe reads up to {supported}; \
         use a newer lathe",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that can be read.
        supported: u32,
    },
}

impl CostTable {
    /// Latency of a choice at a slot, over all copies of the block; `None` if the table lacks it.
    pub fn cost(&self, slot: Slot, choice: &str) -> Option<Micros> {
        self.slots.iter().find(|costs| costs.slot == slot)?.choices.get(choice).copied()
    }

    /// Expected latency of a genotype: `fixed` plus its picks.
    pub fn mean(&self, space: &Space, genotype: &Genotype) -> Result<Micros, CostError> {
        Ok(self.fixed + self.picked(space, genotype)?.into_iter().map(|(_, cost)| cost).sum())
    }

    /// Expected latency of a genotype with the error that held-out networks had.
    ///
    /// The source is [`Source::Interpolated`] or [`Source::Extrapolated`]: the table doesn't know
    /// which networks were measured, so it never says [`Source::Measured`].
    pub fn predict(&self, space: &Space, genotype: &Genotype) -> Result<Prediction, CostError> {
        let mean = self.mean(space, genotype)?;
        let [fastest, slowest] = self.measured_range;
        Ok(Prediction {
            mean,
            sigma: mean * self.relative_sigma,
            low: mean * self.ratio_quantiles[0],
            high: mean * self.ratio_quantiles[1],
            source: if fastest <= mean && mean <= slowest {
                Source::Interpolated
            } else {
                Source::Extrapolated
            },
        })
    }

    /// Where a genotype's latency goes: per choice name, plus `fixed`; largest first.
    pub fn shares(&self, space: &Space, genotype: &Genotype) -> Result<Vec<(String, Micros)>, CostError> {
        let mut shares = BTreeMap::from([("fixed", self.fixed)]);
        for (choice, cost) in self.picked(space, genotype)? {
            *shares.entry(choice).or_default() += cost;
        }
        let mut shares: Vec<(String, Micros)> =
            shares.into_iter().map(|(choice, cost)| (choice.to_owned(), cost)).collect();
        shares.sort_by(|left, right| right.1.total_cmp(&left.1));
        Ok(shares)
    }

    /// Smallest and largest expected latency in the space. Exact, because latency is additive: every
    /// node keeps its cheapest (dearest) edges, each with its cheapest (dearest) choice.
    pub fn reachable(&self, space: &Space) -> Result<[Micros; 2], CostError> {
        self.check_space(space)?;
        let mut nodes: BTreeMap<(usize, usize), (Vec<f64>, Vec<f64>)> = BTreeMap::new();
        for slot in space.slots() {
            let costs = space
                .deployable(slot)
                .into_iter()
                .map(|choice| self.known(slot, choice).map(|cost| cost.0))
                .collect::<Result<Vec<f64>, _>>()?;
            let edges = nodes.entry((slot.block, slot.node)).or_default();
            edges.0.extend(costs.iter().copied().min_by(f64::total_cmp));
            edges.1.extend(costs.iter().copied().max_by(f64::total_cmp));
        }
        let mut range = [self.fixed, self.fixed];
        for ((block, node), (mut cheapest, mut dearest)) in nodes {
            let keep = space.blocks[block].nodes[node].keep;
            cheapest.sort_by(f64::total_cmp);
            dearest.sort_by(|left, right| right.total_cmp(left));
            range[0] += Micros(cheapest.iter().take(keep).sum());
            range[1] += Micros(dearest.iter().take(keep).sum());
        }
        Ok(range)
    }

    /// What an expected latency is multiplied by for the upper bound that a derivation must keep: the
    /// 95 % quantile of measured / predicted among held-out networks, at least 1.
    pub fn upper_factor(&self) -> f64 {
        self.ratio_quantiles[1].max(1.0)
    }

    fn picked<'a>(&self, space: &Space, genotype: &'a Genotype) -> Result<Vec<(&'a str, Micros)>, CostError> {
        self.check_space(space)?;
        space.validate(genotype)?;
        let mut costs = Vec::new();
        for (block, picks) in genotype.blocks.iter().enumerate() {
            for (node, picks) in picks.nodes.iter().enumerate() {
                for pick in picks {
                    // A valid genotype's picks all have a slot.
                    if let Some(slot) = space.slot_of(block, node, pick) {
                        costs.push((pick.choice.as_str(), self.known(slot, &pick.choice)?));
                    }
                }
            }
        }
        Ok(costs)
    }

    fn known(&self, slot: Slot, choice: &str) -> Result<Micros, CostError> {
        self.cost(slot, choice).ok_or_else(|| CostError::NoCost { slot, choice: choice.to_owned() })
    }

    fn check_space(&self, space: &Space) -> Result<(), CostError> {
        if self.space == space.name {
            Ok(())
        } else {
            Err(CostError::OtherSpace { table: self.space.clone(), space: space.name.clone() })
        }
    }
}
