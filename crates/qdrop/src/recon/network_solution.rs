//! What a run finds.

use crate::graph::ValueId;
use crate::quant::{Grid, QuantizedWeight};
use std::collections::BTreeMap;

/// What is found: integers and steps of every weight, the grid of every site.
#[derive(Clone)]
pub(crate) struct NetworkSolution {
    pub weights: Vec<QuantizedWeight>,
    /// Contents of constants that are not those of the float network: biases, and what divides channels of activations.
    pub constants: BTreeMap<ValueId, Vec<f32>>,
    pub grids: Vec<Grid>,
}
