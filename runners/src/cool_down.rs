//! Waiting for a device to be as cool as it was at the start.

use std::{collections::BTreeMap, time::Duration};

use lathe_latency_db::MachineState;

use crate::RunnerError;

/// How much warmer than at the start a thermal zone may be, in thousandths of a degree Celsius.
const MARGIN_MILLICELSIUS: i64 = 2_000;
/// Time between two looks. A look is a process on the device, so not too often.
const PAUSE: Duration = Duration::from_secs(2);

/// How far the warmest zone is above its temperature at the start and the allowed margin, in thousandths
/// of a degree; zero or less is cool. Absent where the device tells no temperature that it told before.
pub(crate) fn excess(start: &BTreeMap<String, i64>, now: &BTreeMap<String, i64>) -> Option<i64> {
    now.iter()
        .filter_map(|(zone, temperature)| Some(temperature - start.get(zone)? - MARGIN_MILLICELSIUS))
        .max()
}

/// Looks until every thermal zone is within 2 °C of its temperature at the start, for at most `limit`;
/// says whether it is. A device without thermal zones is never waited for.
pub(crate) fn cool_down(
    start: &BTreeMap<String, i64>,
    limit: Duration,
    look: &mut dyn FnMut() -> Result<MachineState, RunnerError>,
    sleep: &mut dyn FnMut(Duration),
) -> Result<bool, RunnerError> {
    if start.is_empty() {
        return Ok(true);
    }
    let mut waited = Duration::ZERO;
    loop {
        let warm = excess(start, &look()?.temperature_millicelsius).is_some_and(|excess| excess > 0);
        if !warm || waited >= limit {
            return Ok(!warm);
        }
        sleep(PAUSE);
        waited += PAUSE;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn zones(cpu: i64, gpu: i64) -> BTreeMap<String, i64> {
        BTreeMap::from([("0:cpu".to_owned(), cpu), ("1:gpu".to_owned(), gpu)])
    }

    /// Waits for a device that shows these temperatures one after the other; whether it got cool, and the
    /// number of pauses.
    fn wait(temperatures: &[(i64, i64)], seconds: u64) -> (bool, usize) {
        let mut looks = temperatures.iter().chain(std::iter::repeat(temperatures.last().unwrap()));
        let mut pauses = 0;
        let cool = cool_down(
            &zones(40_000, 38_000),
            Duration::from_secs(seconds),
            &mut || {
                let &(cpu, gpu) = looks.next().unwrap();
                Ok(MachineState { temperature_millicelsius: zones(cpu, gpu), ..MachineState::default() })
            },
            &mut |_| pauses += 1,
        );
        (cool.unwrap(), pauses)
    }

    #[test]
    fn a_cool_device_is_not_waited_for_and_a_warm_one_until_all_its_zones_are_cool() {
        assert_eq!(wait(&[(42_000, 40_000)], 60), (true, 0));
        assert_eq!(
            wait(&[(60_000, 39_000), (50_000, 41_000), (41_000, 40_001), (41_000, 40_000)], 60),
            (true, 3)
        );
    }

    #[test]
    fn a_device_that_stays_warm_is_given_up_at_the_limit() {
        assert_eq!(wait(&[(60_000, 60_000)], 10), (false, 5));
        assert_eq!(wait(&[(60_000, 60_000)], 0), (false, 0));
    }

    #[test]
    fn no_thermal_zones_no_waiting() {
        let mut look = || -> Result<MachineState, RunnerError> { Ok(MachineState::default()) };
        let start = BTreeMap::new();
        assert!(cool_down(&start, Duration::ZERO, &mut look, &mut |_| {}).unwrap());
        assert!(cool_down(&zones(1, 1), Duration::ZERO, &mut look, &mut |_| {}).unwrap());
    }
}
