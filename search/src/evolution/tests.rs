use std::{cell::Cell, convert::Infallible};

use lathe_spaces::{Nas201Skeleton, Space, Stream};
use proptest::prelude::*;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::*;

fn score(objectives: &[f64], violation: f64) -> Score {
    Score { objectives: objectives.to_vec(), violation }
}

/// All words of six letters of five, and two objectives that contradict each other.
fn words() -> RowIndex {
    let word = |index: usize| (0..6).map(|place| (index / 5_usize.pow(place) % 5) as u8).collect();
    RowIndex::new((0..15_625).map(word).collect())
}

fn objectives(row: usize) -> Vec<f64> {
    let letter = |place: u32| (row / 5_usize.pow(place) % 5) as f64;
    let sum: f64 = (0..6).map(letter).sum();
    let harm: f64 = (0..6).map(|place| (letter(place) - f64::from(place % 3)).powi(2)).sum();
    vec![harm, sum]
}

#[allow(clippy::unnecessary_wraps, reason = "the shape that an evaluation has")]
fn judge(rows: &[usize]) -> Result<Vec<Score>, Infallible> {
    Ok(rows.iter().map(|&row| score(&objectives(row), 0.0)).collect())
}

fn covered(archive: &Archive<usize>) -> f64 {
    let points: Vec<Vec<f64>> = archive.entries.iter().map(|(_, score)| score.objectives.clone()).collect();
    hypervolume(&points, &[40.0, 25.0])
}

proptest! {
    #[test]
    fn ranks_are_those_of_peeling_fronts_off(
        points in prop::collection::vec((0..6_i32, 0..6_i32, 0..4_i32, 0..3_i32), 1..40)
    ) {
        let scores: Vec<Score> = points
            .iter()
            .map(|&(x, y, z, broken)| score(&[f64::from(x), f64::from(y), f64::from(z)], f64::from(broken)))
            .collect();
        let all: Vec<&Score> = scores.iter().collect();
        let mut expected = vec![usize::MAX; scores.len()];
        let mut rank = 0;
        while expected.contains(&usize::MAX) {
            let left: Vec<usize> = (0..scores.len()).filter(|&i| expected[i] == usize::MAX).collect();
            for &i in &left {
                if !left.iter().any(|&j| dominates(&scores[j], &scores[i])) {
                    expected[i] = rank;
                }
            }
            // Marked in one go: members of a front don't count against each other.
            rank += 1;
            prop_assert!(rank <= scores.len());
        }
        prop_assert_eq!(non_dominated_ranks(&all), expected);
    }

    #[test]
    fn hypervolume_is_the_number_of_cells_that_are_covered(
        points in prop::collection::vec(prop::collection::vec(0..8_i32, 3), 0..12), dimensions in 1..4_usize
    ) {
        let points: Vec<Vec<f64>> =
            points.iter().map(|point| point[..dimensions].iter().map(|&value| f64::from(value)).collect()).collect();
        let reference = vec![7.0; dimensions];
        let mut cells = 0;
        for index in 0..7_usize.pow(dimensions as u32) {
            let corner: Vec<f64> =
                (0..dimensions).map(|place| (index / 7_usize.pow(place as u32) % 7) as f64).collect();
            let covers = |point: &Vec<f64>| point.iter().zip(&corner).all(|(value, corner)| value <= corner);
            cells += usize::from(points.iter().any(covers));
        }
        prop_assert!((hypervolume(&points, &reference) - cells as f64).abs() < 1e-9);
    }

    #[test]
    fn a_front_is_what_no_other_point_dominates(
        points in prop::collection::vec((0..9_i32, 0..9_i32), 1..40)
    ) {
        let points: Vec<Vec<f64>> =
            points.iter().map(|&(x, y)| vec![f64::from(x), f64::from(y)]).collect();
        let scores: Vec<Score> = points.iter().map(|point| score(point, 0.0)).collect();
        let expected: Vec<&Vec<f64>> = {
            let best = (0..points.len()).filter(|&i| !scores.iter().any(|other| dominates(other, &scores[i])));
            let mut best: Vec<&Vec<f64>> = best.map(|i| &points[i]).collect();
            best.sort_by(|left, right| left[0].total_cmp(&right[0]));
            best.dedup();
            best
        };
        let got: Vec<&Vec<f64>> = pareto_front(&points).into_iter().map(|i| &points[i]).collect();
        prop_assert_eq!(got, expected);
    }
}

#[test]
fn crowding_is_as_in_the_paper_done_by_hand() {
    let points =
        [score(&[0.0, 10.0], 0.0), score(&[1.0, 4.0], 0.0), score(&[4.0, 2.0], 0.0), score(&[5.0, 0.0], 0.0)];
    let all: Vec<&Score> = points.iter().collect();
    let got = crowding_distances(&all);
    assert!(got[0].is_infinite() && got[3].is_infinite());
    assert!((got[1] - (4.0 / 5.0 + 8.0 / 10.0)).abs() < 1e-12, "{got:?}");
    assert!((got[2] - (4.0 / 5.0 + 4.0 / 10.0)).abs() < 1e-12, "{got:?}");
    // Two points alike in everything have no extent: both are ends, and nothing is divided by zero.
    assert!(crowding_distances(&[&points[0], &points[0]]).iter().all(|distance| !distance.is_nan()));
}

#[test]
fn what_breaks_a_limit_loses_against_what_meets_it() {
    let (good, broken, worse) = (score(&[9.0], 0.0), score(&[1.0], 1.0), score(&[0.0], 2.0));
    assert!(dominates(&good, &broken) && dominates(&broken, &worse) && !dominates(&worse, &broken));
}

/// Every algorithm, on the same words with the same budget.
fn archives(seed: u64, budget: usize) -> Vec<Archive<usize>> {
    let index = words();
    let all = index.subset(vec![true; 15_625]).unwrap();
    let rng = || Stream::new(seed, "test", 0);
    let by_random_weight = |scores: &[&Score], rng: &mut ChaCha8Rng| {
        let weight: f64 = rng.random();
        let value = |score: &Score| weight * score.objectives[0] + (1.0 - weight) * score.objectives[1];
        let least = |left: &usize, right: &usize| value(scores[*left]).total_cmp(&value(scores[*right]));
        (0..scores.len()).min_by(least).unwrap()
    };
    let mut judge = judge;
    vec![
        random_search(&all, Evaluator::new(budget, &mut judge), &mut rng()).unwrap(),
        aging_evolution(
            &all,
            AgingSettings::default(),
            Evaluator::new(budget, &mut judge),
            &by_random_weight,
            &mut rng(),
        )
        .unwrap(),
        nsga2(&all, Nsga2Settings::default(), Evaluator::new(budget, &mut judge), &mut rng()).unwrap(),
    ]
}

#[test]
fn budgets_are_kept_no_point_is_paid_twice_and_a_seed_gives_the_same_points() {
    for (archive, again) in archives(3, 300).into_iter().zip(archives(3, 300)) {
        assert_eq!(archive, again);
        let mut rows: Vec<usize> = archive.entries.iter().map(|(row, _)| *row).collect();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), 300);
    }
    assert_ne!(archives(3, 100), archives(4, 100));
}

#[test]
fn evolution_covers_more_than_chance() {
    let mean =
        |algorithm: usize| -> f64 { (0..8).map(|seed| covered(&archives(seed, 300)[algorithm])).sum() };
    let (random, aging, genetic) = (mean(0), mean(1), mean(2));
    assert!(aging > 1.02 * random && genetic > 1.02 * random, "{random} {aging} {genetic}");
}

#[test]
fn a_longer_budget_begins_with_a_shorter_ones_points() {
    for (short, long) in archives(5, 60).into_iter().zip(archives(5, 200)) {
        // Random search draws as many at once as are left, which changes nothing.
        assert_eq!(short.entries[..], long.entries[..60]);
    }
}

#[test]
fn a_small_set_is_exhausted_and_the_search_ends() {
    let index = words();
    let allowed: Vec<bool> = (0..15_625).map(|row| row < 7).collect();
    let few = index.subset(allowed).unwrap();
    let mut judge = judge;
    let rng = || Stream::new(0, "test", 0);
    let archive = nsga2(&few, Nsga2Settings::default(), Evaluator::new(50, &mut judge), &mut rng()).unwrap();
    assert_eq!(archive.entries.len(), 7);
    let archive = random_search(&few, Evaluator::new(50, &mut judge), &mut rng()).unwrap();
    assert_eq!(archive.entries.len(), 7);
    let first = |_: &[&Score], _: &mut ChaCha8Rng| 0;
    let settings = AgingSettings { population: 20, tournament: 5 };
    let archive =
        aging_evolution(&few, settings, Evaluator::new(50, &mut judge), &first, &mut rng()).unwrap();
    assert_eq!(archive.entries.len(), 7);
    assert!(index.subset(vec![false; 15_625]).is_none());
}

#[test]
fn genotypes_of_a_space_are_searched_too_and_errors_pass_through() {
    let space = Space::nas201(Nas201Skeleton { width: 4, cells: 1, resolution: 8, classes: 10 });
    let calls = Cell::new(0);
    let mut macs = |genotypes: &[lathe_spaces::Genotype]| {
        calls.set(calls.get() + genotypes.len());
        genotypes
            .iter()
            .map(|genotype| {
                let network = space.network(genotype, lathe_spaces::NetworkOptions::default())?;
                Ok(score(&[network.macs() as f64, -(network.parameter_count() as f64)], 0.0))
            })
            .collect::<Result<Vec<_>, lathe_spaces::SpaceError>>()
    };
    let mut rng = Stream::new(1, "test", 0);
    let evaluator = Evaluator::new(60, &mut macs);
    let archive = nsga2(&space, Nsga2Settings::default(), evaluator, &mut rng).unwrap();
    assert_eq!((archive.entries.len(), calls.get()), (60, 60));
    let mut fails = |_: &[lathe_spaces::Genotype]| Err("device is gone");
    let error = nsga2(&space, Nsga2Settings::default(), Evaluator::new(5, &mut fails), &mut rng);
    assert_eq!(error.unwrap_err(), "device is gone");
}
