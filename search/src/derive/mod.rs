//! From scores to a network, exactly and never beyond the limits.

mod best_first;
mod picks;

use lathe_latency_db::CostTable;
use lathe_spaces::{Genotype, Micros, Space};
use thiserror::Error;

use crate::{
    limit::{Limit, LimitValue},
    scores::{Scores, ScoresError, deployable_columns, log_softmax, node_slots},
};
use best_first::{Found, MOST, Problem};
use picks::strongest;
pub(crate) use picks::{Kept, genotype, kept_of};

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
    /// No network of the space keeps all limits.
    #[error(
        "derive a network: {what}; the closest one has {}; hint: raise the limits, or make the deployed network smaller",
        values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Limits {
        /// Whether one limit alone, all together, or a condition on the whole network can't be kept.
        what: String,
        /// The network whose largest upper bound / limit is the smallest that was found.
        closest: Genotype,
        /// Its upper bounds.
        values: Vec<LimitValue>,
    },
    /// Too many networks would have to be looked at: one may keep all limits and conditions, or none.
    #[error(
        "derive a network: {what}; the closest one has {}; hint: loosen the limits a little, or ask for fewer of them",
        values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Undecided {
        /// What was looked at, and what was not.
        what: String,
        /// The best network within the limits if a condition beside them was the obstacle, else the one whose largest
        /// upper bound / limit is the smallest that was found.
        closest: Genotype,
        /// Its upper bounds.
        values: Vec<LimitValue>,
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

/// Complete networks that a condition beside the limits is asked about: each may have to be built.
const MOST_ASKED: usize = 10_000;

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
/// upper bound, the table's mean times [`CostTable::upper_factor`], is within the limit: what
/// [`derive_within`] finds with this one limit. Without a limit, or with one that does not bind, it is
/// [`derive_unconstrained`].
pub fn derive(
    space: &Space,
    scores: &Scores,
    limit: Option<(&CostTable, Micros)>,
) -> Result<Derived, DeriveError> {
    let Some((table, target)) = limit else {
        let within = derive_within(space, scores, &[], &|_| true)?;
        let DerivedWithin { genotype, log_score, constrained, .. } = within;
        return Ok(Derived { genotype, log_score, mean: None, upper: None, constrained });
    };
    scores.check(space)?;
    let limit = Limit::latency("latency", space, table, target)?;
    let within =
        derive_within(space, scores, std::slice::from_ref(&limit), &|_| true).map_err(
            |error| match error {
                DeriveError::Limits { values, .. } => {
                    let fastest = values.first().map_or(target, |value| Micros(value.upper));
                    DeriveError::Infeasible { target, fastest }
                }
                other => other,
            },
        )?;
    let DerivedWithin { genotype, log_score, constrained, .. } = within;
    let (mean, upper) = (limit.mean(space, &genotype), limit.upper(space, &genotype));
    Ok(Derived { genotype, log_score, mean: Some(Micros(mean)), upper: Some(Micros(upper)), constrained })
}

/// A network chosen from scores under several limits.
#[derive(Clone, Debug, PartialEq)]
pub struct DerivedWithin {
    /// The network.
    pub genotype: Genotype,
    /// Σ over kept edges of log(softmax(β) · softmax(α) of its choice).
    pub log_score: f64,
    /// Its upper bounds, one per limit, none above its limit.
    pub values: Vec<LimitValue>,
    /// Whether a limit forced another network than [`derive_unconstrained`] gives.
    pub constrained: bool,
}

/// The network with the largest Σ log(softmax(β)·softmax(α)) over its kept edges among all whose upper
/// bounds are within every limit and that `accept` agrees to, which may look at anything that is no sum over
/// the parts (peak memory).
///
/// Exact: partial networks are extended best first, by a bound from the Lagrange dual of the limits, so that
/// complete networks come up in the order of their scores and the first that fits is the best. It is also
/// the repair with the least loss: of all exchanges that make [`derive_unconstrained`]'s network keep the
/// limits, it makes those that cost the least score.
///
/// # Errors
/// [`DeriveError::Limits`] with the closest network if there is none; [`DeriveError::Undecided`] if `accept` turns
/// down more than can be looked at, or for a conflict of limits that the dual does not see.
pub fn derive_within(
    space: &Space,
    scores: &Scores,
    limits: &[Limit],
    accept: &dyn Fn(&Genotype) -> bool,
) -> Result<DerivedWithin, DeriveError> {
    scores.check(space)?;
    for limit in limits {
        limit.check(space)?;
    }
    let strengths = log_strengths(space, scores);
    let free = derive_unconstrained(space, scores);
    // The judge of every candidate is the limits' own sums, however the candidate was found.
    let fits = |genotype: &Genotype| {
        limits.iter().all(|limit| limit.upper(space, genotype) <= limit.at_most) && accept(genotype)
    };
    let finish = |genotype: Genotype| DerivedWithin {
        log_score: score_of(space, &genotype, &strengths),
        values: limits.iter().map(|limit| limit.value(space, &genotype)).collect(),
        constrained: genotype != free,
        genotype,
    };
    if fits(&free) {
        return Ok(finish(free.clone()));
    }
    let problem = Problem::new(space, &strengths, limits);
    let values = |closest: &Genotype| limits.iter().map(|limit| limit.value(space, closest)).collect();
    let unmet = |closest: Genotype, what: String| {
        let values = values(&closest);
        DeriveError::Limits { what, closest, values }
    };
    let undecided = |closest: Genotype, what: String| {
        let values = values(&closest);
        DeriveError::Undecided { what, closest, values }
    };
    for limit in limits {
        let [least, _] = limit.reachable(space);
        if least * limit.upper_factor > limit.at_most {
            let what = format!(
                "no network of the space keeps the limit of `{}`: the least possible is {}",
                limit.name,
                limit.quantity.show(least * limit.upper_factor)
            );
            return Err(unmet(genotype(space, &problem.closest()), what));
        }
    }
    // Dominated networks can be dropped only where nothing else than the limits is asked.
    let filtered = match problem.best(true, &mut |picks| limits_only(space, limits, picks)) {
        Found::Nothing => {
            let what = "no network of the space keeps all limits together".to_owned();
            return Err(unmet(genotype(space, &problem.closest()), what));
        }
        Found::Undecided => {
            let what = format!(
                "none of the networks that {MOST} partial ones lead to keeps every limit, and whether another one does \
                 was not looked at"
            );
            return Err(undecided(genotype(space, &problem.closest()), what));
        }
        Found::Picks(picks) => genotype(space, &picks),
    };
    if accept(&filtered) {
        return Ok(finish(filtered));
    }
    let mut asked = 0;
    let mut fitting = |picks: &[Vec<Kept>]| {
        asked += 1;
        asked > MOST_ASKED || fits(&genotype(space, picks))
    };
    let found = problem.best(false, &mut fitting);
    match found {
        Found::Picks(picks) if asked <= MOST_ASKED => Ok(finish(genotype(space, &picks))),
        Found::Nothing => {
            Err(unmet(filtered, "no network that keeps the limits is accepted otherwise".into()))
        }
        Found::Picks(_) | Found::Undecided => {
            let looked = asked.min(MOST_ASKED);
            let what = format!(
                "none of the {looked} best networks within the limits is accepted otherwise, and whether a later one \
                 is was not looked at"
            );
            Err(undecided(filtered, what))
        }
    }
}

fn limits_only(space: &Space, limits: &[Limit], picks: &[Vec<Kept>]) -> bool {
    let genotype = genotype(space, picks);
    limits.iter().all(|limit| limit.upper(space, &genotype) <= limit.at_most)
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

fn score_of(space: &Space, genotype: &Genotype, strengths: &[Vec<f64>]) -> f64 {
    kept_of(space, genotype).iter().map(|kept| strengths[kept.slot][kept.choice]).sum()
}

#[cfg(test)]
mod nas201_tests;
#[cfg(test)]
mod tests;
