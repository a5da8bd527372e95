//! Where the parts of a cell are drawn: columns by depth, few crossings, nothing on top of another.
//!
//! A node is a group: the operations on its kept edges one above the other, and behind them the sum.
//! A line that passes a column has a lane of its own there, which all lines of the same state share
//! (Sugiyama, Tagawa & Toda 1981, with lanes for dummy vertices).

use crate::view::CellBlock;

/// What stands in a column, from top to bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// An input or a node.
    State(usize),
    /// The output of a state, passing.
    Lane(usize),
    /// What leaves the cell.
    Output,
}

/// An item with the middle of its height.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub item: Item,
    pub y: f64,
}

/// A laid out cell; heights in drawing units, columns from 0.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub columns: Vec<Vec<Placed>>,
    pub height: f64,
    /// Per state the column that it stands in.
    pub depth: Vec<usize>,
    /// Per node its kept edges in drawing order, as positions in the genotype's list.
    pub order: Vec<Vec<usize>>,
}

/// Height of an operation with the room around it.
pub(super) const CHIP: f64 = 34.0;
/// Room between two items of a column.
const GAP: f64 = 18.0;
/// Sweeps of the ordering, there and back.
const SWEEPS: usize = 8;

impl Layout {
    pub fn of(block: &CellBlock) -> Self {
        let graph = Graph::of(block);
        let mut columns = graph.columns();
        let mut best = columns.clone();
        for sweep in 0..SWEEPS {
            let forward = sweep % 2 == 0;
            let count = columns.len();
            for step in 1..count {
                let (column, neighbour) =
                    if forward { (step, step - 1) } else { (count - 1 - step, count - step) };
                graph.arrange(&mut columns, column, neighbour);
            }
            if graph.crossings(&columns) < graph.crossings(&best) {
                best.clone_from(&columns);
            }
        }
        graph.place(&best)
    }

    /// Where a state's output can be met in a column: at the state itself, or at its lane.
    pub fn carrier(&self, state: usize, column: usize) -> Option<f64> {
        let wanted =
            if self.depth.get(state) == Some(&column) { Item::State(state) } else { Item::Lane(state) };
        self.columns.get(column)?.iter().find(|placed| placed.item == wanted).map(|placed| placed.y)
    }
}

/// States that leave the cell: all nodes where the cell has two inputs, as in DARTS, else the last.
pub(super) fn leaving(block: &CellBlock) -> Vec<usize> {
    let states = block.inputs..block.inputs + block.nodes.len();
    if block.inputs == 2 { states.collect() } else { states.last().into_iter().collect() }
}

struct Graph<'a> {
    block: &'a CellBlock,
    depth: Vec<usize>,
    /// Column of the output.
    end: usize,
    leaving: Vec<usize>,
}

impl<'a> Graph<'a> {
    fn of(block: &'a CellBlock) -> Self {
        let mut depth = vec![0; block.inputs];
        for node in &block.nodes {
            let deepest = node.iter().filter_map(|(from, _)| depth.get(*from)).max();
            depth.push(deepest.map_or(1, |deepest: &usize| deepest + 1));
        }
        let end = depth.iter().max().map_or(1, |deepest| deepest + 1);
        Self { block, depth, end, leaving: leaving(block) }
    }

    fn node_of(&self, state: usize) -> Option<&[(usize, String)]> {
        self.block.nodes.get(state.checked_sub(self.block.inputs)?).map(Vec::as_slice)
    }

    /// Items per column, in the order of their numbers.
    fn columns(&self) -> Vec<Vec<Item>> {
        let mut columns = vec![Vec::new(); self.end + 1];
        for (state, &depth) in self.depth.iter().enumerate() {
            columns[depth].push(Item::State(state));
            let mut far = if self.leaving.contains(&state) { self.end } else { depth };
            for (node, picks) in self.block.nodes.iter().enumerate() {
                if picks.iter().any(|(from, _)| *from == state) {
                    far = far.max(self.depth[self.block.inputs + node]);
                }
            }
            for column in columns.iter_mut().take(far).skip(depth + 1) {
                column.push(Item::Lane(state));
            }
        }
        columns[self.end].push(Item::Output);
        columns
    }

    /// States whose output an item takes from the column before it.
    fn sources(&self, item: Item) -> Vec<usize> {
        match item {
            Item::State(state) => {
                self.node_of(state).unwrap_or_default().iter().map(|(from, _)| *from).collect()
            }
            Item::Lane(state) => vec![state],
            Item::Output => self.leaving.clone(),
        }
    }

    /// The state whose output an item hands on.
    fn carried(item: Item) -> Option<usize> {
        match item {
            Item::State(state) | Item::Lane(state) => Some(state),
            Item::Output => None,
        }
    }

    /// Lines between two neighbouring columns, as positions in each.
    fn lines(&self, left: &[Item], right: &[Item]) -> Vec<(usize, usize)> {
        let mut lines = Vec::new();
        for (to, item) in right.iter().enumerate() {
            for source in self.sources(*item) {
                if let Some(from) = left.iter().position(|item| Self::carried(*item) == Some(source)) {
                    lines.push((from, to));
                }
            }
        }
        lines
    }

    fn crossings(&self, columns: &[Vec<Item>]) -> usize {
        let pairs = columns.windows(2).map(|pair| {
            let lines = self.lines(&pair[0], &pair[1]);
            let crossed =
                |a: &(usize, usize), b: &(usize, usize)| (a.0 < b.0 && a.1 > b.1) || (a.0 > b.0 && a.1 < b.1);
            let each = lines.iter().enumerate();
            each.map(|(index, a)| lines[..index].iter().filter(|b| crossed(a, b)).count()).sum::<usize>()
        });
        pairs.sum()
    }

    /// Orders a column by the mean position of its neighbours in another one.
    fn arrange(&self, columns: &mut [Vec<Item>], column: usize, neighbour: usize) {
        let lines = if column > neighbour {
            self.lines(&columns[neighbour], &columns[column])
                .into_iter()
                .map(|(from, to)| (to, from))
                .collect()
        } else {
            self.lines(&columns[column], &columns[neighbour])
        };
        let mut keyed: Vec<(f64, Item)> = columns[column]
            .iter()
            .enumerate()
            .map(|(own, item)| {
                let others: Vec<usize> =
                    lines.iter().filter(|line| line.0 == own).map(|line| line.1).collect();
                let mean = others.iter().sum::<usize>() as f64 / others.len() as f64;
                (if others.is_empty() { own as f64 } else { mean }, *item)
            })
            .collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
        columns[column] = keyed.into_iter().map(|(_, item)| item).collect();
    }

    fn height(&self, item: Item) -> f64 {
        match item {
            Item::Lane(_) => 8.0,
            Item::Output => 44.0,
            Item::State(state) => {
                self.node_of(state).map_or(36.0, |node| (node.len() as f64 * CHIP).max(36.0))
            }
        }
    }

    fn place(self, columns: &[Vec<Item>]) -> Layout {
        let heights: Vec<Vec<f64>> =
            columns.iter().map(|column| column.iter().map(|item| self.height(*item)).collect()).collect();
        let mut ys: Vec<Vec<f64>> =
            heights.iter().map(|heights| settle(&vec![0.0; heights.len()], heights)).collect();
        for round in 0..SWEEPS {
            let order: Vec<usize> = if round % 2 == 0 {
                (0..columns.len()).collect()
            } else {
                (0..columns.len()).rev().collect()
            };
            for column in order {
                let mut wishes = vec![Vec::new(); columns[column].len()];
                if column > 0 {
                    for (from, to) in self.lines(&columns[column - 1], &columns[column]) {
                        wishes[to].push(ys[column - 1][from]);
                    }
                }
                if column + 1 < columns.len() {
                    for (from, to) in self.lines(&columns[column], &columns[column + 1]) {
                        wishes[from].push(ys[column + 1][to]);
                    }
                }
                let wanted: Vec<f64> =
                    wishes
                        .iter()
                        .zip(&ys[column])
                        .map(|(wish, own)| {
                            if wish.is_empty() { *own } else { wish.iter().sum::<f64>() / wish.len() as f64 }
                        })
                        .collect();
                ys[column] = settle(&wanted, &heights[column]);
            }
        }
        let edges = |sign: f64| {
            let each = ys.iter().flatten().zip(heights.iter().flatten());
            each.map(move |(y, height)| y + sign * height / 2.0).collect::<Vec<f64>>()
        };
        let top = edges(-1.0).into_iter().fold(f64::INFINITY, f64::min);
        let bottom = edges(1.0).into_iter().fold(f64::NEG_INFINITY, f64::max);
        let placed = columns.iter().zip(&ys).map(|(items, ys)| {
            items.iter().zip(ys).map(|(item, y)| Placed { item: *item, y: y - top }).collect::<Vec<_>>()
        });
        let mut layout =
            Layout { columns: placed.collect(), height: bottom - top, depth: self.depth, order: Vec::new() };
        for (node, picks) in self.block.nodes.iter().enumerate() {
            let before = layout.depth[self.block.inputs + node].saturating_sub(1);
            let mut order: Vec<usize> = (0..picks.len()).collect();
            let height = |pick: &usize| layout.carrier(picks[*pick].0, before).unwrap_or_default();
            order.sort_by(|a, b| height(a).total_cmp(&height(b)));
            layout.order.push(order);
        }
        layout
    }
}

/// Middles as near to the wanted ones as their heights and order allow (pool adjacent violators).
fn settle(wanted: &[f64], heights: &[f64]) -> Vec<f64> {
    let mut offsets = vec![0.0];
    for pair in heights.windows(2) {
        let last = offsets.last().copied().unwrap_or_default();
        offsets.push(last + f64::midpoint(pair[0], pair[1]) + GAP);
    }
    // In coordinates without the offsets, the middles must only not decrease.
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (wish, offset) in wanted.iter().zip(&offsets) {
        pools.push((wish - offset, 1));
        while let [.., before, last] = pools[..] {
            if before.0 <= last.0 {
                break;
            }
            let count = before.1 + last.1;
            let mean = (before.0 * before.1 as f64 + last.0 * last.1 as f64) / count as f64;
            pools.truncate(pools.len() - 2);
            pools.push((mean, count));
        }
    }
    let levels = pools.iter().flat_map(|(level, count)| std::iter::repeat_n(*level, *count));
    levels.zip(&offsets).map(|(level, offset)| level + offset).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn cell(inputs: usize, nodes: &[&[(usize, &str)]]) -> CellBlock {
        let node =
            |node: &&[(usize, &str)]| node.iter().map(|(from, name)| (*from, (*name).to_owned())).collect();
        CellBlock {
            name: "cell".into(),
            nodes: nodes.iter().map(node).collect(),
            inputs,
            chain: false,
            summary: String::new(),
            note: None,
            doubt: None,
        }
    }

    #[test]
    fn a_chain_needs_a_column_per_node_and_lanes_for_what_passes() {
        let block = cell(2, &[&[(0, "a"), (1, "b")], &[(0, "a"), (2, "b")], &[(1, "a"), (3, "b")]]);
        let layout = Layout::of(&block);
        assert_eq!(layout.depth, [0, 0, 1, 2, 3]);
        assert_eq!(layout.columns.len(), 5);
        // State 1 passes columns 1 and 2 on its way to the last node.
        assert!(layout.carrier(1, 1).is_some() && layout.carrier(1, 2).is_some());
        assert!(layout.carrier(1, 3).is_none());
    }

    #[test]
    fn nothing_lies_on_top_of_another() {
        let block = cell(
            2,
            &[&[(0, "a"), (1, "b")], &[(0, "a"), (1, "b")], &[(0, "a"), (2, "b")], &[(1, "a"), (4, "b")]],
        );
        let layout = Layout::of(&block);
        for column in &layout.columns {
            for pair in column.windows(2) {
                let both_nodes = matches!((pair[0].item, pair[1].item), (Item::State(a), Item::State(b)) if a > 1 && b > 1);
                let least = if both_nodes { 2.0 * CHIP } else { 0.0 } + GAP;
                assert!(pair[1].y - pair[0].y >= least - 1e-9, "{column:?}");
            }
        }
        assert!(layout.columns.iter().flatten().all(|placed| (0.0..=layout.height).contains(&placed.y)));
    }

    #[test]
    fn settling_keeps_order_and_room() {
        let ys = settle(&[0.0, 0.0, 100.0], &[10.0, 10.0, 10.0]);
        assert!((ys[1] - ys[0] - 28.0).abs() < 1e-9 && (ys[2] - 100.0).abs() < 1e-9);
        assert!((ys[0] + ys[1]).abs() < 1e-9);
    }
}
