//! Whether a host's key is the one that was written down. Nothing is ever trusted on first use.

use std::{fs, path::Path};

use ssh2::{CheckResult, HashType, HostKeyType, KnownHostFileKind, Session};

use crate::transport::{TransportError, ssh::SshSettings};

/// A line of the file that speaks of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// Number, from 1.
    number: usize,
    /// Marked `@revoked`.
    revoked: bool,
    /// Type of the key, as `ssh-ed25519`.
    kind: String,
    /// The line without its marker.
    text: String,
}

/// The lines of a file of known hosts that speak of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownLines {
    path: String,
    lines: Vec<Line>,
}

impl KnownLines {
    /// Reads the file and keeps what speaks of this host and port. Certificate authorities and patterns
    /// with `*` or `?` aren't understood: such lines speak of no host.
    pub(super) fn read(
        path: &Path,
        host: &str,
        port: u16,
        session: &Session,
    ) -> Result<Self, TransportError> {
        let fault =
            |message: String| TransportError::KnownHosts { path: path.display().to_string(), message };
        let text = fs::read_to_string(path).map_err(|error| {
            fault(format!("{error} (hint: `ssh-keyscan -p {port} {host}` prints its lines; compare the fingerprints with those on the device before you keep them)"))
        })?;
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let line = line.trim();
            let (revoked, entry) = match line.strip_prefix("@revoked") {
                Some(rest) => (true, rest.trim_start()),
                None => (false, line),
            };
            if entry.is_empty() || entry.starts_with(['#', '@']) {
                continue;
            }
            let words: Vec<&str> = entry.split_whitespace().collect();
            let [_, kind, _, ..] = words[..] else {
                return Err(fault(format!(
                    "line {number}: expected host, type and key, got {} words",
                    words.len()
                )));
            };
            let mut known = session.known_hosts().map_err(|error| fault(error.message().to_owned()))?;
            known
                .read_str(entry, KnownHostFileKind::OpenSSH)
                .map_err(|error| fault(format!("line {number}: {}", error.message())))?;
            // No key is this one: a line of this host, hashed or not, is a mismatch.
            if matches!(known.check_port(host, port, b"none"), CheckResult::Mismatch | CheckResult::Match) {
                lines.push(Line { number, revoked, kind: kind.to_owned(), text: entry.to_owned() });
            }
        }
        Ok(Self { path: path.display().to_string(), lines })
    }

    /// The methods to ask the host for, so that it shows a key of a type that is known; none if the host
    /// isn't known at all.
    pub(super) fn methods(&self) -> Option<String> {
        let mut methods: Vec<&str> = Vec::new();
        for line in self.lines.iter().filter(|line| !line.revoked) {
            let of_line: &[&str] = match line.kind.as_str() {
                "ssh-rsa" => &["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"],
                other => &[other],
            };
            methods.extend(of_line.iter().filter(|method| !methods.contains(method)).collect::<Vec<_>>());
        }
        (!methods.is_empty()).then(|| methods.join(","))
    }

    /// Judges the key that the host showed in the handshake.
    pub(super) fn check(&self, session: &Session, settings: &SshSettings) -> Result<(), TransportError> {
        let SshSettings { host: address, port, .. } = settings;
        let host = if *port == 22 { address.clone() } else { format!("[{address}]:{port}") };
        let known_hosts = self.path.clone();
        let Some((key, kind)) = session.host_key() else {
            return Err(TransportError::Protocol { peer: host, message: "it showed no host key".into() });
        };
        let kind = kind_name(kind).to_owned();
        let fingerprint = session
            .host_key_hash(HashType::Sha256)
            .map_or_else(|| "unknown".to_owned(), |hash| format!("SHA256:{}", base64(hash)));
        for revoked in [true, false] {
            for line in self.lines.iter().filter(|line| line.revoked == revoked) {
                let equal = session.known_hosts().is_ok_and(|mut known| {
                    known.read_str(&line.text, KnownHostFileKind::OpenSSH).is_ok()
                        && matches!(known.check_port(address, *port, key), CheckResult::Match)
                });
                if equal && revoked {
                    let line = line.number;
                    return Err(TransportError::RevokedHost { host, kind, fingerprint, line, known_hosts });
                }
                if equal {
                    return Ok(());
                }
            }
        }
        let wanted = self.lines.iter().filter(|line| !line.revoked);
        Err(match wanted.clone().find(|line| line.kind == kind).or_else(|| wanted.clone().next()) {
            Some(line) => {
                TransportError::ChangedHost { host, kind, fingerprint, line: line.number, known_hosts }
            }
            None => TransportError::UnknownHost {
                host,
                address: address.clone(),
                port: *port,
                kind,
                fingerprint,
                known_hosts,
            },
        })
    }
}

fn kind_name(kind: HostKeyType) -> &'static str {
    match kind {
        HostKeyType::Rsa => "ssh-rsa",
        HostKeyType::Dss => "ssh-dss",
        HostKeyType::Ecdsa256 => "ecdsa-sha2-nistp256",
        HostKeyType::Ecdsa384 => "ecdsa-sha2-nistp384",
        HostKeyType::Ecdsa521 => "ecdsa-sha2-nistp521",
        HostKeyType::Ed25519 => "ssh-ed25519",
        HostKeyType::Unknown => "unknown",
    }
}

/// Base64 without padding, as OpenSSH prints fingerprints.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0, |word, &byte| word << 8 | usize::from(byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[word >> (18 - 6 * digit) & 63]));
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA8gM3oQ3jE5rVk0m1PzW6dCq7YyZr1nB0fX2sK4tLhu";

    fn lines(text: &str, host: &str, port: u16) -> Result<KnownLines, TransportError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known_hosts");
        fs::write(&path, text).unwrap();
        KnownLines::read(&path, host, port, &Session::new().unwrap())
    }

    #[test]
    fn the_fingerprint_alphabet_is_base64s() {
        assert_eq!(base64(b"Man"), "TWFu");
        assert_eq!(base64(b"Ma"), "TWE");
        assert_eq!(base64(b"M"), "TQ");
        assert_eq!(base64(&[0xff, 0xfe, 0xfd, 0xfc]), "//79/A");
    }

    #[test]
    fn only_lines_of_the_host_and_port_decide_which_types_are_asked_for() {
        let text = format!("# comment\n\n[pi]:2222 {KEY}\nother ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQ==\n");
        assert_eq!(lines(&text, "pi", 2222).unwrap().methods().as_deref(), Some("ssh-ed25519"));
        assert_eq!(lines(&text, "pi", 22).unwrap().methods(), None);
        let rsa = lines(&text, "other", 22).unwrap();
        assert_eq!(rsa.methods().as_deref(), Some("rsa-sha2-512,rsa-sha2-256,ssh-rsa"));
        assert_eq!(lines(&format!("@revoked pi {KEY}\n"), "pi", 22).unwrap().methods(), None);
        assert_eq!(lines(&format!("@cert-authority pi {KEY}\n"), "pi", 22).unwrap().methods(), None);
    }

    #[test]
    fn a_file_that_is_absent_or_broken_says_where_and_what_to_do() {
        let session = Session::new().unwrap();
        let error = KnownLines::read(Path::new("/nonexistent/hosts"), "pi", 22, &session).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/nonexistent/hosts") && text.contains("ssh-keyscan -p 22 pi"), "{text}");
        let text = lines("# fine\npi ssh-ed25519\n", "pi", 22).unwrap_err().to_string();
        assert!(text.contains("line 2") && text.contains("got 2 words"), "{text}");
    }
}
