//! What is known about the values of a graph.

use super::ops::Known;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// What is known about one value once the input shapes are fixed.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueFact {
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Content when it follows from constants and shapes alone.
    pub constant: Option<Arc<Tensor>>,
    /// The axis that holds channels, or features.
    pub channel_axis: usize,
}

impl ValueFact {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    pub(super) fn new(dtype: DType, shape: Vec<usize>, constant: Option<Arc<Tensor>>) -> Self {
        ValueFact { dtype, channel_axis: usual_axis(shape.len()), shape, constant }
    }

    pub(super) fn of(tensor: Arc<Tensor>) -> Self {
        Self::new(tensor.dtype(), tensor.shape().to_vec(), Some(tensor))
    }

    pub(super) fn known(&self) -> Known<'_> {
        Known { dtype: self.dtype, shape: &self.shape, constant: self.constant.as_deref() }
    }
}

/// Facts of a whole graph; `None` where a value depends on an operator that cannot be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub(super) values: Vec<Option<ValueFact>>,
}

impl Facts {
    /// The fact of `value`, if known.
    pub fn get(&self, value: ValueId) -> Option<&ValueFact> {
        self.values.get(value.0 as usize).and_then(|f| f.as_ref())
    }

    /// The fact of `value`, or an error that names it.
    pub fn require(&self, graph: &Graph, value: ValueId) -> Result<&ValueFact> {
        self.get(value).ok_or_else(|| {
            let name = graph.values.get(value.0 as usize).map_or("?", |v| v.name.as_str());
            Error::unsupported(format!("the shape of value `{name}` is unknown"))
                .hint("it depends on an operator that cannot be run here")
        })
    }

    /// Sets the fact of `value`, for values added to the graph later.
    pub fn set(&mut self, value: ValueId, fact: ValueFact) {
        let i = value.0 as usize;
        if i >= self.values.len() {
            self.values.resize(i + 1, None);
        }
        self.values[i] = Some(fact);
    }

    /// All known facts in the order of value ids.
    pub fn iter(&self) -> impl Iterator<Item = (ValueId, &ValueFact)> {
        self.values.iter().enumerate().filter_map(|(i, f)| f.as_ref().map(|f| (ValueId(i as u32), f)))
    }
}

/// The axis of a value of `rank` axes where nothing tells.
fn usual_axis(rank: usize) -> usize {
    if rank == 3 { 2 } else { 1.min(rank.saturating_sub(1)) }
}

/// Where `axis` of `rank` axes lies after a Transpose by `perm`, which reverses them where it is empty.
pub fn transposed(perm: &[i64], rank: usize, axis: usize) -> Option<usize> {
    match perm.is_empty() {
        true => rank.checked_sub(axis + 1),
        false => perm.iter().position(|&p| usize::try_from(p) == Ok(axis)),
    }
}

/// Elements of `shape` in front of `axis`, along it, and behind; of a number, ones.
pub fn around(shape: &[usize], axis: usize) -> [usize; 3] {
    let product = |dims: &[usize]| dims.iter().product();
    match shape.get(axis) {
        Some(&along) => [product(&shape[..axis]), along, product(&shape[axis + 1..])],
        None => [1, 1, product(shape)],
    }
}
