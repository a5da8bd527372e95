//! Colours and marks: Okabe & Ito's colour-blind-safe set, and a shape for everything that has a
//! colour, so that no figure depends on colours alone.

use lathe_search::Origin;

/// Red, green, blue.
pub(crate) type Colour = (u8, u8, u8);

/// Stands for the text's own colour, which is dark on a light page and light on a dark one. Figures
/// are drawn with it and get `currentColor` in its place.
pub(crate) const INK: Colour = (1, 2, 3);
/// Stands for what lies behind the figure, likewise.
pub(crate) const PAPER: Colour = (1, 2, 4);
/// Okabe & Ito (2008).
pub(crate) const ORANGE: Colour = (0xE6, 0x9F, 0x00);
/// Okabe & Ito (2008).
pub(crate) const SKY: Colour = (0x56, 0xB4, 0xE9);
/// Okabe & Ito (2008).
pub(crate) const GREEN: Colour = (0x00, 0x9E, 0x73);
/// Okabe & Ito (2008).
pub(crate) const BLUE: Colour = (0x00, 0x72, 0xB2);
/// Okabe & Ito (2008).
pub(crate) const VERMILLION: Colour = (0xD5, 0x5E, 0x00);
/// Okabe & Ito (2008).
pub(crate) const PURPLE: Colour = (0xCC, 0x79, 0xA7);
/// For what matters least; legible on light and dark.
pub(crate) const GREY: Colour = (0x8A, 0x8A, 0x8A);

/// Shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Circle,
    Square,
    Diamond,
    Up,
    Down,
    Cross,
    Plus,
    Star,
    Bar,
}

/// Colour and shape of one thing in a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    pub colour: Colour,
    pub mark: Mark,
}

impl Mark {
    /// Corners within the unit circle, y downwards.
    pub fn corners(self) -> Vec<(f64, f64)> {
        let ring = |count: usize, turn: f64, radius: &dyn Fn(usize) -> f64| {
            let corner = |index: usize| {
                let angle = (index as f64 / count as f64 + turn) * std::f64::consts::TAU;
                (radius(index) * angle.cos(), radius(index) * angle.sin())
            };
            (0..count).map(corner).collect::<Vec<_>>()
        };
        // Arms of a plus, and the same turned by an eighth.
        let plus = [
            (-0.3, -1.0),
            (0.3, -1.0),
            (0.3, -0.3),
            (1.0, -0.3),
            (1.0, 0.3),
            (0.3, 0.3),
            (0.3, 1.0),
            (-0.3, 1.0),
            (-0.3, 0.3),
            (-1.0, 0.3),
            (-1.0, -0.3),
            (-0.3, -0.3),
        ];
        let half = std::f64::consts::FRAC_1_SQRT_2;
        match self {
            Self::Circle => ring(20, 0.0, &|_| 0.9),
            Self::Square => vec![(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
            Self::Diamond => vec![(0.0, -1.1), (1.1, 0.0), (0.0, 1.1), (-1.1, 0.0)],
            Self::Up => vec![(0.0, -1.1), (1.0, 0.75), (-1.0, 0.75)],
            Self::Down => vec![(0.0, 1.1), (1.0, -0.75), (-1.0, -0.75)],
            Self::Plus => plus.to_vec(),
            Self::Cross => plus.iter().map(|&(x, y)| ((x - y) * half, (x + y) * half)).collect(),
            Self::Star => ring(10, -0.25, &|index| if index % 2 == 0 { 1.35 } else { 0.55 }),
            Self::Bar => vec![(-1.0, -0.3), (1.0, -0.3), (1.0, 0.3), (-1.0, 0.3)],
        }
    }
}

/// Style of a candidate, by where it comes from.
pub(crate) fn origin_style(origin: Origin) -> Style {
    match origin {
        Origin::Searched => Style { colour: VERMILLION, mark: Mark::Star },
        Origin::Random => Style { colour: BLUE, mark: Mark::Circle },
        Origin::Published => Style { colour: GREEN, mark: Mark::Square },
        Origin::Evolved => Style { colour: PURPLE, mark: Mark::Diamond },
    }
}

/// Style of an operation. Names of the known spaces have their own; any other gets one by its letters.
pub(crate) fn operation_style(name: &str) -> Style {
    let all = [
        (GREY, Mark::Plus),
        (ORANGE, Mark::Up),
        (VERMILLION, Mark::Down),
        (INK, Mark::Cross),
        (BLUE, Mark::Circle),
        (SKY, Mark::Square),
        (GREEN, Mark::Diamond),
        (PURPLE, Mark::Star),
    ];
    let (colour, mark) = match name {
        "none" => all[0],
        "max_pool_3x3" => all[1],
        "avg_pool_3x3" => all[2],
        "skip_connect" | "skip" => all[3],
        "sep_conv_3x3" | "nor_conv_3x3" | "k3_e3" => all[4],
        "sep_conv_5x5" | "nor_conv_1x1" | "k3_e6" => all[5],
        "dil_conv_3x3" | "k5_e3" => all[6],
        "dil_conv_5x5" | "k5_e6" => all[7],
        "k3_e1" => (ORANGE, Mark::Up),
        "k3_e1_g2" => (ORANGE, Mark::Down),
        "k5_e1" => (VERMILLION, Mark::Up),
        "k5_e1_g2" => (VERMILLION, Mark::Down),
        "fixed" => (GREY, Mark::Bar),
        other => all[4 + other.bytes().map(usize::from).sum::<usize>() % 4],
    };
    Style { colour, mark }
}

/// Style of the n-th of several lines that have no meaning of their own.
pub(crate) fn series_style(index: usize) -> Style {
    let all = [
        (BLUE, Mark::Circle),
        (VERMILLION, Mark::Square),
        (GREEN, Mark::Diamond),
        (PURPLE, Mark::Up),
        (ORANGE, Mark::Down),
        (SKY, Mark::Star),
    ];
    let (colour, mark) = all[index % all.len()];
    Style { colour, mark }
}

/// How SVG and HTML name a colour.
pub(crate) fn name_of(colour: Colour) -> String {
    match colour {
        INK => "currentColor".into(),
        PAPER => "var(--card)".into(),
        (red, green, blue) => format!("#{red:02X}{green:02X}{blue:02X}"),
    }
}
