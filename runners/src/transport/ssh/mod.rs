//! A device behind SSH: libssh2, one session per device, every wait with a deadline of its own.

mod connection;
mod files;
mod known_hosts;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use connection::Connection;

use super::{Finished, Transport, TransportError};

/// How long connecting, the handshake and the log-in may take together.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
/// How long a file may take beside its bytes.
const FILE_DEADLINE: Duration = Duration::from_secs(30);
/// The slowest link that a file is sent over: 64 KiB a second.
const SLOWEST_BYTES_A_SECOND: u64 = 1 << 16;

/// What proves who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshIdentity {
    /// A private key file without a passphrase, ed25519, ECDSA or RSA.
    File(PathBuf),
    /// Whatever keys the running ssh-agent holds.
    Agent,
}

/// How a device is reached by SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshSettings {
    /// User on the device.
    pub user: String,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Key.
    pub identity: SshIdentity,
    /// File of known hosts, in OpenSSH's form. A host that isn't in it is refused.
    pub known_hosts: PathBuf,
}

/// Files by sftp, commands by exec. The session lives as long as the connection does and is used by one
/// thread at a time.
#[derive(Debug)]
pub struct SshTransport {
    settings: SshSettings,
    connection: Option<Connection>,
}

impl SshTransport {
    /// Connects with the first call.
    pub fn new(settings: SshSettings) -> Self {
        Self { settings, connection: None }
    }

    /// Does something on the connection, which is made if there is none and dropped if it broke.
    fn on<T>(
        &mut self,
        action: impl FnOnce(&mut Connection) -> Result<T, TransportError>,
    ) -> Result<T, TransportError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.settings, Instant::now() + CONNECT_DEADLINE)?,
        };
        match action(&mut connection) {
            Err(error) if error.is_lost() => {
                connection.abandon();
                Err(error)
            }
            other => {
                self.connection = Some(connection);
                other
            }
        }
    }
}

/// The time for a file of this size.
fn file_deadline(bytes: usize) -> Duration {
    FILE_DEADLINE + Duration::from_secs(bytes as u64 / SLOWEST_BYTES_A_SECOND)
}

impl Transport for SshTransport {
    fn peer(&self) -> String {
        let SshSettings { user, host, port, .. } = &self.settings;
        format!("{user}@{host}:{port}")
    }

    fn probe(&mut self) -> Result<(), TransportError> {
        self.run("exit 0", CONNECT_DEADLINE).map(|_| ())
    }

    fn put(&mut self, content: &[u8], path: &str) -> Result<(), TransportError> {
        self.on(|connection| connection.put(content, path, file_deadline(content.len())))
    }

    fn get(&mut self, path: &str, limit: usize) -> Result<Vec<u8>, TransportError> {
        self.on(|connection| connection.get(path, limit))
    }

    fn run(&mut self, line: &str, deadline: Duration) -> Result<Finished, TransportError> {
        self.on(|connection| connection.run(line, deadline))
    }
}
