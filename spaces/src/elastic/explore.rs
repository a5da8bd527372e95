//! What can reach a place of a space: every width and size, so that nothing that is drawn can fail.

use std::collections::BTreeSet;

use super::{
    ElasticEntry, ElasticLayer, ElasticStage,
    choice::{block_at, canonical, divisors, expand},
    walk::{State, Walk},
};
use crate::SpaceError;

/// Most combinations of widths and sizes at a place.
const MOST_STATES: usize = 4096;

/// Everything that the layers so far may hand on.
pub(super) struct Explored {
    /// With the width of the stage that is being read.
    states: BTreeSet<(State, Option<usize>)>,
}

/// What is wrong, and what to do.
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) hint: String,
}

/// A fault, and in which list of the stage.
pub(super) struct Place {
    pub(super) list: String,
    pub(super) index: Option<usize>,
    pub(super) fault: Fault,
}

impl Fault {
    fn at(self, list: &str, index: Option<usize>) -> Place {
        Place { list: list.to_owned(), index, fault: self }
    }
}

impl Explored {
    pub(super) fn input(shape: [usize; 3]) -> Self {
        Self { states: BTreeSet::from([(State::input(shape), None)]) }
    }

    /// Goes through layers, at every width.
    pub(super) fn layers(&mut self, layers: &[ElasticLayer], widths: &[Option<usize>]) -> Result<(), Fault> {
        self.states = self.behind_layers(layers, widths)?;
        Ok(())
    }

    fn behind_layers(
        &self,
        layers: &[ElasticLayer],
        widths: &[Option<usize>],
    ) -> Result<BTreeSet<(State, Option<usize>)>, Fault> {
        let mut behind = BTreeSet::new();
        for (state, _) in &self.states {
            for &width in widths {
                let state = walked(state, |walk| {
                    layers
                        .iter()
                        .enumerate()
                        .try_for_each(|(index, layer)| walk.layer(&index.to_string(), layer, width))
                })?;
                behind.insert((state, width));
            }
        }
        limited(behind)
    }

    /// Enters a stage by each of its entries.
    pub(super) fn enter(&mut self, entries: &[ElasticEntry], widths: &[Option<usize>]) -> Result<(), Place> {
        let mut behind = BTreeSet::new();
        for entry in entries {
            let list = || format!("entry `{}`", entry.name);
            let states = self.behind_layers(&entry.layers, widths);
            behind.extend(states.map_err(|fault| fault.at(&list(), None))?);
        }
        self.states = limited(behind).map_err(|fault| fault.at("width", None))?;
        Ok(())
    }

    /// Writes out the choices of a position, and goes through each of them with each stride.
    pub(super) fn resolve(
        &mut self,
        list: &str,
        texts: &[String],
        strides: &[usize],
    ) -> Result<Vec<String>, Place> {
        let maps = self.states.iter().flat_map(|(state, _)| [state.shape[1], state.shape[2]]);
        let divisors = divisors(maps);
        let mut choices: Vec<String> = Vec::new();
        let mut behind = BTreeSet::new();
        for (index, text) in texts.iter().enumerate() {
            let at = |fault: Fault| fault.at(list, Some(index));
            let expanded = expand(text, &divisors).ok_or_else(|| {
                at(Fault {
                    what: format!("the braces of `{text}` have no partner, or stand in braces"),
                    hint: "write alternatives as `k{3,5}`".into(),
                })
            })?;
            for text in expanded {
                let choice = canonical(&text).map_err(|error| {
                    at(Fault {
                        what: format!("failed to {error}"),
                        hint: "`lathe zoo blocks` lists all blocks with their parameters".into(),
                    })
                })?;
                if choices.contains(&choice) {
                    return Err(at(Fault {
                        what: format!("the block `{choice}` is there twice"),
                        hint: "leave one out, or change it".into(),
                    }));
                }
                for (state, width) in &self.states {
                    check_window(&choice, state, *width, &divisors).map_err(at)?;
                    for &stride in strides {
                        let next = walked(state, |walk| walk.position("0", &choice, *width, stride));
                        behind.insert((next.map_err(at)?, *width));
                    }
                }
                choices.push(choice);
            }
        }
        if choices.is_empty() {
            let what = "there is nothing to choose from".into();
            return Err(Fault { what, hint: "give at least one block".into() }.at(list, None));
        }
        self.states = limited(behind).map_err(|fault| fault.at(list, None))?;
        Ok(choices)
    }

    /// Leaves a stage: what is added and saved behind its last position.
    pub(super) fn leave(&mut self, stage: &ElasticStage) -> Result<(), Place> {
        let mut behind = BTreeSet::new();
        for (state, _) in &self.states {
            let state = walked(state, |walk| walk.finish_stage("stage", stage));
            behind.insert((state.map_err(|fault| fault.at("add", None))?, None));
        }
        self.states = behind;
        Ok(())
    }
}

/// The state behind a piece of a network.
fn walked(state: &State, piece: impl FnOnce(&mut Walk) -> Result<(), SpaceError>) -> Result<State, Fault> {
    let walked = Walk::behind(state).and_then(|mut walk| piece(&mut walk).map(|()| walk.state()));
    walked.map_err(|error| {
        let hint = match &error {
            SpaceError::Block(_) => "change the block, or the widths and strides that lead there",
            SpaceError::Malformed { .. } => "change the name, or save what it means",
            _ => "what is added must have the same size, and as many channels or one",
        };
        Fault { what: format!("failed to {error}"), hint: hint.into() }
    })
}

/// Windows must cut every map without rest: elsewhere the block pads, which costs what nobody asked for.
fn check_window(choice: &str, state: &State, width: Option<usize>, divisors: &[usize]) -> Result<(), Fault> {
    let [channels, rows, columns] = state.shape;
    let Ok(block) = block_at(choice, width.unwrap_or(channels)) else { return Ok(()) };
    let Some(window) = block.window() else { return Ok(()) };
    if rows.is_multiple_of(window) && columns.is_multiple_of(window) {
        return Ok(());
    }
    let known: Vec<String> = divisors.iter().map(ToString::to_string).collect();
    Err(Fault {
        what: format!("windows of {window}x{window} do not divide the map of {rows}x{columns} in `{choice}`"),
        hint: format!("use {}, or `w{{divisors}}` for all of them", known.join(", ")),
    })
}

fn limited(states: BTreeSet<(State, Option<usize>)>) -> Result<BTreeSet<(State, Option<usize>)>, Fault> {
    if states.len() <= MOST_STATES {
        return Ok(states);
    }
    Err(Fault {
        what: format!(
            "{} combinations of widths and sizes arrive there, more than {MOST_STATES}",
            states.len()
        ),
        hint: "offer fewer widths and strides, or save less".into(),
    })
}
