//! A chart with axes, and marks, lines and text placed in its coordinates.
//!
//! Everything is drawn at twice the size that it is meant to be seen at, because the drawing library
//! rounds positions to whole units.

use std::ops::Range;

use plotters::{
    chart::{ChartBuilder, ChartContext},
    coord::{Shift, types::RangedCoordf64},
    drawing::DrawingAreaErrorKind,
    element::{DashedPathElement, PathElement, Polygon, Rectangle, Text},
    prelude::{Cartesian2d, Color as _, DrawingArea, IntoDrawingArea as _, IntoFont as _, SVGBackend},
    style::{
        FontTransform, RGBAColor, RGBColor, ShapeStyle, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use crate::palette::{Colour, INK, Mark, PAPER, name_of};

/// Why a drawing failed.
pub(super) type DrawError = DrawingAreaErrorKind<std::io::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Context<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Size of text in drawing units.
pub(super) const TEXT: u32 = 25;
/// The drawing library divides sizes of text by this.
const TEXT_SCALE: f64 = 1.24;

/// What a chart is built from.
pub(super) struct Axes<'f> {
    pub size: (u32, u32),
    /// What the figure shows, for those who can't see it.
    pub label: String,
    pub x: Range<f64>,
    pub y: Range<f64>,
    pub x_title: &'f str,
    pub y_title: &'f str,
    pub x_format: &'f dyn Fn(f64) -> String,
    pub y_format: &'f dyn Fn(f64) -> String,
    /// Numbers on each axis, about.
    pub ticks: (usize, usize),
    /// Room to the left of the axis and below it.
    pub room: (u32, u32),
    /// Room to the right, for labels of lines.
    pub right: u32,
}

/// A chart that is being drawn.
pub(super) struct Plot<'a, 'r> {
    area: &'r Area<'a>,
    context: &'r Context<'a>,
}

/// Draws a chart as SVG.
pub(super) fn chart(
    axes: &Axes<'_>,
    draw: impl FnOnce(&Plot<'_, '_>) -> Result<(), DrawError>,
) -> Result<String, DrawError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, axes.size).into_drawing_area();
        let mut builder = ChartBuilder::on(&area);
        builder.margin_top(16).margin_right(axes.right).margin_left(4).margin_bottom(4);
        builder.y_label_area_size(axes.room.0).x_label_area_size(axes.room.1);
        let mut context = builder.build_cartesian_2d(axes.x.clone(), axes.y.clone())?;
        context
            .configure_mesh()
            .light_line_style(rgb(INK).mix(0.0))
            .bold_line_style(rgb(INK).mix(0.13))
            .axis_style(rgb(INK).mix(0.45))
            .label_style(style(TEXT, rgb(INK).mix(0.8)))
            .axis_desc_style(style(TEXT, rgb(INK).mix(0.95)))
            .x_labels(axes.ticks.0)
            .y_labels(axes.ticks.1)
            .x_label_formatter(&|value| (axes.x_format)(*value))
            .y_label_formatter(&|value| (axes.y_format)(*value))
            .x_desc(axes.x_title)
            .y_desc(axes.y_title)
            .draw()?;
        draw(&Plot { area: &area, context: &context })?;
        area.present()?;
    }
    Ok(themed(&text, axes.size, &axes.label))
}

impl Plot<'_, '_> {
    /// Where a point lies in the drawing.
    pub fn pixel(&self, at: (f64, f64)) -> (i32, i32) {
        self.context.backend_coord(&at)
    }

    /// Left, top, right and bottom of the plotted range.
    pub fn bounds(&self) -> [i32; 4] {
        let (xs, ys) = self.context.plotting_area().get_pixel_range();
        [xs.start, ys.start, xs.end, ys.end]
    }

    pub fn line(&self, points: &[(f64, f64)], colour: Colour, width: u32) -> Result<(), DrawError> {
        let pixels: Vec<(i32, i32)> = points.iter().map(|point| self.pixel(*point)).collect();
        self.area.draw(&PathElement::new(pixels, stroke(rgb(colour).mix(1.0), width)))
    }

    pub fn dashed(&self, points: &[(f64, f64)], colour: Colour, width: u32) -> Result<(), DrawError> {
        let pixels: Vec<(i32, i32)> = points.iter().map(|point| self.pixel(*point)).collect();
        self.area.draw(&DashedPathElement::new(pixels, 10, 8, stroke(rgb(colour).mix(0.9), width)))
    }

    /// A filled outline, mostly see-through.
    pub fn band(&self, corners: &[(f64, f64)], colour: Colour, opacity: f64) -> Result<(), DrawError> {
        let pixels: Vec<(i32, i32)> = corners.iter().map(|point| self.pixel(*point)).collect();
        self.area.draw(&Polygon::new(pixels, rgb(colour).mix(opacity).filled()))
    }

    /// A filled box between two corners.
    pub fn bar(&self, from: (f64, f64), to: (f64, f64), colour: Colour) -> Result<(), DrawError> {
        self.area.draw(&Rectangle::new([self.pixel(from), self.pixel(to)], rgb(colour).mix(0.85).filled()))
    }

    /// A mark of about `radius` units around a point.
    pub fn mark(&self, at: (f64, f64), mark: Mark, colour: Colour, radius: f64) -> Result<(), DrawError> {
        let (x, y) = self.pixel(at);
        let corner =
            |(dx, dy): (f64, f64)| (x + (dx * radius).round() as i32, y + (dy * radius).round() as i32);
        let corners: Vec<(i32, i32)> = mark.corners().into_iter().map(corner).collect();
        self.area.draw(&Polygon::new(corners, rgb(colour).mix(1.0).filled()))
    }

    /// A line between two points with a cap on either end.
    pub fn error_bar(&self, from: (f64, f64), to: (f64, f64), colour: Colour) -> Result<(), DrawError> {
        const CAP: i32 = 7;
        let (a, b) = (self.pixel(from), self.pixel(to));
        let (dx, dy) = if a.1 == b.1 { (0, CAP) } else { (CAP, 0) };
        let style = stroke(rgb(colour).mix(0.75), 3);
        self.area.draw(&PathElement::new(vec![a, b], style))?;
        for end in [a, b] {
            self.area
                .draw(&PathElement::new(vec![(end.0 - dx, end.1 - dy), (end.0 + dx, end.1 + dy)], style))?;
        }
        Ok(())
    }

    /// Text at a place in drawing units; `h` says which end of it lies there.
    pub fn text(&self, text: &str, at: (i32, i32), h: HPos, colour: Colour) -> Result<(), DrawError> {
        let style = style(TEXT, rgb(colour).mix(1.0)).pos(Pos::new(h, VPos::Center));
        self.area.draw(&Text::new(text.to_owned(), at, style))
    }

    /// Text that reads upwards, ending at a place in drawing units.
    pub fn upward_text(&self, text: &str, at: (i32, i32)) -> Result<(), DrawError> {
        let font =
            ("sans-serif", f64::from(TEXT) * TEXT_SCALE).into_font().transform(FontTransform::Rotate270);
        let mut style = TextStyle::from(font).pos(Pos::new(HPos::Right, VPos::Bottom));
        style.color = rgb(INK).mix(0.9).to_backend_color();
        self.area.draw(&Text::new(text.to_owned(), at, style))
    }
}

/// About how wide a text is, in drawing units.
pub(super) fn text_width(text: &str) -> i32 {
    (text.chars().count() as f64 * f64::from(TEXT) * 0.56).ceil() as i32
}

/// The range of values with some room on either side.
pub(super) fn range_of(values: impl IntoIterator<Item = f64>) -> Option<Range<f64>> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.into_iter().filter(|value| value.is_finite()) {
        low = low.min(value);
        high = high.max(value);
    }
    if low > high {
        return None;
    }
    let room = if high > low { (high - low) * 0.07 } else { (high.abs() * 0.05).max(1e-6) };
    Some(low - room..high + room)
}

/// Writes numbers of an axis with the digits that its range needs.
pub(super) fn digits_for(range: &Range<f64>) -> usize {
    let step = (range.end - range.start) / 6.0;
    if step > 0.0 { (-step.log10()).ceil().clamp(0.0, 6.0) as usize } else { 2 }
}

fn rgb(colour: Colour) -> RGBColor {
    RGBColor(colour.0, colour.1, colour.2)
}

fn stroke(colour: RGBAColor, width: u32) -> ShapeStyle {
    colour.stroke_width(width)
}

fn style(size: u32, colour: RGBAColor) -> TextStyle<'static> {
    let mut style = TextStyle::from(("sans-serif", f64::from(size) * TEXT_SCALE).into_font());
    style.color = colour.to_backend_color();
    style
}

/// Takes the fixed size and the namespace off, adds the description, and gives ink and paper the page's
/// colours.
fn themed(svg: &str, size: (u32, u32), label: &str) -> String {
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    let mut body = body.to_owned();
    for colour in [INK, PAPER] {
        let drawn = format!("=\"#{:02X}{:02X}{:02X}\"", colour.0, colour.1, colour.2);
        body = body.replace(&drawn, &format!("=\"{}\"", name_of(colour)));
    }
    // Text of the library stands on lines of its own; SVG would show the line ends as blanks.
    let body = body.replace(">\n", ">").replace("\n<", "<");
    format!("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">{body}", size.0, size.1, escape(label))
}

/// For text and attributes of SVG.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // What HTML doesn't allow at all.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}
