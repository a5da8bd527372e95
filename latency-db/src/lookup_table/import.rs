//! Published operator latencies as records of the latency database.

use lathe_spaces::{Micros, Workload};
use sha2::{Digest, Sha256};

use super::{Figures, LookupTable, OperatorKey, Spread};
use crate::{
    Device, Engine, MachineState, Measurement, Outcome, Protocol, Provenance, Published, device::hexadecimal,
};

/// What a device of a published table is not known to have.
const UNKNOWN: &str = "unknown";

/// An operator that cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The operator.
    pub key: OperatorKey,
    /// Why not.
    pub reason: String,
}

/// A table's rows as records.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// Operators that Lathe can say, in the order of the table.
    pub measurements: Vec<Measurement>,
    /// What they compute, in the same order.
    pub workloads: Vec<Workload>,
    /// The others.
    pub unusable: Vec<Unusable>,
}

impl LookupTable {
    /// The operators that Lathe's graphs can say, as records of a device that is known by this name
    /// only: provenance [`Provenance::Published`], the mean as the only sample, spread and count in
    /// [`Measurement::published`]. `source` names the table. Importing the same rows again makes
    /// records of the same names.
    pub fn import(&self, device: &str, source: &str) -> Imported {
        let device = unknown_device(device);
        let mut imported = Imported { measurements: Vec::new(), workloads: Vec::new(), unusable: Vec::new() };
        for (key, figures) in self.rows() {
            match self.workload(key) {
                Ok(workload) => {
                    imported.measurements.push(measurement(&workload, figures, &device, source));
                    imported.workloads.push(workload);
                }
                Err(reason) => imported.unusable.push(Unusable { key: *key, reason }),
            }
        }
        imported
    }

    fn workload(&self, key: &OperatorKey) -> Result<Workload, String> {
        let dialect = self.dialect().ok_or(
            "the table has no `expanded_conv`, so that it may be OFA's or ProxylessNAS', whose layers of this \
             name differ",
        )?;
        key.workload(dialect)
    }
}

/// The name stands for the model, so that devices of different names have different fingerprints.
fn unknown_device(name: &str) -> Device {
    Device {
        name: name.to_owned(),
        model: name.to_owned(),
        architecture: UNKNOWN.to_owned(),
        cores: 0,
        memory_kb: 0,
        os: UNKNOWN.to_owned(),
        kernel: UNKNOWN.to_owned(),
        pinned_cpus: Vec::new(),
        governor: None,
        max_khz: None,
        threads: 0,
        engine: Engine {
            name: "published table".to_owned(),
            version: UNKNOWN.to_owned(),
            library_sha256: UNKNOWN.to_owned(),
            provider: UNKNOWN.to_owned(),
        },
        memory_limit_kb: None,
        cluster: None,
        tier: None,
    }
}

fn measurement(workload: &Workload, figures: &Figures, device: &Device, source: &str) -> Measurement {
    let published = Published {
        source: source.to_owned(),
        standard_deviation: figures.spread.map(|spread: Spread| Micros::from_millis(spread.deviation_ms())),
        count: figures.count,
    };
    let id = workload.id();
    let text = format!("published\n{}\n{id}\n{}\n{published:?}", device.fingerprint(), figures.mean_ms);
    Measurement {
        id: hexadecimal(&Sha256::digest(text.as_bytes())[..16]),
        workload: id,
        label: workload.label.clone(),
        level: workload.level,
        precision: workload.precision,
        macs: workload.graph.macs(),
        device: device.clone(),
        provenance: Provenance::Published,
        outcome: Outcome::Ok,
        error: None,
        samples_ns: vec![(figures.mean_ms * 1e6).round() as u64],
        samples_per_process: vec![1],
        batch: 1,
        warmup_runs: 0,
        load_ns: 0,
        first_run_ns: 0,
        peak_rss_kb: 0,
        output_error: None,
        protocol: Protocol {
            min_runs: 0,
            min_seconds: 0.0,
            processes: 0,
            warmup_runs: 0,
            warmup_seconds: 0.0,
            timeout_seconds: 0.0,
            retries: 0,
            cool_down_seconds: 0.0,
        },
        before: MachineState::default(),
        after: MachineState::default(),
        flags: Vec::new(),
        agent: String::new(),
        campaign: format!("published-{source}"),
        rejected: Vec::new(),
        published: Some(published),
        execution: None,
    }
}
