//! Sizes in bytes with units.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Units, the largest first.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A size in bytes: `4GiB`, `1.5 GB`, `800 MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let bad = || Error::recipe(format!("expected a size such as 4GiB or 800MiB, got `{text}`"));
        let ends_with = |unit: &&(&str, u64)| {
            let rest = text.len().checked_sub(unit.0.len()).filter(|&at| text.is_char_boundary(at));
            rest.is_some_and(|at| text[at..].eq_ignore_ascii_case(unit.0))
        };
        let &(unit, bytes) = UNITS.iter().find(ends_with).ok_or_else(bad)?;
        let number: f64 = text[..text.len() - unit.len()].trim_end().parse().map_err(|_| bad())?;
        let size = number * bytes as f64;
        if !(size >= 1.0 && size < u64::MAX as f64) {
            return Err(bad());
        }
        Ok(ByteSize(size as u64))
    }
}

impl TryFrom<String> for ByteSize {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, bytes)| self.0.is_multiple_of(*bytes) && self.0 > 0);
        let (unit, bytes) = whole.copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        let size = |text: &str| text.parse::<ByteSize>().map(|s| s.0);
        assert_eq!(size("4GiB").unwrap(), 4 << 30);
        assert_eq!(size(" 1.5 gb ").unwrap(), 1_500_000_000);
        assert_eq!(size("800MiB").unwrap(), 800 << 20);
        assert_eq!(size("12B").unwrap(), 12);
        for bad in ["", "GiB", "4", "4 G", "-1GiB", "nanB", "1e99TiB", "0.1B", "4GiBB", "é"] {
            let error = size(bad).unwrap_err().to_string();
            assert!(error.starts_with("expected a size such as 4GiB"), "{bad}: {error}");
        }
        for text in ["4GiB", "3MB", "1025B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
    }
}
