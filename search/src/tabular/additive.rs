//! A device column as a search by gradient sees it: one cost per edge and operation.

use lathe_latency_db::{
    CostTable, LatencyTable, Provenance, SlotCosts,
    predictor::{Codes, TablePredictor, benchmark, relative_spread},
};
use lathe_spaces::{Genotype, Micros, Space, Stream};
use rand::seq::SliceRandom as _;

use super::{TabularError, draw::LEAST_SAMPLES, target::prior};

/// Standard normal deviate that 5 % lie above.
const FIVE_PERCENT: f64 = 1.645;

/// Fits a cost table to a device column of which only `samples` rows are known, drawn at random: the
/// predictor that learns from the other devices' columns is fitted on them, and its predictions for all
/// genotypes are projected on sums over edges (least squares). The spread is that of the predictor's
/// leave-one-out errors and of what the sums miss, added in quadrature.
///
/// # Errors
/// [`TabularError`] for an unknown column, one with too few latencies, or too few samples.
pub fn column_costs(
    table: &LatencyTable,
    device: &str,
    samples: usize,
    seed: u64,
) -> Result<CostTable, TabularError> {
    if samples < LEAST_SAMPLES {
        let reason =
            format!("a latency predictor needs at least {LEAST_SAMPLES} measurements, got {samples}");
        return Err(TabularError::Options { reason });
    }
    let mut known = benchmark::known(table, device)?;
    if known.len() <= samples {
        let rows = known.len();
        return Err(TabularError::TooShort { target: device.to_owned(), rows, budget: 1, samples });
    }
    known.shuffle(&mut Stream::new(seed, "column samples", 0));
    known.truncate(samples);
    let codes: Vec<&Codes> = known.iter().map(|&(row, _)| &table.codes()[row]).collect();
    let latencies: Vec<f64> = known.iter().map(|&(_, latency)| latency).collect();
    let failed = |source| TabularError::Predictor { target: device.to_owned(), source };
    let prior = prior(table, None, device)?;
    let predictor = TablePredictor::fit(&prior, &codes, &latencies).map_err(failed)?;
    let space = table.space();
    let genotypes: Vec<Genotype> = space.enumerate()?.collect();
    let all = genotypes.iter().map(|genotype| table.encoding().encode(genotype));
    let all: Vec<Codes> = all.collect::<Result<_, _>>().map_err(failed)?;
    let predicted = predictor.predict_all(&all);
    let mut costs = projected(space, &genotypes, &predicted);
    let missed: f64 = (genotypes.iter().zip(&predicted))
        .map(|(genotype, predicted)| {
            let sum = costs.mean(space, genotype).map_or(f64::NAN, Micros::millis);
            (predicted / sum - 1.0).powi(2)
        })
        .sum();
    let spread =
        (missed / genotypes.len() as f64 + relative_spread(predictor.leave_one_out()).powi(2)).sqrt();
    let ends = |latency: f64| Micros::from_millis(latency);
    device.clone_into(&mut costs.device);
    costs.relative_sigma = spread;
    costs.ratio_quantiles = [(1.0 - FIVE_PERCENT * spread).max(0.0), 1.0 + FIVE_PERCENT * spread];
    costs.measured_range = [
        ends(latencies.iter().copied().fold(f64::INFINITY, f64::min)),
        ends(latencies.iter().copied().fold(0.0, f64::max)),
    ];
    Ok(costs)
}

/// The sums over edges that are nearest to a latency (milliseconds) for every genotype of a space whose
/// nodes keep all their edges. All combinations occur, so an operation's share is the mean over the
/// genotypes that have it; the cheapest operation of every edge costs nothing, the rest is fixed.
fn projected(space: &Space, genotypes: &[Genotype], latencies: &[f64]) -> CostTable {
    let slots = space.slots();
    let mut sums: Vec<Vec<[f64; 2]>> =
        slots.iter().map(|slot| vec![[0.0; 2]; space.edge(*slot).choices.len()]).collect();
    for (genotype, latency) in genotypes.iter().zip(latencies) {
        let picks = genotype.blocks.iter().flat_map(|block| &block.nodes).flatten();
        for ((slot, sums), pick) in slots.iter().zip(&mut sums).zip(picks) {
            let choice = space.edge(*slot).choices.iter().position(|choice| *choice == pick.choice);
            if let Some([sum, count]) = choice.and_then(|choice| sums.get_mut(choice)) {
                *sum += latency;
                *count += 1.0;
            }
        }
    }
    let mut fixed = latencies.iter().sum::<f64>() / latencies.len() as f64;
    let mean = fixed;
    let mut rows = Vec::with_capacity(slots.len());
    for (slot, sums) in slots.into_iter().zip(sums) {
        let shares: Vec<f64> = sums.into_iter().map(|[sum, count]| sum / count - mean).collect();
        let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
        fixed += least;
        let names = space.edge(slot).choices.iter().cloned();
        let choices = names.zip(shares).map(|(name, share)| (name, Micros::from_millis(share - least)));
        rows.push(SlotCosts { slot, choices: choices.collect() });
    }
    CostTable {
        space: space.name.clone(),
        device: String::new(),
        provenance: Provenance::Published,
        fixed: Micros::from_millis(fixed),
        slots: rows,
        relative_sigma: 0.0,
        ratio_quantiles: [1.0; 2],
        measured_range: [Micros(0.0); 2],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use lathe_spaces::Nas201Skeleton;

    use super::*;
    use crate::fixtures;

    fn space() -> Space {
        Space::nas201(Nas201Skeleton { width: 16, cells: 5, resolution: 32, classes: 10 })
    }

    #[test]
    fn sums_are_found_again() {
        let space = space();
        let truth = fixtures::table(&space, 4);
        let genotypes: Vec<Genotype> = space.enumerate().unwrap().collect();
        let latencies: Vec<f64> =
            genotypes.iter().map(|genotype| truth.mean(&space, genotype).unwrap().millis()).collect();
        let found = projected(&space, &genotypes, &latencies);
        for (genotype, latency) in genotypes.iter().zip(&latencies) {
            let got = found.mean(&space, genotype).unwrap().millis();
            assert!((got / latency - 1.0).abs() < 1e-9, "{got} against {latency}");
        }
        let cheapest = |slot: &SlotCosts| slot.choices.values().map(|cost| cost.0).fold(f64::MAX, f64::min);
        assert!(found.slots.iter().all(|slot| cheapest(slot).abs() < 1e-12));
    }

    #[test]
    fn a_few_rows_and_another_device_tell_a_column() {
        // Two devices, of which one is slower by the same factor everywhere.
        let space = space();
        let truth = fixtures::table(&space, 6);
        let genotypes: Vec<Genotype> = space.enumerate().unwrap().step_by(5).collect();
        let column = |factor: f64| -> Vec<Option<f64>> {
            let of = |genotype: &Genotype| Some(truth.mean(&space, genotype).unwrap().millis() * factor);
            genotypes.iter().map(of).collect()
        };
        let devices = BTreeMap::from([("a".to_owned(), column(1.0)), ("b".to_owned(), column(3.0))]);
        let table = LatencyTable::new(&space, genotypes.clone(), devices).unwrap();
        let costs = column_costs(&table, "b", 10, 1).unwrap();
        assert!(costs.upper_factor() > 1.0 && costs.upper_factor() < 1.5, "{}", costs.upper_factor());
        let mut errors: Vec<f64> = (genotypes.iter().zip(column(3.0)))
            .map(|(genotype, latency)| {
                (costs.mean(&space, genotype).unwrap().millis() / latency.unwrap() - 1.0).abs()
            })
            .collect();
        errors.sort_by(f64::total_cmp);
        assert!(errors[errors.len() / 2] < 0.1, "median error {}", errors[errors.len() / 2]);
        let error = |device, samples| column_costs(&table, device, samples, 1).unwrap_err().to_string();
        assert!(error("c", 10).contains('c'));
        assert!(error("b", 2).contains("at least 5 measurements, got 2"));
    }
}
