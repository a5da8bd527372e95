//! What a row of samples says: order statistics, and an interval of the median.

use lathe_spaces::{Micros, Stream};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Resamples of the bootstrap.
const RESAMPLES: usize = 400;
/// Samples of a process that the bootstrap looks at. More are thinned evenly, which can only widen
/// the interval.
const SAMPLES_PER_PROCESS: usize = 1000;
/// Least spread, as a share of the median, that an outlier is judged by: a timer that ticks coarsely
/// gives a MAD of zero.
const LEAST_SPREAD: f64 = 0.002;

/// A summary of samples: never shown without its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of samples.
    pub count: usize,
    /// Smallest.
    pub min: Micros,
    /// Median.
    pub median: Micros,
    /// 90th percentile (nearest rank).
    pub p90: Micros,
    /// 99th percentile (nearest rank).
    pub p99: Micros,
    /// Median absolute deviation from the median.
    pub mad: Micros,
    /// 95 % interval of the median: lower end.
    pub low: Micros,
    /// 95 % interval of the median: upper end.
    pub high: Micros,
    /// Samples above p50 + 5·MAD, where the MAD counts as at least 0.2 % of p50. They are counted,
    /// never dropped.
    pub outliers: usize,
}

impl Summary {
    /// Summarises samples in nanoseconds, made by processes in turn; `None` without samples.
    ///
    /// The interval is a cluster bootstrap (percentiles of 400 resamples): processes are drawn with
    /// replacement, then samples inside each, because samples of one process share its memory layout
    /// and are not independent. If the sizes don't add up to the samples, all count as one process.
    /// The same samples always give the same interval.
    pub fn of(samples_ns: &[u64], samples_per_process: &[usize]) -> Option<Self> {
        let mut sorted = samples_ns.to_vec();
        sorted.sort_unstable();
        let median = middle(&sorted)?;
        let mut deviations: Vec<f64> = sorted.iter().map(|&sample| (sample as f64 - median).abs()).collect();
        deviations.sort_unstable_by(f64::total_cmp);
        let half = deviations.len() / 2;
        let mad = if deviations.len() % 2 == 1 {
            deviations[half]
        } else {
            f64::midpoint(deviations[half - 1], deviations[half])
        };
        let limit = median + 5.0 * mad.max(LEAST_SPREAD * median);
        let [low, high] = median_interval(median, &processes(samples_ns, samples_per_process));
        Some(Self {
            count: sorted.len(),
            min: Micros::from_nanos(sorted[0] as f64),
            median: Micros::from_nanos(median),
            p90: Micros::from_nanos(nearest_rank(&sorted, 0.90)),
            p99: Micros::from_nanos(nearest_rank(&sorted, 0.99)),
            mad: Micros::from_nanos(mad),
            low: Micros::from_nanos(low),
            high: Micros::from_nanos(high),
            outliers: sorted.iter().filter(|&&sample| sample as f64 > limit).count(),
        })
    }
}

/// Median of samples in nanoseconds.
pub(crate) fn median_of(samples_ns: &[u64]) -> Option<Micros> {
    let mut sorted = samples_ns.to_vec();
    sorted.sort_unstable();
    middle(&sorted).map(Micros::from_nanos)
}

/// The samples of each process.
pub(crate) fn processes<'a>(samples: &'a [u64], sizes: &[usize]) -> Vec<&'a [u64]> {
    if sizes.iter().sum::<usize>() != samples.len() {
        return vec![samples];
    }
    let mut rest = samples;
    let mut parts = Vec::with_capacity(sizes.len());
    for &size in sizes.iter().filter(|&&size| size > 0) {
        let (part, after) = rest.split_at(size);
        parts.push(part);
        rest = after;
    }
    parts
}

fn middle(sorted: &[u64]) -> Option<f64> {
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[half] as f64),
        _ => Some(f64::midpoint(sorted[half - 1] as f64, sorted[half] as f64)),
    }
}

fn nearest_rank(sorted: &[u64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1] as f64
}

/// 95 % interval of the median; always contains the median itself.
fn median_interval(median: f64, processes: &[&[u64]]) -> [f64; 2] {
    let thinned: Vec<Vec<u64>> = processes
        .iter()
        .map(|samples| {
            let kept = samples.len().min(SAMPLES_PER_PROCESS);
            (0..kept).map(|place| samples[place * samples.len() / kept]).collect()
        })
        .collect();
    let mut values: Vec<u64> = thinned.iter().flatten().copied().collect();
    values.sort_unstable();
    values.dedup();
    // A resample is a histogram over the distinct values: its median is one pass, without sorting.
    let ranks: Vec<Vec<usize>> = thinned
        .iter()
        .map(|samples| samples.iter().map(|sample| values.partition_point(|value| value < sample)).collect())
        .collect();
    let mut stream = Stream::new(0, "interval of the median", values.len() as u64);
    let mut counts = vec![0_usize; values.len()];
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            counts.fill(0);
            let mut total = 0;
            for _ in 0..ranks.len() {
                let process = &ranks[stream.random_range(0..ranks.len())];
                for _ in 0..process.len() {
                    counts[process[stream.random_range(0..process.len())]] += 1;
                }
                total += process.len();
            }
            f64::midpoint(at_rank(&counts, &values, (total - 1) / 2), at_rank(&counts, &values, total / 2))
        })
        .collect();
    medians.sort_unstable_by(f64::total_cmp);
    let tail = RESAMPLES / 40;
    [medians[tail].min(median), medians[RESAMPLES - 1 - tail].max(median)]
}

/// The value at a rank (from 0) of a histogram.
fn at_rank(counts: &[usize], values: &[u64], rank: usize) -> f64 {
    let mut below = 0;
    for (&count, &value) in counts.iter().zip(values) {
        below += count;
        if below > rank {
            return value as f64;
        }
    }
    values.last().map_or(0.0, |&value| value as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn order_statistics_of_one_to_a_hundred() {
        let samples: Vec<u64> = (1..=100).rev().map(|value| value * 1000).collect();
        let summary = Summary::of(&samples, &[100]).unwrap();
        assert_eq!(summary.count, 100);
        assert_eq!(summary.min.0, 1.0);
        assert_eq!(summary.median.0, 50.5);
        assert_eq!(summary.p90.0, 90.0);
        assert_eq!(summary.p99.0, 99.0);
        assert_eq!(summary.mad.0, 25.0);
        assert_eq!(summary.outliers, 0);
        assert!(summary.low.0 > 35.0 && summary.high.0 < 66.0, "{summary:?}");
        assert!(summary.low < summary.median && summary.median < summary.high);
    }

    #[test]
    fn no_samples_no_summary() {
        assert_eq!(Summary::of(&[], &[]), None);
    }

    #[test]
    fn a_single_sample_is_its_own_interval() {
        let summary = Summary::of(&[2000], &[1]).unwrap();
        assert_eq!((summary.low.0, summary.median.0, summary.high.0), (2.0, 2.0, 2.0));
    }

    #[test]
    fn processes_that_disagree_widen_the_interval() {
        let samples: Vec<u64> = [1000_u64, 1100, 1200]
            .iter()
            .flat_map(|&base| (0..200_u64).map(move |sample| base + sample % 7))
            .collect();
        let one = Summary::of(&samples, &[600]).unwrap();
        let three = Summary::of(&samples, &[200, 200, 200]).unwrap();
        assert_eq!(one.median, three.median);
        assert!(three.high - three.low > (one.high - one.low) * 2.0, "{one:?} {three:?}");
    }

    #[test]
    fn outliers_are_counted_and_a_silent_timer_makes_none() {
        let mut samples = vec![1000; 99];
        samples.push(1009);
        assert_eq!(Summary::of(&samples, &[100]).unwrap().outliers, 0);
        samples.push(5000);
        assert_eq!(Summary::of(&samples, &[101]).unwrap().outliers, 1);
    }

    #[test]
    fn sizes_that_do_not_add_up_count_as_one_process() {
        assert_eq!(processes(&[1, 2, 3], &[1, 1]), vec![&[1, 2, 3][..]]);
        assert_eq!(processes(&[1, 2, 3], &[1, 0, 2]), vec![&[1][..], &[2, 3][..]]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn statistics_are_ordered_and_repeatable(samples in prop::collection::vec(1_u64..1_000_000, 1..200)) {
            let summary = Summary::of(&samples, &[samples.len()]).unwrap();
            prop_assert!(summary.min <= summary.low && summary.low <= summary.median);
            prop_assert!(summary.median <= summary.high && summary.median <= summary.p90);
            prop_assert!(summary.p90 <= summary.p99);
            prop_assert_eq!(Some(summary), Summary::of(&samples, &[samples.len()]));
        }
    }
}
