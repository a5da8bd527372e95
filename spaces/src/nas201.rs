//! The NAS-Bench-201 space (Dong & Yang 2020).

use serde::{Deserialize, Serialize};

use crate::{
    Block, BlockSpec, EdgeSpec, Genotype, Graph, GraphBuilder, GraphError, Level, NodeId, NodeSpec, OpSpec,
    Shape, Skeleton, Space, SpaceError, Workload, mersenne,
    network::{NORM, chain, glue, workload},
};

/// Operations in the benchmark's order.
const OPERATIONS: [&str; 5] = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"];
/// Nodes of a cell behind its input; node `i` sums an edge from every earlier state.
const NODES: usize = 3;
/// Stages, each of twice the width and half the resolution of the one before.
const STAGES: usize = 3;

/// Three stages of `cells` cells with residual reductions between them (Dong & Yang 2020). The
/// benchmark itself has width 16, 5 cells, resolution 32 and 10 classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nas201Skeleton {
    /// Channels of the first stage.
    pub width: usize,
    /// Cells per stage.
    pub cells: usize,
    /// Side of the square input.
    pub resolution: usize,
    /// Classes.
    pub classes: usize,
}

impl Space {
    /// The NAS-Bench-201 space: one block `cell` of 6 edges with 5 operations each, all deployable
    /// (`none` too), 15,625 genotypes.
    pub fn nas201(skeleton: Nas201Skeleton) -> Self {
        let edge = |from| EdgeSpec { from, choices: OPERATIONS.map(str::to_owned).to_vec() };
        let node = |index| NodeSpec { edges: (0..=index).map(edge).collect(), keep: index + 1 };
        let block = BlockSpec { name: "cell".into(), inputs: 1, nodes: (0..NODES).map(node).collect() };
        Self {
            name: "nas-bench-201".into(),
            blocks: vec![block],
            relaxation_only: Vec::new(),
            skeleton: Skeleton::Nas201(skeleton),
        }
    }
}

/// Lexicographic indices in the order of the benchmark's architecture index. The benchmark lists its
/// cells lexicographically and then shuffles them with Python's generator and the seed 88.
pub(crate) fn official_order(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    mersenne::shuffle(&mut order, 88);
    order
}

impl Nas201Skeleton {
    pub(crate) fn network(&self, genotype: &Genotype) -> Result<Graph, SpaceError> {
        let stages = self.stages()?;
        let mut builder = GraphBuilder::new();
        let b = &mut builder;
        let input = b.input("input", self.input())?;
        let mut x = self.stem(b, input)?;
        for (stage, shape) in stages.into_iter().enumerate() {
            if stage > 0 {
                x = reduction(b, &format!("reductions.{}", stage - 1), x, shape.c)?;
            }
            for cell in 0..self.cells {
                let prefix = format!("stages.{stage}.cells.{cell}");
                let mut states = vec![x];
                for picks in &genotype.blocks[0].nodes {
                    let node = states.len();
                    let mut terms = Vec::with_capacity(picks.len());
                    for pick in picks {
                        let prefix = format!("{prefix}.node{node}.edge{}.{}", pick.from, pick.choice);
                        terms.push(operation(b, &prefix, &pick.choice, states[pick.from], shape.c)?);
                    }
                    states.push(match terms[..] {
                        [only] => only,
                        _ => b.add(&format!("{prefix}.node{node}.sum"), OpSpec::Add, &terms)?,
                    });
                }
                x = states[NODES];
            }
        }
        let logits = self.classifier(b, x)?;
        Ok(builder.finish(&[logits])?)
    }

    pub(crate) fn instances(&self, choice: &str) -> Result<Vec<Workload>, SpaceError> {
        let mut workloads = Vec::new();
        if choice == "none" || choice == "skip_connect" {
            return Ok(workloads);
        }
        for shape in self.stages()? {
            let one = workload(choice, "s1", Level::Operator, shape, |b, x| {
                operation(b, choice, choice, x, shape.c)
            })?;
            workloads.extend(vec![one; self.cells]);
        }
        Ok(workloads)
    }

    pub(crate) fn fixed(&self) -> Result<Vec<Workload>, SpaceError> {
        let stages = self.stages()?;
        let mut workloads = vec![workload("stem", "", Level::Fixed, self.input(), |b, x| self.stem(b, x))?];
        for (stage, &shape) in stages.iter().enumerate() {
            if stage > 0 {
                workloads.push(workload("reduction", "", Level::Fixed, stages[stage - 1], |b, x| {
                    reduction(b, "reduction", x, shape.c)
                })?);
            }
            let sums = workload("cell_sums", "", Level::Fixed, shape, |b, x| glue(b, x, &[1, 2, 3], false));
            workloads.extend(vec![sums?; self.cells]);
        }
        let last = stages[STAGES - 1];
        workloads.push(workload("classifier", "", Level::Fixed, last, |b, x| self.classifier(b, x))?);
        Ok(workloads)
    }

    fn input(&self) -> Shape {
        Shape::new(1, 3, self.resolution, self.resolution)
    }

    /// Shapes inside the three stages.
    fn stages(&self) -> Result<[Shape; STAGES], SpaceError> {
        let sizes = [
            ("width", self.width),
            ("cells", self.cells),
            ("resolution", self.resolution),
            ("classes", self.classes),
        ];
        if let Some((what, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(SpaceError::Empty { what });
        }
        let shape = |stage: usize| {
            let height = self.resolution >> stage;
            Shape::new(1, self.width << stage, height, height)
        };
        // The shortcut rounds down and the convolution up: an odd map can't be reduced.
        for (what, stage) in [("the first reduction", 0), ("the second reduction", 1)] {
            let height = shape(stage).h;
            if height == 0 || !height.is_multiple_of(2) {
                return Err(SpaceError::Resolution {
                    what: what.into(),
                    height,
                    resolution: self.resolution,
                });
            }
        }
        Ok([shape(0), shape(1), shape(2)])
    }

    fn stem(&self, b: &mut GraphBuilder, x: NodeId) -> Result<NodeId, GraphError> {
        chain(b, "stem", x, &[("conv", OpSpec::conv(self.width, 3, 1)), ("norm", NORM)])
    }

    fn classifier(&self, b: &mut GraphBuilder, x: NodeId) -> Result<NodeId, GraphError> {
        let x =
            chain(b, "head", x, &[("norm", NORM), ("relu", OpSpec::Relu), ("pool", OpSpec::GlobalAvgPool)])?;
        b.add("classifier", OpSpec::Linear { out_features: self.classes, bias: true }, &[x])
    }
}

/// The residual block between stages: two 3×3 convolutions beside an average pool and a 1×1 one.
fn reduction(b: &mut GraphBuilder, prefix: &str, x: NodeId, channels: usize) -> Result<NodeId, GraphError> {
    let main = chain(
        b,
        prefix,
        x,
        &[
            ("relu1", OpSpec::Relu),
            ("conv1", OpSpec::conv(channels, 3, 2)),
            ("norm1", NORM),
            ("relu2", OpSpec::Relu),
            ("conv2", OpSpec::conv(channels, 3, 1)),
            ("norm2", NORM),
        ],
    )?;
    let pool = OpSpec::AvgPool { kernel: 2, stride: 2, padding: 0, count_include_pad: false };
    let shortcut = chain(b, prefix, x, &[("pool", pool), ("shortcut", OpSpec::conv(channels, 1, 1))])?;
    b.add(&format!("{prefix}.sum"), OpSpec::Add, &[shortcut, main])
}

/// One of the five operations; the identity gives `x` itself.
fn operation(
    b: &mut GraphBuilder,
    prefix: &str,
    choice: &str,
    x: NodeId,
    channels: usize,
) -> Result<NodeId, SpaceError> {
    let block = match choice {
        "skip_connect" => "skip",
        "nor_conv_1x1" => "nor_conv k1",
        "nor_conv_3x3" => "nor_conv",
        "avg_pool_3x3" => "pool average",
        // Validation lets nothing else through but `none`.
        _ => return Ok(b.add(prefix, OpSpec::Zero { stride: 1 }, &[x])?),
    };
    Ok(block.parse::<Block>()?.build(b, prefix, x, channels, 1)?)
}
