//! The devices that a run's network must suit: that of `[device]`, then those of `[[objective.device]]`.

use lathe_latency_db::{CostTable, Device, Provenance};
use lathe_runners::Runner;
use lathe_search::{Event, Extremes, Limit, Quantity, WholeCosts};
use lathe_spaces::Micros;
use miette::Report;

use crate::{
    config::DeviceConfig,
    devices::{self, DeviceRunner},
    failure::failed,
    latency_model::LatencyModel,
    run::Run,
    stages::fit::TABLE,
};

/// One of a run's devices.
#[derive(Clone, Debug, PartialEq)]
pub struct RunDevice {
    /// Position; 0 is the device of `[device]`.
    pub index: usize,
    /// What the run calls it.
    pub name: String,
    /// Which one it is.
    pub config: DeviceConfig,
    /// Target in milliseconds.
    pub target_ms: Option<f64>,
    /// Target as a quantile of the random networks measured there.
    pub target_quantile: Option<f64>,
    /// Weight of its latency where one weighted target stands for all.
    pub weight: f64,
}

impl RunDevice {
    /// A name of the run's directory that this device has a file of its own under.
    pub fn file(&self, stem: &str, extension: &str) -> String {
        match self.index {
            0 => format!("{stem}.{extension}"),
            index => format!("{stem}-{}.{extension}", index + 1),
        }
    }

    /// Name of the limit on its latency.
    pub fn limit_name(&self) -> String {
        match self.index {
            0 => "latency".into(),
            _ => format!("latency on {}", self.name),
        }
    }

    /// Its latency model's file.
    pub fn table_file(&self) -> String {
        let (stem, extension) = TABLE.split_once('.').unwrap_or((TABLE, "json"));
        self.file(stem, extension)
    }
}

/// `local (2 threads)`.
pub fn name_of(config: &DeviceConfig) -> String {
    format!("{} ({} thread{})", config.name, config.threads, if config.threads == 1 { "" } else { "s" })
}

impl Run<'_> {
    /// All devices of this run.
    pub fn devices(&self) -> Vec<RunDevice> {
        let objective = &self.config.objective;
        let first = RunDevice {
            index: 0,
            name: if objective.device.is_empty() {
                self.config.device.name.clone()
            } else {
                name_of(&self.config.device)
            },
            config: self.config.device.clone(),
            target_ms: objective.target_ms,
            target_quantile: objective.target_quantile,
            weight: objective.device_weight,
        };
        let others = objective.device.iter().enumerate().map(|(index, other)| RunDevice {
            index: index + 1,
            name: name_of(&other.config()),
            config: other.config(),
            target_ms: other.target_ms,
            target_quantile: other.target_quantile,
            weight: other.weight,
        });
        std::iter::once(first).chain(others).collect()
    }

    /// A device, probed. A run stays on the devices that it began with.
    pub fn runner_on(&self, device: &RunDevice) -> Result<DeviceRunner, Report> {
        let DeviceConfig { name, threads, cpus } = &device.config;
        let runner = devices::start(name, *threads, cpus.clone())?;
        let now = runner.device().fingerprint();
        for other in self.devices() {
            let Some(known) = self.probed(&other).map(Device::fingerprint) else { continue };
            if other.index == device.index && known != now {
                return Err(miette::miette!(
                    help = "latencies of two devices don't mix: start a new run for this one",
                    "failed to go on: this run was measured on device {known}, now it is {now}"
                ));
            }
            if other.index != device.index && known == now {
                return Err(miette::miette!(
                    help = "give `[[objective.device]]` other threads, cores or another device",
                    "failed to measure on {}: it is the same device as {}",
                    device.name,
                    other.name
                ));
            }
        }
        Ok(runner)
    }

    /// What a device is, once it was probed.
    pub fn probed(&self, device: &RunDevice) -> Option<&Device> {
        self.probe_facts(device).map(|(probed, _)| probed)
    }

    /// Where a device's latencies come from.
    pub fn provenance_on(&self, device: &RunDevice) -> Provenance {
        self.probe_facts(device).map_or(Provenance::Measured, |(_, provenance)| provenance)
    }

    fn probe_facts(&self, device: &RunDevice) -> Option<(&Device, Provenance)> {
        self.directory.record.events().iter().find_map(|event| match event {
            Event::Device { device: probed, provenance, .. } if device.index == 0 => {
                Some((probed, *provenance))
            }
            Event::OtherDevice { name, device: probed, provenance, .. } if *name == device.name => {
                Some((probed, *provenance))
            }
            _ => None,
        })
    }

    /// The fingerprint of a device, which must have been probed.
    pub fn fingerprint_on(&self, device: &RunDevice) -> Result<String, Report> {
        self.probed(device).map(Device::fingerprint).ok_or_else(|| {
            miette::miette!(
                help = "run `lathe measure` first",
                "failed to go on: nothing was measured on {}",
                device.name
            )
        })
    }

    /// The cost table that the fit wrote for a device.
    pub fn table_on(&self, device: &RunDevice) -> Result<CostTable, Report> {
        CostTable::load(&self.path(&device.table_file())).map(|(table, _)| table).map_err(failed)
    }

    /// The model that the fit wrote for a device.
    pub fn model_on(&self, device: &RunDevice) -> Result<LatencyModel, Report> {
        LatencyModel::load(&self.path(&device.table_file()), &self.space)
    }

    /// The target on a device that the fit resolved.
    pub fn target_on(&self, device: &RunDevice) -> Option<Micros> {
        self.directory.record.events().iter().find_map(|event| match event {
            Event::Target { target, .. } if device.index == 0 => *target,
            Event::OtherFitted { name, target, .. } if *name == device.name => Some(*target),
            _ => None,
        })
    }

    /// The limit on the latency of a device, if it has a target.
    pub fn latency_limit(&self, device: &RunDevice) -> Result<Option<Limit>, Report> {
        let Some(target) = self.target_on(device) else { return Ok(None) };
        let name = device.limit_name();
        let model = match self.model_on(device)? {
            LatencyModel::Table(table) => {
                return Limit::latency(&name, &self.space, &table, target).map(Some).map_err(failed);
            }
            LatencyModel::Kernels(model) => model,
        };
        let ends = self.directory.record.events().iter().find_map(|event| match event {
            Event::Reachable { device: of, range, least } if *of == device.name => {
                let least = self.space.parse(least).ok()?;
                Some(Extremes { range: range.map(|end| end.0), least })
            }
            _ => None,
        });
        let costs = WholeCosts::Kernels(model);
        let ends = match ends {
            Some(ends) => ends,
            None => Extremes::of(&self.space, &costs, self.config.seed).map_err(failed)?,
        };
        Ok(Some(Limit::whole(&name, Quantity::Latency, costs, ends, target.0)))
    }
}
