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
    use crate::tensor::Tensor;

    struct Rows(Vec<f32>);

    impl Samples for Rows {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn get(&self, index: usize) -> Result<Vec<Tensor>> {
            Ok(vec![Tensor::f32(&[1], vec![self.0[index]])])
        }
        fn label(&self, _: usize) -> Option<usize> {
            None
        }
        fn name(&self, index: usize) -> String {
            format!("row {index}")
        }
    }

    #[test]
    fn a_part_is_spread_evenly() {
        let rows = || Rows((0..10).map(|i| i as f32).collect());
        let part = spread(rows(), Some(4)).unwrap();
        let picked: Vec<f32> = (0..part.len()).map(|i| part.get(i).unwrap()[0].as_f32().unwrap()[0]).collect();
        assert_eq!(picked, [0.0, 3.0, 5.0, 9.0]);
        assert_eq!(spread(rows(), None).unwrap().len(), 10);
        assert_eq!(spread(rows(), Some(99)).unwrap().len(), 10);
        assert_eq!(spread(rows(), Some(0)).unwrap().len(), 0);
    }
}
