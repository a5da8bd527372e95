//! The record of a run: JSON lines, the one source of resume, progress and report.

use std::path::PathBuf;

use lathe_latency_db::{Device, FitQuality, Prediction, Provenance, Summary};
use lathe_spaces::Micros;
use serde::{Deserialize, Serialize};

use crate::{
    collapse::BlockSigns,
    limit::{LimitValue, Quantity},
};

/// Steps of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Time the space's operators and some whole networks.
    Measure,
    /// Fit the predictor and the cost table.
    Fit,
    /// Train the supernet and its architecture parameters.
    Search,
    /// Choose the networks to train.
    Derive,
    /// Train them from scratch.
    Retrain,
    /// Write them as files.
    Export,
    /// Run the files with another engine and time them on the device.
    Verify,
    /// Write the HTML file.
    Report,
}

/// Why a run, or one of its stages, ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// Everything was done, and the searched network meets the target by measurement (or there is none).
    Completed,
    /// Everything was done, but the searched network misses the target when measured.
    TargetMissed {
        /// Target.
        target: Micros,
        /// Measured median.
        measured: Micros,
    },
    /// No network of the space is fast enough.
    Infeasible {
        /// Target.
        target: Micros,
        /// Smallest predicted latency of any network of the space.
        fastest: Micros,
        /// The network that has it, in text form.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        closest: Option<String>,
    },
    /// Everything was done, but the searched network misses a target on one more device when measured.
    OtherTargetMissed {
        /// Name of the limit.
        name: String,
        /// Target; 1 for a weighted one.
        target: f64,
        /// Measured, likewise.
        measured: f64,
        /// What the two are.
        quantity: Quantity,
    },
    /// No network of the space keeps all limits.
    LimitsInfeasible {
        /// Which ones, in words.
        what: String,
        /// The closest network, in text form.
        closest: String,
        /// Its upper bounds.
        values: Vec<LimitValue>,
    },
    /// No network was found that keeps all limits, and not all were looked at.
    LimitsUndecided {
        /// What was looked at, in words.
        what: String,
        /// The closest network, in text form.
        closest: String,
        /// Its upper bounds.
        values: Vec<LimitValue>,
    },
    /// A target that pulls from both sides lies above all networks of the space.
    LimitAboveReach {
        /// Name of the limit.
        limit: String,
        /// What is limited.
        quantity: Quantity,
        /// What was asked for.
        at_most: f64,
        /// Smallest and largest upper bound of any network of the space.
        reachable: [f64; 2],
    },
    /// The user asked to stop; `--resume` goes on.
    Interrupted,
    /// The device gave no usable result.
    DeviceFailed {
        /// What happened.
        message: String,
    },
}

/// Where a candidate network comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Found by this search.
    Searched,
    /// Drawn at random from the same space.
    Random,
    /// Published genotype.
    Published,
    /// Found by evolution on the weights of a trained supernet.
    Evolved,
}

/// Architecture parameters of one block after an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchSnapshot {
    /// Name of the block.
    pub block: String,
    /// softmax(α): edge × choice, all edges of the block in order.
    pub alpha: Vec<Vec<f64>>,
    /// softmax(β) per node: one weight per edge, in the same order.
    pub beta: Vec<f64>,
}

/// One limit after an epoch, in the unit of its quantity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitEpoch {
    /// Name of the limit.
    pub limit: String,
    /// What is limited.
    pub quantity: Quantity,
    /// Expected value under the relaxation, with what a regressor adds to it.
    pub expected: f64,
    /// What the search adds to it: the running difference of measured and predicted values.
    pub correction: f64,
    /// Where the expected value should be by now.
    pub target: f64,
    /// λ of the limit.
    pub lambda: f64,
    /// Predicted value of the network that would be derived now without constraint, with what a regressor adds to it and
    /// without the correction.
    pub derived: f64,
}

/// What the networks of a space can reach in one quantity, and what is asked of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitRange {
    /// Name of the limit.
    pub limit: String,
    /// What is limited.
    pub quantity: Quantity,
    /// Smallest and largest predicted value in the space.
    pub reachable: [f64; 2],
    /// From a predicted value to its upper bound.
    pub upper_factor: f64,
    /// What the upper bound may be at most; `None` if nothing is asked.
    pub at_most: Option<f64>,
}

/// One line of the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The run began. Always the first line.
    Started {
        /// Name of the run.
        name: String,
        /// Time, RFC 3339.
        at: String,
        /// Version of Lathe.
        version: String,
        /// Seed.
        seed: u64,
        /// SHA-256 of the resolved configuration.
        config_sha256: String,
    },
    /// The run was taken up again.
    Resumed {
        /// Time, RFC 3339.
        at: String,
    },
    /// A stage began.
    StageStarted {
        /// Stage.
        stage: Stage,
        /// Time, RFC 3339.
        at: String,
    },
    /// A stage ended with all its work done.
    StageFinished {
        /// Stage.
        stage: Stage,
        /// Time, RFC 3339.
        at: String,
        /// Seconds, without interruptions.
        seconds: f64,
    },
    /// The device of this run.
    Device {
        /// Device.
        device: Device,
        /// Where its numbers come from.
        provenance: Provenance,
        /// Smallest relative difference that the device can tell apart (A/A test), if tested.
        noise: Option<f64>,
    },
    /// Measurements and predictor were taken over from another run of the same study.
    Shared {
        /// That run's directory.
        from: PathBuf,
        /// Name under which its rows stand in the database.
        campaign: String,
        /// Its seed, from which the measured networks were drawn.
        seed: u64,
    },
    /// Networks were bred on a trained supernet's weights, in place of a search of this run.
    Bred {
        /// Directory of the run that trained the supernet.
        supernet: PathBuf,
        /// Different networks that were scored.
        evaluations: usize,
        /// Images that each was scored on, all of the architecture half.
        images: usize,
        /// Networks of the front: text form, accuracy there (0..1), predicted latency.
        front: Vec<(String, f64, Micros)>,
    },
    /// The space is one of stages, whose networks may learn something else than classes.
    Stages {
        /// Name of the space.
        space: String,
        /// Word for what accuracies of this record are: `accuracy` (0..1), or `PSNR` (decibels).
        measure: String,
    },
    /// The predictor that this run uses.
    Fitted {
        /// Quality on held-out networks.
        quality: FitQuality,
        /// What simpler fits come to on the same networks, the simplest first, where whole networks are fitted.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        simpler: Vec<FitQuality>,
        /// File with the cost table, relative to the run's directory.
        cost_table: PathBuf,
    },
    /// What the search aims at.
    Target {
        /// Target, if there is one.
        target: Option<Micros>,
        /// Smallest and largest predicted latency in the space.
        reachable: [Micros; 2],
    },
    /// What the networks of a space of stages are found to reach on a device.
    Reachable {
        /// What the run calls the device.
        device: String,
        /// Least and greatest predicted latency that were found.
        range: [Micros; 2],
        /// The network with the least upper bound, in text form.
        least: String,
    },
    /// What the space can reach, quantity by quantity, and every limit.
    Limits {
        /// One entry per quantity.
        limits: Vec<LimitRange>,
    },
    /// One more device that the network must suit.
    OtherDevice {
        /// What the run calls it.
        name: String,
        /// Device.
        device: Device,
        /// Where its numbers come from.
        provenance: Provenance,
        /// Smallest relative difference that the device can tell apart (A/A test), if tested.
        noise: Option<f64>,
    },
    /// The predictor of one more device.
    OtherFitted {
        /// What the run calls the device.
        name: String,
        /// Quality on held-out networks.
        quality: FitQuality,
        /// What simpler fits come to on the same networks, the simplest first, where whole networks are fitted.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        simpler: Vec<FitQuality>,
        /// File with the cost table, relative to the run's directory.
        cost_table: PathBuf,
        /// Target on this device.
        target: Micros,
    },
    /// A network was measured while the search was going on.
    Probed {
        /// Epoch after which, from 0.
        epoch: usize,
        /// Text form.
        genotype: String,
        /// Per device its name, the predicted and the measured latency.
        devices: Vec<(String, Micros, Micros)>,
    },
    /// One epoch of the supernet.
    Epoch {
        /// Epoch, from 0.
        epoch: usize,
        /// Epochs in all.
        epochs: usize,
        /// Mean training loss of the weights.
        train_loss: f64,
        /// Training accuracy, 0..1.
        train_accuracy: f64,
        /// Loss on the architecture half (`None` while the architecture parameters rest).
        valid_loss: Option<f64>,
        /// Accuracy on the architecture half, 0..1, training mode (`None` likewise).
        valid_accuracy: Option<f64>,
        /// Expected latency of the derived network under the relaxation.
        expected: Option<Micros>,
        /// λ of the latency constraint.
        lambda: f64,
        /// Every limit that the search is held to.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        limits: Vec<LimitEpoch>,
        /// Temperature of the relaxed derivation.
        temperature: f64,
        /// Network that would be derived now without constraint, in text form.
        genotype: String,
        /// Its predicted latency.
        derived: Option<Micros>,
        /// Architecture parameters.
        arch: Vec<ArchSnapshot>,
        /// Signs of collapse in that network, block by block; absent in older records.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        signs: Vec<BlockSigns>,
        /// Dominant eigenvalue of the Hessian of the architecture half's loss in α and β, where it was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        eigenvalue: Option<f64>,
        /// Seconds.
        seconds: f64,
        /// Share of the seconds spent waiting for data.
        data_wait: f64,
    },
    /// The search ended before its last epoch, to escape a collapse.
    SearchStopped {
        /// Epoch after which, from 0.
        epoch: usize,
        /// `skip connections` or `eigenvalue`.
        criterion: String,
        /// What it came to: their number, or the ratio of earlier to later eigenvalues.
        value: f64,
        /// Its limit.
        limit: f64,
        /// Epoch whose architecture parameters are kept.
        kept: usize,
    },
    /// A network that will be trained.
    Candidate {
        /// Name, unique in the run (`searched`, `random-0`, `PC_DARTS_cifar`).
        name: String,
        /// Where it comes from.
        origin: Origin,
        /// Text form.
        genotype: String,
        /// Predicted latency.
        predicted: Option<Prediction>,
        /// Learned parameters of the deployed network.
        parameters: u64,
        /// Multiply-accumulates of the deployed network, batch 1.
        macs: u64,
        /// Peak activation memory in bytes, fp32, batch 1.
        peak_activation_bytes: u64,
        /// Signs of collapse, block by block; absent in older records.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        signs: Vec<BlockSigns>,
        /// The proxy that liked it best, untrained, and of how many networks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        preselected: Option<(String, usize)>,
    },
    /// One epoch of training a candidate.
    TrainEpoch {
        /// Candidate.
        candidate: String,
        /// Epoch, from 0.
        epoch: usize,
        /// Epochs in all.
        epochs: usize,
        /// Mean training loss.
        train_loss: f64,
        /// Training accuracy, 0..1.
        train_accuracy: f64,
        /// Seconds.
        seconds: f64,
    },
    /// A candidate was trained; the accuracy is that of the last epoch, never of the best one.
    Trained {
        /// Candidate.
        candidate: String,
        /// Test accuracy, 0..1.
        test_accuracy: f64,
        /// Test images, for the accuracy's interval.
        test_images: usize,
        /// Accuracy on the training images that were held out, 0..1, where some were: what trainings are
        /// chosen by, never the test accuracy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        validation_accuracy: Option<f64>,
        /// Their number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        validation_images: Option<usize>,
    },
    /// A candidate was written as files.
    Exported {
        /// Candidate.
        candidate: String,
        /// Files, relative to the run's directory.
        files: Vec<PathBuf>,
    },
    /// The exported file was run by another engine and timed on the device.
    Verified {
        /// Candidate.
        candidate: String,
        /// Largest |engine − libtorch| over the logits of a batch of test images.
        max_output_error: f64,
        /// Measured latency.
        latency: Summary,
        /// Identifier of the measurement in the database.
        measurement: String,
        /// Share of the whole that each kind of operation takes, from the cost table.
        shares: Vec<(String, Micros)>,
    },
    /// A candidate was timed on one more device.
    OtherVerified {
        /// Candidate.
        candidate: String,
        /// What the run calls the device.
        name: String,
        /// Predicted latency there.
        predicted: Prediction,
        /// Measured latency there.
        latency: Summary,
        /// Identifier of the measurement in the database.
        measurement: String,
    },
    /// The run ended.
    Finished {
        /// Time, RFC 3339.
        at: String,
        /// Why.
        stop: StopReason,
    },
}
