//! Predicted against measured latency.

use super::plot::{Axes, DrawError, chart, digits_for, range_of};
use crate::{
    palette::{GREY, INK, Mark, origin_style},
    quantity::{fixed, latency_unit},
    view::PredictionView,
};

/// Held-out networks and verified candidates around the diagonal, with a band of ±10 %.
pub(super) fn draw(prediction: &PredictionView, word: &str) -> Result<Option<String>, DrawError> {
    let all = || prediction.points.iter().chain(&prediction.candidates);
    let largest = all().map(|point| point.measured.value).fold(0.0, f64::max);
    let (factor, unit) = latency_unit(largest);
    let values = all().flat_map(|point| {
        let [low, high] = point.measured.range;
        let [from, to] = point.predicted_range.unwrap_or([point.predicted_micros; 2]);
        [low, high, from, to]
    });
    let Some(range) = range_of(values.map(|value| value / factor)) else {
        return Ok(None);
    };
    let range = range.start.max(0.0)..range.end;
    let digits = digits_for(&range);
    let axes = Axes {
        size: (1000, 920),
        label: format!(
            "Scatter plot of {word} latency against predicted latency: {} held-out networks and {} candidates, \
             with the diagonal and a band of ten percent around it.",
            prediction.points.len(),
            prediction.candidates.len()
        ),
        x_title: &format!("predicted latency ({unit})"),
        y_title: &format!("{word} latency, median ({unit})"),
        x_format: &|value| fixed(value, digits),
        y_format: &|value| fixed(value, digits),
        ticks: (6, 6),
        room: (120, 80),
        right: 30,
        x: range.clone(),
        y: range.clone(),
    };
    let svg = chart(&axes, |plot| {
        plot.band(&band(range.start, range.end), INK, 0.09)?;
        plot.line(&[(range.start, range.start), (range.end, range.end)], INK, 2)?;
        for point in &prediction.points {
            let x = point.predicted_micros / factor;
            let [low, high] = point.measured.range.map(|end| end / factor);
            plot.error_bar((x, low), (x, high), GREY)?;
            plot.mark((x, point.measured.value / factor), Mark::Diamond, GREY, 8.0)?;
        }
        for point in &prediction.candidates {
            let Some(style) = point.origin.map(origin_style) else { continue };
            let at = (point.predicted_micros / factor, point.measured.value / factor);
            let [low, high] = point.measured.range.map(|end| end / factor);
            plot.error_bar((at.0, low), (at.0, high), style.colour)?;
            if let Some([low, high]) = point.predicted_range {
                plot.error_bar((low / factor, at.1), (high / factor, at.1), style.colour)?;
            }
            plot.mark(at, style.mark, style.colour, 13.0)?;
        }
        Ok(())
    })?;
    Ok(Some(svg))
}

/// Corners of the band ±10 % around the diagonal, cut to the range in both directions.
fn band(low: f64, high: f64) -> Vec<(f64, f64)> {
    let upper = |x: f64| (x, (x * 1.1).min(high));
    let lower = |x: f64| (x, (x * 0.9).max(low));
    vec![upper(low), upper(high / 1.1), (high, high), lower(high), lower((low / 0.9).min(high)), (low, low)]
}
