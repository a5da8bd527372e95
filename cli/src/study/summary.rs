//! What a study came to: every network, the mean and spread of every approach, fronts and their hypervolumes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use lathe_latency_db::Device;
use lathe_reports::{Study as Summary, StudyDevice, StudyGroup, StudyNetwork, StudyVolume};
use lathe_search::{Event, Origin, StopReason, evolution::hypervolume};
use lathe_spaces::Micros;
use miette::Report;

use super::{
    Approach, Study,
    compare::Times,
    ending,
    member::{Measured, Member},
};
use crate::{failure::failed, run::network, run_directory::write_atomically, terminal::table};

/// Name of the JSON file.
pub const FILE: &str = "summary.json";
/// Ways of finding a network, in the order of the table.
const WAYS: [&str; 4] = [
    Approach::Latency.word(),
    Approach::Evolved.word(),
    Approach::Macs.word(),
    Approach::Unconstrained.word(),
];
/// Columns of the table.
const HEADER: [&str; 7] = ["found by", "target", "n", "test accuracy, %", "latency", "met", "chosen, %"];
/// Slowest latency that a hypervolume counts, over the slowest of all networks.
const MARGIN: f64 = 1.05;

/// Of a study whose members all ended.
pub fn of(
    study: &Study<'_>,
    measured: &Measured,
    members: &[Member],
    times: &[Times],
) -> Result<Summary, Report> {
    let mut networks = Vec::new();
    let mut failures = Vec::new();
    let mut test_images = 0;
    for member in members {
        let events = member.events(study)?;
        let before = networks.len();
        networks.extend(of_member(study, member, &events, times)?);
        for event in &events {
            if let Event::Trained { test_images: images, .. } = event {
                test_images = *images;
            }
        }
        if networks.len() == before {
            failures.push((member.approach.word().to_owned(), member.target, reason(ending(&events))));
        }
    }
    let first = times.first().map(|times| times.name.clone()).unwrap_or_default();
    choose(&mut networks);
    let groups = groups(&networks, &failures, &first);
    let chance = 1.0 / study.config.space.classes() as f64;
    let slowest = networks.iter().filter_map(|network| median(network, &first)).fold(0.0, f64::max);
    let reference = (chance, Micros(slowest * MARGIN));
    Ok(Summary {
        name: study.config.name.clone(),
        seeds: study.plan.seeds,
        seed: study.config.seed,
        version: env!("CARGO_PKG_VERSION").into(),
        devices: times
            .iter()
            .map(|times| StudyDevice {
                name: times.name.clone(),
                provenance: times.provenance,
                device: times.device.clone(),
            })
            .collect(),
        targets: measured.targets.clone(),
        macs: measured.macs.clone(),
        test_images,
        volumes: volumes(&networks, &first, reference, study.plan.seeds),
        groups,
        reference,
        networks,
    })
}

/// Writes data and page into the study's directory; returns the page's path.
pub fn write(summary: &Summary, directory: &Path) -> Result<PathBuf, Report> {
    let text = serde_json::to_string_pretty(summary).map_err(failed)?;
    write_atomically(&directory.join(FILE), text.as_bytes()).map_err(failed)?;
    summary.write(directory).map_err(failed)
}

/// The data of a finished study; `None` if the directory holds none.
pub fn read(directory: &Path) -> Result<Option<Summary>, Report> {
    let path = directory.join(FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let broken = |error: String| miette::miette!("failed to read {}: {error}", path.display());
    let text = std::fs::read_to_string(&path).map_err(|error| broken(error.to_string()))?;
    serde_json::from_str(&text).map(Some).map_err(|error| broken(error.to_string()))
}

/// For a terminal.
pub fn text(summary: &Summary) -> String {
    let first = summary.devices.first();
    let mut lines = Vec::new();
    if let Some(on) = first {
        lines.push(format!("latency on {}, {}, all networks interleaved", on.name, on.provenance));
    }
    lines.push(table(&HEADER, &cells(summary)));
    for group in &summary.groups {
        for reason in &group.failed {
            lines.push(format!("{}: {reason}", group.approach));
        }
    }
    lines.push(String::new());
    lines.push(format!(
        "hypervolume above {:.0} % and below {}, mean over the seeds:",
        summary.reference.0 * 100.0,
        summary.reference.1
    ));
    lines.extend(
        summary
            .volumes
            .iter()
            .map(|volume| format!("  {:<14} {:.4} ± {:.4}", volume.approach, volume.mean[0], volume.mean[1])),
    );
    lines.join("\n")
}

/// For a document, with what the numbers depend on.
pub fn markdown(summary: &Summary) -> String {
    let row = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let none = || "–".to_owned();
    let percent = |share: f64| format!("{:.1}", share * 100.0);
    let mut lines = vec![format!(
        "Study `{}`, {} seeds from {} on, Lathe {}; {} test images.",
        summary.name, summary.seeds, summary.seed, summary.version, summary.test_images
    )];
    for on in &summary.devices {
        let Device { model, cores, threads, engine, os, .. } = &on.device;
        lines.push(format!(
            "Device {}: {model}, {threads} of {cores} cores, {} {}, {os} (fingerprint {}), latencies {}.",
            on.name,
            engine.name,
            engine.version,
            on.device.fingerprint(),
            on.provenance
        ));
    }
    lines.push(String::new());
    lines.push(row(HEADER.map(str::to_owned).to_vec()));
    lines.push(row(HEADER.map(|_| "---".to_owned()).to_vec()));
    lines.extend(cells(summary).into_iter().map(row));
    for group in &summary.groups {
        lines.extend(group.failed.iter().map(|reason| format!("\n{}: {reason}.", group.approach)));
    }
    lines.push(format!(
        "\nHypervolume above {:.0} % and below {}, mean ± standard deviation over the seeds:\n",
        summary.reference.0 * 100.0,
        summary.reference.1
    ));
    lines.extend(
        summary
            .volumes
            .iter()
            .map(|volume| format!("- {}: {:.4} ± {:.4}", volume.approach, volume.mean[0], volume.mean[1])),
    );
    lines.push(String::new());
    let mut header: Vec<String> =
        ["found by", "seed", "target", "expected", "derived without limit", "predicted [90 %]"]
            .map(str::to_owned)
            .to_vec();
    header.extend(summary.devices.iter().map(|on| format!("{} on {} [95 %]", on.provenance, on.name)));
    header.extend(["test accuracy, %", "held-out accuracy, %", "MMAC", "genotype"].map(str::to_owned));
    lines.push(row(header.clone()));
    lines.push(row(header.iter().map(|_| "---".to_owned()).collect()));
    for network in &summary.networks {
        let time = |time: Option<Micros>| time.map_or_else(none, |time| time.to_string());
        let mut cells = vec![
            format!("{}{}", network.approach, if network.chosen { " (chosen)" } else { "" }),
            network.seed.to_string(),
            time(network.target),
            time(network.expected),
            time(network.unlimited),
            network.predicted.map_or_else(none, |p| format!("{} [{} … {}]", p.mean, p.low, p.high)),
        ];
        for on in &summary.devices {
            let latency = network.latencies.get(&on.name);
            cells.push(latency.map_or_else(none, |l| format!("{} [{} … {}]", l.median, l.low, l.high)));
        }
        cells.push(network.test_accuracy.map_or_else(none, percent));
        cells.push(network.validation_accuracy.map_or_else(none, percent));
        cells.push(format!("{:.2}", network.macs as f64 / 1e6));
        cells.push(format!("`{}`", network.genotype));
        lines.push(row(cells));
    }
    lines.join("\n")
}

/// Rows of the table.
fn cells(summary: &Summary) -> Vec<Vec<String>> {
    let none = || "–".to_owned();
    let row = |group: &StudyGroup| {
        let [mean, deviation] = group.accuracy.map(|share| share * 100.0);
        let [least, middle, most] = group.latency;
        let measured = group.networks > 0;
        vec![
            group.approach.clone(),
            group.target.map_or_else(none, |target| target.to_string()),
            group.networks.to_string(),
            if measured { format!("{mean:.1} ± {deviation:.1}") } else { none() },
            match group.networks {
                0 => none(),
                1 => middle.to_string(),
                _ => format!("{middle} [{least} … {most}]"),
            },
            group.target.map_or_else(none, |_| format!("{}/{}", group.met, group.networks)),
            group.chosen.map_or_else(none, |accuracy| format!("{:.1}", accuracy * 100.0)),
        ]
    };
    summary.groups.iter().map(row).collect()
}

/// The networks of one member.
fn of_member(
    study: &Study<'_>,
    member: &Member,
    events: &[Event],
    times: &[Times],
) -> Result<Vec<StudyNetwork>, Report> {
    let space = study.config.space();
    let last_epoch = events.iter().rev().find_map(|event| match event {
        Event::Epoch { expected, derived, .. } => Some((*expected, *derived)),
        _ => None,
    });
    let mut found = Vec::new();
    for event in events {
        let Event::Candidate { name, origin, genotype, predicted, parameters, macs, .. } = event else {
            continue;
        };
        let own = matches!(origin, Origin::Searched | Origin::Evolved);
        let parsed = space.parse(genotype).map_err(failed)?;
        let id = network(&space, name, &parsed, study.config.measure.precision)?.id();
        let latencies =
            times.iter().filter_map(|times| Some((times.name.clone(), *times.latencies.get(&id)?))).collect();
        let trained = events.iter().find_map(|event| match event {
            Event::Trained { candidate, test_accuracy, validation_accuracy, .. } if candidate == name => {
                Some((*test_accuracy, *validation_accuracy))
            }
            _ => None,
        });
        found.push(StudyNetwork {
            approach: match origin {
                // `random-0`, or the name of a proxy with a number.
                Origin::Random => name.rsplit_once('-').map_or(name.as_str(), |(word, _)| word).to_owned(),
                Origin::Published => name.clone(),
                Origin::Searched | Origin::Evolved => member.approach.word().to_owned(),
            },
            target: member.target.filter(|_| own),
            seed: member.seed + 1,
            name: name.clone(),
            genotype: genotype.clone(),
            predicted: *predicted,
            expected: last_epoch.filter(|_| own).and_then(|(expected, _)| expected),
            unlimited: last_epoch.filter(|_| own).and_then(|(_, derived)| derived),
            test_accuracy: trained.map(|(test, _)| test),
            validation_accuracy: trained.and_then(|(_, validation)| validation),
            parameters: *parameters,
            macs: *macs,
            latencies,
            chosen: false,
        });
    }
    Ok(found)
}

/// Marks of every group the network that the held-out images like best, the first among equals.
fn choose(networks: &mut [StudyNetwork]) {
    let mut best: BTreeMap<(String, Option<u64>), (f64, usize)> = BTreeMap::new();
    for (index, network) in networks.iter().enumerate() {
        let Some(accuracy) = network.validation_accuracy else { continue };
        let key = (network.approach.clone(), network.target.map(|target| target.0.to_bits()));
        let known = best.entry(key).or_insert((f64::NEG_INFINITY, index));
        if accuracy > known.0 {
            *known = (accuracy, index);
        }
    }
    for (_, index) in best.into_values() {
        networks[index].chosen = true;
    }
}

fn median(network: &StudyNetwork, device: &str) -> Option<f64> {
    network.latencies.get(device).map(|latency| latency.median.0)
}

/// Mean, and standard deviation with n − 1 (0 for a single value).
fn mean_and_deviation(values: &[f64]) -> [f64; 2] {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    [mean, if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 }]
}

fn groups(
    networks: &[StudyNetwork],
    failures: &[(String, Option<Micros>, String)],
    device: &str,
) -> Vec<StudyGroup> {
    let mut keys: Vec<(String, Option<Micros>)> = Vec::new();
    let of_networks = networks.iter().map(|network| (network.approach.clone(), network.target));
    for key in of_networks.chain(failures.iter().map(|(word, target, _)| (word.clone(), *target))) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    // One way after the other, baselines last, as they were named.
    let way = |word: &str| WAYS.iter().position(|known| *known == word).unwrap_or(WAYS.len());
    keys.sort_by(|(left, a), (right, b)| {
        let micros = |target: &Option<Micros>| target.map_or(0.0, |target| target.0);
        way(left).cmp(&way(right)).then(micros(a).total_cmp(&micros(b)))
    });
    let group = |(approach, target): (String, Option<Micros>)| {
        let own = |network: &&StudyNetwork| network.approach == approach && network.target == target;
        let accuracies: Vec<f64> =
            networks.iter().filter(own).filter_map(|network| network.test_accuracy).collect();
        let times: Vec<f64> =
            networks.iter().filter(own).filter_map(|network| median(network, device)).collect();
        let [least, most] =
            [times.iter().copied().fold(f64::INFINITY, f64::min), times.iter().copied().fold(0.0, f64::max)];
        let met = target.map_or(0, |target| times.iter().filter(|time| **time <= target.0).count());
        let chosen = networks.iter().filter(own).find(|network| network.chosen);
        StudyGroup {
            networks: accuracies.len(),
            failed: failures
                .iter()
                .filter(|(word, failed, _)| *word == approach && *failed == target)
                .map(|(_, _, reason)| reason.clone())
                .collect(),
            accuracy: mean_and_deviation(&accuracies),
            latency: [least, mean_and_deviation(&times)[0], most].map(Micros),
            met,
            chosen: chosen.and_then(|network| network.test_accuracy),
            approach,
            target,
        }
    };
    keys.into_iter().map(group).collect()
}

/// Per approach and seed the area that its networks dominate, as a share of everything between the reference and a
/// network that is always right and takes no time.
fn volumes(
    networks: &[StudyNetwork],
    device: &str,
    reference: (f64, Micros),
    seeds: usize,
) -> Vec<StudyVolume> {
    let mut words: Vec<&str> = Vec::new();
    for network in networks {
        if !words.contains(&network.approach.as_str()) {
            words.push(&network.approach);
        }
    }
    let (chance, slowest) = reference;
    let of = |word: &str| {
        let seeds: Vec<f64> = (1..=seeds)
            .map(|seed| {
                let own = networks.iter().filter(|network| network.approach == word && network.seed == seed);
                let points: Vec<Vec<f64>> = own
                    .filter_map(|network| Some(vec![-network.test_accuracy?, median(network, device)?]))
                    .collect();
                hypervolume(&points, &[-chance, slowest.0]) / ((1.0 - chance) * slowest.0)
            })
            .collect();
        StudyVolume { approach: word.to_owned(), mean: mean_and_deviation(&seeds), seeds }
    };
    words.into_iter().map(of).collect()
}

fn reason(stop: Option<&StopReason>) -> String {
    match stop {
        Some(StopReason::Infeasible { target, fastest, .. }) => {
            format!("no network is predicted to meet {target}; the fastest may need {fastest}")
        }
        Some(StopReason::LimitsInfeasible { what, .. } | StopReason::LimitsUndecided { what, .. }) => {
            what.clone()
        }
        Some(StopReason::LimitAboveReach { limit, quantity, at_most, reachable: [_, most] }) => {
            let [at_most, most] = [at_most, most].map(|value| quantity.show(*value));
            format!("no network comes up to the limit of {limit}, {at_most}; the greatest bound is {most}")
        }
        Some(other) => format!("{other:?}"),
        None => "not finished".into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_latency_db::Summary as Latency;

    use super::*;

    fn network(approach: &str, seed: usize, accuracy: f64, micros: f64) -> StudyNetwork {
        // Ten equal samples, in nanoseconds.
        let time = Latency::of(&[(micros * 1e3) as u64; 10], &[10]).unwrap();
        StudyNetwork {
            approach: approach.into(),
            target: None,
            seed,
            name: "n".into(),
            genotype: String::new(),
            predicted: None,
            expected: None,
            unlimited: None,
            test_accuracy: Some(accuracy),
            validation_accuracy: Some(1.0 - accuracy),
            parameters: 1,
            macs: 1,
            latencies: [("d".to_owned(), time)].into(),
            chosen: false,
        }
    }

    #[test]
    fn held_out_images_choose_and_test_images_do_not() {
        let mut networks =
            vec![network("a", 1, 0.9, 5.0), network("a", 2, 0.2, 5.0), network("b", 1, 0.5, 5.0)];
        choose(&mut networks);
        let chosen: Vec<bool> = networks.iter().map(|network| network.chosen).collect();
        assert_eq!(chosen, [false, true, true], "the validation accuracy is 1 − the test accuracy here");
        let groups = groups(&networks, &[("c".into(), None, "why".into())], "d");
        assert_eq!(groups[0].chosen, Some(0.2));
        assert!((groups[0].accuracy[0] - 0.55).abs() < 1e-12);
        assert!((groups[0].accuracy[1] - 0.7 / 2.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!((groups[2].networks, groups[2].failed.clone()), (0, vec!["why".to_owned()]));
    }

    #[test]
    fn volumes_are_shares_of_the_rectangle_seed_by_seed() {
        let networks =
            [network("a", 1, 0.55, 50.0), network("a", 2, 0.1, 10.0), network("b", 1, 0.55, 100.0)];
        let volumes = volumes(&networks, "d", (0.1, Micros(100.0)), 2);
        // 0.45 of 0.9, half of the time; nothing above chance; nothing below the slowest.
        assert!((volumes[0].seeds[0] - 0.25).abs() < 1e-12, "{volumes:?}");
        assert!(volumes[0].seeds[1].abs() < 1e-12);
        assert!(volumes[1].seeds.iter().all(|volume| volume.abs() < 1e-12));
        assert!((volumes[0].mean[0] - 0.125).abs() < 1e-12);
    }
}
