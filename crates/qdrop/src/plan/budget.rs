//! Targets for which bits are chosen: a size of the weights, or a number of bit operations.

use super::ByteSize;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Suffixes of counts.
const SUFFIXES: [(&str, f64); 5] = [("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12), ("P", 1e15)];

/// Maximum size of all weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SizeTarget {
    /// A number of bytes: `128KiB`.
    Bytes(ByteSize),
    /// The size that the weights have with this number as `weights.bits`: `w3`, `w2.5`.
    Bits(f64),
}

/// Maximum number of bit operations of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BitopsTarget {
    /// A number: `1.2G`.
    Count(u64),
    /// The number with these values as `weights.bits` and `activations.bits`: `w4a4`.
    Bits(f64, f64),
}

/// A number of bits, 1 to 32.
fn bits(text: &str) -> Option<f64> {
    // `inf` and `nan` are numbers too, and no bits.
    text.parse().ok().filter(|b| (1.0..=32.0).contains(b))
}

impl FromStr for SizeTarget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let uniform = text.trim().strip_prefix(['w', 'W']).and_then(bits);
        match uniform {
            Some(bits) => Ok(SizeTarget::Bits(bits)),
            None => text.parse().map(SizeTarget::Bytes).map_err(|_: Error| {
                Error::recipe(format!(
                    "expected a size such as 128KiB, or w3 for the size with 3-bit weights, got `{text}`"
                ))
            }),
        }
    }
}

impl FromStr for BitopsTarget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let trimmed = text.trim();
        let uniform = || {
            let (w, a) = trimmed.strip_prefix(['w', 'W'])?.split_once(['a', 'A'])?;
            Some(BitopsTarget::Bits(bits(w)?, bits(a)?))
        };
        let count = || {
            let suffix = SUFFIXES.iter().find(|(s, _)| trimmed.ends_with(s));
            let (number, factor) = suffix.map_or((trimmed, 1.0), |(s, f)| (trimmed.trim_end_matches(s), *f));
            let count = number.trim_end().parse::<f64>().ok()? * factor;
            (1.0..1e18).contains(&count).then_some(BitopsTarget::Count(count as u64))
        };
        uniform().or_else(count).ok_or_else(|| {
            Error::recipe(format!(
                "expected a count such as 1.2G, or w4a4 for the count with uniform bits, got `{text}`"
            ))
        })
    }
}

impl fmt::Display for SizeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SizeTarget::Bytes(size) => size.fmt(f),
            SizeTarget::Bits(bits) => write!(f, "w{bits}"),
        }
    }
}

impl fmt::Display for BitopsTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BitopsTarget::Count(count) => count.fmt(f),
            BitopsTarget::Bits(w, a) => write!(f, "w{w}a{a}"),
        }
    }
}

impl TryFrom<String> for SizeTarget {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl TryFrom<String> for BitopsTarget {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SizeTarget> for String {
    fn from(target: SizeTarget) -> Self {
        target.to_string()
    }
}

impl From<BitopsTarget> for String {
    fn from(target: BitopsTarget) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        let size = |text: &str| text.parse::<SizeTarget>();
        assert_eq!(size("128KiB").unwrap(), SizeTarget::Bytes(ByteSize(128 << 10)));
        assert_eq!(size("w3").unwrap(), SizeTarget::Bits(3.0));
        assert_eq!(size(" W2.5").unwrap(), SizeTarget::Bits(2.5));
        for bad in ["", "3", "w", "w0", "w99", "winf", "w3a3", "128"] {
            assert!(size(bad).unwrap_err().message().starts_with("expected a size such as 128KiB, or w3"), "{bad}");
        }
        let bitops = |text: &str| text.parse::<BitopsTarget>();
        assert_eq!(bitops("w4a2.5").unwrap(), BitopsTarget::Bits(4.0, 2.5));
        assert_eq!(bitops("1.5G").unwrap(), BitopsTarget::Count(1_500_000_000));
        assert_eq!(bitops("2e9").unwrap(), BitopsTarget::Count(2_000_000_000));
        for bad in ["", "w4", "a4", "w4a", "w4a0", "-1G", "0", "1e30", "1GB", "nan"] {
            assert!(bitops(bad).unwrap_err().message().starts_with("expected a count such as 1.2G"), "{bad}");
        }
        for text in ["128KiB", "w3", "w2.5"] {
            assert_eq!(String::from(size(text).unwrap()), text);
        }
        for text in ["w4a4", "1200000000"] {
            assert_eq!(String::from(bitops(text).unwrap()), text);
        }
    }
}
