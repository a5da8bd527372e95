//! What the kernel model learns from.

use std::collections::BTreeMap;

use lathe_spaces::{Level, Micros, Precision, Workload, WorkloadId};

use super::{Fusion, Kernel, KernelError, kernel};
use crate::{Measurement, Provenance, parts::pooled};

/// A graph with its measured latency.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedGraph {
    /// Name.
    pub label: String,
    /// Identity of the workload.
    pub id: WorkloadId,
    /// What it is made of.
    pub kernels: Vec<Kernel>,
    /// Median.
    pub latency: Micros,
    /// Relative half-width of the median's 95 % interval.
    pub noise: f64,
    /// Whether its measurement has a quality flag: a reason to doubt it.
    pub flagged: bool,
    /// Whether it is a whole network; otherwise a part by itself.
    pub network: bool,
}

impl TimedGraph {
    /// The workloads with a usable measurement, cut into kernels, sorted by identity. Of several
    /// measurements of a workload the usable one with the most samples counts; workloads without any
    /// are left out, and so are measurements of workloads that are not given.
    ///
    /// # Errors
    /// [`KernelError::MixedProvenance`] if timed rows stand beside emulated or estimated ones,
    /// [`KernelError::MixedPrecision`] if single precision stands beside integers.
    pub fn of(
        measurements: &[Measurement],
        workloads: &BTreeMap<WorkloadId, Workload>,
        fusion: &Fusion,
    ) -> Result<Vec<Self>, KernelError> {
        let relevant: Vec<&Measurement> =
            measurements.iter().filter(|row| row.usable() && workloads.contains_key(&row.workload)).collect();
        let mut kinds: Vec<Provenance> = relevant.iter().map(|row| row.provenance).collect();
        kinds.sort();
        kinds.dedup();
        if kinds.len() > 1 {
            return Err(KernelError::MixedProvenance {
                kinds: kinds.iter().map(ToString::to_string).collect(),
            });
        }
        let mut precisions: Vec<Precision> = relevant.iter().map(|row| row.precision).collect();
        precisions.sort();
        precisions.dedup();
        if precisions.len() > 1 {
            return Err(KernelError::MixedPrecision {
                precisions: precisions.iter().map(ToString::to_string).collect(),
            });
        }
        let best = pooled(&relevant);
        let timed = best.into_iter().filter_map(|(id, row)| {
            let workload = workloads.get(&id)?;
            let summary = row.summary()?;
            Some(Self {
                label: workload.label.clone(),
                kernels: kernel::split(&workload.graph, fusion),
                latency: summary.median,
                noise: (summary.high - summary.low).0 / 2.0 / summary.median.0.max(1e-9),
                flagged: !row.flags.is_empty(),
                network: workload.level == Level::Network,
                id,
            })
        });
        Ok(timed.collect())
    }
}
