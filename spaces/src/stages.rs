//! Chains of stages: `FBNet`'s space (Wu et al. 2019).

use serde::{Deserialize, Serialize};

use crate::{
    Block, BlockSpec, EdgeSpec, Genotype, Graph, GraphBuilder, GraphError, Level, NodeId, NodeSpec, OpSpec,
    Shape, Skeleton, Space, SpaceError, Workload,
    network::{NORM, chain, workload},
};

/// Blocks in the order of the published indices; `e` is the expansion, `g` the groups of the 1×1
/// convolutions.
const BLOCKS: [&str; 9] =
    ["k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip"];
/// Channels, number of positions and stride of the first position of each stage (table 1).
const STAGES: [(usize, usize, usize); 7] =
    [(16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1)];
/// Channels of the stem.
const STEM: usize = 16;
/// Channels of the head as published with the `ImageNet` models; re-implementations for CIFAR-100
/// use 1504.
const HEAD: usize = 1984;

/// A chain of positions, each with its output channels and stride.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSkeleton {
    /// Side of the square input.
    pub resolution: usize,
    /// Channels of the stem convolution (3×3, stride 2).
    pub stem_channels: usize,
    /// Positions of the searched blocks, in order.
    pub positions: Vec<StagePosition>,
    /// Channels of the 1×1 convolution before pooling.
    pub head_channels: usize,
    /// Classes.
    pub classes: usize,
}

/// One position of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagePosition {
    /// Output channels.
    pub channels: usize,
    /// Stride.
    pub stride: usize,
}

impl Space {
    /// `FBNet`'s stage-wise space (Wu et al. 2019): block `stages` of 22 positions with 9 blocks each,
    /// behind a 3×3 stem of stride 2 and 16 channels, before a 1×1 head of 1984 channels (1504 in
    /// re-implementations for CIFAR-100: change `head_channels`).
    ///
    /// `skip` is the identity where shapes agree, and a 1×1 convolution (batch norm, rectifier) with
    /// the position's stride where they don't.
    pub fn fbnet(resolution: usize, classes: usize) -> Self {
        let mut positions = Vec::new();
        for (channels, count, stride) in STAGES {
            positions.push(StagePosition { channels, stride });
            positions.extend(vec![StagePosition { channels, stride: 1 }; count - 1]);
        }
        let node = |from| NodeSpec {
            edges: vec![EdgeSpec { from, choices: BLOCKS.map(str::to_owned).to_vec() }],
            keep: 1,
        };
        let nodes = (0..positions.len()).map(node).collect();
        Self {
            name: "fbnet".into(),
            blocks: vec![BlockSpec { name: "stages".into(), inputs: 1, nodes }],
            relaxation_only: Vec::new(),
            skeleton: Skeleton::Stages(StageSkeleton {
                resolution,
                stem_channels: STEM,
                positions,
                head_channels: HEAD,
                classes,
            }),
        }
    }
}

impl StageSkeleton {
    pub(crate) fn network(&self, genotype: &Genotype) -> Result<Graph, SpaceError> {
        self.check()?;
        let mut builder = GraphBuilder::new();
        let b = &mut builder;
        let input = b.input("input", self.input())?;
        let mut x = self.stem(b, input)?;
        let picks = genotype.blocks[0].nodes.iter().flatten();
        for (index, (position, pick)) in self.positions.iter().zip(picks).enumerate() {
            x = block(b, &format!("stages.{index}.{}", pick.choice), &pick.choice, x, *position)?;
        }
        let logits = self.classifier(b, x)?;
        Ok(builder.finish(&[logits])?)
    }

    pub(crate) fn instances(&self, index: usize, choice: &str) -> Result<Vec<Workload>, SpaceError> {
        self.check()?;
        let Some(&position) = self.positions.get(index) else { return Ok(Vec::new()) };
        let input = self.shape_before(index);
        if choice == "skip" && position.stride == 1 && position.channels == input.c {
            return Ok(Vec::new());
        }
        let remark = format!("to {} s{}", position.channels, position.stride);
        Ok(vec![workload::<SpaceError>(choice, &remark, Level::Operator, input, |b, x| {
            block(b, choice, choice, x, position)
        })?])
    }

    pub(crate) fn fixed(&self) -> Result<Vec<Workload>, SpaceError> {
        self.check()?;
        let last = self.shape_before(self.positions.len());
        Ok(vec![
            workload::<GraphError>("stem", "", Level::Fixed, self.input(), |b, x| self.stem(b, x))?,
            workload::<GraphError>("classifier", "", Level::Fixed, last, |b, x| self.classifier(b, x))?,
        ])
    }

    fn check(&self) -> Result<(), SpaceError> {
        let positions = || self.positions.iter();
        let sizes = [
            ("resolution", self.resolution),
            ("stem_channels", self.stem_channels),
            ("head_channels", self.head_channels),
            ("classes", self.classes),
            ("channels of every position", positions().map(|position| position.channels).min().unwrap_or(0)),
            ("stride of every position", positions().map(|position| position.stride).min().unwrap_or(0)),
        ];
        match sizes.into_iter().find(|(_, size)| *size == 0) {
            Some((what, _)) => Err(SpaceError::Empty { what }),
            None => Ok(()),
        }
    }

    fn input(&self) -> Shape {
        Shape::new(1, 3, self.resolution, self.resolution)
    }

    /// Shape that enters a position; every convolution rounds up.
    fn shape_before(&self, index: usize) -> Shape {
        let start =
            Shape::new(1, self.stem_channels, self.resolution.div_ceil(2), self.resolution.div_ceil(2));
        self.positions[..index].iter().fold(start, |before, position| {
            let height = before.h.div_ceil(position.stride);
            Shape::new(1, position.channels, height, height)
        })
    }

    fn stem(&self, b: &mut GraphBuilder, x: NodeId) -> Result<NodeId, GraphError> {
        let conv = OpSpec::conv(self.stem_channels, 3, 2);
        chain(b, "stem", x, &[("conv", conv), ("norm", NORM), ("relu", OpSpec::Relu)])
    }

    fn classifier(&self, b: &mut GraphBuilder, x: NodeId) -> Result<NodeId, GraphError> {
        let conv = OpSpec::conv(self.head_channels, 1, 1);
        let head = [("conv", conv), ("norm", NORM), ("relu", OpSpec::Relu), ("pool", OpSpec::GlobalAvgPool)];
        let x = chain(b, "head", x, &head)?;
        b.add("classifier", OpSpec::Linear { out_features: self.classes, bias: true }, &[x])
    }
}

/// One of the nine blocks; `skip` gives `x` itself where shapes agree.
fn block(
    b: &mut GraphBuilder,
    prefix: &str,
    choice: &str,
    x: NodeId,
    position: StagePosition,
) -> Result<NodeId, SpaceError> {
    // `k3_e1_g2` is the block `fbnet k3 e1 g2`.
    let text =
        if choice == "skip" { "skip projected".into() } else { format!("fbnet {choice}").replace('_', " ") };
    Ok(text.parse::<Block>()?.build(b, prefix, x, position.channels, position.stride)?)
}
