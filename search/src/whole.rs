//! Costs of whole networks, where no table of parts tells them.

use lathe_latency_db::kernels::KernelModel;
use lathe_spaces::{Genotype, Graph, NetworkOptions, Pick, Space, SpaceError, Stream};
use serde::Serialize;

/// Most times that all choices are gone through for the ends of a range.
const ROUNDS: usize = 4;

/// What a whole network costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WholeCosts {
    /// Latency by a model of kernels, in microseconds.
    Kernels(Box<KernelModel>),
    /// Multiply-accumulates of one image.
    Macs,
    /// Learned parameters.
    Parameters,
}

impl WholeCosts {
    /// Mean and upper bound of a network.
    pub fn of(&self, graph: &Graph) -> [f64; 2] {
        match self {
            Self::Kernels(model) => {
                let prediction = model.predict(graph).prediction;
                [prediction.mean.0, prediction.high.0]
            }
            Self::Macs => [graph.macs() as f64; 2],
            Self::Parameters => [graph.parameter_count() as f64; 2],
        }
    }

    /// Mean and upper bound of a network of a space; infinite for what is none. Latencies are those of the network
    /// as it is timed; operations and parameters are counted before it is folded, as papers count.
    pub fn at(&self, space: &Space, genotype: &Genotype) -> [f64; 2] {
        let graph = match self {
            Self::Kernels(_) => space.deployed(genotype),
            Self::Macs | Self::Parameters => space.network(genotype, NetworkOptions::default()),
        };
        graph.map_or([f64::INFINITY; 2], |graph| self.of(&graph))
    }
}

/// The networks at both ends of a quantity, as far as changing one choice after the other finds them.
#[derive(Clone, Debug, PartialEq)]
pub struct Extremes {
    /// Least and greatest mean.
    pub range: [f64; 2],
    /// The network with the least upper bound.
    pub least: Genotype,
}

impl Extremes {
    /// Of a space; `seed` draws the network that both walks begin at.
    ///
    /// # Errors
    /// [`SpaceError`] if the space has no network there.
    pub fn of(space: &Space, costs: &WholeCosts, seed: u64) -> Result<Self, SpaceError> {
        let start = space.sample(&mut Stream::new(seed, "ends of a range", 0));
        space.network(&start, NetworkOptions::default())?;
        let least = walk(space, &start, |genotype| costs.at(space, genotype)[1]);
        let most = walk(space, &start, |genotype| -costs.at(space, genotype)[0]);
        let range = [&least, &most].map(|genotype| costs.at(space, genotype)[0]);
        Ok(Self { range, least })
    }
}

/// Changes single choices as long as the value falls.
fn walk(space: &Space, start: &Genotype, value: impl Fn(&Genotype) -> f64) -> Genotype {
    let mut best = start.clone();
    let mut least = value(&best);
    for _ in 0..ROUNDS {
        let before = least;
        for (block, spec) in space.blocks.iter().enumerate() {
            for (node, spec) in spec.nodes.iter().enumerate() {
                let [edge] = spec.edges.as_slice() else { continue };
                if !space.is_active(&best.blocks[block], node) {
                    continue;
                }
                for choice in &edge.choices {
                    let mut other = best.clone();
                    other.blocks[block].nodes[node] = vec![Pick { from: edge.from, choice: choice.clone() }];
                    let found = value(&other);
                    if found < least {
                        (best, least) = (other, found);
                    }
                }
            }
        }
        if least >= before {
            break;
        }
    }
    best
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_ends_enclose_what_is_drawn() {
        for name in ["shvit", "sesr"] {
            let space = Space::named(name).unwrap().unwrap();
            let found = Extremes::of(&space, &WholeCosts::Macs, 1).unwrap();
            assert!(space.validate(&found.least).is_ok());
            for index in 0..30 {
                let drawn = space.sample(&mut Stream::new(2, "test whole", index));
                let [macs, _] = WholeCosts::Macs.at(&space, &drawn);
                assert!(
                    (found.range[0]..=found.range[1]).contains(&macs),
                    "{name}: {macs}, {:?}",
                    found.range
                );
            }
        }
    }

    #[test]
    fn the_smallest_network_of_sesr_is_known() {
        // 8 channels, one block, windows of 3: 9·8 + 9·64 multiplications per pixel, then 25·8·4 in the head.
        let space = Space::named("sesr").unwrap().unwrap();
        let found = Extremes::of(&space, &WholeCosts::Macs, 1).unwrap();
        assert!(
            (found.range[0] / (180.0 * 320.0) - (72.0 + 576.0 + 800.0)).abs() < 1e-9,
            "{:?}",
            found.range
        );
    }
}
