//! One problem from its first iteration to its last.

use crate::engine::train::{Choices, Losses, Problem, Step, Trainer, Weight};
use crate::error::{Error, Kind, Result};
use crate::quant::lsq::step_floor;
use crate::quant::{Grid, LayerId, QuantizedWeight, rounding};
use serde::{Deserialize, Serialize};

/// Undecided share of the roundings below which they are settled.
const SETTLED: f64 = 1e-4;
/// First learning rate of the steps of weights whose integers are decided and of channel factors, as a share of each.
pub(super) const SCALED_LR: f64 = 1e-2;
/// Iterations from one reading of the losses to the next.
const READ_EVERY: usize = 10;

/// How to solve; see [`crate::plan::Method`] for the meaning of each.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Number of iterations.
    pub iterations: usize,
    /// Learning rate of the rounding variables.
    pub rounding_lr: f64,
    /// Learning rate of the biases at the start, in units of their weights' steps, from where it falls to 0 by a cosine.
    pub bias_lr: f64,
    /// Learning rate of the steps of activations at the start, from where it falls to 0 by a cosine; 0 leaves them as they
    /// are.
    pub scale_lr: f64,
    /// Learning rate of the scales of constants at the start, as a share of each, from where it falls to 0 by a cosine.
    pub scaled_lr: f64,
    /// Weight of the rounding regulariser.
    pub lambda: f64,
    /// Part of the iterations before the regulariser begins, 0 to 1.
    pub warmup: f64,
    /// Exponent of the regulariser when it begins.
    pub beta_start: f64,
    /// Exponent of the regulariser at the end.
    pub beta_end: f64,
    /// Whether to stop as soon as the roundings are settled: the regulariser leaves them alone, and so does the rest.
    pub stop_settled: bool,
}

impl Settings {
    /// Exponent of the regulariser in `iteration` (from 1).
    pub fn beta(&self, iteration: usize) -> f64 {
        let (count, all) = (iteration as f64, self.iterations as f64);
        let start = self.warmup * all;
        if count < start {
            return self.beta_start;
        }
        let rest = (1.0 - (count - start) / (all - start)).max(0.0);
        self.beta_end + (self.beta_start - self.beta_end) * rest
    }

    /// What the device does in `iteration` (from 1) to `weights` weights.
    fn step<'a>(&self, iteration: usize, choices: Choices<'a>, weights: usize) -> Step<'a> {
        let (count, all) = (iteration as f64, self.iterations as f64);
        let start = self.warmup * all;
        let fall = 0.5 * (1.0 + (std::f64::consts::PI * (count - 1.0) / all).cos());
        Step {
            iteration,
            choices,
            lambda: if count >= start { self.lambda } else { 0.0 },
            beta: self.beta(iteration),
            rounding_lr: self.rounding_lr,
            bias_lr: self.bias_lr * fall,
            scale_lr: self.scale_lr * fall,
            scaled_lr: self.scaled_lr * fall,
            settled_below: self.stop_settled.then_some(SETTLED * weights as f64),
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
    /// Learned biases: the layer in the plan, content.
    pub biases: Vec<(LayerId, Vec<f32>)>,
    /// Learned scales of the problem's scaled constants.
    pub scaled: Vec<Vec<f32>>,
    /// Final grids of the sites.
    pub grids: Vec<Grid>,
    /// Losses of each iteration.
    pub losses: Vec<Losses>,
}

/// Solves `problem`, which `trainer` holds ready for its first iteration. `progress` hears the iteration and the losses
/// that were read last, at most some iterations old, and answers whether to go on.
pub fn solve(
    problem: &Problem,
    settings: &Settings,
    trainer: &mut dyn Trainer,
    choices: Choices,
    progress: &mut dyn FnMut(usize, Losses) -> bool,
) -> Result<Solution> {
    let mut losses = Vec::with_capacity(settings.iterations);
    let weights = problem.weights.iter().map(|w| w.float.len()).sum::<usize>();
    for iteration in 1..=settings.iterations {
        trainer.step(&settings.step(iteration, choices, weights))?;
        if iteration % READ_EVERY <= 1 || iteration == settings.iterations {
            read(trainer, &mut losses)?;
            // The last steps did nothing, since the roundings are settled.
            if losses.len() < iteration {
                break;
            }
        }
        if losses.last().is_some_and(|&last| !progress(iteration, last)) {
            return Err(Error::new(Kind::Interrupted, "stopped on request"));
        }
    }
    let mut grids = trainer.grids();
    for (grid, first) in grids.iter_mut().zip(&problem.grids) {
        grid.scale[0] = grid.scale[0].abs().max(step_floor(first.scale[0]));
    }
    let alpha = trainer.alpha();
    let harden = |(w, a): (&Weight, &Vec<f32>)| rounding::harden(w.layer, &w.float, a, &w.shape, &w.grid);
    let weights = problem.weights.iter().zip(&alpha).map(harden).collect::<Result<Vec<_>>>()?;
    let biases = problem.biases.iter().map(|b| b.layer).zip(trainer.biases()).collect();
    Ok(Solution { weights, alpha, biases, scaled: trainer.scaled(), grids, losses })
}

/// Adds the losses that were not read yet to those of earlier iterations; an error where one is not finite.
fn read(trainer: &mut dyn Trainer, losses: &mut Vec<Losses>) -> Result<()> {
    for now in trainer.losses()? {
        losses.push(now);
        if !now.total.is_finite() {
            let error = Error::new(Kind::Numeric, format!("loss is {} at iteration {}", now.total, losses.len()));
            return Err(error.hint("lower the learning rates in a recipe: `rounding_lr`, `scale_lr` under `[method]`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::program::Program;
    use crate::engine::train::RandomDraws;

    /// Counts its iterations; its one weight settles in `settles`, and its loss is no number from `breaks` on.
    struct Clock {
        iterations: usize,
        settles: usize,
        breaks: usize,
        settled: bool,
        unread: Vec<Losses>,
    }

    impl Clock {
        fn new(settles: usize, breaks: usize) -> Self {
            Clock { iterations: 0, settles, breaks, settled: false, unread: Vec::new() }
        }
    }

    impl Trainer for Clock {
        fn step(&mut self, step: &Step) -> Result<()> {
            if self.settled {
                return Ok(());
            }
            self.iterations += 1;
            let undecided = if self.iterations < self.settles { 1.0 } else { 0.0 };
            self.settled = step.lambda > 0.0 && step.settled_below.is_some_and(|least| undecided < least);
            let reconstruction = if self.iterations < self.breaks { 2.0 } else { f64::NAN };
            self.unread.push(Losses { reconstruction, total: reconstruction + step.lambda * undecided });
            Ok(())
        }

        fn losses(&mut self) -> Result<Vec<Losses>> {
            Ok(std::mem::take(&mut self.unread))
        }

        fn alpha(&self) -> Vec<Vec<f32>> {
            vec![vec![3.0]]
        }

        fn biases(&self) -> Vec<Vec<f32>> {
            Vec::new()
        }

        fn scaled(&self) -> Vec<Vec<f32>> {
            Vec::new()
        }

        fn grids(&self) -> Vec<Grid> {
            Vec::new()
        }
    }

    /// Of 100 iterations, with the regulariser from the 20th on.
    fn settings(stop_settled: bool) -> Settings {
        Settings {
            iterations: 100,
            rounding_lr: 0.0,
            bias_lr: 0.0,
            scale_lr: 0.0,
            scaled_lr: 0.0,
            lambda: 0.1,
            warmup: 0.2,
            beta_start: 20.0,
            beta_end: 2.0,
            stop_settled,
        }
    }

    /// What becomes of a problem of one weight on `clock` in 100 iterations, the regulariser from the 20th on.
    fn run(clock: &mut Clock, stop_settled: bool) -> Result<Solution> {
        let grid = Grid::per_tensor(2, 1.0, 1).unwrap();
        let problem = Problem {
            program: Program::default(),
            weights: vec![Weight { layer: LayerId(0), float: vec![0.4], shape: vec![1], grid }],
            biases: Vec::new(),
            scaled: Vec::new(),
            grids: Vec::new(),
            scale_rates: Vec::new(),
            float_inputs: Vec::new(),
            quantized_inputs: Vec::new(),
            targets: Vec::new(),
            loss_weights: Vec::new(),
        };
        let draws = RandomDraws { seed: 0, unit: 0, batch: 1, samples: 1, input_keep: 1.0, activation_keep: 1.0 };
        let settings = settings(stop_settled);
        solve(&problem, &settings, clock, Choices::Drawn(draws), &mut |_, _| true)
    }

    #[test]
    fn a_unit_ends_when_its_roundings_are_settled_and_not_before_the_regulariser_says_so() {
        let done = |settles, stop_settled| {
            let mut clock = Clock::new(settles, usize::MAX);
            let solution = run(&mut clock, stop_settled).unwrap();
            assert_eq!(solution.losses.len(), clock.iterations);
            assert_eq!(solution.weights[0].integers, [2], "0 + up + zero point");
            clock.iterations
        };
        assert_eq!(done(60, true), 60);
        assert_eq!(done(63, true), 63);
        assert_eq!(done(60, false), 100);
        assert_eq!(done(1000, true), 100);
        assert_eq!(done(1, true), 20, "nothing is known of roundings during warm-up");
    }

    #[test]
    fn learning_rates_fall_by_a_cosine_but_that_of_roundings() {
        let settings = Settings { bias_lr: 4.0, scale_lr: 2.0, scaled_lr: 1.0, rounding_lr: 8.0, ..settings(true) };
        let draws = RandomDraws { seed: 0, unit: 0, batch: 1, samples: 1, input_keep: 1.0, activation_keep: 1.0 };
        for (iteration, share) in [(1, 1.0), (51, 0.5), (101, 0.0)] {
            let step = settings.step(iteration, Choices::Drawn(draws), 1);
            let want = [4.0, 2.0, 1.0].map(|rate| rate * share);
            for (got, want) in [step.bias_lr, step.scale_lr, step.scaled_lr].into_iter().zip(want) {
                assert!((got - want).abs() < 1e-12, "{iteration}: {got} instead of {want}");
            }
            assert_eq!(step.rounding_lr, 8.0);
        }
    }

    #[test]
    fn an_error_names_the_iteration_whose_loss_is_no_number() {
        for breaks in [1, 17, 20, 100] {
            let error = run(&mut Clock::new(usize::MAX, breaks), true).unwrap_err();
            assert_eq!(error.message(), format!("loss is NaN at iteration {breaks}"));
        }
    }
}
