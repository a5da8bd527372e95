//! What the report says: plain data and words, taken from the record. No HTML, no drawing.

mod architecture;
mod cells;
mod device;
mod headline;
mod limits;
mod networks;
mod prediction;
mod run;
mod search;
mod shares;
mod training;

use lathe_latency_db::Provenance;
use serde::Serialize;

pub(crate) use architecture::{ArchBlock, Architecture};
pub(crate) use cells::{CellBlock, Cells};
pub(crate) use networks::{NetworkRow, Networks};
pub(crate) use prediction::PredictionView;
pub(crate) use search::{SearchSeries, SearchView};
pub(crate) use shares::Shares;
pub(crate) use training::Training;

use crate::{history::History, quantity::Measure, run_files::RunFiles};

/// A part of the report, or what is missing for it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Section<T> {
    /// It can be shown.
    Ready(T),
    /// Why it can't be shown yet.
    Missing(String),
}

impl<T> Section<T> {
    /// What there is, if it is ready.
    pub fn ready(&self) -> Option<&T> {
        match self {
            Self::Ready(content) => Some(content),
            Self::Missing(_) => None,
        }
    }
}

/// How latencies were come by, in words.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Provenances {
    /// `measured`, `emulated`, `estimated`.
    pub word: &'static str,
    /// Whether nothing was timed on silicon.
    pub unreal: bool,
    /// What that means, where a reader must know.
    pub caution: Option<&'static str>,
}

impl Provenances {
    fn of(provenance: Option<Provenance>) -> Self {
        match provenance {
            // Without a device there are no latencies either.
            Some(Provenance::Measured) | None => Self { word: "measured", unreal: false, caution: None },
            Some(Provenance::Published) => Self {
                word: "published",
                unreal: true,
                caution: Some(
                    "Published latencies: they were taken from a published table. Lathe timed nothing on the \
                     device.",
                ),
            },
            Some(Provenance::Emulated) => Self {
                word: "emulated",
                unreal: true,
                caution: Some(
                    "Emulated latencies: the networks ran under an emulator, not on the device itself. The \
                     numbers say nothing about how fast they are on silicon.",
                ),
            },
            Some(Provenance::CompilerEstimate) => Self {
                word: "estimated",
                unreal: true,
                caution: Some(
                    "Estimated latencies: a vendor's compiler reckoned them. Nothing was timed on the device.",
                ),
            },
        }
    }
}

/// Everything that the report says.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct View {
    /// Name of the run.
    pub name: String,
    pub provenance: Provenances,
    /// What networks are judged by: `accuracy` or `PSNR`.
    pub measure: &'static str,
    /// Whether the space is one of stages, searched by paths.
    pub paths: bool,
    /// For figures.
    #[serde(skip)]
    pub measured_by: Measure,
    /// What a reader should know before reading on.
    pub cautions: Vec<String>,
    pub headline: headline::Headline,
    pub networks: Section<Networks>,
    pub prediction: Section<PredictionView>,
    /// What the network was held to, where the record tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<limits::Limits>,
    pub search: Section<SearchView>,
    pub architecture: Section<Architecture>,
    pub cells: Section<Cells>,
    pub shares: Section<Shares>,
    pub training: Section<Training>,
    pub device: Section<device::DeviceView>,
    pub run: run::RunView,
}

impl View {
    /// What the files of a run say.
    pub fn of(files: &RunFiles) -> Self {
        let history = History::of(&files.events);
        let provenance = Provenances::of(history.device.as_ref().map(|device| device.provenance));
        let networks = networks::networks(&history);
        let cells = cells::cells(&history, files.space.as_ref());
        let mut headline = headline::headline(&history, networks.ready(), &provenance);
        headline.doubt(networks.ready(), cells.ready());
        let name = history.started.as_ref().map_or_else(|| "unnamed run".to_owned(), |run| run.name.clone());
        Self {
            name,
            measure: history.measure.word(),
            measured_by: history.measure,
            paths: history.paths.is_some(),
            cautions: cautions(files, &history, &provenance),
            prediction: prediction::prediction(&history, files, networks.ready(), &provenance),
            limits: limits::limits(&history),
            search: search::search(&history),
            architecture: architecture::architecture(&history, files.space.as_ref()),
            cells,
            shares: shares::shares(&history, headline.network_name()),
            training: training::training(&history),
            device: device::device(&history),
            run: run::run(&history, files),
            networks,
            headline,
            provenance,
        }
    }
}

fn cautions(files: &RunFiles, history: &History, provenance: &Provenances) -> Vec<String> {
    let mut cautions = Vec::new();
    if files.events.is_empty() {
        cautions.push("The record holds no whole line yet: nothing is known of this run.".to_owned());
    } else if history.started.is_none() {
        cautions.push("The record doesn't say when the run began: its first line is missing.".to_owned());
    }
    cautions.extend(provenance.caution.map(str::to_owned));
    if files.half_line {
        cautions.push(
            "The record ends in the middle of a line, as it does when a run is cut off or still writing. \
             That line is left out."
                .to_owned(),
        );
    }
    cautions.extend(
        files.unreadable.iter().map(|reason| format!("A file of the run could not be used: {reason}.")),
    );
    if !history.strangers.is_empty() {
        cautions.push(format!(
            "The record speaks of networks that it never announced; they are left out: {}.",
            history.strangers.join(", ")
        ));
    }
    cautions
}

/// `1 epoch`, `2 epochs`.
fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}
