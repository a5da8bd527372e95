//! Where a network's tensors lie in the shared ones.

use std::collections::BTreeSet;

use lathe_spaces::{Graph, Node, NodeId, OpSpec};
use serde::{Deserialize, Serialize};

/// One extent of a learned tensor: which of the shared tensor's indices it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Axis {
    /// The first of every part. Parts are channels of different meaning that lie side by side: queries, keys and
    /// values of every head, say, or the maps that were joined. Part `i` of all networks begins at the same place.
    Parts(Vec<usize>),
    /// The middle of a window.
    Middle(usize),
}

/// Consecutive indices that an extent has in the shared tensor and in its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub shared: i64,
    pub own: i64,
    pub length: i64,
}

impl Axis {
    pub fn extent(&self) -> usize {
        match self {
            Self::Parts(parts) => parts.iter().sum(),
            Self::Middle(extent) => *extent,
        }
    }

    /// The least extent that both fit into.
    pub fn joined(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Parts(a), Self::Parts(b)) => {
                let part = |index: usize| {
                    let of = |parts: &Vec<usize>| parts.get(index).copied().unwrap_or(0);
                    of(a).max(of(b))
                };
                Self::Parts((0..a.len().max(b.len())).map(part).collect())
            }
            (a, b) => Self::Middle(a.extent().max(b.extent())),
        }
    }

    /// Where this extent lies in a shared one that it fits into.
    pub fn pieces(&self, shared: &Self) -> Vec<Piece> {
        let (Self::Parts(parts), Self::Parts(whole)) = (self, shared) else {
            let start = (shared.extent() - self.extent()) / 2;
            return vec![Piece { shared: start as i64, own: 0, length: self.extent() as i64 }];
        };
        let mut pieces: Vec<Piece> = Vec::new();
        let (mut start, mut own) = (0, 0);
        for (index, &room) in whole.iter().enumerate() {
            let length = parts.get(index).copied().unwrap_or(0) as i64;
            match pieces.last_mut() {
                // What touches in both is one piece.
                Some(last) if last.shared + last.length == start => last.length += length,
                _ if length > 0 => pieces.push(Piece { shared: start, own, length }),
                _ => {}
            }
            own += length;
            start += room as i64;
        }
        pieces
    }
}

/// Whose tensors a network's are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Those of all networks of the space; the blocks that a position mixes share theirs where they overlap.
    Paths,
    /// Those of the relaxed networks, whose channels are shuffled; every block of a mixture has its own.
    Relaxed,
}

/// Name and axes of every learned tensor of a network, in the order of [`Graph::parameters`].
pub(super) fn axes(graph: &Graph, owner: Owner) -> Vec<(String, Vec<Axis>)> {
    let cuts = cuts(graph);
    let channels = channels(graph, &cuts);
    let named = |spec: lathe_spaces::TensorSpec| {
        let node = &graph.nodes()[spec.node];
        let name = match owner {
            Owner::Paths => shared_name(&spec.name),
            Owner::Relaxed => format!("relaxed {}", spec.name),
        };
        (name, of_tensor(graph, node, &channels, spec.node, &spec.dims))
    };
    graph.parameters().into_iter().map(named).collect()
}

/// The name without what tells apart the blocks whose mean a position is.
fn shared_name(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').map(|part| part.split('~').next().unwrap_or(part)).collect();
    parts.join(".")
}

fn of_tensor(graph: &Graph, node: &Node, channels: &[Vec<usize>], id: NodeId, dims: &[usize]) -> Vec<Axis> {
    let whole = |extent: usize| Axis::Parts(vec![extent]);
    // A layout that doesn't add up to the extent is not one of it.
    let of = |layout: &Vec<usize>, extent: usize| {
        if layout.iter().sum::<usize>() == extent { Axis::Parts(layout.clone()) } else { whole(extent) }
    };
    let plain = || dims.iter().map(|&extent| whole(extent)).collect();
    let Some(&input) = node.inputs.first() else { return plain() };
    match (node.op, dims) {
        (OpSpec::Conv2d { groups, .. }, &[out, inner, rows, columns]) => {
            let inner = if groups == 1 { of(&channels[input], inner) } else { whole(inner) };
            vec![of(&channels[id], out), inner, Axis::Middle(rows), Axis::Middle(columns)]
        }
        (OpSpec::ConvTranspose2d { .. }, &[inner, out, rows, columns]) => {
            vec![of(&channels[input], inner), whole(out), Axis::Middle(rows), Axis::Middle(columns)]
        }
        (OpSpec::Linear { .. }, &[out, inner]) => vec![whole(out), of(&channels[input], inner)],
        (OpSpec::Attention { window, .. }, &[heads, distances]) => {
            // Row by row of distances.
            let columns = window.unwrap_or(graph.nodes()[input].shape.w).max(1);
            vec![whole(heads), Axis::Parts(vec![columns; distances / columns])]
        }
        (_, &[extent]) => vec![of(&channels[id], extent)],
        _ => plain(),
    }
}

/// Operators that leave every channel where it is. Every operator is named: one that moves channels and is taken for
/// one that doesn't would share wrong weights without an error.
const fn keeps_channels(op: &OpSpec) -> bool {
    match op {
        OpSpec::BatchNorm { .. }
        | OpSpec::Relu
        | OpSpec::MaxPool { .. }
        | OpSpec::AvgPool { .. }
        | OpSpec::GlobalAvgPool
        | OpSpec::Activation { .. }
        | OpSpec::Crop { .. }
        | OpSpec::Zero { .. }
        | OpSpec::Prelu
        | OpSpec::GroupNorm { .. }
        | OpSpec::LayerNorm
        | OpSpec::ScalarAffine
        | OpSpec::Pad { .. }
        | OpSpec::CropEnd { .. } => true,
        OpSpec::Input
        | OpSpec::Conv2d { .. }
        | OpSpec::ConvTranspose2d { .. }
        | OpSpec::Linear { .. }
        | OpSpec::Add
        | OpSpec::Mul
        | OpSpec::Mean
        | OpSpec::Concat
        | OpSpec::Slice { .. }
        | OpSpec::ChannelShuffle { .. }
        | OpSpec::DepthToSpace { .. }
        | OpSpec::Attention { .. } => false,
    }
}

/// Whether it is a convolution of one channel at a time.
fn depthwise(graph: &Graph, node: &Node) -> bool {
    let OpSpec::Conv2d { groups, out_channels, .. } = node.op else { return false };
    groups == out_channels && node.inputs.first().is_some_and(|&input| graph.nodes()[input].shape.c == groups)
}

/// Per node the channels at which what reads it cuts its output: [`OpSpec::Slice`] and [`OpSpec::Attention`], also
/// behind norms and activations. Sums cut nothing: what is summed is of one meaning throughout.
fn cuts(graph: &Graph) -> Vec<BTreeSet<usize>> {
    let nodes = graph.nodes();
    let mut cuts: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); nodes.len()];
    for (id, node) in nodes.iter().enumerate().rev() {
        let Some(&input) = node.inputs.first() else { continue };
        match node.op {
            OpSpec::Slice { start, channels } => cuts[input].extend([start, start + channels]),
            OpSpec::Attention { heads, key_dim, value_dim, .. } => {
                let each = 2 * key_dim + value_dim;
                let of_head = |head: usize| [0, key_dim, 2 * key_dim, each].map(|place| head * each + place);
                cuts[input].extend((0..heads).flat_map(of_head));
            }
            _ if keeps_channels(&node.op) || depthwise(graph, node) => {
                let own = cuts[id].clone();
                cuts[input].extend(own);
            }
            _ => {}
        }
    }
    cuts
}

/// Per node the parts of its channels.
fn channels(graph: &Graph, cuts: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let nodes = graph.nodes();
    let mut all: Vec<Vec<usize>> = Vec::with_capacity(nodes.len());
    for (id, node) in nodes.iter().enumerate() {
        let whole = || vec![node.shape.c];
        let first = || node.inputs.first().map_or_else(whole, |&input| all[input].clone());
        let parts = match node.op {
            _ if keeps_channels(&node.op) || depthwise(graph, node) => first(),
            OpSpec::Conv2d { .. } => between(&cuts[id], node.shape.c),
            OpSpec::Add | OpSpec::Mul | OpSpec::Mean => {
                let same = node.inputs.iter().find(|&&input| nodes[input].shape.c == node.shape.c);
                same.map_or_else(whole, |&input| all[input].clone())
            }
            OpSpec::Concat => node.inputs.iter().flat_map(|&input| all[input].clone()).collect(),
            OpSpec::Attention { heads, value_dim, .. } => vec![value_dim; heads],
            OpSpec::Slice { start, channels } => part_of(&first(), start, channels),
            _ => whole(),
        };
        all.push(parts);
    }
    all
}

/// Lengths between cuts, the ends included.
fn between(cuts: &BTreeSet<usize>, extent: usize) -> Vec<usize> {
    let inside = cuts.iter().copied().filter(|&cut| cut > 0 && cut < extent);
    let ends: Vec<usize> = std::iter::once(0).chain(inside).chain([extent]).collect();
    ends.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// The parts of a slice; one part if it cuts any.
fn part_of(parts: &[usize], start: usize, channels: usize) -> Vec<usize> {
    let mut at = 0;
    let mut found = Vec::new();
    for &part in parts {
        if at >= start && at + part <= start + channels {
            found.push(part);
        }
        at += part;
    }
    if found.iter().sum::<usize>() == channels { found } else { vec![channels] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_begin_where_the_largest_of_all_networks_do() {
        let (small, large) = (Axis::Parts(vec![2, 3]), Axis::Parts(vec![4, 3, 5]));
        let joined = small.joined(&large);
        assert_eq!(joined, Axis::Parts(vec![4, 3, 5]));
        let pieces = small.pieces(&joined);
        let of = |piece: &Piece| (piece.shared, piece.own, piece.length);
        assert_eq!(pieces.iter().map(of).collect::<Vec<_>>(), [(0, 0, 2), (4, 2, 3)]);
        assert_eq!(large.pieces(&joined).iter().map(of).collect::<Vec<_>>(), [(0, 0, 12)]);
    }

    #[test]
    fn a_small_window_is_the_middle_of_a_large_one() {
        let joined = Axis::Middle(3).joined(&Axis::Middle(7));
        assert_eq!(Axis::Middle(3).pieces(&joined), [Piece { shared: 2, own: 0, length: 3 }]);
    }

    #[test]
    fn blocks_of_a_mean_share_names() {
        assert_eq!(shared_name("c2.0~3.ibn.expand.weight"), "c2.0.ibn.expand.weight");
    }
}
