//! Shares of work that is done on several machines.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One of several shares of a list: of `count` shares, the one with the number `index` (from 0) holds the items `index`,
/// `index + count`, `index + 2 * count` and so on. Written `INDEX/COUNT`, such as `0/4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stripe {
    index: usize,
    count: usize,
}

impl Stripe {
    /// The share `index`, 0 to `count - 1`, of `count`; an error if there is no such share.
    pub fn new(index: usize, count: usize) -> Result<Self> {
        if index < count {
            return Ok(Stripe { index, count });
        }
        let last = count.saturating_sub(1);
        Err(Error::recipe(format!("expected a share of {count} with a number from 0 to {last}, got {index}/{count}"))
            .hint("shares are counted from 0: 0/2 and 1/2 are both halves"))
    }

    /// Its number, from 0.
    pub fn index(self) -> usize {
        self.index
    }

    /// The number of shares.
    pub fn count(self) -> usize {
        self.count
    }

    /// Whether the item at `position` (from 0) belongs to it.
    pub fn contains(self, position: usize) -> bool {
        position % self.count == self.index
    }

    /// The number of items that it holds of a list of `length`.
    pub fn holds(self, length: usize) -> usize {
        length.saturating_sub(self.index).div_ceil(self.count)
    }
}

impl FromStr for Stripe {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once('/').and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
        let (index, count) = parsed.ok_or_else(|| {
            Error::recipe(format!("expected INDEX/COUNT, such as 0/4 for the first of four shares, got `{text}`"))
        })?;
        Stripe::new(index, count)
    }
}

impl TryFrom<String> for Stripe {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Stripe> for String {
    fn from(stripe: Stripe) -> Self {
        stripe.to_string()
    }
}

impl fmt::Display for Stripe {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_hold_every_item_once() {
        for count in 1..6 {
            let shares: Vec<Stripe> = (0..count).map(|index| Stripe::new(index, count).unwrap()).collect();
            assert!((0..20).all(|item| shares.iter().filter(|s| s.contains(item)).count() == 1));
        }
        let share: Stripe = " 1 / 3".parse().unwrap();
        assert_eq!((share.index(), share.count(), share.to_string()), (1, 3, "1/3".to_string()));
        assert!(!share.contains(0) && share.contains(1) && share.contains(4));
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for text in ["", "3", "1/2/3", "-1/2", "a/b", "0/0", "2/2", "1.5/2"] {
            assert!(text.parse::<Stripe>().is_err(), "{text}");
        }
        let error = "4/4".parse::<Stripe>().unwrap_err();
        assert!(error.message().contains("0 to 3") && error.advice().is_some(), "{error}");
    }
}
