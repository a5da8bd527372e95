//! One connection: every wait of it is a look at the socket with a deadline, so that nothing a device
//! does or leaves undone can hold the caller.

use std::{
    fmt,
    io::{self, Read},
    net::{Shutdown, TcpStream, ToSocketAddrs},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};
use ssh2::{BlockDirections, Channel, Error, ErrorCode, MethodType, Session, Sftp};

use super::{SshIdentity, SshSettings, known_hosts::KnownLines};
use crate::transport::{Exit, Finished, Gathered, TransportError};

/// libssh2's "operation would block".
const AGAIN: ErrorCode = ErrorCode::Session(-37);
/// libssh2's "no common key exchange", of which the host key's type is a part.
const KEY_EXCHANGE: [ErrorCode; 2] = [ErrorCode::Session(-5), ErrorCode::Session(-8)];
/// Longest single look at the socket.
const LOOK: Duration = Duration::from_millis(200);
/// Bound on libssh2's own waits, which happen only where a handle is dropped.
const DROP_MILLISECONDS: u32 = 2000;
/// The kernel gives a connection up after this long without an acknowledgement.
const DEAD_LINK: Duration = Duration::from_secs(20);

/// A session that is logged in.
pub(super) struct Connection {
    peer: String,
    session: Session,
    /// The same socket as the session's, to look at and to cut.
    socket: TcpStream,
    /// Opened with the first file. Declared here, dropped before the session ends.
    sftp: Option<Arc<Sftp>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects, checks the host's key and logs in.
    pub(super) fn open(settings: &SshSettings, until: Instant) -> Result<Self, TransportError> {
        let mut connection = Self::greet(settings, true, until)?;
        connection.log_in(settings, until)?;
        Ok(connection)
    }

    /// Connects and checks the host's key. With `prefer`, the host is asked for the types of keys that
    /// are known; it may have none of them, and then whatever it shows is judged instead.
    fn greet(settings: &SshSettings, prefer: bool, until: Instant) -> Result<Self, TransportError> {
        let peer = format!("{}@{}:{}", settings.user, settings.host, settings.port);
        let fault = |message: &str, hint: &str| TransportError::Connect {
            peer: peer.clone(),
            message: message.to_owned(),
            hint: hint.to_owned(),
        };
        let mut session = Session::new().map_err(|error| fault(error.message(), "is memory free?"))?;
        let lines = KnownLines::read(&settings.known_hosts, &settings.host, settings.port, &session)?;
        let socket = dial(settings, until).map_err(|error| {
            fault(&error.to_string(), "is the device on, and does an SSH server listen there?")
        })?;
        let ours = socket.try_clone().map_err(|error| fault(&error.to_string(), "are files open?"))?;
        if let Some(methods) = lines.methods().filter(|_| prefer) {
            session.method_pref(MethodType::HostKey, &methods).map_err(|error| {
                fault(error.message(), "the known hosts name a type of key that this build doesn't know")
            })?;
        }
        session.set_timeout(DROP_MILLISECONDS);
        session.set_blocking(false);
        session.set_tcp_stream(socket);
        let connection = Self { peer: peer.clone(), session: session.clone(), socket: ours, sftp: None };
        match connection.wait(until, || session.handshake()) {
            Err(Trouble::Engine(error)) if prefer && KEY_EXCHANGE.contains(&error.code()) => {
                connection.abandon();
                // Judged again without the preference, only to tell which key it has.
                let other = Self::greet(settings, false, until)?;
                other.abandon();
                return Err(fault(
                    &format!("there is no common way to exchange keys: {}", error.message()),
                    "is the SSH server on the device a very old one?",
                ));
            }
            Err(Trouble::Engine(error)) => {
                connection.abandon();
                return Err(fault(error.message(), "is it an SSH server that listens there?"));
            }
            Err(Trouble::Silent(after)) => {
                connection.abandon();
                return Err(TransportError::Silent { peer, action: "shake hands".into(), after });
            }
            Ok(()) => {}
        }
        match lines.check(&connection.session, settings) {
            Ok(()) => Ok(connection),
            Err(error) => {
                connection.abandon();
                Err(error)
            }
        }
    }

    fn log_in(&mut self, settings: &SshSettings, until: Instant) -> Result<(), TransportError> {
        let user = settings.user.as_str();
        let session = self.session.clone();
        let (result, hint) = match &settings.identity {
            SshIdentity::File(key) => {
                let key_fault = |message: String, hint: &str| TransportError::LogIn {
                    peer: self.peer.clone(),
                    message: format!("key {}: {message}", key.display()),
                    hint: hint.to_owned(),
                };
                let text = std::fs::read(key)
                    .map_err(|error| key_fault(error.to_string(), "name the private key with --identity"))?;
                if locked(&text) {
                    return Err(key_fault(
                        "it is locked with a passphrase".into(),
                        "add it to an ssh-agent and use --identity agent, or make a key of its own for this device",
                    ));
                }
                let result = self.wait(until, || session.userauth_pubkey_file(user, None, key, None));
                (
                    result,
                    format!("append {}.pub to ~{user}/.ssh/authorized_keys on the device", key.display()),
                )
            }
            SshIdentity::Agent => {
                let result = self.log_in_by_agent(user, until);
                (result, "`ssh-add -l` shows the agent's keys; one of them must be in authorized_keys on the device".into())
            }
        };
        match result {
            Ok(()) if self.session.authenticated() => Ok(()),
            Ok(()) => Err(self.refused("the device wants more than a key".into(), hint)),
            Err(Trouble::Engine(error)) if broken(&error) => Err(self.lost("log in", error.message())),
            Err(Trouble::Engine(error)) => Err(self.refused(error.message().to_owned(), hint)),
            Err(Trouble::Silent(after)) => {
                Err(TransportError::Silent { peer: self.peer.clone(), action: "log in".into(), after })
            }
        }
    }

    /// Tries the agent's keys one after the other.
    fn log_in_by_agent(&self, user: &str, until: Instant) -> Result<(), Trouble> {
        let mut agent = self.session.agent()?;
        agent.connect()?;
        agent.list_identities()?;
        let mut last = Error::new(ErrorCode::Session(-18), "the agent holds no keys");
        for identity in agent.identities()? {
            match self.wait(until, || agent.userauth(user, &identity)) {
                Err(Trouble::Engine(error)) if !broken(&error) => last = error,
                other => return other,
            }
        }
        Err(Trouble::Engine(last))
    }

    fn refused(&self, message: String, hint: String) -> TransportError {
        TransportError::LogIn { peer: self.peer.clone(), message, hint }
    }

    fn lost(&self, action: &str, message: &str) -> TransportError {
        TransportError::Lost { peer: self.peer.clone(), action: action.into(), message: message.into() }
    }

    /// Repeats an operation until it no longer would block; between two tries it waits for the socket.
    fn wait<T>(&self, until: Instant, mut operation: impl FnMut() -> Result<T, Error>) -> Result<T, Trouble> {
        let start = Instant::now();
        loop {
            match operation() {
                Err(error) if error.code() == AGAIN => {
                    if Instant::now() >= until {
                        return Err(Trouble::Silent(start.elapsed()));
                    }
                    self.look(until);
                }
                other => return other.map_err(Trouble::Engine),
            }
        }
    }

    /// As [`Self::wait`], with the errors of a session that is logged in.
    pub(super) fn work<T>(
        &self,
        action: &str,
        until: Instant,
        operation: impl FnMut() -> Result<T, Error>,
    ) -> Result<Result<T, Error>, TransportError> {
        match self.wait(until, operation) {
            Ok(value) => Ok(Ok(value)),
            Err(Trouble::Engine(error)) if broken(&error) => Err(self.lost(action, error.message())),
            Err(Trouble::Engine(error)) => Ok(Err(error)),
            Err(Trouble::Silent(after)) => {
                Err(TransportError::Silent { peer: self.peer.clone(), action: action.into(), after })
            }
        }
    }

    /// As [`Self::work`], where every error means that the connection is of no use.
    pub(super) fn must<T>(
        &self,
        action: &str,
        until: Instant,
        operation: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, TransportError> {
        self.work(action, until, operation)?.map_err(|error| self.lost(action, error.message()))
    }

    /// Waits until the socket can do what the session waits for, a little while at most.
    fn look(&self, until: Instant) {
        let flags = match self.session.block_directions() {
            BlockDirections::Outbound => PollFlags::POLLOUT,
            BlockDirections::Both => PollFlags::POLLIN | PollFlags::POLLOUT,
            BlockDirections::Inbound | BlockDirections::None => PollFlags::POLLIN,
        };
        let left = until.saturating_duration_since(Instant::now()).min(LOOK);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        // An interrupted look is only a short one.
        let _ = poll(&mut [PollFd::new(self.socket.as_fd(), flags)], timeout);
    }

    /// Which device this is.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// The sftp subsystem, opened once.
    pub(super) fn sftp(&mut self, until: Instant) -> Result<Arc<Sftp>, TransportError> {
        if let Some(sftp) = &self.sftp {
            return Ok(Arc::clone(sftp));
        }
        let session = self.session.clone();
        let sftp = self.work("open sftp", until, || session.sftp())?.map_err(|error| {
            TransportError::Protocol {
                peer: self.peer.clone(),
                message: format!(
                    "sftp: {} (hint: does its SSH server have the sftp subsystem, and does the login shell print nothing when no terminal is there?)",
                    error.message()
                ),
            }
        })?;
        Ok(Arc::clone(self.sftp.insert(Arc::new(sftp))))
    }

    /// See [`crate::transport::Transport::run`].
    pub(super) fn run(&mut self, line: &str, deadline: Duration) -> Result<Finished, TransportError> {
        let action = "run a command";
        let until = Instant::now() + deadline;
        let session = self.session.clone();
        let mut channel = self.must(action, until, || session.channel_session())?;
        self.must(action, until, || channel.exec(line))?;
        let mut gathered = Gathered::default();
        self.drain(&mut channel, &mut gathered, deadline, until)?;
        self.must(action, until, || channel.close())?;
        self.must(action, until, || channel.wait_close())?;
        let signal = self.must(action, until, || channel.exit_signal())?;
        let code = self.must(action, until, || channel.exit_status())?;
        // A process that a signal ended has the exit status 0: only the signal tells.
        Ok(gathered.finished(signal.exit_signal.map_or(Exit::Code(code), Exit::Signal)))
    }

    /// Reads output and complaints together until both end: a full window of one would stop the other.
    fn drain(
        &self,
        channel: &mut Channel,
        gathered: &mut Gathered,
        deadline: Duration,
        until: Instant,
    ) -> Result<(), TransportError> {
        let action = "run a command";
        let mut chunk = vec![0; 1 << 16];
        loop {
            let output = self.read(channel, &mut chunk)?;
            gathered.output(&chunk[..output]);
            let complaint = self.read(&mut channel.stderr(), &mut chunk)?;
            gathered.complaint(&chunk[..complaint]);
            if output + complaint > 0 {
                continue;
            }
            if channel.eof() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(TransportError::Silent {
                    peer: self.peer.clone(),
                    action: action.into(),
                    after: deadline,
                });
            }
            self.look(until);
        }
    }

    /// What there is to read at this moment.
    fn read(&self, stream: &mut impl Read, chunk: &mut [u8]) -> Result<usize, TransportError> {
        match stream.read(chunk) {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(self.lost("run a command", &error.to_string())),
        }
    }

    /// Cuts the connection first, so that nothing waits for it while it is dropped.
    pub(super) fn abandon(self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Why an operation ended without a value.
enum Trouble {
    Engine(Error),
    Silent(Duration),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

/// Whether libssh2 speaks of the connection itself: socket errors, disconnection, a closed channel.
fn broken(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::Session(-43 | -13 | -7 | -9 | -30 | -4 | -12 | -45))
}

/// Connects to the first address that answers.
fn dial(settings: &SshSettings, until: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (settings.host.as_str(), settings.port).to_socket_addrs()? {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
        }
        match TcpStream::connect_timeout(&address, left.min(Duration::from_secs(10))) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                // A cable that was pulled is noticed by the kernel: libssh2's keepalive breaks reads.
                setsockopt(&stream, sockopt::KeepAlive, &true)?;
                setsockopt(&stream, sockopt::TcpKeepIdle, &5)?;
                setsockopt(&stream, sockopt::TcpKeepInterval, &5)?;
                setsockopt(&stream, sockopt::TcpKeepCount, &3)?;
                setsockopt(&stream, sockopt::TcpUserTimeout, &(DEAD_LINK.as_millis() as u32))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether a private key file is locked with a passphrase.
fn locked(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    if text.contains("ENCRYPTED") {
        return true;
    }
    // OpenSSH's own format names the cipher in the first bytes: `openssh-key-v1\0` and then `none`.
    text.contains("BEGIN OPENSSH PRIVATE KEY") && !text.contains("b3BlbnNzaC1rZXktdjEAAAAABG5vbmU")
}
