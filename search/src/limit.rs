//! What a search is held to: additive quantities of the deployed network, each with a limit.

use std::fmt;

use lathe_latency_db::CostTable;
use lathe_spaces::{Genotype, Micros, Space, SpaceError};
use serde::{Deserialize, Serialize};

use crate::{
    derive::{DeriveError, kept_of},
    objective::{Costs, expected},
    scores::Scores,
    whole::{Extremes, WholeCosts},
};

/// A quantity of the deployed network that is a sum over its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Latency on a device, in microseconds.
    Latency,
    /// Weighted mean over several devices of latency / target; 1 meets the targets on average.
    WeightedLatency,
    /// Multiply-accumulates of one image.
    Macs,
    /// Learned parameters.
    Parameters,
}

impl Quantity {
    /// A value of this quantity in words, with its unit.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Latency => Micros(value).to_string(),
            Self::WeightedLatency => format!("{value:.3} of the targets"),
            Self::Macs => format!("{:.3} M multiply-accumulates", value / 1e6),
            Self::Parameters => format!("{:.1} k parameters", value / 1e3),
        }
    }
}

/// One quantity and its limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Name, unique in a run: `latency on local`, `macs`.
    pub name: String,
    /// What is limited.
    pub quantity: Quantity,
    /// What every part costs at deployment widths.
    pub costs: Costs,
    /// Largest value that the upper bound may have.
    pub at_most: f64,
    /// From the sum of the costs to the upper bound: at least 1, and 1 for what is counted.
    pub upper_factor: f64,
    /// What whole networks cost, in spaces where costs of parts do not add up; `costs` is empty then. No process
    /// tells another one of it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Whole>,
}

/// Costs of whole networks, and what a space reaches in them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Whole {
    /// The costs.
    pub costs: WholeCosts,
    /// Least and greatest mean, as far as they were found.
    pub reachable: [f64; 2],
    /// The network with the least upper bound that was found.
    pub least: Genotype,
}

/// A network's value under one limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitValue {
    /// Name of the limit.
    pub limit: String,
    /// What is limited.
    pub quantity: Quantity,
    /// Largest value that the upper bound may have.
    pub at_most: f64,
    /// The network's upper bound.
    pub upper: f64,
}

impl fmt::Display for LimitValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value| self.quantity.show(value);
        write!(f, "{}: {}, at most {} allowed", self.limit, show(self.upper), show(self.at_most))
    }
}

impl Limit {
    /// Name of the limit that [`Limit::weighted`] makes.
    pub const WEIGHTED: &'static str = "weighted latency";

    /// A target for the latency on the device of a cost table.
    ///
    /// # Errors
    /// [`DeriveError::Space`] and [`DeriveError::Cost`] for a table that is not one of this space.
    pub fn latency(
        name: &str,
        space: &Space,
        table: &CostTable,
        target: Micros,
    ) -> Result<Self, DeriveError> {
        if table.space != space.name {
            return Err(DeriveError::Space { expected: space.name.clone(), got: table.space.clone() });
        }
        let limit = Self {
            name: name.to_owned(),
            quantity: Quantity::Latency,
            costs: Costs::new(space, table),
            at_most: target.0,
            upper_factor: table.upper_factor(),
            whole: None,
        };
        limit.check(space)?;
        Ok(limit)
    }

    /// A limit on what whole networks cost.
    pub fn whole(name: &str, quantity: Quantity, costs: WholeCosts, ends: Extremes, at_most: f64) -> Self {
        let Extremes { range, least } = ends;
        Self {
            name: name.to_owned(),
            quantity,
            costs: Costs { fixed: 0.0, choices: Vec::new() },
            at_most,
            upper_factor: 1.0,
            whole: Some(Whole { costs, reachable: range, least }),
        }
    }

    /// A limit on the multiply-accumulates of one image.
    pub fn macs(space: &Space, at_most: f64) -> Result<Self, SpaceError> {
        let costs = Costs::counted(space, |part| part.graph.macs())?;
        Ok(Self {
            name: "macs".into(),
            quantity: Quantity::Macs,
            costs,
            at_most,
            upper_factor: 1.0,
            whole: None,
        })
    }

    /// A limit on the learned parameters.
    pub fn parameters(space: &Space, at_most: f64) -> Result<Self, SpaceError> {
        let costs = Costs::counted(space, |part| part.graph.parameter_count())?;
        let (name, quantity) = ("parameters".into(), Quantity::Parameters);
        Ok(Self { name, quantity, costs, at_most, upper_factor: 1.0, whole: None })
    }

    /// One limit in place of several: Σ weight · upper bound / limit, over Σ weight, at most 1. `None` without
    /// any limit, or if the weights do not add up to something above zero.
    pub fn weighted(parts: &[(Self, f64)]) -> Option<Self> {
        let total: f64 = parts.iter().map(|(_, weight)| weight).sum();
        let (first, _) = parts.first().filter(|_| total > 0.0)?;
        let factors: Vec<f64> =
            parts.iter().map(|(part, weight)| weight / total * part.upper_factor / part.at_most).collect();
        let sum = |value: &dyn Fn(&Costs) -> f64| -> f64 {
            parts.iter().zip(&factors).map(|((part, _), factor)| factor * value(&part.costs)).sum()
        };
        let rows = first.costs.choices.iter().enumerate();
        let choices = rows
            .map(|(slot, row)| {
                (0..row.len()).map(|choice| sum(&|costs| costs.choices[slot][choice])).collect()
            })
            .collect();
        Some(Self {
            name: Self::WEIGHTED.into(),
            quantity: Quantity::WeightedLatency,
            costs: Costs { fixed: sum(&|costs| costs.fixed), choices },
            at_most: 1.0,
            upper_factor: 1.0,
            whole: None,
        })
    }

    /// The sum of a network's costs.
    pub fn mean(&self, space: &Space, genotype: &Genotype) -> f64 {
        if let Some(whole) = &self.whole {
            return whole.costs.at(space, genotype)[0];
        }
        let kept = kept_of(space, genotype).into_iter();
        self.costs.fixed + kept.map(|kept| self.costs.choices[kept.slot][kept.choice]).sum::<f64>()
    }

    /// The upper bound of a network's value: its costs times the upper factor, or what the model of whole networks
    /// says.
    pub fn upper(&self, space: &Space, genotype: &Genotype) -> f64 {
        if let Some(whole) = &self.whole {
            return whole.costs.at(space, genotype)[1];
        }
        self.mean(space, genotype) * self.upper_factor
    }

    /// A network's value under this limit.
    pub fn value(&self, space: &Space, genotype: &Genotype) -> LimitValue {
        LimitValue {
            limit: self.name.clone(),
            quantity: self.quantity,
            at_most: self.at_most,
            upper: self.upper(space, genotype),
        }
    }

    /// Smallest and largest sum of costs of any network of the space.
    pub fn reachable(&self, space: &Space) -> [f64; 2] {
        if let Some(whole) = &self.whole {
            return whole.reachable;
        }
        self.costs.reachable(space)
    }

    /// Expected sum of costs under Gumbel-top-k sampling; see [`expected_latency`](crate::expected_latency).
    pub fn expected(&self, space: &Space, scores: &Scores, temperature: f64) -> f64 {
        expected(space, scores, &self.costs, temperature)
    }

    /// What the sum of costs may be so that the upper bound keeps the limit.
    pub fn mean_at_most(&self) -> f64 {
        self.at_most / self.upper_factor
    }

    /// That there is a finite cost for every slot and choice of the space.
    pub(crate) fn check(&self, space: &Space) -> Result<(), DeriveError> {
        if self.whole.is_some() {
            return Err(DeriveError::Table(format!("`{}` is no sum over the parts of a network", self.name)));
        }
        let slots = space.slots();
        let fits = self.costs.choices.len() == slots.len()
            && slots
                .iter()
                .zip(&self.costs.choices)
                .all(|(slot, row)| space.edge(*slot).choices.len() == row.len());
        if !fits {
            return Err(DeriveError::Space {
                expected: space.name.clone(),
                got: format!("another one, by the costs of `{}`", self.name),
            });
        }
        match self.costs.missing() {
            Some((slot, choice)) => {
                Err(DeriveError::Cost { slot, choice: space.edge(slots[slot]).choices[choice].clone() })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
mod tests {
    use lathe_spaces::{NetworkOptions, Stream};

    use super::*;
    use crate::fixtures;

    #[test]
    fn counts_of_the_parts_add_up_to_the_deployed_network() {
        let space = fixtures::darts_of(8, 5, 16);
        let (macs, parameters) = (Limit::macs(&space, 1.0).unwrap(), Limit::parameters(&space, 1.0).unwrap());
        let [least, most] = macs.reachable(&space);
        for index in 0..10 {
            let genotype = space.sample(&mut Stream::new(3, "test limit", index));
            let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
            assert_eq!(macs.mean(&space, &genotype), graph.macs() as f64);
            assert_eq!(parameters.mean(&space, &genotype), graph.parameter_count() as f64);
            assert!((least..=most).contains(&(graph.macs() as f64)));
        }
    }

    #[test]
    fn the_reachable_range_is_that_of_all_networks() {
        let space = fixtures::small();
        let limit = Limit::latency("l", &space, &fixtures::table(&space, 7), Micros(1.0)).unwrap();
        let all: Vec<f64> =
            space.enumerate().unwrap().map(|genotype| limit.mean(&space, &genotype)).collect();
        let [least, most] = limit.reachable(&space);
        assert!((all.iter().copied().fold(f64::INFINITY, f64::min) - least).abs() < 1e-9);
        assert!((all.iter().copied().fold(0.0, f64::max) - most).abs() < 1e-9);
    }

    #[test]
    fn a_weighted_limit_is_the_weighted_mean_of_the_ratios() {
        let space = fixtures::small();
        let part = |seed: u64, target: f64| {
            Limit::latency("l", &space, &fixtures::table(&space, seed), Micros(target)).unwrap()
        };
        let (a, b) = (part(1, 300.0), part(2, 500.0));
        let both = Limit::weighted(&[(a.clone(), 1.0), (b.clone(), 3.0)]).unwrap();
        let genotype = space.sample(&mut Stream::new(3, "test limit", 0));
        let by_hand = (a.upper(&space, &genotype) / 300.0 + 3.0 * b.upper(&space, &genotype) / 500.0) / 4.0;
        assert!((both.upper(&space, &genotype) - by_hand).abs() < 1e-12);
        assert!(Limit::weighted(&[(a, 0.0)]).is_none());
    }
}
