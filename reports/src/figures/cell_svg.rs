//! The drawing of a cell. Charts are the plotting library's; this is a graph, so it is written here.

use std::fmt::Write as _;

use super::{
    cell_layout::{CHIP, Item, Layout, leaving},
    legend::mark_path,
    plot::escape,
};
use crate::{
    genotype_text::state_name,
    palette::{name_of, operation_style},
    view::CellBlock,
};

/// Room around the drawing.
const MARGIN: f64 = 12.0;
/// Width of an input's or the output's box.
const BOX: f64 = 76.0;
/// From the operations to the sum behind them.
const TO_SUM: f64 = 32.0;
/// Radius of a sum.
const SUM: f64 = 14.0;
/// Between two columns.
const CHANNEL: f64 = 72.0;
/// Characters of an operation's name that fit.
const LONGEST: usize = 18;

/// A cell as SVG; empty for a chain of positions.
pub(super) fn draw(block: &CellBlock) -> String {
    if block.chain || block.nodes.is_empty() {
        return String::new();
    }
    Drawing::of(block).svg()
}

struct Drawing<'a> {
    block: &'a CellBlock,
    layout: Layout,
    /// Width of an operation's box.
    chip: f64,
    /// Lines below, boxes above.
    lines: String,
    boxes: String,
}

impl<'a> Drawing<'a> {
    fn of(block: &'a CellBlock) -> Self {
        let longest =
            block.nodes.iter().flatten().map(|(_, name)| name.chars().count()).max().unwrap_or_default();
        let chip = longest.min(LONGEST) as f64 * 7.8 + 38.0;
        Self { block, layout: Layout::of(block), chip, lines: String::new(), boxes: String::new() }
    }

    fn svg(mut self) -> String {
        let columns = self.layout.columns.clone();
        for (column, items) in columns.iter().enumerate() {
            for placed in items {
                match placed.item {
                    Item::State(state) if state < self.block.inputs => self.input(state, placed.y),
                    Item::State(state) => self.node(state, column, placed.y),
                    Item::Lane(state) => self.lane(state, column, placed.y),
                    Item::Output => self.output(column, placed.y),
                }
            }
        }
        let width = self.left(self.layout.columns.len() - 1) + BOX + MARGIN;
        let height = self.layout.height + 2.0 * MARGIN;
        format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" style=\"min-width:{:.0}px;max-width:{width:.0}px\" \
             role=\"img\" aria-label=\"{}\" font-size=\"13\">{}{}</svg>",
            width * 0.75,
            escape(&self.description()),
            self.lines,
            self.boxes
        )
    }

    /// Left edge of a column.
    fn left(&self, column: usize) -> f64 {
        match column {
            0 => MARGIN,
            column => MARGIN + BOX + CHANNEL + (column - 1) as f64 * (self.node_width() + CHANNEL),
        }
    }

    fn node_width(&self) -> f64 {
        self.chip + TO_SUM + 2.0 * SUM
    }

    /// Right edge of what a column holds.
    fn right(&self, column: usize) -> f64 {
        self.left(column) + if column == 0 { BOX } else { self.node_width() }
    }

    fn input(&mut self, state: usize, y: f64) {
        let name = state_name(self.block.inputs, state);
        self.plain_box(self.left(0), y, &name);
    }

    fn output(&mut self, column: usize, y: f64) {
        let x = self.left(column);
        for state in leaving(self.block) {
            self.line_from(state, column, x, y, true);
        }
        self.plain_box(x, y, "output");
    }

    fn plain_box(&mut self, x: f64, y: f64, text: &str) {
        let y = y + MARGIN;
        // Writing to a string can't fail.
        let _ = write!(
            self.boxes,
            "<rect class=\"card\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{BOX}\" height=\"32\" rx=\"6\" \
             stroke=\"currentColor\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" \
             fill=\"currentColor\">{}</text>",
            y - 16.0,
            x + BOX / 2.0,
            y + 4.5,
            escape(text)
        );
    }

    fn node(&mut self, state: usize, column: usize, y: f64) {
        let node = state - self.block.inputs;
        let order = self.layout.order[node].clone();
        let x = self.left(column);
        let sum = x + self.chip + TO_SUM + SUM;
        let first = y - (order.len() as f64 - 1.0) * CHIP / 2.0;
        for (position, pick) in order.into_iter().enumerate() {
            let (from, name) = self.block.nodes[node][pick].clone();
            let row = first + position as f64 * CHIP;
            self.line_from(from, column, x, row, false);
            self.curve(x + self.chip, row, sum - SUM, y, "stroke-width=\"1.6\"");
            self.operation(x, row, &name);
        }
        let _ = write!(
            self.boxes,
            "<circle class=\"card\" cx=\"{sum:.1}\" cy=\"{:.1}\" r=\"{SUM}\" stroke=\"currentColor\"/>\
             <text x=\"{sum:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"currentColor\">{node}</text>",
            y + MARGIN,
            y + MARGIN + 4.5
        );
    }

    fn operation(&mut self, x: f64, y: f64, name: &str) {
        let style = operation_style(name);
        let colour = name_of(style.colour);
        let y = y + MARGIN;
        let shown: String = if name.chars().count() > LONGEST {
            name.chars().take(LONGEST - 1).chain(['…']).collect()
        } else {
            name.to_owned()
        };
        let _ = write!(
            self.boxes,
            "<rect class=\"card\" x=\"{x:.1}\" y=\"{0:.1}\" width=\"{1:.1}\" height=\"26\" rx=\"13\"/>\
             <rect x=\"{x:.1}\" y=\"{0:.1}\" width=\"{1:.1}\" height=\"26\" rx=\"13\" fill=\"{colour}\" \
             fill-opacity=\"0.16\" stroke=\"{colour}\" stroke-width=\"1.6\"/>{2}\
             <text x=\"{3:.1}\" y=\"{4:.1}\" fill=\"currentColor\">{5}</text>",
            y - 13.0,
            self.chip,
            mark_path(style, x + 15.0, y, 5.0),
            x + 26.0,
            y + 4.5,
            escape(&shown)
        );
    }

    /// A lane, and the line that leads to it.
    fn lane(&mut self, state: usize, column: usize, y: f64) {
        let (left, right) = (self.left(column), self.right(column));
        let only_output = self.only_output(state, column);
        self.line_from(state, column, left, y, only_output);
        let y = y + MARGIN;
        let _ = write!(
            self.lines,
            "<path d=\"M{left:.1} {y:.1}H{right:.1}\" fill=\"none\" stroke=\"currentColor\" {}/>",
            stroke(only_output)
        );
    }

    /// Whether nothing but the output takes a state's lane behind this column.
    fn only_output(&self, state: usize, column: usize) -> bool {
        let later = |node: usize| self.layout.depth[self.block.inputs + node] > column;
        let takes = |picks: &[(usize, String)]| picks.iter().any(|(from, _)| *from == state);
        !self.block.nodes.iter().enumerate().any(|(node, picks)| later(node) && takes(picks))
    }

    /// A line from where the state's output can be met in the column before.
    fn line_from(&mut self, state: usize, column: usize, x: f64, y: f64, to_output: bool) {
        let Some(before) = column.checked_sub(1) else { return };
        if let Some(from) = self.layout.carrier(state, before) {
            self.curve(self.right(before), from, x, y, stroke(to_output));
        }
    }

    fn curve(&mut self, x: f64, y: f64, to_x: f64, to_y: f64, style: &str) {
        let (y, to_y, middle) = (y + MARGIN, to_y + MARGIN, f64::midpoint(x, to_x));
        let _ = write!(
            self.lines,
            "<path d=\"M{x:.1} {y:.1}C{middle:.1} {y:.1} {middle:.1} {to_y:.1} {to_x:.1} {to_y:.1}\" fill=\"none\" \
             stroke=\"currentColor\" {style}/>"
        );
    }

    /// The same in words.
    fn description(&self) -> String {
        let nodes = self.block.nodes.iter().enumerate().map(|(node, picks)| {
            let edges: Vec<String> = picks
                .iter()
                .map(|(from, name)| format!("{name} of {}", state_name(self.block.inputs, *from)))
                .collect();
            format!("node {node} sums {}", edges.join(" and "))
        });
        let end = if leaving(self.block).len() > 1 {
            "the output joins all nodes"
        } else {
            "the last node is the output"
        };
        format!("Drawing of the {} cell: {}; {end}.", self.block.name, nodes.collect::<Vec<_>>().join("; "))
    }
}

/// Lines to the output are thin and dotted: every cell has them.
fn stroke(to_output: bool) -> &'static str {
    if to_output {
        "stroke-width=\"1.2\" stroke-dasharray=\"2 4\" stroke-opacity=\"0.55\""
    } else {
        "stroke-width=\"1.6\" stroke-opacity=\"0.8\""
    }
}
