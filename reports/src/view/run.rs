//! What was asked for, when it was done, and how to do it again.

use lathe_search::Stage;
use serde::Serialize;

use crate::{
    history::History,
    quantity::{duration, moment},
    run_files::RunFiles,
};

/// The run itself.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunView {
    /// Seed, version and the like.
    pub facts: Vec<(&'static str, String)>,
    pub stages: Vec<StageRow>,
    /// Times of resumption.
    pub resumed: Vec<String>,
    /// `resolved.toml`, as it is.
    pub resolved: Option<String>,
    /// Exported files per network.
    pub exports: Vec<(String, Vec<String>)>,
}

/// One stage.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StageRow {
    pub name: &'static str,
    pub what: &'static str,
    /// `done`, `begun` or `open`.
    pub state: &'static str,
    pub started: Option<String>,
    pub duration: Option<String>,
    /// Share of the time of all finished stages, in whole percent.
    pub percent: u32,
}

/// Stages in order, with what they do.
const STAGES: [(Stage, &str, &str); 8] = [
    (Stage::Measure, "measure", "time the space's operators and some whole networks"),
    (Stage::Fit, "fit", "fit the latency predictor and settle the target"),
    (Stage::Search, "search", "train the supernet and its architecture parameters"),
    (Stage::Derive, "derive", "choose the networks to train"),
    (Stage::Retrain, "retrain", "train them from scratch"),
    (Stage::Export, "export", "write them as files"),
    (Stage::Verify, "verify", "run the files with the device's engine and time them"),
    (Stage::Report, "report", "write this page"),
];

pub(super) fn run(history: &History, files: &RunFiles) -> RunView {
    let mut facts = Vec::new();
    if let Some(started) = &history.started {
        facts.push(("run", started.name.clone()));
        facts.push(("seed", started.seed.to_string()));
        facts.push(("version of lathe", started.version.clone()));
        facts.push(("started", moment(&started.at)));
        facts.push(("configuration, SHA-256", started.config_sha256.clone()));
    }
    if let Some((at, _)) = &history.stop {
        facts.push(("ended", moment(at)));
    }
    let seconds = |stage: Stage| Some(history.stages.get(&stage)?.finished.as_ref()?.1);
    let total: f64 = STAGES.iter().filter_map(|(stage, ..)| seconds(*stage)).filter(|s| s.is_finite()).sum();
    if total > 0.0 {
        facts.push(("time in finished stages", duration(total)));
    }
    let stages = STAGES
        .iter()
        .map(|&(stage, name, what)| {
            let times = history.stages.get(&stage);
            let done = seconds(stage);
            StageRow {
                name,
                what,
                state: match (times, done) {
                    (_, Some(_)) => "done",
                    (Some(_), None) => "begun",
                    (None, None) => "open",
                },
                started: times.and_then(|times| times.started.as_deref()).map(moment),
                duration: done.map(duration),
                percent: done.filter(|_| total > 0.0).map_or(0, |done| (done / total * 100.0).round() as u32),
            }
        })
        .collect();
    RunView {
        facts,
        stages,
        resumed: history.resumed.iter().map(|at| moment(at)).collect(),
        resolved: files.resolved.clone(),
        exports: history
            .candidates
            .iter()
            .filter(|candidate| !candidate.files.is_empty())
            .map(|candidate| (candidate.name.clone(), candidate.files.clone()))
            .collect(),
    }
}
