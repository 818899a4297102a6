//! What a run finds.

use crate::probe::Contents;
use crate::quant::{Grid, QuantizedWeight};

/// What is found: integers and steps of every weight, contents of constants, the grid of every site.
#[derive(Clone)]
pub(crate) struct NetworkSolution {
    pub weights: Vec<QuantizedWeight>,
    pub constants: Contents,
    pub grids: Vec<Grid>,
}
