//! Published networks as data files, made of blocks by their text form.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

use crate::{Block, BlockError, Graph, GraphBuilder, GraphError, NodeId, OpSpec, Shape};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Names and texts of the files that belong to Lathe.
        pub static ZOO: &[(&str, &str)] = &[$(($name, include_str!(concat!("../zoo/", $name, ".toml")))),*];
    };
}

files!(
    "lowformer-b0",
    "lowformer-b1",
    "lowformer-b1.5",
    "lowformer-b3",
    "shvit-s1",
    "shvit-s2",
    "shvit-s3",
    "shvit-s4",
    "cas-vit-xs",
    "cas-vit-xs-distilled",
    "cas-vit-s",
    "cas-vit-s-distilled",
    "cas-vit-m",
    "cas-vit-m-distilled",
    "cas-vit-t",
    "cas-vit-t-distilled",
    "hgnetv2-atto",
    "hgnetv2-femto",
    "hgnetv2-pico",
    "hgnetv2-b0",
    "hgnetv2-b1",
    "hgnetv2-b2",
    "hgnetv2-b4",
    "mobiledet-cpu",
    "mobiledet-dsp",
    "mobiledet-edgetpu",
    "sesr-m3",
    "sesr-m5",
    "sesr-m5-expanded",
    "sesr-m7",
    "sesr-m11",
    "sesr-xl",
    "tinyvit-5m-sam",
);

/// A network as a file describes it: a chain of blocks, with sums over longer distances.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZooNetwork {
    /// Name.
    pub name: String,
    /// What it is, in one line.
    pub about: String,
    /// Who published it, and where the definition is.
    pub source: String,
    /// Channels, rows and columns of the input.
    pub input: [usize; 3],
    /// What its authors say of its size.
    pub published: Option<String>,
    /// Where the network differs from what is published, and other things to know.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Blocks, in order.
    pub layers: Vec<ZooLayer>,
    /// Counts of the authors' code, which those of the graph must equal.
    #[serde(default)]
    pub reference: Vec<ZooReference>,
}

/// A block, or several of the same in a row.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZooLayer {
    /// Text form of the block.
    pub block: String,
    /// Output channels; those of the input where it isn't given.
    pub channels: Option<usize>,
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

/// Counts at an input size.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZooReference {
    /// Rows and columns of the input.
    pub size: [usize; 2],
    /// Learned parameters.
    pub parameters: u64,
    /// Operators whose parameters are not among them.
    #[serde(default)]
    pub without: Vec<String>,
    /// Multiply-accumulates, in millions.
    pub million_macs: f64,
    /// How far ours may be, in millions: half a unit of the last digit that is known, or so.
    #[serde(default = "hundredth")]
    pub tolerance: f64,
}

const fn one() -> usize {
    1
}

const fn hundredth() -> f64 {
    0.01
}

/// Why a network can't be read or built. The messages complete "failed to …".
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ZooError {
    /// Not TOML, or not of this form.
    #[error("read the network: {0}")]
    Toml(String),
    /// A block that can't be read or doesn't fit.
    #[error("build layer {layer} of {network}: {source}")]
    Block {
        /// Network.
        network: String,
        /// Index of the layer, from 0.
        layer: usize,
        /// Cause.
        source: BlockError,
    },
    /// A sum that doesn't fit, or a name that is taken.
    #[error("build layer {layer} of {network}: {source}")]
    Graph {
        /// Network.
        network: String,
        /// Index of the layer, from 0.
        layer: usize,
        /// Cause.
        source: GraphError,
    },
    /// Something to add that no layer in front has saved.
    #[error("build layer {layer} of {network}: no layer in front of it saves `{name}`; there are {known}")]
    Unsaved {
        /// Network.
        network: String,
        /// Index of the layer, from 0.
        layer: usize,
        /// What it adds.
        name: String,
        /// What there is.
        known: String,
    },
    /// Nothing to build.
    #[error("build {network}: it has no layers, or an input of 0 channels, rows or columns")]
    Empty {
        /// Network.
        network: String,
    },
}

impl ZooNetwork {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ZooError::Toml`] names line and column; blocks are read when the graph is built.
    pub fn parse(text: &str) -> Result<Self, ZooError> {
        toml::from_str(text).map_err(|error| ZooError::Toml(error.to_string().trim_end().to_owned()))
    }

    /// The network of this name among [`ZOO`].
    ///
    /// # Errors
    /// Those of [`ZooNetwork::parse`].
    pub fn named(name: &str) -> Option<Result<Self, ZooError>> {
        ZOO.iter().find(|(known, _)| *known == name).map(|(_, text)| Self::parse(text))
    }

    /// The network's graph for one image, of `size` rows and columns in place of the file's.
    ///
    /// # Errors
    /// [`ZooError`] names the layer that can't be read or doesn't fit.
    pub fn graph(&self, size: Option<[usize; 2]>) -> Result<Graph, ZooError> {
        let network = || self.name.clone();
        let [channels, rows, columns] = self.input;
        let [rows, columns] = size.unwrap_or([rows, columns]);
        if self.layers.is_empty() || channels * rows * columns == 0 {
            return Err(ZooError::Empty { network: network() });
        }
        let mut builder = GraphBuilder::new();
        let in_graph = |layer| move |source| ZooError::Graph { network: network(), layer, source };
        let mut x = builder.input("input", Shape::new(1, channels, rows, columns)).map_err(in_graph(0))?;
        let mut saved: BTreeMap<&str, NodeId> = BTreeMap::from([("input", x)]);
        for (index, layer) in self.layers.iter().enumerate() {
            let in_block = |source| ZooError::Block { network: network(), layer: index, source };
            let block: Block = layer.block.parse().map_err(in_block)?;
            for copy in 0..layer.repeat {
                let prefix = format!("{index}.{copy}.{}", block.kind().name);
                let channels = layer.channels.unwrap_or(builder.shape(x).c);
                let stride = if copy == 0 { layer.stride } else { 1 };
                x = block.build(&mut builder, &prefix, x, channels, stride).map_err(in_block)?;
            }
            if let Some(name) = &layer.add {
                let Some(&other) = saved.get(name.as_str()) else {
                    let known = saved.keys().copied().collect::<Vec<_>>().join(", ");
                    return Err(ZooError::Unsaved {
                        network: network(),
                        layer: index,
                        name: name.clone(),
                        known,
                    });
                };
                let sum = builder.add(&format!("{index}.sum"), OpSpec::Add, &[x, other]);
                x = sum.map_err(in_graph(index))?;
            }
            if let Some(name) = &layer.save {
                saved.insert(name, x);
            }
        }
        builder.finish(&[x]).map_err(in_graph(self.layers.len() - 1))
    }
}

impl ZooReference {
    /// The parameters of a graph that this reference counts.
    pub fn counted(&self, graph: &Graph) -> u64 {
        let counted = |spec: &crate::TensorSpec| {
            let name = graph.nodes()[spec.node].op.name();
            !self.without.iter().any(|without| without == name)
        };
        let parameters = graph.parameters();
        let sizes = parameters.iter().filter(|spec| counted(spec));
        sizes.map(|spec| spec.dims.iter().product::<usize>() as u64).sum()
    }
}
