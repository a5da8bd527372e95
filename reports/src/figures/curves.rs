//! Curves over epochs.

use plotters::style::text_anchor::HPos;

use super::{
    Chart,
    legend::{Kind, entry},
    plot::{Axes, DrawError, TEXT, chart, digits_for, range_of, text_width},
};
use crate::{
    palette::{INK, Mark, Style, origin_style, series_style},
    quantity::{Measure, fixed, latency_unit},
    view::{SearchSeries, Training},
};

/// One line.
struct Line<'a> {
    label: &'a str,
    style: Style,
    points: Vec<(f64, f64)>,
    /// A dashed level rather than a curve.
    level: bool,
}

/// What stands around the lines.
struct Frame<'a> {
    label: String,
    y_title: &'a str,
    epochs: usize,
    /// Names at the right ends of the lines, in place of a legend.
    end_labels: bool,
    /// The y axis begins at zero.
    from_zero: bool,
}

pub(super) fn search_loss(series: &SearchSeries, measure: Measure) -> Result<Option<Chart>, DrawError> {
    let lines = [
        curve("weights' half (training)", 0, &series.train_loss, 1.0),
        curve("architecture half", 1, &series.valid_loss, 1.0),
    ];
    let label =
        "Line chart of the search's loss over epochs, on the weights' and the architecture half.".into();
    draw(
        &lines,
        &Frame {
            label,
            y_title: loss_of(measure),
            epochs: series.epochs,
            end_labels: false,
            from_zero: false,
        },
    )
}

pub(super) fn search_accuracy(series: &SearchSeries, measure: Measure) -> Result<Option<Chart>, DrawError> {
    let lines = [
        curve("weights' half (training)", 0, &series.train_accuracy, measure.factor()),
        curve("architecture half", 1, &series.valid_accuracy, measure.factor()),
    ];
    let label = format!(
        "Line chart of the supernet's {} over epochs, on the weights' and the architecture half.",
        measure.word()
    );
    let y_title = &format!("{} ({})", measure.word(), measure.unit());
    draw(&lines, &Frame { label, y_title, epochs: series.epochs, end_labels: false, from_zero: false })
}

pub(super) fn search_latency(series: &SearchSeries) -> Result<Option<Chart>, DrawError> {
    let values = series.expected.iter().chain(&series.derived).map(|(_, time)| *time).chain(series.target);
    let (factor, unit) = latency_unit(values.fold(0.0, f64::max));
    let mut lines = vec![
        curve("expected under the relaxation", 0, &series.expected, 1.0 / factor),
        curve("network derived now", 1, &series.derived, 1.0 / factor),
    ];
    if let Some(target) = series.target.filter(|_| !series.expected.is_empty() || !series.derived.is_empty())
    {
        lines.push(Line {
            label: "target",
            style: Style { colour: INK, mark: Mark::Bar },
            points: vec![(1.0, target / factor), (series.epochs.max(2) as f64, target / factor)],
            level: true,
        });
    }
    let label = "Line chart of the expected and the derived latency over epochs, with the target.".into();
    let y_title = &format!("predicted latency ({unit})");
    draw(&lines, &Frame { label, y_title, epochs: series.epochs, end_labels: false, from_zero: false })
}

pub(super) fn lambda(series: &SearchSeries) -> Result<Option<Chart>, DrawError> {
    let lines = [curve("λ", 2, &series.lambda, 1.0)];
    let label = "Line chart of λ, the weight of the latency constraint, over epochs.".into();
    draw(&lines, &Frame { label, y_title: "λ", epochs: series.epochs, end_labels: false, from_zero: true })
}

/// Signs of collapse.
pub(super) fn skips(series: &SearchSeries) -> Result<Option<Chart>, DrawError> {
    let lines = [
        curve("skip connections", 0, &series.skips, 1.0),
        curve("all operations without weights", 1, &series.parameter_free, 1.0),
    ];
    let label = "Line chart of the skip connections and other operations without weights in the first kind of cell that would be derived, over epochs.".into();
    draw(
        &lines,
        &Frame { label, y_title: "operations", epochs: series.epochs, end_labels: false, from_zero: true },
    )
}

/// The curvature of the loss in the architecture parameters.
pub(super) fn eigenvalue(series: &SearchSeries) -> Result<Option<Chart>, DrawError> {
    let lines = [curve("dominant eigenvalue", 3, &series.eigenvalue, 1.0)];
    let label =
        "Line chart of the dominant eigenvalue of the Hessian in the architecture parameters, over epochs."
            .into();
    draw(
        &lines,
        &Frame { label, y_title: "eigenvalue", epochs: series.epochs, end_labels: false, from_zero: false },
    )
}

pub(super) fn training_loss(training: &Training) -> Result<Option<Chart>, DrawError> {
    let lines: Vec<Line<'_>> = training
        .rows
        .iter()
        .map(|row| Line {
            label: &row.name,
            style: origin_style(row.origin),
            points: row.losses.clone(),
            level: false,
        })
        .collect();
    let label = "Line chart of the candidates' training loss over epochs.".into();
    draw(
        &lines,
        &Frame {
            label,
            y_title: "training loss",
            epochs: training.epochs,
            end_labels: true,
            from_zero: false,
        },
    )
}

pub(super) fn training_accuracy(training: &Training, measure: Measure) -> Result<Option<Chart>, DrawError> {
    let lines: Vec<Line<'_>> = training
        .rows
        .iter()
        .map(|row| Line {
            label: &row.name,
            style: origin_style(row.origin),
            points: row.accuracies.iter().map(|(epoch, share)| (*epoch, share * measure.factor())).collect(),
            level: false,
        })
        .collect();
    let label = format!("Line chart of the candidates' {} on training images over epochs.", measure.word());
    let y_title = &format!("training {} ({})", measure.word(), measure.unit());
    draw(&lines, &Frame { label, y_title, epochs: training.epochs, end_labels: true, from_zero: false })
}

/// What the loss is.
const fn loss_of(measure: Measure) -> &'static str {
    match measure {
        Measure::Accuracy => "cross-entropy",
        Measure::Psnr => "mean absolute error",
        Measure::Similarity => "mean squared error",
    }
}

fn curve<'a>(label: &'a str, index: usize, points: &[(f64, f64)], scale: f64) -> Line<'a> {
    let points = points.iter().map(|(epoch, value)| (*epoch, value * scale)).collect();
    Line { label, style: series_style(index), points, level: false }
}

fn draw(lines: &[Line<'_>], frame: &Frame<'_>) -> Result<Option<Chart>, DrawError> {
    let lines: Vec<&Line<'_>> = lines.iter().filter(|line| !line.points.is_empty()).collect();
    let values = lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
    let Some(mut y) = range_of(values.chain(frame.from_zero.then_some(0.0))) else {
        return Ok(None);
    };
    if frame.from_zero {
        y.start = 0.0;
    }
    let digits = digits_for(&y);
    let widest = lines.iter().map(|line| text_width(line.label)).max().unwrap_or_default();
    let axes = Axes {
        size: (1000, 620),
        label: frame.label.clone(),
        x: 1.0..(frame.epochs.max(2) as f64),
        y,
        x_title: "epoch",
        y_title: frame.y_title,
        x_format: &whole,
        y_format: &|value| fixed(value, digits),
        ticks: (frame.epochs.clamp(2, 10), 6),
        room: (124, 80),
        right: if frame.end_labels { 50 + (widest.unsigned_abs() * 6 / 5).min(400) } else { 30 },
    };
    let svg = chart(&axes, |plot| {
        for line in &lines {
            if line.level {
                plot.dashed(&line.points, line.style.colour, 4)?;
                continue;
            }
            plot.line(&line.points, line.style.colour, 4)?;
            // A mark on every point as long as they are few, and on the last one always.
            let every = line.points.len().div_ceil(24);
            for (index, point) in line.points.iter().enumerate() {
                if index % every == 0 || index + 1 == line.points.len() {
                    plot.mark(*point, line.style.mark, line.style.colour, 9.0)?;
                }
            }
        }
        if frame.end_labels {
            let ends = lines.iter().filter_map(|line| Some((line, plot.pixel(*line.points.last()?))));
            let mut ends: Vec<(&Line<'_>, (i32, i32))> = ends.map(|(line, end)| (*line, end)).collect();
            ends.sort_by_key(|(_, (_, y))| *y);
            let gap = TEXT as i32 + 5;
            let wishes: Vec<i32> = ends.iter().map(|(_, (_, y))| *y).collect();
            let rows = below(&apart(&wishes, gap), gap / 2, gap);
            for ((line, (x, _)), row) in ends.iter().zip(rows) {
                plot.text(line.label, (x + 20, row), HPos::Left, INK)?;
            }
        }
        Ok(())
    })?;
    let legend = lines
        .iter()
        .map(|line| entry(line.style, if line.level { Kind::Dashed } else { Kind::Line }, line.label))
        .collect();
    Ok(Some(Chart { svg, legend: if frame.end_labels { Vec::new() } else { legend } }))
}

/// Sorted positions moved as little as it takes to lie at least `gap` apart.
fn apart(sorted: &[i32], gap: i32) -> Vec<i32> {
    // Groups that touch are merged and centred on the mean of their wishes.
    let mut groups: Vec<(Vec<i32>, i32)> = Vec::new();
    for &wish in sorted {
        groups.push((vec![wish], wish));
        while let [.., (above, top), (below, under)] = &groups[..] {
            let reach = |members: &Vec<i32>| (members.len() as i32 - 1) * gap / 2;
            if top + reach(above) + gap <= under - reach(below) {
                break;
            }
            let (below, above) = (below.clone(), above.clone());
            groups.truncate(groups.len() - 2);
            let members = [above, below].concat();
            let centre = members.iter().sum::<i32>() / members.len() as i32;
            groups.push((members, centre));
        }
    }
    let rows = groups.iter().flat_map(|(members, centre)| {
        let first = centre - (members.len() as i32 - 1) * gap / 2;
        (0..members.len() as i32).map(move |index| first + index * gap)
    });
    rows.collect()
}

/// The same positions, pushed down where they lie above `top` or too near to each other.
fn below(sorted: &[i32], top: i32, gap: i32) -> Vec<i32> {
    let mut least = top;
    let mut rows = Vec::with_capacity(sorted.len());
    for &row in sorted {
        rows.push(row.max(least));
        least = row.max(least) + gap;
    }
    rows
}

/// Epochs are whole numbers: a tick between two has no label.
fn whole(value: f64) -> String {
    if (value - value.round()).abs() < 1e-6 { fixed(value, 0) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_moved_apart_and_no_farther() {
        assert_eq!(apart(&[10, 100], 20), vec![10, 100]);
        assert_eq!(apart(&[50, 50, 50], 20), vec![30, 50, 70]);
        assert_eq!(apart(&[], 20), Vec::<i32>::new());
        assert_eq!(below(&[-5, 10, 90], 10, 20), vec![10, 30, 90]);
        let rows = apart(&[0, 5, 9, 200, 201], 10);
        assert!(rows.windows(2).all(|pair| pair[1] - pair[0] >= 10), "{rows:?}");
    }
}
