//! Seconds of a full search step, plain against fused, interleaved in one run.
//!
//! Each pair of implementation and batch is a process of its own that makes a step whenever it is told,
//! so that memory is measured apart and both meet the same moods of the machine. The last line on
//! stdout is one JSON object; everything else goes to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs, reason = "a benchmark prints")]

use std::{
    error::Error,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use lathe_search::{Implementation, SearchStep, profile};
use serde_json::{Value, json};

type Failure = Box<dyn Error>;

const USAGE: &str = "cargo bench -p lathe-search --bench supernet_step -- [--batches 16,32,64] [--steps 5] [--threads N] \
                     [--against COMMAND]\n\nCOMMAND starts another program that answers each line `step` on stdin with a JSON \
                     object that has `seconds`; `{batch}` and `{threads}` in it are replaced.";

struct Options {
    batches: Vec<usize>,
    steps: usize,
    threads: usize,
    against: Option<String>,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [serve, implementation, batch, threads] = arguments.as_slice()
        && serve == "--serve"
    {
        return serve_steps(implementation, batch.parse()?, threads.parse()?);
    }
    let options = options(&arguments)?;
    let mut rows = Vec::new();
    for &batch in &options.batches {
        rows.push(compare(batch, &options)?);
    }
    println!(
        "{}",
        json!({ "benchmark": "supernet_step", "threads": options.threads, "steps": options.steps, "rows": rows })
    );
    Ok(())
}

fn options(arguments: &[String]) -> Result<Options, Failure> {
    let threads = std::thread::available_parallelism()?.get();
    let mut options = Options { batches: vec![16, 32, 64], steps: 5, threads, against: None };
    let mut rest = arguments.iter();
    while let Some(key) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{key} needs a value\n{USAGE}"))?;
        match key.as_str() {
            "--batches" => options.batches = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--steps" => options.steps = value.parse()?,
            "--threads" => options.threads = value.parse()?,
            "--against" => options.against = Some(value.clone()),
            _ => return Err(format!("unknown option {key}\n{USAGE}").into()),
        }
    }
    Ok(options)
}

/// A process that makes steps.
struct Served {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    seconds: Vec<f64>,
}

impl Served {
    fn start(name: &str, mut command: Command) -> Result<Self, Failure> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("no stdout")?;
        Ok(Self { name: name.into(), child, stdin, stdout: BufReader::new(stdout), seconds: Vec::new() })
    }

    fn ask(&mut self, line: &str) -> Result<Value, Failure> {
        writeln!(self.stdin.as_mut().ok_or("no stdin")?, "{line}")?;
        let mut answer = String::new();
        if self.stdout.read_line(&mut answer)? == 0 {
            return Err(format!("{} ended", self.name).into());
        }
        Ok(serde_json::from_str(&answer)?)
    }

    fn step(&mut self) -> Result<f64, Failure> {
        let answer = self.ask("step")?;
        Ok(answer["seconds"].as_f64().ok_or("no `seconds` in the answer")?)
    }

    fn end(mut self) -> Result<(), Failure> {
        self.stdin = None;
        self.child.wait()?;
        Ok(())
    }
}

fn compare(batch: usize, options: &Options) -> Result<Value, Failure> {
    let own = |name: &str| -> Result<Served, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--serve", name, &batch.to_string(), &options.threads.to_string()]);
        Served::start(name, command)
    };
    let mut all = vec![own("plain")?, own("fused")?];
    if let Some(text) = &options.against {
        let text =
            text.replace("{batch}", &batch.to_string()).replace("{threads}", &options.threads.to_string());
        let mut words = text.split_whitespace();
        let mut command = Command::new(words.next().ok_or("an empty command")?);
        command.args(words);
        all.push(Served::start("against", command)?);
    }
    // The first step allocates.
    for served in &mut all {
        served.step()?;
    }
    for step in 0..options.steps {
        for served in &mut all {
            let seconds = served.step()?;
            served.seconds.push(seconds);
            eprintln!("batch {batch}, step {}/{}: {:8} {seconds:.3} s", step + 1, options.steps, served.name);
        }
    }
    let mut row = json!({ "batch": batch });
    let mut medians = Vec::new();
    for mut served in all {
        let report = if served.name == "against" { Value::Null } else { served.ask("report")? };
        let (name, mut seconds) = (served.name.clone(), std::mem::take(&mut served.seconds));
        served.end()?;
        seconds.sort_by(f64::total_cmp);
        let median = median(&seconds);
        medians.push((name.clone(), median));
        row[&name] = json!({
            "median_seconds": median,
            "least_seconds": seconds.first(),
            "most_seconds": seconds.last(),
            "peak_mebibytes": report["peak_mebibytes"],
            "kernel_calls": report["kernel_calls"],
            "shares": report["shares"],
        });
    }
    let of = |name: &str| medians.iter().find(|(other, _)| other == name).map(|(_, median)| *median);
    if let (Some(plain), Some(fused)) = (of("plain"), of("fused")) {
        row["plain_over_fused"] = json!(plain / fused);
        row["fused_over_plain_memory"] = json!(
            row["fused"]["peak_mebibytes"]
                .as_f64()
                .zip(row["plain"]["peak_mebibytes"].as_f64())
                .map(|(a, b)| a / b)
        );
        eprintln!("batch {batch}: plain {plain:.3} s, fused {fused:.3} s, ratio {:.2}", plain / fused);
        if let Some(against) = of("against") {
            row["against_over_fused"] = json!(against / fused);
            eprintln!(
                "batch {batch}: against {against:.3} s, fused {fused:.3} s, ratio {:.2}",
                against / fused
            );
        }
    }
    Ok(row)
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Makes a step for every line `step`, and tells of memory and kernels on `report`.
fn serve_steps(implementation: &str, batch: usize, threads: usize) -> Result<(), Failure> {
    let implementation = match implementation {
        "plain" => Implementation::Plain,
        "fused" => Implementation::Fused,
        other => return Err(format!("unknown implementation {other}").into()),
    };
    let mut step = SearchStep::new(implementation, batch, threads)?;
    for line in std::io::stdin().lines() {
        let answer = match line?.as_str() {
            "step" => {
                let began = Instant::now();
                let loss = step.run()?;
                json!({ "seconds": began.elapsed().as_secs_f64(), "loss": loss })
            }
            _ => report(&mut step)?,
        };
        println!("{answer}");
    }
    Ok(())
}

fn report(step: &mut SearchStep) -> Result<Value, Failure> {
    let peak = peak_mebibytes()?;
    let mut result = Ok(0.0);
    let kernels = profile(|| result = step.run());
    result?;
    let total: u64 = kernels.iter().map(|kernel| kernel.nanoseconds).sum();
    let calls: u64 = kernels.iter().map(|kernel| kernel.calls).sum();
    let shares: Vec<Value> = (kernels.iter().take(12))
        .map(|kernel| {
            let share = kernel.nanoseconds as f64 / total.max(1) as f64;
            json!({ "kernel": kernel.name, "calls": kernel.calls, "share": (share * 1e4).round() / 1e4 })
        })
        .collect();
    Ok(json!({ "peak_mebibytes": peak, "kernel_calls": calls, "shares": shares }))
}

/// Most memory that this process ever had.
fn peak_mebibytes() -> Result<Option<f64>, Failure> {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Ok(None) };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes =
        line.and_then(|line| line.split_whitespace().next()).map(str::parse::<f64>).transpose()?;
    Ok(kibibytes.map(|kibibytes| kibibytes / 1024.0))
}
