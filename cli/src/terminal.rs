//! Progress and messages on standard error; data goes to standard output and nowhere else.

use std::{
    io::{IsTerminal, Write},
    sync::LazyLock,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lathe_latency_db::{Provenance, Summary};

/// All bars of the process, so that those of several devices stand one below the other.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Writes a line of data to standard output; a closed pipe is no error.
pub fn data(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
}

/// Where messages and bars go.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    quiet: bool,
    live: bool,
}

impl Terminal {
    /// Bars on a terminal, plain lines elsewhere, nothing at all when quiet.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, live: !quiet && std::io::stderr().is_terminal() }
    }

    /// A line for the user.
    pub fn say(self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// An error, also when quiet.
    pub fn error(report: &miette::Report) {
        let _ = writeln!(std::io::stderr().lock(), "{report:?}");
    }

    /// A bar of `total` steps with an ETA; without a terminal a line every ten seconds.
    pub fn bar(self, title: &str, total: usize) -> Bar {
        let mut bar = ProgressBar::new(total as u64);
        if self.live {
            bar = BARS.add(bar);
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix:<10} [{bar:28}] {pos}/{len} {elapsed}, {eta} left  {wide_msg}",
        ) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(title.to_owned());
        if self.live {
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        Bar {
            live: bar,
            title: title.to_owned(),
            started: Instant::now(),
            first: None,
            last_line: Instant::now(),
            lines: !self.quiet && !self.live,
        }
    }
}

/// A progress bar that degrades to lines.
pub struct Bar {
    live: ProgressBar,
    title: String,
    started: Instant,
    first: Option<usize>,
    last_line: Instant,
    lines: bool,
}

impl Bar {
    /// `done` of `total` steps are done.
    pub fn set(&mut self, done: usize, total: usize, message: &str) {
        if self.first.is_none() {
            // What an earlier part of the run did doesn't count towards the speed.
            self.first = Some(done.saturating_sub(1));
            self.live.reset_eta();
        }
        self.live.set_length(total as u64);
        self.live.set_position(done as u64);
        self.live.set_message(message.to_owned());
        if self.lines && (self.last_line.elapsed() >= Duration::from_secs(10) || done == total) {
            self.last_line = Instant::now();
            let here = done.saturating_sub(self.first.unwrap_or_default()).max(1);
            let left = self.started.elapsed().as_secs_f64() / here as f64 * total.saturating_sub(done) as f64;
            let text = format!("{} {done}/{total}, {} left  {message}", self.title, duration(left));
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// A line above the bar.
    pub fn say(&self, text: &str) {
        if self.lines {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        } else {
            self.live.println(text);
        }
    }

    /// Takes the bar away.
    pub fn done(self) {
        self.live.finish_and_clear();
    }
}

/// `1 h 02 min`, `3 min 20 s`, `12 s`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// A noise floor as a share; zero means that nothing was timed twice.
pub fn noise_floor(share: f64) -> String {
    if share > 0.0 { format!("{:.1} %", share * 100.0) } else { "not known".to_owned() }
}

/// Rows under a header, columns as wide as their widest cell; readable without colour.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// A latency in words, with its origin where it was not measured.
pub fn latency(time: &Summary, provenance: Provenance) -> String {
    let Summary { median, low, high, .. } = time;
    match provenance {
        Provenance::Measured => format!("{median} [{low} … {high}]"),
        // One number, without samples.
        Provenance::CompilerEstimate => format!("{median} ({provenance})"),
        other => format!("{median} [{low} … {high}] ({other})"),
    }
}

/// Rows under a header as a table for a document.
pub fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |", cells.join(" | "));
    let mut lines = vec![line(header.to_vec()), line(vec!["---"; header.len()])];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_speech() {
        assert_eq!(duration(3.4), "3 s");
        assert_eq!(duration(200.0), "3 min 20 s");
        assert_eq!(duration(3725.0), "1 h 02 min");
    }

    #[test]
    fn columns_align() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["long".into(), "22".into()]];
        assert_eq!(table(&["name", "n"], &rows), "name  n\na     1\nlong  22");
    }
}
