//! Who holds a device's lease.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::unistd::{User, gethostname, getpid, getuid};
use sha2::{Digest, Sha256};

use crate::hexadecimal::hexadecimal;

/// This process as the owner of a lease: the text that others read in the lease, so that they can say
/// who it is, and tell whether it still runs if it ran on their machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// `user@host`.
    name: String,
    /// Process number.
    pid: i32,
    /// When that process began, in clock ticks since the boot: numbers are given again.
    began: String,
    /// The boot, and the space of process numbers in it.
    machine: String,
}

impl Owner {
    /// This process.
    pub(super) fn this() -> Self {
        let user =
            User::from_uid(getuid()).ok().flatten().map_or_else(|| "somebody".into(), |user| user.name);
        let host =
            gethostname().map_or_else(|_| "somewhere".into(), |name| name.to_string_lossy().into_owned());
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let pid = getpid().as_raw();
        Self {
            name: format!("{user}@{host}").replace(char::is_whitespace, "_"),
            pid,
            began: began(pid).unwrap_or_default(),
            machine: format!("{}/{}", boot.trim(), space.display()),
        }
    }

    /// One line of four words.
    pub(super) fn text(&self) -> String {
        format!("{} {} {} {}", self.name, self.pid, self.began, self.machine)
    }

    /// Reads what [`Self::text`] wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [name, pid, began, machine] = words[..] else { return None };
        Some(Self { name: name.into(), pid: pid.parse().ok()?, began: began.into(), machine: machine.into() })
    }

    /// Whether it was a process of this machine and has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.machine == Self::this().machine
            && Path::new("/proc/self").exists()
            && began(self.pid).is_none_or(|began| began != self.began)
    }

    /// For people.
    pub(super) fn describe(text: &str) -> String {
        Self::parse(text)
            .map_or_else(|| format!("`{text}`"), |owner| format!("{} (process {})", owner.name, owner.pid))
    }
}

/// When a process began (field 22 of `/proc/PID/stat`); nothing if there is none.
fn began(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// A name that no other session has: it marks leases and jobs, and decides nothing that is measured.
pub(super) fn token() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let text = format!("{} {} {count}", Owner::this().text(), jiff::Timestamp::now().as_nanosecond());
    hexadecimal(&Sha256::digest(text.as_bytes())[..8])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_live_owner_is_not_gone_and_one_that_ended_is() {
        let this = Owner::this();
        assert_eq!(Owner::parse(&this.text()).unwrap(), this);
        assert!(!this.is_gone());
        let ended = Owner { began: "1".into(), ..this.clone() };
        assert!(ended.is_gone(), "its number was given to another process");
        let elsewhere = Owner { machine: "another/boot".into(), ..ended };
        assert!(!elsewhere.is_gone(), "nobody here can know");
        assert_eq!(Owner::parse("garbage"), None);
        assert_ne!(token(), token());
    }
}
