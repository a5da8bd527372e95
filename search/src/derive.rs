//! From scores to a network, exactly and never slower than the limit.

use lathe_latency_db::CostTable;
use lathe_spaces::{BlockGenotype, Genotype, Micros, Pick, Space};
use thiserror::Error;

use crate::{
    objective::Costs,
    scores::{NodeSlots, Scores, ScoresError, deployable_columns, log_softmax, node_slots},
};

/// A network chosen from scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Derived {
    /// The network.
    pub genotype: Genotype,
    /// Σ over kept edges of log(softmax(β) · softmax(α) of its choice).
    pub log_score: f64,
    /// Predicted latency, if there is a limit.
    pub mean: Option<Micros>,
    /// Upper bound of the predicted latency, if there is a limit; never above it.
    pub upper: Option<Micros>,
    /// Whether the limit forced another network than [`derive_unconstrained`] gives.
    pub constrained: bool,
}

/// Why no network can be derived.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum DeriveError {
    /// No network of the space is fast enough.
    #[error(
        "derive a network: the fastest one of the space has an upper bound of {fastest}, above the target of {target}; hint: raise the target, or make the deployed network smaller"
    )]
    Infeasible {
        /// Target.
        target: Micros,
        /// Smallest upper bound (predicted mean · the table's upper factor) of any network of the space.
        fastest: Micros,
    },
    /// Scores of another space, or diverged ones.
    #[error("derive a network: {0}")]
    Scores(#[from] ScoresError),
    /// A cost table of another space.
    #[error("derive a network: the cost table belongs to the space `{got}`, expected `{expected}`")]
    Space {
        /// Name of the space.
        expected: String,
        /// Name in the table.
        got: String,
    },
    /// A cost table that can't tell a network's latency.
    #[error("derive a network: {0}")]
    Table(String),
    /// A cost table without an entry that is needed.
    #[error(
        "derive a network: the cost table has no finite cost for `{choice}` at slot {slot}; hint: measure what is missing and fit again"
    )]
    Cost {
        /// Position of the slot.
        slot: usize,
        /// Choice.
        choice: String,
    },
}

/// The rule of PC-DARTS: per node the `keep` edges with the largest deployable entry of
/// softmax(α)·softmax(β), each with its strongest deployable choice. `none` is never chosen, but its
/// share of softmax(α) weakens an edge. Ties go to the lower index.
///
/// # Panics
/// If the scores don't fit the space; see [`Scores::check`].
pub fn derive_unconstrained(space: &Space, scores: &Scores) -> Genotype {
    let strengths = log_strengths(space, scores);
    let columns = deployable_columns(space);
    let picks = node_slots(space).into_iter().map(|node| {
        let mut edges: Vec<Kept> =
            node.slots.clone().filter_map(|slot| strongest(slot, &columns[slot], &strengths[slot])).collect();
        // Stable, so that equal edges stay in order.
        edges.sort_by(|a, b| strengths[b.slot][b.choice].total_cmp(&strengths[a.slot][a.choice]));
        edges.truncate(node.keep);
        edges.sort_by_key(|kept| kept.slot);
        edges
    });
    genotype(space, &picks.collect::<Vec<_>>())
}

/// The network with the largest Σ log(softmax(β)·softmax(α)) over its kept edges among all whose
/// upper bound, the table's mean times [`CostTable::upper_factor`], is within the limit.
///
/// Exact: the choices of a node that are neither faster nor better than another are dropped, then the
/// nodes are merged one by one, keeping what no other partial network beats in both respects. Without
/// a limit, or with one that does not bind, it is [`derive_unconstrained`].
pub fn derive(
    space: &Space,
    scores: &Scores,
    limit: Option<(&CostTable, Micros)>,
) -> Result<Derived, DeriveError> {
    scores.check(space)?;
    let free = derive_unconstrained(space, scores);
    let strengths = log_strengths(space, scores);
    let Some((table, target)) = limit else {
        let log_score = score_of(space, &free, &strengths);
        return Ok(Derived { genotype: free, log_score, mean: None, upper: None, constrained: false });
    };
    if table.space != space.name {
        return Err(DeriveError::Space { expected: space.name.clone(), got: table.space.clone() });
    }
    let costs = Costs::new(space, table);
    if let Some((slot, choice)) = costs.missing() {
        let choice = space.edge(space.slots()[slot]).choices[choice].clone();
        return Err(DeriveError::Cost { slot, choice });
    }
    // The judge of every candidate is the table's own sum, however the candidate was found.
    let factor = table.upper_factor();
    let finish = |genotype: Genotype| {
        let mean = table.mean(space, &genotype).map_err(|error| DeriveError::Table(error.to_string()))?;
        let log_score = score_of(space, &genotype, &strengths);
        let constrained = genotype != free;
        Ok::<_, DeriveError>(Derived {
            genotype,
            log_score,
            mean: Some(mean),
            upper: Some(mean * factor),
            constrained,
        })
    };
    let fits = |derived: &Derived| derived.upper.is_some_and(|upper| upper <= target);
    let unconstrained = finish(free.clone())?;
    if fits(&unconstrained) {
        return Ok(unconstrained);
    }

    let columns = deployable_columns(space);
    let nodes = node_slots(space);
    let options: Vec<Vec<NodeOption>> =
        nodes.iter().map(|node| node_options(node, &columns, &costs, &strengths)).collect();
    let build = |chosen: &[usize]| {
        let picks: Vec<Vec<Kept>> =
            chosen.iter().zip(&options).map(|(&option, options)| options[option].picks.clone()).collect();
        finish(genotype(space, &picks))
    };
    // Options are sorted by cost.
    let fastest = build(&vec![0; options.len()])?;
    if !fits(&fastest) {
        return Err(DeriveError::Infeasible { target, fastest: fastest.upper.unwrap_or(target) });
    }
    // A hair above the budget: rounding must not hide a network that just fits; `fits` decides.
    let budget = target.0 / factor - costs.fixed;
    let budget = budget + 1e-9 * (target.0 / factor).abs();
    let (price, relaxed) = lagrange(&options, budget);
    let mut incumbent = fastest;
    if let Some(chosen) = relaxed {
        let candidate = build(&chosen)?;
        if fits(&candidate) && candidate.log_score > incumbent.log_score {
            incumbent = candidate;
        }
    }
    for chosen in merge(&options, budget, price, incumbent.log_score) {
        let candidate = build(&chosen)?;
        if fits(&candidate) {
            return Ok(candidate);
        }
    }
    Ok(incumbent)
}

/// A kept edge: slot and column of the choice.
#[derive(Clone, Copy, Debug)]
struct Kept {
    slot: usize,
    choice: usize,
}

/// One way to fill a node.
#[derive(Clone, Debug)]
struct NodeOption {
    cost: f64,
    score: f64,
    picks: Vec<Kept>,
}

/// One way to fill the first nodes; `parent` points into the list of one node less.
#[derive(Clone, Copy, Debug)]
struct Partial {
    cost: f64,
    score: f64,
    parent: usize,
    option: usize,
}

/// log(softmax(β) · softmax(α)) per slot and choice.
fn log_strengths(space: &Space, scores: &Scores) -> Vec<Vec<f64>> {
    let mut strengths = Vec::with_capacity(scores.beta.len());
    for node in node_slots(space) {
        let log_beta = log_softmax(&scores.beta[node.slots.clone()]);
        for (slot, log_beta) in node.slots.zip(log_beta) {
            strengths.push(log_softmax(&scores.alpha[slot]).into_iter().map(|log| log + log_beta).collect());
        }
    }
    strengths
}

/// The strongest deployable choice of a slot, the first among equals.
fn strongest(slot: usize, columns: &[usize], strengths: &[f64]) -> Option<Kept> {
    let first_best =
        |best: usize, &column: &usize| if strengths[column] > strengths[best] { column } else { best };
    let &start = columns.first()?;
    Some(Kept { slot, choice: columns.iter().fold(start, first_best) })
}

/// Per node its kept edges → genotype.
fn genotype(space: &Space, picks: &[Vec<Kept>]) -> Genotype {
    let named = |name: &str| BlockGenotype { name: name.to_owned(), nodes: Vec::new() };
    let mut blocks: Vec<BlockGenotype> = space.blocks.iter().map(|block| named(&block.name)).collect();
    for (node, kept) in node_slots(space).into_iter().zip(picks) {
        let edges = &space.blocks[node.block].nodes[node.node].edges;
        let pick = |kept: &Kept| {
            let edge = &edges[kept.slot - node.slots.start];
            Pick { from: edge.from, choice: edge.choices[kept.choice].clone() }
        };
        blocks[node.block].nodes.push(kept.iter().map(pick).collect());
    }
    Genotype { blocks }
}

/// Slots and columns of a genotype's picks, in order; picks that the space lacks are left out.
fn kept_of(space: &Space, genotype: &Genotype) -> Vec<Kept> {
    let mut kept = Vec::new();
    for node in node_slots(space) {
        let edges = &space.blocks[node.block].nodes[node.node].edges;
        for pick in &genotype.blocks[node.block].nodes[node.node] {
            let edge = edges.iter().position(|edge| edge.from == pick.from);
            let choice =
                edge.and_then(|edge| edges[edge].choices.iter().position(|choice| *choice == pick.choice));
            if let (Some(edge), Some(choice)) = (edge, choice) {
                kept.push(Kept { slot: node.slots.start + edge, choice });
            }
        }
    }
    kept
}

fn score_of(space: &Space, genotype: &Genotype, strengths: &[Vec<f64>]) -> f64 {
    kept_of(space, genotype).iter().map(|kept| strengths[kept.slot][kept.choice]).sum()
}

/// All ways to fill a node that no other way beats, sorted by cost (and so by score).
fn node_options(
    node: &NodeSlots,
    columns: &[Vec<usize>],
    costs: &Costs,
    strengths: &[Vec<f64>],
) -> Vec<NodeOption> {
    let mut all = Vec::new();
    for subset in subsets(&node.slots.clone().collect::<Vec<_>>(), node.keep.min(node.slots.len())) {
        let mut ways = vec![NodeOption { cost: 0.0, score: 0.0, picks: Vec::new() }];
        for slot in subset {
            ways = undominated(
                ways.iter().flat_map(|way| {
                    columns[slot].iter().map(move |&choice| {
                        let mut picks = way.picks.clone();
                        picks.push(Kept { slot, choice });
                        NodeOption {
                            cost: way.cost + costs.choices[slot][choice],
                            score: way.score + strengths[slot][choice],
                            picks,
                        }
                    })
                }),
                |way| (way.cost, way.score),
            );
        }
        all.append(&mut ways);
    }
    undominated(all.into_iter(), |way| (way.cost, way.score))
}

/// All subsets of `size` elements, in lexicographic order.
fn subsets(elements: &[usize], size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (position, &first) in elements.iter().enumerate() {
        for rest in subsets(&elements[position + 1..], size - 1) {
            all.push([vec![first], rest].concat());
        }
    }
    all
}

/// Without those that another one equals or beats in cost and score; sorted by cost.
fn undominated<T>(items: impl Iterator<Item = T>, key: impl Fn(&T) -> (f64, f64)) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    // Stable: among equals the first stays.
    items.sort_by(|a, b| {
        let ((cost_a, score_a), (cost_b, score_b)) = (key(a), key(b));
        cost_a.total_cmp(&cost_b).then(score_b.total_cmp(&score_a))
    });
    let mut best = f64::NEG_INFINITY;
    items.retain(|item| {
        let score = key(item).1;
        let better = score > best;
        best = best.max(score);
        better
    });
    items
}

/// Per node the option with the largest score − price · cost.
fn best_at(options: &[Vec<NodeOption>], price: f64) -> Vec<usize> {
    let value = |option: &NodeOption| option.score - price * option.cost;
    let best = |options: &Vec<NodeOption>| {
        (1..options.len())
            .fold(0, |best, i| if value(&options[i]) > value(&options[best]) { i } else { best })
    };
    options.iter().map(best).collect()
}

/// The smallest price of latency at which choosing node by node keeps the budget, and that choice.
/// It gives a good network and a bound that makes [`merge`] fast; the result does not depend on it.
fn lagrange(options: &[Vec<NodeOption>], budget: f64) -> (f64, Option<Vec<usize>>) {
    let cost =
        |chosen: &[usize]| chosen.iter().zip(options).map(|(&i, options)| options[i].cost).sum::<f64>();
    let mut high = 1e-6;
    while cost(&best_at(options, high)) > budget {
        high *= 2.0;
        if high > 1e12 {
            return (0.0, None);
        }
    }
    let mut low = 0.0;
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if cost(&best_at(options, middle)) > budget { low = middle } else { high = middle }
    }
    (high, Some(best_at(options, high)))
}

/// All undominated ways to fill every node within the budget that score at least `least`, best first.
fn merge(options: &[Vec<NodeOption>], budget: f64, price: f64, least: f64) -> Vec<Vec<usize>> {
    // Bounds on what the nodes from a position on can still give.
    let count = options.len();
    let mut cheapest = vec![0.0; count + 1];
    let mut relaxed = vec![0.0; count + 1];
    for (position, node) in options.iter().enumerate().rev() {
        let fold =
            |value: &dyn Fn(&NodeOption) -> f64| node.iter().map(value).fold(f64::NEG_INFINITY, f64::max);
        cheapest[position] = cheapest[position + 1] - fold(&|option| -option.cost);
        relaxed[position] = relaxed[position + 1] + fold(&|option| option.score - price * option.cost);
    }
    let slack = 1e-9 * (1.0 + least.abs());
    let mut levels = vec![vec![Partial { cost: 0.0, score: 0.0, parent: 0, option: 0 }]];
    for (position, node) in options.iter().enumerate() {
        let before = &levels[position];
        let longer = before.iter().enumerate().flat_map(|(parent, partial)| {
            node.iter().enumerate().map(move |(option, way)| Partial {
                cost: partial.cost + way.cost,
                score: partial.score + way.score,
                parent,
                option,
            })
        });
        let hopeful = longer.filter(|partial| {
            let bound = partial.score + price * (budget - partial.cost) + relaxed[position + 1];
            partial.cost + cheapest[position + 1] <= budget && bound >= least - slack
        });
        let next = undominated(hopeful, |partial| (partial.cost, partial.score));
        levels.push(next);
    }
    // The last list is sorted by cost and score alike.
    (0..levels[count].len())
        .rev()
        .map(|last| {
            let mut chosen = vec![0; count];
            let mut at = last;
            for position in (0..count).rev() {
                let partial = levels[position + 1][at];
                chosen[position] = partial.option;
                at = partial.parent;
            }
            chosen
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
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
            assert!(
                genotype.blocks.iter().flat_map(|b| &b.nodes).flatten().all(|pick| pick.choice != "none")
            );
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
    fn by_force(
        space: &Space,
        scores: &Scores,
        table: &CostTable,
        target: Micros,
    ) -> Option<(f64, Genotype)> {
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

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
}
