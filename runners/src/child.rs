//! One launch of the agent: it always ends, whatever the agent does.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use lathe_latency_db::Outcome;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::Serialize;

use crate::{Answer, Exit, RunnerError};

/// What is kept of standard error.
const TAIL_BYTES: usize = 4096;
/// What is kept of standard output; an answer with more samples than fit is not one that rules ask for.
pub(crate) const ANSWER_BYTES: u64 = 1 << 28;
/// How often an agent that is silent is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long its pipes may stay open after its end (a grandchild may hold them).
const GRACE: Duration = Duration::from_millis(500);

/// How a launch without an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accident {
    /// [`Outcome::Timeout`] or [`Outcome::Crash`].
    pub(crate) outcome: Outcome,
    /// What happened, with the end of what the agent wrote to standard error.
    pub(crate) message: String,
}

impl Accident {
    /// A crash whose last words tell of an allocation that failed is one of memory.
    pub(crate) fn of_memory(mut self) -> Self {
        let words = ["memory allocation of", "bad_alloc", "Cannot allocate memory"];
        if self.outcome == Outcome::Crash && words.iter().any(|words| self.message.contains(words)) {
            self.outcome = Outcome::OutOfMemory;
        }
        self
    }
}

/// Launches the agent, hands it the request and waits for its answer, at most until the deadline; then
/// its whole process group is killed. The outer error means that it couldn't even be launched.
pub(crate) fn ask(
    agent: &Path,
    mode: &str,
    request: &impl Serialize,
    deadline: Duration,
) -> Result<Result<Answer, Accident>, RunnerError> {
    let launch = |source| RunnerError::Launch { path: agent.to_owned(), source };
    let line = serde_json::to_string(request).map_err(|error| launch(error.into()))?;
    let mut child = Command::new(agent)
        .args([mode, "--watch-stdin"])
        .env("ORT_DISABLE_TELEMETRY", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(launch)?;
    let until = Instant::now() + deadline;
    // Kept open until the end: the agent dies when it closes, so that it never outlives its launcher.
    let mut stdin = child.stdin.take();
    if let Some(stdin) = &mut stdin {
        // An agent that is already gone can't be written to; its end says why.
        let _ = stdin.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdin.flush());
    }
    let stderr = Tail::drain(child.stderr.take());
    let stdout = collect(child.stdout.take());

    let (output, status) = wait(&mut child, &stdout, until);
    drop(stdin);
    Ok(match status {
        None => Err(Accident {
            outcome: Outcome::Timeout,
            message: stderr.append(format!("no answer after {:.1} s, killed", deadline.as_secs_f64())),
        }),
        Some(status) => judge(&output, &exit(status)).map_err(|message| {
            Accident { outcome: Outcome::Crash, message: stderr.append(message) }.of_memory()
        }),
    })
}

/// Waits for the end of the output and of the process; no status means that the deadline passed.
fn wait(
    child: &mut Child,
    stdout: &mpsc::Receiver<Vec<u8>>,
    until: Instant,
) -> (Vec<u8>, Option<ExitStatus>) {
    let mut output = None;
    let mut ended: Option<(ExitStatus, Instant)> = None;
    loop {
        if output.is_none() {
            match stdout.recv_timeout(LOOK) {
                Ok(bytes) => output = Some(bytes),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => output = Some(Vec::new()),
            }
        } else if ended.is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        if ended.is_none() {
            ended = child.try_wait().ok().flatten().map(|status| (status, Instant::now()));
        }
        match ended {
            Some((status, at)) if output.is_some() || at.elapsed() > GRACE => {
                return (output.unwrap_or_default(), Some(status));
            }
            None if Instant::now() >= until => {
                // Not reaped yet, so that the number still names this group.
                let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
                let _ = child.wait();
                return (Vec::new(), None);
            }
            _ => {}
        }
    }
}

fn exit(status: ExitStatus) -> Exit {
    status.signal().map_or_else(|| Exit::Code(status.code().unwrap_or(-1)), Exit::of_signal)
}

/// The answer, or why there is none.
pub(crate) fn judge(output: &[u8], exit: &Exit) -> Result<Answer, String> {
    let code = match exit {
        Exit::Code(code) => code,
        Exit::Signal(name) => {
            let hint = if name == "KILL" { " (perhaps by the kernel, because memory ran out)" } else { "" };
            return Err(format!("the agent was killed by SIG{name}{hint}"));
        }
    };
    let text = String::from_utf8_lossy(output);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    match (lines.next(), lines.next()) {
        (None, _) => Err(format!(
            "the agent ended with exit code {code} and without an answer (hint: is it Lathe's agent, for this device? `AGENT --version` tells; `cargo xtask agent` builds it)"
        )),
        (Some(line), None) => serde_json::from_str(line).map_err(|error| {
            format!("the agent's answer can't be read ({error}), exit code {code}: `{}`", beginning(line))
        }),
        (Some(line), Some(_)) => {
            Err(format!("the agent wrote more than one line, exit code {code}: `{}`", beginning(line)))
        }
    }
}

fn beginning(line: &str) -> String {
    line.chars().take(120).collect()
}

/// Reads standard output to its end on a thread of its own.
fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    if let Some(pipe) = pipe {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.take(ANSWER_BYTES).read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        });
    }
    receiver
}

/// The end of standard error, read on a thread of its own so that the agent never waits for a reader.
struct Tail {
    kept: Arc<Mutex<VecDeque<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Tail {
    fn drain(pipe: Option<impl Read + Send + 'static>) -> Self {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, ended) = mpsc::channel();
        if let Some(mut pipe) = pipe {
            let kept = Arc::clone(&kept);
            thread::spawn(move || {
                let mut chunk = [0; 8192];
                while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.extend(&chunk[..count]);
                    let surplus = kept.len().saturating_sub(TAIL_BYTES);
                    kept.drain(..surplus);
                }
                drop(sender);
            });
        }
        Self { kept, ended }
    }

    /// The message with what was kept.
    fn append(&self, message: String) -> String {
        // Nothing is ever sent: the end of the thread is what is waited for.
        let _ = self.ended.recv_timeout(GRACE);
        let kept: Vec<u8> =
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        with_last_words(message, &kept)
    }
}

/// The message with what the agent last wrote to standard error.
pub(crate) fn with_last_words(message: String, complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let text = text.trim();
    if text.is_empty() { message } else { format!("{message}; it last wrote: {text}") }
}
