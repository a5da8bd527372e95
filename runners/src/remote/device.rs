//! The device's side of a transport: its folder, its lease and its jobs, by way of `device.sh`.

use std::{
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use super::owner::{Owner, token};
use crate::{Exit, RunnerError, Transport, TransportError, hexadecimal::hexadecimal, quote};

/// The script that runs on the device.
const SCRIPT: &str = include_str!("device.sh");
/// What its lines begin with.
const MARK: &str = "lathe-device: ";
/// How long a command that waits for nothing may take.
const PROMPT: Duration = Duration::from_secs(30);
/// What a job may take beside its own deadline, at most: to be launched, killed and told of. Whoever has
/// less patience than this waits only as long as that.
const MARGIN: Duration = Duration::from_secs(15);
/// How long the lease lasts after a sign of life.
const IDLE: Duration = Duration::from_mins(2);
/// Broken connections that one job may survive.
const TRIES: usize = 8;

/// A device that is reached and leased.
#[derive(Debug)]
pub(super) struct RemoteDevice {
    transport: Box<dyn Transport>,
    /// Its folder, absolute.
    folder: String,
    /// The script's path there.
    script: String,
    /// Name of this session: of the lease and of the jobs.
    token: String,
    /// Jobs launched so far.
    jobs: u64,
    /// How long a lost connection is tried again.
    patience: Duration,
    /// The job that was launched and whose end wasn't seen.
    open_job: Option<String>,
    /// Whether it has ever answered.
    acquainted: bool,
    /// Whether the last call got an answer.
    reachable: bool,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// How its process ended.
    pub(super) end: End,
    /// Folder of its files.
    pub(super) folder: String,
    name: String,
}

/// How a job's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It ended.
    Itself(Exit),
    /// The deadline passed and it was killed.
    Late,
    /// The device killed it, because nobody seemed to wait for it.
    Orphaned,
    /// It left nothing; so much is free on the disk of its folder.
    Vanished {
        /// Kilobytes, if the device tells.
        free_kb: Option<u64>,
    },
}

impl RemoteDevice {
    /// Looks at the device, puts the script there and takes the lease. Without a folder it is
    /// `.cache/lathe` in the user's home. Returns the name of its machine too.
    pub(super) fn open(
        transport: Box<dyn Transport>,
        folder: Option<&str>,
        patience: Duration,
    ) -> Result<(Self, String), RunnerError> {
        let peer = transport.peer();
        let mut device = Self {
            transport,
            folder: String::new(),
            script: String::new(),
            token: token(),
            jobs: 0,
            patience,
            open_job: None,
            acquainted: false,
            reachable: false,
        };
        let lines = device.lines(HELLO, PROMPT)?;
        (device.acquainted, device.reachable) = (true, true);
        let value = |key: &str| lines.iter().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        let missing: Vec<String> =
            lines.iter().filter_map(|line| line.strip_prefix("missing ")).map(str::to_owned).collect();
        if !missing.is_empty() {
            return Err(RunnerError::Tools { peer, missing });
        }
        let (Some(machine), Some(home)) = (value("machine "), value("home ")) else {
            let message = format!("it told nothing of itself; what came was {lines:?}");
            return Err(RunnerError::Answer { peer, message });
        };
        let folder =
            folder.map_or_else(|| format!("{}/.cache/lathe", home.trim_end_matches('/')), str::to_owned);
        folder.trim_end_matches('/').clone_into(&mut device.folder);
        let hash = hexadecimal(&Sha256::digest(SCRIPT.as_bytes())[..16]);
        device.script = device.store(&hash, "device.sh", SCRIPT.as_bytes())?;
        device.take_lease()?;
        Ok((device, machine))
    }

    /// Which device this is.
    pub(super) fn peer(&self) -> String {
        self.transport.peer()
    }

    /// Puts a file under a hash of its content, unless it is there: its path.
    pub(super) fn store(&mut self, hash: &str, name: &str, content: &[u8]) -> Result<String, RunnerError> {
        let path = format!("{}/{hash}/{name}", self.folder);
        // Before the script is there, nobody can be asked but the shell.
        let line = format!("[ -f {0} ] && echo \"{MARK}size $(wc -c <{0})\"", quote(&path));
        let size = self.lines(&line, PROMPT)?;
        let size = size.iter().find_map(|line| line.strip_prefix("size ")?.trim().parse::<usize>().ok());
        if size != Some(content.len()) {
            tracing::debug!(path, bytes = content.len(), "push");
            self.put(content, &path)?;
        }
        Ok(path)
    }

    /// Writes a file below the device's folder: its path.
    pub(super) fn place(&mut self, name: &str, content: &[u8]) -> Result<String, RunnerError> {
        let path = format!("{}/{name}", self.folder);
        self.put(content, &path)?;
        Ok(path)
    }

    /// Reads a file.
    pub(super) fn get(&mut self, path: &str, limit: usize) -> Result<Vec<u8>, RunnerError> {
        self.persist(|transport| transport.get(path, limit))
    }

    /// Deletes files; one that can't be deleted is in nobody's way.
    pub(super) fn delete(&mut self, paths: &[String]) {
        let names: Vec<String> = paths
            .iter()
            .filter_map(|path| path.strip_prefix(&format!("{}/", self.folder)))
            .map(quote)
            .collect();
        if let Err(error) = self.script("delete", &names.join(" "), PROMPT) {
            tracing::debug!(%error, "delete");
        }
    }

    /// Runs a job to its end, through broken connections: `words` with `request` on standard input, for
    /// at most `deadline`. It is launched once, whatever happens on the way.
    pub(super) fn run_job(
        &mut self,
        request: &[u8],
        words: &[String],
        deadline: Duration,
    ) -> Result<Ended, RunnerError> {
        self.jobs += 1;
        let name = format!("{}-{}", self.token, self.jobs);
        let folder = format!("{}/jobs/{name}", self.folder);
        self.put(request, &format!("{folder}/request"))?;
        self.open_job = Some(name.clone());
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        let margin = MARGIN.min(self.patience).max(Duration::from_secs(2));
        let grace = (self.patience + MARGIN).as_secs();
        let seconds = deadline.as_secs_f64().ceil() as u64;
        let until = Instant::now() + deadline + margin;
        let script = self.command("start");
        let (token, idle) = (self.token.clone(), IDLE.as_secs());
        let mut tries = 0;
        let lines = self.persist_for(TRIES, |transport| {
            tries += 1;
            let left = until.saturating_duration_since(Instant::now()).max(margin);
            let line =
                format!("{script} {name} {tries} {grace} {token} {idle} {seconds} {}", words.join(" "));
            transport.run(&line, left).map(|finished| marked(&finished.stdout))
        })?;
        let end = self.read_end(&lines)?;
        self.open_job = None;
        Ok(Ended { end, folder, name })
    }

    fn read_end(&self, lines: &[String]) -> Result<End, RunnerError> {
        let words: Vec<&str> = lines.last().map(|line| line.split(' ').collect()).unwrap_or_default();
        match words[..] {
            ["ended", _, "late"] => Ok(End::Late),
            ["ended", _, "orphaned"] => Ok(End::Orphaned),
            ["ended", code, "itself"] => match code.parse::<i32>() {
                // A shell's way to say that a signal ended it.
                Ok(code @ 129..=192) => Ok(End::Itself(Exit::of_signal(code - 128))),
                Ok(code) => Ok(End::Itself(Exit::Code(code))),
                Err(_) => Err(self.answer(lines)),
            },
            ["vanished", ..] => {
                Ok(End::Vanished { free_kb: words.get(1).and_then(|word| word.parse().ok()) })
            }
            ["taken_away", ref owner @ ..] => Err(RunnerError::TakenOver {
                peer: self.peer(),
                owner: if owner.join("").is_empty() {
                    "somebody".into()
                } else {
                    Owner::describe(&owner.join(" "))
                },
            }),
            _ => Err(self.answer(lines)),
        }
    }

    fn answer(&self, lines: &[String]) -> RunnerError {
        let message = match lines.last() {
            Some(line) => format!("it said `{line}`"),
            None => "it said nothing (hint: is a POSIX shell the login shell there?)".to_owned(),
        };
        RunnerError::Answer { peer: self.peer(), message }
    }

    /// Deletes a job's files.
    pub(super) fn forget(&mut self, ended: &Ended) {
        if let Err(error) = self.script("forget", &ended.name, PROMPT) {
            tracing::debug!(%error, "forget a job");
        }
    }

    fn take_lease(&mut self) -> Result<(), RunnerError> {
        let owner = Owner::this().text();
        let mut stale = "-".to_owned();
        for _ in 0..2 {
            let arguments = format!("{} {} {stale} {}", self.token, IDLE.as_secs(), quote(&owner));
            let lines = self.script("take", &arguments, PROMPT)?;
            let words: Vec<&str> = lines.last().map(|line| line.split(' ').collect()).unwrap_or_default();
            match words[..] {
                ["taken"] => return Ok(()),
                ["busy", holder, _, ref owner @ ..]
                    if stale == "-"
                        && Owner::parse(&owner.join(" ")).is_some_and(|owner| owner.is_gone()) =>
                {
                    holder.clone_into(&mut stale);
                }
                ["busy", _, seconds, ref owner @ ..] => {
                    return Err(RunnerError::Busy {
                        peer: self.peer(),
                        owner: Owner::describe(&owner.join(" ")),
                        seconds: seconds.parse().unwrap_or(0),
                    });
                }
                ["unwritable"] => {
                    let path = format!("{}/lease", self.folder);
                    return Err(self.explain(
                        RunnerError::Answer { peer: self.peer(), message: format!("it can't write {path}") },
                        &path,
                        1,
                    ));
                }
                _ => return Err(self.answer(&lines)),
            }
        }
        Err(RunnerError::Busy { peer: self.peer(), owner: "somebody".into(), seconds: 0 })
    }

    fn command(&self, command: &str) -> String {
        format!("sh {} {} {command}", quote(&self.script), quote(&self.folder))
    }

    fn script(
        &mut self,
        command: &str,
        arguments: &str,
        deadline: Duration,
    ) -> Result<Vec<String>, RunnerError> {
        let line = format!("{} {arguments}", self.command(command));
        self.lines(&line, deadline)
    }

    /// Runs a line of shell that may run twice; what the device says.
    fn lines(&mut self, line: &str, deadline: Duration) -> Result<Vec<String>, RunnerError> {
        self.persist(|transport| transport.run(line, deadline).map(|finished| marked(&finished.stdout)))
    }

    fn put(&mut self, content: &[u8], path: &str) -> Result<(), RunnerError> {
        match self.persist(|transport| transport.put(content, path)) {
            Err(error @ RunnerError::Transport(TransportError::File { .. })) => {
                Err(self.explain(error, path, content.len()))
            }
            other => other,
        }
    }

    /// Whether a file that couldn't be written had no room.
    fn explain(&mut self, error: RunnerError, path: &str, bytes: usize) -> RunnerError {
        // The folder may not be there yet: the nearest one that is tells of the same disk.
        let line = format!(
            "d={}; while [ ! -d \"$d\" ] && [ \"$d\" != / ]; do d=$(dirname \"$d\"); done; \
             echo \"{MARK}free $(df -Pk \"$d\" | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)\"",
            quote(path)
        );
        let lines = self.lines(&line, PROMPT).unwrap_or_default();
        let free = lines.iter().find_map(|line| line.strip_prefix("free ")?.trim().parse::<u64>().ok());
        let needed_kb = (bytes as u64).div_ceil(1024);
        match free {
            Some(free_kb) if free_kb <= needed_kb => {
                RunnerError::DiskFull { path: path.to_owned(), peer: self.peer(), free_kb, needed_kb }
            }
            _ => error,
        }
    }

    /// Does something that may be done twice, through broken connections.
    fn persist<T>(
        &mut self,
        action: impl FnMut(&mut dyn Transport) -> Result<T, TransportError>,
    ) -> Result<T, RunnerError> {
        self.persist_for(3, action)
    }

    /// Repeats it after each loss of the connection, up to so many times.
    fn persist_for<T>(
        &mut self,
        tries: usize,
        mut action: impl FnMut(&mut dyn Transport) -> Result<T, TransportError>,
    ) -> Result<T, RunnerError> {
        let mut losses = 0;
        loop {
            let error = match action(&mut *self.transport) {
                Ok(value) => return Ok(value),
                Err(error) if error.is_lost() => error,
                Err(error) => return Err(error.into()),
            };
            self.reachable = false;
            if !self.acquainted {
                // A device that never answered is not one that was lost.
                return Err(error.into());
            }
            losses += 1;
            tracing::warn!(%error, losses, "the connection was lost");
            if losses >= tries {
                return Err(self.unreachable(Duration::ZERO, error));
            }
            self.come_back()?;
        }
    }

    /// Connects again, at longer and longer intervals, until patience is over.
    fn come_back(&mut self) -> Result<(), RunnerError> {
        let since = Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let last = match self.transport.probe() {
                Ok(()) => {
                    self.reachable = true;
                    return Ok(());
                }
                Err(error) if error.is_lost() => error,
                Err(error) => return Err(error.into()),
            };
            if since.elapsed() + pause > self.patience {
                return Err(self.unreachable(since.elapsed(), last));
            }
            thread::sleep(pause);
            pause = (2 * pause).min(Duration::from_secs(5));
        }
    }

    fn unreachable(&self, after: Duration, last: TransportError) -> RunnerError {
        RunnerError::Unreachable { peer: self.transport.peer(), after, last }
    }
}

/// Everything that has to be known before the script is there.
const HELLO: &str = "printf 'lathe-device: machine %s\\nlathe-device: home %s\\n' \"$(uname -m)\" \"$HOME\"; \
     for tool in setsid flock sleep tail cat readlink mv rm mkdir df tr cut wc; do \
     command -v $tool >/dev/null || echo \"lathe-device: missing $tool\"; done";

/// What the device said, without what its login shell may have said.
fn marked(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().filter_map(|line| line.trim_end().strip_prefix(MARK)).map(str::to_owned).collect()
}

impl Drop for RemoteDevice {
    fn drop(&mut self) {
        if !self.reachable || self.script.is_empty() {
            // What runs there ends by itself, and the lease with it.
            return;
        }
        let mut line = String::new();
        if let Some(job) = self.open_job.take() {
            line = format!("{} {job}; ", self.command("end"));
        }
        line = format!("{line}{} {}", self.command("release"), self.token);
        if let Err(error) = self.transport.run(&line, MARGIN) {
            tracing::debug!(%error, "release the device");
        }
    }
}
