#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::fixtures;

/// α and β of the space with all logits at `rest`, changed by `set`.
fn hand_made(space: &Space, set: impl FnOnce(&mut Scores)) -> Scores {
    let mut scores = Scores::uniform(space);
    set(&mut scores);
    scores
}

fn picks(genotype: &Genotype, block: usize, node: usize) -> Vec<(usize, &str)> {
    genotype.blocks[block].nodes[node].iter().map(|pick| (pick.from, pick.choice.as_str())).collect()
}

#[test]
fn the_rule_of_pc_darts_on_hand_made_scores() {
    let space = fixtures::small();
    // Slots: normal 0–1 | 2–4, reduce 5–6 | 7–9. Columns: none, max pool, skip, sep.
    let scores = hand_made(&space, |scores| {
        scores.alpha[2] = vec![0.0, 0.0, 1.0, 0.0];
        scores.alpha[3] = vec![0.0, 2.0, 0.0, 0.0];
        scores.alpha[4] = vec![0.0, 0.0, 0.0, 1.5];
        scores.beta[2] = 1.0;
        scores.beta[6] = 0.1;
        scores.alpha[8] = vec![3.0, 0.0, 0.0, 0.1];
    });
    let genotype = derive_unconstrained(&space, &scores);
    // Ties: the first deployable choice.
    assert_eq!(picks(&genotype, 0, 0), [(0, "max_pool_3x3"), (1, "max_pool_3x3")]);
    // Strength β·max α: edge 0 has e¹·0.475, edge 1 0.711, edge 2 0.599.
    assert_eq!(picks(&genotype, 0, 1), [(0, "skip_connect"), (1, "max_pool_3x3")]);
    assert_eq!(picks(&genotype, 1, 0), [(1, "max_pool_3x3")]);
    // Edge 1's mass lies on none, so its strength is small; of the two equal others the first.
    assert_eq!(picks(&genotype, 1, 1), [(0, "max_pool_3x3")]);
}

#[test]
fn mass_on_none_weakens_an_edge_but_is_never_chosen() {
    let space = fixtures::small();
    let with_none = |none: f64| {
        let scores = hand_made(&space, |scores| {
            scores.alpha[7] = vec![none, 0.0, 0.0, 2.0];
            scores.alpha[8] = vec![0.0, 0.0, 1.5, 0.0];
        });
        derive_unconstrained(&space, &scores)
    };
    assert_eq!(picks(&with_none(0.0), 1, 1), [(0, "sep_conv_3x3")]);
    assert_eq!(picks(&with_none(2.0), 1, 1), [(1, "skip_connect")]);
    for seed in 0..20 {
        let genotype = derive_unconstrained(&space, &fixtures::scores(&space, 3.0, seed));
        assert!(genotype.blocks.iter().flat_map(|b| &b.nodes).flatten().all(|pick| pick.choice != "none"));
    }
}

#[test]
fn without_a_limit_or_with_a_loose_one_it_is_the_rule_itself() {
    let space = fixtures::darts();
    for seed in 0..20 {
        let scores = fixtures::scores(&space, 2.0, seed);
        let table = fixtures::table(&space, seed);
        let free = derive_unconstrained(&space, &scores);
        assert!(space.validate(&free).is_ok());
        assert_eq!(derive(&space, &scores, None).unwrap().genotype, free);
        let loose = derive(&space, &scores, Some((&table, Micros(1e9)))).unwrap();
        assert_eq!(loose.genotype, free);
        assert!(!loose.constrained);
    }
}

/// Independent of the code under test: every network, scored from the softmaxes themselves.
fn by_force(space: &Space, scores: &Scores, table: &CostTable, target: Micros) -> Option<(f64, Genotype)> {
    let snapshots = scores.snapshots(space);
    let score = |genotype: &Genotype| {
        let mut sum = 0.0;
        for (block, snapshot) in snapshots.iter().enumerate() {
            let mut first = 0;
            for (node, spec) in space.blocks[block].nodes.iter().enumerate() {
                for pick in &genotype.blocks[block].nodes[node] {
                    let edge = spec.edges.iter().position(|edge| edge.from == pick.from).unwrap();
                    let choice = spec.edges[edge].choices.iter().position(|c| *c == pick.choice).unwrap();
                    sum += (snapshot.beta[first + edge] * snapshot.alpha[first + edge][choice]).ln();
                }
                first += spec.edges.len();
            }
        }
        sum
    };
    space
        .enumerate()
        .unwrap()
        .filter(|genotype| table.mean(space, genotype).unwrap() * table.upper_factor() <= target)
        .map(|genotype| (score(&genotype), genotype))
        .max_by(|a, b| a.0.total_cmp(&b.0))
}

/// Three limits with costs that have nothing to do with each other, each at this share of its range.
fn three_limits(space: &Space, seed: u64, tightness: [f64; 3]) -> Vec<Limit> {
    let limit = |(index, tightness): (u64, f64)| {
        let table = fixtures::table(space, seed * 3 + index);
        let mut limit = Limit::latency(&format!("limit {index}"), space, &table, Micros(1.0)).unwrap();
        let [least, most] = limit.reachable(space).map(|mean| mean * limit.upper_factor);
        limit.at_most = least + tightness * (most - least);
        limit
    };
    (0..).zip(tightness).map(limit).collect()
}

/// Exchanges one edge or choice after the other, each time the one that costs the least score per unit saved,
/// until the limit is kept: what the exact derivation stands in for.
fn repaired(space: &Space, scores: &Scores, limit: &Limit) -> Option<Genotype> {
    let strengths = log_strengths(space, scores);
    let mut genotype = derive_unconstrained(space, scores);
    while limit.upper(space, &genotype) > limit.at_most {
        let (score, mean) = (score_of(space, &genotype, &strengths), limit.mean(space, &genotype));
        let mut best: Option<(f64, Genotype)> = None;
        for (block, nodes) in space.blocks.iter().enumerate() {
            for (node, spec) in nodes.nodes.iter().enumerate() {
                for (place, from) in
                    (0..spec.keep).flat_map(|place| (0..spec.edges.len()).map(move |from| (place, from)))
                {
                    for choice in &spec.edges[from].choices {
                        let mut other = genotype.clone();
                        let picks = &mut other.blocks[block].nodes[node];
                        picks[place] =
                            lathe_spaces::Pick { from: spec.edges[from].from, choice: choice.clone() };
                        picks.sort_by_key(|pick| pick.from);
                        let saved = mean - limit.mean(space, &other);
                        if saved <= 0.0 || space.validate(&other).is_err() {
                            continue;
                        }
                        let loss = (score - score_of(space, &other, &strengths)) / saved;
                        if best.as_ref().is_none_or(|(least, _)| loss < *least) {
                            best = Some((loss, other));
                        }
                    }
                }
            }
        }
        genotype = best?.1;
    }
    Some(genotype)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn no_repair_by_exchanges_loses_less(seed in 0u64..100_000, scale in 0.2f64..4.0, tightness in 0.02f64..0.7) {
        let space = fixtures::darts();
        let scores = fixtures::scores(&space, scale, seed);
        let table = fixtures::table(&space, seed);
        let mut limit = Limit::latency("latency", &space, &table, Micros(1.0)).unwrap();
        let [least, most] = limit.reachable(&space).map(|mean| mean * limit.upper_factor);
        limit.at_most = least + tightness * (most - least);
        let derived = derive_within(&space, &scores, std::slice::from_ref(&limit), &|_| true).unwrap();
        if let Some(repaired) = repaired(&space, &scores, &limit) {
            let loss = score_of(&space, &repaired, &log_strengths(&space, &scores));
            prop_assert!(derived.log_score >= loss - 1e-9, "{} derived, {loss} repaired", derived.log_score);
        }
    }

    #[test]
    fn several_limits_and_a_condition_find_what_trying_everything_finds(
        seed in 0u64..100_000,
        scale in 0.0f64..4.0,
        tightness in [0.0f64..0.9, 0.0f64..0.9, 0.0f64..0.9],
        conditional in proptest::bool::ANY,
    ) {
        let space = fixtures::small();
        let scores = fixtures::scores(&space, scale, seed);
        let limits = three_limits(&space, seed, tightness);
        // Not a sum over the parts: the first picks of two nodes must differ.
        let accept = |genotype: &Genotype| {
            let first = |node: usize| &genotype.blocks[0].nodes[node][0].choice;
            !conditional || first(0) != first(1)
        };
        let strengths = log_strengths(&space, &scores);
        let kept: Vec<Genotype> = space.enumerate().unwrap().filter(|genotype| accept(genotype)
            && limits.iter().all(|limit| limit.upper(&space, genotype) <= limit.at_most)).collect();
        let best = kept.iter().map(|genotype| score_of(&space, genotype, &strengths)).fold(f64::NEG_INFINITY, f64::max);
        match derive_within(&space, &scores, &limits, &accept) {
            Ok(derived) => {
                prop_assert!((derived.log_score - best).abs() < 1e-9, "{} against {best}", derived.log_score);
                prop_assert!(kept.contains(&derived.genotype));
            }
            Err(DeriveError::Limits { closest, values, .. }) => {
                prop_assert!(kept.is_empty(), "{} networks keep all", kept.len());
                prop_assert!(space.validate(&closest).is_ok());
                prop_assert_eq!(values.len(), 3);
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn several_limits_are_kept_in_the_whole_darts_space(seed in 0u64..100_000, scale in 0.0f64..5.0, tightness in 0.35f64..0.8) {
        let space = fixtures::darts();
        let scores = fixtures::scores(&space, scale, seed);
        let limits = three_limits(&space, seed, [tightness, tightness, 0.5]);
        let derived = derive_within(&space, &scores, &limits, &|_| true).unwrap();
        for limit in &limits {
            prop_assert!(limit.upper(&space, &derived.genotype) <= limit.at_most);
        }
        prop_assert!(space.validate(&derived.genotype).is_ok());
    }

    #[test]
    fn it_finds_what_trying_everything_finds(seed in 0u64..1_000_000, scale in 0.1f64..4.0, tightness in -0.05f64..1.0) {
        let space = fixtures::small();
        let scores = fixtures::scores(&space, scale, seed);
        let table = fixtures::table(&space, seed);
        let [fastest, slowest] = table.reachable(&space).unwrap().map(|mean| mean.0 * table.upper_factor());
        let target = Micros(fastest + tightness * (slowest - fastest));
        match (derive(&space, &scores, Some((&table, target))), by_force(&space, &scores, &table, target)) {
            (Ok(derived), Some((best, _))) => {
                prop_assert!((derived.log_score - best).abs() < 1e-9, "{} against {best}", derived.log_score);
                prop_assert!(derived.upper.unwrap() <= target);
            }
            (Err(DeriveError::Infeasible { target: told, fastest: upper }), None) => {
                prop_assert_eq!(told, target);
                prop_assert!((upper.0 - fastest).abs() < 1e-6);
            }
            (derived, forced) => prop_assert!(false, "{derived:?} against {forced:?}"),
        }
    }

    #[test]
    fn it_never_exceeds_the_limit_in_the_whole_darts_space(seed in 0u64..1_000_000, scale in 0.0f64..5.0, tightness in 0.0f64..0.6) {
        let space = fixtures::darts();
        let scores = fixtures::scores(&space, scale, seed);
        let table = fixtures::table(&space, seed);
        let [fastest, slowest] = table.reachable(&space).unwrap().map(|mean| mean.0 * table.upper_factor());
        let target = Micros(fastest + 1e-9 + tightness * (slowest - fastest));
        let derived = derive(&space, &scores, Some((&table, target))).unwrap();
        let mean = table.mean(&space, &derived.genotype).unwrap();
        prop_assert!(mean * table.upper_factor() <= target);
        prop_assert_eq!(derived.mean, Some(mean));
        prop_assert!(space.validate(&derived.genotype).is_ok());
        prop_assert_eq!(derived.constrained, derived.genotype != derive_unconstrained(&space, &scores));
    }
}

#[test]
fn a_condition_that_the_first_networks_fail_leaves_it_open_whether_a_later_one_meets_it() {
    let space = fixtures::darts();
    let scores = fixtures::scores(&space, 1.0, 1);
    let limits = three_limits(&space, 1, [0.5, 0.5, 0.9]);
    let best = derive_within(&space, &scores, &limits, &|_| true).unwrap();
    match derive_within(&space, &scores, &limits, &|_| false).unwrap_err() {
        DeriveError::Undecided { what, closest, values } => {
            assert!(what.contains("none of the 10000 best") && what.contains("not looked at"), "{what}");
            assert_eq!(closest, best.genotype);
            assert_eq!(values.len(), 3);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_condition_that_nothing_meets_is_told_as_such_where_all_are_looked_at() {
    let space = fixtures::small();
    let scores = fixtures::scores(&space, 1.0, 1);
    // So tight that fewer networks keep it than are asked about.
    let mut limit = Limit::latency("latency", &space, &fixtures::table(&space, 1), Micros(1.0)).unwrap();
    let [least, most] = limit.reachable(&space).map(|mean| mean * limit.upper_factor);
    limit.at_most = least + 0.2 * (most - least);
    let error = derive_within(&space, &scores, &[limit], &|_| false).unwrap_err();
    assert!(
        matches!(&error, DeriveError::Limits { what, .. } if what.contains("accepted otherwise")),
        "{error}"
    );
}

#[test]
fn a_table_that_does_not_fit_is_an_error() {
    let space = fixtures::darts();
    let scores = fixtures::scores(&space, 1.0, 1);
    let mut table = fixtures::table(&space, 1);
    table.slots[5].choices.remove("dil_conv_5x5");
    let error = derive(&space, &scores, Some((&table, Micros(100.0)))).unwrap_err();
    assert_eq!(error, DeriveError::Cost { slot: 5, choice: "dil_conv_5x5".into() });
    table.space = "other".into();
    let error = derive(&space, &scores, Some((&table, Micros(100.0)))).unwrap_err();
    assert!(matches!(error, DeriveError::Space { .. }), "{error}");
    let mut diverged = scores;
    diverged.alpha[3][2] = f64::NAN;
    assert!(matches!(
        derive(&space, &diverged, None),
        Err(DeriveError::Scores(ScoresError::NotFinite { .. }))
    ));
}
