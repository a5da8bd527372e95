//! What can go wrong in a fit.

use lathe_spaces::SpaceError;
use thiserror::Error;

/// What can go wrong in a fit. The messages complete "failed to …".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FitError {
    /// The space could not be turned into workloads.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// Parts of the space have no usable measurement.
    #[error(
        "fit a predictor: {} operators or fixed parts of the space have no usable measurement ({}); \
         measure them: `lathe measure --only-missing`",
        workloads.len(), abridged(workloads)
    )]
    Missing {
        /// Their labels, with the outcome of the last try if there was one.
        workloads: Vec<String>,
    },
    /// Too few networks were measured end to end.
    #[error(
        "fit a predictor: {found} of {asked} networks have a usable measurement, and at least {needed} are needed; \
         measure them: `lathe measure --only-missing`"
    )]
    TooFewNetworks {
        /// Networks with a measurement.
        found: usize,
        /// Networks that were given.
        asked: usize,
        /// Least number.
        needed: usize,
    },
    /// The measurements have several provenances.
    #[error(
        "fit a predictor: the measurements are of different kinds ({}); choose one, or allow mixing explicitly",
        kinds.join(", ")
    )]
    MixedProvenance {
        /// The kinds.
        kinds: Vec<String>,
    },
    /// The measurements were taken under an emulator.
    #[error(
        "fit a predictor: measurements are an emulator's, and no latencies of anything; for a trial of the tool set \
         `allow_emulated = true` in [fit]"
    )]
    Emulated,
    /// The measurements come from several devices.
    #[error(
        "fit a predictor: the measurements come from {} devices ({}); choose one by its fingerprint",
        devices.len(), devices.join(", ")
    )]
    MixedDevices {
        /// Fingerprints with aliases.
        devices: Vec<String>,
    },
    /// Cross-validation needs at least two folds.
    #[error("fit a predictor: expected at least 2 folds, got {folds}")]
    Folds {
        /// Folds asked for.
        folds: usize,
    },
    /// No composition explains the networks.
    #[error(
        "fit a predictor: no non-negative composition of the operators predicts the network `{network}`; \
         check its measurement: `lathe db show`"
    )]
    Degenerate {
        /// Name of the network.
        network: String,
    },
}

/// The first few of a long list.
fn abridged(labels: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = labels.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if labels.len() > SHOWN { format!("{shown}; and {} more", labels.len() - SHOWN) } else { shown }
}
