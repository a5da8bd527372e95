//! Building a network, or a piece of one, stage by stage.

use std::collections::BTreeMap;

use super::{
    DEPTH, ENTRY, ElasticLayer, ElasticStage, POSITIONS, SAME_WIDTH, STRIDE, WIDTH,
    choice::{Share, block_at},
    number,
};
use crate::{
    Block, BlockGenotype, BlockSpec, Graph, GraphBuilder, Level, NodeId, OpSpec, Shape, SpaceError, Workload,
    fold_graph, network::workload,
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
    /// Whether blocks are built as they are trained.
    expanded: bool,
    /// Positions that are mixtures, so far.
    mixed: Vec<Mixed>,
}

/// What the positions of a stage are.
#[derive(Clone, Copy)]
pub(super) enum Positions<'a> {
    /// The blocks that the genotype chooses.
    Chosen,
    /// Means of its own blocks and those that these choose.
    Means(&'a [&'a BlockGenotype]),
    /// Mixtures of all blocks of these choices, on one of so many parts of the channels.
    Mixed(&'a BlockSpec, usize),
}

/// A position that mixes blocks.
pub(super) struct Mixed {
    /// Name of the node that joins them.
    pub(super) name: String,
    /// Node of the stage's block.
    pub(super) node: usize,
    /// Which of its choices are mixed.
    pub(super) choices: Vec<usize>,
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
        Ok(Self { builder, at, saved, parts: Vec::new(), expanded: false, mixed: Vec::new() })
    }

    /// The same walk, with blocks as they are trained or as they run.
    pub(super) fn expanded(self, expanded: bool) -> Self {
        Self { expanded, ..self }
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

    /// The positions that have become mixtures since this was asked last.
    pub(super) fn take_mixed(&mut self) -> Vec<Mixed> {
        std::mem::take(&mut self.mixed)
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
                let built = workload(&block.to_string(), &remark, Level::Operator, input, |b, x| {
                    block.build(b, "block", x, channels, stride).map_err(SpaceError::from)
                })?;
                // As it runs within a network.
                Ok(Workload { graph: fold_graph(&built.graph)?, ..built })
            }
            Part::Sum { shape } => workload("sum", "", Level::Operator, shape, |b, x| {
                b.add("sum", OpSpec::Add, &[x, x]).map_err(SpaceError::from)
            }),
        });
        parts.collect()
    }

    /// The stage as the picks of its block say.
    pub(super) fn stage(
        &mut self,
        stage: &ElasticStage,
        block: &BlockGenotype,
        positions: Positions<'_>,
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
            match positions {
                Positions::Chosen => self.position(&prefix, &own.choice, width, stride)?,
                Positions::Means(others) => {
                    let others = others.iter().filter_map(|other| other.nodes.get(node)?.first());
                    let mut choices = vec![own.choice.as_str()];
                    for other in others {
                        if !choices.contains(&other.choice.as_str()) {
                            choices.push(&other.choice);
                        }
                    }
                    self.mean(&prefix, &choices, width, stride)?;
                }
                Positions::Mixed(spec, parts) => {
                    let choices = spec.nodes.get(node).and_then(|node| node.edges.first());
                    let choices = choices.map_or(&[][..], |edge| &edge.choices);
                    let width = width.unwrap_or_else(|| self.builder.shape(self.at).c);
                    self.mixture(&prefix, (node, &own.choice, choices), [width, stride, parts])?;
                }
            }
        }
        self.finish_stage(&block.name, stage)
    }

    /// The mean of several blocks at one place.
    fn mean(
        &mut self,
        prefix: &str,
        choices: &[&str],
        width: Option<usize>,
        stride: usize,
    ) -> Result<(), SpaceError> {
        let from = self.at;
        let mut outputs = Vec::new();
        for (index, choice) in choices.iter().enumerate() {
            self.at = from;
            let prefix = if index == 0 { prefix.to_owned() } else { format!("{prefix}~{index}") };
            self.position(&prefix, choice, width, stride)?;
            outputs.push(self.at);
        }
        if outputs.len() > 1 {
            self.at = self.builder.add(&format!("{prefix}.mean"), OpSpec::Mean, &outputs)?;
        }
        Ok(())
    }

    /// All choices of a position whose outputs have the shape that the genotype's own has, joined by a mean. Where
    /// the position keeps its shape and every choice fits, they read the first of so many parts of the channels
    /// only, and the channels are shuffled behind them (PC-DARTS, section 3.1).
    fn mixture(
        &mut self,
        prefix: &str,
        (node, own, choices): (usize, &str, &[String]),
        [width, stride, parts]: [usize; 3],
    ) -> Result<(), SpaceError> {
        let input = self.builder.shape(self.at);
        let narrow = width / parts;
        let part = Shape { c: narrow, ..input };
        let splits = parts > 1 && stride == 1 && width == input.c && width.is_multiple_of(parts);
        let partial =
            splits && choices.iter().all(|choice| self.output(choice, part, narrow, 1) == Some(part));
        let whole = self.at;
        let (from, width) = if partial {
            let first = OpSpec::Slice { start: 0, channels: narrow };
            (self.builder.add(&format!("{prefix}.part"), first, &[whole])?, narrow)
        } else {
            (whole, width)
        };
        let shape = self.builder.shape(from);
        let expected = self.output(own, shape, width, stride);
        let (mut outputs, mut kept) = (Vec::new(), Vec::new());
        for (index, choice) in choices.iter().enumerate() {
            if choice != own && (expected.is_none() || self.output(choice, shape, width, stride) != expected)
            {
                continue;
            }
            self.at = from;
            self.position(&format!("{prefix}~{index}"), choice, Some(width), stride)?;
            outputs.push(self.at);
            kept.push(index);
        }
        if outputs.len() > 1 {
            let name = format!("{prefix}.mixture");
            self.at = self.builder.add(&name, OpSpec::Mean, &outputs)?;
            self.mixed.push(Mixed { name, node, choices: kept });
        }
        if partial {
            let rest = OpSpec::Slice { start: narrow, channels: input.c - narrow };
            let rest = self.builder.add(&format!("{prefix}.rest"), rest, &[whole])?;
            let both = self.builder.add(&format!("{prefix}.both"), OpSpec::Concat, &[self.at, rest])?;
            let shuffle = OpSpec::ChannelShuffle { groups: parts };
            self.at = self.builder.add(&format!("{prefix}.shuffle"), shuffle, &[both])?;
        }
        Ok(())
    }

    /// What a choice makes of an input; `None` if it can't be used there.
    fn output(&self, choice: &str, input: Shape, width: usize, stride: usize) -> Option<Shape> {
        let block = block_at(choice, width).ok()?;
        let block = if self.expanded { block.as_trained() } else { block };
        let mut builder = GraphBuilder::new();
        let x = builder.input("input", input).ok()?;
        let y = block.build(&mut builder, "block", x, width, stride).ok()?;
        Some(builder.shape(y))
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
        let block = if self.expanded { &block.as_trained() } else { block };
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
