//! Predictions per second of a cost table over random DARTS cells: one by one against all at once.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a benchmark prints")]

use std::{hint::black_box, time::Instant};

use lathe_latency_db::{CostTable, Provenance, SlotCosts};
use lathe_spaces::{DartsSkeleton, Genotype, Micros, Space, Stem, Stream};

/// Genotypes per pass.
const COUNT: u64 = 100_000;
/// Interleaved passes; medians are printed.
const PASSES: usize = 7;

fn main() {
    let stem = Stem::Cifar;
    let space = Space::darts(DartsSkeleton { stem, width: 16, layers: 8, resolution: 32, classes: 10 });
    let slots = space.slots().into_iter().map(|slot| SlotCosts {
        slot,
        choices: space.deployable(slot).into_iter().map(|choice| (choice.to_owned(), Micros(7.0))).collect(),
    });
    let table = CostTable {
        space: space.name.clone(),
        device: "none".into(),
        provenance: Provenance::Measured,
        fixed: Micros(100.0),
        slots: slots.collect(),
        relative_sigma: 0.1,
        ratio_quantiles: [0.9, 1.1],
        measured_range: [Micros(0.0), Micros(1000.0)],
    };
    let genotypes: Vec<Genotype> =
        (0..COUNT).map(|index| space.sample(&mut Stream::new(0, "throughput", index))).collect();
    let (mut single, mut all) = (Vec::new(), Vec::new());
    for _ in 0..PASSES {
        let start = Instant::now();
        for genotype in &genotypes {
            black_box(table.mean(&space, genotype).unwrap());
        }
        single.push(COUNT as f64 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        black_box(table.mean_all(&space, &genotypes).unwrap());
        all.push(COUNT as f64 / start.elapsed().as_secs_f64());
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (baseline, ours) = (median(single), median(all));
    println!(
        "{{\"benchmark\": \"darts_predictions_per_second\", \"one_by_one\": {baseline:.0}, \"all_at_once\": {ours:.0}, \
         \"ratio\": {:.2}}}",
        ours / baseline
    );
}
