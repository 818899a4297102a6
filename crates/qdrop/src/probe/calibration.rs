//! What the stages before learning read: a float network, its plan, samples.

use super::padding::Padding;
use crate::data::Samples;
use crate::engine::device::Device;
use crate::engine::facts::Facts;
use crate::error::Result;
use crate::graph::Graph;
use crate::plan::{Plan, Recipe};
use crate::tensor::RowStore;

/// A network to be quantized and how.
#[derive(Clone, Copy)]
pub(crate) struct Calibration<'a> {
    pub graph: &'a Graph,
    pub facts: &'a Facts,
    pub plan: &'a Plan,
    pub recipe: &'a Recipe,
    pub samples: &'a dyn Samples,
    pub device: &'a dyn Device,
    /// Where values of the samples are put.
    pub store: &'a RowStore,
}

impl Calibration<'_> {
    /// What of `samples`, some of its own, is padding.
    pub fn padding(&self, samples: &dyn Samples) -> Result<Option<Padding>> {
        Padding::read(self.graph, self.facts, self.recipe, samples)
    }
}
