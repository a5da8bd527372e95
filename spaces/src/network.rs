//! From a genotype to a network, and from a space to what must be timed.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::{
    BlockError, FoldError, Folded, Genotype, GenotypeError, Graph, GraphBuilder, GraphError, Level, NodeId,
    OpSpec, Shape, Skeleton, Slot, Space, Weights, Workload, fold, fold_graph,
};

/// Batch norm with a learned scale and shift, as in every deployed network.
pub(crate) const NORM: OpSpec = OpSpec::BatchNorm { affine: true };

/// What a network has besides what is deployed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    /// With the auxiliary classifier as second output, for training. Only DARTS networks have one;
    /// others ignore it.
    pub auxiliary: bool,
    /// With linear blocks as they are trained, wide in the middle, in place of the one convolution that each of them
    /// is ([`collapse`](crate::collapse) makes that of the trained ones). Only spaces of stages have such blocks.
    pub expanded: bool,
}

/// Why a space can't be listed, or has no such network.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SpaceError {
    /// The genotype is not one of the space's.
    #[error("build the network: {0}")]
    Genotype(#[from] GenotypeError),
    /// An operator doesn't fit.
    #[error("build the network: {0}")]
    Graph(#[from] GraphError),
    /// More genotypes than anybody could list.
    #[error("enumerate {space}: it has {size:.3e} genotypes, the limit is {limit:.0e}; sample instead")]
    TooMany {
        /// Space.
        space: String,
        /// Its size.
        size: f64,
        /// The limit.
        limit: f64,
    },
    /// A size that must be at least one.
    #[error("build the skeleton: {what} must be at least 1, got 0")]
    Empty {
        /// Which size.
        what: &'static str,
    },
    /// A width that a halving convolution can't split.
    #[error("build the skeleton: {what} splits its channels in two, so the width must be even, got {width}")]
    Width {
        /// What splits.
        what: String,
        /// Width of the skeleton.
        width: usize,
    },
    /// A resolution that a reduction can't halve.
    #[error(
        "build the skeleton: {what} halves {height}x{height} maps, which is odd; choose another resolution \
         than {resolution}"
    )]
    Resolution {
        /// What halves.
        what: String,
        /// Side of the maps that arrive there.
        height: usize,
        /// Resolution of the skeleton.
        resolution: usize,
    },
    /// Maps too small for the auxiliary classifier.
    #[error(
        "build the auxiliary classifier: it needs maps of at least 2x2, got {height}x{height}; raise the \
         resolution or leave it out"
    )]
    Auxiliary {
        /// Side of the maps.
        height: usize,
    },
    /// A block doesn't fit.
    #[error("build the network: {0}")]
    Block(#[from] BlockError),
    /// A skeleton that doesn't go with the space's blocks, or names what isn't there.
    #[error("build the network: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// A space whose networks are no sums of parts.
    #[error(
        "price {space} by a table of parts: what a block costs there depends on the widths around it; \
         predict whole networks from the kernels that they are made of"
    )]
    NotAdditive {
        /// Space.
        space: String,
    },
    /// A choice that the slot doesn't deploy.
    #[error("time `{choice}` at {slot:?}: the edge deploys {expected:?}")]
    Choice {
        /// Slot.
        slot: Slot,
        /// Unknown choice.
        choice: String,
        /// What it deploys.
        expected: Vec<String>,
    },
    /// A slot that the space doesn't have.
    #[error("find {slot:?} in {space}: there is no such slot")]
    Slot {
        /// Slot.
        slot: Slot,
        /// Space.
        space: String,
    },
}

impl Space {
    /// The deployed network of a genotype, batch 1, with the logits as first output.
    ///
    /// # Errors
    /// [`SpaceError`] if the genotype is invalid or the skeleton's sizes can't be built.
    pub fn network(&self, genotype: &Genotype, options: NetworkOptions) -> Result<Graph, SpaceError> {
        self.validate(genotype)?;
        match &self.skeleton {
            Skeleton::Darts(skeleton) => skeleton.network(genotype, options),
            Skeleton::Nas201(skeleton) => skeleton.network(genotype),
            Skeleton::Stages(skeleton) => skeleton.network(genotype),
            Skeleton::Elastic(skeleton) => skeleton.network(genotype, options),
        }
    }

    /// The network of a genotype as it is exported and timed, batch 1. Those of elastic stages are folded
    /// ([`fold`](crate::fold)); in cells a batch norm stays behind its convolution, where operators that are timed
    /// alone have theirs too.
    ///
    /// # Errors
    /// As [`Space::network`].
    pub fn deployed(&self, genotype: &Genotype) -> Result<Graph, SpaceError> {
        let graph = self.network(genotype, NetworkOptions::default())?;
        match &self.skeleton {
            Skeleton::Elastic(_) => Ok(fold_graph(&graph)?),
            _ => Ok(graph),
        }
    }

    /// A network of this space and its weights as [`Space::deployed`] has it, without auxiliary outputs.
    ///
    /// # Errors
    /// [`FoldError`] if weights are missing or of other extents.
    pub fn deploy(&self, graph: &Graph, weights: &Weights) -> Result<Folded, FoldError> {
        if let Skeleton::Elastic(_) = &self.skeleton {
            return fold(graph, weights);
        }
        let (graph, weights) = (graph.without_auxiliary(), weights.clone());
        weights.check(&graph)?;
        Ok(Folded { graph, weights, applied: BTreeMap::new(), left: Vec::new() })
    }

    /// What a choice at a slot computes in the deployed network: one workload per copy of the block,
    /// in network order, at the copy's width, resolution and stride. Equal ones are repeated. Empty
    /// if the choice computes nothing (an identity, or `none`).
    ///
    /// # Errors
    /// [`SpaceError::NotAdditive`] in spaces of elastic stages;
    /// [`SpaceError::Slot`] and [`SpaceError::Choice`] for places that don't exist; see
    /// [`Space::network`] for the rest.
    pub fn instances(&self, slot: Slot, choice: &str) -> Result<Vec<Workload>, SpaceError> {
        let block = self.blocks.get(slot.block);
        let node = block.and_then(|block| block.nodes.get(slot.node));
        let Some(edge) = node.and_then(|node| node.edges.get(slot.edge)) else {
            return Err(SpaceError::Slot { slot, space: self.name.clone() });
        };
        let expected = self.deployable_choices(edge);
        if !expected.contains(&choice) {
            let expected = expected.into_iter().map(str::to_owned).collect();
            return Err(SpaceError::Choice { slot, choice: choice.to_owned(), expected });
        }
        match &self.skeleton {
            Skeleton::Darts(skeleton) => skeleton.instances(slot.block, edge.from, choice),
            Skeleton::Nas201(skeleton) => skeleton.instances(choice),
            Skeleton::Stages(skeleton) => skeleton.instances(slot.node, choice),
            Skeleton::Elastic(_) => Err(SpaceError::NotAdditive { space: self.name.clone() }),
        }
    }

    /// The parts that every network of the space has: stem, preprocessing and sums of every cell,
    /// classifier. Equal ones are repeated, so that fixed parts and instances add up to a network:
    /// exactly in multiply-accumulates and parameters.
    ///
    /// # Errors
    /// [`SpaceError::NotAdditive`] in spaces of elastic stages; see [`Space::network`] for the rest.
    pub fn fixed(&self) -> Result<Vec<Workload>, SpaceError> {
        match &self.skeleton {
            Skeleton::Darts(skeleton) => skeleton.fixed(),
            Skeleton::Nas201(skeleton) => skeleton.fixed(),
            Skeleton::Stages(skeleton) => skeleton.fixed(),
            Skeleton::Elastic(_) => Err(SpaceError::NotAdditive { space: self.name.clone() }),
        }
    }

    /// Everything that must be timed to price any network of the space: all instances of all
    /// deployable choices, then the fixed parts, each computation once, in a stable order.
    ///
    /// In spaces of elastic stages what a block costs depends on the widths around it, and no such list is
    /// short: theirs has the blocks of the published networks and of some that are drawn, for a model that
    /// predicts any graph.
    ///
    /// # Errors
    /// See [`Space::network`].
    pub fn workloads(&self) -> Result<Vec<Workload>, SpaceError> {
        let mut seen = BTreeSet::new();
        let mut workloads = Vec::new();
        let mut add = |found: Vec<Workload>| {
            workloads.extend(found.into_iter().filter(|workload| seen.insert(workload.id())));
        };
        if let Skeleton::Elastic(skeleton) = &self.skeleton {
            add(skeleton.parts(self)?);
            return Ok(workloads);
        }
        for slot in self.slots() {
            for choice in self.deployable(slot) {
                add(self.instances(slot, choice)?);
            }
        }
        add(self.fixed()?);
        Ok(workloads)
    }
}

/// Adds operators one after the other, called `<prefix>.<name>`.
pub(crate) fn chain(
    builder: &mut GraphBuilder,
    prefix: &str,
    mut x: NodeId,
    operators: &[(&str, OpSpec)],
) -> Result<NodeId, GraphError> {
    for (name, operator) in operators {
        x = builder.add(&format!("{prefix}.{name}"), *operator, &[x])?;
    }
    Ok(x)
}

/// A workload with one input, called `<name> <channels>x<height>x<width>` and a remark.
pub(crate) fn workload<E: From<GraphError>>(
    name: &str,
    remark: &str,
    level: Level,
    input: Shape,
    build: impl FnOnce(&mut GraphBuilder, NodeId) -> Result<NodeId, E>,
) -> Result<Workload, E> {
    let mut builder = GraphBuilder::new();
    let x = builder.input("input", input)?;
    let output = build(&mut builder, x)?;
    let graph = builder.finish(&[output])?;
    let label = format!("{name} {}x{}x{} {remark}", input.c, input.h, input.w);
    Ok(Workload::new(label.trim_end(), level, graph))
}

/// The sums of a cell, with so many terms per node, and the concatenation of the sums if `concat`.
/// Each sum reads the ones before, so that an engine can't merge them as equal.
pub(crate) fn glue(
    builder: &mut GraphBuilder,
    input: NodeId,
    terms: &[usize],
    concat: bool,
) -> Result<NodeId, GraphError> {
    let mut states = vec![input];
    for (node, &terms) in terms.iter().enumerate().filter(|(_, terms)| **terms > 1) {
        let inputs: Vec<NodeId> = states.iter().rev().cycle().take(terms).copied().collect();
        states.push(builder.add(&format!("sum{node}"), OpSpec::Add, &inputs)?);
    }
    if concat {
        return builder.add("concat", OpSpec::Concat, &states[1..]);
    }
    Ok(states[states.len() - 1])
}
