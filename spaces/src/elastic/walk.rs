//! Building a network, or a piece of one, stage by stage.

use std::collections::BTreeMap;

use super::{
    DEPTH, ENTRY, ElasticLayer, ElasticStage, POSITIONS, SAME_WIDTH, STRIDE, WIDTH,
    choice::{Share, block_at},
    number,
};
use crate::{
    Block, BlockGenotype, Graph, GraphBuilder, Level, NodeId, OpSpec, Shape, SpaceError, Workload,
    network::workload,
};

/// What the layers in front of a place hand to it: channels, rows and columns, by name for what is saved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct State {
    pub(super) shape: [usize; 3],
    pub(super) saved: BTreeMap<String, [usize; 3]>,
}

impl State {
    pub(super) fn input(shape: [usize; 3]) -> Self {
        Self { shape, saved: BTreeMap::from([("input".into(), shape)]) }
    }
}

/// What a walk has built, and where it stands.
pub(super) struct Walk {
    builder: GraphBuilder,
    at: NodeId,
    saved: BTreeMap<String, NodeId>,
    parts: Vec<Part>,
}

/// Something that can be timed by itself.
enum Part {
    Block { block: Block, input: Shape, channels: usize, stride: usize },
    Sum { shape: Shape },
}

impl Walk {
    /// A walk that starts behind other layers.
    pub(super) fn behind(state: &State) -> Result<Self, SpaceError> {
        let mut builder = GraphBuilder::new();
        let shape = |[channels, rows, columns]: [usize; 3]| Shape::new(1, channels, rows, columns);
        let at = builder.input("input", shape(state.shape))?;
        let mut saved = BTreeMap::new();
        for (name, &saved_shape) in &state.saved {
            // The network's own input is one node, whatever reads it.
            let node = if name == "input" && saved_shape == state.shape {
                at
            } else {
                builder.input(&format!("saved.{name}"), shape(saved_shape))?
            };
            saved.insert(name.clone(), node);
        }
        Ok(Self { builder, at, saved, parts: Vec::new() })
    }

    /// What it hands to the next place.
    pub(super) fn state(&self) -> State {
        let shape = |node: NodeId| {
            let shape = self.builder.shape(node);
            [shape.c, shape.h, shape.w]
        };
        let saved = self.saved.iter().map(|(name, &node)| (name.clone(), shape(node)));
        State { shape: shape(self.at), saved: saved.collect() }
    }

    /// The network.
    pub(super) fn graph(self) -> Result<Graph, SpaceError> {
        Ok(self.builder.finish(&[self.at])?)
    }

    /// Its blocks and sums, each by itself.
    pub(super) fn into_parts(self) -> Result<Vec<Workload>, SpaceError> {
        let parts = self.parts.into_iter().map(|part| match part {
            Part::Block { block, input, channels, stride } => {
                let remark = format!("to {channels} s{stride}");
                workload(&block.to_string(), &remark, Level::Operator, input, |b, x| {
                    block.build(b, "block", x, channels, stride).map_err(SpaceError::from)
                })
            }
            Part::Sum { shape } => workload("sum", "", Level::Operator, shape, |b, x| {
                b.add("sum", OpSpec::Add, &[x, x]).map_err(SpaceError::from)
            }),
        });
        parts.collect()
    }

    /// The stage as the picks of its block say; a position is the mean of its block and those of the others.
    pub(super) fn stage(
        &mut self,
        stage: &ElasticStage,
        block: &BlockGenotype,
        others: &[&BlockGenotype],
    ) -> Result<(), SpaceError> {
        let missing = |what: &str| SpaceError::Malformed {
            what: format!("stage `{}` has no {what} among its choices", block.name),
        };
        let pick = |node: usize| block.nodes.get(node).and_then(|picks| picks.first());
        let same = pick(WIDTH).is_some_and(|pick| pick.choice == SAME_WIDTH);
        let width = if same { None } else { Some(number(block, WIDTH).ok_or_else(|| missing("width"))?) };
        let stride = number(block, STRIDE).ok_or_else(|| missing("stride"))?;
        let depth = number(block, DEPTH).ok_or_else(|| missing("depth"))?;
        let entry = pick(ENTRY).and_then(|pick| pick.choice.strip_prefix('@'));
        let entry = stage.entries.iter().find(|known| Some(known.name.as_str()) == entry);
        let entry = entry.ok_or_else(|| missing("entry"))?;
        for (index, layer) in entry.layers.iter().enumerate() {
            self.layer(&format!("{}.{}{index}", block.name, entry.name), layer, width)?;
        }
        for position in 0..depth {
            let node = POSITIONS + position;
            let own = pick(node).ok_or_else(|| missing("block at a position"))?;
            let stride = if position == 0 { stride } else { 1 };
            let prefix = format!("{}.{position}", block.name);
            let mut choices = vec![own.choice.as_str()];
            for other in others.iter().filter_map(|other| other.nodes.get(node)?.first()) {
                if !choices.contains(&other.choice.as_str()) {
                    choices.push(&other.choice);
                }
            }
            let from = self.at;
            let mut outputs = Vec::new();
            for (index, choice) in choices.into_iter().enumerate() {
                self.at = from;
                let prefix = if index == 0 { prefix.clone() } else { format!("{prefix}~{index}") };
                self.position(&prefix, choice, width, stride)?;
                outputs.push(self.at);
            }
            if outputs.len() > 1 {
                self.at = self.builder.add(&format!("{prefix}.mean"), OpSpec::Mean, &outputs)?;
            }
        }
        self.finish_stage(&block.name, stage)
    }

    /// What comes behind the last position of a stage.
    pub(super) fn finish_stage(&mut self, name: &str, stage: &ElasticStage) -> Result<(), SpaceError> {
        self.add_and_save(&format!("{name}.sum"), stage.add.as_deref(), stage.save.as_deref())
    }

    /// One position of a stage of this width; of the width that it finds, if none is given.
    pub(super) fn position(
        &mut self,
        prefix: &str,
        choice: &str,
        width: Option<usize>,
        stride: usize,
    ) -> Result<(), SpaceError> {
        let width = width.unwrap_or_else(|| self.builder.shape(self.at).c);
        self.block(prefix, &block_at(choice, width)?, width, stride)
    }

    /// A layer of an entry or of the head.
    pub(super) fn layer(
        &mut self,
        prefix: &str,
        layer: &ElasticLayer,
        width: Option<usize>,
    ) -> Result<(), SpaceError> {
        for copy in 0..layer.repeat {
            let found = self.builder.shape(self.at).c;
            let width = width.unwrap_or(found);
            let channels = match (&layer.width, layer.channels) {
                (Some(share), _) => share.parse::<Share>().map(|share| share.of(width)).map_err(|()| {
                    SpaceError::Malformed { what: format!("`{share}` is no share such as `1` or `3/4`") }
                })?,
                (None, Some(channels)) => channels,
                (None, None) => found,
            };
            let stride = if copy == 0 { layer.stride } else { 1 };
            self.block(&format!("{prefix}.{copy}"), &block_at(&layer.block, width)?, channels, stride)?;
        }
        self.add_and_save(&format!("{prefix}.sum"), layer.add.as_deref(), layer.save.as_deref())
    }

    fn block(
        &mut self,
        prefix: &str,
        block: &Block,
        channels: usize,
        stride: usize,
    ) -> Result<(), SpaceError> {
        let input = self.builder.shape(self.at);
        let prefix = format!("{prefix}.{}", block.kind().name);
        self.at = block.build(&mut self.builder, &prefix, self.at, channels, stride)?;
        self.parts.push(Part::Block { block: *block, input, channels, stride });
        Ok(())
    }

    fn add_and_save(&mut self, name: &str, add: Option<&str>, save: Option<&str>) -> Result<(), SpaceError> {
        if let Some(add) = add {
            let Some(&other) = self.saved.get(add) else {
                let known: Vec<&str> = self.saved.keys().map(String::as_str).collect();
                return Err(SpaceError::Malformed {
                    what: format!("nothing in front saves `{add}`; there are {}", known.join(", ")),
                });
            };
            self.at = self.builder.add(name, OpSpec::Add, &[self.at, other])?;
            self.parts.push(Part::Sum { shape: self.builder.shape(self.at) });
        }
        if let Some(save) = save {
            self.saved.insert(save.to_owned(), self.at);
        }
        Ok(())
    }
}
