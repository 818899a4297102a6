//! Solves one unit: learned rounding and learned steps under random dropping (Wei et al. 2022, section 4).
//!
//! A [`Problem`] is plain data and can be solved alone; a [`Solution`] holds integers, grids and the loss history.

use crate::engine::naive::{self, Settings as Run};
use crate::engine::philox::Stream;
use crate::engine::program::Program;
use crate::error::{Error, Kind, Result};
use crate::quant::lsq::LEARNED_STEP_FLOOR;
use crate::quant::{Grid, QuantizedWeight, rounding};
use rayon::prelude::*;

/// Partial sums of a batch; fixed, so that sums do not depend on the number of threads.
const LANES: usize = 8;
/// Purposes of random streams beside the sites, which count from 0.
const BATCH: u32 = u32::MAX;
const INPUT: u32 = u32::MAX - 1;

/// A weight whose rounding is learned.
#[derive(Debug, Clone)]
pub struct Weight {
    /// Index of the layer in the plan.
    pub layer: usize,
    /// Float content.
    pub float: Vec<f32>,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Its grid.
    pub grid: Grid,
}

/// One unit with everything it is solved from. Samples are rows without batch axis.
#[derive(Debug)]
pub struct Problem {
    /// The unit's program; its weights are `weights`, its sites `grids`.
    pub program: Program,
    /// Weights to round.
    pub weights: Vec<Weight>,
    /// First grids of the sites.
    pub grids: Vec<Grid>,
    /// Inputs in the float network: per sample, per input.
    pub float_inputs: Vec<Vec<Vec<f32>>>,
    /// Inputs in the network quantized so far.
    pub quantized_inputs: Vec<Vec<Vec<f32>>>,
    /// Outputs of the float network.
    pub targets: Vec<Vec<Vec<f32>>>,
}

/// How to solve; see [`crate::plan::Method`] for the meaning of each.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Settings {
    pub iterations: usize,
    pub batch: usize,
    pub rounding_lr: f64,
    pub scale_lr: f64,
    pub lambda: f64,
    pub warmup: f64,
    pub beta_start: f64,
    pub beta_end: f64,
    pub input_keep: f64,
    pub activation_keep: f64,
    pub learn_scales: bool,
    pub seed: u64,
    /// Number of the unit, which separates its random streams from those of others.
    pub unit: u32,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Solution {
    /// Hardened weights.
    pub weights: Vec<QuantizedWeight>,
    /// Final rounding variables.
    pub alpha: Vec<Vec<f32>>,
    /// Final grids of the sites.
    pub grids: Vec<Grid>,
    /// Per iteration: reconstruction loss and total loss.
    pub losses: Vec<[f64; 2]>,
}

/// The random choices of one iteration.
#[derive(Debug, Clone)]
pub struct Draw {
    /// Samples of the batch.
    pub samples: Vec<usize>,
    /// Per position and input: which elements are taken from the quantized network (empty: all).
    pub inputs: Vec<Vec<Vec<bool>>>,
    /// Per position and site: which elements keep the quantized value (`None`: the site is float).
    pub sites: Vec<Vec<Option<Vec<bool>>>>,
}

impl Draw {
    /// The choices of `iteration` (from 1), from counter-based random numbers.
    pub fn random(problem: &Problem, settings: &Settings, iteration: usize) -> Self {
        let stream = |purpose| Stream::new(settings.seed, settings.unit, purpose, iteration as u32);
        let samples = stream(BATCH).below(settings.batch, problem.targets.len());
        let numel = |slot: usize| problem.program.slots[slot].shape.iter().product::<usize>();
        let mask = |purpose, position, n: usize, keep: f64| {
            if keep >= 1.0 { Vec::new() } else { stream(purpose).mask(position * n, n, keep) }
        };
        let of_inputs = |p| {
            let each = problem.program.inputs.iter().enumerate();
            each.map(|(i, &s)| mask(INPUT - i as u32, p, numel(s), settings.input_keep)).collect()
        };
        let of_sites = |p| {
            let one = |(i, &s): (usize, &usize)| {
                (settings.activation_keep > 0.0).then(|| mask(i as u32, p, numel(s), settings.activation_keep))
            };
            problem.program.sites.iter().enumerate().map(one).collect()
        };
        let positions: Vec<usize> = (0..settings.batch).collect();
        Draw {
            inputs: positions.par_iter().map(|&p| of_inputs(p)).collect(),
            sites: positions.par_iter().map(|&p| of_sites(p)).collect(),
            samples,
        }
    }
}

/// Adam (Kingma & Ba 2015) with the usual constants.
struct Adam {
    m: Vec<f32>,
    v: Vec<f32>,
}

impl Adam {
    fn new(n: usize) -> Self {
        Adam { m: vec![0.0; n], v: vec![0.0; n] }
    }

    fn step(&mut self, x: &mut [f32], g: &[f32], lr: f64, t: usize) {
        let (c1, c2) = (1.0 - 0.9f64.powi(t as i32), 1.0 - 0.999f64.powi(t as i32));
        let (size, root) = ((lr / c1) as f32, c2.sqrt() as f32);
        for (((x, &g), m), v) in x.iter_mut().zip(g).zip(&mut self.m).zip(&mut self.v) {
            *m += (g - *m) * 0.1;
            *v = *v * 0.999 + g * g * 0.001;
            *x -= size * *m / (v.sqrt() / root + 1e-8);
        }
    }
}

/// Solves `problem`; `draw` gives the random choices of an iteration, `progress` hears iteration and loss and answers
/// whether to go on.
pub fn solve(
    problem: &Problem,
    settings: &Settings,
    draw: impl Fn(usize) -> Draw,
    mut progress: impl FnMut(usize, f64) -> bool,
) -> Result<Solution> {
    let mut alpha = Vec::new();
    for w in &problem.weights {
        alpha.push(rounding::alpha_init(&w.float, &w.shape, &w.grid)?);
    }
    let mut grids = problem.grids.clone();
    let mut weight_adam: Vec<Adam> = alpha.iter().map(|a| Adam::new(a.len())).collect();
    let mut scale_adam: Vec<Adam> = grids.iter().map(|_| Adam::new(1)).collect();
    let mut losses = Vec::with_capacity(settings.iterations);
    let start = settings.warmup * settings.iterations as f64;
    for iteration in 1..=settings.iterations {
        let soft = |i: usize| {
            let w = &problem.weights[i];
            rounding::soft(&w.float, &alpha[i], &w.shape, &w.grid)
        };
        let weights = (0..alpha.len()).map(soft).collect::<Result<Vec<_>>>()?;
        for grid in &mut grids {
            grid.scale[0] = grid.scale[0].abs().max(LEARNED_STEP_FLOOR);
        }
        let choice = draw(iteration);
        let batch = choice.samples.len();
        let lane = |lane: usize| lane_gradients(problem, &weights, &grids, &choice, lane);
        let mut lanes = (0..LANES.min(batch)).into_par_iter().map(lane).collect::<Result<Vec<_>>>()?.into_iter();
        let Some(mut sum) = lanes.next() else { return Err(Error::data("expected a batch of samples, got none")) };
        for other in lanes {
            sum.add(&other);
        }
        let mut total = sum.loss;
        let on = iteration as f64 >= start;
        let rest = (1.0 - (iteration as f64 - start) / (settings.iterations as f64 - start)).max(0.0);
        let beta = (settings.beta_end + (settings.beta_start - settings.beta_end) * rest) as f32;
        for (i, w) in problem.weights.iter().enumerate() {
            let mut g = rounding::grad_alpha(&w.float, &alpha[i], &sum.weights[i], &w.shape, &w.grid)?;
            if on && settings.lambda > 0.0 {
                total += settings.lambda * rounding::regulariser(&alpha[i], beta);
                let lambda = settings.lambda as f32;
                let extra = rounding::regulariser_gradient(&alpha[i], beta);
                g.iter_mut().zip(extra).for_each(|(g, e)| *g += lambda * e);
            }
            weight_adam[i].step(&mut alpha[i], &g, settings.rounding_lr, iteration);
        }
        if settings.learn_scales && settings.activation_keep > 0.0 {
            let turn = std::f64::consts::PI * (iteration - 1) as f64 / settings.iterations as f64;
            let lr = settings.scale_lr * 0.5 * (1.0 + turn.cos());
            for (i, grid) in grids.iter_mut().enumerate() {
                let numel = batch * problem.program.slots[problem.program.sites[i]].shape.iter().product::<usize>();
                let g = (sum.scales[i] * naive::step_factor(numel, grid)) as f32;
                scale_adam[i].step(&mut grid.scale, &[g], lr, iteration);
            }
        }
        if !total.is_finite() {
            return Err(Error::new(Kind::Numeric, format!("loss is {total} at iteration {iteration}")));
        }
        losses.push([sum.loss, total]);
        if !progress(iteration, sum.loss) {
            return Err(Error::new(Kind::Interrupted, "stopped on request"));
        }
    }
    for grid in &mut grids {
        grid.scale[0] = grid.scale[0].abs().max(LEARNED_STEP_FLOOR);
    }
    let harden = |(w, a): (&Weight, &Vec<f32>)| rounding::harden(w.layer, &w.float, a, &w.shape, &w.grid);
    let weights = problem.weights.iter().zip(&alpha).map(harden).collect::<Result<Vec<_>>>()?;
    Ok(Solution { weights, alpha, grids, losses })
}

struct Sum {
    loss: f64,
    weights: Vec<Vec<f32>>,
    scales: Vec<f64>,
}

impl Sum {
    fn add(&mut self, other: &Sum) {
        self.loss += other.loss;
        for (a, b) in self.weights.iter_mut().zip(&other.weights) {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        }
        self.scales.iter_mut().zip(&other.scales).for_each(|(a, b)| *a += b);
    }
}

/// Loss and gradients of the batch positions `lane`, `lane + LANES`, …
fn lane_gradients(problem: &Problem, weights: &[Vec<f32>], grids: &[Grid], draw: &Draw, lane: usize) -> Result<Sum> {
    let zeros = weights.iter().map(|w| vec![0.0; w.len()]).collect();
    let mut sum = Sum { loss: 0.0, weights: zeros, scales: vec![0.0; grids.len()] };
    for p in (lane..draw.samples.len()).step_by(LANES) {
        let sample = draw.samples[p];
        let inputs = (problem.quantized_inputs[sample].iter().zip(&problem.float_inputs[sample]))
            .zip(&draw.inputs[p])
            .map(|((q, f), mask)| {
                let pick =
                    |(i, (&q, &f)): (usize, (&f32, &f32))| if mask.get(i).copied().unwrap_or(true) { q } else { f };
                q.iter().zip(f).enumerate().map(pick).collect()
            })
            .collect();
        let run = Run { weights, grids, keep: &draw.sites[p] };
        let tape = naive::forward(&problem.program, run, inputs)?;
        let mut upstream = Vec::new();
        for ((y, target), &slot) in
            tape.outputs(&problem.program).zip(&problem.targets[sample]).zip(&problem.program.outputs)
        {
            let (part, g) = loss(y, target, &problem.program.slots[slot].shape, draw.samples.len());
            sum.loss += part;
            upstream.push(g);
        }
        let g = tape.backward(&problem.program, run, upstream)?;
        sum.add(&Sum { loss: 0.0, weights: g.weights, scales: g.scales });
    }
    Ok(sum)
}

/// Σ over the channel axis (axis 1 for images, the last for sequences) of (y - target)², mean over the rest and the
/// batch; and its gradient to y.
pub fn loss(y: &[f32], target: &[f32], shape: &[usize], batch: usize) -> (f64, Vec<f32>) {
    let channels = if shape.len() == 3 { shape[2] } else { shape.get(1).copied().unwrap_or(1) };
    let rest = (y.len() / channels.max(1) * batch).max(1) as f64;
    let sum: f64 = y.iter().zip(target).map(|(&a, &b)| f64::from(a - b) * f64::from(a - b)).sum();
    let factor = (2.0 / rest) as f32;
    (sum / rest, y.iter().zip(target).map(|(&a, &b)| factor * (a - b)).collect())
}
