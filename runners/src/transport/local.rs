//! A device that is this machine: for emulated devices, and to test what speaks through a transport.

use std::{
    fs,
    io::Read,
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{Exit, Finished, Gathered, Transport, TransportError};

/// How long the pipes may stay open after the end of the command (a grandchild may hold them).
const GRACE: Duration = Duration::from_millis(500);

/// Files and processes of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalTransport;

enum Chunk {
    Output(Vec<u8>),
    Complaint(Vec<u8>),
}

impl LocalTransport {
    fn file(action: &'static str, path: &str, error: &std::io::Error) -> TransportError {
        TransportError::File {
            peer: "this machine".into(),
            action,
            path: path.to_owned(),
            message: error.to_string(),
        }
    }
}

impl Transport for LocalTransport {
    fn peer(&self) -> String {
        "this machine".to_owned()
    }

    fn probe(&mut self) -> Result<(), TransportError> {
        Ok(())
    }

    fn put(&mut self, content: &[u8], path: &str) -> Result<(), TransportError> {
        let part = format!("{path}.part");
        let write = || {
            if let Some(folder) = Path::new(path).parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&part, content)?;
            fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
            fs::rename(&part, path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&part);
            Self::file("write", path, &error)
        })
    }

    fn get(&mut self, path: &str, limit: usize) -> Result<Vec<u8>, TransportError> {
        let read = || {
            let mut bytes = Vec::new();
            fs::File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
            if bytes.len() > limit {
                return Err(std::io::Error::other(format!("it is larger than {limit} bytes")));
            }
            Ok(bytes)
        };
        read().map_err(|error| Self::file("read", path, &error))
    }

    fn run(&mut self, line: &str, deadline: Duration) -> Result<Finished, TransportError> {
        let action = "run a command";
        let until = Instant::now() + deadline;
        let mut child = Command::new("sh")
            .args(["-c", line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| TransportError::Lost {
                peer: self.peer(),
                action: action.into(),
                message: error.to_string(),
            })?;
        let (sender, chunks) = mpsc::channel();
        drain(child.stdout.take(), Chunk::Output, sender.clone());
        drain(child.stderr.take(), Chunk::Complaint, sender);
        let mut gathered = Gathered::default();
        let mut open = true;
        let mut ended: Option<(ExitStatus, Instant)> = None;
        loop {
            if open {
                match chunks.recv_timeout(Duration::from_millis(if ended.is_some() { 1 } else { 20 })) {
                    Ok(Chunk::Output(bytes)) => gathered.output(&bytes),
                    Ok(Chunk::Complaint(bytes)) => gathered.complaint(&bytes),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => open = false,
                }
            } else if ended.is_none() {
                thread::sleep(Duration::from_millis(2));
            }
            if ended.is_none() {
                ended = child.try_wait().ok().flatten().map(|status| (status, Instant::now()));
            }
            match ended {
                Some((status, at)) if !open || at.elapsed() > GRACE => {
                    return Ok(gathered.finished(exit(status)));
                }
                None if Instant::now() >= until => {
                    kill(&mut child);
                    return Err(TransportError::Silent {
                        peer: self.peer(),
                        action: action.into(),
                        after: deadline,
                    });
                }
                _ => {}
            }
        }
    }
}

fn kill(child: &mut Child) {
    // Not reaped yet, so that the number still names this group.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    let _ = child.wait();
}

fn exit(status: ExitStatus) -> Exit {
    status.signal().map_or_else(|| Exit::Code(status.code().unwrap_or(-1)), Exit::of_signal)
}

/// Reads a pipe to its end on a thread of its own.
fn drain(pipe: Option<impl Read + Send + 'static>, kind: fn(Vec<u8>) -> Chunk, sender: mpsc::Sender<Chunk>) {
    let Some(mut pipe) = pipe else { return };
    thread::spawn(move || {
        let mut chunk = [0; 8192];
        while let Ok(count @ 1..) = pipe.read(&mut chunk) {
            if sender.send(kind(chunk[..count].to_vec())).is_err() {
                break;
            }
        }
    });
}
