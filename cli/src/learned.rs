//! What a latency database knows of a device.

use std::path::Path;

use lathe_latency_db::{
    Device, Filter, Measurement, Provenance, Store,
    kernels::{Fusion, FusionEvidence, KernelModel, ModelHeader, PairTimes, TimedGraph},
};
use lathe_runners::{empty_run, fusion_pairs};
use lathe_spaces::{Graph, Precision, Workload};
use miette::Report;

use crate::{campaign::distinct, failure::failed, run::now};

/// Everything usable that is known of one device.
pub struct Learned {
    /// The device.
    pub device: Device,
    /// Its graphs, with their latencies.
    pub graphs: Vec<TimedGraph>,
    /// Those of them that are networks.
    pub networks: Vec<Graph>,
    /// Which operators its engine runs as one.
    pub fusion: Fusion,
    /// What that rests on.
    pub evidence: Vec<FusionEvidence>,
    provenance: Provenance,
    precision: Precision,
}

impl Learned {
    /// Looks a device up by its alias or the beginning of its fingerprint.
    pub fn load(database: &Path, wanted: &str, precision: Precision) -> Result<Self, Report> {
        if !database.is_dir() {
            return Err(miette::miette!(
                help = "fill one with `lathe measure CONFIG` or `lathe fit --device local --budget 20 --space darts`, \
                        or name another one with --database",
                "failed to open the latency database {}: there is no such directory",
                database.display()
            ));
        }
        let store = Store::open(database).map_err(failed)?;
        let devices = store.devices().map_err(failed)?;
        let matching: Vec<&(String, Device, usize)> = devices
            .iter()
            .filter(|(fingerprint, device, _)| fingerprint.starts_with(wanted) || device.name == wanted)
            .collect();
        let names = |devices: &[&(String, Device, usize)]| {
            let names =
                devices.iter().map(|(fingerprint, device, _)| format!("{} ({fingerprint})", device.name));
            names.collect::<Vec<_>>().join(", ")
        };
        match matching[..] {
            [(fingerprint, device, _)] => Self::of(&store, device.clone(), fingerprint, precision),
            [] => Err(miette::miette!(
                help = "time something on it: `lathe measure CONFIG`, or `lathe fit --device NAME --budget 20 --space …`",
                "failed to find the device \"{wanted}\": the database {} has {}",
                database.display(),
                if devices.is_empty() {
                    "none".to_owned()
                } else {
                    names(&devices.iter().collect::<Vec<_>>())
                }
            )),
            _ => Err(miette::miette!(
                help = "name one of them by its fingerprint",
                "failed to choose the device \"{wanted}\": it stands for {}",
                names(&matching)
            )),
        }
    }

    /// The device with this fingerprint, and what was timed on it at this precision.
    pub fn of(
        store: &Store,
        device: Device,
        fingerprint: &str,
        precision: Precision,
    ) -> Result<Self, Report> {
        let filter = Filter { device: Some(fingerprint.to_owned()), ..Filter::default() };
        let mut rows = store.load(&filter).map_err(failed)?;
        rows.retain(|row| row.precision == precision);
        let workloads = store.workloads().map_err(failed)?;
        let evidence = evidence(&rows, precision)?;
        let fusion = Fusion::from_evidence(&evidence);
        let graphs = TimedGraph::of(&rows, &workloads, &fusion).map_err(failed)?;
        let networks =
            graphs.iter().filter(|graph| graph.network).filter_map(|graph| workloads.get(&graph.id));
        let networks = networks.map(|workload| workload.graph.clone()).collect();
        let provenance = rows.first().map_or(Provenance::Measured, |row| row.provenance);
        Ok(Self { device, graphs, networks, fusion, evidence, provenance, precision })
    }

    /// The model of all of it, with what its file says above it. Times of an emulator are refused
    /// unless they are asked for: they are latencies of nothing.
    pub fn fit(&self, allow_emulated: bool) -> Result<(KernelModel, ModelHeader), Report> {
        if self.provenance == Provenance::Emulated && !allow_emulated {
            return Err(miette::miette!(
                help = "--allow-emulated fits them all the same, for a trial of the tool",
                "failed to fit a model of {}: what is known of it was timed under an emulator, and is no latency of anything",
                self.device.name
            ));
        }
        let model = KernelModel::fit(&self.graphs, &self.fusion).map_err(failed)?;
        let header = ModelHeader {
            version: env!("CARGO_PKG_VERSION").into(),
            created: now(),
            device: self.device.clone(),
            provenance: self.provenance,
            precision: self.precision,
            rows: self.graphs.len(),
            networks: self.networks.len(),
            flagged: self.graphs.iter().filter(|graph| graph.flagged).count(),
            validation: model.validation,
            fusion: self.evidence.clone(),
        };
        Ok((model, header))
    }
}

/// What must be timed to know which operators an engine runs as one.
pub fn fusion_workloads(precision: Precision) -> Result<Vec<Workload>, Report> {
    let pairs = fusion_pairs().map_err(failed)?;
    let of_pairs = pairs.into_iter().flat_map(|pair| [pair.alone, pair.next, pair.both]);
    let all = std::iter::once(empty_run().map_err(failed)?).chain(of_pairs);
    Ok(distinct(all.map(|workload| workload.at(precision))))
}

/// What the measured pairs say at a precision; empty without any.
pub fn evidence(rows: &[Measurement], precision: Precision) -> Result<Vec<FusionEvidence>, Report> {
    let times = |workload: &Workload| {
        let id = workload.clone().at(precision).id();
        let summary = rows.iter().rfind(|row| row.workload == id && row.usable())?.summary()?;
        Some([summary.median.0, summary.low.0, summary.high.0])
    };
    let Some([overhead, ..]) = times(&empty_run().map_err(failed)?) else { return Ok(Vec::new()) };
    let found = fusion_pairs().map_err(failed)?.into_iter().filter_map(|pair| {
        let times = PairTimes {
            first: times(&pair.alone)?,
            second: times(&pair.next)?,
            both: times(&pair.both)?,
            overhead,
        };
        Some(FusionEvidence::of(&pair.first, &pair.second, times))
    });
    Ok(found.collect())
}
