//! How much memory a run will take, from the plan alone.

use crate::graph::Graph;
use crate::plan::{Plan, Recipe};
use serde::{Deserialize, Serialize};

/// Predicted memory in bytes; an estimate of what lives at the peak, without the program itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Calibration samples it is for.
    pub samples: usize,
    /// Constants of the network: the float ones and the quantized ones.
    pub network: u64,
    /// Inputs (float and quantized) and outputs of the largest unit for all samples.
    pub caches: u64,
    /// Rounding variables of the largest unit with gradient and both Adam moments.
    pub state: u64,
    /// All of it.
    pub total: u64,
}

/// Predicts the memory that quantizing `graph` (simplified) by `plan` takes with `samples` calibration samples.
pub fn memory(graph: &Graph, plan: &Plan, recipe: &Recipe, samples: usize) -> Memory {
    let constants = graph.values.iter().filter_map(|v| v.constant.as_ref());
    let float: u64 = constants.map(|t| (t.len() as u64).saturating_mul(t.dtype().bits() as u64) / 8).sum();
    let network = float.saturating_mul(2);
    let learns = recipe.method.name != crate::plan::MethodName::Rtn;
    let largest = |f: &dyn Fn(&crate::plan::Unit) -> u64| plan.units.iter().map(f).max().unwrap_or(0);
    let caches = if learns { largest(&|u| u.cache_bytes.saturating_mul(samples as u64)) } else { 0 };
    let state = if learns { largest(&|u| u.parameters.saturating_mul(16)) } else { 0 };
    let total = network.saturating_add(caches).saturating_add(state);
    Memory { samples, network, caches, state, total }
}
