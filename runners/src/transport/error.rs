//! What can go wrong between this machine and a device.

use std::time::Duration;

use thiserror::Error;

/// Why a device couldn't be reached or didn't do what it was told. The messages complete "failed to …".
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportError {
    /// There is no connection to be had.
    #[error("connect to {peer}: {message} (hint: {hint})")]
    Connect {
        /// Device.
        peer: String,
        /// Cause.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The file of known hosts can't be used.
    #[error("read the known hosts {path}: {message}")]
    KnownHosts {
        /// File.
        path: String,
        /// Cause.
        message: String,
    },
    /// The host key isn't known; it is never trusted on first use.
    #[error(
        "trust {host}: its {kind} key {fingerprint} is not in {known_hosts} (hint: on the device itself, \
         `ssh-keygen -lf` on the .pub files in /etc/ssh shows its fingerprints; if one of them is this, \
         append the output of `ssh-keyscan -p {port} {address}` to that file, else somebody is in between)"
    )]
    UnknownHost {
        /// Host as the file would name it.
        host: String,
        /// Address.
        address: String,
        /// Port.
        port: u16,
        /// Type of the key.
        kind: String,
        /// SHA-256 of the key, in OpenSSH's form.
        fingerprint: String,
        /// File.
        known_hosts: String,
    },
    /// The host has another key than the one that is known.
    #[error(
        "trust {host}: its key CHANGED, it now shows {kind} {fingerprint}, which differs from line {line} of \
         {known_hosts}: either the device was set up anew or somebody is in between (hint: on the device \
         itself, `ssh-keygen -lf` on the .pub files in /etc/ssh shows its fingerprints; only if one of them \
         is this, replace that line)"
    )]
    ChangedHost {
        /// Host as the file names it.
        host: String,
        /// Type of the key.
        kind: String,
        /// SHA-256 of the key, in OpenSSH's form.
        fingerprint: String,
        /// Line of the key that was expected, from 1.
        line: usize,
        /// File.
        known_hosts: String,
    },
    /// The key is marked as one that must never be accepted.
    #[error(
        "trust {host}: its {kind} key {fingerprint} is revoked by line {line} of {known_hosts} (hint: do not \
         connect; ask whoever revoked it)"
    )]
    RevokedHost {
        /// Host.
        host: String,
        /// Type of the key.
        kind: String,
        /// SHA-256 of the key, in OpenSSH's form.
        fingerprint: String,
        /// Line that revokes it, from 1.
        line: usize,
        /// File.
        known_hosts: String,
    },
    /// The device doesn't let this user in.
    #[error("log in to {peer}: {message} (hint: {hint})")]
    LogIn {
        /// Device.
        peer: String,
        /// Cause.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The connection broke.
    #[error("{action} on {peer}: the connection was lost: {message}")]
    Lost {
        /// Device.
        peer: String,
        /// What was going on.
        action: String,
        /// Cause.
        message: String,
    },
    /// The device kept silent until the deadline.
    #[error(
        "{action} on {peer}: no answer within {:.1} s (hint: is the device frozen or overloaded?)",
        after.as_secs_f64()
    )]
    Silent {
        /// Device.
        peer: String,
        /// What was going on.
        action: String,
        /// How long was waited.
        after: Duration,
    },
    /// A file can't be written or read.
    #[error("{action} {path} on {peer}: {message}")]
    File {
        /// Device.
        peer: String,
        /// `write` or `read`.
        action: &'static str,
        /// File on the device.
        path: String,
        /// Cause.
        message: String,
    },
    /// Several devices are attached and none was named.
    #[error("choose a device of adb: {} are attached: {} (hint: name one, as in --adb {})", serials.len(), serials.join(", "), serials[0])]
    SeveralDevices {
        /// Their serials; at least two.
        serials: Vec<String>,
    },
    /// No device is attached.
    #[error("choose a device of adb: none is attached (hint: `adb devices` shows what the adb server sees)")]
    NoDevice,
    /// The other side speaks another language.
    #[error("understand {peer}: {message}")]
    Protocol {
        /// Device.
        peer: String,
        /// What came.
        message: String,
    },
    /// Words that a shell can't read.
    #[error("read the words `{text}`: {message}")]
    Words {
        /// Text.
        text: String,
        /// Cause.
        message: &'static str,
    },
}

impl TransportError {
    /// Whether the device may be there again after a new connection.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Lost { .. } | Self::Silent { .. })
    }
}
