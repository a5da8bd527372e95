//! What a run believes of the latency of a device: a table of parts, or a model of kernels where parts don't add up.

use std::{collections::BTreeMap, path::Path};

use lathe_latency_db::{CostTable, Prediction, kernels::KernelModel};
use lathe_spaces::{Genotype, Micros, Skeleton, Space};
use miette::Report;

use crate::failure::failed;

/// Kinds of kernels that are told one by one; the rest is one share.
const MOST_KINDS: usize = 12;

/// A fitted model of one device.
#[derive(Clone, Debug)]
pub enum LatencyModel {
    /// Latencies of parts.
    Table(Box<CostTable>),
    /// Latencies of kernels.
    Kernels(Box<KernelModel>),
}

/// Whether the networks of a space are sums of parts.
pub const fn is_additive(space: &Space) -> bool {
    !matches!(space.skeleton, Skeleton::Elastic(_))
}

impl LatencyModel {
    /// Reads the model that a run of this space wrote.
    pub fn load(path: &Path, space: &Space) -> Result<Self, Report> {
        if is_additive(space) {
            let (table, _) = CostTable::load(path).map_err(failed)?;
            return Ok(Self::Table(Box::new(table)));
        }
        let (model, _) = KernelModel::load(path).map_err(failed)?;
        Ok(Self::Kernels(Box::new(model)))
    }

    /// The latency of a network of the space.
    pub fn predict(&self, space: &Space, genotype: &Genotype) -> Result<Prediction, Report> {
        match self {
            Self::Table(table) => table.predict(space, genotype).map_err(failed),
            Self::Kernels(model) => {
                let graph = space.deployed(genotype).map_err(failed)?;
                Ok(model.predict(&graph).prediction)
            }
        }
    }

    /// What each kind of part takes of a network's latency, the most first.
    pub fn shares(&self, space: &Space, genotype: &Genotype) -> Result<Vec<(String, Micros)>, Report> {
        let model = match self {
            Self::Table(table) => return table.shares(space, genotype).map_err(failed),
            Self::Kernels(model) => model,
        };
        let graph = space.deployed(genotype).map_err(failed)?;
        let predicted = model.predict(&graph);
        let mut kinds: BTreeMap<String, f64> = BTreeMap::new();
        for kernel in predicted.kernels {
            *kinds.entry(kernel.kind).or_default() += kernel.latency.0;
        }
        let mut shares: Vec<(String, Micros)> =
            kinds.into_iter().map(|(kind, micros)| (kind, Micros(micros))).collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        let others: f64 = shares.iter().skip(MOST_KINDS).map(|(_, latency)| latency.0).sum();
        shares.truncate(MOST_KINDS);
        shares.push(("other kernels and the run itself".into(), predicted.rest + Micros(others)));
        Ok(shares)
    }
}
