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

/// Samples that are images on a canvas.
pub(crate) struct Placed<S> {
    pub inner: S,
    pub geometries: Vec<Geometry>,
}

impl<S: Samples> Samples for Placed<S> {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        self.inner.get(index)
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.inner.label(index)
    }

    fn geometry(&self, index: usize) -> Option<Geometry> {
        self.geometries.get(index).copied()
    }

    fn name(&self, index: usize) -> String {
        self.inner.name(index)
    }
}

/// An image that fills `rows` and `columns` from the upper left corner of a `canvas`.
pub(crate) fn corner(rows: usize, columns: usize, canvas: [usize; 2]) -> Geometry {
    Geometry { image: [rows, columns], resized: [rows, columns], offset: [0, 0], input: canvas }
}
