//! Parts of a sample set.

use crate::data::{self, Samples, Subset};
use crate::error::Result;
use std::collections::BTreeSet;

/// At most `limit` samples of `samples`, spread over it as [`data::spread`] tells; all of them without a limit.
pub fn spread<S: Samples>(samples: S, limit: Option<usize>) -> Result<Subset<S>> {
    let indices = data::spread(samples.len(), limit).collect();
    Subset::new(samples, indices)
}

/// Indices of the parts of `samples` samples that [`spread`] yields for each of `counts`.
pub(crate) fn spreads(samples: usize, counts: &[usize]) -> BTreeSet<usize> {
    counts.iter().flat_map(|&n| data::spread(samples, Some(n))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_spread_evenly() {
        let rows = || data::testing::samples(&[1], (0..10).map(|i| i as f32).collect(), None);
        let part = spread(rows(), Some(4)).unwrap();
        let picked: Vec<f32> = (0..part.len()).map(|i| part.get(i).unwrap()[0].as_f32().unwrap()[0]).collect();
        assert_eq!(picked, [0.0, 3.0, 5.0, 9.0]);
        assert_eq!(spread(rows(), None).unwrap().len(), 10);
        assert_eq!(spread(rows(), Some(99)).unwrap().len(), 10);
        assert_eq!(spread(rows(), Some(0)).unwrap().len(), 0);
    }
}
