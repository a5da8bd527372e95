//! Where everything lies: weights and statistics in their flat vectors, tensors in a block's memory.

use std::{collections::BTreeMap, ops::Range};

use lathe_spaces::{BlockSpec, DartsSkeleton, Skeleton, Space, Stem};
use tch::Tensor;

use super::kernels::{Dense, Extent, Window};
use crate::{
    SupernetSettings,
    supernet::{Parameters, SupernetError},
};

/// Ranges of named tensors in the flat vectors of [`Parameters`].
struct Names {
    learned: BTreeMap<String, Range<usize>>,
    statistics: BTreeMap<String, Range<usize>>,
}

impl Names {
    fn new(parameters: &Parameters) -> Self {
        let ranges = |tensors: &[(String, Tensor)]| {
            let mut start = 0;
            let range = |(name, tensor): &(String, Tensor)| {
                let range = start..start + tensor.numel();
                start = range.end;
                (name.clone(), range)
            };
            tensors.iter().map(range).collect()
        };
        Self { learned: ranges(&parameters.learned), statistics: ranges(&parameters.statistics) }
    }

    fn weight(&self, name: &str) -> Range<usize> {
        find(&self.learned, &format!("{name}.weight"))
    }

    fn norm(&self, name: &str) -> NormPlan {
        NormPlan {
            mean: find(&self.statistics, &format!("{name}.running_mean")),
            variance: find(&self.statistics, &format!("{name}.running_var")),
        }
    }

    fn affine(&self, name: &str) -> [Range<usize>; 2] {
        [self.weight(name), find(&self.learned, &format!("{name}.bias"))]
    }
}

fn find(ranges: &BTreeMap<String, Range<usize>>, name: &str) -> Range<usize> {
    ranges.get(name).cloned().unwrap_or_else(|| unreachable!("the plain supernet has no tensor {name}"))
}

/// Running statistics of a batch norm.
#[derive(Clone, Debug)]
pub(crate) struct NormPlan {
    pub mean: Range<usize>,
    pub variance: Range<usize>,
}

/// Rectification, dense convolution and batch norm; a factorised reduction has two convolutions, whose
/// outputs lie one above the other.
#[derive(Clone, Debug)]
pub(crate) struct LayerPlan {
    pub parts: Vec<(Dense, Range<usize>)>,
    pub norm: NormPlan,
    /// Learned scale and shift.
    pub affine: Option<[Range<usize>; 2]>,
    pub output: Extent,
}

impl LayerPlan {
    fn conv(names: &Names, conv: &str, norm: &str, dense: Dense, affine: bool) -> Self {
        Self {
            parts: vec![(dense, names.weight(conv))],
            norm: names.norm(norm),
            affine: affine.then(|| names.affine(norm)),
            output: dense.output(),
        }
    }

    fn reduce(names: &Names, name: &str, input: Extent, outputs: usize) -> Self {
        let dense =
            |offset| Dense { kernel: 1, stride: 2, offset, rectify: true, outputs: outputs / 2, input };
        let part = |offset, half: &str| (dense(offset), names.weight(&format!("{name}.1.{half}")));
        Self {
            parts: vec![part(0, "first"), part(1, "second")],
            norm: names.norm(&format!("{name}.2")),
            affine: None,
            output: dense(0).output().with_channels(outputs),
        }
    }

    /// What goes in.
    pub fn input(&self) -> Extent {
        self.parts[0].0.input
    }
}

/// One depthwise and pointwise convolution and its batch norm.
#[derive(Clone, Debug)]
pub(crate) struct StagePlan {
    pub window: Window,
    pub input: Extent,
    pub depthwise: Range<usize>,
    pub pointwise: Range<usize>,
    pub norm: NormPlan,
}

/// What a choice computes.
#[derive(Clone, Debug)]
pub(crate) enum OperationPlan {
    Maximum(NormPlan),
    Mean(NormPlan),
    Identity,
    /// The identity where the size halves.
    Reduce(LayerPlan),
    /// One stage (dilated) or two (separable).
    Separable(Vec<StagePlan>),
}

/// An edge; `none` is left out of its operations.
#[derive(Clone, Debug)]
pub(crate) struct EdgePlan {
    pub from: usize,
    pub node: usize,
    /// Position of the choice, and the operation.
    pub operations: Vec<(usize, OperationPlan)>,
}

/// Which tensor a cell starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Output of this layer of the stem.
    Stem(usize),
    /// Output of this cell.
    Cell(usize),
}

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct CellPlan {
    /// Index of its block in the space.
    pub block: usize,
    pub origins: [Origin; 2],
    pub preprocess: [LayerPlan; 2],
    pub edges: Vec<EdgePlan>,
    /// Edges into each node.
    pub incoming: Vec<Vec<usize>>,
    /// K.
    pub partial: usize,
    /// Extent of the two inputs, preprocessed.
    pub input: Extent,
    /// Extent of every node's output.
    pub node: Extent,
}

impl CellPlan {
    /// Channels that pass through the operations.
    pub fn part(&self) -> usize {
        self.node.channels / self.partial
    }

    /// Extent of a state: 0 and 1 are the inputs, the others the nodes.
    pub fn state(&self, state: usize) -> Extent {
        if state < 2 { self.input } else { self.node }
    }

    /// Stride of edges that start at a state.
    pub fn stride(&self, state: usize) -> usize {
        self.state(state).height / self.node.height
    }

    /// Extent of the whole output.
    pub fn output(&self) -> Extent {
        self.node.with_channels(self.node.channels * self.incoming.len())
    }
}

/// The whole network.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub images: Extent,
    pub stem: Vec<LayerPlan>,
    pub cells: Vec<CellPlan>,
    /// Length of the flat vector of learned values.
    pub learned: usize,
}

impl Plan {
    /// The plan of the plain supernet of a space of normal and reduction cells.
    pub fn of(
        space: &Space,
        settings: SupernetSettings,
        parameters: &Parameters,
    ) -> Result<Self, SupernetError> {
        match &space.skeleton {
            Skeleton::Darts(skeleton) => Self::new(&space.blocks, skeleton, settings, parameters),
            _ => Err(SupernetError::Space { space: space.name.clone() }),
        }
    }

    /// The plan of the plain supernet with these parameters.
    pub fn new(
        blocks: &[BlockSpec],
        skeleton: &DartsSkeleton,
        settings: SupernetSettings,
        parameters: &Parameters,
    ) -> Result<Self, SupernetError> {
        let names = Names::new(parameters);
        let width = settings.width;
        let images = Extent { channels: 3, height: skeleton.resolution, width: skeleton.resolution };
        let mut stem: Vec<LayerPlan> = Vec::new();
        let mut layer = |conv: &str, norm: &str, outputs, stride, rectify| {
            let input = stem.last().map_or(images, |layer: &LayerPlan| layer.output);
            let dense = Dense { kernel: 3, stride, offset: 0, rectify, outputs, input };
            stem.push(LayerPlan::conv(&names, conv, norm, dense, true));
        };
        let origins = match skeleton.stem {
            Stem::Cifar => {
                layer("stem.0", "stem.1", 3 * width, 1, false);
                [Origin::Stem(0); 2]
            }
            Stem::ImageNet => {
                layer("stem0.0", "stem0.1", width / 2, 2, false);
                layer("stem0.3", "stem0.4", width, 2, true);
                layer("stem1.1", "stem1.2", width, 2, true);
                [Origin::Stem(1), Origin::Stem(2)]
            }
        };
        let mut cells: Vec<CellPlan> = Vec::new();
        let mut origins = origins;
        let mut channels = width;
        for index in 0..settings.layers {
            let reduction = index == settings.layers / 3 || index == 2 * settings.layers / 3;
            if reduction {
                channels *= 2;
            }
            let extent = |origin| match origin {
                Origin::Stem(layer) => stem[layer].output,
                Origin::Cell(cell) => CellPlan::output(&cells[cell]),
            };
            let before = origins.map(extent);
            let name = format!("cells.{index}");
            let block = usize::from(reduction);
            let cell = cell(
                &names,
                &name,
                (block, &blocks[block]),
                before,
                origins,
                Extent { channels, ..before[1] },
                settings.partial_channels,
            )?;
            cells.push(cell);
            origins = [origins[1], Origin::Cell(index)];
        }
        let learned = parameters.learned.iter().map(|(_, tensor)| tensor.numel()).sum();
        Ok(Self { images, stem, cells, learned })
    }

    /// Extent of the last cell's output.
    pub fn output(&self) -> Extent {
        self.cells.last().map_or(self.images, CellPlan::output)
    }
}

fn cell(
    names: &Names,
    name: &str,
    (index, block): (usize, &BlockSpec),
    before: [Extent; 2],
    origins: [Origin; 2],
    input: Extent,
    partial: usize,
) -> Result<CellPlan, SupernetError> {
    let by = if index == 1 { 2 } else { 1 };
    let node = Extent { height: input.height / by, width: input.width / by, ..input };
    let preprocess = [0, 1].map(|which: usize| {
        let name = format!("{name}.preprocess{which}");
        if before[which].height == input.height {
            let dense = Dense {
                kernel: 1,
                stride: 1,
                offset: 0,
                rectify: true,
                outputs: input.channels,
                input: before[which],
            };
            LayerPlan::conv(names, &format!("{name}.1"), &format!("{name}.2"), dense, false)
        } else {
            LayerPlan::reduce(names, &name, before[which], input.channels)
        }
    });
    let mut edges = Vec::new();
    let mut incoming = Vec::new();
    for (node_index, spec) in block.nodes.iter().enumerate() {
        let mut mine: Vec<usize> = Vec::new();
        for edge in &spec.edges {
            // Gradients of a node's edges are added to their states at the same time.
            if mine.iter().any(|&other: &usize| {
                let other: &EdgePlan = &edges[other];
                other.from == edge.from
            }) {
                return Err(SupernetError::Parallel { block: block.name.clone(), state: edge.from });
            }
            let from = if edge.from < 2 { input } else { node };
            let mut operations = Vec::new();
            for (choice, text) in edge.choices.iter().enumerate() {
                let name = format!("{name}.edges.{}.{text}", edges.len());
                let extent = from.with_channels(input.channels / partial);
                if let Some(operation) = operation(names, &name, text, extent, from.height / node.height) {
                    operations.push((choice, operation));
                }
            }
            mine.push(edges.len());
            edges.push(EdgePlan { from: edge.from, node: node_index, operations });
        }
        incoming.push(mine);
    }
    Ok(CellPlan { block: index, origins, preprocess, edges, incoming, partial, input, node })
}

/// The plain supernet has refused unknown choices before.
fn operation(names: &Names, name: &str, choice: &str, input: Extent, stride: usize) -> Option<OperationPlan> {
    let stages = |kernel: usize, dilation: usize, strides: &[usize]| {
        let mut input = input;
        let mut stages = Vec::new();
        for (index, &stride) in strides.iter().enumerate() {
            // Rectification, depthwise, pointwise, batch norm.
            let at = |layer: usize| format!("{name}.{}", 4 * index + layer);
            let window = Window::new(kernel, stride, dilation)?;
            stages.push(StagePlan {
                window,
                input,
                depthwise: names.weight(&at(1)),
                pointwise: names.weight(&at(2)),
                norm: names.norm(&at(3)),
            });
            input = window.output(input);
        }
        Some(OperationPlan::Separable(stages))
    };
    match choice {
        "max_pool_3x3" => Some(OperationPlan::Maximum(names.norm(&format!("{name}.1")))),
        "avg_pool_3x3" => Some(OperationPlan::Mean(names.norm(&format!("{name}.1")))),
        "skip_connect" if stride == 1 => Some(OperationPlan::Identity),
        "skip_connect" => Some(OperationPlan::Reduce(LayerPlan::reduce(names, name, input, input.channels))),
        "sep_conv_3x3" => stages(3, 1, &[stride, 1]),
        "sep_conv_5x5" => stages(5, 1, &[stride, 1]),
        "dil_conv_3x3" => stages(3, 2, &[stride]),
        "dil_conv_5x5" => stages(5, 2, &[stride]),
        _ => None,
    }
}
