//! What a solution follows from.

use super::solve::{Settings, Solution};
use crate::engine::train::{Problem, RandomDraws};
use crate::error::Result;
use crate::work::{Kept, REVISION, UNIT, encode, update};

impl Kept for Solution {
    const EXTENSION: &str = UNIT;
}

/// The hash of everything that a solution follows from.
pub(crate) fn key(problem: &Problem, settings: &Settings, draws: &RandomDraws) -> Result<blake3::Hash> {
    let Problem { program, weights, biases, grids, scale_rates, float_inputs, quantized_inputs, targets, loss_weights } =
        problem;
    let mut hasher = blake3::Hasher::new();
    hasher.update(REVISION);
    hasher.update(&encode(&(program, weights, biases, grids, scale_rates, settings, draws))?);
    for rows in float_inputs.iter().chain(quantized_inputs).chain(targets) {
        update(&mut hasher, rows)?;
    }
    for weights in loss_weights {
        hasher.update(&encode(&weights.as_ref().map(|w| (&w.channels, w.outer)))?);
        if let Some(weights) = weights {
            update(&mut hasher, &weights.positions)?;
        }
    }
    Ok(hasher.finalize())
}
