//! ONNX Runtime's `onnxruntime_perf_test`: a report on standard output, and a file with a line for every
//! run, from which the samples come.

use lathe_latency_db::Protocol;

use super::reading::{Reading, count, only_line, time_ns};

const SECOND_NS: f64 = 1e9;
const MILLISECOND_NS: f64 = 1e6;
/// Largest difference between the reported total and the sum of the runs, relative: both are printed with
/// six digits.
const TOTAL_TOLERANCE: f64 = 0.01;

/// How long one process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// So many seconds.
    Seconds(u64),
    /// So many runs.
    Runs(usize),
}

/// Runs of one process: warm-up, and those that count.
fn runs(rules: &Protocol) -> (usize, usize) {
    (rules.warmup_runs, rules.min_runs.div_ceil(rules.processes.max(1)).max(1))
}

/// Time that one process needs under these rules, as the program takes it: in whole seconds.
pub(super) fn first_extent(rules: &Protocol) -> Extent {
    let seconds = rules.warmup_seconds + rules.min_seconds / rules.processes.max(1) as f64;
    Extent::Seconds((seconds.ceil() as u64).max(1))
}

/// What to ask for if the time was too short for the runs.
pub(super) fn second_extent(rules: &Protocol) -> Extent {
    let (warmup, counted) = runs(rules);
    Extent::Runs(warmup + counted)
}

/// The program's own words: all graph optimisations, the CPU provider, one run at a time, made-up inputs
/// (`-I`).
pub(super) fn words(program: &str, model: &str, result: &str, threads: usize, extent: Extent) -> Vec<String> {
    let threads = threads.to_string();
    let (mode, option, amount) = match extent {
        Extent::Seconds(seconds) => ("duration", "-t", seconds.to_string()),
        Extent::Runs(runs) => ("times", "-r", runs.to_string()),
    };
    [
        program, "-I", "-e", "cpu", "-o", "99", "-c", "1", "-x", &threads, "-y", "1", "-m", mode, option,
        &amount, model, result,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Reads the report and the file of runs. The first runs are warm-up, as many and as long as the rules
/// want. Nothing comes back if too few are left.
pub(super) fn read(output: &str, result: &str, rules: &Protocol) -> Result<Option<Reading>, String> {
    let value = |words: &str, unit: &str| {
        let line = only_line(output, words)?;
        let value = line.strip_prefix(words).and_then(|rest| rest.trim().strip_suffix(unit));
        value
            .map(|value| (value.trim(), line))
            .ok_or_else(|| format!("expected `{words} … {unit}`, got `{line}`"))
    };
    let time =
        |words, unit, unit_ns| value(words, unit).and_then(|(word, line)| time_ns(word, unit_ns, line));
    let load_ns = time("Session creation time cost:", "s", SECOND_NS)?;
    let first_run_ns = time("First inference time cost:", "ms", MILLISECOND_NS)?;
    let total_ns = time("Total inference time cost:", "s", SECOND_NS)?;
    let (requests, line) = value("Total inference requests:", "")?;
    let requests = count(requests, line)?;
    let (peak, line) = value("Peak working set size:", "bytes")?;
    let peak_bytes = count(peak, line)? as u64;

    let samples = result
        .lines()
        .enumerate()
        .map(|(index, line)| run(index, line))
        .collect::<Result<Vec<u64>, String>>()?;
    if samples.len() != requests {
        return Err(format!("{requests} runs are reported, and the file of runs has {}", samples.len()));
    }
    let sum_ns = samples.iter().sum::<u64>() as f64;
    if (sum_ns - total_ns as f64).abs() > TOTAL_TOLERANCE * sum_ns {
        return Err(format!("the runs take {sum_ns} ns together, and {total_ns} ns are reported"));
    }
    let (least, counted) = runs(rules);
    let mut elapsed = 0.0;
    let mut warmup = 0;
    while warmup < samples.len() && (warmup < least || elapsed < rules.warmup_seconds * SECOND_NS) {
        elapsed += samples[warmup] as f64;
        warmup += 1;
    }
    Ok((samples.len() - warmup >= counted).then(|| Reading {
        samples_ns: samples[warmup..].to_vec(),
        batch: 1,
        // The very first run isn't in the file.
        warmup_runs: warmup + 1,
        load_ns,
        first_run_ns,
        peak_rss_kb: peak_bytes / 1024,
    }))
}

/// One line of the file: model, seconds, peak memory, processor load, number of the run.
fn run(index: usize, line: &str) -> Result<u64, String> {
    let fields: Vec<&str> = line.split(',').collect();
    match fields[..] {
        [_, seconds, _, _, number] if number.trim() == index.to_string() => {
            time_ns(seconds.trim(), SECOND_NS, line)
        }
        _ => Err(format!("expected `model,seconds,memory,load,{index}` in the file of runs, got `{line}`")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    // Written after the program's source and published outputs, not captured from a run.
    const OUTPUT: &str = "Session creation time cost: 0.0153 s\nFirst inference time cost: 2 ms\n\
        Total inference time cost: 0.0102 s\nTotal inference requests: 5\n\
        Average inference time cost total: 2.04 ms\nTotal inference run time: 0.0103 s\n\
        Number of inferences per second: 485.4\nAvg CPU usage: 50 %\nPeak working set size: 51200000 bytes\n";
    const RUNS: &str = "models,0.003,51200000,50,0\nmodels,0.0022,51200000,50,1\nmodels,0.0016,51200000,50,2\n\
        models,0.0018,51200000,50,3\nmodels,1.6e-03,51200000,50,4\n";
    const RULES: Protocol =
        Protocol { min_runs: 6, processes: 3, warmup_runs: 1, warmup_seconds: 0.004, ..Protocol::SCREENING };

    #[test]
    fn every_run_is_a_sample_and_the_first_ones_are_warm_up() {
        let reading = read(OUTPUT, RUNS, &RULES).unwrap().unwrap();
        assert_eq!(reading.samples_ns, [1_600_000, 1_800_000, 1_600_000]);
        assert_eq!((reading.warmup_runs, reading.batch), (3, 1));
        assert_eq!(
            (reading.load_ns, reading.first_run_ns, reading.peak_rss_kb),
            (15_300_000, 2_000_000, 50_000)
        );
        let more = Protocol { min_runs: 12, ..RULES };
        assert_eq!(read(OUTPUT, RUNS, &more), Ok(None), "too few are left");
        assert_eq!(second_extent(&more), Extent::Runs(5));
        assert_eq!(first_extent(&Protocol::REFERENCE), Extent::Seconds(21));
    }

    #[test]
    fn what_is_not_understood_is_quoted() {
        let error = |output: &str, runs: &str| read(output, runs, &RULES).unwrap_err();
        for length in (0..OUTPUT.len() - 20).step_by(7) {
            read(&OUTPUT[..length], RUNS, &RULES).unwrap_err();
        }
        for length in 0..RUNS.len() - 1 {
            read(OUTPUT, &RUNS[..length], &RULES).unwrap_err();
        }
        assert!(error("Segmentation fault", RUNS).contains("`Segmentation fault`"));
        assert!(
            error(&OUTPUT.repeat(2), RUNS).contains("another one: `Session creation time cost: 0.0153 s`")
        );
        assert!(error(&OUTPUT.replace('.', ","), RUNS).contains("`0,0153`"), "another locale");
        assert!(error(OUTPUT, &RUNS.replace("0.", "0,")).contains("models,0,003"), "another locale");
        assert!(error(OUTPUT, &RUNS.repeat(2)).contains("`models,0.003,51200000,50,0`"), "two results");
        assert!(error(OUTPUT, &RUNS.replace("0.0022", "nan")).contains("models,nan,"));
        assert!(error(OUTPUT, &RUNS.replace("0.0022", "0")).contains("above zero"));
        assert!(error(OUTPUT, &RUNS.replace("0.0022", "0.0042")).contains("together"));
        assert!(error(&OUTPUT.replace(" s\n", " min\n"), RUNS).contains("0.0153 min"), "another unit");
    }
}
