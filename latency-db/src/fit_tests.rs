//! Fits to a made-up device whose composition is known.

use lathe_spaces::{Nas201Skeleton, Slot};
use rand::RngExt;

use super::*;
use crate::{
    CostError, Outcome, Provenance,
    sample_rows::{at_batch, row},
};

fn space() -> Space {
    Space::nas201(Nas201Skeleton { width: 8, cells: 2, resolution: 16, classes: 10 })
}

/// How the made-up device composes: operators cost more or less inside a network than alone.
fn scale(choice: &str) -> f64 {
    match choice {
        "nor_conv_3x3" => 0.7,
        "nor_conv_1x1" => 0.9,
        "avg_pool_3x3" => 1.3,
        _ => 1.0,
    }
}
const FIXED_SCALE: f64 = 0.9;
const PER_OPERATOR: f64 = 3.0;
const PER_NETWORK: f64 = 40.0;

fn measurement(workload: &Workload, micros: f64) -> Measurement {
    let id = workload.id();
    let base = row(&id.0, (micros * 1e3) as u64);
    Measurement { workload: id, label: workload.label.clone(), level: workload.level, ..base }
}

/// Alone, an operator takes a start-up time and a time per multiply-accumulate.
fn alone(workload: &Workload) -> f64 {
    12.0 + workload.graph.macs() as f64 / 4_000.0
}

struct World {
    space: Space,
    networks: Vec<(String, Genotype)>,
    rows: Vec<Measurement>,
}

/// Measures all parts and `count` random networks, with relative noise on the networks.
fn world(count: usize, noise: f64) -> World {
    let space = space();
    let mut stream = Stream::new(3, "test networks", 0);
    let mut rows: Vec<Measurement> = PartWorkloads::of(&space, Precision::Fp32)
        .unwrap()
        .all()
        .map(|workload| (workload.id(), measurement(workload, alone(workload))))
        .collect::<BTreeMap<_, _>>()
        .into_values()
        .collect();
    let mut networks = Vec::new();
    for index in 0..count {
        let genotype = space.sample(&mut stream);
        let factor = 1.0 + noise * stream.random_range(-1.0..1.0);
        rows.push(network_row(&space, &genotype, factor));
        networks.push((format!("network {index}"), genotype));
    }
    World { space, networks, rows }
}

fn network_row(space: &Space, genotype: &Genotype, factor: f64) -> Measurement {
    let graph = space.network(genotype, NetworkOptions::default()).unwrap();
    measurement(&Workload::new("network", Level::Network, graph), truth(space, genotype) * factor)
}

fn truth(space: &Space, genotype: &Genotype) -> f64 {
    let fixed: f64 = space.fixed().unwrap().iter().map(alone).sum();
    let mut total = FIXED_SCALE * fixed + PER_NETWORK;
    for (block, picks) in genotype.blocks.iter().enumerate() {
        for (node, picks) in picks.nodes.iter().enumerate() {
            for pick in picks {
                let slot = space.slot_of(block, node, pick).unwrap();
                for workload in space.instances(slot, &pick.choice).unwrap() {
                    total += scale(&pick.choice) * alone(&workload) + PER_OPERATOR;
                }
            }
        }
    }
    total
}

#[test]
fn a_known_composition_is_recovered_through_noise() {
    let world = world(40, 0.02);
    let fitted = fit(&world.space, &world.networks, &world.rows, &FitOptions::default()).unwrap();
    let quality = &fitted.quality;
    assert!(quality.median_relative_error < 0.03, "{quality:?}");
    assert!(quality.within_ten_percent > 0.95 && quality.spearman > 0.97, "{quality:?}");
    assert!(quality.selection_regret < 0.05 && quality.folds == 5, "{quality:?}");
    let ratios = fitted.table.ratio_quantiles;
    assert!(ratios[0] < 1.0 && 1.0 < ratios[1], "{ratios:?}");
    assert!(fitted.coefficients.iter().all(|(_, value)| *value >= 0.0));
    // On networks that no fit ever saw.
    let mut stream = Stream::new(4, "unseen networks", 0);
    for _ in 0..50 {
        let genotype = world.space.sample(&mut stream);
        let error =
            fitted.table.mean(&world.space, &genotype).unwrap().0 / truth(&world.space, &genotype) - 1.0;
        assert!(error.abs() < 0.06, "{error}");
    }
}

#[test]
fn the_table_is_the_model_itself() {
    let world = world(12, 0.05);
    let fitted = fit(&world.space, &world.networks, &world.rows, &FitOptions::default()).unwrap();
    let rows: Vec<&Measurement> = world.rows.iter().collect();
    let parts = PartWorkloads::of(&world.space, Precision::Fp32)
        .unwrap()
        .measured(&Pool::of(&pooled(&rows)))
        .unwrap();
    let named: BTreeMap<&str, f64> =
        fitted.coefficients.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let mut stream = Stream::new(5, "test", 0);
    for _ in 0..100 {
        let genotype = world.space.sample(&mut stream);
        let features = parts.features(&world.space, &genotype);
        let mut model = named["fixed"] * features.fixed + named["per network (µs)"];
        for (choice, part) in &features.choices {
            model += named[choice.as_str()] * part.sum + named["per operator (µs)"] * part.count;
        }
        let mean = fitted.table.mean(&world.space, &genotype).unwrap();
        assert!((mean.0 / model - 1.0).abs() < 1e-12, "{mean} {model}");
        let shares = fitted.table.shares(&world.space, &genotype).unwrap();
        let total: Micros = shares.iter().map(|(_, cost)| *cost).sum();
        assert!((total / mean - 1.0).abs() < 1e-12);
        assert!(shares.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    }
}

#[test]
fn reachable_is_the_exact_range_of_the_whole_space() {
    let world = world(8, 0.0);
    let table = fit(&world.space, &world.networks, &world.rows, &FitOptions::default()).unwrap().table;
    let mut range = [f64::INFINITY, 0.0_f64];
    for genotype in world.space.enumerate().unwrap() {
        let mean = table.mean(&world.space, &genotype).unwrap().0;
        range = [range[0].min(mean), range[1].max(mean)];
    }
    let reachable = table.reachable(&world.space).unwrap();
    assert!((reachable[0].0 / range[0] - 1.0).abs() < 1e-12, "{reachable:?} {range:?}");
    assert!((reachable[1].0 / range[1] - 1.0).abs() < 1e-12, "{reachable:?} {range:?}");
}

#[test]
fn few_networks_are_left_out_one_by_one() {
    let world = world(8, 0.01);
    let fitted = fit(&world.space, &world.networks, &world.rows, &FitOptions::default()).unwrap();
    assert_eq!((fitted.quality.folds, fitted.quality.points.len()), (8, 8));
    assert!(fitted.quality.median_relative_error < 0.1, "{:?}", fitted.quality);
}

#[test]
fn a_fit_is_repeatable() {
    let world = world(15, 0.05);
    let one = fit(&world.space, &world.networks, &world.rows, &FitOptions::default()).unwrap();
    let two = fit(&world.space, &world.networks, &world.rows, &FitOptions::default()).unwrap();
    assert_eq!(one, two);
}

#[test]
fn a_prediction_says_whether_it_leaves_the_measured_range() {
    let world = world(20, 0.02);
    let mut table = fit(&world.space, &world.networks, &world.rows, &FitOptions::default()).unwrap().table;
    let genotype = &world.networks[0].1;
    let mean = table.mean(&world.space, genotype).unwrap();
    table.measured_range = [mean * 0.9, mean * 1.1];
    let prediction = table.predict(&world.space, genotype).unwrap();
    assert_eq!(prediction.source, crate::Source::Interpolated);
    assert!(prediction.low < prediction.mean && prediction.mean < prediction.high);
    table.measured_range[1] = mean * 0.95;
    assert_eq!(table.predict(&world.space, genotype).unwrap().source, crate::Source::Extrapolated);
}

#[test]
fn missing_and_failed_operators_are_named() {
    let mut world = world(8, 0.0);
    let operator = |rows: &[Measurement]| {
        rows.iter()
            .position(|row| row.level == Level::Operator)
            .map(|place| (place, rows[place].label.clone()))
    };
    let (place, gone) = operator(&world.rows).unwrap();
    world.rows.remove(place);
    let (place, failed) = operator(&world.rows).unwrap();
    world.rows[place].outcome = Outcome::Timeout;
    let error = fit(&world.space, &world.networks, &world.rows, &FitOptions::default()).unwrap_err();
    let FitError::Missing { workloads } = &error else { panic!("{error}") };
    assert_eq!(workloads.len(), 2);
    assert!(workloads.contains(&gone) && workloads.contains(&format!("{failed} (timeout)")), "{workloads:?}");
    assert!(error.to_string().contains("lathe measure --only-missing"), "{error}");
}

#[test]
fn kinds_and_devices_are_not_mixed() {
    let world = world(8, 0.0);
    let options = FitOptions::default();
    let mut emulated = world.rows.clone();
    for row in &mut emulated {
        row.provenance = Provenance::Emulated;
    }
    let error = fit(&world.space, &world.networks, &emulated, &options).unwrap_err();
    assert!(matches!(error, FitError::Emulated), "{error}");
    let forced = FitOptions { allow_emulated: true, ..options.clone() };
    let table = fit(&world.space, &world.networks, &emulated, &forced).unwrap().table;
    assert_eq!(table.provenance, Provenance::Emulated);
    for kind in [Provenance::Published, Provenance::CompilerEstimate] {
        let mut mixed = world.rows.clone();
        mixed.last_mut().unwrap().provenance = kind;
        let error = fit(&world.space, &world.networks, &mixed, &options).unwrap_err();
        assert!(matches!(&error, FitError::MixedProvenance { kinds } if kinds.len() == 2), "{error}");
        let allowed = FitOptions { allow_mixed_provenance: true, ..options.clone() };
        let table = fit(&world.space, &world.networks, &mixed, &allowed).unwrap().table;
        assert_eq!(table.provenance, kind);
    }

    let mut two = world.rows.clone();
    two.last_mut().unwrap().device.threads = 2;
    let error = fit(&world.space, &world.networks, &two, &options).unwrap_err();
    assert!(matches!(&error, FitError::MixedDevices { devices } if devices.len() == 2), "{error}");
}

#[test]
fn latencies_of_eight_images_are_no_part_of_a_fit() {
    let world = world(8, 0.0);
    let options = FitOptions::default();
    let table = fit(&world.space, &world.networks, &world.rows, &options).unwrap().table;
    // The same parts and networks on eight images, many times as slow and with more samples: they would win.
    let mut workloads: Vec<Workload> =
        PartWorkloads::of(&world.space, Precision::Fp32).unwrap().all().cloned().collect();
    for (label, genotype) in &world.networks {
        let graph = world.space.network(genotype, NetworkOptions::default()).unwrap();
        workloads.push(Workload::new(label.as_str(), Level::Network, graph));
    }
    let mut rows = world.rows.clone();
    for (index, workload) in workloads.iter().enumerate() {
        let graph = at_batch(&workload.graph, 8);
        let mut row = measurement(&Workload { graph, ..workload.clone() }, 1e5 + index as f64);
        row.samples_ns.extend(row.samples_ns.clone());
        row.samples_per_process.extend([30, 30]);
        rows.push(row);
    }
    assert_eq!(fit(&world.space, &world.networks, &rows, &options).unwrap().table, table);
    // Without the rows of one image there is nothing to fit.
    let error = fit(&world.space, &world.networks, &rows[world.rows.len()..], &options).unwrap_err();
    assert!(matches!(error, FitError::Missing { .. }), "{error}");
}

#[test]
fn too_few_networks_and_folds_are_refused() {
    let world = world(4, 0.0);
    let error = fit(&world.space, &world.networks, &world.rows, &FitOptions::default()).unwrap_err();
    assert!(matches!(error, FitError::TooFewNetworks { found: 4, asked: 4, .. }), "{error}");
    let options = FitOptions { folds: 1, ..FitOptions::default() };
    let error = fit(&world.space, &world.networks, &world.rows, &options).unwrap_err();
    assert!(matches!(error, FitError::Folds { folds: 1 }), "{error}");
}

#[test]
fn the_measurement_with_the_most_samples_counts() {
    let short = row("a", 1000);
    let mut long = row("b", 2000);
    long.workload = short.workload.clone();
    long.samples_ns.extend([2000; 60]);
    long.samples_per_process = vec![60, 60];
    let mut failed = row("c", 3000);
    failed.workload = short.workload.clone();
    failed.samples_ns = vec![3000; 500];
    failed.outcome = Outcome::WrongOutput;
    let best = pooled(&[&short, &long, &failed]);
    assert_eq!(best[&short.workload].id, "b");
}

#[test]
fn a_table_is_saved_once_and_read_back() {
    let world = world(8, 0.01);
    let fitted = fit(&world.space, &world.networks, &world.rows, &FitOptions::default()).unwrap();
    let header = crate::TableHeader {
        version: "0.1.0".into(),
        created: "2026-01-01T00:00:00Z".into(),
        device: world.rows[0].device.clone(),
        measurements: world.rows.len(),
        networks: 8,
        quality: fitted.quality.clone(),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cost-table.json");
    fitted.table.save(&path, &header).unwrap();
    let (table, read) = CostTable::load(&path).unwrap();
    assert_eq!(read.device, header.device);
    let genotype = &world.networks[0].1;
    let both = [&table, &fitted.table].map(|table| table.mean(&world.space, genotype).unwrap().0);
    assert!((both[0] / both[1] - 1.0).abs() < 1e-12);

    let error = fitted.table.save(&path, &header).unwrap_err();
    assert!(matches!(&error, CostError::Exists { path: existing } if *existing == path), "{error}");
    std::fs::write(&path, "{\"format\": 2}").unwrap();
    assert!(matches!(CostTable::load(&path).unwrap_err(), CostError::Newer { found: 2, .. }));
    std::fs::write(&path, "{\"format\": 1, \"header\": ").unwrap();
    assert!(CostTable::load(&path).unwrap_err().to_string().contains("cost-table.json"));
    assert!(matches!(CostTable::load(&folder.path().join("none")).unwrap_err(), CostError::Io { .. }));
}

#[test]
fn a_table_of_another_space_is_refused() {
    let world = world(8, 0.0);
    let mut table = fit(&world.space, &world.networks, &world.rows, &FitOptions::default()).unwrap().table;
    let genotype = &world.networks[0].1;
    let slot = Slot { block: 0, node: 0, edge: 0 };
    let choice = genotype.blocks[0].nodes[0][0].choice.clone();
    table.slots[0].choices.remove(&choice);
    assert!(
        matches!(table.mean(&world.space, genotype).unwrap_err(), CostError::NoCost { slot: at, .. } if at == slot)
    );
    table.space = "darts".into();
    let error = table.mean(&world.space, genotype).unwrap_err();
    assert!(matches!(error, CostError::OtherSpace { .. }), "{error}");
}

#[test]
fn figures_of_merit_of_known_numbers() {
    assert_eq!(spearman(&[1.0, 2.0, 3.0], &[10.0, 20.0, 30.0]), 1.0);
    assert_eq!(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), -1.0);
    assert_eq!(spearman(&[1.0, 1.0, 1.0], &[3.0, 2.0, 1.0]), 0.0);
    // Ties share their rank: 0.5, 0.5, 2 against 0, 1, 2.
    assert!((spearman(&[1.0, 1.0, 2.0], &[1.0, 2.0, 3.0]) - 0.75_f64.sqrt()).abs() < 1e-12);
    // Fold 0 chooses 12 where 10 is best, fold 1 chooses right.
    let regret = selection_regret(&[10.0, 12.0, 5.0, 6.0], &[3.0, 2.0, 1.0, 2.0], &[0, 0, 1, 1], 2);
    assert!((regret - 0.1).abs() < 1e-12, "{regret}");
    // Leave-one-out: one choice among all.
    let regret = selection_regret(&[10.0, 12.0, 5.0, 6.0], &[3.0, 2.0, 2.0, 1.0], &[0, 1, 2, 3], 4);
    assert!((regret - 0.2).abs() < 1e-12, "{regret}");
    // 100 ratios: rank ⌈101·0.95⌉ = 96 from each side.
    let ratios: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!(conformal(&ratios), [5.0, 96.0]);
    assert_eq!(conformal(&[1.0, 0.9, 1.2]), [0.9, 1.2]);
    assert_eq!(median(vec![3.0, 1.0, 2.0, 10.0]), 2.5);
}
