//! What a run finds.

use crate::probe::Biases;
use crate::quant::{Grid, QuantizedWeight};

/// What is found: integers of every weight, learned biases, the grid of every site.
#[derive(Clone)]
pub(crate) struct NetworkSolution {
    pub weights: Vec<QuantizedWeight>,
    pub biases: Biases,
    pub grids: Vec<Grid>,
}
