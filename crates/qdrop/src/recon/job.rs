//! What the reconstruction of a network reads, and how one of its problems is solved.

use super::key::key;
use super::solve::{self, Settings, Solution};
use super::speed::Costs;
use crate::engine::device::Device;
use crate::engine::facts::Facts;
use crate::engine::train::{Choices, Problem, RandomDraws};
use crate::error::Result;
use crate::graph::Graph;
use crate::plan::{Plan, Recipe, Stripe};
use crate::probe::{Cache, Weights};
use crate::quant::Grid;
use crate::report::{Event, Sink, UnitReport};
use crate::tensor::RowStore;
use crate::work::WorkDir;
use std::time::Instant;

/// Everything that the reconstruction of all units reads.
pub(crate) struct Job<'a> {
    pub graph: &'a Graph,
    pub facts: &'a Facts,
    pub plan: &'a Plan,
    pub recipe: &'a Recipe,
    pub device: &'a dyn Device,
    pub weight_grids: &'a [Grid],
    pub loss_weights: Weights,
    /// The samples.
    pub inputs: &'a Cache,
    /// Where values of the samples are put.
    pub store: &'a RowStore,
    /// What iterations cost.
    pub costs: &'a Costs,
    /// Where solutions are kept.
    pub work: Option<&'a WorkDir>,
    /// The units that are solved, counted among those with layers; all of them without it.
    pub share: Option<Stripe>,
}

impl Job<'_> {
    /// Whether the unit at `position` among those with layers is solved here.
    pub fn solves(&self, position: usize) -> bool {
        self.share.is_none_or(|share| share.contains(position))
    }

    /// Solves `problem`, or finds that an earlier run did: then the second value is true.
    pub fn solve(
        &self,
        problem: &Problem,
        settings: &Settings,
        draws: &RandomDraws,
        pace: &Pace,
        sink: &mut dyn Sink,
    ) -> Result<(Solution, bool)> {
        let Some(work) = self.work else { return Ok((self.learn(problem, settings, draws, pace, sink)?, false)) };
        let key = key(problem, settings, draws)?;
        if let Some(solution) = work.found(&key, sink) {
            return Ok((solution, true));
        }
        let solution = self.learn(problem, settings, draws, pace, sink)?;
        work.keep(&key, &solution)?;
        Ok((solution, false))
    }

    fn learn(
        &self,
        problem: &Problem,
        settings: &Settings,
        draws: &RandomDraws,
        pace: &Pace,
        sink: &mut dyn Sink,
    ) -> Result<Solution> {
        let mut trainer = self.device.trainer(problem)?;
        let start = Instant::now();
        solve::solve(problem, settings, &mut *trainer, Choices::Drawn(*draws), &mut |iteration, losses| {
            sink.event(&pace.event(iteration, losses.reconstruction, start.elapsed().as_secs_f64()));
            !sink.cancelled()
        })
    }
}

/// Estimates the time left from the work done so far.
pub(crate) struct Pace {
    /// Per unit to solve, and for the whole network at the end: cost of an iteration, iterations.
    work: Vec<(f64, usize)>,
    /// Position among them.
    index: usize,
}

impl Pace {
    pub fn new(job: &Job) -> Self {
        let effective = job.recipe.resolved();
        let own = || job.costs.units.iter().enumerate().filter(|(position, _)| job.solves(*position));
        let pass = |iterations: usize| own().map(move |(_, &c)| (c, iterations));
        let mut work: Vec<(f64, usize)> = pass(effective.iterations).collect();
        if effective.step_iterations > 0 {
            work.extend(pass(effective.step_iterations));
        }
        let tuning = if job.share.is_none() { job.costs.tuning } else { 0 };
        work.push((job.costs.network.max(f64::MIN_POSITIVE), tuning));
        Pace { work, index: 0 }
    }

    /// Iterations of what is solved now.
    pub fn iterations(&self) -> usize {
        self.work[self.index].1
    }

    pub fn started(&self, name: &str, layers: usize) -> Event {
        let total = self.work.iter().filter(|w| w.1 > 0).count();
        Event::UnitStarted { index: self.index, total, name: name.into(), layers, iterations: self.iterations() }
    }

    pub fn finished(&mut self, unit: &UnitReport) -> Event {
        self.index += 1;
        Event::UnitFinished { index: self.index - 1, unit: unit.clone() }
    }

    fn event(&self, iteration: usize, loss: f64, seconds: f64) -> Event {
        let (now, iterations) = self.work[self.index];
        let each = seconds / iteration as f64;
        let left = each * (iterations - iteration) as f64;
        let later: f64 = self.work[self.index + 1..].iter().map(|&(work, iterations)| work * iterations as f64).sum();
        Event::UnitProgress {
            index: self.index,
            iteration,
            iterations,
            loss,
            iterations_per_second: 1.0 / each,
            unit_seconds_left: left,
            run_seconds_left: left + later / now * each,
        }
    }
}
