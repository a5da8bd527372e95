#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]

//! NAS-Bench-201 is small enough to try all of its 15,625 networks.

use lathe_spaces::{Nas201Skeleton, Pick};

use super::*;
use crate::{expected_latency, fixtures};

fn space() -> Space {
    Space::nas201(Nas201Skeleton { width: 16, cells: 5, resolution: 32, classes: 10 })
}

/// Column of every edge's choice, in the order of the slots.
fn columns(space: &Space, genotype: &Genotype) -> Vec<usize> {
    let picks = genotype.blocks[0].nodes.iter().flatten();
    let column = |(slot, pick): (_, &Pick)| {
        space.edge(slot).choices.iter().position(|choice| *choice == pick.choice).unwrap()
    };
    space.slots().into_iter().zip(picks).map(column).collect()
}

#[test]
fn the_expected_latency_is_the_mean_over_all_networks() {
    let space = space();
    let genotypes: Vec<Genotype> = space.enumerate().unwrap().collect();
    assert_eq!(genotypes.len(), 15_625);
    for (seed, temperature) in [(1, 1.0), (2, 0.3), (3, 4.0)] {
        let scores = fixtures::scores(&space, 2.0, seed);
        let table = fixtures::table(&space, seed);
        // `none` is one of the choices here: it is deployed as often as it is drawn.
        let shares: Vec<Vec<f64>> = (scores.alpha.iter())
            .map(|row| {
                let powers: Vec<f64> = row.iter().map(|logit| (logit / temperature).exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.into_iter().map(|power| power / sum).collect()
            })
            .collect();
        let (mut mean, mut total) = (0.0, 0.0);
        for genotype in &genotypes {
            let columns = columns(&space, genotype);
            let probability: f64 = columns.iter().zip(&shares).map(|(&column, row)| row[column]).product();
            mean += probability * table.mean(&space, genotype).unwrap().0;
            total += probability;
        }
        assert!((total - 1.0).abs() < 1e-9);
        let expected = expected_latency(&space, &scores, &table, temperature).0;
        assert!((expected / mean - 1.0).abs() < 1e-9, "{expected}, mean {mean}");
    }
}

#[test]
fn the_best_network_within_a_limit_is_that_of_trying_all() {
    let space = space();
    let genotypes: Vec<Genotype> = space.enumerate().unwrap().collect();
    let mut constrained = 0;
    for seed in 0..6 {
        let scores = fixtures::scores(&space, 2.0, seed);
        let table = fixtures::table(&space, seed);
        let [least, most] = table.reachable(&space).unwrap().map(|end| end.0 * table.upper_factor());
        let snapshot = &scores.snapshots(&space)[0];
        let score = |columns: &[usize]| -> f64 {
            let edge =
                |(slot, &column): (usize, &usize)| (snapshot.alpha[slot][column] * snapshot.beta[slot]).ln();
            columns.iter().enumerate().map(edge).sum()
        };
        for share in [0.01, 0.1, 0.3, 0.6, 1.0] {
            let target = Micros(least + share * (most - least));
            let derived = derive(&space, &scores, Some((&table, target))).unwrap();
            let within = |genotype: &&Genotype| {
                table.mean(&space, genotype).unwrap().0 * table.upper_factor() <= target.0
            };
            let best = genotypes
                .iter()
                .filter(within)
                .map(|genotype| (score(&columns(&space, genotype)), genotype))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .unwrap();
            assert_eq!(derived.genotype, *best.1, "seed {seed}, {share}");
            assert!((derived.log_score - best.0).abs() < 1e-9);
            constrained += usize::from(derived.constrained);
        }
        assert!(derive(&space, &scores, Some((&table, Micros(least * 0.99)))).is_err());
    }
    assert!(constrained > 10, "hardly a limit binds: {constrained} of 30");
}

#[test]
fn none_is_derived_where_it_is_liked_best() {
    let space = space();
    let mut scores = Scores::uniform(&space);
    for (slot, row) in scores.alpha.iter_mut().enumerate() {
        row[if slot % 2 == 0 { 0 } else { 3 }] = 1.0;
    }
    // β says nothing about edges that are all kept.
    scores.beta = vec![3.0, -2.0, 1.0, 0.5, -4.0, 2.0];
    let genotype = derive_unconstrained(&space, &scores);
    let text = "|none~0|+|nor_conv_3x3~0|none~1|+|nor_conv_3x3~0|none~1|nor_conv_3x3~2|";
    assert_eq!(space.format(&genotype), text);
}
