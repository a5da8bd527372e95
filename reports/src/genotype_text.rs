//! From a genotype's text to what a reader sees of it. A record holds texts and no space, so the text
//! is read by the spaces whose form it has.

use lathe_spaces::{BlockSpec, DartsSkeleton, Genotype, Nas201Skeleton, Space, Stem};

/// A genotype with the space that it was read by. Widths and depths of the space mean nothing here.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// Space whose text form it has.
    pub space: Space,
    /// The genotype.
    pub genotype: Genotype,
}

/// The genotype that a text stands for, or why none of the known forms fits; the run's own space comes first.
pub(crate) fn cell_of(text: &str, own: Option<&Space>) -> Result<Cell, String> {
    let mut reasons = Vec::new();
    for space in own.cloned().into_iter().chain(known_spaces()) {
        match space.parse(text) {
            Ok(genotype) => return Ok(Cell { space, genotype }),
            Err(error) => reasons.push(format!("as {}: {error}", space.name)),
        }
    }
    Err(reasons.join("; "))
}

/// The block that architecture parameters of this name and these sizes belong to: choices per edge; the run's own
/// space comes first.
pub(crate) fn block_of(name: &str, choices: &[usize], own: Option<&Space>) -> Option<BlockSpec> {
    let sizes = |block: &BlockSpec| -> Vec<usize> {
        block.nodes.iter().flat_map(|node| &node.edges).map(|edge| edge.choices.len()).collect()
    };
    let spaces = own.cloned().into_iter().chain(known_spaces());
    let mut blocks = spaces.flat_map(|space| space.blocks);
    blocks.find(|block| block.name == name && sizes(block) == choices)
}

/// All spaces, at a size that doesn't matter: forms of text and names of edges depend on the kind only.
fn known_spaces() -> [Space; 3] {
    let (width, resolution, classes) = (8, 32, 10);
    [
        Space::darts(DartsSkeleton { stem: Stem::Cifar, width, layers: 3, resolution, classes }),
        Space::nas201(Nas201Skeleton { width, cells: 1, resolution, classes }),
        Space::fbnet(224, 1000),
    ]
}

/// Name of a state of a block, as the field writes it: inputs first, then nodes from 0.
pub(crate) fn state_name(inputs: usize, state: usize) -> String {
    match (inputs, state) {
        (2, 0) => "c(k−2)".into(),
        (2, 1) => "c(k−1)".into(),
        (1, 0) => "input".into(),
        (inputs, state) if state < inputs => format!("input {state}"),
        (inputs, state) => format!("node {}", state - inputs),
    }
}

/// Whether an operation has no weights of its own: a shortcut, a pooling, or nothing.
pub(crate) fn weightless(choice: &str) -> bool {
    choice == "none" || choice.starts_with("skip") || choice.contains("pool")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_known() {
        for space in known_spaces() {
            let genotype = space.sample(&mut lathe_spaces::Stream::new(1, "forms", 0));
            let cell = cell_of(&space.format(&genotype), None).unwrap();
            assert_eq!((cell.space.name, cell.genotype), (space.name, genotype));
        }
        let reasons = cell_of("Genotype(normal=[('sep_konv_3x3', 1)", None).unwrap_err();
        assert!(reasons.contains("as darts: ") && reasons.contains("as fbnet: "), "{reasons}");
    }

    #[test]
    fn blocks_are_known_by_name_and_sizes() {
        assert_eq!(block_of("reduce", &[8; 14], None).unwrap().nodes.len(), 4);
        assert_eq!(block_of("cell", &[5; 6], None).unwrap().inputs, 1);
        assert_eq!(block_of("stages", &[9; 22], None).unwrap().nodes.len(), 22);
        assert_eq!(block_of("normal", &[8; 13], None), None);
    }
}
