//! How far the latency predictor can be believed.

use serde::Serialize;

use super::{Networks, Provenances, Section};
use crate::{
    history::History,
    quantity::{Quantity, fixed, latency, percent},
    run_files::RunFiles,
};

/// The predictor on networks that it had not seen.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PredictionView {
    /// Name of the model.
    pub model: String,
    /// How the held-out points were made.
    pub protocol: String,
    /// What the cost table was fitted from.
    pub basis: Option<String>,
    /// What the space reaches by prediction.
    pub reach: Option<String>,
    pub figures_of_merit: Vec<FigureOfMerit>,
    /// Held-out networks.
    pub points: Vec<PredictionPoint>,
    /// Candidates that were predicted and then measured.
    pub candidates: Vec<PredictionPoint>,
}

/// One number about the predictor.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FigureOfMerit {
    pub name: String,
    pub text: String,
    pub meaning: String,
}

/// A network that was predicted and measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PredictionPoint {
    pub label: String,
    pub measured: Quantity,
    /// Raw prediction in microseconds.
    #[serde(skip)]
    pub predicted_micros: f64,
    /// Raw 90 % interval, if the prediction has one.
    #[serde(skip)]
    pub predicted_range: Option<[f64; 2]>,
    /// Where a candidate comes from.
    #[serde(skip)]
    pub origin: Option<lathe_search::Origin>,
    pub predicted: String,
    /// Measured over predicted.
    pub ratio: String,
}

pub(super) fn prediction(
    history: &History,
    files: &RunFiles,
    networks: Option<&Networks>,
    provenance: &Provenances,
) -> Section<PredictionView> {
    let Some(quality) = &history.quality else {
        return Section::Missing("The latency predictor has not been fitted yet.".into());
    };
    let points: Vec<PredictionPoint> = quality
        .points
        .iter()
        .map(|point| PredictionPoint {
            label: point.label.clone(),
            measured: Quantity::measured(&point.measured),
            predicted_micros: point.predicted.0,
            predicted_range: None,
            origin: None,
            predicted: latency(point.predicted),
            ratio: fixed(point.measured.median / point.predicted, 3),
        })
        .collect();
    let within = points
        .iter()
        .filter(|point| (point.predicted_micros / point.measured.value - 1.0).abs() <= 0.1)
        .count();
    let word = provenance.word;
    let held_out = points.len();
    let mut figures_of_merit = vec![
        FigureOfMerit {
            name: "median error".into(),
            text: percent(quality.median_relative_error, 1),
            meaning: format!(
                "half of the held-out networks are predicted closer to their {word} latency than this"
            ),
        },
        FigureOfMerit {
            name: "within ±10\u{a0}%".into(),
            text: percent(quality.within_ten_percent, 0),
            meaning: format!("{within} of {held_out} held-out networks"),
        },
        FigureOfMerit {
            name: "rank correlation".into(),
            text: fixed(quality.spearman, 3),
            meaning: "Spearman's: 1 if the order by prediction is the order by measurement".into(),
        },
        FigureOfMerit {
            name: "selection regret".into(),
            text: percent(quality.selection_regret, 1),
            meaning:
                "how much slower than the fastest network of a fold the predicted-fastest one is, on average"
                    .into(),
        },
        FigureOfMerit {
            name: "noise floor".into(),
            text: percent(quality.noise_floor, 1),
            meaning: "median half-width of the measurements' own intervals: no predictor can do better"
                .into(),
        },
    ];
    for simpler in &history.simpler {
        figures_of_merit.push(FigureOfMerit {
            name: simpler.model.clone(),
            text: percent(simpler.median_relative_error, 1),
            meaning: format!(
                "median error of a simpler fit on the same networks; rank correlation {}",
                fixed(simpler.spearman, 3)
            ),
        });
    }
    let candidates = networks.map_or_else(Vec::new, |networks| {
        let both =
            networks.rows.iter().filter_map(|row| Some((row, row.latency.clone()?, row.predicted.clone()?)));
        both.map(|(row, measured, predicted)| PredictionPoint {
            label: row.name.clone(),
            predicted_micros: predicted.value,
            predicted_range: Some(predicted.range),
            origin: Some(row.origin),
            predicted: predicted.text,
            ratio: row.ratio.as_ref().map_or_else(String::new, |ratio| ratio.text.clone()),
            measured,
        })
        .collect()
    });
    Section::Ready(PredictionView {
        model: quality.model.clone(),
        protocol: format!(
            "{}-fold cross-validation over {held_out} {word} networks: each is predicted by a fit that did not see it.",
            quality.folds
        ),
        basis: files.table.as_ref().map(|(table, header)| {
            format!(
                "The cost table was fitted from {} {} rows, {} of them whole networks. 90\u{a0}% of the held-out networks \
                 took {} to {} times their prediction; that is the 90\u{a0}% interval of every prediction here.",
                header.measurements,
                table.provenance,
                header.networks,
                fixed(table.ratio_quantiles[0], 2),
                fixed(table.ratio_quantiles[1], 2)
            )
        }),
        reach: history.target.as_ref().map(|facts| {
            let [fastest, slowest] = facts.reachable;
            format!("By prediction the space reaches from {} to {}.", latency(fastest), latency(slowest))
        }),
        figures_of_merit,
        points,
        candidates,
    })
}
