//! Chains of stages whose width, depth, stride and blocks are searched; read from files.
//!
//! A stage of such a space is a block of [`Space::blocks`](crate::Space) whose nodes have one edge each: its
//! width, its stride, its depth, how it is entered, then one node per position. All positions up to the
//! greatest depth have a choice in every genotype; those behind the chosen depth wait for it to grow.

mod choice;
mod explore;
mod file;
mod text;
mod walk;

use serde::{Deserialize, Serialize};

use crate::{
    BlockGenotype, Genotype, Graph, NetworkOptions, NodeId, Skeleton, Space, SpaceError, Stream, Workload,
};

pub use file::{PublishedText, SPACES, SpaceFile, SpaceFileError, StageText};
pub(crate) use text::{format, parse};
use walk::{Mixed, Positions, State, Walk};

/// Nodes of a stage's block in front of those of the positions.
const WIDTH: usize = 0;
const STRIDE: usize = 1;
const DEPTH: usize = 2;
const ENTRY: usize = 3;
const POSITIONS: usize = 4;

/// Choice of the width where a stage keeps that of the stage in front.
const SAME_WIDTH: &str = "w=";

/// Networks that are drawn to list the parts that must be timed.
const SAMPLED: u64 = 16;

/// What the genotypes of a space of elastic stages share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElasticSkeleton {
    /// Channels, rows and columns of the input.
    pub input: [usize; 3],
    /// Stages, in order; their choices stand in the space's blocks.
    pub stages: Vec<ElasticStage>,
    /// Layers behind the last stage.
    pub head: Vec<ElasticLayer>,
    /// Names and genotypes of published networks, in text form.
    pub published: Vec<(String, String)>,
}

/// What the choices of a stage refer to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElasticStage {
    /// Ways to enter it.
    pub entries: Vec<ElasticEntry>,
    /// Name under which later layers can add its output.
    pub save: Option<String>,
    /// What is added to its output.
    pub add: Option<String>,
}

/// Layers in front of a stage's first position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElasticEntry {
    /// Name.
    pub name: String,
    /// Layers, in order.
    pub layers: Vec<ElasticLayer>,
}

/// A block, or several of the same in a row, as in the files of published networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElasticLayer {
    /// Text form of the block.
    pub block: String,
    /// Output channels; those of the input where neither they nor a share of the width are given.
    pub channels: Option<usize>,
    /// Output channels as a share of the stage's width: `1`, `1/4`.
    pub width: Option<String>,
    /// Stride of the first one; the others have 1.
    #[serde(default = "one")]
    pub stride: usize,
    /// How many.
    #[serde(default = "one")]
    pub repeat: usize,
    /// Name under which later layers can add the output.
    pub save: Option<String>,
    /// What is added to the output: a saved one, or the `input` of the network.
    pub add: Option<String>,
}

const fn one() -> usize {
    1
}

impl Space {
    /// The space of a file such as those of [`SPACES`], at the file's resolution.
    ///
    /// # Errors
    /// [`SpaceFileError`] says what is wrong at which key, and what would be right.
    pub fn from_toml(text: &str) -> Result<Self, SpaceFileError> {
        SpaceFile::parse(text)?.space(None)
    }

    /// The space of this name among [`SPACES`].
    ///
    /// # Errors
    /// Those of [`Space::from_toml`].
    pub fn named(name: &str) -> Option<Result<Self, SpaceFileError>> {
        SPACES.iter().find(|(known, _)| *known == name).map(|(_, text)| Self::from_toml(text))
    }

    /// Whether a node's picks change the network: all but those of positions behind a stage's depth do.
    pub fn is_active(&self, block: &BlockGenotype, node: usize) -> bool {
        let Skeleton::Elastic(_) = self.skeleton else { return true };
        node < POSITIONS || node - POSITIONS < number(block, DEPTH).unwrap_or(0)
    }
}

/// A node of a relaxed network that is the mixture of several blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mixture {
    /// Node of the graph: the mean of the blocks, where their shares are equal.
    pub node: NodeId,
    /// Block and node of the space.
    pub place: [usize; 2],
    /// Which of its choices are mixed, in the order of the node's inputs.
    pub choices: Vec<usize>,
}

impl Space {
    /// The network of the first genotype, with the mean of several blocks at every position: its own, and those that
    /// the other genotypes choose there. A position's name is followed by `~1`, `~2`, … in all blocks but the first.
    ///
    /// # Errors
    /// As [`Space::network`]; and [`SpaceError::Malformed`] without genotypes, or of a space without elastic stages.
    pub fn network_of_means(
        &self,
        genotypes: &[Genotype],
        options: NetworkOptions,
    ) -> Result<Graph, SpaceError> {
        let Some((first, others)) = genotypes.split_first() else {
            return Err(SpaceError::Malformed { what: "a mean of blocks needs genotypes".into() });
        };
        let skeleton = self.elastic(genotypes)?;
        let mut walk = skeleton.start(options)?;
        for (index, stage) in skeleton.stages.iter().enumerate() {
            let others: Vec<&BlockGenotype> = others.iter().map(|other| &other.blocks[index]).collect();
            walk.stage(stage, &first.blocks[index], Positions::Means(&others))?;
        }
        skeleton.finish(walk)
    }

    /// The network of a genotype, with a mixture of all choices of a position wherever several give an output of the
    /// same shape there. Blocks at positions that keep their shape see one of `parts` parts of the channels (PC-DARTS,
    /// section 3.1; 1 for all of them), if the width can be divided so and every block is defined there.
    ///
    /// # Errors
    /// As [`Space::network_of_means`]; [`SpaceError::Empty`] without parts.
    pub fn relaxed_network(
        &self,
        genotype: &Genotype,
        parts: usize,
        options: NetworkOptions,
    ) -> Result<(Graph, Vec<Mixture>), SpaceError> {
        if parts == 0 {
            return Err(SpaceError::Empty { what: "the number of parts of the channels" });
        }
        let skeleton = self.elastic(std::slice::from_ref(genotype))?;
        let mut walk = skeleton.start(options)?;
        let mut mixed = Vec::new();
        for (index, stage) in skeleton.stages.iter().enumerate() {
            let positions = Positions::Mixed(&self.blocks[index], parts);
            walk.stage(stage, &genotype.blocks[index], positions)?;
            mixed.extend(walk.take_mixed().into_iter().map(|found| (index, found)));
        }
        let graph = skeleton.finish(walk)?;
        let found = mixed.into_iter().filter_map(|(block, Mixed { name, node, choices })| {
            let at = graph.nodes().iter().position(|known| known.name == name)?;
            Some(Mixture { node: at, place: [block, node], choices })
        });
        let found = found.collect();
        Ok((graph, found))
    }

    /// The skeleton, if it has elastic stages and these are genotypes of it.
    fn elastic(&self, genotypes: &[Genotype]) -> Result<&ElasticSkeleton, SpaceError> {
        let Skeleton::Elastic(skeleton) = &self.skeleton else {
            let what = format!("several blocks at a position need elastic stages; {} has none", self.name);
            return Err(SpaceError::Malformed { what });
        };
        genotypes.iter().try_for_each(|genotype| self.validate(genotype))?;
        Ok(skeleton)
    }
}

impl ElasticSkeleton {
    pub(crate) fn network(&self, genotype: &Genotype, options: NetworkOptions) -> Result<Graph, SpaceError> {
        self.finish(self.chosen(genotype, options)?)
    }

    /// The parts of the published networks and of some that are drawn, each once per network.
    pub(crate) fn parts(&self, space: &Space) -> Result<Vec<Workload>, SpaceError> {
        let mut networks: Vec<Genotype> =
            space.published().into_iter().map(|(_, genotype)| genotype).collect();
        let drawn = |index| space.sample(&mut Stream::new(0, "parts of elastic stages", index));
        networks.extend((0..SAMPLED).map(drawn));
        let mut parts = Vec::new();
        for genotype in &networks {
            space.validate(genotype)?;
            let mut walk = self.chosen(genotype, NetworkOptions::default())?;
            self.head(&mut walk)?;
            parts.extend(walk.into_parts()?);
        }
        Ok(parts)
    }

    fn start(&self, options: NetworkOptions) -> Result<Walk, SpaceError> {
        Ok(Walk::behind(&State::input(self.input))?.expanded(options.expanded))
    }

    /// All stages of a genotype.
    fn chosen(&self, genotype: &Genotype, options: NetworkOptions) -> Result<Walk, SpaceError> {
        let mut walk = self.start(options)?;
        for (stage, block) in self.stages.iter().zip(&genotype.blocks) {
            walk.stage(stage, block, Positions::Chosen)?;
        }
        Ok(walk)
    }

    fn head(&self, walk: &mut Walk) -> Result<(), SpaceError> {
        let mut layers = self.head.iter().enumerate();
        layers.try_for_each(|(index, layer)| walk.layer(&format!("head.{index}"), layer, None))
    }

    fn finish(&self, mut walk: Walk) -> Result<Graph, SpaceError> {
        self.head(&mut walk)?;
        walk.graph()
    }
}

/// Place of a node for messages.
pub(crate) fn place(stage: &str, node: usize) -> String {
    match node {
        WIDTH => format!("the width of stage `{stage}`"),
        STRIDE => format!("the stride of stage `{stage}`"),
        DEPTH => format!("the depth of stage `{stage}`"),
        ENTRY => format!("the entry of stage `{stage}`"),
        _ => format!("position {} of stage `{stage}`", node - POSITIONS),
    }
}

/// The number of a choice such as `w32`, `s2`, `d3`.
fn number(block: &BlockGenotype, node: usize) -> Option<usize> {
    block.nodes.get(node)?.first()?.choice.get(1..)?.parse().ok()
}
