//! Reasons to doubt a measurement.

use jiff::Timestamp;

use crate::{
    Measurement, QualityFlag, Summary,
    summary::{median_of, processes},
};

/// Largest share of outliers among the samples.
const OUTLIER_SHARE: f64 = 0.05;
/// Largest difference between the medians of processes, relative to the median of all.
const PROCESS_DIFFERENCE: f64 = 0.05;
/// Least frequency after, relative to before.
const FREQUENCY_RATIO: f64 = 0.95;
/// Load above the pinned cores that the measuring itself may cause.
const OWN_LOAD: f64 = 0.5;
/// Largest share of the machine's time that a hypervisor may take.
const STEAL_SHARE: f64 = 0.01;
/// Ticks per second of `/proc/stat`, the same on every Linux platform that Lathe knows.
const TICKS_PER_SECOND: f64 = 100.0;
/// Largest drift of the reference workload, relative.
const REFERENCE_DRIFT: f64 = 0.03;

/// What only the runner saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// The warm-up settled before its limit in every process.
    pub settled: bool,
    /// Every process was pinned to the wanted cores.
    pub pinned: bool,
    /// Drift of the interleaved reference workload, relative, where one ran.
    pub reference_drift: Option<f64>,
    /// The device was as cool as at the start, or tells no temperature.
    pub cool: bool,
}

/// Looks for reasons to doubt a measurement; its own `flags` are not read.
///
/// The thresholds: more than 5 % of the samples are outliers ([`Summary::outliers`]); medians of
/// processes differ by more than 5 %; a pinned core's frequency fell below 95 % of the one before, or a
/// cooling device went further up; the governor changed; the device was not as cool as at the start;
/// load average more than 0.5 above the number of pinned cores, or more than 1 % of the machine's
/// time stolen (any stolen tick if the times of the states can't be read); reference drift above 3 %; any
/// node that ran elsewhere.
pub fn quality(measurement: &Measurement, conditions: Conditions) -> Vec<QualityFlag> {
    let mut flags = Vec::new();
    if let Some(summary) = Summary::of(&measurement.samples_ns, &measurement.samples_per_process) {
        if summary.outliers as f64 > OUTLIER_SHARE * summary.count as f64 {
            flags.push(QualityFlag::ManyOutliers);
        }
        let medians: Vec<f64> = processes(&measurement.samples_ns, &measurement.samples_per_process)
            .into_iter()
            .filter_map(median_of)
            .map(|median| median.0)
            .collect();
        let fastest = medians.iter().copied().fold(f64::INFINITY, f64::min);
        let slowest = medians.iter().copied().fold(0.0, f64::max);
        if slowest - fastest > PROCESS_DIFFERENCE * summary.median.0 {
            flags.push(QualityFlag::ProcessesDisagree);
        }
    }
    if !conditions.settled {
        flags.push(QualityFlag::NotWarm);
    }
    if throttled(measurement) {
        flags.push(QualityFlag::Throttled);
    }
    if busy(measurement) {
        flags.push(QualityFlag::BusyMachine);
    }
    if conditions.reference_drift.is_some_and(drifted) {
        flags.push(QualityFlag::ReferenceDrift);
    }
    if !conditions.pinned {
        flags.push(QualityFlag::NotPinned);
    }
    if !conditions.cool {
        flags.push(QualityFlag::NotCool);
    }
    if measurement.before.governors != measurement.after.governors {
        flags.push(QualityFlag::GovernorChanged);
    }
    if measurement.execution.as_ref().is_some_and(|execution| !execution.elsewhere.is_empty()) {
        flags.push(QualityFlag::Fallback);
    }
    flags
}

fn throttled(measurement: &Measurement) -> bool {
    let before = &measurement.before.current_khz;
    let after = &measurement.after.current_khz;
    let slower =
        before.iter().zip(after).any(|(&before, &after)| (after as f64) < FREQUENCY_RATIO * before as f64);
    let (before, after) = (&measurement.before.cooling, &measurement.after.cooling);
    slower || after.iter().any(|(device, state)| before.get(device).is_some_and(|earlier| state > earlier))
}

/// Whether a batch whose reference workload drifted this much is to be timed again.
pub fn drifted(drift: f64) -> bool {
    drift.abs() > REFERENCE_DRIFT
}

fn busy(measurement: &Measurement) -> bool {
    let device = &measurement.device;
    let pinned = if device.pinned_cpus.is_empty() { device.cores } else { device.pinned_cpus.len() };
    let loaded = [&measurement.before, &measurement.after]
        .iter()
        .any(|state| state.load_average.is_some_and(|load| load > pinned as f64 + OWN_LOAD));
    loaded || stolen(measurement)
}

fn stolen(measurement: &Measurement) -> bool {
    let (Some(before), Some(after)) = (measurement.before.steal_ticks, measurement.after.steal_ticks) else {
        return false;
    };
    let ticks = after.saturating_sub(before) as f64;
    let at = |text: &str| text.parse::<Timestamp>().ok();
    match (at(&measurement.before.at), at(&measurement.after.at)) {
        (Some(start), Some(end)) => {
            let seconds = end.duration_since(start).as_secs_f64().max(0.0);
            ticks > STEAL_SHARE * TICKS_PER_SECOND * seconds * measurement.device.cores.max(1) as f64
        }
        _ => ticks > 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample_rows::row;

    const GOOD: Conditions =
        Conditions { settled: true, pinned: true, reference_drift: Some(0.01), cool: true };

    #[test]
    fn a_calm_measurement_has_no_flags() {
        assert_eq!(quality(&row("a", 1000), GOOD), vec![]);
    }

    #[test]
    fn every_threshold_raises_its_own_flag() {
        let calm = row("a", 1000);
        let flags = |change: &dyn Fn(&mut Measurement)| {
            let mut row = calm.clone();
            change(&mut row);
            quality(&row, GOOD)
        };
        assert_eq!(
            flags(&|row| row.samples_ns.iter_mut().step_by(9).for_each(|sample| *sample = 9000)),
            vec![QualityFlag::ManyOutliers]
        );
        assert_eq!(
            flags(&|row| {
                let half = row.samples_per_process[0];
                row.samples_ns[half..].iter_mut().for_each(|sample| *sample += 100);
            }),
            vec![QualityFlag::ProcessesDisagree]
        );
        assert_eq!(flags(&|row| row.after.current_khz = vec![2_800_000]), vec![QualityFlag::Throttled]);
        assert_eq!(flags(&|row| row.before.load_average = Some(1.6)), vec![QualityFlag::BusyMachine]);
        // Ten seconds on two cores are 2,000 ticks: 20 is the limit.
        assert_eq!(flags(&|row| row.after.steal_ticks = Some(7 + 21)), vec![QualityFlag::BusyMachine]);
        assert_eq!(flags(&|row| row.after.steal_ticks = Some(7 + 19)), vec![]);
        assert_eq!(quality(&calm, Conditions { settled: false, ..GOOD }), vec![QualityFlag::NotWarm]);
        assert_eq!(quality(&calm, Conditions { pinned: false, ..GOOD }), vec![QualityFlag::NotPinned]);
        assert_eq!(quality(&calm, Conditions { cool: false, ..GOOD }), vec![QualityFlag::NotCool]);
        let mut limited = calm.clone();
        limited.before.cooling.insert("0:thermal-cpufreq-0".into(), 0);
        limited.after.cooling.insert("0:thermal-cpufreq-0".into(), 3);
        assert_eq!(quality(&limited, GOOD), vec![QualityFlag::Throttled]);
        let mut governed = calm.clone();
        governed.before.governors = vec!["performance".into()];
        governed.after.governors = vec!["schedutil".into()];
        assert_eq!(quality(&governed, GOOD), vec![QualityFlag::GovernorChanged]);
        let drifted = Conditions { reference_drift: Some(-0.04), ..GOOD };
        assert_eq!(quality(&calm, drifted), vec![QualityFlag::ReferenceDrift]);
        let elsewhere = vec!["pool (MaxPool) on cpu".to_owned()];
        let execution = Some(crate::Execution { elsewhere, ..crate::Execution::default() });
        assert_eq!(flags(&|row| row.execution = execution.clone()), vec![QualityFlag::Fallback]);
    }

    #[test]
    fn a_failure_without_samples_can_be_judged() {
        let mut row = row("a", 1000);
        row.samples_ns.clear();
        row.samples_per_process.clear();
        assert_eq!(quality(&row, GOOD), vec![]);
    }
}
