//! What a benchmark program's output becomes, and how its numbers are read.

/// One process of a benchmark program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Nanoseconds per run: of every run where the program tells them, else the one mean that it prints.
    pub(super) samples_ns: Vec<u64>,
    /// Runs behind each sample.
    pub(super) batch: usize,
    /// Runs that came before.
    pub(super) warmup_runs: usize,
    /// Time to load the model in nanoseconds.
    pub(super) load_ns: u64,
    /// Time of the very first run in nanoseconds.
    pub(super) first_run_ns: u64,
    /// Peak resident memory in kilobytes; zero where the program doesn't tell.
    pub(super) peak_rss_kb: u64,
}

/// A positive time in `unit_ns` nanoseconds. Anything else is an error that quotes the line.
pub(super) fn time_ns(word: &str, unit_ns: f64, line: &str) -> Result<u64, String> {
    let value: f64 = word.parse().map_err(|_| format!("expected a time, got `{word}` in `{line}`"))?;
    let nanoseconds = value * unit_ns;
    // Beyond a thousand years a number is no time, and below one nanosecond no run.
    if nanoseconds.is_finite() && (1.0..3e19 / 2.0).contains(&nanoseconds) {
        Ok(nanoseconds.round() as u64)
    } else {
        Err(format!("expected a time above zero, got `{word}` in `{line}`"))
    }
}

/// A positive count.
pub(super) fn count(word: &str, line: &str) -> Result<usize, String> {
    match word.parse() {
        Ok(0) | Err(_) => Err(format!("expected a count above zero, got `{word}` in `{line}`")),
        Ok(count) => Ok(count),
    }
}

/// The only line that holds `words`: with none the output is cut off, with two it isn't one result.
pub(super) fn only_line<'a>(output: &'a str, words: &str) -> Result<&'a str, String> {
    let mut lines = output.lines().filter(|line| line.contains(words));
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line.trim()),
        (None, _) => {
            let last = output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let last: String = last.trim().chars().take(200).collect();
            Err(format!("expected a line with `{words}`, got none; the last line is `{last}`"))
        }
        (Some(_), Some(second)) => {
            Err(format!("expected one line with `{words}`, got another one: `{}`", second.trim()))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn nothing_becomes_zero() {
        assert_eq!(time_ns("1.5", 1e3, ""), Ok(1500));
        assert_eq!(time_ns("1.2e-05", 1e9, ""), Ok(12_000));
        for word in ["0", "nan", "inf", "-1", "1,5", "", "1e-10", "1e300"] {
            let error = time_ns(word, 1e3, "the line").unwrap_err();
            assert!(error.contains("the line"), "{error}");
        }
        assert!(count("0", "").is_err() && count("-1", "").is_err() && count("2", "") == Ok(2));
    }
}
