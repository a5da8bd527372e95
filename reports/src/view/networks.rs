//! Every network that was trained: how good, how fast, how large.

use lathe_latency_db::Source;
use lathe_search::Origin;
use lathe_spaces::Micros;
use serde::Serialize;

use super::Section;
use crate::{
    history::{CandidateHistory, History},
    quantity::{Measure, Quantity, bytes, count, latency},
};

/// All candidates, in the order of the record.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Networks {
    pub rows: Vec<NetworkRow>,
    /// Raw target in microseconds, for figures.
    #[serde(skip)]
    pub target_micros: Option<f64>,
    /// Target in words.
    pub target: Option<String>,
    /// Names on the Pareto front, fastest first.
    pub front: Vec<String>,
    /// Test images, if it is the same number for all.
    pub test_images: Option<usize>,
    /// What the record doesn't hold yet.
    pub pending: Option<String>,
}

/// One candidate.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NetworkRow {
    pub name: String,
    #[serde(serialize_with = "origin_word")]
    pub origin: Origin,
    pub genotype: String,
    pub accuracy: Option<Quantity>,
    pub latency: Option<Quantity>,
    /// Samples, and how many of them are outliers.
    pub samples: Option<String>,
    pub predicted: Option<Quantity>,
    /// How the prediction was come by.
    pub source: Option<&'static str>,
    /// Measured over predicted.
    pub ratio: Option<Quantity>,
    /// Whether the measurement lies in the prediction's interval.
    pub inside: Option<bool>,
    /// By what it was chosen before any training.
    pub preselected: Option<String>,
    /// What is suspicious about its blocks.
    pub suspicions: Vec<String>,
    pub parameters: String,
    pub macs: String,
    pub memory: String,
    pub verdict: Verdict,
    /// Largest difference of the engine's output from libtorch's.
    pub output_error: Option<String>,
    /// Identifier of the measurement in the database.
    pub measurement: Option<String>,
}

/// Whether a network meets the target by measurement, with the measurement's noise in mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// The whole interval lies at or below the target.
    Meets,
    /// The median does, the interval reaches above.
    MeetsWithinNoise,
    /// The median does not, the interval reaches below.
    MissesWithinNoise,
    /// The whole interval lies above.
    Misses,
    /// There is no target.
    NoTarget,
    /// Not measured yet.
    Unknown,
}

impl Verdict {
    fn of(latency: Option<&Quantity>, target: Option<Micros>) -> Self {
        match (latency, target) {
            (None, _) => Self::Unknown,
            (_, None) => Self::NoTarget,
            (Some(latency), Some(target)) if latency.value <= target.0 => {
                if latency.range[1] <= target.0 {
                    Self::Meets
                } else {
                    Self::MeetsWithinNoise
                }
            }
            (Some(latency), Some(target)) => {
                if latency.range[0] <= target.0 {
                    Self::MissesWithinNoise
                } else {
                    Self::Misses
                }
            }
        }
    }

    /// Whether the median is fast enough.
    pub fn meets(self) -> bool {
        matches!(self, Self::Meets | Self::MeetsWithinNoise | Self::NoTarget)
    }
}

pub(super) fn networks(history: &History) -> Section<Networks> {
    if history.candidates.is_empty() {
        return Section::Missing(
            "No network has been derived yet, so there is none to train and compare.".into(),
        );
    }
    let target = history.target.as_ref().and_then(|facts| facts.target);
    let rows: Vec<NetworkRow> =
        history.candidates.iter().map(|candidate| row(candidate, target, history.measure)).collect();
    let images: Vec<usize> = history
        .candidates
        .iter()
        .filter_map(|candidate| candidate.trained)
        .map(|(_, images)| images)
        .collect();
    let all = rows.len();
    let trained = rows.iter().filter(|row| row.accuracy.is_some()).count();
    let measured = rows.iter().filter(|row| row.latency.is_some()).count();
    let pending = (trained < all || measured < all).then(|| {
        format!("So far {trained} of {all} networks are trained and {measured} of {all} are measured.")
    });
    Section::Ready(Networks {
        front: front(&rows),
        test_images: images.first().copied().filter(|first| images.iter().all(|other| other == first)),
        target_micros: target.map(|target| target.0),
        target: target.map(latency),
        pending,
        rows,
    })
}

fn row(candidate: &CandidateHistory, target: Option<Micros>, measure: Measure) -> NetworkRow {
    let verified = candidate.verified.as_ref();
    let measured = verified.map(|verified| Quantity::measured(&verified.latency));
    let predicted = candidate.predicted.as_ref().map(Quantity::predicted);
    let both = measured.as_ref().zip(predicted.as_ref());
    NetworkRow {
        name: candidate.name.clone(),
        origin: candidate.origin,
        genotype: candidate.genotype.clone(),
        accuracy: candidate.trained.map(|(value, images)| measure.of(value, images)),
        samples: verified.map(|verified| {
            let summary = &verified.latency;
            let outliers =
                if summary.outliers == 1 { "1 outlier" } else { &format!("{} outliers", summary.outliers) };
            format!("{} samples, {outliers}", summary.count)
        }),
        source: candidate.predicted.map(|prediction| match prediction.source {
            Source::Measured => "measured itself",
            Source::Interpolated => "interpolated",
            Source::Extrapolated => "extrapolated",
        }),
        ratio: both.map(|(measured, predicted)| Quantity::ratio(measured, predicted)),
        inside: both.map(|(measured, predicted)| {
            predicted.range[0] <= measured.value && measured.value <= predicted.range[1]
        }),
        preselected: candidate
            .preselected
            .as_ref()
            .map(|(proxy, of)| format!("best of {of} untrained ones by {proxy}")),
        suspicions: candidate.signs.iter().filter_map(lathe_search::BlockSigns::suspicion).collect(),
        parameters: count(candidate.parameters),
        macs: count(candidate.macs),
        memory: bytes(candidate.peak_activation_bytes),
        verdict: Verdict::of(measured.as_ref(), target),
        output_error: verified.map(|verified| format!("{:.1e}", verified.max_output_error)),
        measurement: verified.map(|verified| verified.measurement.clone()),
        latency: measured,
        predicted,
    }
}

/// Names of the networks that no other one beats in both accuracy and latency, fastest first.
fn front(rows: &[NetworkRow]) -> Vec<String> {
    let mut points: Vec<(f64, f64, &str)> = rows
        .iter()
        .filter_map(|row| {
            Some((row.latency.as_ref()?.value, row.accuracy.as_ref()?.value, row.name.as_str()))
        })
        .filter(|(latency, accuracy, _)| latency.is_finite() && accuracy.is_finite())
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut best = f64::NEG_INFINITY;
    points.retain(|(_, accuracy, _)| {
        let better = *accuracy > best;
        best = best.max(*accuracy);
        better
    });
    points.into_iter().map(|(_, _, name)| name.to_owned()).collect()
}

/// How an origin is spoken of.
pub(crate) fn word_of(origin: Origin) -> &'static str {
    match origin {
        Origin::Searched => "searched",
        Origin::Random => "random",
        Origin::Published => "published",
        Origin::Evolved => "evolved",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn origin_word<S: serde::Serializer>(origin: &Origin, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(word_of(*origin))
}
