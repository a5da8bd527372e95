//! What drives a device.

use std::{collections::BTreeMap, ops::ControlFlow};

use lathe_latency_db::{Device, Measurement, Protocol, Provenance};
use lathe_spaces::{Precision, Weights, Workload, WorkloadId};

use crate::RunnerError;

/// What is asked of a runner beside the workloads.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Name under which the measurements are stored.
    pub campaign: String,
    /// Rules of measuring.
    pub protocol: Protocol,
    /// Seed of the order in which workloads are timed.
    pub seed: u64,
    /// Trained weights of some workloads, so that what was exported is what is timed; every other
    /// workload gets seeded ones.
    pub weights: BTreeMap<WorkloadId, Weights>,
}

impl Job {
    /// With seeded weights for every workload.
    pub fn new(campaign: impl Into<String>, protocol: Protocol, seed: u64) -> Self {
        Self { campaign: campaign.into(), protocol, seed, weights: BTreeMap::new() }
    }
}

/// Times workloads on one device.
pub trait Runner {
    /// The device.
    fn device(&self) -> &Device;

    /// Where its numbers come from.
    fn provenance(&self) -> Provenance;

    /// Whether the device computes with such numbers at all. Where it does, single workloads may still be refused.
    fn computes(&self, _precision: Precision) -> bool {
        true
    }

    /// Times every workload in a seeded random order and calls `sink` once per workload as soon as it
    /// is done, failures included: they are outcomes. `sink` returns [`ControlFlow::Break`] to stop
    /// early. An error means that the device can no longer be used.
    fn run(
        &mut self,
        workloads: &[Workload],
        job: &Job,
        sink: &mut dyn FnMut(Measurement) -> ControlFlow<()>,
    ) -> Result<(), RunnerError>;
}
