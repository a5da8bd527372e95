//! The networks of all members timed once more, interleaved, on every device of the study.

use std::collections::BTreeMap;

use lathe_latency_db::{Device, Filter, Measurement, Provenance, Store, Summary};
use lathe_runners::Runner;
use lathe_search::StopReason;
use lathe_spaces::{Workload, WorkloadId};
use miette::Report;

use super::{
    Study,
    member::{Measured, Member},
};
use crate::{
    campaign::{Campaign, distinct},
    config::{DeviceConfig, OtherDevice},
    devices,
    failure::failed,
    run::network,
    run_devices::name_of,
};

/// What all networks took on one device.
pub struct Times {
    /// The study's name for it.
    pub name: String,
    /// The device.
    pub device: Device,
    /// Where the numbers come from.
    pub provenance: Provenance,
    /// Per network its median and interval.
    pub latencies: BTreeMap<WorkloadId, Summary>,
}

/// Times them, or what is left of them.
pub fn all(
    study: &Study<'_>,
    measured: &Measured,
    members: &[Member],
) -> Result<Result<Vec<Times>, StopReason>, Report> {
    let config = &study.config;
    let mut workloads = Vec::new();
    for member in members {
        for (name, genotype) in member.networks(study)? {
            let label = format!("{} {name}", member.title());
            workloads.push(network(&config.space(), &label, &genotype, config.measure.precision)?);
        }
    }
    let workloads = distinct(workloads);
    let mut wanted = vec![config.device.clone()];
    wanted.extend(config.objective.device.iter().map(OtherDevice::config));
    wanted.extend(study.plan.also.iter().map(|name| DeviceConfig {
        name: name.clone(),
        threads: 1,
        cpus: None,
    }));
    let campaign = format!("{}-compare", measured.campaign);
    let mut times: Vec<Times> = Vec::new();
    for device in wanted {
        let name = name_of(&device);
        let mut runner = devices::start(&device.name, device.threads, device.cpus.clone())?;
        let fingerprint = runner.device().fingerprint();
        if times.iter().any(|known| known.device.fingerprint() == fingerprint) {
            return Err(miette::miette!(
                help = "name every device once",
                "failed to compare on {name}: it is the same device as {}",
                times[0].name
            ));
        }
        study.terminal.say(&format!("{} networks, interleaved, on {name}", workloads.len()));
        let own = || -> Result<Vec<Measurement>, Report> {
            let filter = Filter {
                device: Some(fingerprint.clone()),
                campaign: Some(campaign.clone()),
                ..Filter::default()
            };
            let mut rows = Store::open(&config.database).map_err(failed)?.load(&filter).map_err(failed)?;
            rows.retain(Measurement::usable);
            Ok(rows)
        };
        let known = own()?;
        let missing: Vec<Workload> = workloads
            .iter()
            .filter(|workload| known.iter().all(|row| row.workload != workload.id()))
            .cloned()
            .collect();
        let timed = Campaign {
            name: &campaign,
            database: &config.database,
            protocol: config.measure.verify,
            seed: config.seed,
            stop: study.stop,
            again: true,
            title: "measure",
            terminal: study.terminal,
        }
        .time(&mut runner, &missing)?;
        if timed.is_none() {
            return Ok(Err(StopReason::Interrupted));
        }
        let latencies =
            own()?.into_iter().filter_map(|row| Some((row.workload.clone(), row.summary()?))).collect();
        let (device, provenance) = (runner.device().clone(), runner.provenance());
        times.push(Times { name, device, provenance, latencies });
    }
    Ok(Ok(times))
}
