//! The agent's own half: one request from standard input, one answer to standard output.

use std::{
    fs,
    io::{self, BufRead, Read, Write},
    process::ExitCode,
};

use lathe_latency_db::Outcome;
use lathe_spaces::seeded_input;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        resource::{Resource, setrlimit},
        signal::{Signal, raise},
    },
    unistd::{Pid, dup, dup2_stdout},
};
use serde::de::DeserializeOwned;

use crate::{
    AgentSettings, Answer, CheckRequest, EvaluateRequest, MeasureAnswer, MeasureRequest, OutputSums,
    PROTOCOL_VERSION, ProbeAnswer, ProbeRequest,
    clock::{empty_loop_ns, now_ns},
    device_facts,
    engine::{self, Failure},
    machine::peak_rss_kb,
    machine_state,
    timing::{WarmUp, batch_size, enough, median, per_run, warm_up},
};

const VERSION: &str = concat!("lathe-agent ", env!("CARGO_PKG_VERSION"));

const HELP: &str = "\
The device agent of Lathe: reads one request (a JSON line) from standard input and prints one answer
(a JSON line) to standard output. It is usually launched by `lathe`.

Usage: lathe-agent <MODE> [--watch-stdin]

Modes:
  probe      say what this device and its engine are
  state      say how it is now, without loading the engine
  measure    time one workload
  check      say which execution provider takes which node of a model
  evaluate   run a model on inputs from a file

Options:
  --watch-stdin  die as soon as standard input is closed (the launcher is gone)
  --version      print the version
  --help         print this text
";

/// The program. Answers, also those that tell of a failure, exit with 0; a wrong use of the command
/// line or an unreadable request with 2; an answer that can't be printed with 1.
pub fn agent_main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (mode, watch) = match words.as_slice() {
        ["--version" | "-V"] => return print(&format!("{VERSION}\n")),
        ["--help" | "-h"] => return print(HELP),
        [mode] => (*mode, false),
        [mode, "--watch-stdin"] => (*mode, true),
        _ => return misuse("it takes one mode"),
    };
    let Ok(mut answers) = own_standard_output() else { return ExitCode::FAILURE };
    let answer = match mode {
        "probe" => request(watch).map(|request: ProbeRequest| answer(probe(&request))),
        "state" => request(watch).map(|request: ProbeRequest| answer(state(&request))),
        "measure" => request(watch).map(|request: MeasureRequest| answer(measure(&request))),
        "check" => request(watch).map(|request: CheckRequest| answer(check(&request))),
        "evaluate" => request(watch).map(|request: EvaluateRequest| answer(evaluate(&request))),
        other => Err(format!("`{other}` is not a mode")),
    };
    match answer.map(|answer| serde_json::to_string(&answer)) {
        Ok(Ok(line)) => write_to(&mut answers, &format!("{line}\n")),
        Ok(Err(error)) => misuse(&error.to_string()),
        Err(message) => misuse(&message),
    }
}

fn print(text: &str) -> ExitCode {
    write_to(&mut io::stdout().lock(), text)
}

fn write_to(output: &mut impl Write, text: &str) -> ExitCode {
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Standard output for the answer alone: what an engine's library prints there goes to standard error
/// from now on.
fn own_standard_output() -> nix::Result<fs::File> {
    let output = dup(io::stdout())?;
    dup2_stdout(io::stderr())?;
    Ok(fs::File::from(output))
}

fn misuse(message: &str) -> ExitCode {
    eprintln!("lathe-agent: failed to understand the request: {message}\nhint: see lathe-agent --help");
    ExitCode::from(2)
}

fn request<T: DeserializeOwned>(watch: bool) -> Result<T, String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| error.to_string())?;
    if watch {
        std::thread::spawn(|| {
            // A launcher that was killed can't stop its agent; its end of the pipe closes anyway.
            let mut byte = [0];
            while io::stdin().read(&mut byte).is_ok_and(|count| count > 0) {}
            let _ = raise(Signal::SIGKILL);
        });
    }
    serde_json::from_str(&line).map_err(|error| format!("standard input: {error}"))
}

fn answer(result: Result<Answer, Failure>) -> Answer {
    result.unwrap_or_else(|failure| Answer::Failed { outcome: failure.outcome, message: failure.message })
}

fn check_version(settings: &AgentSettings) -> Result<(), Failure> {
    if settings.version == PROTOCOL_VERSION {
        return Ok(());
    }
    let message = format!(
        "request of protocol version {}, this agent speaks {PROTOCOL_VERSION} (hint: rebuild it with `cargo xtask agent`)",
        settings.version
    );
    Err(Failure::new(Outcome::Crash, message))
}

/// Pins the process to the wanted cores, before the engine makes its threads, and reads back where it
/// runs. A core that can't be had shows in the answer.
fn pin(cpus: &[usize]) -> Vec<usize> {
    let this = Pid::from_raw(0);
    if !cpus.is_empty() {
        let mut set = CpuSet::new();
        let named = cpus.iter().try_for_each(|&cpu| set.set(cpu));
        if let Err(error) = named.and_then(|()| sched_setaffinity(this, &set)) {
            eprintln!("lathe-agent: failed to pin itself to cores {cpus:?}: {error}");
        }
    }
    let set = sched_getaffinity(this).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect()
}

/// Limits the memory that this process may hold for data (heap, stacks and private mappings), before the
/// engine is loaded: an allocation beyond it fails, whether or not the machine has the memory.
fn limit_memory(settings: &AgentSettings) -> Result<(), Failure> {
    let Some(kilobytes) = settings.memory_kb else { return Ok(()) };
    let bytes = kilobytes.saturating_mul(1024);
    setrlimit(Resource::RLIMIT_DATA, bytes, bytes)
        .map_err(|error| Failure::crash(&format!("limit the memory to {kilobytes} kB"), error))
}

fn probe(request: &ProbeRequest) -> Result<Answer, Failure> {
    let settings = &request.settings;
    check_version(settings)?;
    limit_memory(settings)?;
    let pinned_cpus = pin(&settings.cpus);
    let engine = engine::load(settings)?;
    Ok(Answer::Probe(Box::new(ProbeAnswer {
        version: PROTOCOL_VERSION,
        agent: VERSION.to_owned(),
        facts: device_facts(&settings.state_root, &pinned_cpus),
        engine: engine.identity()?,
        providers: engine.providers()?,
        state: machine_state(&settings.state_root, &pinned_cpus),
        pinned_cpus,
    })))
}

fn state(request: &ProbeRequest) -> Result<Answer, Failure> {
    let settings = &request.settings;
    check_version(settings)?;
    Ok(Answer::State(Box::new(machine_state(&settings.state_root, &settings.cpus))))
}

fn measure(request: &MeasureRequest) -> Result<Answer, Failure> {
    let settings = &request.settings;
    check_version(settings)?;
    limit_memory(settings)?;
    let pinned_cpus = pin(&settings.cpus);
    if settings.engine.emulates(std::env::consts::ARCH) {
        let message = "on x86-64, qnn is Hexagon's emulator: it tells what compiles, and its times tell nothing (hint: lathe device check)";
        return Err(Failure::new(Outcome::Unsupported, message));
    }
    let before = machine_state(&settings.state_root, &pinned_cpus);
    let engine = engine::load(settings)?;
    let clock = |error| Failure::crash("read the raw monotonic clock", error);

    let start = now_ns().map_err(clock)?;
    let mut model = engine.create(&request.model)?;
    let load_ns = now_ns().map_err(clock)? - start;
    model.bind(request.shape, seeded_input(request.shape, request.input_seed))?;

    let mut runs_ns = Vec::new();
    let begin = now_ns().map_err(clock)?;
    let settled = loop {
        let start = now_ns().map_err(clock)?;
        model.run()?;
        let end = now_ns().map_err(clock)?;
        runs_ns.push(end - start);
        match warm_up(&runs_ns, end - begin, &request.protocol) {
            WarmUp::Continue => {}
            WarmUp::Settled => break true,
            WarmUp::Limit => break false,
        }
    };

    let recent = &runs_ns[runs_ns.len().saturating_sub(10)..];
    let batch = batch_size(median(recent));
    let empty_ns = empty_loop_ns(batch).map_err(clock)?;
    let mut samples_ns = Vec::new();
    let begin = now_ns().map_err(clock)?;
    loop {
        let start = now_ns().map_err(clock)?;
        for _ in 0..batch {
            model.run()?;
        }
        let end = now_ns().map_err(clock)?;
        samples_ns.push(per_run(end - start, empty_ns, batch));
        if enough(samples_ns.len(), end - begin, &request.protocol) {
            break;
        }
    }

    let after = machine_state(&settings.state_root, &pinned_cpus);
    let peak_rss_kb = peak_rss_kb();
    let output = OutputSums::of(&model.run_for_output()?);
    let output_error = output.map(|sums| sums.deviation(&request.expected)).filter(|error| error.is_finite());
    let message = match (&output, output_error) {
        (_, Some(error)) if error <= request.tolerance => None,
        (None, _) => Some("the output isn't finite".to_owned()),
        (Some(sums), error) => Some(format!(
            "the output's sums are {sums:?}, expected {:?}: relative difference {}, allowed {:e}",
            request.expected,
            error.map_or_else(|| "infinite".to_owned(), |error| format!("{error:e}")),
            request.tolerance
        )),
    };
    let execution = if request.inspect { Some(model.execution()?) } else { None };
    Ok(Answer::Measured(Box::new(MeasureAnswer {
        agent: VERSION.to_owned(),
        outcome: if message.is_none() { Outcome::Ok } else { Outcome::WrongOutput },
        message,
        samples_ns,
        batch,
        warmup_runs: runs_ns.len(),
        settled,
        load_ns,
        first_run_ns: runs_ns[0],
        peak_rss_kb,
        output,
        output_error,
        execution,
        pinned_cpus,
        before,
        after,
    })))
}

fn check(request: &CheckRequest) -> Result<Answer, Failure> {
    let settings = &request.settings;
    check_version(settings)?;
    pin(&settings.cpus);
    Ok(Answer::Checked { placements: engine::load(settings)?.check(&request.model)? })
}

fn evaluate(request: &EvaluateRequest) -> Result<Answer, Failure> {
    let settings = &request.settings;
    check_version(settings)?;
    limit_memory(settings)?;
    pin(&settings.cpus);
    let bytes = fs::read(&request.inputs)
        .map_err(|error| Failure::crash(&format!("read inputs {}", request.inputs.display()), error))?;
    let size = request.shape.elements() * size_of::<f32>();
    if size == 0 || bytes.is_empty() || bytes.len() % size != 0 {
        let message = format!(
            "read inputs {}: {} bytes are not whole inputs of {} ({size} bytes each)",
            request.inputs.display(),
            bytes.len(),
            request.shape
        );
        return Err(Failure::new(Outcome::Crash, message));
    }
    let engine = engine::load(settings)?;
    let mut model = engine.create(&request.model)?;
    let mut outputs = Vec::new();
    for image in bytes.chunks_exact(size) {
        let (numbers, _) = image.as_chunks::<4>();
        let input = numbers.iter().map(|&number| f32::from_le_bytes(number)).collect();
        model.bind(request.shape, input)?;
        outputs.extend(model.run_for_output()?.into_iter().flat_map(f32::to_le_bytes));
    }
    fs::write(&request.outputs, outputs)
        .map_err(|error| Failure::crash(&format!("write outputs {}", request.outputs.display()), error))?;
    Ok(Answer::Evaluated { inputs: bytes.len() / size })
}
