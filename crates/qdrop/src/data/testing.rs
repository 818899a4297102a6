//! Sample sets for tests.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Samples of one tensor of `shape`, whose numbers lie one behind the other in `values`.
pub(crate) fn samples(shape: &[usize], values: Vec<f32>, labels: Option<Vec<usize>>) -> Arrays {
    let len = values.len() / shape.iter().product::<usize>();
    Arrays::new(vec![("x".into(), Tensor::f32(&[&[len], shape].concat(), values))], labels).unwrap()
}

/// Counts how often a sample is asked for.
pub(crate) struct Counted<S> {
    inner: S,
    asked: AtomicUsize,
}

impl<S: Samples> Counted<S> {
    pub fn new(inner: S) -> Self {
        Counted { inner, asked: AtomicUsize::new(0) }
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl<S: Samples> Samples for Counted<S> {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.inner.get(index)
    }

    forward_labels!(inner);
}
