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
    let Problem {
        program,
        weights,
        biases,
        scaled,
        grids,
        scale_rates,
        float_inputs,
        quantized_inputs,
        targets,
        loss_weights,
    } = problem;
    let mut hasher = blake3::Hasher::new();
    hasher.update(REVISION);
    hasher.update(&encode(&(program, weights, biases, scaled, grids, scale_rates, settings, draws))?);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::program::ProgramSite;
    use crate::quant::{Grid, LayerId, QuantizedWeight};

    #[test]
    fn kept_files_and_keys_hold_plain_numbers() {
        let grid = Grid::per_tensor(4, 0.5, 8).unwrap();
        let solution = Solution {
            weights: vec![QuantizedWeight { layer: LayerId(300), grid: grid.clone(), integers: vec![1, 15] }],
            alpha: vec![vec![0.5]],
            biases: vec![(LayerId(301), vec![2.0])],
            scaled: vec![vec![0.25]],
            grids: vec![grid.clone()],
            losses: Vec::new(),
        };
        let weights = [(300usize, &grid, vec![1u8, 15])].to_vec();
        let biases = [(301usize, vec![2f32])].to_vec();
        let plain = (weights, vec![vec![0.5f32]], biases, vec![vec![0.25f32]], vec![&grid], Vec::<f64>::new());
        let bytes = encode(&solution).unwrap();
        assert_eq!(bytes, encode(&plain).unwrap());
        assert_eq!(postcard::from_bytes::<Solution>(&bytes).unwrap(), solution);
        assert_eq!(encode(&ProgramSite(300)).unwrap(), encode(&300usize).unwrap());
    }
}
