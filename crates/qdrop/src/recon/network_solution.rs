//! What a run finds.

use crate::graph::ValueId;
use crate::quant::{Grid, QuantizedWeight};
use std::collections::BTreeMap;

/// Biases that were learned.
pub(crate) type Biases = BTreeMap<ValueId, Vec<f32>>;

/// What is found: integers of every weight, learned biases, the grid of every site.
#[derive(Clone)]
pub(crate) struct NetworkSolution {
    pub weights: Vec<QuantizedWeight>,
    pub biases: Biases,
    pub grids: Vec<Grid>,
}
