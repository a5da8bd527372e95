//! Accuracy against latency of all networks of a study.

use super::{
    Chart, legend, named,
    plot::{Axes, DrawError, chart, digits_for, range_of},
};
use crate::{
    ReportError,
    palette::{BLUE, GREEN, GREY, INK, Mark, ORANGE, PURPLE, SKY, Style, VERMILLION},
    quantity::{Quantity, fixed, latency_unit},
    study::Study,
};

/// All networks with their intervals, and the targets; `None` without any.
pub(crate) fn front(study: &Study) -> Result<Option<Chart>, ReportError> {
    named("accuracy against latency", draw(study))
}

fn draw(study: &Study) -> Result<Option<Chart>, DrawError> {
    let word = study.word();
    let device = study.devices.first().map_or("local", |device| device.name.as_str());
    let points: Vec<(Style, Quantity, Quantity)> = study
        .networks
        .iter()
        .filter_map(|network| {
            let latency = Quantity::measured(network.latencies.get(device)?);
            let accuracy = Quantity::accuracy(network.test_accuracy?, study.test_images);
            Some((style(&network.approach), latency, accuracy))
        })
        .filter(|(_, latency, accuracy)| latency.value.is_finite() && accuracy.value.is_finite())
        .collect();
    let largest = points.iter().map(|(_, latency, _)| latency.value).fold(0.0, f64::max);
    let (factor, unit) = latency_unit(largest);
    let targets: Vec<f64> = study.targets.iter().map(|target| target.0 / factor).collect();
    let xs = points.iter().flat_map(|(_, latency, _)| latency.range).map(|x| x / factor);
    let ys = points.iter().flat_map(|(_, _, accuracy)| accuracy.range);
    let x = range_of(xs.chain(targets.iter().copied()));
    let (Some(x), Some(y)) = (x.filter(|_| !points.is_empty()), range_of(ys.map(|y| y * 100.0))) else {
        return Ok(None);
    };
    let (x_digits, y_digits) = (digits_for(&x), digits_for(&y));
    let axes = Axes {
        size: (1600, 900),
        label: format!(
            "Scatter plot of test accuracy against {word} latency for {} networks. The numbers are in the table of networks.",
            points.len()
        ),
        x_title: &format!("{word} latency, median ({unit})"),
        y_title: "test accuracy (%)",
        x_format: &|value| fixed(value, x_digits),
        y_format: &|value| fixed(value, y_digits),
        ticks: (8, 8),
        room: (120, 80),
        right: 30,
        y: y.clone(),
        x,
    };
    let svg = chart(&axes, |plot| {
        for target in &targets {
            plot.dashed(&[(*target, y.start), (*target, y.end)], INK, 2)?;
            let (column, top) = plot.pixel((*target, y.end));
            plot.upward_text("target", (column - 8, top + 10))?;
        }
        for (style, latency, accuracy) in &points {
            let (x, y) = (latency.value / factor, accuracy.value * 100.0);
            let [low, high] = latency.range.map(|end| end / factor);
            plot.error_bar((low, y), (high, y), style.colour)?;
            let [low, high] = accuracy.range.map(|end| end * 100.0);
            plot.error_bar((x, low), (x, high), style.colour)?;
        }
        for (style, latency, accuracy) in &points {
            let at = (latency.value / factor, accuracy.value * 100.0);
            plot.mark(at, style.mark, style.colour, 14.0)?;
        }
        Ok(())
    })?;
    let mut words: Vec<&str> = Vec::new();
    for network in &study.networks {
        if !words.contains(&network.approach.as_str()) {
            words.push(&network.approach);
        }
    }
    let legend = words.into_iter().map(|word| legend::entry(style(word), legend::Kind::Mark, word)).collect();
    Ok(Some(Chart { svg, legend }))
}

/// By how a network was found; whatever is none of these is a published one.
fn style(approach: &str) -> Style {
    let (colour, mark) = match approach {
        "latency" => (VERMILLION, Mark::Star),
        "macs" => (ORANGE, Mark::Up),
        "unconstrained" => (SKY, Mark::Down),
        "evolved" => (PURPLE, Mark::Diamond),
        "random" => (BLUE, Mark::Circle),
        name if name.starts_with("PC_DARTS") => (GREEN, Mark::Square),
        _ => (GREY, Mark::Square),
    };
    Style { colour, mark }
}
