//! The adb server's smart-socket protocol and the services behind it, byte by byte.
//!
//! A request is its length in four hexadecimal digits and its text; the answer is `OKAY`, or `FAIL` and
//! a message in the same form. The sync service and the shell service have packets of their own, with
//! lengths in four little-endian bytes. (AOSP, packages/modules/adb: OVERVIEW.TXT, SERVICES.TXT,
//! SYNC.TXT, `shell_protocol.h`.)

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::transport::TransportError;

/// Kinds of the shell service's packets.
pub(super) const STDOUT: u8 = 1;
/// See [`STDOUT`].
pub(super) const STDERR: u8 = 2;
/// See [`STDOUT`].
pub(super) const EXIT: u8 = 3;
/// Largest chunk of a file that the sync service takes.
const CHUNK: usize = 64 * 1024;
/// Largest packet that is believed.
const PACKET: usize = 1 << 24;

/// One connection to the adb server, with a deadline for all of it.
pub(super) struct Wire {
    stream: TcpStream,
    peer: String,
    action: String,
    since: Instant,
    until: Instant,
}

impl Wire {
    pub(super) fn connect(
        port: u16,
        peer: &str,
        action: &str,
        until: Instant,
    ) -> Result<Self, TransportError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let since = Instant::now();
        let left = until.saturating_duration_since(since).max(Duration::from_millis(1));
        let stream = TcpStream::connect_timeout(&address, left).map_err(|error| TransportError::Connect {
            peer: peer.to_owned(),
            message: format!("no adb server at {address}: {error}"),
            hint: "start it with `adb start-server`; ANDROID_ADB_SERVER_PORT says where it listens".into(),
        })?;
        // A service answers in small packets: none of them waits for another.
        let _ = stream.set_nodelay(true);
        Ok(Self { stream, peer: peer.to_owned(), action: action.to_owned(), since, until })
    }

    /// Asks for a service.
    pub(super) fn request(&mut self, text: &str) -> Result<(), TransportError> {
        self.write(format!("{:04x}{text}", text.len()).as_bytes())?;
        let mut status = [0; 4];
        self.read(&mut status)?;
        match &status {
            b"OKAY" => Ok(()),
            b"FAIL" => {
                let message = self.text()?;
                let hint = if message.contains("unauthorized") {
                    "unlock the device and allow this machine on its screen"
                } else {
                    "`adb devices` shows what the adb server sees"
                };
                Err(TransportError::Connect { peer: self.peer.clone(), message, hint: hint.into() })
            }
            other => Err(self.protocol(&format!("{other:?} in place of OKAY or FAIL"))),
        }
    }

    /// A text with its length before it.
    pub(super) fn text(&mut self) -> Result<String, TransportError> {
        let mut digits = [0; 4];
        self.read(&mut digits)?;
        let length = std::str::from_utf8(&digits).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let length = length.ok_or_else(|| self.protocol(&format!("{digits:?} in place of a length")))?;
        let mut bytes = vec![0; length];
        self.read(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A packet of the shell service: its kind and its bytes.
    pub(super) fn shell_packet(&mut self) -> Result<(u8, Vec<u8>), TransportError> {
        let mut kind = [0; 1];
        self.read(&mut kind)?;
        let bytes = self.counted()?;
        Ok((kind[0], bytes))
    }

    /// Sends a file that may be executed through the sync service; the inner error is the device's.
    pub(super) fn send_file(
        &mut self,
        content: &[u8],
        path: &str,
    ) -> Result<Result<(), String>, TransportError> {
        let target = format!("{path},{}", 0o100_755);
        let mut sent = self.write(&packet(*b"SEND", target.as_bytes()));
        for chunk in content.chunks(CHUNK) {
            if sent.is_err() {
                break;
            }
            sent = self.write(&packet(*b"DATA", chunk));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let done = [b"DONE".as_slice(), &(now as u32).to_le_bytes()].concat();
        let sent = sent.and_then(|()| self.write(&done));
        // A device that refuses in the middle stops reading: what it says is worth more than that.
        match (self.sync_status(), sent) {
            (Ok(status), _) => Ok(status),
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        }
    }

    fn sync_status(&mut self) -> Result<Result<(), String>, TransportError> {
        let mut kind = [0; 4];
        self.read(&mut kind)?;
        match &kind {
            b"OKAY" => Ok(Ok(())),
            b"FAIL" => Ok(Err(String::from_utf8_lossy(&self.counted()?).into_owned())),
            other => Err(self.protocol(&format!("{other:?} at the end of a file"))),
        }
    }

    /// Reads a file through the sync service, each chunk of it within `patience`; the inner error is the
    /// device's.
    pub(super) fn receive_file(
        &mut self,
        path: &str,
        limit: usize,
        patience: Duration,
    ) -> Result<Result<Vec<u8>, String>, TransportError> {
        self.write(&packet(*b"RECV", path.as_bytes()))?;
        let mut content = Vec::new();
        loop {
            let mut kind = [0; 4];
            (self.since, self.until) = (Instant::now(), Instant::now() + patience);
            self.read(&mut kind)?;
            match &kind {
                b"DATA" => content.extend(self.counted()?),
                b"DONE" => return Ok(Ok(content)),
                b"FAIL" => return Ok(Err(String::from_utf8_lossy(&self.counted()?).into_owned())),
                other => return Err(self.protocol(&format!("{other:?} in a file"))),
            }
            if content.len() > limit {
                return Ok(Err(format!("it is larger than {limit} bytes")));
            }
        }
    }

    /// Bytes with their number before them.
    fn counted(&mut self) -> Result<Vec<u8>, TransportError> {
        let mut count = [0; 4];
        self.read(&mut count)?;
        let count = u32::from_le_bytes(count) as usize;
        if count > PACKET {
            return Err(self.protocol(&format!("a packet of {count} bytes")));
        }
        let mut bytes = vec![0; count];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn read(&mut self, mut buffer: &mut [u8]) -> Result<(), TransportError> {
        while !buffer.is_empty() {
            let left = self.left()?;
            let result = self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(buffer));
            match result {
                Ok(0) => return Err(self.lost("it was closed")),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) => self.judge(&error)?,
            }
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), TransportError> {
        while !bytes.is_empty() {
            let left = self.left()?;
            let result = self.stream.set_write_timeout(Some(left)).and_then(|()| self.stream.write(bytes));
            match result {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => self.judge(&error)?,
            }
        }
        Ok(())
    }

    /// Whether to go on after an error of the socket.
    fn judge(&self, error: &io::Error) -> Result<(), TransportError> {
        match error.kind() {
            // The next look at the clock tells whether the deadline has passed.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(()),
            _ => Err(self.lost(&error.to_string())),
        }
    }

    fn left(&self) -> Result<Duration, TransportError> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(TransportError::Silent {
                peer: self.peer.clone(),
                action: self.action.clone(),
                after: self.since.elapsed(),
            });
        }
        Ok(left)
    }

    fn lost(&self, message: &str) -> TransportError {
        TransportError::Lost {
            peer: self.peer.clone(),
            action: self.action.clone(),
            message: message.to_owned(),
        }
    }

    fn protocol(&self, message: &str) -> TransportError {
        TransportError::Protocol {
            peer: self.peer.clone(),
            message: format!("{message} (hint: is it an adb server that listens there?)"),
        }
    }
}

/// A packet of the sync service.
fn packet(kind: [u8; 4], bytes: &[u8]) -> Vec<u8> {
    [kind.as_slice(), &(bytes.len() as u32).to_le_bytes(), bytes].concat()
}
