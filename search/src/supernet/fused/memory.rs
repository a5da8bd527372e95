//! The tensors of one block of images, allocated once.

use super::{
    lanes::{Element, LANES, Plane, plane},
    plan::{CellPlan, LayerPlan, OperationPlan, Plan},
};

/// Output of a layer: before and after the batch norm.
#[derive(Debug)]
pub(super) struct LayerMemory<T> {
    pub z: Plane<T>,
    pub y: Plane<T>,
}

impl<T: Element> LayerMemory<T> {
    fn new(layer: &LayerPlan) -> Self {
        let volume = layer.output.volume();
        Self { z: plane(volume), y: plane(volume) }
    }
}

/// What an operation keeps for the way back: outputs of its convolutions.
pub(super) type OperationMemory<T> = Vec<Plane<T>>;

/// What the edges that leave a state have in common.
#[derive(Debug)]
pub(super) struct StateMemory<T> {
    pub maximum: Plane<T>,
    pub mean: Plane<T>,
    /// The channels that go around the operations, where the size halves.
    pub halved: Plane<T>,
}

/// Tensors of a cell.
#[derive(Debug)]
pub(super) struct CellMemory<T> {
    pub preprocess: [LayerMemory<T>; 2],
    /// All nodes, one above the other, and their gradient.
    pub output: Plane<T>,
    pub gradient: Plane<T>,
    /// Per edge and operation.
    pub edges: Vec<Vec<OperationMemory<T>>>,
    pub states: Vec<StateMemory<T>>,
}

impl<T: Element> CellMemory<T> {
    fn new(cell: &CellPlan) -> Self {
        let part = cell.node.with_channels(cell.part()).volume();
        let operation = |operation: &OperationPlan| match operation {
            OperationPlan::Separable(stages) => {
                stages.iter().map(|stage| plane(stage.window.output(stage.input).volume())).collect()
            }
            OperationPlan::Reduce(layer) => vec![plane(layer.output.volume())],
            OperationPlan::Maximum(_) | OperationPlan::Mean(_) | OperationPlan::Identity => Vec::new(),
        };
        let state = |state: usize| {
            let leaves = cell.edges.iter().any(|edge| edge.from == state);
            let rest = if cell.stride(state) == 2 { cell.node.volume() - part } else { 0 };
            let part = if leaves { part } else { 0 };
            StateMemory {
                maximum: plane(part),
                mean: plane(part),
                halved: plane(if leaves { rest } else { 0 }),
            }
        };
        Self {
            preprocess: [LayerMemory::new(&cell.preprocess[0]), LayerMemory::new(&cell.preprocess[1])],
            output: plane(cell.output().volume()),
            gradient: plane(cell.output().volume()),
            edges: (cell.edges.iter())
                .map(|edge| edge.operations.iter().map(|(_, plan)| operation(plan)).collect())
                .collect(),
            states: (0..cell.incoming.len() + 2).map(state).collect(),
        }
    }
}

/// Tensors that every cell uses on the way back, one after the other.
#[derive(Debug)]
pub(super) struct BackMemory<T> {
    /// Gradients of the two preprocessed inputs.
    pub inputs: [Plane<T>; 2],
    /// Per state the gradient of its rectified first channels.
    pub rectified: Vec<Plane<T>>,
    /// Per edge of a node and operation the gradient between its two stages.
    pub between: Vec<Vec<Plane<T>>>,
}

impl<T: Element> BackMemory<T> {
    fn new(plan: &Plan) -> Self {
        let most = |of: &dyn Fn(&CellPlan) -> usize| plan.cells.iter().map(of).max().unwrap_or(0);
        let states = most(&|cell| cell.incoming.len() + 2);
        let edges = most(&|cell| cell.incoming.iter().map(Vec::len).max().unwrap_or(0));
        let operations = most(&|cell| cell.edges.iter().map(|edge| edge.operations.len()).max().unwrap_or(0));
        // Only operations of two stages need memory between them.
        let two = |operation: usize| {
            let needs = |plan: Option<&(usize, OperationPlan)>| matches!(plan, Some((_, OperationPlan::Separable(stages))) if stages.len() > 1);
            let volume = |cell: &CellPlan| cell.node.with_channels(cell.part()).volume();
            most(&|cell| {
                let any = cell.edges.iter().any(|edge| needs(edge.operations.get(operation)));
                if any { volume(cell) } else { 0 }
            })
        };
        let input = most(&|cell| cell.input.volume());
        let part = |state: usize| most(&|cell| cell.state(state).with_channels(cell.part()).volume());
        Self {
            inputs: [plane(input), plane(input)],
            rectified: (0..states).map(|state| plane(part(state))).collect(),
            between: (0..edges)
                .map(|_| (0..operations).map(|operation| plane(two(operation))).collect())
                .collect(),
        }
    }
}

/// All tensors of one block.
#[derive(Debug)]
pub(super) struct BlockMemory<T> {
    /// How many of its sixteen images there are.
    pub images: usize,
    pub input: Plane<T>,
    pub stem: Vec<LayerMemory<T>>,
    /// Gradients of the stem's layers.
    pub stem_gradients: Vec<Plane<T>>,
    pub cells: Vec<CellMemory<T>>,
    pub back: BackMemory<T>,
}

impl<T: Element> BlockMemory<T> {
    /// Memory for a network.
    pub fn new(plan: &Plan) -> Self {
        Self {
            images: LANES,
            input: plane(plan.images.volume()),
            stem: plan.stem.iter().map(LayerMemory::new).collect(),
            stem_gradients: plan.stem.iter().map(|layer| plane(layer.output.volume())).collect(),
            cells: plan.cells.iter().map(CellMemory::new).collect(),
            back: BackMemory::new(plan),
        }
    }
}
