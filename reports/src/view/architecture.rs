//! What the architecture parameters did.

use lathe_search::ArchSnapshot;
use lathe_spaces::{BlockSpec, Space};
use serde::Serialize;

use super::Section;
use crate::{
    genotype_text::{block_of, state_name},
    history::History,
    quantity::fixed,
};

/// α and β of every block over the epochs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Architecture {
    pub blocks: Vec<ArchBlock>,
    /// Choices, in the order of the first block, for the legend.
    pub choices: Vec<String>,
}

/// One block.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ArchBlock {
    pub name: String,
    pub choices: Vec<String>,
    /// Columns that panels are laid out in where there is room: one per state that edges start from.
    pub columns: usize,
    pub edges: Vec<ArchEdge>,
    pub nodes: Vec<ArchNode>,
    /// Largest weight of any choice, for a common scale.
    #[serde(skip)]
    pub largest: f64,
    #[serde(skip)]
    pub epochs: usize,
}

/// One edge.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ArchEdge {
    pub from: String,
    pub to: String,
    /// Place among the panels, from 1.
    pub row: usize,
    /// Place among the panels, from 1.
    pub column: usize,
    /// Choice with the largest weight after the last epoch.
    pub winner: String,
    /// Its weight.
    pub winner_weight: String,
    /// Weights after the last epoch, per choice.
    pub last: Vec<String>,
    /// β of the edge after the last epoch.
    pub beta: String,
    /// Points (epoch, weight) per choice.
    #[serde(skip)]
    pub series: Vec<Vec<(f64, f64)>>,
}

/// β of one node.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ArchNode {
    pub name: String,
    /// States that its edges start from.
    pub from: Vec<String>,
    /// Points (epoch, weight) per edge.
    #[serde(skip)]
    pub series: Vec<Vec<(f64, f64)>>,
}

pub(super) fn architecture(history: &History, own: Option<&Space>) -> Section<Architecture> {
    let Some(last) = history.epochs.iter().rev().find(|epoch| !epoch.arch.is_empty()) else {
        return Section::Missing("The record holds no architecture parameters yet.".into());
    };
    let blocks: Vec<ArchBlock> =
        last.arch.iter().filter_map(|snapshot| block(history, snapshot, own)).collect();
    if blocks.is_empty() {
        return Section::Missing("The record's architecture parameters are empty.".into());
    }
    let mut choices: Vec<String> = Vec::new();
    // Choices of stages differ from place to place: no legend holds them all.
    for choice in blocks.iter().filter(|_| own.is_none()).flat_map(|block| &block.choices) {
        if !choices.contains(choice) {
            choices.push(choice.clone());
        }
    }
    Section::Ready(Architecture { blocks, choices })
}

fn block(history: &History, last: &ArchSnapshot, own: Option<&Space>) -> Option<ArchBlock> {
    let sizes: Vec<usize> = last.alpha.iter().map(Vec::len).collect();
    let most = sizes.iter().copied().max().filter(|most| *most > 0)?;
    let spec = block_of(&last.block, &sizes, own);
    let mut places = places(spec.as_ref(), sizes.len());
    if own.is_some() {
        for (index, place) in places.iter_mut().enumerate() {
            place.from.clone_from(&last.block);
            place.to = STAGE
                .get(index)
                .map_or_else(|| format!("position {}", index - STAGE.len()), |choice| (*choice).to_owned());
        }
    }
    let choices: Vec<String> = spec.as_ref().and_then(|spec| spec.nodes.first()?.edges.first()).map_or_else(
        || (0..most).map(|choice| format!("choice {choice}")).collect(),
        |edge| edge.choices.clone(),
    );
    let uneven = sizes.iter().any(|size| *size != most);
    let choices = if uneven { (1..=most).map(|choice| choice.to_string()).collect() } else { choices };
    let of_edges: Vec<&Vec<String>> = spec
        .iter()
        .flat_map(|spec| &spec.nodes)
        .flat_map(|node| &node.edges)
        .map(|edge| &edge.choices)
        .collect();
    let snapshots: Vec<(f64, &ArchSnapshot)> = history
        .epochs
        .iter()
        .filter_map(|epoch| {
            let snapshot = epoch.arch.iter().find(|snapshot| snapshot.block == last.block)?;
            Some((epoch.epoch as f64 + 1.0, snapshot))
        })
        .collect();
    let series = |value: &dyn Fn(&ArchSnapshot) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = snapshots.iter().filter_map(|(epoch, snapshot)| Some((*epoch, value(snapshot)?)));
        points.filter(|(_, weight)| weight.is_finite()).collect()
    };
    let beta = |edge: usize| series(&|snapshot| snapshot.beta.get(edge).copied());
    let edges: Vec<ArchEdge> = last
        .alpha
        .iter()
        .zip(&places)
        .enumerate()
        .map(|(index, (weights, place))| {
            let winner =
                (0..weights.len()).max_by(|a, b| weights[*a].total_cmp(&weights[*b])).unwrap_or_default();
            let names = of_edges.get(index).copied().unwrap_or(&choices);
            let name =
                |choice: usize| names.get(choice).cloned().unwrap_or_else(|| format!("choice {choice}"));
            ArchEdge {
                from: place.from.clone(),
                to: place.to.clone(),
                row: place.row,
                column: place.column,
                winner: name(winner),
                winner_weight: weights.get(winner).map_or_else(String::new, |weight| fixed(*weight, 3)),
                last: weights.iter().map(|weight| fixed(*weight, 3)).collect(),
                beta: last.beta.get(index).map_or_else(|| "–".into(), |weight| fixed(*weight, 3)),
                series: (0..weights.len())
                    .map(|choice| series(&|snapshot| snapshot.alpha.get(index)?.get(choice).copied()))
                    .collect(),
            }
        })
        .collect();
    let mut nodes: Vec<ArchNode> = Vec::new();
    for (index, place) in places.iter().enumerate() {
        if nodes.last().is_none_or(|node| node.name != place.to) {
            nodes.push(ArchNode { name: place.to.clone(), from: Vec::new(), series: Vec::new() });
        }
        if let Some(node) = nodes.last_mut() {
            node.from.push(place.from.clone());
            node.series.push(beta(index));
        }
    }
    // A node with one edge has β = 1 always: nothing to see.
    nodes.retain(|node| node.from.len() > 1);
    let weights = edges.iter().flat_map(|edge| &edge.series).flatten().map(|(_, weight)| *weight);
    Some(ArchBlock {
        name: last.block.clone(),
        columns: places.iter().map(|place| place.column).max().unwrap_or(1),
        largest: weights.fold(0.0, f64::max),
        epochs: history.epochs.iter().map(|epoch| epoch.epochs).max().unwrap_or_default(),
        choices,
        edges,
        nodes,
    })
}

/// Where an edge leads, and where its panel stands.
struct Place {
    from: String,
    to: String,
    row: usize,
    column: usize,
}

/// What a stage chooses in front of its positions.
const STAGE: [&str; 4] = ["width", "stride", "depth", "entry"];

/// Panels of a chain of stages, which has one edge per node, in a row.
const CHAIN_COLUMNS: usize = 6;

fn places(spec: Option<&BlockSpec>, edges: usize) -> Vec<Place> {
    let chain = |index: usize| (index / CHAIN_COLUMNS + 1, index % CHAIN_COLUMNS + 1);
    let Some(spec) = spec else {
        let place = |index: usize| {
            let (row, column) = chain(index);
            Place { from: "?".into(), to: format!("edge {index}"), row, column }
        };
        return (0..edges).map(place).collect();
    };
    let single = spec.nodes.iter().all(|node| node.edges.len() == 1);
    let mut places = Vec::new();
    for (node, edges) in spec.nodes.iter().enumerate() {
        for edge in &edges.edges {
            let (row, column) = if single { chain(node) } else { (node + 1, edge.from + 1) };
            let to = state_name(spec.inputs, spec.inputs + node);
            places.push(Place { from: state_name(spec.inputs, edge.from), to, row, column });
        }
    }
    places
}
