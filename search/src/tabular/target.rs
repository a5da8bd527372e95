//! A device of a table, joined with accuracies.

use std::collections::BTreeMap;

use lathe_latency_db::{
    LatencyTable,
    predictor::{Codes, Prior, benchmark},
};
use lathe_spaces::{Genotype, NetworkOptions, OpSpec, Skeleton, Space, SpaceError};
use rayon::prelude::*;

use super::{TabularError, surrogate::Features};
use crate::evolution::{RowIndex, pareto_front};

/// Latencies of a column that makes a source by default.
const LEAST_OF_SOURCE: usize = 50;

/// What the architectures of a table are without any device: features and multiply-accumulates, row by row.
#[derive(Clone, Debug)]
pub(super) struct Architectures {
    features: Features,
    macs: Vec<f64>,
}

/// What a network is without what leads nowhere.
#[derive(Clone, Copy)]
struct Proxies {
    macs: f64,
    parameters: f64,
    /// Convolutions on the longest path.
    depth: f64,
}

impl Architectures {
    /// Of every row of the table.
    pub(super) fn of(table: &LatencyTable) -> Result<Self, SpaceError> {
        let macs = |genotype: &Genotype| {
            Ok(table.space().network(genotype, NetworkOptions::default())?.macs() as f64)
        };
        let macs = table.genotypes().par_iter().map(macs).collect::<Result<_, SpaceError>>()?;
        Ok(Self { features: features(table)?, macs })
    }
}

/// Which operation stands where (in the cell without dead edges), how often each occurs, depth, and the
/// logarithms of parameters and multiply-accumulates; then all products of two of the latter.
fn features(table: &LatencyTable) -> Result<Features, SpaceError> {
    let (positions, choices) = (table.encoding().positions(), table.encoding().choices());
    let live: Vec<&[u8]> =
        table.codes().iter().map(|codes| &codes.as_slice()[codes.as_slice().len() - positions..]).collect();
    let mut one_hot = Vec::new();
    let mut counts = Vec::new();
    for choice in 0..choices.len() as u8 {
        let is =
            |place: usize| live.iter().map(|codes| f64::from(u8::from(codes[place] == choice))).collect();
        one_hot.extend((0..positions).map(|place| -> Vec<f64> { is(place) }));
        if choices[usize::from(choice)] != "none" {
            let count = |codes: &&[u8]| -> f64 {
                codes.iter().map(|code| f64::from(u8::from(*code == choice))).sum()
            };
            counts.push(live.iter().map(count).collect::<Vec<f64>>());
        }
    }
    let proxies = proxies(table, &live)?;
    let of = |value: fn(&Proxies) -> f64| -> Vec<f64> { proxies.iter().map(value).collect() };
    counts.push(of(|proxies| proxies.macs.ln()));
    counts.push(of(|proxies| proxies.parameters.ln()));
    counts.push(of(|proxies| proxies.depth));
    let mut products = Vec::new();
    let centred: Vec<Vec<f64>> = counts.iter().map(|column| centred(column)).collect();
    for (index, left) in centred.iter().enumerate() {
        for right in &centred[index..] {
            products.push(left.iter().zip(right).map(|(left, right)| left * right).collect());
        }
    }
    Ok(Features::of_groups(vec![one_hot, counts, products]))
}

fn centred(column: &[f64]) -> Vec<f64> {
    let mean = column.iter().sum::<f64>() / column.len() as f64;
    column.iter().map(|value| value - mean).collect()
}

/// Proxies of every row; cells that are alike without their dead edges are built once.
fn proxies(table: &LatencyTable, live: &[&[u8]]) -> Result<Vec<Proxies>, SpaceError> {
    let mut space = table.space().clone();
    if let Skeleton::Nas201(skeleton) = &mut space.skeleton {
        // The stages differ by constants only: one cell each tells as much as five.
        skeleton.cells = 1;
    }
    let mut first: BTreeMap<&[u8], usize> = BTreeMap::new();
    for (row, codes) in live.iter().enumerate() {
        first.entry(codes).or_insert(row);
    }
    let different: Vec<(&[u8], usize)> = first.into_iter().collect();
    let choices = table.encoding().choices();
    let built: BTreeMap<&[u8], Proxies> = different
        .into_par_iter()
        .map(|(codes, row)| {
            let mut genotype = table.genotypes()[row].clone();
            let picks = genotype.blocks.iter_mut().flat_map(|block| &mut block.nodes).flatten();
            for (pick, code) in picks.zip(codes) {
                pick.choice.clone_from(&choices[usize::from(*code)]);
            }
            Ok((codes, Proxies::of(&space, &genotype)?))
        })
        .collect::<Result<_, SpaceError>>()?;
    Ok(live.iter().map(|codes| built[codes]).collect())
}

impl Proxies {
    fn of(space: &Space, genotype: &Genotype) -> Result<Self, SpaceError> {
        let graph = space.network(genotype, NetworkOptions::default())?;
        let mut depths: Vec<f64> = Vec::with_capacity(graph.nodes().len());
        for node in graph.nodes() {
            let before = node.inputs.iter().map(|&input| depths[input]).fold(0.0, f64::max);
            // What is multiplied by zero is no path.
            let dead = matches!(node.op, OpSpec::Zero { .. });
            let own = f64::from(u8::from(matches!(node.op, OpSpec::Conv2d { .. })));
            depths.push(if dead { 0.0 } else { before + own });
        }
        let depth = depths.iter().copied().fold(0.0, f64::max);
        Ok(Self { macs: graph.macs() as f64, parameters: graph.parameter_count() as f64, depth })
    }
}

/// What the columns of the sources (by default all that are not the target's device) tell of any device.
pub(super) fn prior(
    table: &LatencyTable,
    sources: Option<&[String]>,
    target: &str,
) -> Result<Prior, TabularError> {
    let is_default = sources.is_none();
    let mut sources = benchmark::sources(table, sources, target)?;
    if is_default {
        // A column with next to no numbers in it is no device to learn from.
        sources.retain(|source| {
            table.source(source).is_ok_and(|source| source.latencies.len() >= LEAST_OF_SOURCE)
        });
    }
    let devices = sources.iter().map(|source| table.source(source)).collect::<Result<Vec<_>, _>>()?;
    let population: Vec<&Codes> = table.codes().iter().collect();
    let failed = |source| TabularError::Predictor { target: target.to_owned(), source };
    Prior::new(table.encoding(), &population, &devices).map_err(failed)
}

/// A device column and the architectures whose latency and accuracy are both known.
pub(super) struct Target<'t> {
    pub name: &'t str,
    pub codes: Vec<&'t Codes>,
    /// Milliseconds.
    pub latencies: Vec<f64>,
    pub accuracies: Vec<f64>,
    pub macs: Vec<f64>,
    pub features: Features,
    pub index: RowIndex,
    pub prior: Prior,
    /// Rows that no other dominates, by rising latency.
    pub front: Vec<usize>,
    /// Accuracy of the median row, which hypervolumes are measured from.
    pub reference_accuracy: f64,
}

impl<'t> Target<'t> {
    pub(super) fn of(
        table: &'t LatencyTable,
        architectures: &Architectures,
        accuracies: &[Option<f64>],
        sources: Option<&[String]>,
        name: &'t str,
    ) -> Result<Self, TabularError> {
        let prior = prior(table, sources, name)?;
        let mut rows = Vec::new();
        let (mut latencies, mut known) = (Vec::new(), Vec::new());
        for (row, latency) in benchmark::known(table, name)? {
            if let Some(accuracy) = accuracies[row] {
                rows.push(row);
                latencies.push(latency);
                known.push(accuracy);
            }
        }
        let codes: Vec<&Codes> = rows.iter().map(|&row| &table.codes()[row]).collect();
        let positions = table.encoding().positions();
        let index = RowIndex::new(codes.iter().map(|codes| codes.as_slice()[..positions].to_vec()).collect());
        let points: Vec<Vec<f64>> =
            latencies.iter().zip(&known).map(|(latency, accuracy)| vec![*latency, -accuracy]).collect();
        let mut sorted = known.clone();
        sorted.sort_by(f64::total_cmp);
        Ok(Self {
            name,
            reference_accuracy: sorted.get(sorted.len() / 2).copied().unwrap_or(0.0),
            codes,
            macs: rows.iter().map(|&row| architectures.macs[row]).collect(),
            features: architectures.features.rows(&rows),
            index,
            prior,
            front: pareto_front(&points),
            latencies,
            accuracies: known,
        })
    }

    /// The most accurate row that meets a limit.
    pub(super) fn optimum(&self, limit_ms: f64) -> Option<usize> {
        // Accuracy rises along the front.
        self.front.iter().copied().rfind(|&row| self.latencies[row] <= limit_ms)
    }
}
