//! Sample sets for tests.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Samples of one tensor of `shape`, whose numbers lie one behind the other in `values`.
pub(crate) fn samples(shape: &[usize], values: Vec<f32>, labels: Option<Vec<usize>>) -> Arrays {
    let len = values.len() / shape.iter().product::<usize>();
    Arrays::new(vec![("x".into(), Tensor::f32(&[&[len], shape].concat(), values))], labels).unwrap()
}

/// Counts how often each sample is asked for.
pub(crate) struct Counted<S> {
    inner: S,
    asked: Vec<AtomicUsize>,
}

impl<S: Samples> Counted<S> {
    pub fn new(inner: S) -> Self {
        let asked = (0..inner.len()).map(|_| AtomicUsize::new(0)).collect();
        Counted { inner, asked }
    }

    /// How often any sample was asked for.
    pub fn asked(&self) -> usize {
        self.times().iter().sum()
    }

    /// How often each sample was asked for.
    pub fn times(&self) -> Vec<usize> {
        self.asked.iter().map(|n| n.load(Ordering::Relaxed)).collect()
    }
}

impl<S: Samples> Samples for Counted<S> {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        self.asked[index].fetch_add(1, Ordering::Relaxed);
        self.inner.get(index)
    }

    forward_labels!(inner);
}
