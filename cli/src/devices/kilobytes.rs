//! An amount of memory as people write it.

use std::{fmt, str::FromStr};

/// Kilobytes of 1024 bytes; written with `K`, `M` or `G` behind a number, as in `200M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kilobytes(pub u64);

/// Factors to kilobytes.
const UNITS: [(char, u64); 3] = [('G', 1 << 20), ('M', 1 << 10), ('K', 1)];

impl FromStr for Kilobytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected a number with K, M or G behind it, as in 200M, got `{text}`");
        let (unit, factor) =
            UNITS.into_iter().find(|(unit, _)| text.ends_with(*unit)).ok_or_else(expected)?;
        let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| expected())?;
        let kilobytes = number.checked_mul(factor).filter(|&kilobytes| kilobytes > 0).ok_or_else(expected)?;
        Ok(Self(kilobytes))
    }
}

impl fmt::Display for Kilobytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .into_iter()
            .find(|(_, factor)| self.0.is_multiple_of(*factor))
            .unwrap_or(UNITS[UNITS.len() - 1]);
        write!(f, "{}{unit}", self.0 / factor)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_they_are_written() {
        for (text, kilobytes) in [("200M", 204_800), ("1G", 1 << 20), ("1536K", 1536)] {
            assert_eq!(text.parse::<Kilobytes>().unwrap(), Kilobytes(kilobytes));
            assert_eq!(Kilobytes(kilobytes).to_string(), text);
        }
        for text in ["200", "M", "0M", "-1M", "1.5G", "99999999999999999999G", "20000000000000000G"] {
            assert!(text.parse::<Kilobytes>().unwrap_err().contains("200M"), "{text}");
        }
    }
}
