//! Samples that several passes read and that are decoded once.

use super::{Samples, forward_labels};
use crate::error::Result;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// A sample set some of whose samples stay in memory from the first time that they are asked for. What lies behind it
/// decodes these once, however many passes read them.
pub(crate) struct Remembered<'a> {
    samples: &'a dyn Samples,
    /// By index, those that stay.
    kept: BTreeMap<usize, OnceLock<Vec<Tensor>>>,
}

impl<'a> Remembered<'a> {
    /// Keeps those of `samples` with the indices `wanted`.
    pub fn new(samples: &'a dyn Samples, wanted: impl IntoIterator<Item = usize>) -> Self {
        let kept = wanted.into_iter().map(|index| (index, OnceLock::new())).collect();
        Remembered { samples, kept }
    }

    /// Keeps the first of `samples`, whose shapes tell those of all.
    pub fn first(samples: &'a dyn Samples) -> Self {
        Self::new(samples, [0])
    }
}

impl Samples for Remembered<'_> {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        let Some(slot) = self.kept.get(&index) else { return self.samples.get(index) };
        if let Some(known) = slot.get() {
            return Ok(known.clone());
        }
        let sample = self.samples.get(index)?;
        Ok(slot.get_or_init(|| sample).clone())
    }

    forward_labels!(samples);

    fn input_names(&self) -> Option<Vec<String>> {
        self.samples.input_names()
    }

    fn source(&self) -> Option<String> {
        self.samples.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Counted, samples};

    #[test]
    fn only_what_is_wanted_stays() {
        let counted = Counted::new(samples(&[1], vec![1.0, 2.0, 3.0], None));
        let remembered = Remembered::new(&counted, [0, 2]);
        for _ in 0..2 {
            let all: Vec<_> = (0..3).map(|i| remembered.get(i).unwrap()).collect();
            assert_eq!(all[2], [Tensor::f32(&[1], vec![3.0])]);
        }
        assert_eq!(counted.times(), [1, 2, 1]);
    }
}
