//! α and β as tensors.

use lathe_spaces::{Space, Stream};
use rand::{Rng, RngExt as _};
use tch::{Device, Kind, Tensor};

use super::SupernetError;
use crate::scores::{NodeSlots, Scores, node_slots};

/// Standard deviation of the initial logits.
const INITIAL_DEVIATION: f64 = 1e-3;

/// The architecture parameters: per block α `[edges, choices]` and β `[edges]`.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// All values in one vector, which the leaves share: all α of a block, then its β, block by block.
    pub flat: Tensor,
    /// Leaves of autograd, in the order of `flat`: α and β of every block.
    leaves: Vec<Tensor>,
    nodes: Vec<NodeSlots>,
    /// Position of each block's first slot.
    first_slots: Vec<usize>,
}

/// softmax(α) and softmax(β) as scalar tensors.
#[derive(Debug)]
pub(crate) struct Mixture {
    /// Per block, edge and choice.
    pub alpha: Vec<Vec<Vec<Tensor>>>,
    /// Per block and edge.
    pub beta: Vec<Vec<Tensor>>,
}

impl Architecture {
    /// Logits drawn from a normal distribution with deviation 10⁻³; they depend on `seed` only.
    pub fn new(space: &Space, kind: Kind, seed: u64) -> Result<Self, SupernetError> {
        let mut values = Vec::new();
        let mut shapes: Vec<Vec<i64>> = Vec::new();
        let mut first_slots = Vec::new();
        let mut slots = 0;
        for (index, block) in space.blocks.iter().enumerate() {
            let edges: Vec<_> = block.nodes.iter().flat_map(|node| &node.edges).collect();
            let choices = edges.first().map_or(0, |edge| edge.choices.len());
            if choices == 0 || edges.iter().any(|edge| edge.choices.len() != choices) {
                return Err(SupernetError::Uneven { block: block.name.clone() });
            }
            let mut random = Stream::new(seed, "architecture parameters", index as u64);
            let count = edges.len() * (choices + 1);
            values.extend((0..count).map(|_| INITIAL_DEVIATION * standard_normal(&mut random)));
            shapes.push(vec![edges.len() as i64, choices as i64]);
            shapes.push(vec![edges.len() as i64]);
            first_slots.push(slots);
            slots += edges.len();
        }
        let flat = Tensor::from_slice(&values).to_kind(kind);
        let mut start = 0;
        let mut leaves = Vec::new();
        for shape in shapes {
            let length = shape.iter().product();
            let view = flat.narrow(0, start, length).view(shape.as_slice());
            leaves.push(view.detach().set_requires_grad(true));
            start += length;
        }
        Ok(Self { flat, leaves, nodes: node_slots(space), first_slots })
    }

    /// With given logits, in single precision.
    pub fn of(space: &Space, scores: &Scores) -> Result<Self, SupernetError> {
        let mut architecture = Self::new(space, Kind::Float, 0)?;
        let mut values = Vec::new();
        let ends = architecture.first_slots.iter().skip(1).copied().chain([scores.beta.len()]);
        for (&first, end) in architecture.first_slots.iter().zip(ends) {
            values.extend(scores.alpha[first..end].iter().flatten().copied());
            values.extend_from_slice(&scores.beta[first..end]);
        }
        let values = Tensor::from_slice(&values).to_kind(Kind::Float);
        tch::no_grad(|| architecture.flat.copy_(&values));
        Ok(architecture)
    }

    /// Moves everything to a device.
    pub fn move_to(&mut self, device: Device) {
        self.flat = self.flat.to_device(device);
        let mut start = 0;
        for leaf in &mut self.leaves {
            let length = leaf.numel() as i64;
            let view = self.flat.narrow(0, start, length).view(leaf.size().as_slice());
            *leaf = view.detach().set_requires_grad(true);
            start += length;
        }
    }

    /// Leaves of autograd.
    pub fn leaves(&self) -> &[Tensor] {
        &self.leaves
    }

    /// Per block softmax(α) over choices `[edges, choices]` and softmax(β) over the edges of each node
    /// `[edges]`; without `learn` nothing records how they came about, so a backward pass computes
    /// nothing for them.
    pub fn probabilities(&self, learn: bool) -> Vec<[Tensor; 2]> {
        let leaf = |index: usize| {
            if learn { self.leaves[index].shallow_clone() } else { self.leaves[index].detach() }
        };
        let block = |(block, &first): (usize, &usize)| {
            let (alpha, beta) = (leaf(2 * block), leaf(2 * block + 1));
            let kind = alpha.kind();
            let nodes: Vec<Tensor> = (self.nodes.iter().filter(|node| node.block == block))
                .map(|node| {
                    let (start, length) = (node.slots.start - first, node.slots.len());
                    beta.narrow(0, start as i64, length as i64).softmax(-1, kind)
                })
                .collect();
            [alpha.softmax(-1, kind), Tensor::cat(&nodes, 0)]
        };
        self.first_slots.iter().enumerate().map(block).collect()
    }

    /// The probabilities as scalars.
    pub fn mixture(&self, learn: bool) -> Mixture {
        let mut mixture = Mixture { alpha: Vec::new(), beta: Vec::new() };
        for [alpha, beta] in self.probabilities(learn) {
            // One unbind for all scalars: its backward pass is one stack, not one scatter for each.
            let scalars = alpha.flatten(0, -1).unbind(0);
            let choices = alpha.size()[1] as usize;
            let rows = scalars.chunks(choices).map(|row| row.iter().map(Tensor::shallow_clone).collect());
            mixture.alpha.push(rows.collect());
            mixture.beta.push(beta.unbind(0));
        }
        mixture
    }

    /// The leaves as rows on the processor: α per slot, β per node, in the order of the space; part of
    /// autograd.
    pub fn rows(&self) -> (Vec<Tensor>, Vec<Tensor>) {
        let mut alpha = Vec::new();
        let mut beta = Vec::new();
        for (block, &first) in self.first_slots.iter().enumerate() {
            alpha.extend(self.leaves[2 * block].to_device(Device::Cpu).unbind(0));
            let leaf = self.leaves[2 * block + 1].to_device(Device::Cpu);
            for node in self.nodes.iter().filter(|node| node.block == block) {
                let (start, length) = ((node.slots.start - first) as i64, node.slots.len() as i64);
                beta.push(leaf.narrow(0, start, length));
            }
        }
        (alpha, beta)
    }

    /// The logits as plain numbers.
    pub fn scores(&self) -> Scores {
        let numbers = |tensor: &Tensor| {
            let tensor = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double).contiguous();
            let mut values = vec![0.0; tensor.numel()];
            let length = values.len();
            tensor.copy_data(&mut values, length);
            values
        };
        let mut scores = Scores { alpha: Vec::new(), beta: Vec::new() };
        for block in 0..self.first_slots.len() {
            scores.alpha.extend(self.leaves[2 * block].unbind(0).iter().map(&numbers));
            scores.beta.extend(numbers(&self.leaves[2 * block + 1]));
        }
        scores
    }
}

/// One draw from the standard normal distribution (Box & Muller 1958).
fn standard_normal<R: Rng + ?Sized>(random: &mut R) -> f64 {
    // 1 − u lies in (0, 1]: its logarithm is finite.
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
}
