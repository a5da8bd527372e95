//! Genotypes of elastic stages as text: `stem[w16: conv] c2[w32 d2: ibn k5 | fused e8 | (tucker)]`.

use super::{DEPTH, ENTRY, POSITIONS, STRIDE, WIDTH, choice::canonical, number};
use crate::{BlockGenotype, BlockSpec, Genotype, GenotypeError, NodeSpec, Pick, Space, text::Reader};

/// Nodes in front of the positions, in the order in which they are written.
const SIZES: [usize; 4] = [ENTRY, WIDTH, STRIDE, DEPTH];

/// Whether genotypes differ in a stage.
fn has_choice(spec: &BlockSpec) -> bool {
    spec.nodes.iter().any(|node| choices(node).len() > 1)
}

fn choices(node: &NodeSpec) -> &[String] {
    node.edges.first().map_or(&[], |edge| &edge.choices)
}

/// All stages that have a choice; sizes that have none are left out, positions that wait are in brackets.
pub(crate) fn format(space: &Space, genotype: &Genotype) -> String {
    let pairs = space.blocks.iter().zip(&genotype.blocks).filter(|(spec, _)| has_choice(spec));
    let stages = pairs.map(|(spec, block)| {
        let chosen =
            |node: usize| block.nodes.get(node).and_then(|picks| Some(picks.first()?.choice.as_str()));
        let written = |node: &usize| spec.nodes.get(*node).is_some_and(|node| choices(node).len() > 1);
        let sizes: Vec<&str> =
            SIZES.iter().filter(|node| written(node)).filter_map(|node| chosen(*node)).collect();
        let depth = number(block, DEPTH).unwrap_or(0);
        let positions = (POSITIONS..block.nodes.len()).filter_map(|node| {
            let choice = chosen(node)?;
            Some(if node - POSITIONS < depth { choice.to_owned() } else { format!("({choice})") })
        });
        let positions = positions.collect::<Vec<_>>().join(" | ");
        let colon = if positions.is_empty() { "" } else { ": " };
        format!("{}[{}{colon}{positions}]", spec.name, sizes.join(" "))
    });
    stages.collect::<Vec<_>>().join(" ")
}

/// Reads [`format`]'s text. Stages without a choice and positions that wait may be left out.
pub(crate) fn parse(space: &Space, reader: &mut Reader<'_>) -> Result<Vec<BlockGenotype>, GenotypeError> {
    let mut blocks = Vec::with_capacity(space.blocks.len());
    let mut next = stage_name(reader)?;
    for spec in &space.blocks {
        if next.as_ref().is_some_and(|name| *name == spec.name) {
            blocks.push(stage(space, reader, spec)?);
            next = stage_name(reader)?;
        } else if has_choice(spec) {
            let expected = space.blocks.iter().map(|block| block.name.clone()).collect();
            let mut got: Vec<String> =
                blocks.iter().map(|block: &BlockGenotype| block.name.clone()).collect();
            got.extend(next);
            return Err(GenotypeError::Blocks { expected, got });
        } else {
            blocks.push(BlockGenotype { name: spec.name.clone(), nodes: firsts(spec) });
        }
    }
    match next {
        None => Ok(blocks),
        Some(name) => {
            let expected = space.blocks.iter().map(|block| block.name.clone()).collect();
            let mut got: Vec<String> = blocks.into_iter().map(|block| block.name).collect();
            got.push(name);
            Err(GenotypeError::Blocks { expected, got })
        }
    }
}

/// The first choice of every node.
fn firsts(spec: &BlockSpec) -> Vec<Vec<Pick>> {
    let pick = |node: &NodeSpec| {
        let edge = node.edges.first()?;
        Some(Pick { from: edge.from, choice: edge.choices.first()?.clone() })
    };
    spec.nodes.iter().map(|node| pick(node).into_iter().collect()).collect()
}

/// The name in front of a bracket; nothing at the end of the text.
fn stage_name(reader: &mut Reader<'_>) -> Result<Option<String>, GenotypeError> {
    if reader.is_empty() {
        return Ok(None);
    }
    let name = reader.word("the name of a stage", |letter| {
        letter.is_ascii_alphanumeric() || letter == '_' || letter == '-'
    })?;
    Ok(Some(name.to_owned()))
}

/// `[w32 s2 d3: a | b | c | (d)]`.
fn stage(space: &Space, reader: &mut Reader<'_>, spec: &BlockSpec) -> Result<BlockGenotype, GenotypeError> {
    let mut nodes = firsts(spec);
    let mut given = [false; POSITIONS];
    let set = |nodes: &mut Vec<Vec<Pick>>, node: usize, choice: String| {
        if let Some(pick) = nodes.get_mut(node).and_then(|picks| picks.first_mut()) {
            pick.choice = choice;
        }
    };
    reader.expect("[")?;
    let closed = loop {
        if reader.accept("]") {
            break true;
        }
        if reader.accept(":") {
            break false;
        }
        let kind = |letter: char| !letter.is_whitespace() && !":]|()[".contains(letter);
        let word = reader.word("`w32`, `s2`, `d3`, `@entry`, `:` or `]`", kind)?;
        let node = match word.chars().next() {
            Some('w') => WIDTH,
            Some('s') => STRIDE,
            Some('d') => DEPTH,
            Some('@') => ENTRY,
            _ => return Err(reader.unexpected("`w32`, `s2`, `d3` or `@entry` in front".into())),
        };
        if std::mem::replace(&mut given[node], true) {
            return Err(reader.unexpected(format!("one word for that in front, not `{word}` as well")));
        }
        set(&mut nodes, node, word.to_owned());
    };
    for (node, example) in [
        (WIDTH, "a width (`w32`)"),
        (STRIDE, "a stride (`s2`)"),
        (DEPTH, "a depth (`d3`)"),
        (ENTRY, "an entry (`@…`)"),
    ] {
        if !given[node] && spec.nodes.get(node).is_some_and(|node| choices(node).len() > 1) {
            return Err(reader.unexpected(format!("{example} for stage `{}` in front", spec.name)));
        }
    }
    let mut active = 0;
    let mut waiting = 0;
    if !closed {
        loop {
            let waits = reader.accept("(");
            let text = reader.word("a block", |letter| !"|()[]".contains(letter))?;
            if waits {
                reader.expect(")")?;
                waiting += 1;
            } else if waiting > 0 {
                return Err(reader.unexpected("blocks in brackets behind all others".into()));
            } else {
                active += 1;
            }
            // A text that is no block is no choice either: validation names the nearest.
            let choice = canonical(text).unwrap_or_else(|_| text.trim().to_owned());
            let node = POSITIONS + active + waiting - 1;
            if node >= spec.nodes.len() {
                let expected = spec.nodes.len() - POSITIONS;
                let got = active + waiting;
                return Err(GenotypeError::Nodes { block: spec.name.clone(), expected, got });
            }
            set(&mut nodes, node, choice);
            if reader.accept("]") {
                break;
            }
            reader.expect("|")?;
        }
    }
    let block = BlockGenotype { name: spec.name.clone(), nodes };
    // A depth that isn't offered is validation's to name.
    let depth = number(&block, DEPTH).unwrap_or(0);
    let offered = spec.nodes.get(DEPTH).is_some_and(|node| {
        space.deployable_choices(&node.edges[0]).iter().any(|choice| choice[1..] == depth.to_string())
    });
    if offered && active != depth {
        return Err(GenotypeError::Nodes { block: spec.name.clone(), expected: depth, got: active });
    }
    Ok(block)
}
