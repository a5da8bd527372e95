//! Predictors on made-up devices, where the truth is known, and on published tables.

use std::path::Path;

use lathe_spaces::{Nas201Skeleton, Space, Stream};
use rand::RngExt;

use super::{benchmark::*, selection_benchmark::*, *};
use crate::{LatencyTable, Source, fit::spearman};

struct World {
    encoding: Encoding,
    codes: Vec<Codes>,
}

impl World {
    fn fbnet() -> Self {
        let space = Space::fbnet(224, 1000);
        let encoding = Encoding::of(&space).unwrap();
        let sample = |index| encoding.encode(&space.sample(&mut Stream::new(1, "world", index))).unwrap();
        Self { codes: (0..400).map(sample).collect(), encoding }
    }

    fn all(&self) -> Vec<&Codes> {
        self.codes.iter().collect()
    }

    /// A device on which operation `o` at position `p` takes `costs[o]·(1 + trend·p/22)` above 5 ms,
    /// with relative noise.
    fn device(&self, costs: [f64; 9], trend: f64, noise: f64) -> Vec<f64> {
        let mut stream = Stream::new(2, "noise", (trend * 100.0) as u64);
        let latency = |codes: &Codes| {
            let parts = codes.as_slice().iter().enumerate();
            let sum: f64 = parts.map(|(p, &o)| costs[usize::from(o)] * (1.0 + trend * p as f64 / 22.0)).sum();
            (5.0 + sum) * (1.0 + noise * stream.random_range(-1.0..1.0))
        };
        self.codes.iter().map(latency).collect()
    }

    fn prior(&self, sources: &[Vec<f64>]) -> Prior {
        let device = |latencies: &Vec<f64>| SourceDevice {
            name: "source",
            codes: self.all(),
            latencies: latencies.clone(),
        };
        let sources: Vec<SourceDevice<'_>> = sources.iter().map(device).collect();
        Prior::new(&self.encoding, &self.all(), &sources).unwrap()
    }

    /// Spearman correlation and share inside the interval, of the architectures behind the first `count`.
    fn score(&self, prior: &Prior, truth: &[f64], count: usize) -> (f64, f64) {
        let predictor = TablePredictor::fit(prior, &self.all()[..count], &truth[..count]).unwrap();
        let predicted = predictor.predict_all(&self.codes[count..]);
        let inside = self.codes[count..].iter().zip(&truth[count..]).filter(|(codes, latency)| {
            let interval = predictor.interval(codes);
            (interval.low..=interval.high).contains(latency)
        });
        let share = inside.count() as f64 / (truth.len() - count) as f64;
        (spearman(&predicted, &truth[count..]), share)
    }
}

const GPU: [f64; 9] = [1.0, 1.4, 1.1, 1.3, 1.0, 1.4, 1.2, 1.5, 0.1];
const PHONE: [f64; 9] = [0.5, 0.4, 1.2, 2.4, 0.7, 0.6, 1.6, 3.2, 0.05];
const OTHER_PHONE: [f64; 9] = [0.6, 0.5, 1.3, 2.5, 0.9, 0.7, 2.0, 3.9, 0.05];
/// Takes long where the phones are fast.
const CONTRARY: [f64; 9] = [2.0, 2.1, 1.0, 0.3, 2.0, 2.1, 0.9, 0.1, 2.6];

#[test]
fn twenty_samples_suffice_beside_a_device_that_is_alike() {
    let world = World::fbnet();
    let prior = world.prior(&[world.device(GPU, 0.0, 0.01), world.device(PHONE, 0.5, 0.01)]);
    let (rank, inside) = world.score(&prior, &world.device(OTHER_PHONE, 0.6, 0.02), 20);
    assert!(rank > 0.97, "{rank}");
    assert!(inside > 0.75, "{inside}");
}

#[test]
fn sources_that_mislead_do_little_harm() {
    let world = World::fbnet();
    let truth = world.device(CONTRARY, 0.2, 0.01);
    let (without, _) = world.score(&world.prior(&[]), &truth, 30);
    let sources = [world.device(PHONE, 0.5, 0.01), world.device(OTHER_PHONE, 0.4, 0.01)];
    let (with, _) = world.score(&world.prior(&sources), &truth, 30);
    assert!(with > without - 0.05, "with {with}, without {without}");
}

#[test]
fn many_samples_find_an_additive_device_exactly() {
    let world = World::fbnet();
    let (rank, _) = world.score(&world.prior(&[]), &world.device(PHONE, 2.0, 0.0), 300);
    assert!(rank > 0.999, "{rank}");
}

#[test]
fn leave_one_out_in_closed_form_is_leaving_one_out() {
    // With a single setting there is no averaging: then the formula must agree with fitting again.
    let world = World::fbnet();
    let truth = world.device(PHONE, 0.5, 0.05);
    let prior = world.prior(&[]);
    let (codes, latencies) = (&world.all()[..12], &truth[..12]);
    let (errors, refitted) = table_predictor::leave_one_out_twice(&prior, codes, latencies);
    for (left, right) in errors.iter().zip(&refitted) {
        assert!((left - right).abs() < 1e-6, "{errors:?} {refitted:?}");
    }
}

#[test]
fn predictions_at_once_are_the_predictions_one_by_one() {
    let world = World::fbnet();
    let truth = world.device(PHONE, 0.5, 0.05);
    let predictor = TablePredictor::fit(&world.prior(&[]), &world.all()[..20], &truth[..20]).unwrap();
    let one_by_one: Vec<f64> = world.codes.iter().map(|codes| predictor.predict(codes)).collect();
    assert_eq!(predictor.predict_all(&world.codes), one_by_one);
    assert_eq!(predictor.leave_one_out().len(), 20);
    let share: f64 = predictor.shares().iter().map(|(_, share)| share).sum();
    assert!(share > 0.9 && share < 1.0 + 1e-6, "{:?}", predictor.shares());
    let again = TablePredictor::fit(&world.prior(&[]), &world.all()[..20], &truth[..20]).unwrap();
    assert_eq!(predictor, again);
}

#[test]
fn an_answer_says_whether_it_is_measured_interpolated_or_extrapolated() {
    let world = World::fbnet();
    let truth = world.device(PHONE, 0.5, 0.01);
    let with_source = world.prior(&[world.device(OTHER_PHONE, 0.5, 0.01)]);
    let all = world.all();
    // The fastest and the slowest are among the samples, so that the range holds all others.
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|&left, &right| truth[left].total_cmp(&truth[right]));
    order.swap(1, all.len() - 1);
    let fit = |prior: &Prior, picks: &[usize]| {
        let codes: Vec<&Codes> = picks.iter().map(|&pick| all[pick]).collect();
        let latencies: Vec<f64> = picks.iter().map(|&pick| truth[pick]).collect();
        TablePredictor::fit(prior, &codes, &latencies).unwrap()
    };
    let predictor = fit(&with_source, &order[..20]);
    assert_eq!(predictor.source(all[order[0]]), Source::Measured);
    assert_eq!(predictor.source(all[order[200]]), Source::Interpolated);
    // Only the fastest are known: the slowest is outside their range.
    let narrow: Vec<usize> = order.iter().copied().filter(|&index| truth[index] < truth[order[30]]).collect();
    assert_eq!(fit(&with_source, &narrow[..20]).source(all[order[1]]), Source::Extrapolated);
    // Without a source, twenty samples leave operations at some positions unseen.
    assert_eq!(fit(&world.prior(&[]), &order[..20]).source(all[order[200]]), Source::Extrapolated);
}

#[test]
fn bad_samples_are_named() {
    let world = World::fbnet();
    let prior = world.prior(&[]);
    let fit = |count: usize, latencies: &[f64]| {
        TablePredictor::fit(&prior, &world.all()[..count], latencies).unwrap_err().to_string()
    };
    assert!(fit(4, &[1.0; 4]).contains("4 measured architectures, and 5 are needed"));
    assert!(fit(5, &[1.0; 4]).contains("5 architectures came with 4 latencies"));
    assert!(fit(5, &[1.0, 2.0, 0.0, 1.0, 1.0]).contains("sample 2 is 0 ms"));
    assert!(fit(5, &[1.0, f64::NAN, 1.0, 1.0, 1.0]).contains("sample 1 is NaN ms"));
    let source = SourceDevice { name: "toaster", codes: world.all()[..3].to_vec(), latencies: vec![1.0; 3] };
    let error = Prior::new(&world.encoding, &world.all(), &[source]).unwrap_err().to_string();
    assert!(error.contains("of `toaster`: 3 measured"), "{error}");
}

#[test]
fn equal_latencies_are_predicted_as_such() {
    let world = World::fbnet();
    let predictor = TablePredictor::fit(&world.prior(&[]), &world.all()[..10], &[7.0; 10]).unwrap();
    assert!((predictor.predict(&world.codes[50]) - 7.0).abs() < 0.1);
}

#[test]
fn a_proxy_is_scaled_and_shifted_and_an_unlike_one_refused() {
    let world = World::fbnet();
    let prior = world.prior(&[world.device(PHONE, 0.5, 0.0)]);
    let double: Vec<f64> = world.device(PHONE, 0.5, 0.0).iter().map(|latency| 2.0 * latency + 3.0).collect();
    let transfer = ScaleAndShift::fit(&prior, &world.all()[..10], &double[..10]).unwrap();
    assert!((transfer.predict(&world.codes[77]) / double[77] - 1.0).abs() < 0.01);
    assert!(transfer.correlation() > 0.99 && transfer.proxy() == "source");
    let contrary = world.device(CONTRARY, 0.2, 0.0);
    let error = ScaleAndShift::fit(&prior, &world.all()[..20], &contrary[..20]).unwrap_err();
    assert!(matches!(error, PredictorError::UnlikeProxy { .. }), "{error}");
    let error = ScaleAndShift::fit(&world.prior(&[]), &world.all()[..20], &contrary[..20]).unwrap_err();
    assert!(matches!(error, PredictorError::TooFew { .. }), "{error}");
}

#[test]
fn a_design_depends_on_the_seed_alone_and_repeats_nothing() {
    let world = World::fbnet();
    let prior = world.prior(&[world.device(PHONE, 0.5, 0.01)]);
    let all = world.all();
    let first = select_next(&prior, &[], &all, 10, 1);
    assert_eq!(first, select_next(&prior, &[], &all, 10, 1));
    let measured: Vec<&Codes> = first.iter().map(|&index| all[index]).collect();
    let next = select_next(&prior, &measured, &all, 10, 1);
    assert!(next.iter().all(|index| !first.contains(index)), "{first:?} {next:?}");
    // Choosing on is the same as having chosen more at once.
    assert_eq!([first, next].concat(), select_next(&prior, &[], &all, 20, 1));
    assert_eq!(select_next(&prior, &[], &all[..3], 10, 1).len(), 3);
    let twins = [all[0], all[0], all[1]];
    assert_eq!(select_next(&prior, &[], &twins, 3, 1).len(), 2);
}

/// A table of the shared data; `None`, with a message, where there is none.
fn published(file: &str, space: &Space) -> Option<LatencyTable> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(file);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(LatencyTable::read(&path, space).unwrap())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn figures(rows: &[BenchmarkRow], method: &str) -> (f64, f64) {
    let rows: Vec<&BenchmarkRow> = rows.iter().filter(|row| row.method == method).collect();
    let mean = |value: &dyn Fn(&BenchmarkRow) -> f64| {
        rows.iter().map(|row| value(row)).sum::<f64>() / rows.len() as f64
    };
    (mean(&|row| row.spearman_mean.unwrap()), mean(&|row| row.within_10_percent.unwrap()))
}

#[cfg(feature = "store")]
#[test]
fn better_than_the_published_predictor_from_phones_to_graphics_cards() {
    let Some(table) = published("fbnet_latency.parquet", &Space::fbnet(224, 1000)) else { return };
    // Task F3 of NASFLAT, whose authors report 0.814.
    let options = BenchmarkOptions {
        sources: Some(names(&["essential_ph_1", "pixel2_1", "pixel3_1", "raspi4_1", "samsung_s7_1"])),
        targets: Some(names(&["1080ti_1", "2080ti_1", "titan_rtx_32"])),
        protocol: TableProtocol::All,
        samples: vec![20],
        seeds: 3,
        macs: None,
    };
    let rows = benchmark(&table, &options, &|_, _| {}).unwrap();
    assert!(figures(&rows, "lathe").0 > 0.85, "{rows:?}");
    assert!(figures(&rows, "lathe").0 > figures(&rows, "ridge_onehot").0 + 0.2, "{rows:?}");
    assert_eq!(rows, benchmark(&table, &options, &|_, _| {}).unwrap());
}

#[cfg(feature = "store")]
#[test]
fn nas_bench_201_from_twenty_samples() {
    let space = Space::nas201(Nas201Skeleton { width: 16, cells: 5, resolution: 32, classes: 10 });
    let Some(table) = published("nb201_latency.parquet", &space) else { return };
    let mut options = BenchmarkOptions {
        sources: None,
        targets: Some(names(&["silver_4210r_1", "titanxp_256"])),
        protocol: TableProtocol::Help,
        samples: vec![20],
        seeds: 2,
        macs: None,
    };
    let rows = benchmark(&table, &options, &|_, _| {}).unwrap();
    let (rank, within) = figures(&rows, "lathe");
    assert!(rank > 0.94 && within > 0.85, "{rows:?}");
    options.samples = vec![800];
    let error = benchmark(&table, &options, &|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("705 rows to draw samples from"), "{error}");
    options.targets = Some(names(&["gold_6420_1"]));
    let error = benchmark(&table, &options, &|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("did you mean `gold_6240_1`?"), "{error}");
    options.targets = Some(names(&["gold_6240_1"]));
    options.sources = Some(names(&["gold_6240_1"]));
    let error = benchmark(&table, &options, &|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("no source device is left"), "{error}");
    options.seeds = 0;
    let error = benchmark(&table, &options, &|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("at least one seed"), "{error}");
}

#[cfg(feature = "store")]
#[test]
fn a_verified_choice_keeps_its_limit_and_is_nearly_the_best() {
    let space = Space::nas201(Nas201Skeleton { width: 16, cells: 5, resolution: 32, classes: 10 });
    let Some(table) = published("nb201_latency.parquet", &space) else { return };
    let Some(accuracies) = published("nb201_accuracy.parquet", &space) else { return };
    let mut options = SelectionOptions {
        sources: None,
        targets: Some(names(&["silver_4210r_1", "samsung_a50_1"])),
        limits: vec![Limit::Quantile(0.25), Limit::Quantile(0.75)],
        samples: 10,
        seeds: 2,
        safety: DEFAULT_SAFETY,
        accuracies: accuracies.latencies("cifar100_val_200ep").unwrap().to_vec(),
        macs: None,
    };
    let rows = selection_benchmark(&table, &options, &|_, _| {}).unwrap();
    assert_eq!(rows.len(), 2 * 4 * 2);
    let all = overall(&rows);
    let verified = all.iter().find(|row| row.method == "lathe_verified").unwrap();
    assert_eq!((verified.cases, verified.without_choice), (8, 0));
    assert!(verified.accuracy_of_oracle.unwrap() > 0.98, "{verified:?}");
    assert!(verified.broken_by_5_percent.unwrap() < 0.2, "{verified:?}");
    assert_eq!(rows, selection_benchmark(&table, &options, &|_, _| {}).unwrap());
    options.limits = vec![Limit::Quantile(1.5)];
    let error = selection_benchmark(&table, &options, &|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("above 0 and at most 1, got 1.5"), "{error}");
    options.safety = 1.0;
    let error = selection_benchmark(&table, &options, &|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("from 0.5 to below 1, got 1"), "{error}");
    options.safety = 0.9;
    options.limits = vec![Limit::Milliseconds(20.0)];
    options.accuracies.pop();
    let error = selection_benchmark(&table, &options, &|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("15625 rows came with 15624 accuracies"), "{error}");
}
