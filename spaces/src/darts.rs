//! The DARTS space with PC-DARTS' operations, and its evaluation networks.

use serde::{Deserialize, Serialize};

use crate::{
    Block, BlockSpec, EdgeSpec, Genotype, Graph, GraphBuilder, GraphError, Level, NetworkOptions, NodeId,
    NodeSpec, OpSpec, Shape, Skeleton, Space, SpaceError, Workload,
    network::{NORM, chain, glue, workload},
};

/// Operations in the order of PC-DARTS' architecture parameters.
const PRIMITIVES: [&str; 8] = [
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
];
/// Nodes of a cell.
const NODES: usize = 4;
/// States that enter a cell: the outputs of the two cells before.
const INPUTS: usize = 2;
/// Edges that a node keeps.
const KEEP: usize = 2;
/// Index of the reduction cell among the blocks.
const REDUCE: usize = 1;

/// Genotypes published with PC-DARTS (Xu et al. 2020), searched on CIFAR-10 and on `ImageNet`.
const PUBLISHED: [(&str, &str); 2] = [
    (
        "PC_DARTS_cifar",
        "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), \
         ('dil_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), \
         ('dil_conv_3x3', 1)], normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 1), \
         ('max_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_5x5', 2), ('sep_conv_3x3', 0), \
         ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)], reduce_concat=range(2, 6))",
    ),
    (
        "PC_DARTS_image",
        "Genotype(normal=[('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), \
         ('skip_connect', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), \
         ('dil_conv_5x5', 4)], normal_concat=range(2, 6), reduce=[('sep_conv_3x3', 0), \
         ('skip_connect', 1), ('dil_conv_5x5', 2), ('max_pool_3x3', 1), ('sep_conv_3x3', 2), \
         ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 3)], reduce_concat=range(2, 6))",
    ),
];

/// Which stem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// One 3×3 convolution to three times the width; full resolution.
    Cifar,
    /// Three convolutions of stride 2; the first cell gets a reduced input.
    ImageNet,
}

/// Stack of normal and reduction cells (Liu et al. 2019; Xu et al. 2020).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DartsSkeleton {
    /// Stem.
    pub stem: Stem,
    /// Channels of the first cells.
    pub width: usize,
    /// Number of cells; those at `layers / 3` and `2 · layers / 3` reduce.
    pub layers: usize,
    /// Side of the square input.
    pub resolution: usize,
    /// Classes.
    pub classes: usize,
}

/// Sizes of one cell of a network.
#[derive(Clone, Copy, Debug)]
struct Cell {
    reduction: bool,
    /// Channels of its nodes.
    channels: usize,
    /// Shapes of the two states before preprocessing.
    previous: [Shape; 2],
    /// Side of the maps behind preprocessing.
    height: usize,
}

impl Cell {
    /// Whether the older state must be halved first: the newer one comes from a reduction.
    fn halves(&self) -> bool {
        self.previous[0].h != self.previous[1].h
    }

    /// A state behind preprocessing.
    fn input(&self) -> Shape {
        Shape::new(1, self.channels, self.height, self.height)
    }

    /// A node of the cell.
    fn node(&self) -> Shape {
        let height = if self.reduction { self.height / 2 } else { self.height };
        Shape::new(1, self.channels, height, height)
    }

    fn output(&self) -> Shape {
        Shape { c: NODES * self.channels, ..self.node() }
    }

    /// Stride and shape of the input of an edge.
    fn edge(&self, from: usize) -> (usize, Shape) {
        match (self.reduction, from < INPUTS) {
            (true, true) => (2, self.input()),
            (true, false) => (1, self.node()),
            (false, _) => (1, self.input()),
        }
    }
}

impl Space {
    /// The DARTS space with PC-DARTS' eight operations: blocks `normal` and `reduce`, four nodes
    /// each, of whose 2 to 5 edges two are kept. `none` exists in the relaxation only.
    pub fn darts(skeleton: DartsSkeleton) -> Self {
        let edge = |from| EdgeSpec { from, choices: PRIMITIVES.map(str::to_owned).to_vec() };
        let node = |index| NodeSpec { edges: (0..INPUTS + index).map(edge).collect(), keep: KEEP };
        let block = |name: &str| BlockSpec {
            name: name.into(),
            inputs: INPUTS,
            nodes: (0..NODES).map(node).collect(),
        };
        Self {
            name: "darts".into(),
            blocks: vec![block("normal"), block("reduce")],
            relaxation_only: vec!["none".into()],
            skeleton: Skeleton::Darts(skeleton),
        }
    }

    /// Genotypes that were published for the space, by their name: `PC_DARTS_cifar` and
    /// `PC_DARTS_image` for DARTS, those of the file for spaces of files (at another resolution, those that
    /// are still inside), none for other spaces.
    pub fn published(&self) -> Vec<(&str, Genotype)> {
        let texts: Vec<(&str, &str)> = match &self.skeleton {
            Skeleton::Darts(_) => PUBLISHED.to_vec(),
            Skeleton::Elastic(skeleton) => {
                skeleton.published.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect()
            }
            Skeleton::Nas201(_) | Skeleton::Stages(_) => Vec::new(),
        };
        let parsed = texts.into_iter().map(|(name, text)| Some((name, self.parse(text).ok()?)));
        parsed.flatten().collect()
    }
}

impl DartsSkeleton {
    /// The evaluation network (PC-DARTS' `model.py`): no batch norm behind pools, affine ones
    /// elsewhere, drop path on whatever is not an identity.
    pub(crate) fn network(&self, genotype: &Genotype, options: NetworkOptions) -> Result<Graph, SpaceError> {
        let cells = self.cells()?;
        let mut builder = GraphBuilder::new();
        let b = &mut builder;
        let input = b.input("input", Shape::new(1, 3, self.resolution, self.resolution))?;
        let mut states = match self.stem {
            Stem::Cifar => {
                let stem = self.stem(b, input)?;
                [stem, stem]
            }
            Stem::ImageNet => {
                let stem = self.stem(b, input)?;
                [stem, self.second_stem(b, stem)?]
            }
        };
        let mut auxiliary = None;
        for (index, cell) in cells.iter().enumerate() {
            let prefix = format!("cells.{index}");
            let block = &genotype.blocks[usize::from(cell.reduction)];
            let mut inner = Vec::with_capacity(INPUTS + NODES);
            for (which, state) in states.into_iter().enumerate() {
                inner.push(preprocess(b, &format!("{prefix}.preprocess{which}"), cell, which, state)?);
            }
            for picks in &block.nodes {
                let state = inner.len();
                let mut terms = Vec::with_capacity(picks.len());
                for pick in picks {
                    let (stride, _) = cell.edge(pick.from);
                    let prefix = format!("{prefix}.node{state}.edge{}.{}", pick.from, pick.choice);
                    let x = operation(b, &prefix, &pick.choice, inner[pick.from], cell.channels, stride)?;
                    if x != inner[pick.from] {
                        b.drop_path(x);
                    }
                    terms.push(x);
                }
                inner.push(b.add(&format!("{prefix}.node{state}.sum"), OpSpec::Add, &terms)?);
            }
            let output = b.add(&format!("{prefix}.concat"), OpSpec::Concat, &inner[INPUTS..])?;
            states = [states[1], output];
            if options.auxiliary && index == 2 * self.layers / 3 {
                auxiliary = Some(self.auxiliary(b, output)?);
            }
        }
        let logits = self.classifier(b, states[1])?;
        let outputs: Vec<NodeId> = std::iter::once(logits).chain(auxiliary).collect();
        Ok(builder.finish(&outputs)?)
    }

    pub(crate) fn instances(
        &self,
        block: usize,
        from: usize,
        choice: &str,
    ) -> Result<Vec<Workload>, SpaceError> {
        let mut workloads = Vec::new();
        for cell in self.cells()?.iter().filter(|cell| cell.reduction == (block == REDUCE)) {
            let (stride, input) = cell.edge(from);
            if choice == "none" || choice == "skip_connect" && stride == 1 {
                continue;
            }
            workloads.push(workload(choice, &format!("s{stride}"), Level::Operator, input, |b, x| {
                operation(b, choice, choice, x, cell.channels, stride)
            })?);
        }
        Ok(workloads)
    }

    pub(crate) fn fixed(&self) -> Result<Vec<Workload>, SpaceError> {
        let cells = self.cells()?;
        let input = Shape::new(1, 3, self.resolution, self.resolution);
        let mut workloads = vec![workload("stem", "", Level::Fixed, input, |b, x| self.stem(b, x))?];
        if self.stem == Stem::ImageNet {
            let half = cells[0].previous[0];
            workloads.push(workload("second_stem", "", Level::Fixed, half, |b, x| self.second_stem(b, x))?);
        }
        for cell in &cells {
            for (which, &state) in cell.previous.iter().enumerate() {
                let remark =
                    format!("to {}{}", cell.channels, if cell.halves() && which == 0 { " s2" } else { "" });
                workloads.push(workload("preprocess", &remark, Level::Fixed, state, |b, x| {
                    preprocess(b, "preprocess", cell, which, x)
                })?);
            }
            workloads.push(workload("cell_sums", "", Level::Fixed, cell.node(), |b, x| {
                glue(b, x, &[KEEP; NODES], true)
            })?);
        }
        let last = cells[cells.len() - 1].output();
        let remark = format!("to {}", self.classes);
        workloads.push(workload("classifier", &remark, Level::Fixed, last, |b, x| self.classifier(b, x))?);
        Ok(workloads)
    }

    /// Sizes of all cells.
    fn cells(&self) -> Result<Vec<Cell>, SpaceError> {
        let sizes = [
            ("width", self.width),
            ("layers", self.layers),
            ("resolution", self.resolution),
            ("classes", self.classes),
        ];
        if let Some((what, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(SpaceError::Empty { what });
        }
        let half = |height: usize| height.div_ceil(2);
        let map = |channels, height| Shape::new(1, channels, height, height);
        let mut previous = match self.stem {
            Stem::Cifar => [map(3 * self.width, self.resolution); 2],
            Stem::ImageNet => {
                if !self.width.is_multiple_of(2) {
                    return Err(SpaceError::Width { what: "the stem".into(), width: self.width });
                }
                let quarter = half(half(self.resolution));
                [map(self.width, quarter), map(self.width, half(quarter))]
            }
        };
        let mut channels = self.width;
        let mut cells = Vec::with_capacity(self.layers);
        for index in 0..self.layers {
            let reduction = index == self.layers / 3 || index == 2 * self.layers / 3;
            if reduction {
                channels *= 2;
            }
            let cell = Cell { reduction, channels, previous, height: previous[1].h };
            let odd = |height: usize, what: &str| {
                let what = format!("{what} of cell {index}");
                (!height.is_multiple_of(2)).then_some(SpaceError::Resolution {
                    what,
                    height,
                    resolution: self.resolution,
                })
            };
            if cell.halves()
                && let Some(error) = odd(previous[0].h, "the preprocessing")
            {
                return Err(error);
            }
            if reduction && let Some(error) = odd(cell.height, "the reduction") {
                return Err(error);
            }
            cells.push(cell);
            previous = [previous[1], cell.output()];
        }
        Ok(cells)
    }

    fn stem(&self, b: &mut GraphBuilder, x: NodeId) -> Result<NodeId, GraphError> {
        match self.stem {
            Stem::Cifar => {
                chain(b, "stem", x, &[("conv", OpSpec::conv(3 * self.width, 3, 1)), ("norm", NORM)])
            }
            Stem::ImageNet => chain(
                b,
                "stem0",
                x,
                &[
                    ("conv1", OpSpec::conv(self.width / 2, 3, 2)),
                    ("norm1", NORM),
                    ("relu", OpSpec::Relu),
                    ("conv2", OpSpec::conv(self.width, 3, 2)),
                    ("norm2", NORM),
                ],
            ),
        }
    }

    fn second_stem(&self, b: &mut GraphBuilder, x: NodeId) -> Result<NodeId, GraphError> {
        let conv = OpSpec::conv(self.width, 3, 2);
        chain(b, "stem1", x, &[("relu", OpSpec::Relu), ("conv", conv), ("norm", NORM)])
    }

    fn classifier(&self, b: &mut GraphBuilder, x: NodeId) -> Result<NodeId, GraphError> {
        let pooled = b.add("pool", OpSpec::GlobalAvgPool, &[x])?;
        b.add("classifier", OpSpec::Linear { out_features: self.classes, bias: true }, &[pooled])
    }

    /// The auxiliary classifier behind the second reduction. The pool leaves 2×2 maps: for 8×8 and
    /// 7×7 maps it is exactly the published one (5×5 with stride 3 and 2); others are in proportion.
    fn auxiliary(&self, b: &mut GraphBuilder, x: NodeId) -> Result<NodeId, SpaceError> {
        let height = b.shape(x).h;
        if height < 2 {
            return Err(SpaceError::Auxiliary { height });
        }
        let mut x = b.add("auxiliary.relu", OpSpec::Relu, &[x])?;
        if height > 2 {
            let kernel = (5 * height).div_ceil(8);
            let pool =
                OpSpec::AvgPool { kernel, stride: height - kernel, padding: 0, count_include_pad: false };
            x = b.add("auxiliary.pool", pool, &[x])?;
        }
        let second = OpSpec::Conv2d {
            out_channels: 768,
            kernel: 2,
            stride: 1,
            padding: 0,
            dilation: 1,
            groups: 1,
            bias: false,
        };
        let convolutions = [
            ("conv1", OpSpec::conv(128, 1, 1)),
            ("norm1", NORM),
            ("relu1", OpSpec::Relu),
            ("conv2", second),
            ("norm2", NORM),
            ("relu2", OpSpec::Relu),
            ("classifier", OpSpec::Linear { out_features: self.classes, bias: true }),
        ];
        for (name, operator) in convolutions {
            // The published ImageNet head has no second batch norm.
            if name != "norm2" || self.stem == Stem::Cifar {
                x = b.add(&format!("auxiliary.{name}"), operator, &[x])?;
            }
        }
        Ok(x)
    }
}

/// Brings a state to the cell's width, and the older one to the newer one's resolution.
fn preprocess(
    b: &mut GraphBuilder,
    prefix: &str,
    cell: &Cell,
    which: usize,
    x: NodeId,
) -> Result<NodeId, SpaceError> {
    let (block, stride) = if which == 0 && cell.halves() { ("skip", 2) } else { ("nor_conv k1", 1) };
    Ok(block.parse::<Block>()?.build(b, prefix, x, cell.channels, stride)?)
}

/// One of the eight operations (PC-DARTS' `operations.py`); the identity gives `x` itself.
fn operation(
    b: &mut GraphBuilder,
    prefix: &str,
    choice: &str,
    x: NodeId,
    channels: usize,
    stride: usize,
) -> Result<NodeId, SpaceError> {
    let block = match choice {
        "max_pool_3x3" => "pool max",
        "avg_pool_3x3" => "pool average",
        "skip_connect" => "skip",
        "sep_conv_3x3" => "sep_conv",
        "sep_conv_5x5" => "sep_conv k5",
        "dil_conv_3x3" => "dil_conv",
        "dil_conv_5x5" => "dil_conv k5",
        // Validation lets nothing else through but `none`, which is zeros wherever it is asked for.
        _ => return Ok(b.add(prefix, OpSpec::Zero { stride }, &[x])?),
    };
    Ok(block.parse::<Block>()?.build(b, prefix, x, channels, stride)?)
}
