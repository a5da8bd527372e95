//! Which measurements are wanted.

use std::collections::BTreeSet;

use lathe_spaces::{Level, WorkloadId};

use crate::Measurement;

/// Which measurements are wanted; the default wants everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this device (its fingerprint).
    pub device: Option<String>,
    /// Only these workloads.
    pub workloads: Option<BTreeSet<WorkloadId>>,
    /// Only this campaign.
    pub campaign: Option<String>,
    /// Only this level.
    pub level: Option<Level>,
}

impl Filter {
    /// Whether a measurement is wanted.
    pub fn wants(&self, row: &Measurement) -> bool {
        self.campaign.as_ref().is_none_or(|campaign| *campaign == row.campaign)
            && self.level.is_none_or(|level| level == row.level)
            && self.workloads.as_ref().is_none_or(|workloads| workloads.contains(&row.workload))
            && self.device.as_ref().is_none_or(|device| *device == row.device.fingerprint())
    }
}
