//! Numbers as they are shown: with a unit, and with no more digits than their noise leaves room for.

use serde::Serialize;

use lathe_latency_db::{Prediction, Summary};
use lathe_spaces::Micros;

use crate::interval::wilson;

/// Between a number and its unit, so that a line never breaks there.
const GAP: char = '\u{a0}';

/// What the record calls accuracy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Share of right answers, 0..1.
    #[default]
    Accuracy,
    /// Peak signal-to-noise ratio in decibels.
    Psnr,
    /// Cosine similarity with a teacher's outputs, at most 1.
    Similarity,
}

impl Measure {
    /// As the record names it.
    pub fn named(word: &str) -> Self {
        match word {
            "PSNR" => Self::Psnr,
            "similarity" => Self::Similarity,
            _ => Self::Accuracy,
        }
    }

    /// Name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Psnr => "PSNR",
            Self::Similarity => "similarity",
        }
    }

    /// Unit of an axis.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Accuracy => "%",
            Self::Psnr => "dB",
            Self::Similarity => "cosine",
        }
    }

    /// From the record's number to that unit.
    pub const fn factor(self) -> f64 {
        match self {
            Self::Accuracy => 100.0,
            Self::Psnr | Self::Similarity => 1.0,
        }
    }

    /// A value without an interval.
    pub fn text(self, value: f64) -> String {
        match self {
            Self::Accuracy => with_unit(&fixed(value * 100.0, 1), "%"),
            Self::Psnr => with_unit(&fixed(value, 2), "dB"),
            Self::Similarity => fixed(value, 4),
        }
    }

    /// A value over so many test images. How decibels vary over images is not in the record: they have no interval.
    pub fn of(self, value: f64, images: usize) -> Quantity {
        match self {
            Self::Accuracy => Quantity::accuracy(value, images),
            Self::Psnr | Self::Similarity => {
                Quantity { value, range: [value; 2], text: self.text(value), interval: None }
            }
        }
    }
}

/// A number with its interval, and the words for both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Quantity {
    /// Raw value, for figures: microseconds, or a share in 0..1.
    #[serde(skip)]
    pub value: f64,
    /// Raw interval; the value itself where there is none.
    #[serde(skip)]
    pub range: [f64; 2],
    /// Value with unit.
    pub text: String,
    /// Interval with unit.
    pub interval: Option<String>,
}

impl Quantity {
    /// Measured median with its 95 % interval.
    pub fn measured(summary: &Summary) -> Self {
        Self::latency(summary.median.0, [summary.low.0, summary.high.0])
    }

    /// Predicted mean with its 90 % interval.
    pub fn predicted(prediction: &Prediction) -> Self {
        Self::latency(prediction.mean.0, [prediction.low.0, prediction.high.0])
    }

    /// A latency in microseconds.
    fn latency(value: f64, range: [f64; 2]) -> Self {
        let (factor, unit) = latency_unit(value);
        let digits = digits_of((range[1] - range[0]) / 2.0 / factor);
        Self {
            value,
            range,
            text: with_unit(&fixed(value / factor, digits), unit),
            interval: is_interval(range)
                .then(|| with_unit(&span(range.map(|end| end / factor), digits), unit)),
        }
    }

    /// Test accuracy (0..1) over so many images, with the 95 % interval of their sampling.
    pub fn accuracy(share: f64, images: usize) -> Self {
        let range = wilson(share, images);
        let digits = range.map_or(1, |[low, high]| digits_of((high - low) / 2.0 * 100.0).min(2));
        Self {
            value: share,
            range: range.unwrap_or([share; 2]),
            text: with_unit(&fixed(share * 100.0, digits), "%"),
            interval: range.map(|range| with_unit(&span(range.map(|end| end * 100.0), digits), "%")),
        }
    }

    /// Measured over predicted, with the measurement's interval.
    pub fn ratio(measured: &Self, predicted: &Self) -> Self {
        let value = measured.value / predicted.value;
        let range = measured.range.map(|end| end / predicted.value);
        let digits = digits_of((range[1] - range[0]) / 2.0).clamp(2, 3);
        Self {
            value,
            range,
            text: fixed(value, digits),
            interval: is_interval(range).then(|| span(range, digits)),
        }
    }

    /// Whether the two intervals share a value.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.range[0] <= other.range[1] && other.range[0] <= self.range[1]
    }
}

/// A compiler's estimate is one number: that it varies by nothing says nothing about how far it is off.
fn is_interval(range: [f64; 2]) -> bool {
    range.iter().all(|end| end.is_finite()) && range[0] < range[1]
}

/// Digits behind the point such that a half-width keeps two significant ones.
fn digits_of(half_width: f64) -> usize {
    if half_width > 0.0 && half_width.is_finite() {
        (1.0 - half_width.log10().floor()).clamp(0.0, 4.0) as usize
    } else {
        3
    }
}

/// Divisor of microseconds and unit that suit a latency.
pub(crate) fn latency_unit(micros: f64) -> (f64, &'static str) {
    match micros.abs() {
        size if size < 1e3 => (1.0, "µs"),
        size if size < 1e6 => (1e3, "ms"),
        _ => (1e6, "s"),
    }
}

/// A latency that has no interval of its own, to three significant digits at least.
pub(crate) fn latency(time: Micros) -> String {
    let (factor, unit) = latency_unit(time.0);
    with_unit(&significant(time.0 / factor), unit)
}

/// A share (0..1) in percent.
pub(crate) fn percent(share: f64, digits: usize) -> String {
    with_unit(&fixed(share * 100.0, digits), "%")
}

/// A count: `3.63 M`, `412 k`, `87`.
pub(crate) fn count(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => with_unit(&significant(number as f64 / 1e3), "k"),
        1_000_000..1_000_000_000 => with_unit(&significant(number as f64 / 1e6), "M"),
        _ => with_unit(&significant(number as f64 / 1e9), "G"),
    }
}

/// Bytes in binary units.
pub(crate) fn bytes(number: u64) -> String {
    match number {
        0..1_024 => with_unit(&number.to_string(), "B"),
        1_024..1_048_576 => with_unit(&significant(number as f64 / 1024.0), "KiB"),
        1_048_576..1_073_741_824 => with_unit(&significant(number as f64 / 1_048_576.0), "MiB"),
        _ => with_unit(&significant(number as f64 / 1_073_741_824.0), "GiB"),
    }
}

/// Seconds: `0.18 s`, `80.7 s`, `12 min 05 s`, `3 h 02 min`.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".into();
    }
    let whole = seconds.round() as u64;
    match whole {
        0..100 => with_unit(&significant(seconds), "s"),
        100..3600 => format!("{}{GAP}min {:02}{GAP}s", whole / 60, whole % 60),
        _ => format!("{}{GAP}h {:02}{GAP}min", whole / 3600, whole % 3600 / 60),
    }
}

/// A point in time (RFC 3339, UTC) without fractions of a second; anything else as it is.
pub(crate) fn moment(at: &str) -> String {
    match at.strip_suffix('Z').and_then(|utc| utc.split_once('T')) {
        Some((day, time)) => {
            let seconds = time.split_once('.').map_or(time, |(seconds, _)| seconds);
            format!("{day} {seconds} UTC")
        }
        None => at.to_owned(),
    }
}

/// Three significant digits, and never fewer than the whole part has.
pub(crate) fn significant(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let size = value.abs();
    let digits = match size {
        s if s >= 99.95 => 0,
        s if s >= 9.995 => 1,
        s if s >= 0.9995 || s == 0.0 => 2,
        s => (2.0 - s.log10().floor()).clamp(2.0, 6.0) as usize,
    };
    fixed(value, if size == 0.0 { 0 } else { digits })
}

/// A fixed number of digits behind the point; a dash for what is no number.
pub(crate) fn fixed(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}").replace('-', "−") } else { "–".into() }
}

fn span(range: [f64; 2], digits: usize) -> String {
    format!("{} – {}", fixed(range[0], digits), fixed(range[1], digits))
}

fn with_unit(number: &str, unit: &str) -> String {
    if number == "–" { number.into() } else { format!("{number}{GAP}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(median: f64, low: f64, high: f64) -> String {
        let shown = Quantity::latency(median, [low, high]);
        format!("{} [{}]", shown.text, shown.interval.unwrap_or_default()).replace(GAP, " ")
    }

    #[test]
    fn the_noise_decides_the_digits() {
        assert_eq!(shown(1234.567, 1229.1, 1240.2), "1.2346 ms [1.2291 – 1.2402 ms]");
        assert_eq!(shown(1234.567, 1134.1, 1340.2), "1.23 ms [1.13 – 1.34 ms]");
        assert_eq!(shown(56_234.0, 50_000.0, 62_000.0), "56.2 ms [50.0 – 62.0 ms]");
        assert_eq!(shown(12.345, 12.1, 12.6), "12.35 µs [12.10 – 12.60 µs]");
        assert_eq!(shown(500.0, 500.0, 500.0), "500.000 µs []", "no spread is no interval");
        assert_eq!(shown(f64::NAN, f64::NAN, f64::NAN), "– []");
    }

    #[test]
    fn accuracy_has_the_interval_of_its_images() {
        let few = Quantity::accuracy(0.5, 100);
        assert_eq!((few.text.as_str(), few.interval.as_deref()), ("50.0\u{a0}%", Some("40.4 – 59.6\u{a0}%")));
        let many = Quantity::accuracy(0.9, 100_000);
        assert_eq!(many.text, "90.00\u{a0}%");
        assert_eq!(Quantity::accuracy(0.9, 0).interval, None);
    }

    #[test]
    fn units_by_size() {
        let plain = |text: String| text.replace(GAP, " ");
        assert_eq!(plain(latency(Micros(656.225))), "656 µs");
        assert_eq!(plain(latency(Micros(1656.0))), "1.66 ms");
        assert_eq!(plain(count(3_634_678)), "3.63 M");
        assert_eq!(plain(count(999)), "999");
        assert_eq!(plain(bytes(1_572_864)), "1.50 MiB");
        assert_eq!(plain(duration(80.73)), "80.7 s");
        assert_eq!(plain(duration(725.2)), "12 min 05 s");
        assert_eq!(plain(duration(10_920.0)), "3 h 02 min");
        assert_eq!(plain(duration(f64::NAN)), "–");
        assert_eq!(plain(percent(-0.125, 1)), "−12.5 %");
        assert_eq!(significant(0.000_123_4), "0.000123");
        assert_eq!(moment("2026-11-23T02:54:45.745965569Z"), "2026-11-23 02:54:45 UTC");
        assert_eq!(moment("yesterday"), "yesterday");
    }
}
