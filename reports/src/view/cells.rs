//! The network that the search found, block by block.

use lathe_spaces::{BlockGenotype, Space};
use serde::Serialize;

use super::{Section, plural};
use crate::{
    genotype_text::{cell_of, weightless},
    history::History,
};

/// The searched genotype.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cells {
    /// Whose genotype it is.
    pub title: String,
    /// Text form.
    pub genotype: String,
    pub blocks: Vec<CellBlock>,
    /// Why there is no drawing.
    pub unreadable: Option<String>,
}

/// One block.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CellBlock {
    pub name: String,
    /// Kept edges: (state it starts from, operation) per node.
    pub nodes: Vec<Vec<(usize, String)>>,
    pub inputs: usize,
    /// A chain of positions rather than a graph.
    pub chain: bool,
    /// How often each operation occurs, in words.
    pub summary: String,
    /// A degenerate cell, in words.
    pub note: Option<String>,
    /// The same in a few words, for the headline.
    #[serde(skip)]
    pub doubt: Option<String>,
}

pub(super) fn cells(history: &History, own: Option<&Space>) -> Section<Cells> {
    let (title, text) = match (history.searched(), history.epochs.last()) {
        (Some(searched), _) => (format!("What the search found: {}", searched.name), &searched.genotype),
        (None, Some(epoch)) => (
            format!(
                "Not final: what would be derived after epoch {}, without regard to the target",
                epoch.epoch + 1
            ),
            &epoch.genotype,
        ),
        (None, None) => {
            return Section::Missing("The search has not derived a network yet.".into());
        }
    };
    let cell = cell_of(text, own);
    Section::Ready(Cells {
        title,
        genotype: text.clone(),
        unreadable: cell.as_ref().err().cloned(),
        blocks: cell.map_or_else(
            |_| Vec::new(),
            |cell| {
                let inputs = cell.space.blocks.iter().map(|block| block.inputs);
                let blocks = cell.genotype.blocks.iter().zip(inputs);
                blocks.map(|(block, inputs)| drawn(&deployed(&cell.space, block), inputs)).collect()
            },
        ),
    })
}

/// Without the positions behind a stage's depth.
fn deployed(space: &Space, block: &BlockGenotype) -> BlockGenotype {
    let nodes = block.nodes.iter().enumerate().filter(|(node, _)| space.is_active(block, *node));
    BlockGenotype { name: block.name.clone(), nodes: nodes.map(|(_, picks)| picks.clone()).collect() }
}

fn drawn(block: &BlockGenotype, inputs: usize) -> CellBlock {
    let picks: Vec<&str> = block.nodes.iter().flatten().map(|pick| pick.choice.as_str()).collect();
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for pick in &picks {
        match counts.iter_mut().find(|(name, _)| name == pick) {
            Some((_, count)) => *count += 1,
            None => counts.push((pick, 1)),
        }
    }
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let empty = picks.iter().filter(|pick| weightless(pick)).count();
    let chain = block.nodes.len() > 1 && block.nodes.iter().all(|node| node.len() == 1);
    let doubt = (!picks.is_empty() && 2 * empty >= picks.len()).then(|| {
        let places = plural(picks.len(), if chain { "position" } else { "edge" });
        format!("{empty} of {places} of block {} carry no weights (shortcuts and pooling)", block.name)
    });
    CellBlock {
        name: block.name.clone(),
        inputs,
        nodes: block
            .nodes
            .iter()
            .map(|node| node.iter().map(|pick| (pick.from, pick.choice.clone())).collect())
            .collect(),
        summary: counts.iter().map(|(name, count)| format!("{count} × {name}")).collect::<Vec<_>>().join(", "),
        note: doubt.as_ref().map(|doubt| {
            format!(
                "{doubt}. Differentiable searches are known to drift towards such cells; compare with the random \
                 networks before trusting this one."
            )
        }),
        doubt,
        chain,
    }
}
