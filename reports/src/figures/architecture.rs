//! α and β over epochs, one small panel per edge and per node.

use super::{
    BlockPanels, Chart,
    legend::{Kind, entry},
    plot::{Axes, DrawError, chart, range_of},
};
use crate::{
    palette::{Style, operation_style, series_style},
    quantity::fixed,
    view::ArchBlock,
};

/// Size of a panel, in drawing units.
const PANEL: (u32, u32) = (460, 300);

/// One line of a panel: how it looks, and its points (epoch, weight).
type Curve<'a> = (Style, &'a [(f64, f64)]);

/// All panels of a block, on a common scale each for α and β.
pub(super) fn panels(block: &ArchBlock) -> Result<BlockPanels, DrawError> {
    let mut alpha = Vec::new();
    for edge in &block.edges {
        let label = format!(
            "Line chart of α on the edge from {} to {}: {} leads with {} after the last epoch.",
            edge.from, edge.to, edge.winner, edge.winner_weight
        );
        let styles = block.choices.iter().map(|choice| operation_style(choice));
        let lines: Vec<Curve<'_>> =
            styles.zip(&edge.series).map(|(style, points)| (style, points.as_slice())).collect();
        alpha.push(panel(label, &lines, block.epochs, block.largest)?);
    }
    let mut beta = Vec::new();
    for node in &block.nodes {
        let label =
            format!("Line chart of β at {}: weights of its edges from {}.", node.name, node.from.join(", "));
        let lines: Vec<Curve<'_>> = node
            .series
            .iter()
            .enumerate()
            .map(|(index, points)| (series_style(index), points.as_slice()))
            .collect();
        let largest = node.series.iter().flatten().map(|(_, weight)| *weight).fold(0.0, f64::max);
        let legend = node
            .from
            .iter()
            .enumerate()
            .map(|(index, from)| {
                let last = node.series.get(index).and_then(|points| points.last());
                let weight = last.map_or_else(String::new, |(_, weight)| format!(" {}", fixed(*weight, 3)));
                entry(series_style(index), Kind::Line, &format!("{from}{weight}"))
            })
            .collect();
        beta.push(Chart { svg: panel(label, &lines, block.epochs, largest)?, legend });
    }
    Ok(BlockPanels { alpha, beta })
}

fn panel(label: String, lines: &[Curve<'_>], epochs: usize, largest: f64) -> Result<String, DrawError> {
    let top = range_of([0.0, largest.max(0.05)]).map_or(1.0, |range| range.end);
    let epochs = epochs.max(2) as f64;
    let axes = Axes {
        size: PANEL,
        label,
        x: 1.0..epochs,
        y: 0.0..top,
        x_title: "",
        y_title: "",
        // The first and the last epoch are enough.
        x_format: &|value| if value <= 1.0 || value >= epochs { fixed(value, 0) } else { String::new() },
        y_format: &|value| fixed(value, 2),
        ticks: (if epochs <= 12.0 { epochs as usize } else { 6 }, 4),
        room: (66, 40),
        right: 22,
    };
    chart(&axes, |plot| {
        let last = |points: &[(f64, f64)]| points.last().map_or(0.0, |(_, weight)| *weight);
        let leader = lines.iter().map(|(_, points)| last(points)).fold(0.0, f64::max);
        for (style, points) in lines.iter().filter(|(_, points)| !points.is_empty()) {
            let leads = last(points) >= leader;
            plot.line(points, style.colour, if leads { 6 } else { 3 })?;
            if let Some(end) = points.last() {
                plot.mark(*end, style.mark, style.colour, if leads { 11.0 } else { 7.0 })?;
            }
        }
        Ok(())
    })
}
