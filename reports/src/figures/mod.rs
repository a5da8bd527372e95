//! What the report draws: SVG text that takes its text colour from the page, so that it is legible on
//! light and dark, and whose size follows the page's width.

mod accuracy;
mod architecture;
mod cell_layout;
mod cell_svg;
mod curves;
mod legend;
mod plot;
mod predicted;
mod shares;
mod study;

use serde::Serialize;

use crate::{ReportError, view::View};
pub(crate) use legend::LegendEntry;
use plot::DrawError;
pub(crate) use study::front as study_front;

/// All figures of a report; those whose data is missing are absent.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Accuracy against latency.
    pub accuracy: Option<String>,
    /// Predicted against measured latency.
    pub predicted: Option<String>,
    pub search_loss: Option<Chart>,
    pub search_accuracy: Option<Chart>,
    pub search_latency: Option<Chart>,
    pub lambda: Option<Chart>,
    pub skips: Option<Chart>,
    pub eigenvalue: Option<Chart>,
    /// Per block one panel per edge, and one per node.
    pub architecture: Vec<BlockPanels>,
    pub operations: Vec<LegendEntry>,
    /// Per block a drawing; empty for a chain, which the page shows itself.
    pub cells: Vec<String>,
    /// One network's latency per operation.
    pub shares: Option<String>,
    /// The same for all networks, stacked.
    pub all_shares: Option<Chart>,
    pub training_loss: Option<Chart>,
    pub training_accuracy: Option<Chart>,
    pub origins: Vec<LegendEntry>,
}

/// A drawing with its legend.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Chart {
    pub svg: String,
    pub legend: Vec<LegendEntry>,
}

/// Panels of one block.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BlockPanels {
    pub alpha: Vec<String>,
    pub beta: Vec<Chart>,
}

impl Figures {
    /// Draws whatever the view has data for.
    pub fn of(view: &View) -> Result<Self, ReportError> {
        let mut figures = Self { origins: legend::origins(), ..Self::default() };
        if let Some(networks) = view.networks.ready() {
            figures.accuracy = named(
                "accuracy against latency",
                accuracy::draw(networks, view.provenance.word, view.measured_by),
            )?;
        }
        if let Some(prediction) = view.prediction.ready() {
            figures.predicted =
                named("predicted against measured", predicted::draw(prediction, view.provenance.word))?;
        }
        if let Some(search) = view.search.ready() {
            let series = &search.series;
            figures.search_loss = named("loss of the search", curves::search_loss(series, view.measured_by))?;
            figures.search_accuracy =
                named("accuracy of the search", curves::search_accuracy(series, view.measured_by))?;
            figures.search_latency = named("latency of the search", curves::search_latency(series))?;
            figures.lambda = named("λ of the search", curves::lambda(series))?;
            figures.skips = named("skip connections of the search", curves::skips(series))?;
            figures.eigenvalue = named("eigenvalue of the search", curves::eigenvalue(series))?;
        }
        if let Some(architecture) = view.architecture.ready() {
            figures.operations = legend::operations(&architecture.choices);
            for block in &architecture.blocks {
                figures.architecture.push(named("architecture parameters", architecture::panels(block))?);
            }
        }
        if let Some(cells) = view.cells.ready() {
            figures.cells = cells.blocks.iter().map(cell_svg::draw).collect();
        }
        if let Some(shares) = view.shares.ready() {
            figures.shares = named("latency per operation", shares::one(shares))?;
            figures.all_shares = named("latency per operation", shares::all(shares, view.provenance.word))?;
        }
        if let Some(training) = view.training.ready() {
            figures.training_loss = named("training loss", curves::training_loss(training))?;
            figures.training_accuracy =
                named("training accuracy", curves::training_accuracy(training, view.measured_by))?;
        }
        Ok(figures)
    }
}

fn named<T>(figure: &'static str, drawn: Result<T, DrawError>) -> Result<T, ReportError> {
    drawn.map_err(|error| ReportError::Figure { figure, reason: error.to_string() })
}
