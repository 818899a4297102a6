//! Learning on the specification device.

use super::{Settings, forward};
use crate::engine::ops::Real;
use crate::engine::optimiser::{LearnedBias, LearnedScaled, LearnedScales, Moments};
use crate::engine::train::{Choices, Keep, Losses, Problem, Purpose, Record, Step, Trainer};
use crate::error::Result;
use crate::quant::{Grid, rounding};
use std::marker::PhantomData;

/// Learns one sample after the other, activations and gradients in `R`.
pub struct NaiveTrainer<'a, R> {
    problem: &'a Problem,
    alpha: Vec<Vec<f32>>,
    scales: LearnedScales,
    biases: Vec<LearnedBias>,
    scaled: Vec<LearnedScaled<'a>>,
    moments: Vec<Moments>,
    record: Record,
    real: PhantomData<R>,
}

impl<'a, R: Real> NaiveTrainer<'a, R> {
    /// Ready for the first iteration of `problem`.
    pub fn new(problem: &'a Problem) -> Result<Self> {
        let alpha = |w: &crate::engine::train::Weight| rounding::alpha_init(&w.float, &w.shape, &w.grid);
        let alpha = problem.weights.iter().map(alpha).collect::<Result<Vec<_>>>()?;
        Ok(NaiveTrainer {
            problem,
            biases: problem.biases.iter().map(LearnedBias::new).collect(),
            scaled: problem.scaled.iter().map(LearnedScaled::new).collect(),
            moments: alpha.iter().map(|a| Moments::new(a.len())).collect(),
            record: Record::default(),
            scales: LearnedScales::new(problem),
            alpha,
            real: PhantomData,
        })
    }

    fn mixed(&self, sample: usize, input: usize, keep: &Option<Vec<bool>>) -> Result<Vec<R>> {
        let float = self.problem.float_inputs[input].row(sample)?;
        let quantized = self.problem.quantized_inputs[input].row(sample)?;
        let pick = |(i, (&q, &f)): (usize, (&f32, &f32))| match keep {
            None => f,
            Some(mask) => {
                if mask.get(i).copied().unwrap_or(true) {
                    q
                } else {
                    f
                }
            }
        };
        let number = |v: f32| if v.is_nan() { 0.0 } else { v };
        Ok(quantized.iter().zip(&*float).enumerate().map(pick).map(|v| R::of(f64::from(number(v)))).collect())
    }
}

/// As [`Settings::keep`]: absent where nothing is kept, empty where everything is.
fn mask(choices: Choices, iteration: usize, purpose: Purpose, position: usize, numel: usize) -> Option<Vec<bool>> {
    let mut bytes = vec![0; numel];
    match choices.keep(iteration, purpose, position, &mut bytes) {
        Keep::All => Some(Vec::new()),
        Keep::Nothing => None,
        Keep::Masked => Some(bytes.iter().map(|&b| b == 1).collect()),
    }
}

/// Σ over the channel axis of weight·(y - target)², mean over the rest and the batch; and its gradient to y. Elements whose
/// target is NaN or infinite do not count.
fn loss<R: Real>(y: &[R], target: &[f32], weights: &[f32], positions: usize, batch: usize) -> (f64, Vec<R>) {
    let rest = (positions * batch) as f64;
    let real = |v: f32| R::of(f64::from(v));
    let factor = R::of(2.0 / rest);
    let mut sum = 0.0;
    let one = |((&y, &target), &weight): ((&R, &f32), &f32)| {
        let difference = if target.is_finite() { y - real(target) } else { R::zero() };
        sum += (real(weight) * difference * difference).f64();
        factor * real(weight) * difference
    };
    let gradient = y.iter().zip(target).zip(weights).map(one).collect();
    (sum / rest, gradient)
}

/// Loss of one step, and gradients before the factors of what is learned.
#[derive(Debug, Clone)]
pub struct Slopes<R> {
    /// The reconstruction loss.
    pub loss: f64,
    /// Per weight of the program.
    pub weights: Vec<Vec<R>>,
    /// Per site: its step.
    pub scales: Vec<f64>,
}

impl<R: Real> NaiveTrainer<'_, R> {
    /// Loss and gradients of `step`, before anything is updated.
    pub fn gradients(&self, step: &Step) -> Result<Slopes<R>> {
        let program = &self.problem.program;
        let numel = |slot: usize| program.slots[slot].shape.iter().product::<usize>();
        let real = |w: Vec<f32>| w.into_iter().map(|v| R::of(f64::from(v))).collect::<Vec<R>>();
        let mut weights = Vec::new();
        for (w, alpha) in self.problem.weights.iter().zip(&self.alpha) {
            weights.push(real(rounding::soft(&w.float, alpha, &w.shape, &w.grid)?));
        }
        weights.extend(self.biases.iter().map(|b| real(b.content.clone())));
        weights.extend(self.scaled.iter().map(|s| real(s.content.clone())));
        let batch = step.choices.batch(step.iteration);
        let mut loss_sum = 0.0;
        let mut by_weight: Vec<Vec<R>> = weights.iter().map(|w| vec![R::zero(); w.len()]).collect();
        let mut by_scale = vec![0.0; self.scales.grids.len()];
        for (position, &sample) in batch.iter().enumerate() {
            let mask = |purpose, slot| mask(step.choices, step.iteration, purpose, position, numel(slot));
            let inputs = (program.inputs.iter().enumerate())
                .map(|(i, &s)| self.mixed(sample, i, &mask(Purpose::Input(i), s)))
                .collect::<Result<_>>()?;
            let keep: Vec<_> = program.site_slots().map(|(site, slot)| mask(Purpose::Site(site), slot)).collect();
            let run = Settings { weights: &weights, grids: &self.scales.grids, keep: &keep };
            let tape = forward(program, run, inputs)?;
            let mut upstream = Vec::new();
            for (i, (y, &slot)) in tape.outputs(program).zip(&program.outputs).enumerate() {
                let target = self.problem.targets[i].row(sample)?;
                let mut weights = vec![1.0; y.len()];
                if let Some(own) = &self.problem.loss_weights[i] {
                    own.expand(sample, &mut weights)?;
                }
                let (part, g) = loss(y, &target, &weights, program.slots[slot].positions(), batch.len());
                loss_sum += part;
                upstream.push(g);
            }
            let g = tape.backward(program, run, upstream)?;
            for (sum, part) in by_weight.iter_mut().flatten().zip(g.weights.iter().flatten()) {
                *sum += *part;
            }
            by_scale.iter_mut().zip(g.scales).for_each(|(sum, part)| *sum += part);
        }
        Ok(Slopes { loss: loss_sum, weights: by_weight, scales: by_scale })
    }
}

impl<R: Real> Trainer for NaiveTrainer<'_, R> {
    fn step(&mut self, step: &Step) -> Result<()> {
        if self.record.settled() {
            return Ok(());
        }
        let Slopes { loss: reconstruction, weights: by_weight, scales: by_scale } = self.gradients(step)?;
        let batch = step.choices.batch(step.iteration);
        let mut total = reconstruction;
        for (i, w) in self.problem.weights.iter().enumerate() {
            let upstream: Vec<f32> = by_weight[i].iter().map(|g| g.f64() as f32).collect();
            let mut g = rounding::grad_alpha(&w.float, &self.alpha[i], &upstream, &w.shape, &w.grid)?;
            if step.lambda > 0.0 {
                let (lambda, beta) = (step.lambda as f32, step.beta as f32);
                total += step.lambda * rounding::regulariser(&self.alpha[i], beta);
                let extra = rounding::regulariser_gradient(&self.alpha[i], beta);
                g.iter_mut().zip(extra).for_each(|(g, e)| *g += lambda * e);
            }
            let changes = self.moments[i].changes(&g, step.rounding_lr, step.iteration);
            self.alpha[i].iter_mut().zip(changes).for_each(|(a, change)| *a -= change);
        }
        for (bias, g) in self.biases.iter_mut().zip(&by_weight[self.alpha.len()..]) {
            bias.update(&g.iter().map(|g| g.f64() as f32).collect::<Vec<_>>(), step);
        }
        for (scaled, g) in self.scaled.iter_mut().zip(&by_weight[self.alpha.len() + self.biases.len()..]) {
            scaled.update(g.iter().map(|g| g.f64() as f32).collect(), step);
        }
        if step.scale_lr > 0.0 {
            self.scales.update(&by_scale, batch.len(), step);
        }
        self.record.note(Losses { reconstruction, total }, step);
        Ok(())
    }

    fn losses(&mut self) -> Result<Vec<Losses>> {
        Ok(self.record.read())
    }

    fn alpha(&self) -> Vec<Vec<f32>> {
        self.alpha.clone()
    }

    fn biases(&self) -> Vec<Vec<f32>> {
        self.biases.iter().map(|b| b.content.clone()).collect()
    }

    fn scaled(&self) -> Vec<Vec<f32>> {
        self.scaled.iter().map(|s| s.scale.clone()).collect()
    }

    fn grids(&self) -> Vec<Grid> {
        self.scales.grids.clone()
    }
}
