//! Android devices, through the adb server that runs on this machine.

mod wire;

use std::{
    env,
    time::{Duration, Instant},
};

use wire::Wire;

use super::{Exit, Finished, Gathered, Transport, TransportError, quote};

/// How long a service of the adb server may take to answer.
const SERVICE_DEADLINE: Duration = Duration::from_secs(20);
/// How long a file may take beside its bytes.
const FILE_DEADLINE: Duration = Duration::from_secs(30);
/// The slowest link that a file is sent over: 256 KiB a second.
const SLOWEST_BYTES_A_SECOND: u64 = 1 << 18;

/// How a device is reached by adb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdbSettings {
    /// Serial of the device, as `adb devices` prints it.
    pub serial: String,
    /// Port of the adb server on this machine.
    pub server_port: u16,
}

impl AdbSettings {
    /// The adb server's port: `$ANDROID_ADB_SERVER_PORT`, or 5037.
    pub fn default_port() -> u16 {
        env::var("ANDROID_ADB_SERVER_PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(5037)
    }
}

/// A client of the adb server's smart-socket protocol: each call is a connection of its own to the
/// server, which keeps the one to the device.
#[derive(Debug)]
pub struct AdbTransport {
    settings: AdbSettings,
}

impl AdbTransport {
    /// Talks to the server with the first call.
    pub fn new(settings: AdbSettings) -> Self {
        Self { settings }
    }

    /// A connection to a service on the device.
    fn service(&self, service: &str, action: &str, until: Instant) -> Result<Wire, TransportError> {
        let mut wire = Wire::connect(self.settings.server_port, &self.peer(), action, until)?;
        wire.request(&format!("host:transport:{}", self.settings.serial))?;
        wire.request(service)?;
        Ok(wire)
    }
}

/// Serials of the devices that the adb server sees, with their states (`device`, `offline`,
/// `unauthorized`, …).
pub fn adb_devices(server_port: u16) -> Result<Vec<(String, String)>, TransportError> {
    let until = Instant::now() + SERVICE_DEADLINE;
    let mut wire = Wire::connect(server_port, "the adb server", "list devices", until)?;
    wire.request("host:devices")?;
    let text = wire.text()?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(serial, state)| (serial.trim().to_owned(), state.trim().to_owned()))
        .collect())
}

/// The time for a file of this size.
fn file_deadline(bytes: usize) -> Duration {
    FILE_DEADLINE + Duration::from_secs(bytes as u64 / SLOWEST_BYTES_A_SECOND)
}

impl Transport for AdbTransport {
    fn peer(&self) -> String {
        format!("adb device {}", self.settings.serial)
    }

    fn probe(&mut self) -> Result<(), TransportError> {
        self.run("exit 0", SERVICE_DEADLINE).map(|_| ())
    }

    fn put(&mut self, content: &[u8], path: &str) -> Result<(), TransportError> {
        let peer = self.peer();
        let refused = |message: String| TransportError::File {
            peer: peer.clone(),
            action: "write",
            path: path.to_owned(),
            message,
        };
        let part = format!("{path}.part");
        let mut wire =
            self.service("sync:", "write a file", Instant::now() + file_deadline(content.len()))?;
        let sent = wire.send_file(content, &part)?;
        drop(wire);
        if let Err(message) = sent {
            self.run(&format!("rm -f {}", quote(&part)), SERVICE_DEADLINE)?;
            return Err(refused(message));
        }
        let line = format!("mv -f {} {}", quote(&part), quote(path));
        let moved = self.run(&line, SERVICE_DEADLINE)?;
        if moved.exit == Exit::Code(0) {
            return Ok(());
        }
        Err(refused(String::from_utf8_lossy(&moved.stderr).trim().to_owned()))
    }

    fn get(&mut self, path: &str, limit: usize) -> Result<Vec<u8>, TransportError> {
        let mut wire = self.service("sync:", "read a file", Instant::now() + FILE_DEADLINE)?;
        wire.receive_file(path, limit, FILE_DEADLINE)?.map_err(|message| TransportError::File {
            peer: self.peer(),
            action: "read",
            path: path.to_owned(),
            message,
        })
    }

    /// The older form of adb's shell loses exit codes and mixes complaints into the output; this is the
    /// second version, which every device since Android 7 has.
    fn run(&mut self, line: &str, deadline: Duration) -> Result<Finished, TransportError> {
        let until = Instant::now() + deadline;
        let mut wire = self.service(&format!("shell,v2,raw:{line}"), "run a command", until)?;
        let mut gathered = Gathered::default();
        loop {
            let (kind, bytes) = wire.shell_packet()?;
            match kind {
                wire::STDOUT => gathered.output(&bytes),
                wire::STDERR => gathered.complaint(&bytes),
                // One byte: a process that signal N killed gives 128 + N, as a shell does.
                wire::EXIT => {
                    let code = bytes.first().copied().map_or(-1, i32::from);
                    return Ok(gathered.finished(Exit::Code(code)));
                }
                _ => {}
            }
        }
    }
}
