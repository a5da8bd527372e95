//! What the kernel model learns from.

use std::collections::{BTreeMap, BTreeSet};

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
    /// [`KernelError::MixedPrecision`] if single precision stands beside integers, [`KernelError::MixedBatch`] if
    /// networks on one image stand beside networks on several.
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
        // Of whole networks: a kernel by itself may have windows in the place of images.
        let networks = relevant.iter().filter(|row| row.level == Level::Network);
        let images = |row: &&Measurement| Some(workloads.get(&row.workload)?.graph.input_shape()?.n);
        let batches: BTreeSet<usize> = networks.filter_map(images).collect();
        if batches.len() > 1 {
            return Err(KernelError::MixedBatch { batches: batches.into_iter().collect() });
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_spaces::{Nas201Skeleton, NetworkOptions, Space, Stream};

    use super::*;
    use crate::sample_rows::{at_batch, row};

    #[test]
    fn latencies_of_one_image_and_of_eight_are_not_mixed() {
        let space = Space::nas201(Nas201Skeleton { width: 8, cells: 1, resolution: 16, classes: 10 });
        let network = |index| {
            let genotype = space.sample(&mut Stream::new(1, "test timed graph", index));
            space.network(&genotype, NetworkOptions::default()).unwrap()
        };
        let timed = |graphs: &[(lathe_spaces::Graph, Level)]| {
            let (mut rows, mut workloads) = (Vec::new(), BTreeMap::new());
            for (index, (graph, level)) in graphs.iter().enumerate() {
                let workload = Workload::new(format!("network {index}"), *level, graph.clone());
                let row = row(&format!("{index}"), 1_000_000 + index as u64);
                rows.push(Measurement { workload: workload.id(), level: *level, ..row });
                workloads.insert(workload.id(), workload);
            }
            TimedGraph::of(&rows, &workloads, &Fusion::common())
        };
        let one = |index| (network(index), Level::Network);
        let eight = |index| (at_batch(&network(index), 8), Level::Network);
        assert_eq!(timed(&[one(0), one(1)]).unwrap().len(), 2);
        assert_eq!(timed(&[eight(0), eight(1)]).unwrap().len(), 2);
        let error = timed(&[one(0), eight(1)]).unwrap_err();
        assert!(matches!(&error, KernelError::MixedBatch { batches } if *batches == [1, 8]), "{error}");
        assert!(error.to_string().contains("(1, 8)") && error.to_string().contains("hint:"), "{error}");
        // Eight windows of a kernel by itself are not eight images.
        let windows = (at_batch(&network(2), 8), Level::Operator);
        assert_eq!(timed(&[one(0), windows]).unwrap().len(), 2);
    }
}
