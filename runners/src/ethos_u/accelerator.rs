//! The members of the family.

use std::{fmt, str::FromStr};

/// What the compiler knows, by its own names: family and multiply-accumulates per cycle.
const NAMES: [&str; 11] = [
    "ethos-u55-32",
    "ethos-u55-64",
    "ethos-u55-128",
    "ethos-u55-256",
    "ethos-u65-256",
    "ethos-u65-512",
    "ethos-u85-128",
    "ethos-u85-256",
    "ethos-u85-512",
    "ethos-u85-1024",
    "ethos-u85-2048",
];

/// One of the Ethos-U55, U65 and U85 (`u65-512`, or as the compiler calls it `ethos-u65-512`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Accelerator(&'static str);

impl Accelerator {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(Self)
    }

    /// The compiler's name for it.
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// Multiply-accumulates per cycle.
    pub fn macs_per_cycle(self) -> u64 {
        self.0.rsplit('-').next().and_then(|macs| macs.parse().ok()).unwrap_or_default()
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ethos-U{}", &self.0["ethos-u".len()..])
    }
}

impl FromStr for Accelerator {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_lowercase();
        let found =
            NAMES.into_iter().find(|name| *name == lower || name.strip_prefix("ethos-") == Some(&lower));
        found.map(Self).ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().filter_map(|name| name.strip_prefix("ethos-")).collect();
            format!("expected one of {}, got `{text}`", known.join(", "))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn both_names_are_understood_and_others_are_not() {
        let accelerator: Accelerator = "u65-512".parse().unwrap();
        assert_eq!(accelerator, "Ethos-U65-512".parse().unwrap());
        assert_eq!((accelerator.name(), accelerator.macs_per_cycle()), ("ethos-u65-512", 512));
        assert_eq!(accelerator.to_string(), "Ethos-U65-512");
        assert!("u65-1024".parse::<Accelerator>().unwrap_err().contains("u85-1024"));
        assert!(Accelerator::all().all(|one| one.macs_per_cycle() >= 32));
    }
}
