//! What the marks and colours of a figure mean. The page sets legends as text, so that they wrap.

use lathe_search::Origin;
use serde::Serialize;

use crate::palette::{INK, Style, name_of, operation_style, origin_style};

/// One mark with its meaning.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LegendEntry {
    /// A small SVG.
    pub swatch: String,
    pub label: String,
}

/// How a thing is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A mark only.
    Mark,
    /// A line that ends in a mark.
    Line,
    /// A dashed line without a mark.
    Dashed,
    /// A filled area.
    Area,
}

pub(super) fn entry(style: Style, kind: Kind, label: &str) -> LegendEntry {
    LegendEntry { swatch: swatch(style, kind), label: label.to_owned() }
}

/// Where networks come from.
pub(super) fn origins() -> Vec<LegendEntry> {
    [(Origin::Searched, "searched"), (Origin::Random, "random"), (Origin::Published, "published")]
        .map(|(origin, label)| entry(origin_style(origin), Kind::Mark, label))
        .to_vec()
}

/// Operations, as lines.
pub(super) fn operations(names: &[String]) -> Vec<LegendEntry> {
    names.iter().map(|name| entry(operation_style(name), Kind::Line, name)).collect()
}

/// A mark by itself, around a place; for drawings that are written by hand.
pub(super) fn mark_path(style: Style, x: f64, y: f64, radius: f64) -> String {
    let corners: Vec<String> = style
        .mark
        .corners()
        .into_iter()
        .map(|(dx, dy)| format!("{:.1},{:.1}", x + dx * radius, y + dy * radius))
        .collect();
    format!("<polygon points=\"{}\" fill=\"{}\"/>", corners.join(" "), name_of(style.colour))
}

fn swatch(style: Style, kind: Kind) -> String {
    let colour = name_of(style.colour);
    let inside = match kind {
        Kind::Mark => mark_path(style, 14.0, 8.0, 6.0),
        Kind::Line => format!(
            "<line x1=\"1\" y1=\"8\" x2=\"22\" y2=\"8\" stroke=\"{colour}\" stroke-width=\"2\"/>{}",
            mark_path(style, 21.0, 8.0, 5.0)
        ),
        Kind::Dashed => {
            let colour = name_of(if style.colour == INK { INK } else { style.colour });
            format!(
                "<line x1=\"1\" y1=\"8\" x2=\"27\" y2=\"8\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"5 3\"/>"
            )
        }
        Kind::Area => {
            format!("<rect x=\"4\" y=\"2\" width=\"20\" height=\"12\" fill=\"{colour}\" opacity=\"0.85\"/>")
        }
    };
    format!("<svg viewBox=\"0 0 28 16\" class=\"swatch\" aria-hidden=\"true\">{inside}</svg>")
}
