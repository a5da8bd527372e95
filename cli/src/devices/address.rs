//! `user@host:port`.

use std::{fmt, str::FromStr};

/// Where an SSH server is, and as whom to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAddress {
    /// User on the device.
    pub user: String,
    /// Name or address, without brackets.
    pub host: String,
    /// Port; 22 if absent.
    pub port: u16,
}

impl FromStr for SshAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("expected user@host or user@host:port, got `{text}`: {what}");
        let (user, place) = text.rsplit_once('@').ok_or_else(|| wrong("there is no user"))?;
        let (host, port) = if let Some(rest) = place.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or_else(|| wrong("a bracket is not closed"))?;
            match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if port.is_empty() => (host, None),
                None => return Err(wrong("after the bracket a colon is expected")),
            }
        } else {
            match place.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err(wrong("an IPv6 address stands in brackets, as in user@[::1]:22"));
                }
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            }
        };
        let port = match port {
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err(wrong("the port is not a number from 1 to 65535")),
                Ok(port) => port,
            },
            None => 22,
        };
        let word = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
        if !word(user) || !word(host) {
            return Err(wrong("user or host is empty or has blanks"));
        }
        Ok(Self { user: user.to_owned(), host: host.to_owned(), port })
    }
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, host, port } = self;
        if host.contains(':') {
            write!(f, "{user}@[{host}]:{port}")
        } else {
            write!(f, "{user}@{host}:{port}")
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, written) in [
            ("pi@raspberry", "pi@raspberry:22"),
            ("pi@10.0.0.2:2222", "pi@10.0.0.2:2222"),
            ("me@[::1]:22022", "me@[::1]:22022"),
            ("me@corp@host", "me@corp@host:22"),
        ] {
            assert_eq!(text.parse::<SshAddress>().unwrap().to_string(), written);
        }
        for (text, what) in [
            ("host", "no user"),
            ("a@host:99999", "1 to 65535"),
            ("a@::1", "brackets"),
            ("a@[::1", "not closed"),
            ("@host", "empty"),
            ("a@host:", "1 to 65535"),
        ] {
            let error = text.parse::<SshAddress>().unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }
}
