//! TensorFlow Lite's `benchmark_model`: it tells a mean and a count, and no single runs.

use lathe_latency_db::Protocol;

use super::reading::{Reading, count, only_line, time_ns};

const MICROSECOND_NS: f64 = 1e3;
/// Largest difference between the two means that are printed, relative: both have six digits.
const MEAN_TOLERANCE: f64 = 1e-3;
/// Begins the summary.
const SUMMARY: &str = "Inference timings in us:";

/// The program's own words. Runs and seconds over all processes are divided by their number.
pub(super) fn words(program: &str, model: &str, threads: usize, rules: &Protocol) -> Vec<String> {
    let processes = rules.processes.max(1);
    vec![
        program.to_owned(),
        format!("--graph={model}"),
        format!("--num_threads={threads}"),
        format!("--warmup_runs={}", rules.warmup_runs.max(1)),
        format!("--warmup_min_secs={}", rules.warmup_seconds),
        format!("--num_runs={}", rules.min_runs.div_ceil(processes).max(1)),
        format!("--min_secs={}", rules.min_seconds / processes as f64),
        format!("--max_secs={}", rules.timeout_seconds),
    ]
}

/// Reads the two lines of statistics (warm-up, then what counts) and the summary, which must agree.
pub(super) fn read(output: &str) -> Result<Reading, String> {
    let summary = only_line(output, SUMMARY)?;
    let (_, values) = summary.split_once(SUMMARY).unwrap_or_default();
    let mut fields = values.split(", ");
    let mut next = |name: &str| {
        let word = fields.next().and_then(|field| field.trim().strip_prefix(name)?.strip_prefix(": "));
        let word = word.ok_or_else(|| format!("expected `{name}` in `{summary}`"))?;
        time_ns(word, MICROSECOND_NS, summary)
    };
    let load_ns = next("Init")?;
    let first_run_ns = next("First inference")?;
    next("Warmup (avg)")?;
    let mean_ns = next("Inference (avg)")?;
    if let Some(more) = fields.next() {
        return Err(format!("expected four times, got `{more}` too in `{summary}`"));
    }
    let lines: Vec<&str> = output
        .lines()
        .map(str::trim)
        .filter(|line| line.split_whitespace().any(|word| word.starts_with("count=")))
        .collect();
    let [warmup, runs] = lines[..] else {
        return Err(format!(
            "expected two lines with `count=…`, for warm-up and runs, got {}: {lines:?}",
            lines.len()
        ));
    };
    let (warmup_runs, _) = statistics(warmup)?;
    let (batch, told_ns) = statistics(runs)?;
    if (told_ns as f64 - mean_ns as f64).abs() > MEAN_TOLERANCE * mean_ns as f64 {
        return Err(format!("`{runs}` and `{summary}` have different means"));
    }
    Ok(Reading { samples_ns: vec![mean_ns], batch, warmup_runs, load_ns, first_run_ns, peak_rss_kb: 0 })
}

/// Count and mean of a line of statistics; when all runs took the same time, it has no mean but that time.
fn statistics(line: &str) -> Result<(usize, u64), String> {
    let value =
        |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let missing = |name: &str| format!("expected `{name}=…` in `{line}`");
    let runs = count(value("count").ok_or_else(|| missing("count"))?, line)?;
    let mean = if let Some(word) = value("avg") {
        word
    } else {
        let same = value("curr").filter(|_| runs == 1 || line.ends_with("(all same)"));
        same.map(|word| word.trim_end_matches("(all")).ok_or_else(|| missing("avg"))?
    };
    Ok((runs, time_ns(mean, MICROSECOND_NS, line)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    // Written after the program's source and published outputs, not captured from a run.
    const OUTPUT: &str = "INFO: Log parameter values verbosely: [0]\nINFO: Min num runs: [17]\n\
        INFO: Initialized session in 1.234ms.\n\
        INFO: Running benchmark for at least 10 iterations and at least 0.5 seconds but terminate if exceeding 120 seconds.\n\
        INFO: count=412 first=2410 curr=1190 min=1167 max=2410 avg=1213.49 std=71\n\n\
        INFO: Running benchmark for at least 17 iterations and at least 0.333 seconds but terminate if exceeding 120 seconds.\n\
        INFO: count=283 first=1188 curr=1177 min=1165 max=1302 avg=1178.02 std=14\n\n\
        INFO: Inference timings in us: Init: 1234, First inference: 2410, Warmup (avg): 1213.49, Inference (avg): 1178.02\n\
        INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE\n\
        INFO: Memory footprint delta from the start of the tool (MB): init=1.5 overall=3.25\n";

    #[test]
    fn the_mean_is_one_sample_of_as_many_runs() {
        let reading = read(OUTPUT).unwrap();
        assert_eq!((reading.samples_ns, reading.batch), (vec![1_178_020], 283));
        assert_eq!((reading.warmup_runs, reading.load_ns, reading.first_run_ns), (412, 1_234_000, 2_410_000));
        let same = OUTPUT.replace(
            "count=283 first=1188 curr=1177 min=1165 max=1302 avg=1178.02 std=14",
            "count=3 curr=1178(all same)",
        );
        assert_eq!(read(&same).unwrap().batch, 3);
        let once = OUTPUT.replace(
            "count=412 first=2410 curr=1190 min=1167 max=2410 avg=1213.49 std=71",
            "count=1 curr=2410",
        );
        assert_eq!(read(&once).unwrap().warmup_runs, 1);
    }

    #[test]
    fn what_is_not_understood_is_quoted() {
        let error = |output: &str| read(output).unwrap_err();
        let end = OUTPUT.find("INFO: Note").unwrap();
        for length in (0..end - 10).step_by(7) {
            read(&OUTPUT[..length]).unwrap_err();
        }
        assert!(error("ERROR: Could not open 'x'.").contains("Could not open"));
        assert!(error(&OUTPUT.repeat(2)).contains("another one: `INFO: Inference timings"));
        assert!(error(&OUTPUT.replace("1178.02", "1178,02")).contains("1178,02"), "another locale");
        assert!(error(&OUTPUT.replace("1178.02", "0")).contains("above zero"));
        assert!(error(&OUTPUT.replace("1178.02", "-nan")).contains("-nan"));
        assert!(error(&OUTPUT.replace("(avg): 1178.02", "(avg): 1278.02")).contains("different means"));
        assert!(error(&OUTPUT.replace("count=283", "count=0")).contains("count=0"));
        assert!(error(&OUTPUT.replace("avg=1178.02 ", "")).contains("`avg=…`"));
        assert!(error(&OUTPUT.replace("in us", "in ms")).contains("in us"), "another unit");
    }

    #[test]
    fn the_rules_become_its_options() {
        let words = words("/p", "/m", 2, &Protocol::SCREENING);
        assert_eq!(words[..4], ["/p", "--graph=/m", "--num_threads=2", "--warmup_runs=10"]);
        assert_eq!(words[4..7], ["--warmup_min_secs=0.5", "--num_runs=17", "--min_secs=0.3333333333333333"]);
    }
}
