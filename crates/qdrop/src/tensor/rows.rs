//! Values of one tensor for many samples.

use std::sync::Arc;

/// Equal rows of f32, one a sample (row-major, without batch axis). Cloning shares the content.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    len: usize,
    width: usize,
    data: Arc<Vec<f32>>,
}

impl Rows {
    /// `len` rows that lie one after the other in `data`, whose length must be a multiple of `len`.
    pub fn new(len: usize, data: Vec<f32>) -> Self {
        let width = data.len().checked_div(len).unwrap_or(0);
        assert_eq!(width * len, data.len(), "{} values are not {len} equal rows", data.len());
        Rows { len, width, data: Arc::new(data) }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements of a sample.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The elements of sample `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.width..(i + 1) * self.width]
    }

    /// All samples in order.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        (0..self.len).map(|i| self.row(i))
    }
}
