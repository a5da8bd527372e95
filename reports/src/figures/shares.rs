//! Where the latency goes.

use plotters::style::text_anchor::HPos;

use super::{
    Chart,
    legend::{Kind, entry},
    plot::{Axes, DrawError, chart, digits_for, text_width},
};
use crate::{
    palette::{INK, Mark, PAPER, Style, operation_style},
    quantity::{fixed, latency_unit},
    view::Shares,
};

/// Height of a bar with the room around it, in drawing units.
const ROW: u32 = 54;
/// Room below the bars for the axis.
const AXIS: u32 = 80;
/// Room above.
const TOP: u32 = 20;

/// One network: a bar per operation, largest first.
pub(super) fn one(shares: &Shares) -> Result<Option<String>, DrawError> {
    let largest = shares.rows.iter().map(|row| row.micros).fold(0.0, f64::max);
    if largest <= 0.0 || !largest.is_finite() {
        return Ok(None);
    }
    let (factor, unit) = latency_unit(largest);
    let names: Vec<&str> = shares.rows.iter().map(|row| row.operation.as_str()).collect();
    let values: Vec<String> = shares.rows.iter().map(|row| format!("{} ({})", row.time, row.share)).collect();
    let described: Vec<String> =
        names.iter().zip(&values).map(|(name, value)| format!("{name} {value}")).collect();
    let widest = values.iter().map(|value| text_width(value)).max().unwrap_or_default();
    let frame = Bars {
        label: format!(
            "Bar chart of the predicted latency of {} per operation: {}.",
            shares.network,
            described.join(", ")
        ),
        names: &names,
        end: largest / factor,
        unit: format!("predicted latency ({unit})"),
        right: widest.unsigned_abs() + 30,
    };
    let svg = frame.draw(|plot| {
        for (index, (row, value)) in shares.rows.iter().zip(&values).enumerate() {
            let (top, bottom) = (index as f64 + 0.2, index as f64 + 0.8);
            let end = row.micros.max(0.0) / factor;
            plot.bar((0.0, top), (end, bottom), operation_style(&row.operation).colour)?;
            let (x, y) = plot.pixel((end, index as f64 + 0.5));
            plot.text(value, (x + 12, y), HPos::Left, INK)?;
        }
        Ok(())
    })?;
    Ok(Some(svg))
}

/// All networks: a stacked bar each, and what was measured.
pub(super) fn all(shares: &Shares, word: &str) -> Result<Option<Chart>, DrawError> {
    let ends = shares.networks.iter().map(|network| {
        network.micros.iter().sum::<f64>().max(network.measured.range[1]).max(network.measured.value)
    });
    let largest = ends.filter(|end| end.is_finite()).fold(0.0, f64::max);
    if largest <= 0.0 {
        return Ok(None);
    }
    let (factor, unit) = latency_unit(largest);
    let names: Vec<&str> = shares.networks.iter().map(|network| network.name.as_str()).collect();
    let frame = Bars {
        label: format!(
            "Stacked bar chart of the predicted latency per operation for {}, with the {word} latency of each. The \
             shares are in the table below.",
            names.join(", ")
        ),
        names: &names,
        end: largest / factor * 1.04,
        unit: format!("latency ({unit})"),
        right: 30,
    };
    let svg = frame.draw(|plot| {
        for (index, network) in shares.networks.iter().enumerate() {
            let mut start = 0.0;
            for (operation, micros) in shares.operations.iter().zip(&network.micros) {
                let end = start + micros.max(0.0) / factor;
                let (top, bottom) = (index as f64 + 0.18, index as f64 + 0.82);
                plot.bar((start, top), (end, bottom), operation_style(operation).colour)?;
                start = end;
            }
            let row = index as f64 + 0.5;
            let [low, high] = network.measured.range.map(|end| end / factor);
            let middle = (network.measured.value / factor, row);
            // A rim, because a bar may be as dark as the mark.
            plot.mark(middle, Mark::Diamond, PAPER, 17.0)?;
            plot.error_bar((low, row), (high, row), INK)?;
            plot.mark(middle, Mark::Diamond, INK, 11.0)?;
        }
        Ok(())
    })?;
    let mut legend: Vec<_> = shares
        .operations
        .iter()
        .map(|operation| entry(operation_style(operation), Kind::Area, operation))
        .collect();
    legend.push(entry(Style { colour: INK, mark: Mark::Diamond }, Kind::Mark, &format!("{word} median")));
    Ok(Some(Chart { svg, legend }))
}

/// Horizontal bars with a name each.
struct Bars<'a> {
    label: String,
    names: &'a [&'a str],
    end: f64,
    unit: String,
    right: u32,
}

impl Bars<'_> {
    fn draw(
        &self,
        bars: impl FnOnce(&super::plot::Plot<'_, '_>) -> Result<(), DrawError>,
    ) -> Result<String, DrawError> {
        let rows = self.names.len();
        let widest = self.names.iter().map(|name| text_width(name)).max().unwrap_or_default();
        let digits = digits_for(&(0.0..self.end));
        let axes = Axes {
            size: (1600, ROW * rows as u32 + AXIS + TOP),
            label: self.label.clone(),
            x: 0.0..self.end,
            // The first bar on top.
            y: rows as f64..0.0,
            x_title: &self.unit,
            y_title: "",
            x_format: &|value| fixed(value, digits),
            y_format: &|_| String::new(),
            ticks: (7, 0),
            room: (widest.unsigned_abs().clamp(60, 480) + 24, AXIS),
            right: self.right.min(520),
        };
        chart(&axes, |plot| {
            let [left, ..] = plot.bounds();
            for (index, name) in self.names.iter().enumerate() {
                let (_, y) = plot.pixel((0.0, index as f64 + 0.5));
                plot.text(name, (left - 16, y), HPos::Right, INK)?;
            }
            bars(plot)
        })
    }
}
