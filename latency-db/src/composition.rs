//! How the latencies of parts make up the latency of a network.

use std::collections::BTreeMap;

use crate::{
    nnls::{Matrix, nnls},
    parts::{Features, Part},
};

/// Nested models; which one the networks can support is chosen by cross-validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// One scale for all parts, and a constant.
    OneScale,
    /// A scale for operators, one for the fixed part, a cost per operator, and a constant.
    OperatorsAndFixed,
    /// A scale for each choice and for the fixed part, a cost per operator, and a constant.
    PerChoice,
}

/// A model and the strength of the pull toward "a network is the sum of its parts".
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Setting {
    pub(crate) model: Model,
    pub(crate) strength: f64,
}

impl Setting {
    /// What cross-validation chooses among, from the stiffest to the most flexible.
    pub(crate) fn candidates() -> impl Iterator<Item = Self> {
        let models = [Model::OneScale, Model::OperatorsAndFixed, Model::PerChoice];
        models
            .into_iter()
            .flat_map(|model| [1.0, 1e-1, 1e-2, 1e-3, 1e-4].map(|strength| Self { model, strength }))
    }

    pub(crate) fn name(self) -> String {
        let model = match self.model {
            Model::OneScale => "one scale",
            Model::OperatorsAndFixed => "scales for operators and the fixed part",
            Model::PerChoice => "a scale per choice",
        };
        format!("sum of measured parts, {model}, ridge {}", self.strength)
    }
}

/// A fitted composition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Coefficients {
    /// Scale of each choice.
    pub(crate) choices: BTreeMap<String, f64>,
    /// Scale of the fixed part.
    pub(crate) fixed: f64,
    /// Microseconds per operator.
    pub(crate) overhead: f64,
    /// Microseconds per network.
    pub(crate) constant: f64,
}

impl Coefficients {
    /// Cost of a part of a choice in microseconds.
    pub(crate) fn cost(&self, choice: &str, part: Part) -> f64 {
        self.choices.get(choice).copied().unwrap_or(1.0) * part.sum + self.overhead * part.count
    }

    /// Cost of what every network has in microseconds.
    pub(crate) fn fixed_cost(&self, fixed: f64) -> f64 {
        self.fixed * fixed + self.constant
    }

    /// Latency of a network in microseconds.
    pub(crate) fn predict(&self, features: &Features) -> f64 {
        let parts: f64 = features.choices.iter().map(|(choice, part)| self.cost(choice, *part)).sum();
        self.fixed_cost(features.fixed) + parts
    }

    /// Named for people: scales have no unit, the last two are microseconds.
    pub(crate) fn named(&self) -> Vec<(String, f64)> {
        let mut named: Vec<(String, f64)> =
            self.choices.iter().map(|(choice, value)| (choice.clone(), *value)).collect();
        named.push(("fixed".to_owned(), self.fixed));
        named.push(("per operator (µs)".to_owned(), self.overhead));
        named.push(("per network (µs)".to_owned(), self.constant));
        named
    }
}

impl Model {
    /// The columns of a network, all in the unit that makes coefficients 1 or microseconds.
    fn columns(self, features: &Features) -> Vec<f64> {
        let sum: f64 = features.choices.values().map(|part| part.sum).sum();
        let count: f64 = features.choices.values().map(|part| part.count).sum();
        match self {
            Self::OneScale => vec![sum + features.fixed, 1.0],
            Self::OperatorsAndFixed => vec![sum, features.fixed, count, 1.0],
            Self::PerChoice => {
                let mut columns: Vec<f64> = features.choices.values().map(|part| part.sum).collect();
                columns.extend([features.fixed, count, 1.0]);
                columns
            }
        }
    }

    /// What the coefficients are pulled to: 1 for sums of parts, 0 for counts and constants.
    fn prior(self, columns: usize) -> Vec<f64> {
        let free = if self == Self::OneScale { 1 } else { 2 };
        (0..columns).map(|column| if column + free < columns { 1.0 } else { 0.0 }).collect()
    }

    fn coefficients(self, solution: &[f64], names: &BTreeMap<String, Part>) -> Option<Coefficients> {
        let same = |value: f64| names.keys().map(|name| (name.clone(), value)).collect();
        Some(match (self, solution) {
            (Self::OneScale, &[scale, constant]) => {
                Coefficients { choices: same(scale), fixed: scale, overhead: 0.0, constant }
            }
            (Self::OperatorsAndFixed, &[operators, fixed, overhead, constant]) => {
                Coefficients { choices: same(operators), fixed, overhead, constant }
            }
            (Self::PerChoice, [scales @ .., fixed, overhead, constant]) => Coefficients {
                choices: names.keys().cloned().zip(scales.iter().copied()).collect(),
                fixed: *fixed,
                overhead: *overhead,
                constant: *constant,
            },
            _ => return None,
        })
    }
}

/// Fits a setting to networks of (features, measured microseconds): least squares of the relative
/// error, no negative coefficient, and a ridge toward the prior. The ridge acts on columns scaled to
/// unit mean square, so its strength means the same for a scale and for a constant.
pub(crate) fn compose(setting: Setting, networks: &[(&Features, f64)]) -> Option<Coefficients> {
    let (first, _) = networks.first()?;
    let count = networks.len() as f64;
    let rows: Vec<Vec<f64>> = networks
        .iter()
        .map(|(features, measured)| {
            setting.model.columns(features).into_iter().map(|value| value / measured).collect()
        })
        .collect();
    let width = rows[0].len();
    let scales: Vec<f64> = (0..width)
        .map(|column| {
            let mean_square = rows.iter().map(|row| row[column] * row[column]).sum::<f64>() / count;
            // A choice that no network has keeps its prior.
            if mean_square > 0.0 { mean_square.sqrt() } else { 1.0 }
        })
        .collect();
    let prior = setting.model.prior(width);
    let ridge = setting.strength * count;
    let mut gram: Matrix = vec![vec![0.0; width]; width];
    let mut rhs: Vec<f64> = (0..width).map(|column| ridge * scales[column] * prior[column]).collect();
    for (column, row) in gram.iter_mut().enumerate() {
        row[column] = ridge;
    }
    for row in &rows {
        let scaled: Vec<f64> = row.iter().zip(&scales).map(|(value, scale)| value / scale).collect();
        for i in 0..width {
            rhs[i] += scaled[i];
            for j in 0..width {
                gram[i][j] += scaled[i] * scaled[j];
            }
        }
    }
    let solution: Vec<f64> =
        nnls(&gram, &rhs)?.iter().zip(&scales).map(|(value, scale)| value / scale).collect();
    setting.model.coefficients(&solution, &first.choices)
}
