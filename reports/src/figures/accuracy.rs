//! Accuracy against latency.

use plotters::style::text_anchor::HPos;

use super::plot::{Axes, DrawError, TEXT, chart, digits_for, range_of, text_width};
use crate::{
    palette::{INK, origin_style},
    quantity::{Measure, Quantity, fixed, latency_unit},
    view::Networks,
};

/// All networks that are trained and measured, with their intervals, the target and the Pareto front.
pub(super) fn draw(networks: &Networks, word: &str, measure: Measure) -> Result<Option<String>, DrawError> {
    let points: Vec<(&str, &Quantity, &Quantity, crate::palette::Style)> = networks
        .rows
        .iter()
        .filter_map(|row| Some((row, row.latency.as_ref()?, row.accuracy.as_ref()?)))
        .filter(|(_, latency, accuracy)| latency.value.is_finite() && accuracy.value.is_finite())
        .map(|(row, latency, accuracy)| (row.name.as_str(), latency, accuracy, origin_style(row.origin)))
        .collect();
    let largest = points.iter().map(|(_, latency, ..)| latency.value).fold(0.0, f64::max);
    let (factor, unit) = latency_unit(largest);
    let xs = points.iter().flat_map(|(_, latency, ..)| latency.range).chain(networks.target_micros);
    let ys = points.iter().flat_map(|(_, _, accuracy, _)| accuracy.range);
    let (Some(x), Some(y)) = (range_of(xs.map(|x| x / factor)), range_of(ys.map(|y| y * measure.factor())))
    else {
        return Ok(None);
    };
    let (x_digits, y_digits) = (digits_for(&x), digits_for(&y));
    let names: Vec<&str> = points.iter().map(|(name, ..)| *name).collect();
    let axes = Axes {
        size: (1600, 900),
        label: format!(
            "Scatter plot of test {} against {word} latency for {}. The numbers are in the table of networks.",
            measure.word(),
            names.join(", ")
        ),
        x_title: &format!("{word} latency, median ({unit})"),
        y_title: &format!("test {} ({})", measure.word(), measure.unit()),
        x_format: &|value| fixed(value, x_digits),
        y_format: &|value| fixed(value, y_digits),
        ticks: (8, 8),
        room: (120, 80),
        right: 30,
        y: y.clone(),
        x: x.clone(),
    };
    let svg = chart(&axes, |plot| {
        let [left, top, right, bottom] = plot.bounds();
        let mut taken: Vec<[i32; 4]> = Vec::new();
        if let Some(target) = networks.target_micros.map(|target| target / factor) {
            plot.band(
                &[(x.start, y.start), (target, y.start), (target, y.end), (x.start, y.end)],
                INK,
                0.045,
            )?;
            plot.dashed(&[(target, y.start), (target, y.end)], INK, 3)?;
            let (column, _) = plot.pixel((target, y.end));
            plot.upward_text("target", (column - 8, top + 10))?;
            taken.push([column - 36, top, column + 6, top + 110]);
            taken.push([column - 3, top, column + 3, bottom]);
        }
        let place = |latency: &Quantity, accuracy: &Quantity| {
            (latency.value / factor, accuracy.value * measure.factor())
        };
        let front: Vec<(f64, f64)> = networks
            .front
            .iter()
            .filter_map(|name| points.iter().find(|point| point.0 == name))
            .map(|(_, latency, accuracy, _)| place(latency, accuracy))
            .collect();
        let path = stairs(&front, x.end);
        plot.dashed(&path, INK, 2)?;
        taken.extend(path.windows(2).map(|step| covered(plot.pixel(step[0]), plot.pixel(step[1]))));
        for (_, latency, accuracy, style) in &points {
            let (x, y) = place(latency, accuracy);
            let [low, high] = latency.range.map(|end| end / factor);
            plot.error_bar((low, y), (high, y), style.colour)?;
            taken.push(covered(plot.pixel((low, y)), plot.pixel((high, y))));
            let [low, high] = accuracy.range.map(|end| end * measure.factor());
            plot.error_bar((x, low), (x, high), style.colour)?;
            taken.push(covered(plot.pixel((x, low)), plot.pixel((x, high))));
            let (column, row) = plot.pixel((x, y));
            taken.push([column - 16, row - 16, column + 16, row + 16]);
        }
        for (_, latency, accuracy, style) in &points {
            plot.mark(place(latency, accuracy), style.mark, style.colour, 14.0)?;
        }
        for (name, latency, accuracy, _) in &points {
            let at = plot.pixel(place(latency, accuracy));
            let (at, anchor, area) = free_place(at, text_width(name), &taken, [left, top, right, bottom]);
            taken.push(area);
            plot.text(name, at, anchor, INK)?;
        }
        Ok(())
    })?;
    Ok(Some(svg))
}

/// The front as stairs: up to each network's accuracy at its latency, then level to the next.
fn stairs(front: &[(f64, f64)], end: f64) -> Vec<(f64, f64)> {
    let mut path = Vec::new();
    for (index, &(x, y)) in front.iter().enumerate() {
        path.push((x, y));
        path.push((front.get(index + 1).map_or(end, |next| next.0), y));
    }
    path
}

/// What a line between two corners covers, with a little room.
fn covered(from: (i32, i32), to: (i32, i32)) -> [i32; 4] {
    [from.0.min(to.0) - 3, from.1.min(to.1) - 3, from.0.max(to.0) + 3, from.1.max(to.1) + 3]
}

/// A place for a label beside its mark that covers nothing: right, left, above, below, and the same
/// farther away.
fn free_place(
    mark: (i32, i32),
    width: i32,
    taken: &[[i32; 4]],
    bounds: [i32; 4],
) -> ((i32, i32), HPos, [i32; 4]) {
    let height = TEXT as i32;
    let spot = |dx: i32, dy: i32| {
        let (x, y) = (mark.0 + dx, mark.1 + dy);
        let (anchor, left) = match dx.signum() {
            1 => (HPos::Left, x),
            -1 => (HPos::Right, x - width),
            _ => (HPos::Center, x - width / 2),
        };
        ((x, y), anchor, [left, y - height / 2, left + width, y + height / 2])
    };
    let offsets = [
        (22, -18),
        (22, 20),
        (-22, -18),
        (-22, 20),
        (0, -34),
        (0, 36),
        (22, -46),
        (22, 48),
        (-22, -46),
        (-22, 48),
        (0, -64),
        (0, 66),
    ];
    let spots = offsets.map(|(dx, dy)| spot(dx, dy));
    let overlap = |area: &[i32; 4]| -> i64 {
        let shared = |other: &[i32; 4]| {
            let w = area[2].min(other[2]) - area[0].max(other[0]);
            let h = area[3].min(other[3]) - area[1].max(other[1]);
            i64::from(w.max(0)) * i64::from(h.max(0))
        };
        let outside =
            area[0] < bounds[0] || area[2] > bounds[2] || area[1] < bounds[1] || area[3] > bounds[3];
        taken.iter().map(shared).sum::<i64>() + if outside { 1_000_000 } else { 0 }
    };
    let best = spots.iter().min_by_key(|(_, _, area)| overlap(area));
    best.copied().unwrap_or_else(|| spot(22, 0))
}
