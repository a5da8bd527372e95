use lathe_spaces::{DartsSkeleton, Level, NetworkOptions, Space, Stem, Stream};
use rand::RngExt;

use super::*;
use crate::{
    Measurement,
    kernels::{Knowledge, ModelHeader, held_out_by, next_kernels},
};

/// A device with its own idea of every kernel: noise of 1 %, kinds off by up to 30 %.
fn simulated(space: &Space, count: u64, seed: u64) -> Vec<(Graph, TimedGraph)> {
    let fusion = Fusion::common();
    (0..count)
        .map(|index| {
            let genotype = space.sample(&mut Stream::new(seed, "simulated", index));
            let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
            let kernels = kernel::split(&graph, &fusion);
            let mut sum = 20.0;
            for kernel in &kernels {
                let kind = Stream::new(1, &kernel.kind, 0).random_range(0.7..1.3);
                let own = Stream::new(1, &kernel.signature, 0).random_range(0.9..1.1);
                let [_, macs, read, written, weights, _] = kernel.features();
                sum += kind * own * (2.0 + 60.0 * macs + 30.0 * (read + written) + 50.0 * weights);
            }
            let noise = Stream::new(seed, "noise", index).random_range(0.985..1.015);
            let workload = Workload::new(format!("n{index}"), Level::Network, graph.clone());
            let timed = TimedGraph {
                label: format!("n{index}"),
                id: workload.id(),
                kernels,
                latency: Micros(sum * noise),
                noise: 0.01,
                flagged: false,
                network: true,
            };
            (graph, timed)
        })
        .collect()
}

fn darts() -> Space {
    let stem = Stem::Cifar;
    Space::darts(DartsSkeleton { stem, width: 8, layers: 4, resolution: 16, classes: 10 })
}

#[test]
fn simulated_networks_are_predicted_with_honest_intervals() {
    for space in [darts(), Space::fbnet(64, 10)] {
        let rows = simulated(&space, 160, 4);
        let (train, test) = rows.split_at(100);
        let train: Vec<TimedGraph> = train.iter().map(|(_, timed)| timed.clone()).collect();
        let model = KernelModel::fit(&train, &Fusion::common()).unwrap();
        let mut errors = Vec::new();
        let mut covered = 0;
        for (graph, timed) in test {
            let answer = model.predict(graph);
            let sum: f64 = answer.kernels.iter().map(|share| share.latency.0).sum();
            assert!((sum + answer.rest.0 - answer.prediction.mean.0).abs() < 1e-6);
            errors.push((answer.prediction.mean.0 / timed.latency.0 - 1.0).abs());
            let inside = answer.prediction.low <= timed.latency && timed.latency <= answer.prediction.high;
            covered += usize::from(inside);
        }
        let error = median(errors);
        assert!(error < 0.03, "{}: {error}", space.name);
        assert!(covered >= 45, "{}: {covered} of 60", space.name);
        assert!((model.validation.median_relative_error - error).abs() < 0.02);
    }
}

#[test]
fn answers_say_what_they_rest_on_and_files_come_back() {
    let rows = simulated(&darts(), 30, 5);
    let timed: Vec<TimedGraph> = rows.iter().map(|(_, timed)| timed.clone()).collect();
    let model = KernelModel::fit(&timed, &Fusion::common()).unwrap();
    let mut shuffled = timed.clone();
    shuffled.reverse();
    assert_eq!(KernelModel::fit(&shuffled, &Fusion::common()).unwrap(), model);
    let measured = model.predict(&rows[3].0).prediction;
    assert_eq!((measured.source, measured.mean), (Source::Measured, timed[3].latency));
    let (graph, _) = &simulated(&Space::fbnet(224, 1000), 1, 0)[0];
    let foreign = model.predict(graph);
    assert_eq!(foreign.prediction.source, Source::Extrapolated);
    assert!(foreign.prediction.low <= foreign.prediction.mean);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernel-model.json");
    let header = ModelHeader {
        version: "0.1.0".into(),
        created: "2026-01-01T00:00:00Z".into(),
        device: crate::sample_rows::device(),
        provenance: crate::Provenance::Measured,
        precision: lathe_spaces::Precision::Fp32,
        rows: 30,
        networks: 30,
        flagged: 0,
        validation: model.validation,
        fusion: Vec::new(),
    };
    model.save(&path, &header).unwrap();
    let (read, _) = KernelModel::load(&path).unwrap();
    let (a, b) = (read.predict(graph), model.predict(graph));
    assert!((a.prediction.mean.0 / b.prediction.mean.0 - 1.0).abs() < 1e-9);
    assert!((a.prediction.high.0 / b.prediction.high.0 - 1.0).abs() < 1e-6);
    assert!(model.save(&path, &header).unwrap_err().to_string().contains("exists"));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"format\": 1", "\"format\": 9", 1)).unwrap();
    assert!(KernelModel::load(&path).unwrap_err().to_string().contains("format 9"));
    std::fs::write(&path, "{\"format\": 1}").unwrap();
    assert!(KernelModel::load(&path).unwrap_err().to_string().contains("no model of lathe's"));
    let few = KernelModel::fit(&timed[..3], &Fusion::common()).unwrap_err().to_string();
    assert!(few.contains("at least 8") && few.contains("got 3"), "{few}");
}

#[test]
fn the_next_kernels_are_repeatable_and_new() {
    let rows = simulated(&darts(), 20, 6);
    let timed: Vec<TimedGraph> = rows.iter().map(|(_, timed)| timed.clone()).collect();
    let model = KernelModel::fit(&timed, &Fusion::common()).unwrap();
    let graphs: Vec<Graph> =
        simulated(&Space::fbnet(64, 10), 3, 0).into_iter().map(|(graph, _)| graph).collect();
    let next = next_kernels(Some(&model), &model.fusion, &graphs, 12, 1);
    assert_eq!(next.len(), 12);
    assert_eq!(next, next_kernels(Some(&model), &model.fusion, &graphs, 12, 1));
    assert_ne!(next, next_kernels(Some(&model), &model.fusion, &graphs, 12, 2));
    assert!(next.iter().any(|sample| sample.error.is_none()));
}

#[test]
fn every_further_thing_that_a_fit_knows_lowers_its_error_on_a_device_that_has_it() {
    // What a kernel takes on devices that are a little less simple each.
    let devices: [fn(&Kernel) -> f64; 4] = [
        |kernel| 60.0 * kernel.features()[1],
        |kernel| 60.0 * kernel.features()[1] + 300.0 * (kernel.features()[2] + kernel.features()[3]),
        |kernel| 60.0 * kernel.features()[1] + 20.0 * kernel.features()[5],
        |kernel| {
            let slow = if kernel.kind.starts_with("dwconv") { 40.0 } else { 1.0 };
            3.0 + 60.0 * slow * kernel.features()[1]
        },
    ];
    let rows = simulated(&darts(), 40, 7);
    for (device, takes) in devices.into_iter().enumerate() {
        let mut graphs = Vec::new();
        let mut measurements = Vec::new();
        for (_, timed) in &rows {
            let micros = 20.0 + timed.kernels.iter().map(takes).sum::<f64>();
            let row = crate::sample_rows::row(&timed.label, (micros * 1e3) as u64);
            measurements.push(Measurement { workload: timed.id.clone(), level: Level::Network, ..row });
            graphs.push(TimedGraph { latency: Micros(micros), ..timed.clone() });
        }
        let errors = Knowledge::ALL.map(|knowledge| {
            let quality = held_out_by(knowledge, &graphs, &measurements, 5, 1).unwrap();
            assert_eq!((quality.points.len(), quality.model.as_str()), (40, knowledge.name()));
            quality.median_relative_error
        });
        // The fit that knows what the device is like is nearly exact, and the one before it is not.
        assert!(errors[device] < 2e-3, "device {device}: {errors:?}");
        if device > 0 {
            assert!(errors[device - 1] > 5.0 * errors[device], "device {device}: {errors:?}");
        }
    }
    let none = held_out_by(Knowledge::Macs, &[], &[], 5, 1).unwrap();
    assert!(none.points.is_empty());
}

#[test]
fn a_file_from_before_steps_were_counted_is_read() {
    let rows = simulated(&darts(), 20, 8);
    let timed: Vec<TimedGraph> = rows.iter().map(|(_, timed)| timed.clone()).collect();
    let mut model = KernelModel::fit(&timed, &Fusion::common()).unwrap();
    for family in (0..FAMILIES.len()).rev() {
        model.mean[3 + family * PER_FAMILY + 2] = 0.0;
    }
    let expected = model.predict(&rows[0].0);
    for family in (0..FAMILIES.len()).rev() {
        model.mean.remove(3 + family * PER_FAMILY + 2);
    }
    assert!(model.restore());
    assert_eq!(model.predict(&rows[0].0), expected);
    model.mean.pop();
    assert!(!model.restore());
}
