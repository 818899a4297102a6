//! Solves one unit: learned rounding and learned steps under random dropping (Wei et al. 2022, section 4).
//!
//! A [`Problem`] is plain data and can be solved alone; a [`Solution`] holds integers, grids and the loss history. This
//! room decides schedules; the device that it is given does the arithmetic.

pub use crate::engine::train::{Bias, Draws, Problem, RandomDraws, Weight};

use crate::engine::train::{Losses, Step, Trainer};
use crate::error::{Error, Kind, Result};
use crate::quant::lsq::LEARNED_STEP_FLOOR;
use crate::quant::{Grid, QuantizedWeight, rounding};
use serde::{Deserialize, Serialize};

/// How to solve; see [`crate::plan::Method`] for the meaning of each.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Number of iterations.
    pub iterations: usize,
    /// Learning rate of the rounding variables.
    pub rounding_lr: f64,
    /// Learning rate of the biases at the start, in units of their weights' steps, from where it falls to 0 by a cosine.
    pub bias_lr: f64,
    /// Learning rate of the steps at the start, from where it falls to 0 by a cosine; 0 leaves them as they are.
    pub scale_lr: f64,
    /// Weight of the rounding regulariser.
    pub lambda: f64,
    /// Part of the iterations before the regulariser begins, 0 to 1.
    pub warmup: f64,
    /// Exponent of the regulariser when it begins.
    pub beta_start: f64,
    /// Exponent of the regulariser at the end.
    pub beta_end: f64,
}

impl Settings {
    /// What the device does in `iteration` (from 1).
    fn step<'a>(&self, iteration: usize, draws: &'a dyn Draws) -> Step<'a> {
        let (count, all) = (iteration as f64, self.iterations as f64);
        let start = self.warmup * all;
        let rest = (1.0 - (count - start) / (all - start)).max(0.0);
        let fall = 0.5 * (1.0 + (std::f64::consts::PI * (count - 1.0) / all).cos());
        Step {
            iteration,
            draws,
            lambda: if count >= start { self.lambda } else { 0.0 },
            beta: self.beta_end + (self.beta_start - self.beta_end) * rest,
            rounding_lr: self.rounding_lr,
            bias_lr: self.bias_lr * fall,
            scale_lr: self.scale_lr * fall,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Solution {
    /// Hardened weights.
    pub weights: Vec<QuantizedWeight>,
    /// Final rounding variables.
    pub alpha: Vec<Vec<f32>>,
    /// Learned biases: index of the layer in the plan, content.
    pub biases: Vec<(usize, Vec<f32>)>,
    /// Final grids of the sites.
    pub grids: Vec<Grid>,
    /// Losses of each iteration.
    pub losses: Vec<Losses>,
}

/// Solves `problem`, which `trainer` holds ready for its first iteration. `progress` hears the iteration and its losses
/// and answers whether to go on.
pub fn solve(
    problem: &Problem,
    settings: &Settings,
    trainer: &mut dyn Trainer,
    draws: &dyn Draws,
    progress: &mut dyn FnMut(usize, Losses) -> bool,
) -> Result<Solution> {
    let mut losses = Vec::with_capacity(settings.iterations);
    for iteration in 1..=settings.iterations {
        let now = trainer.step(&settings.step(iteration, draws))?;
        if !now.total.is_finite() {
            return Err(Error::new(Kind::Numeric, format!("loss is {} at iteration {iteration}", now.total)));
        }
        losses.push(now);
        if !progress(iteration, now) {
            return Err(Error::new(Kind::Interrupted, "stopped on request"));
        }
    }
    let mut grids = trainer.grids();
    for scale in grids.iter_mut().flat_map(|g| &mut g.scale) {
        *scale = scale.abs().max(LEARNED_STEP_FLOOR);
    }
    let alpha = trainer.alpha();
    let harden = |(w, a): (&Weight, &Vec<f32>)| rounding::harden(w.layer, &w.float, a, &w.shape, &w.grid);
    let weights = problem.weights.iter().zip(&alpha).map(harden).collect::<Result<Vec<_>>>()?;
    let biases = problem.biases.iter().map(|b| b.layer).zip(trainer.biases()).collect();
    Ok(Solution { weights, alpha, biases, grids, losses })
}
