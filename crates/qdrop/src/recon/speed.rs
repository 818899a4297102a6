//! How fast this machine learns, measured before it does.

use super::unit::Units;
use crate::engine::device::Device;
use crate::engine::facts::Facts;
use crate::engine::philox::Stream;
use crate::engine::train::{Choices, Problem, RandomDraws, Step};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::plan::{Effective, Measure, Plan, Recipe, Stripe, Unit};
use crate::probe::Weights;
use crate::quant::Grid;
use crate::report::Sink;
use crate::tensor::Rows;
use std::time::Instant;

/// Time that a unit is measured for at least, in seconds, and iterations.
const LEAST: (f64, usize) = (0.05, 2);
/// Iterations per unit below which a measurement would take too large a part of the run.
const WORTH: usize = 50;
/// What an iteration of the whole network takes of one of every unit, about: no weight is rounded there, but less of
/// it lies in caches.
const WHOLE: f64 = 1.0;
/// How often all samples pass through the network besides, in iterations' time: both streams, losses before and after,
/// first grids, weights of losses.
const PASSES: f64 = 4.0;
/// Share of forward passes in an iteration, about.
const FORWARD: f64 = 0.4;
/// Steps tried for a site before one is taken, about.
const REFINING: usize = 8;
/// Grid that noise is measured on.
const NOISE_STEP: f32 = 0.1;

/// Speed of a problem.
pub(crate) struct Speed {
    /// An iteration, in seconds: the median.
    pub seconds: f64,
    /// Shares of forward passes, backward passes and updates in it, 0 to 1.
    pub shares: [f64; 3],
    /// Operations of its products in an iteration, counted as direct sums.
    pub flops: f64,
}

/// Speed of the iterations of `problem` on `device`, measured for `least` seconds and iterations unless `sink` stops it.
pub(crate) fn measure(
    problem: &Problem,
    recipe: &Recipe,
    least: (f64, usize),
    device: &dyn Device,
    sink: &dyn Sink,
) -> Result<Speed> {
    let method = &recipe.method;
    let Effective { input_keep, activation_keep, rounding_lr, scale_lr, .. } = recipe.resolved();
    let (seed, batch, samples) = (method.seed, method.batch, problem.samples());
    let choices = Choices::Drawn(RandomDraws { seed, unit: 0, batch, samples, input_keep, activation_keep });
    let mut trainer = device.trainer(problem)?;
    // Half of all iterations and more have a regulariser; so have these.
    let (lambda, beta) = (method.lambda, (method.beta_start + method.beta_end) / 2.0);
    let step = |iteration| Step {
        iteration,
        choices,
        lambda,
        beta,
        rounding_lr,
        bias_lr: rounding_lr,
        scale_lr,
        scaled_lr: 0.0,
        settled_below: None,
    };
    // Buffers are made in the first one.
    trainer.step(&step(1))?;
    trainer.losses()?;
    let warm = trainer.times();
    let (began, mut each) = (Instant::now(), Vec::new());
    while each.len() < least.1 || began.elapsed().as_secs_f64() < least.0 {
        crate::probe::go_on(sink)?;
        let start = Instant::now();
        trainer.step(&step(each.len() + 2))?;
        // An iteration is over when its losses are known.
        trainer.losses()?;
        each.push(start.elapsed().as_secs_f64());
    }
    let times = trainer.times();
    let parts = [times.forward - warm.forward, times.backward - warm.backward, times.update - warm.update];
    let all = parts.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    each.sort_by(f64::total_cmp);
    Ok(Speed {
        seconds: each[(each.len() - 1) / 2],
        shares: parts.map(|part| part / all),
        flops: device.operations(&problem.program)? * batch as f64,
    })
}

/// How long the parts of a run take, in seconds where they were measured.
#[derive(Debug, Clone)]
pub(crate) struct Costs {
    /// An iteration of each unit that is solved.
    pub units: Vec<f64>,
    /// An iteration of the whole network.
    pub network: f64,
    /// Iterations on the whole network.
    pub tuning: usize,
    /// Whether these are seconds; else they only compare.
    pub measured: bool,
}

impl Costs {
    /// Measures every unit of `plan` on noise, for a run with `tuning` iterations on the whole network; where a run is too
    /// short for that, counts multiply-adds.
    pub fn new(
        graph: &Graph,
        facts: &Facts,
        plan: &Plan,
        recipe: &Recipe,
        tuning: usize,
        device: &dyn Device,
        sink: &mut dyn Sink,
    ) -> Result<Self> {
        let measured = recipe.resolved().iterations >= WORTH;
        let mut units = Vec::new();
        for unit in plan.units.iter().filter(|u| !u.layers.is_empty()) {
            crate::probe::go_on(sink)?;
            units.push(match measured {
                true => noise(graph, facts, plan, recipe, unit, device, sink)?,
                false => unit.multiply_adds.max(1) as f64,
            });
        }
        Ok(Costs { network: WHOLE * units.iter().sum::<f64>(), units, tuning, measured })
    }

    /// Estimated time of a run on `samples`, in seconds, when its first `solved` units are known and `measured` is what is
    /// measured before bits are chosen. With a `share`, no other units are solved.
    pub fn estimate(
        &self,
        recipe: &Recipe,
        samples: usize,
        solved: usize,
        measured: Option<&Measure>,
        share: Option<Stripe>,
    ) -> Option<f64> {
        let effective = recipe.resolved();
        let tuned = if share.is_none() { self.network * self.tuning as f64 } else { 0.0 };
        let own = || self.units.iter().enumerate().filter(|(at, _)| share.is_none_or(|s| s.contains(*at)));
        let tries = |lists: &[Vec<u32>]| lists.iter().map(Vec::len).sum::<usize>();
        let measuring = measured.map_or(0, |m| {
            (tries(&m.layers) + tries(&m.sites)) * recipe.mixed.samples
                + tries(&m.sites) * REFINING * effective.refine_samples
        });
        // Half of the network lies behind what is tried, on average.
        let measuring = measuring as f64 / recipe.method.batch as f64 / 2.0 * FORWARD * self.units.iter().sum::<f64>();
        let each = [effective.iterations, effective.step_iterations].map(|n| own().map(move |(_, c)| c * n as f64));
        let iterations: f64 = each.into_iter().flatten().skip(solved).sum();
        let passes = PASSES * samples as f64 / recipe.method.batch as f64 * self.units.iter().sum::<f64>();
        self.measured.then_some(iterations + passes + tuned + measuring)
    }
}

/// Seconds of an iteration of `unit` on noise.
fn noise(
    graph: &Graph,
    facts: &Facts,
    plan: &Plan,
    recipe: &Recipe,
    unit: &Unit,
    device: &dyn Device,
    sink: &dyn Sink,
) -> Result<f64> {
    let effective = recipe.resolved();
    let (learn_biases, learn_factors) = (effective.learn_biases, effective.learn_weight_scales);
    let units = Units { graph, facts, plan, learn_biases, learn_factors, device };
    let compiled = units.compile(unit, &Weights::new(), None)?;
    let batch = recipe.method.batch;
    let rows = |(i, v): (usize, &ValueId)| {
        let (width, float) = facts.get(*v).map_or((0, true), |f| (f.numel(), f.dtype.is_float()));
        let level = |l: usize| if float { (l as f32 - 127.5) / 75.0 } else { 0.0 };
        let values: Vec<f32> = Stream::new(0, i as u32, 0, 0).below(width, 256).into_iter().map(level).collect();
        (*v, Rows::new(batch, values.repeat(batch)))
    };
    let inputs = unit.inputs.iter().enumerate().map(rows).collect();
    let targets = unit.outputs.iter().enumerate().map(rows).map(|(_, rows)| rows).collect();
    let grid = |bits: u32| Grid::per_tensor(bits, NOISE_STEP, 1 << (bits - 1));
    let weights = plan.layers.iter().map(|l| grid(l.grid.bits)).collect::<Result<Vec<_>>>()?;
    let sites = plan.sites.iter().map(|s| grid(s.grid.bits)).collect::<Result<Vec<_>>>()?;
    let problem = compiled.problem(&weights, &sites, &inputs, &inputs, targets)?;
    Ok(measure(&problem, recipe, LEAST, device, sink)?.seconds)
}
