//! Networks whose positions are mixtures of blocks.

use std::collections::BTreeMap;

use lathe_spaces::{Genotype, Graph, Mixture, NodeId, Space};
use tch::{Kind, Tensor};

use super::{axis::Owner, policy::Policy, run::TRAINED};
use crate::SearchError;

/// A network that mixes blocks by the policy's logits.
pub(super) struct Relaxed {
    pub graph: Graph,
    pub owner: Owner,
    /// With the node among the policy's, and the logits of the choices that are mixed, leaves of autograd.
    mixtures: Vec<(Mixture, usize, Tensor)>,
}

impl Relaxed {
    /// The relaxed network of a genotype, on one of so many parts of the channels.
    pub fn of(
        space: &Space,
        genotype: &Genotype,
        parts: usize,
        policy: &Policy,
    ) -> Result<Self, SearchError> {
        let (graph, mixtures) = space.relaxed_network(genotype, parts, TRAINED)?;
        let nodes_before =
            |block: usize| space.blocks[..block].iter().map(|block| block.nodes.len()).sum::<usize>();
        let mixtures = mixtures.into_iter().map(|mixture| {
            let [block, node] = mixture.place;
            let place = nodes_before(block) + node;
            let logits: Vec<f32> =
                mixture.choices.iter().map(|&choice| policy.logits[place][choice] as f32).collect();
            let logits = Tensor::from_slice(&logits).set_requires_grad(true);
            (mixture, place, logits)
        });
        let mixtures = mixtures.collect();
        let owner = if parts > 1 { Owner::Relaxed } else { Owner::Paths };
        Ok(Self { graph, owner, mixtures })
    }

    /// Per node of the graph the softmax of its logits.
    pub fn shares(&self) -> BTreeMap<NodeId, Tensor> {
        let shares = |(mixture, _, logits): &(Mixture, usize, Tensor)| {
            (mixture.node, logits.softmax(-1, None::<Kind>))
        };
        self.mixtures.iter().map(shares).collect()
    }

    pub fn leaves(&self) -> Vec<&Tensor> {
        self.mixtures.iter().map(|(_, _, logits)| logits).collect()
    }

    /// Gradients of the leaves, by node of the policy, with zeros for choices that were not mixed.
    pub fn by_node(&self, policy: &Policy, gradients: &[Tensor]) -> BTreeMap<usize, Vec<f64>> {
        let of = |((mixture, place, _), gradient): (&(Mixture, usize, Tensor), &Tensor)| {
            let mut all = vec![0.0; policy.logits[*place].len()];
            for (index, &choice) in mixture.choices.iter().enumerate() {
                all[choice] = gradient.double_value(&[index as i64]);
            }
            (*place, all)
        };
        self.mixtures.iter().zip(gradients).map(of).collect()
    }
}
