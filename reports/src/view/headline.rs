//! What came out, in one sentence and three numbers.

use lathe_search::{Origin, StopReason};
use serde::Serialize;

use super::{Cells, NetworkRow, Networks, Provenances, networks::Verdict};
use crate::{
    history::History,
    quantity::{Measure, Quantity, latency, moment},
};

/// The first thing that a reader sees.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Headline {
    /// What came out, in one sentence.
    pub sentence: String,
    /// `good`, `warning`, `bad` or `open`.
    pub tone: &'static str,
    /// The network that the sentence is about.
    pub network: Option<HeadlineNetwork>,
    /// Target in words.
    pub target: Option<String>,
    /// Alias of the device.
    pub device: Option<String>,
    /// How the run ended, in words.
    pub end: String,
    /// When it ended.
    pub ended: Option<String>,
    /// How the other networks compare.
    pub remarks: Vec<String>,
}

/// The network of the headline.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HeadlineNetwork {
    pub name: String,
    pub origin: &'static str,
    pub accuracy: Option<Quantity>,
    pub latency: Option<Quantity>,
    /// Latency against the target, in words.
    pub margin: Option<String>,
    pub parameters: String,
    pub macs: String,
    pub genotype: String,
}

impl Headline {
    /// Says what speaks against the chosen network itself: a degenerate cell, a wrong prediction.
    pub(super) fn doubt(&mut self, networks: Option<&Networks>, cells: Option<&Cells>) {
        let Some(name) = self.network_name() else { return };
        let Some(row) = networks.and_then(|networks| networks.rows.iter().find(|row| row.name == name))
        else {
            return;
        };
        let mut doubts = Vec::new();
        if row.inside == Some(false)
            && let Some(predicted) = &row.predicted
        {
            let interval = predicted.interval.as_deref().unwrap_or("–");
            doubts.push(format!(
                "Its latency was predicted as {} (90\u{a0}%: {interval}), which the measurement lies outside of.",
                predicted.text
            ));
        }
        if row.origin == Origin::Searched {
            let blocks = cells.map_or(&[][..], |cells| &cells.blocks);
            doubts.extend(
                blocks.iter().filter_map(|block| block.doubt.as_ref()).map(|doubt| format!("{doubt}.")),
            );
        }
        self.remarks.extend(doubts);
    }

    /// Name of the network that the headline is about.
    pub fn network_name(&self) -> Option<&str> {
        self.network.as_ref().map(|network| network.name.as_str())
    }
}

pub(super) fn headline(history: &History, networks: Option<&Networks>, provenance: &Provenances) -> Headline {
    let rows = networks.map_or(&[][..], |networks| &networks.rows);
    let complete: Vec<&NetworkRow> =
        rows.iter().filter(|row| row.accuracy.is_some() && row.latency.is_some()).collect();
    let searched = rows.iter().find(|row| row.origin == Origin::Searched);
    let chosen = chosen(&complete).or(searched);
    let target = history.target.as_ref().and_then(|facts| facts.target);
    let others = complete.len() > 1;
    let (sentence, tone) = sentence(history, chosen, searched, others, provenance);
    Headline {
        sentence,
        tone,
        network: chosen.map(|row| HeadlineNetwork {
            name: row.name.clone(),
            origin: super::networks::word_of(row.origin),
            accuracy: row.accuracy.clone(),
            latency: row.latency.clone(),
            margin: row.latency.as_ref().zip(target).map(|(measured, target)| margin(measured, target.0)),
            parameters: row.parameters.clone(),
            macs: row.macs.clone(),
            genotype: row.genotype.clone(),
        }),
        target: target.map(latency),
        device: history.device.as_ref().map(|facts| facts.device.name.clone()),
        end: end(history, provenance),
        ended: history.stop.as_ref().map(|(at, _)| moment(at)),
        remarks: chosen.map_or_else(Vec::new, |chosen| remarks(chosen, &complete, history.measure)),
    }
}

/// The most accurate searched network that meets the target by its median, else the most accurate
/// one of any origin that does, else the searched one.
fn chosen<'a>(complete: &[&'a NetworkRow]) -> Option<&'a NetworkRow> {
    let best = |wanted: &dyn Fn(&NetworkRow) -> bool| {
        let fitting = complete.iter().copied().filter(|row| wanted(row));
        fitting.max_by(|a, b| accuracy(a).total_cmp(&accuracy(b)))
    };
    best(&|row| row.origin == Origin::Searched && row.verdict.meets())
        .or_else(|| best(&|row| row.verdict.meets()))
        .or_else(|| best(&|row| row.origin == Origin::Searched))
}

fn accuracy(row: &NetworkRow) -> f64 {
    row.accuracy.as_ref().map_or(f64::NEG_INFINITY, |accuracy| accuracy.value)
}

fn sentence(
    history: &History,
    chosen: Option<&NetworkRow>,
    searched: Option<&NetworkRow>,
    others: bool,
    provenance: &Provenances,
) -> (String, &'static str) {
    if let Some((_, StopReason::Infeasible { target, fastest, closest })) = &history.stop {
        let (target, fastest) = (latency(*target), latency(*fastest));
        let closest = closest.as_ref().map(|closest| format!(" That is {closest}.")).unwrap_or_default();
        return (
            format!(
                "No network of this space is fast enough for {target}: the fastest is predicted to need {fastest}.{closest}"
            ),
            "bad",
        );
    }
    if let Some((_, StopReason::LimitsInfeasible { what, closest, values })) = &history.stop {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        let values = values.join("; ");
        return (format!("Refused: {what}. The closest network, {closest}, has {values}."), "bad");
    }
    if let Some((_, StopReason::LimitsUndecided { what, closest, values })) = &history.stop {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        let values = values.join("; ");
        return (format!("Undecided: {what}. The closest network, {closest}, has {values}."), "bad");
    }
    if let Some((_, StopReason::LimitAboveReach { limit, quantity, at_most, reachable })) = &history.stop {
        let [least, most] = reachable.map(|value| quantity.show(value));
        let asked = quantity.show(*at_most);
        return (
            format!(
                "Refused: no network of this space comes up to the limit of {limit}, {asked}. Upper bounds are \
                 {least} to {most}."
            ),
            "bad",
        );
    }
    if let Some((_, StopReason::OtherTargetMissed { name, target, measured, quantity })) = &history.stop {
        let [target, measured] = [target, measured].map(|value| quantity.show(*value));
        return (
            format!("The searched network misses the target of its {name}: {measured}, asked for {target}."),
            "bad",
        );
    }
    let Some(chosen) = chosen else {
        return ("No network has been derived yet.".into(), "open");
    };
    if chosen.accuracy.is_none() || chosen.latency.is_none() {
        let both = chosen.accuracy.is_none() && chosen.latency.is_none();
        let lacks = match (both, chosen.accuracy.is_none()) {
            (true, _) => "trained and measured",
            (_, true) => "trained",
            _ => provenance.word,
        };
        return (format!("The searched network, {}, is not {lacks} yet.", chosen.name), "open");
    }
    let by = match provenance.word {
        "measured" => "by measurement",
        "emulated" => "under an emulator",
        _ => "by a compiler's estimate",
    };
    if chosen.origin != Origin::Searched && searched.is_some_and(|row| row.latency.is_some()) {
        let other = super::networks::word_of(chosen.origin);
        return (
            format!(
                "The searched network misses the target {by}. The best network that meets it is {}, a {other} one.",
                chosen.name
            ),
            "bad",
        );
    }
    let rest = if others { ", and so does every other network" } else { "" };
    match chosen.verdict {
        Verdict::NoTarget => ("The searched network. This run had no latency target.".into(), "good"),
        Verdict::Meets => (format!("The searched network meets the target {by}."), "good"),
        Verdict::MeetsWithinNoise => (
            format!(
                "The searched network meets the target {by}, but only just: the interval reaches above it."
            ),
            "warning",
        ),
        Verdict::MissesWithinNoise => {
            (format!("The searched network misses the target {by}, though within the noise{rest}."), "bad")
        }
        _ => (format!("The searched network misses the target {by}{rest}."), "bad"),
    }
}

fn margin(measured: &Quantity, target: f64) -> String {
    let below = (1.0 - measured.value / target) * 100.0;
    let digits = usize::from(below.abs() < 10.0);
    let text = crate::quantity::fixed(below.abs(), digits);
    if below >= 0.0 {
        format!("{text}\u{a0}% below the target")
    } else {
        format!("{text}\u{a0}% above the target")
    }
}

fn end(history: &History, provenance: &Provenances) -> String {
    match &history.stop {
        None if history.started.is_none() => "The run has not begun.".into(),
        None => "The run has not ended: it is still going, or it was cut off. “lathe run CONFIG --resume” goes on.".into(),
        Some((_, StopReason::Completed)) => "Completed: every stage was done.".into(),
        Some((_, StopReason::TargetMissed { target, measured })) => format!(
            "Completed, target missed: the searched network was {} at {}, the target is {}.",
            provenance.word,
            latency(*measured),
            latency(*target)
        ),
        Some((_, StopReason::Infeasible { .. })) => {
            "Stopped: no network of the space can meet the target. Raise it, or search a smaller space.".into()
        }
        Some((_, StopReason::LimitsInfeasible { .. })) => {
            "Stopped: no network of the space keeps all limits. Raise them, or search a smaller space.".into()
        }
        Some((_, StopReason::LimitsUndecided { .. })) => {
            "Stopped: no network was found that keeps all limits, and not all could be looked at. Loosen the limits a little, or ask for fewer of them.".into()
        }
        Some((_, StopReason::LimitAboveReach { .. })) => {
            "Stopped: a target that pulls from both sides lies above all networks of the space. Lower it, or take it as an upper bound alone.".into()
        }
        Some((_, StopReason::OtherTargetMissed { name, .. })) => {
            format!("Completed, but the target of its {name} was missed.")
        }
        Some((_, StopReason::Interrupted)) => "Interrupted by the user; “lathe run CONFIG --resume” goes on.".into(),
        Some((_, StopReason::DeviceFailed { message })) => {
            format!("Stopped: the device gave no usable result ({message}). “lathe run CONFIG --resume” tries again.")
        }
        Some((_, other)) => format!("Ended: {other:?}."),
    }
}

/// How the other complete networks compare with the chosen one, the bad news first.
fn remarks(chosen: &NetworkRow, complete: &[&NetworkRow], measure: Measure) -> Vec<String> {
    let Some(own) = &chosen.accuracy else { return Vec::new() };
    let [better, first] = match measure {
        Measure::Accuracy => ["more accurate", "More accurate"],
        _ => ["better", "Better"],
    };
    let certainty = |other: &Quantity, overlap: &'static str, apart: &'static str| match measure {
        Measure::Accuracy if own.overlaps(other) => overlap,
        Measure::Accuracy => apart,
        _ => "means without intervals, which another seed may turn around",
    };
    let mut remarks = Vec::new();
    let mut fitting: Vec<(&NetworkRow, &Quantity)> = complete
        .iter()
        .filter(|row| row.name != chosen.name && row.verdict.meets())
        .filter_map(|row| Some((*row, row.accuracy.as_ref()?)))
        .collect();
    fitting.sort_by(|a, b| b.1.value.total_cmp(&a.1.value));
    for (row, other) in &fitting {
        let and = if row.verdict == Verdict::NoTarget { "is" } else { "meets the target too and is" };
        let kind = super::networks::word_of(row.origin);
        let certainty = certainty(
            other,
            "their intervals overlap, so these test images can't tell them apart",
            "their intervals don't overlap",
        );
        if other.value > own.value {
            remarks.push(format!(
                "{} ({kind}) {and} {better}: {} against {}; {certainty}.",
                row.name, other.text, own.text
            ));
        }
    }
    if remarks.is_empty() && chosen.verdict.meets() {
        if let Some((second, other)) = fitting.first() {
            let relation = if other.value < own.value { "next is" } else { "level with" };
            let certainty = certainty(
                other,
                "the intervals overlap, so these test images can't tell the two apart",
                "the intervals don't overlap",
            );
            let scope = if chosen.verdict == Verdict::NoTarget { "" } else { " that meets the target" };
            remarks.push(format!(
                "No other network{scope} is {better}; {relation} {} ({}) with {}: {certainty}.",
                second.name,
                super::networks::word_of(second.origin),
                other.text
            ));
        } else if complete.len() > 1 {
            remarks.push("No other network meets the target.".into());
        }
    }
    let slower: Vec<String> = complete
        .iter()
        .filter(|row| row.name != chosen.name && !row.verdict.meets())
        .filter_map(|row| Some((row, row.accuracy.as_ref()?)))
        .filter(|(_, other)| other.value > own.value)
        .map(|(row, other)| format!("{} ({})", row.name, other.text))
        .collect();
    if !slower.is_empty() {
        remarks.push(format!("{first}, but too slow for the target: {}.", slower.join(", ")));
    }
    remarks
}
