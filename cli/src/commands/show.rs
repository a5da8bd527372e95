//! `lathe show`: the networks of a run in one table.

use std::{collections::BTreeMap, path::Path};

use lathe_latency_db::{Device, Prediction, Provenance, Summary};
use lathe_search::{Event, Origin, Quantity, RunRecord};
use lathe_spaces::Micros;
use miette::Report;
use serde::Serialize;

use crate::{
    arguments::{ShowArguments, ShowFormat},
    config, exit_codes,
    failure::failed,
    study,
    terminal::{self, Terminal, table},
};

/// z of the 95 % interval.
const Z: f64 = 1.959_964;

/// A candidate with everything that is known of it so far.
#[derive(Clone, Debug, Serialize)]
struct Row {
    name: String,
    origin: Origin,
    genotype: String,
    parameters: u64,
    macs: u64,
    predicted: Option<Prediction>,
    test_accuracy: Option<f64>,
    /// 95 % interval of the accuracy (Wilson 1927), from the number of test images.
    test_accuracy_interval: Option<[f64; 2]>,
    measured: Option<Summary>,
    max_output_error: Option<f64>,
    /// Measured on further devices, by the run's name for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    elsewhere: BTreeMap<String, Summary>,
    /// Every target; unknown where one weighted target stands for several.
    meets_target: Option<bool>,
}

/// A run in short.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunSummary {
    name: String,
    started: String,
    version: String,
    seed: u64,
    device: Option<Device>,
    noise: Option<f64>,
    /// Where latencies come from; `None` until the device was probed.
    provenance: Option<Provenance>,
    target: Option<Micros>,
    /// Targets on further devices.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    other_targets: BTreeMap<String, Micros>,
    /// Where latencies on further devices come from.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    other_provenances: BTreeMap<String, Provenance>,
    #[serde(skip)]
    weighted: bool,
    /// What accuracies are, where they are none: `PSNR`, in decibels.
    #[serde(skip_serializing_if = "Option::is_none")]
    measure: Option<String>,
    candidates: Vec<Row>,
}

/// Prints the table.
pub fn run(arguments: &ShowArguments, _terminal: Terminal) -> Result<u8, Report> {
    let directory =
        if arguments.run.is_file() { config::load(&arguments.run)?.directory } else { arguments.run.clone() };
    if let Some(summary) = study::read(&directory)? {
        terminal::data(&match arguments.format {
            ShowFormat::Text => study::text(&summary),
            ShowFormat::Markdown => study::markdown(&summary),
            ShowFormat::Json => serde_json::to_string_pretty(&summary).map_err(failed)?,
        });
        return Ok(exit_codes::OK);
    }
    let summary = RunSummary::read(&directory)?;
    terminal::data(&match arguments.format {
        ShowFormat::Text => summary.text(),
        ShowFormat::Markdown => summary.markdown(),
        ShowFormat::Json => serde_json::to_string_pretty(&summary).map_err(failed)?,
    });
    Ok(exit_codes::OK)
}

impl RunSummary {
    /// From a run's directory.
    fn read(directory: &Path) -> Result<Self, Report> {
        let path = directory.join("record.jsonl");
        if !path.is_file() {
            return Err(miette::miette!(
                help = "name the directory of a run, or its configuration file",
                "failed to find a run: there is no {}",
                path.display()
            ));
        }
        Ok(Self::of(RunRecord::open(&path).map_err(failed)?.events()))
    }

    /// From a record's events.
    pub fn of(events: &[Event]) -> Self {
        let mut summary = Self::default();
        for event in events {
            summary.add(event);
        }
        for row in &mut summary.candidates {
            let first = summary.target.map(|target| (target, row.measured));
            let others = summary.other_targets.iter();
            let others = others.map(|(name, target)| (*target, row.elsewhere.get(name).copied()));
            let all: Option<Vec<bool>> = (first.into_iter().chain(others))
                .map(|(target, measured)| Some(measured?.median <= target))
                .collect();
            row.meets_target = all
                .filter(|met| !met.is_empty() && !summary.weighted)
                .map(|met| met.into_iter().all(|met| met));
        }
        summary
    }

    fn add(&mut self, event: &Event) {
        match event {
            Event::Started { name, at, version, seed, .. } => {
                self.name.clone_from(name);
                self.started.clone_from(at);
                self.version.clone_from(version);
                self.seed = *seed;
            }
            Event::Device { device, noise, provenance } => {
                self.provenance = Some(*provenance);
                self.device = Some(device.clone());
                self.noise = *noise;
            }
            Event::Stages { measure, .. } => {
                self.measure = Some(measure.clone()).filter(|measure| measure != "accuracy");
            }
            Event::Target { target, .. } => self.target = *target,
            Event::OtherDevice { name, provenance, .. } => {
                self.other_provenances.insert(name.clone(), *provenance);
            }
            Event::OtherFitted { name, target, .. } => {
                self.other_targets.insert(name.clone(), *target);
            }
            Event::Limits { limits } => {
                self.weighted = limits.iter().any(|limit| limit.quantity == Quantity::WeightedLatency);
            }
            Event::OtherVerified { candidate, name, latency, .. } => {
                if let Some(row) = self.row(candidate) {
                    row.elsewhere.insert(name.clone(), *latency);
                }
            }
            Event::Candidate { name, origin, genotype, predicted, parameters, macs, .. } => {
                self.candidates.push(Row {
                    name: name.clone(),
                    origin: *origin,
                    genotype: genotype.clone(),
                    parameters: *parameters,
                    macs: *macs,
                    predicted: *predicted,
                    test_accuracy: None,
                    test_accuracy_interval: None,
                    measured: None,
                    max_output_error: None,
                    elsewhere: BTreeMap::new(),
                    meets_target: None,
                });
            }
            Event::Trained { candidate, test_accuracy, test_images, .. } => {
                // How decibels vary over images is not in the record.
                let interval = self.measure.is_none().then(|| wilson(*test_accuracy, *test_images));
                if let Some(row) = self.row(candidate) {
                    row.test_accuracy = Some(*test_accuracy);
                    row.test_accuracy_interval = interval;
                }
            }
            Event::Verified { candidate, max_output_error, latency, .. } => {
                if let Some(row) = self.row(candidate) {
                    row.measured = Some(*latency);
                    row.max_output_error = Some(*max_output_error);
                }
            }
            _ => {}
        }
    }

    fn row(&mut self, name: &str) -> Option<&mut Row> {
        self.candidates.iter_mut().find(|row| row.name == name)
    }

    fn cells(&self) -> Vec<Vec<String>> {
        let pending = || "–".to_owned();
        let percent = |share: f64| format!("{:.1}", share * 100.0);
        self.candidates
            .iter()
            .map(|row| {
                let accuracy = row.test_accuracy.map(|accuracy| match row.test_accuracy_interval {
                    Some([low, high]) => {
                        format!("{} [{} … {}]", percent(accuracy), percent(low), percent(high))
                    }
                    None if self.measure.as_deref() == Some("PSNR") => format!("{accuracy:.2}"),
                    None => format!("{accuracy:.4}"),
                });
                let measured = row
                    .measured
                    .map(|measured| format!("{} [{} … {}]", measured.median, measured.low, measured.high));
                let predicted = row
                    .predicted
                    .map(|predicted| format!("{} [{} … {}]", predicted.mean, predicted.low, predicted.high));
                let meets = row.meets_target.map(|meets| if meets { "yes" } else { "no" }.to_owned());
                vec![
                    row.name.clone(),
                    accuracy.unwrap_or_else(pending),
                    measured.unwrap_or_else(pending),
                    predicted.unwrap_or_else(pending),
                    meets.unwrap_or_else(pending),
                    format!("{:.1}", row.parameters as f64 / 1e3),
                    format!("{:.2}", row.macs as f64 / 1e6),
                ]
            })
            .collect()
    }

    /// The column of latencies says where they come from.
    fn header(&self) -> [String; 7] {
        let latency = format!("{} [95 %]", self.provenance.unwrap_or(Provenance::Measured));
        let [network, accuracy, predicted, meets, parameters, macs] = [
            "network",
            match self.measure.as_deref() {
                None => "test accuracy, % [95 %]",
                Some("PSNR") => "test PSNR, dB",
                Some(_) => "test similarity, cosine",
            },
            "predicted [90 %]",
            "meets target",
            "k parameters",
            "MMAC",
        ]
        .map(str::to_owned);
        [network, accuracy, latency, predicted, meets, parameters, macs]
    }

    fn target_line(&self) -> String {
        let mut line =
            self.target.map_or_else(|| "no latency target".into(), |target| format!("target {target}"));
        for (name, target) in &self.other_targets {
            line.extend([", ", &target.to_string(), " on ", name]);
        }
        line
    }

    /// What the networks take on further devices, a line each.
    fn elsewhere(&self) -> Vec<String> {
        let of_row = |row: &Row| -> Vec<String> {
            let line = |(device, time): (&String, &Summary)| {
                let provenance = self.other_provenances.get(device).copied();
                let time = terminal::latency(time, provenance.unwrap_or(Provenance::Measured));
                format!("{} on {device}: {time}", row.name)
            };
            row.elsewhere.iter().map(line).collect()
        };
        self.candidates.iter().flat_map(of_row).collect()
    }

    /// Whether the run has no networks yet.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let rows = table(&self.header().each_ref().map(String::as_str), &self.cells());
        let mut text = format!("{}\n{rows}", self.target_line());
        for line in self.elsewhere() {
            text.extend(["\n", &line]);
        }
        text
    }

    /// For a document, with what the numbers depend on.
    fn markdown(&self) -> String {
        let row = |cells: &[String]| format!("| {} |", cells.join(" | "));
        let mut lines = vec![format!(
            "Run `{}`, seed {}, started {}, Lathe {}; {}.",
            self.name,
            self.seed,
            self.started,
            self.version,
            self.target_line()
        )];
        if let Some(device) = &self.device {
            let noise =
                self.noise.map_or_else(|| "not tested".into(), |noise| format!("{:.1} %", noise * 100.0));
            lines.push(format!(
                "Device: {}, {} of {} cores, {} thread(s), {} {}, {} (fingerprint {}); smallest difference it can tell apart: {noise}.",
                device.model,
                device.pinned_cpus.len(),
                device.cores,
                device.threads,
                device.engine.name,
                device.engine.version,
                device.os,
                device.fingerprint(),
            ));
        }
        lines.push(String::new());
        lines.push(row(&self.header()));
        lines.push(row(&self.header().map(|_| "---".to_owned())));
        lines.extend(self.cells().iter().map(|cells| row(cells)));
        lines.push(String::new());
        lines.extend(self.elsewhere().into_iter().map(|line| format!("- {line}")));
        lines.extend(
            self.candidates.iter().map(|candidate| format!("- {}: `{}`", candidate.name, candidate.genotype)),
        );
        lines.join("\n")
    }
}

/// 95 % interval of a share of `count` trials (Wilson 1927).
fn wilson(share: f64, count: usize) -> [f64; 2] {
    let n = (count as f64).max(1.0);
    let centre = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    [centre - spread, centre + spread].map(|bound| (bound / (1.0 + Z * Z / n)).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_share_is_wilsons() {
        // 81 of 263: 0.255 to 0.366, an example of Newcombe (1998), method 3.
        let [low, high] = wilson(81.0 / 263.0, 263);
        assert!((low - 0.2553).abs() < 1e-4 && (high - 0.3662).abs() < 1e-4, "{low} {high}");
    }

    #[test]
    fn a_run_that_has_just_begun_has_an_empty_table() {
        let text = RunSummary::of(&[]).text();
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
