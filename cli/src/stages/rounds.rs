//! Derive, measure, tighten, derive again: the loop by which a network comes to keep its limits on the device and not
//! only by prediction.

use lathe_search::DeriveError;
use miette::Report;

/// Least step by which a missed limit is tightened, as a factor: 1 %.
const LEAST_STEP: f64 = 0.99;

/// A network under one limit, in the limit's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    /// What it takes by measurement.
    pub measured: f64,
    /// What the prediction says that it takes at most.
    pub upper: f64,
}

/// The network of the last derivation that counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept<N> {
    /// The network.
    pub network: N,
    /// Round in which it was derived, from 0.
    pub round: usize,
    /// Why no further one was derived.
    pub end: End,
}

/// What a network takes under each limit, in order; `None` where nothing is measured (operations are counted).
pub type Readings = Vec<Option<Taken>>;

/// What a device tells of a network: nothing if it failed.
pub type Told = Result<Option<Readings>, Report>;

/// Why there was no further round.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// The network keeps every limit that is measured (there may be none).
    Met,
    /// All rounds are over; the network misses least.
    Missed,
    /// The device gave nothing: the network is the latest one, by prediction.
    Unmeasured,
    /// Under tightened limits no network was found; this one misses least.
    NoFurther(DeriveError),
}

/// Derives a network, has it measured, tightens the limits that it misses and derives again, at most `rounds` times
/// after the first. Of networks that all miss a limit, the one whose largest measured / limit is least is kept.
///
/// `derive(limits)`: the best network under these limits. `measure(round, network)`: what it takes; `None` if the device
/// failed.
///
/// # Errors
/// The inner one is why the first round found no network. The outer one: whatever `measure` fails with.
pub fn rounds<N>(
    asked: &[f64],
    rounds: usize,
    derive: &mut dyn FnMut(&[f64]) -> Result<N, DeriveError>,
    measure: &mut dyn FnMut(usize, &N) -> Told,
) -> Result<Result<Kept<N>, DeriveError>, Report> {
    let mut limits = asked.to_vec();
    let mut best: Option<(f64, usize, N)> = None;
    let mut end = End::Missed;
    for round in 0..=rounds {
        let network = match (derive(&limits), &best) {
            (Ok(network), _) => network,
            // What was measured already is not given up for a prediction that nothing is fast enough.
            (Err(error @ (DeriveError::Limits { .. } | DeriveError::Undecided { .. })), Some(_)) => {
                end = End::NoFurther(error);
                break;
            }
            (Err(error), _) => return Ok(Err(error)),
        };
        let Some(taken) = measure(round, &network)? else {
            return Ok(Ok(Kept { network, round, end: End::Unmeasured }));
        };
        let mut worst: f64 = 0.0;
        for ((limit, asked), taken) in limits.iter_mut().zip(asked).zip(taken) {
            let Some(Taken { measured, upper }) = taken else { continue };
            worst = worst.max(measured / asked);
            if measured > *asked {
                // The network's own bound may lie far below the limit, which then would not bind.
                *limit = tightened(limit.min(upper), *asked, measured);
            }
        }
        if best.as_ref().is_none_or(|(least, ..)| worst < *least) {
            best = Some((worst, round, network));
        }
        if worst <= 1.0 {
            end = End::Met;
            break;
        }
    }
    match best {
        Some((_, round, network)) => Ok(Ok(Kept { network, round, end })),
        None => Err(miette::miette!("failed to derive a network: no round was allowed")),
    }
}

/// The next round's limit: smaller by what the measured network missed the target by, and by at least 1 %.
fn tightened(limit: f64, target: f64, measured: f64) -> f64 {
    limit * (target / measured).min(LEAST_STEP)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, clippy::panic, reason = "tests")]
mod tests {
    use lathe_spaces::Genotype;

    use super::*;

    /// A space whose networks are their own predictions: the best one under a limit is the limit itself.
    #[derive(Default)]
    struct World {
        /// Limits of every derivation.
        asked: Vec<Vec<f64>>,
        /// Rounds that were measured.
        measured: usize,
    }

    fn nothing_below() -> DeriveError {
        let closest = Genotype { blocks: Vec::new() };
        DeriveError::Limits { what: "nothing".into(), closest, values: Vec::new() }
    }

    fn undecided() -> DeriveError {
        let closest = Genotype { blocks: Vec::new() };
        DeriveError::Undecided { what: "nobody looked".into(), closest, values: Vec::new() }
    }

    /// Networks under one limit of 100, of which there is none below `least`; `device` says what a network takes,
    /// `None` for a device that fails.
    fn under(
        world: &mut World,
        most: usize,
        (least, refusal): (f64, &dyn Fn() -> DeriveError),
        device: &dyn Fn(usize, f64) -> Option<f64>,
    ) -> Result<Kept<f64>, DeriveError> {
        let World { asked, measured } = world;
        rounds(
            &[100.0],
            most,
            &mut |limits| {
                asked.push(limits.to_vec());
                if limits[0] < least { Err(refusal()) } else { Ok(limits[0]) }
            },
            &mut |round, network| {
                *measured += 1;
                Ok(device(round, *network).map(|measured| vec![Some(Taken { measured, upper: *network })]))
            },
        )
        .unwrap()
    }

    #[test]
    fn a_network_that_meets_the_target_at_once_is_the_end() {
        let mut world = World::default();
        let kept = under(&mut world, 3, (0.0, &nothing_below), &|_, network| Some(network)).unwrap();
        assert_eq!(kept, Kept { network: 100.0, round: 0, end: End::Met });
        assert_eq!((world.asked, world.measured), (vec![vec![100.0]], 1));
    }

    #[test]
    fn a_missed_target_tightens_the_limit_until_it_is_met() {
        // A device that is a quarter slower than predicted, and 4 more: missed by 29 % and by 0.9 %, then met.
        let mut world = World::default();
        let slower = |_: usize, network: f64| Some(1.25 * network + 4.0);
        let kept = under(&mut world, 3, (0.0, &nothing_below), &slower).unwrap();
        let first = 100.0 * (100.0 / 129.0);
        let second = first * 0.99;
        assert_eq!(world.asked, [[100.0], [first], [second]]);
        assert_eq!(kept, Kept { network: second, round: 2, end: End::Met });
    }

    #[test]
    fn a_target_that_is_just_missed_is_tightened_by_a_whole_percent() {
        let mut world = World::default();
        let noise = |round: usize, network: f64| Some(if round == 0 { 100.1 } else { network });
        let kept = under(&mut world, 3, (0.0, &nothing_below), &noise).unwrap();
        assert_eq!(world.asked, [vec![100.0], vec![99.0]]);
        assert_eq!(kept, Kept { network: 99.0, round: 1, end: End::Met });
    }

    #[test]
    fn a_limit_that_does_not_bind_is_tightened_from_the_networks_own_bound() {
        let mut asked = Vec::new();
        let kept = rounds(
            &[100.0],
            1,
            &mut |limits| {
                asked.push(limits[0]);
                // Far below the limit.
                Ok(limits[0].min(60.0))
            },
            &mut |_, network| Ok(Some(vec![Some(Taken { measured: 2.0 * network, upper: *network })])),
        );
        assert_eq!(asked, [100.0, 60.0 * (100.0 / 120.0)]);
        assert_eq!(kept.unwrap().unwrap().end, End::Met);
    }

    #[test]
    fn of_networks_that_all_miss_the_one_that_misses_least_is_kept() {
        let mut world = World::default();
        let times = [130.0, 110.0, 150.0, 120.0];
        let kept = under(&mut world, 3, (0.0, &nothing_below), &|round, _| Some(times[round])).unwrap();
        assert_eq!((kept.round, &kept.end), (1, &End::Missed));
        assert_eq!(kept.network, world.asked[1][0]);
        assert_eq!((world.asked.len(), world.measured), (4, 4), "three further rounds, no more");
    }

    #[test]
    fn where_nothing_keeps_the_tightened_limit_the_best_so_far_is_kept() {
        for refusal in [&nothing_below as &dyn Fn() -> DeriveError, &undecided] {
            let mut world = World::default();
            let kept = under(&mut world, 3, (90.0, refusal), &|_, _| Some(120.0)).unwrap();
            assert_eq!(kept, Kept { network: 100.0, round: 0, end: End::NoFurther(refusal()) });
            assert_eq!((world.asked.len(), world.measured), (2, 1));
            // From the start there is nothing to keep.
            let mut world = World::default();
            assert_eq!(under(&mut world, 3, (101.0, refusal), &|_, _| Some(120.0)), Err(refusal()));
            assert_eq!(world.measured, 0);
        }
    }

    #[test]
    fn a_table_that_breaks_is_no_missed_limit() {
        let mut calls = 0;
        let error = rounds(
            &[100.0],
            3,
            &mut |limits| {
                calls += 1;
                if calls > 1 { Err(DeriveError::Table("broken".into())) } else { Ok(limits[0]) }
            },
            &mut |_, _| Ok(Some(vec![Some(Taken { measured: 120.0, upper: 100.0 })])),
        );
        assert_eq!(error.unwrap(), Err(DeriveError::Table("broken".into())));
    }

    #[test]
    fn a_device_that_fails_leaves_the_prediction() {
        let mut world = World::default();
        let kept = under(&mut world, 3, (0.0, &nothing_below), &|_, _| None).unwrap();
        assert_eq!(kept, Kept { network: 100.0, round: 0, end: End::Unmeasured });
        // After a miss it is the network that was derived under the tighter limit.
        let mut world = World::default();
        let device = |round: usize, _| (round == 0).then_some(125.0);
        let kept = under(&mut world, 3, (0.0, &nothing_below), &device).unwrap();
        assert_eq!(kept, Kept { network: 80.0, round: 1, end: End::Unmeasured });
    }

    #[test]
    fn only_the_limits_that_are_missed_are_tightened() {
        let mut asked = Vec::new();
        let kept = rounds(
            &[100.0, 1.0, 50.0],
            1,
            &mut |limits| {
                asked.push(limits.to_vec());
                Ok(asked.len())
            },
            &mut |round, _| {
                let second = Taken { measured: if round == 0 { 1.25 } else { 1.0 }, upper: 0.9 };
                let third = Taken { measured: 40.0, upper: 45.0 };
                Ok(Some(vec![None, Some(second), Some(third)]))
            },
        );
        assert_eq!(asked, [[100.0, 1.0, 50.0], [100.0, 0.9 * 0.8, 50.0]]);
        assert_eq!(kept.unwrap().unwrap(), Kept { network: 2, round: 1, end: End::Met });
    }
}
