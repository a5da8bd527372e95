//! Measures the network that would be derived while the search is going on.

use std::{cell::RefCell, collections::BTreeMap, fmt, ops::ControlFlow, path::PathBuf};

use lathe_latency_db::{CostTable, Measurement, Store};
use lathe_runners::{Job, Runner};
use lathe_search::{Event, Limit, Probe, RunRecord, Stage};
use lathe_spaces::{Genotype, Micros, Precision, Space};
use miette::Report;

use crate::{
    config::DeviceConfig,
    devices,
    run::{Run, network},
    stages::limits,
};

/// One device and what is believed of it.
struct Probed {
    name: String,
    config: DeviceConfig,
    table: CostTable,
    /// Name of its limit, and factor from its latency to the weighted one.
    limit: String,
    share: f64,
}

/// Measures on all devices of a run, and records what it measured: an epoch that comes again after an
/// interruption is answered from the record.
pub struct DeviceProbe<'r> {
    space: Space,
    precision: Precision,
    database: PathBuf,
    job: Job,
    devices: Vec<Probed>,
    /// Names of the limits that the search asks about.
    limits: Vec<String>,
    record: &'r RefCell<&'r mut RunRecord>,
}

impl fmt::Debug for DeviceProbe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceProbe").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Everything of a [`DeviceProbe`] but the record.
pub struct Prepared {
    space: Space,
    precision: Precision,
    database: PathBuf,
    job: Job,
    devices: Vec<Probed>,
    limits: Vec<String>,
}

impl Prepared {
    /// For all devices of a run that have a target, and these limits of the search in order.
    pub fn new(run: &Run<'_>, limits: &[Limit]) -> Result<Self, Report> {
        let shares = limits::weights(run)?;
        let mut devices = Vec::new();
        for (device, share) in shares {
            devices.push(Probed {
                table: run.table_on(&device)?,
                limit: device.limit_name(),
                name: device.name,
                config: device.config,
                share,
            });
        }
        Ok(Self {
            space: run.space.clone(),
            precision: run.config.measure.precision,
            database: run.config.database.clone(),
            job: run.job(Stage::Search, run.config.measure.verify),
            devices,
            limits: limits.iter().map(|limit| limit.name.clone()).collect(),
        })
    }

    /// With the record that it writes to.
    pub fn with<'r>(self, record: &'r RefCell<&'r mut RunRecord>) -> DeviceProbe<'r> {
        let Self { space, precision, database, job, devices, limits } = self;
        DeviceProbe { space, precision, database, job, devices, limits, record }
    }
}

impl DeviceProbe<'_> {
    /// Name, predicted and measured latency on every device.
    fn timed(&self, epoch: usize, genotype: &Genotype) -> Result<Vec<(String, Micros, Micros)>, Report> {
        let workload = network(&self.space, &format!("epoch-{epoch}"), genotype, self.precision)?;
        let store = Store::open(&self.database).map_err(crate::failure::failed)?;
        store.remember(std::slice::from_ref(&workload)).map_err(crate::failure::failed)?;
        let mut found = Vec::new();
        for device in &self.devices {
            let DeviceConfig { name, threads, cpus } = &device.config;
            let mut runner = devices::start(name, *threads, cpus.clone())?;
            if runner.device().fingerprint() != device.table.device {
                return Err(miette::miette!("{} is not the device that was measured before", device.name));
            }
            let mut rows: Vec<Measurement> = Vec::new();
            let result = runner.run(std::slice::from_ref(&workload), &self.job, &mut |row| {
                rows.push(row);
                ControlFlow::Continue(())
            });
            store.append(&self.job.campaign, &rows).map_err(crate::failure::failed)?;
            result.map_err(crate::failure::failed)?;
            let measured = rows.iter().filter(|row| row.usable()).find_map(Measurement::summary);
            let measured =
                measured.ok_or_else(|| miette::miette!("{} gave no usable measurement", device.name))?;
            let predicted = device.table.mean(&self.space, genotype).map_err(crate::failure::failed)?;
            found.push((device.name.clone(), predicted, measured.median));
        }
        Ok(found)
    }

    fn recorded(&self, epoch: usize, genotype: &str) -> Option<Vec<(String, Micros, Micros)>> {
        self.record.borrow().events().iter().find_map(|event| match event {
            Event::Probed { epoch: known, genotype: of, devices } if *known == epoch && of == genotype => {
                Some(devices.clone())
            }
            _ => None,
        })
    }
}

impl Probe for DeviceProbe<'_> {
    fn measure(&self, epoch: usize, genotype: &Genotype) -> Result<Vec<Option<f64>>, String> {
        let text = self.space.format(genotype);
        let timed = if let Some(devices) = self.recorded(epoch, &text) {
            devices
        } else {
            let devices = self.timed(epoch, genotype).map_err(|error| error.to_string())?;
            let event = Event::Probed { epoch, genotype: text, devices: devices.clone() };
            // What is not in the record could be another number after an interruption.
            self.record.borrow_mut().push(event).map_err(|error| error.to_string())?;
            devices
        };
        let measured: BTreeMap<&str, f64> =
            timed.iter().map(|(name, _, measured)| (name.as_str(), measured.0)).collect();
        let of = |device: &Probed| measured.get(device.name.as_str()).copied();
        let value = |limit: &String| {
            if *limit == Limit::WEIGHTED {
                return self.devices.iter().map(|device| Some(device.share * of(device)?)).sum();
            }
            self.devices.iter().find(|device| device.limit == *limit).and_then(of)
        };
        Ok(self.limits.iter().map(value).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_latency_db::{Protocol, Provenance};
    use lathe_spaces::{DartsSkeleton, Stem, Stream};

    use super::*;

    fn probed(name: &str, limit: &str, share: f64) -> Probed {
        let table = CostTable {
            space: "darts".into(),
            device: name.into(),
            provenance: Provenance::Measured,
            fixed: Micros::ZERO,
            slots: Vec::new(),
            relative_sigma: 0.0,
            ratio_quantiles: [1.0, 1.0],
            measured_range: [Micros::ZERO, Micros::ZERO],
        };
        let config = DeviceConfig { name: name.into(), threads: 1, cpus: None };
        Probed { name: name.into(), config, table, limit: limit.into(), share }
    }

    #[test]
    fn a_weighted_limit_is_told_the_weighted_sum_and_every_other_one_its_own_device() {
        let folder = tempfile::tempdir().unwrap();
        let skeleton = DartsSkeleton { stem: Stem::Cifar, width: 8, layers: 3, resolution: 8, classes: 10 };
        let space = Space::darts(skeleton);
        let genotype = space.sample(&mut Stream::new(1, "test probe", 0));
        let mut record = RunRecord::open(&folder.path().join("record.jsonl")).unwrap();
        // The record answers, no device: what a resumed search is told.
        let devices = [("here", 90.0, 100.0), ("there", 400.0, 500.0)];
        let devices =
            devices.map(|(name, predicted, time)| (name.to_owned(), Micros(predicted), Micros(time)));
        let event = Event::Probed { epoch: 4, genotype: space.format(&genotype), devices: devices.to_vec() };
        record.push(event).unwrap();
        let record = &mut record;
        let record = RefCell::new(record);
        // Targets 200 µs and 1 ms, weights 1 and 3, upper factors 1.1 and 1.2: shares of the weighted mean.
        let shares = [1.0 / 4.0 * 1.1 / 200.0, 3.0 / 4.0 * 1.2 / 1000.0];
        let prepared = Prepared {
            space: space.clone(),
            precision: Precision::Fp32,
            database: folder.path().join("database"),
            job: Job::new("test", Protocol::SCREENING, 1),
            devices: vec![
                probed("here", "latency", shares[0]),
                probed("there", "latency on there", shares[1]),
            ],
            limits: ["latency", "latency on there", Limit::WEIGHTED, "macs"].map(str::to_owned).to_vec(),
        };
        let told = prepared.with(&record).measure(4, &genotype).unwrap();
        let weighted = told[2].unwrap();
        assert_eq!([told[0], told[1], told[3]], [Some(100.0), Some(500.0), None]);
        let by_hand = (1.0 * 100.0 * 1.1 / 200.0 + 3.0 * 500.0 * 1.2 / 1000.0) / 4.0;
        assert!((weighted - by_hand).abs() < 1e-12, "{weighted}, by hand {by_hand}");
    }
}
