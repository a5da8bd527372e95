//! A synthetic run: twelve epochs of search and six candidates. Nothing of it was ever measured; its
//! names say so.

use std::{fs, path::Path};

use lathe_latency_db::{
    CostTable, Device, Engine, FitQuality, FoldPoint, Prediction, Provenance, SlotCosts, Source, Summary,
    TableHeader,
};
use lathe_search::{ArchSnapshot, BlockSigns, Event, Origin, Stage, StopReason};
use lathe_spaces::{DartsSkeleton, Micros, Space, Stem, Stream};

/// Epochs of the search, of which the architecture rests in the first three.
pub(crate) const EPOCHS: usize = 12;
/// Epochs of each candidate.
const TRAIN_EPOCHS: usize = 8;
/// Target.
const TARGET: Micros = Micros(2600.0);

/// Numbers in 0..1 that only look random: the same on every machine.
pub(crate) struct Noise(u64);

impl Noise {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1_u32 << 24)
    }

    /// In −1..1.
    fn around(&mut self) -> f64 {
        2.0 * self.next() - 1.0
    }
}

pub(crate) fn space() -> Space {
    Space::darts(DartsSkeleton { stem: Stem::Cifar, width: 8, layers: 5, resolution: 32, classes: 10 })
}

pub(crate) fn device() -> Device {
    Device {
        name: "synthetic".into(),
        model: "Synthetic processor (no such device)".into(),
        architecture: "none".into(),
        cores: 2,
        memory_kb: 8_000_000,
        os: "Synthetic OS 1".into(),
        kernel: "0.0".into(),
        pinned_cpus: vec![1],
        governor: None,
        max_khz: Some(2_400_000),
        threads: 1,
        engine: Engine {
            name: "synthetic engine".into(),
            version: "0.0".into(),
            library_sha256: "00".repeat(32),
            provider: "cpu".into(),
        },
        memory_limit_kb: None,
        cluster: None,
        tier: None,
    }
}

/// A summary around a median, with a relative half-width.
pub(crate) fn summary(median: f64, half_width: f64) -> Summary {
    Summary {
        count: 234,
        min: Micros(median * 0.96),
        median: Micros(median),
        p90: Micros(median * 1.05),
        p99: Micros(median * 1.2),
        mad: Micros(median * 0.01),
        low: Micros(median * (1.0 - half_width)),
        high: Micros(median * (1.0 + half_width)),
        outliers: 3,
    }
}

pub(crate) fn started(name: &str) -> Event {
    Event::Started {
        name: name.into(),
        at: "2026-01-01T10:00:00.123456789Z".into(),
        version: "0.1.0".into(),
        seed: 7,
        config_sha256: "5e".repeat(32),
    }
}

fn begun(stage: Stage, minute: usize) -> Event {
    Event::StageStarted { stage, at: format!("2026-01-01T10:{minute:02}:01Z") }
}

fn done(stage: Stage, minute: usize, seconds: f64) -> Event {
    Event::StageFinished { stage, at: format!("2026-01-01T10:{minute:02}:00Z"), seconds }
}

pub(crate) fn device_event(provenance: Provenance) -> Event {
    Event::Device { device: device(), provenance, noise: Some(0.0132) }
}

pub(crate) fn quality() -> FitQuality {
    let mut noise = Noise(11);
    let points = (0..24)
        .map(|index| {
            let measured = 1700.0 + 3300.0 * noise.next();
            let predicted = Micros(measured * (1.0 + 0.13 * noise.around()));
            let half_width = 0.005 + 0.02 * noise.next();
            FoldPoint {
                label: format!("fit-{index}"),
                measured: summary(measured, half_width),
                predicted,
                parts: None,
            }
        })
        .collect();
    FitQuality {
        model: "synthetic model".into(),
        folds: 5,
        median_relative_error: 0.052,
        within_ten_percent: 0.792,
        spearman: 0.961,
        selection_regret: 0.018,
        noise_floor: 0.0131,
        points,
    }
}

fn fitted() -> [Event; 2] {
    [
        Event::Fitted { quality: quality(), simpler: Vec::new(), cost_table: "cost-table.json".into() },
        Event::Target { target: Some(TARGET), reachable: [Micros(1310.0), Micros(5480.0)] },
    ]
}

/// softmax(α) of a block: every edge drifts towards one operation.
fn arch(block: &str, epoch: usize, lean: usize) -> ArchSnapshot {
    let progress = epoch.saturating_sub(2) as f64 / (EPOCHS - 3) as f64;
    let mut noise = Noise(lean as u64 + 1);
    let mut alpha = Vec::new();
    for edge in 0..14 {
        let weights: Vec<f64> = (0..8)
            .map(|choice| {
                let liked = if choice == (edge * 3 + lean) % 8 { 1.6 } else { 0.0 };
                (1.0 + progress * (liked + 0.5 * noise.next())).max(0.05)
            })
            .collect();
        let sum: f64 = weights.iter().sum();
        alpha.push(weights.into_iter().map(|weight| weight / sum).collect());
    }
    let mut beta = Vec::new();
    for edges in 2..6 {
        let weights: Vec<f64> = (0..edges).map(|_| 1.0 + progress * noise.next()).collect();
        let sum: f64 = weights.iter().sum();
        beta.extend(weights.into_iter().map(|weight| weight / sum));
    }
    ArchSnapshot { block: block.into(), alpha, beta }
}

fn genotype(index: u64) -> String {
    let space = space();
    space.format(&space.sample(&mut Stream::new(7, "synthetic report", index)))
}

pub(crate) fn epoch(epoch: usize) -> Event {
    let learns = epoch >= 3;
    let fall = epoch as f64 / EPOCHS as f64;
    Event::Epoch {
        epoch,
        epochs: EPOCHS,
        train_loss: 2.2 - 1.1 * fall,
        train_accuracy: 0.18 + 0.42 * fall,
        valid_loss: learns.then_some(2.25 - 0.95 * fall),
        valid_accuracy: learns.then_some(0.17 + 0.36 * fall),
        expected: Some(Micros(3400.0 - 900.0 * fall)),
        lambda: if learns { 0.3 * (1.0 - (fall - 0.5) * (fall - 0.5)) } else { 0.0 },
        limits: Vec::new(),
        temperature: 1.0 - 0.9 * fall,
        genotype: genotype(epoch as u64),
        derived: Some(Micros(3300.0 - 800.0 * fall + 240.0 * Noise(epoch as u64).around())),
        signs: signs(1 + epoch / 4),
        eigenvalue: (epoch >= 3).then_some(0.1 + 0.02 * epoch as f64),
        arch: vec![arch("normal", epoch, 4), arch("reduce", epoch, 1)],
        seconds: 21.5,
        data_wait: 0.03,
    }
}

/// A candidate with its final accuracy and measured latency.
pub(crate) struct Synthetic {
    pub name: String,
    pub origin: Origin,
    pub accuracy: f64,
    pub micros: f64,
}

pub(crate) fn candidates() -> Vec<Synthetic> {
    let new =
        |name: &str, origin, accuracy, micros| Synthetic { name: name.into(), origin, accuracy, micros };
    vec![
        new("searched", Origin::Searched, 0.768, 2481.0),
        new("random-0", Origin::Random, 0.731, 2210.0),
        new("random-1", Origin::Random, 0.752, 3120.0),
        new("random-2", Origin::Random, 0.706, 1824.0),
        new("random-3", Origin::Random, 0.773, 2590.0),
        new("PC_DARTS_cifar", Origin::Published, 0.791, 4380.0),
    ]
}

fn announced(index: usize, candidate: &Synthetic) -> Event {
    let mean = candidate.micros * (0.97 + 0.015 * index as f64);
    Event::Candidate {
        name: candidate.name.clone(),
        origin: candidate.origin,
        genotype: genotype(100 + index as u64),
        predicted: Some(Prediction {
            mean: Micros(mean),
            sigma: Micros(mean * 0.05),
            low: Micros(mean * 0.91),
            high: Micros(mean * 1.08),
            source: if index == 5 { Source::Extrapolated } else { Source::Interpolated },
        }),
        parameters: 41_200 + 6_300 * index as u64,
        macs: 6_310_000 + 750_000 * index as u64,
        peak_activation_bytes: 786_432 + 65_536 * index as u64,
        signs: signs(index),
        preselected: (index == 1).then(|| ("synflow".into(), 64)),
    }
}

fn signs(skips: usize) -> Vec<BlockSigns> {
    let block = |name: &str, skips| BlockSigns {
        block: name.into(),
        kept: 8,
        skips,
        parameter_free: skips,
        unread_inputs: 0,
    };
    vec![block("normal", skips), block("reduce", 0)]
}

fn trained(index: usize, candidate: &Synthetic) -> Vec<Event> {
    let mut noise = Noise(50 + index as u64);
    let mut events: Vec<Event> = (0..TRAIN_EPOCHS)
        .map(|epoch| {
            let fall = (epoch + 1) as f64 / TRAIN_EPOCHS as f64;
            Event::TrainEpoch {
                candidate: candidate.name.clone(),
                epoch,
                epochs: TRAIN_EPOCHS,
                train_loss: 2.3 - (1.2 + 0.1 * index as f64) * fall + 0.03 * noise.around(),
                train_accuracy: candidate.accuracy * (0.35 + 0.65 * fall) + 0.01 * noise.around(),
                seconds: 12.0,
            }
        })
        .collect();
    events.push(Event::Trained {
        candidate: candidate.name.clone(),
        test_accuracy: candidate.accuracy,
        test_images: 2000,
        validation_accuracy: None,
        validation_images: None,
    });
    events
}

fn verified(index: usize, candidate: &Synthetic) -> Event {
    let parts = [
        ("sep_conv_3x3", 0.34),
        ("fixed", 0.29),
        ("dil_conv_5x5", 0.17),
        ("sep_conv_5x5", 0.11),
        ("max_pool_3x3", 0.06),
        ("skip_connect", 0.03),
    ];
    let micros = candidate.micros * (0.97 + 0.015 * index as f64);
    Event::Verified {
        candidate: candidate.name.clone(),
        max_output_error: 2.4e-6,
        latency: summary(candidate.micros, 0.008 + 0.004 * index as f64),
        measurement: format!("synthetic-verify-{index}"),
        shares: parts.iter().map(|(name, share)| ((*name).to_owned(), Micros(micros * share))).collect(),
    }
}

/// The whole record, from the first line to the last.
pub(crate) fn complete() -> Vec<Event> {
    let mut events =
        vec![started("synthetic example"), begun(Stage::Measure, 0), device_event(Provenance::Measured)];
    events.push(done(Stage::Measure, 3, 181.4));
    events.push(begun(Stage::Fit, 3));
    events.extend(fitted());
    events.push(done(Stage::Fit, 3, 0.4));
    events.push(begun(Stage::Search, 3));
    events.extend((0..5).map(epoch));
    events.push(Event::Resumed { at: "2026-01-01T10:20:00Z".into() });
    events.extend((5..EPOCHS).map(epoch));
    events.push(done(Stage::Search, 24, 258.0));
    events.push(begun(Stage::Derive, 24));
    let candidates = candidates();
    events.extend(candidates.iter().enumerate().map(|(index, candidate)| announced(index, candidate)));
    events.push(done(Stage::Derive, 25, 14.2));
    events.push(begun(Stage::Retrain, 25));
    events.extend(candidates.iter().enumerate().flat_map(|(index, candidate)| trained(index, candidate)));
    events.push(done(Stage::Retrain, 35, 576.0));
    events.push(begun(Stage::Export, 35));
    events.extend(candidates.iter().map(|candidate| {
        Event::Exported {
            candidate: candidate.name.clone(),
            files: ["onnx", "pt", "safetensors"]
                .map(|kind| format!("export/{}.{kind}", candidate.name).into())
                .to_vec(),
        }
    }));
    events.push(done(Stage::Export, 36, 3.1));
    events.push(begun(Stage::Verify, 36));
    events.extend(candidates.iter().enumerate().map(|(index, candidate)| verified(index, candidate)));
    events.push(done(Stage::Verify, 37, 62.7));
    events.push(begun(Stage::Report, 37));
    events.push(done(Stage::Report, 37, 0.2));
    events.push(Event::Finished { at: "2026-01-01T10:37:05Z".into(), stop: StopReason::Completed });
    events
}

/// The record of a run that is in the middle of its search.
pub(crate) fn unfinished() -> Vec<Event> {
    let events = complete();
    let end = events.iter().position(|event| matches!(event, Event::Epoch { epoch: 6, .. }));
    events.into_iter().take(end.map_or(0, |end| end + 1)).collect()
}

pub(crate) const RESOLVED: &str =
    "name = \"synthetic example\"\nseed = 7\n\n[space]\nkind = \"darts\"\nwidth = 8\n";

pub(crate) fn table() -> (CostTable, TableHeader) {
    let space = space();
    let mut noise = Noise(3);
    let slots = space.slots().into_iter().map(|slot| {
        let names = space.deployable(slot).into_iter();
        SlotCosts {
            slot,
            choices: names.map(|name| (name.to_owned(), Micros(100.0 * noise.next()))).collect(),
        }
    });
    let table = CostTable {
        space: space.name.clone(),
        device: device().fingerprint(),
        provenance: Provenance::Measured,
        fixed: Micros(700.0),
        slots: slots.collect(),
        relative_sigma: 0.05,
        ratio_quantiles: [0.91, 1.08],
        measured_range: [Micros(1700.0), Micros(5000.0)],
    };
    let header = TableHeader {
        version: "0.1.0".into(),
        created: "2026-01-01T10:03:00Z".into(),
        device: device(),
        measurements: 131,
        networks: 24,
        quality: quality(),
    };
    (table, header)
}

/// Writes a record as `lathe` does: a line of JSON per event.
pub(crate) fn write_record(directory: &Path, events: &[Event]) {
    let mut text = String::new();
    for event in events {
        text += &serde_json::to_string(event).unwrap();
        text.push('\n');
    }
    fs::write(directory.join("record.jsonl"), text).unwrap();
}

/// Writes a whole run's directory.
pub(crate) fn write_run(directory: &Path, events: &[Event]) {
    write_record(directory, events);
    fs::write(directory.join("resolved.toml"), RESOLVED).unwrap();
    let (table, header) = table();
    table.save(&directory.join("cost-table.json"), &header).unwrap();
}
