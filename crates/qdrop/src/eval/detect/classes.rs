//! Which category of a set a network means by a class.

use super::Detector;
use crate::error::{Error, Result};

/// From the classes of a network to the categories of a set.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbering {
    /// Numbers of the categories, sorted.
    categories: Vec<i64>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Class 0 is the category with the smallest number, and so on.
    Ordered,
    /// The same, behind a class 0 that stands for nothing.
    Behind,
    /// Classes are numbers of categories.
    Numbers,
}

impl Numbering {
    /// How the classes of `detector` name `categories` (their numbers): in the order of the numbers where there are as many
    /// of both, else by the numbers themselves where all of them are classes (COCO's 80 categories have numbers up to 90, so
    /// a network with 91 classes names them directly), else in order behind a class for nothing.
    pub fn new(detector: &Detector, categories: impl IntoIterator<Item = i64>) -> Result<Self> {
        let mut categories: Vec<i64> = categories.into_iter().collect();
        categories.sort_unstable();
        let all = categories.len();
        let largest = categories.last().copied().unwrap_or_default();
        let negative = categories.first().is_some_and(|&c| c < 0);
        let kind = match detector.classes() {
            None if detector.names_categories() => Kind::Numbers,
            None => Kind::Ordered,
            Some(classes) if classes == all => Kind::Ordered,
            Some(classes) if !negative && (classes as u64) > largest as u64 => Kind::Numbers,
            Some(classes) if classes == all + 1 => Kind::Behind,
            Some(classes) => {
                let message = format!(
                    "the network tells {classes} classes apart, the set has {all} categories with numbers up to {largest}"
                );
                let hint = "give a set with the categories that the network was trained for; if the network has as many \
                            classes, its outputs were taken for those of another family";
                return Err(Error::data(message).hint(hint));
            }
        };
        Ok(Numbering { categories, kind })
    }

    /// The category that the network means by `class`; `None` for one that the set does not have.
    pub fn category(&self, class: usize) -> Option<i64> {
        match self.kind {
            Kind::Ordered => self.categories.get(class).copied(),
            Kind::Behind => self.categories.get(class.checked_sub(1)?).copied(),
            Kind::Numbers => {
                let number = i64::try_from(class).ok()?;
                self.categories.binary_search(&number).is_ok().then_some(number)
            }
        }
    }
}
