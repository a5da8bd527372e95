//! The record, sorted by subject. Whatever was told twice counts as it was told first.

use std::collections::BTreeMap;

use lathe_latency_db::{Device, FitQuality, Prediction, Provenance, Summary};
use lathe_search::{ArchSnapshot, BlockSigns, Event, LimitEpoch, LimitRange, Origin, Stage, StopReason};
use lathe_spaces::Micros;

use crate::quantity::Measure;

/// What the record says of the run.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub started: Option<Started>,
    /// Times of resumption.
    pub resumed: Vec<String>,
    pub stages: BTreeMap<Stage, StageTimes>,
    /// Name of a space of stages that networks were drawn from as paths.
    pub paths: Option<String>,
    /// What accuracies are.
    pub measure: Measure,
    pub device: Option<DeviceFacts>,
    pub quality: Option<FitQuality>,
    /// What simpler fits come to on the same networks.
    pub simpler: Vec<FitQuality>,
    /// The same of further devices, by name.
    pub other_qualities: BTreeMap<String, (FitQuality, Vec<FitQuality>)>,
    pub target: Option<TargetFacts>,
    /// What the space reaches, and what is asked of it.
    pub limits: Vec<LimitRange>,
    /// Targets on further devices, by name.
    pub other_targets: BTreeMap<String, Micros>,
    /// Epoch, device, predicted and measured microseconds of a network during the search.
    pub probes: Vec<(usize, String, f64, f64)>,
    /// Where numbers of further devices come from, by name.
    pub other_provenances: BTreeMap<String, Provenance>,
    /// Networks timed on further devices.
    pub elsewhere: Vec<OtherVerified>,
    pub epochs: Vec<SearchEpoch>,
    pub candidates: Vec<CandidateHistory>,
    /// How the search ended before its last epoch: epoch, criterion, value, limit, epoch that is kept.
    pub stopped_early: Option<(usize, String, f64, f64, usize)>,
    /// Time and reason of the end; none while the run may still go on.
    pub stop: Option<(String, StopReason)>,
    /// Networks that are spoken of without having been announced.
    pub strangers: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Started {
    pub name: String,
    pub at: String,
    pub version: String,
    pub seed: u64,
    pub config_sha256: String,
}

#[derive(Debug, Default)]
pub(crate) struct StageTimes {
    pub started: Option<String>,
    pub finished: Option<(String, f64)>,
}

#[derive(Debug)]
pub(crate) struct DeviceFacts {
    pub device: Device,
    pub provenance: Provenance,
    pub noise: Option<f64>,
}

#[derive(Debug)]
pub(crate) struct TargetFacts {
    pub target: Option<Micros>,
    pub reachable: [Micros; 2],
}

/// A network timed on one more device.
#[derive(Debug)]
pub(crate) struct OtherVerified {
    pub network: String,
    pub device: String,
    pub predicted: Prediction,
    pub latency: Summary,
}

#[derive(Debug)]
pub(crate) struct SearchEpoch {
    pub epoch: usize,
    pub epochs: usize,
    pub train_loss: f64,
    pub train_accuracy: f64,
    pub valid_loss: Option<f64>,
    pub valid_accuracy: Option<f64>,
    pub expected: Option<Micros>,
    pub lambda: f64,
    pub limits: Vec<LimitEpoch>,
    pub genotype: String,
    pub derived: Option<Micros>,
    pub arch: Vec<ArchSnapshot>,
    pub signs: Vec<BlockSigns>,
    pub eigenvalue: Option<f64>,
    pub seconds: f64,
    pub data_wait: f64,
}

#[derive(Debug)]
pub(crate) struct CandidateHistory {
    pub name: String,
    pub origin: Origin,
    pub genotype: String,
    pub predicted: Option<Prediction>,
    pub parameters: u64,
    pub macs: u64,
    pub peak_activation_bytes: u64,
    /// The proxy that liked it best, and of how many networks.
    pub preselected: Option<(String, usize)>,
    pub signs: Vec<BlockSigns>,
    pub epochs: Vec<TrainEpoch>,
    /// Test accuracy and number of test images.
    pub trained: Option<(f64, usize)>,
    /// Exported files.
    pub files: Vec<String>,
    pub verified: Option<Verified>,
}

#[derive(Debug)]
pub(crate) struct TrainEpoch {
    pub epoch: usize,
    pub epochs: usize,
    pub loss: f64,
    pub accuracy: f64,
}

#[derive(Debug)]
pub(crate) struct Verified {
    pub max_output_error: f64,
    pub latency: Summary,
    pub measurement: String,
    pub shares: Vec<(String, Micros)>,
}

impl History {
    pub fn of(events: &[Event]) -> Self {
        let mut history = Self::default();
        for event in events {
            history.add(event);
        }
        history.epochs.sort_by_key(|epoch| epoch.epoch);
        for candidate in &mut history.candidates {
            candidate.epochs.sort_by_key(|epoch| epoch.epoch);
        }
        history.strangers.sort();
        history.strangers.dedup();
        history
    }

    /// The network that the search found, once it was derived.
    pub fn searched(&self) -> Option<&CandidateHistory> {
        self.candidates.iter().find(|candidate| candidate.origin == Origin::Searched)
    }

    fn add(&mut self, event: &Event) {
        match event {
            Event::Started { name, at, version, seed, config_sha256 } => {
                self.started.get_or_insert_with(|| Started {
                    name: name.clone(),
                    at: at.clone(),
                    version: version.clone(),
                    seed: *seed,
                    config_sha256: config_sha256.clone(),
                });
            }
            Event::Resumed { at } => {
                self.resumed.push(at.clone());
                // A run that was cut off goes on; one that was done stays done.
                let cut = |stop: &StopReason| {
                    matches!(stop, StopReason::Interrupted | StopReason::DeviceFailed { .. })
                };
                self.stop.take_if(|(_, stop)| cut(stop));
            }
            Event::StageStarted { stage, at } => {
                self.stages.entry(*stage).or_default().started.get_or_insert_with(|| at.clone());
            }
            Event::StageFinished { stage, at, seconds } => {
                let times = self.stages.entry(*stage).or_default();
                times.finished.get_or_insert_with(|| (at.clone(), *seconds));
            }
            Event::Device { device, provenance, noise } => {
                self.device.get_or_insert_with(|| DeviceFacts {
                    device: device.clone(),
                    provenance: *provenance,
                    noise: *noise,
                });
            }
            Event::Stages { space, measure } => {
                self.paths = Some(space.clone());
                self.measure = Measure::named(measure);
            }
            Event::Fitted { quality, simpler, .. } => {
                if self.quality.is_none() {
                    (self.quality, self.simpler) = (Some(quality.clone()), simpler.clone());
                }
            }
            Event::Target { target, reachable } => {
                self.target.get_or_insert(TargetFacts { target: *target, reachable: *reachable });
            }
            Event::Limits { limits } if self.limits.is_empty() => self.limits.clone_from(limits),
            Event::Finished { at, stop } => self.stop = Some((at.clone(), stop.clone())),
            Event::Epoch { epoch, .. } => {
                if self.epochs.iter().all(|known| known.epoch != *epoch) {
                    self.epochs.extend(search_epoch(event));
                }
            }
            Event::Candidate { name, .. } => {
                if self.candidates.iter().all(|known| known.name != *name) {
                    self.candidates.extend(candidate(event));
                }
            }
            Event::OtherDevice { name, provenance, .. } => {
                self.other_provenances.insert(name.clone(), *provenance);
            }
            Event::OtherFitted { name, target, quality, simpler, .. } => {
                self.other_targets.entry(name.clone()).or_insert(*target);
                let both = || (quality.clone(), simpler.clone());
                self.other_qualities.entry(name.clone()).or_insert_with(both);
            }
            Event::SearchStopped { epoch, criterion, value, limit, kept } => {
                self.stopped_early = Some((*epoch, criterion.clone(), *value, *limit, *kept));
            }
            Event::Probed { epoch, devices, .. } => {
                if self.probes.iter().all(|(known, ..)| known != epoch) {
                    let rows = devices.iter();
                    self.probes.extend(
                        rows.map(|(name, predicted, measured)| {
                            (*epoch, name.clone(), predicted.0, measured.0)
                        }),
                    );
                }
            }
            Event::OtherVerified { candidate, name, predicted, latency, .. } => {
                let known = self.elsewhere.iter().any(|row| row.network == *candidate && row.device == *name);
                if !known {
                    let (network, device) = (candidate.clone(), name.clone());
                    let (predicted, latency) = (*predicted, *latency);
                    self.elsewhere.push(OtherVerified { network, device, predicted, latency });
                }
            }
            event => self.add_to_candidate(event),
        }
    }

    fn add_to_candidate(&mut self, event: &Event) {
        let (Event::TrainEpoch { candidate: name, .. }
        | Event::Trained { candidate: name, .. }
        | Event::Exported { candidate: name, .. }
        | Event::Verified { candidate: name, .. }) = event
        else {
            return;
        };
        let Some(candidate) = self.candidates.iter_mut().find(|known| known.name == *name) else {
            self.strangers.push(name.clone());
            return;
        };
        match event {
            Event::TrainEpoch { epoch, epochs, train_loss, train_accuracy, .. }
                if candidate.epochs.iter().all(|known| known.epoch != *epoch) =>
            {
                let (loss, accuracy) = (*train_loss, *train_accuracy);
                candidate.epochs.push(TrainEpoch { epoch: *epoch, epochs: *epochs, loss, accuracy });
            }
            Event::Trained { test_accuracy, test_images, .. } => {
                candidate.trained.get_or_insert((*test_accuracy, *test_images));
            }
            Event::Exported { files, .. } if candidate.files.is_empty() => {
                candidate.files = files.iter().map(|file| file.display().to_string()).collect();
            }
            Event::Verified { max_output_error, latency, measurement, shares, .. } => {
                candidate.verified.get_or_insert_with(|| Verified {
                    max_output_error: *max_output_error,
                    latency: *latency,
                    measurement: measurement.clone(),
                    shares: shares.clone(),
                });
            }
            _ => {}
        }
    }
}

fn search_epoch(event: &Event) -> Option<SearchEpoch> {
    let Event::Epoch {
        epoch,
        epochs,
        train_loss,
        train_accuracy,
        valid_loss,
        valid_accuracy,
        expected,
        lambda,
        limits,
        temperature: _,
        genotype,
        derived,
        arch,
        signs,
        eigenvalue,
        seconds,
        data_wait,
    } = event
    else {
        return None;
    };
    Some(SearchEpoch {
        epoch: *epoch,
        epochs: *epochs,
        train_loss: *train_loss,
        train_accuracy: *train_accuracy,
        valid_loss: *valid_loss,
        valid_accuracy: *valid_accuracy,
        expected: *expected,
        lambda: *lambda,
        limits: limits.clone(),
        genotype: genotype.clone(),
        derived: *derived,
        arch: arch.clone(),
        signs: signs.clone(),
        eigenvalue: *eigenvalue,
        seconds: *seconds,
        data_wait: *data_wait,
    })
}

fn candidate(event: &Event) -> Option<CandidateHistory> {
    let Event::Candidate {
        name,
        origin,
        genotype,
        predicted,
        parameters,
        macs,
        peak_activation_bytes,
        signs,
        preselected,
    } = event
    else {
        return None;
    };
    Some(CandidateHistory {
        name: name.clone(),
        origin: *origin,
        genotype: genotype.clone(),
        predicted: *predicted,
        parameters: *parameters,
        macs: *macs,
        peak_activation_bytes: *peak_activation_bytes,
        signs: signs.clone(),
        preselected: preselected.clone(),
        epochs: Vec::new(),
        trained: None,
        files: Vec::new(),
        verified: None,
    })
}
