//! The convolutions of one edge of a cell, on their way back.

use crate::supernet::fused::{
    forward::{paddings, stage_input},
    kernels::{Flow, Into, Padding, dots, pad, separable_back},
    lanes::{Element, Lanes, Plane},
    memory::{CellMemory, OperationMemory},
    plan::{CellPlan, EdgePlan, OperationPlan},
};

use super::Piece;
use super::cell::{Cell, state};

/// An edge, the gradient of its state's rectified channels, and the memory between its stages.
pub(super) type EdgeMemory<'a, T> = (usize, &'a mut [Lanes<T>], &'a mut [Plane<T>]);

/// Per edge the memory that only it writes. `edges` are sorted by their states, which differ.
pub(super) fn disjoint<'a, T: Element>(
    plan: &CellPlan,
    edges: &[usize],
    rectified: &'a mut [Plane<T>],
    between: &'a mut [Vec<Plane<T>>],
) -> Vec<EdgeMemory<'a, T>> {
    let states = rectified.iter_mut().enumerate().filter_map(|(state, plane)| {
        let edge = edges.iter().find(|&&edge| plan.edges[edge].from == state)?;
        let volume = plan.state(state).with_channels(plan.part()).volume();
        Some((*edge, &mut plane[..volume]))
    });
    let both = states.zip(between.iter_mut());
    both.map(|((edge, rectified), between)| (edge, rectified, between.as_mut_slice())).collect()
}

/// Convolutions of one edge in one block.
pub(super) struct EdgeWork<'a, T> {
    pub(super) cell: &'a Cell<'a>,
    pub(super) memory: &'a CellMemory<T>,
    pub(super) weights: &'a [T],
    pub(super) edge: usize,
    pub(super) node: usize,
    pub(super) images: usize,
    pub(super) want: bool,
}

impl<T: Element> EdgeWork<'_, T> {
    pub(super) fn plan(&self) -> &EdgePlan {
        &self.cell.plan.edges[self.edge]
    }

    pub(super) fn memory(&self) -> &[OperationMemory<T>] {
        &self.memory.edges[self.edge]
    }

    /// Gradient of the node; the channels of the part are K planes apart.
    pub(super) fn gradient(&self) -> (&[Lanes<T>], usize) {
        let plan = self.cell.plan;
        let volume = plan.node.volume();
        let gradient = &self.memory.gradient[self.node * volume..(self.node + 1) * volume];
        (gradient, plan.partial * plan.node.area())
    }

    /// The last stage of every operation: second stages up to the batch norm before them, whose sums are
    /// returned; all others down to the state.
    pub(super) fn outer(
        &self,
        factors: &[Vec<T>],
        rectified: &mut [Lanes<T>],
        between: &mut [Plane<T>],
    ) -> (Vec<f64>, Vec<Piece>) {
        let mut sums = Vec::new();
        let mut pieces = Vec::new();
        let (g, pitch) = self.gradient();
        let operations = self.plan().operations.iter().zip(self.memory()).enumerate();
        for (index, ((_, operation), z)) in operations {
            if let (OperationPlan::Separable(stages), [first, second]) = (operation, z.as_slice()) {
                let stage = &stages[1];
                let norm = &self.cell.trace.edges[self.edge][index][0];
                let padding = Padding { step: 1, zeros: stage.window.padding() };
                let between = &mut between[index][..first.len()];
                T::scratch(padding.of(stage.input).volume(), |padded| {
                    let (scale, shift) = norm.affines::<T>();
                    pad(first, stage.input, padding, Some((&scale, &shift)), padded);
                    let input = stage_input(self.weights, stage, Some(padded), padding, self.images);
                    let flow = Flow { g, pitch, z: second, factors: &factors[index] };
                    let found = separable_back(input, flow, Into::Rectified(between), self.want);
                    if let Some(found) = found {
                        pieces.push((stage.depthwise.start, found.depthwise));
                        pieces.push((stage.pointwise.start, found.pointwise));
                    }
                });
                let area = stage.input.area();
                for (g, z) in between.chunks(area).zip(first.chunks(area)) {
                    sums.extend(dots(g, &[None, Some(z)], self.images));
                }
            }
        }
        self.onto_state(
            1,
            |index| Flow { g, pitch, z: &self.memory()[index][0], factors: &factors[index] },
            rectified,
            &mut pieces,
        );
        let extent = self.cell.plan.state(self.plan().from).with_channels(self.cell.plan.part());
        let x = &state(self.cell.plan, self.memory, self.plan().from)[..extent.volume()];
        for (index, (_, operation)) in self.plan().operations.iter().enumerate() {
            if let OperationPlan::Reduce(layer) = operation {
                let area = layer.output.area();
                let outputs = layer.parts[0].0.outputs;
                for (half, (dense, range)) in layer.parts.iter().enumerate() {
                    let channels = half * outputs..(half + 1) * outputs;
                    let all = &factors[index];
                    let total = all.len() / 3;
                    let factors: Vec<T> = (0..3)
                        .flat_map(|which| &all[which * total..(which + 1) * total][channels.clone()])
                        .copied()
                        .collect();
                    let flow = Flow {
                        g: &g[channels.start * pitch..],
                        pitch,
                        z: &self.memory()[index][0][channels.start * area..channels.end * area],
                        factors: &factors,
                    };
                    let weight = &self.weights[range.clone()];
                    let span = [0, extent.channels];
                    let found =
                        dense.backward(x, weight, self.images, flow, span, Some(&mut *rectified), self.want);
                    if self.want {
                        pieces.push((range.start, found));
                    }
                }
            }
        }
        (sums, pieces)
    }

    /// First of two stages, down to the state.
    pub(super) fn inner(
        &self,
        factors: &[Vec<T>],
        rectified: &mut [Lanes<T>],
        between: &[Plane<T>],
    ) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let pitch = self.cell.plan.node.area();
        let flow = |index: usize| {
            let z = &self.memory()[index][0];
            Flow { g: &between[index][..z.len()], pitch, z, factors: &factors[index] }
        };
        self.onto_state(2, flow, rectified, &mut pieces);
        pieces
    }

    /// First stages of the operations that have `stages` stages.
    pub(super) fn onto_state<'f>(
        &'f self,
        stages: usize,
        flow: impl Fn(usize) -> Flow<'f, T>,
        rectified: &mut [Lanes<T>],
        pieces: &mut Vec<Piece>,
    ) {
        let cell = self.cell.plan;
        let extent = cell.state(self.plan().from).with_channels(cell.part());
        let x = &state(cell, self.memory, self.plan().from)[..extent.volume()];
        for padding in paddings([self.plan()]) {
            let mine = |plan: &OperationPlan| match plan {
                OperationPlan::Separable(all) => all.len() == stages && all[0].window.step == padding.step,
                _ => false,
            };
            if !self.plan().operations.iter().any(|(_, plan)| mine(plan)) {
                continue;
            }
            // Without the weights' gradients nothing depends on the input itself.
            let volume = if self.want { padding.of(extent).volume() } else { 0 };
            T::scratch(volume, |padded| {
                if self.want {
                    pad(x, extent, padding, None, padded);
                }
                let padded = self.want.then_some(&*padded);
                for (index, (_, operation)) in self.plan().operations.iter().enumerate() {
                    let OperationPlan::Separable(all) = operation else { continue };
                    if !mine(operation) {
                        continue;
                    }
                    let input = stage_input(self.weights, &all[0], padded, padding, self.images);
                    let found = separable_back(input, flow(index), Into::Sum(rectified), self.want);
                    if let Some(found) = found {
                        pieces.push((all[0].depthwise.start, found.depthwise));
                        pieces.push((all[0].pointwise.start, found.pointwise));
                    }
                }
            });
        }
    }
}
