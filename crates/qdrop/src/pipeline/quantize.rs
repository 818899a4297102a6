//! The main job: from a simplified graph, a recipe and samples to a quantized graph.

use super::equalize;
use super::refine;
use super::run::{self, Network};
use super::samples;
use super::shapes::input_shapes;
use super::unit::{Biases, Cache, Compiled, Pooled};
use crate::calibrate::{self, Watch};
use crate::data::Samples;
use crate::engine::cpu::CpuTrainer;
use crate::engine::facts::{self, Facts};
use crate::error::Result;
use crate::graph::Graph;
use crate::plan::{Plan, Recipe, Unit};
use crate::quant::{Grid, QuantizedWeight};
use crate::recon::{self, Problem, RandomDraws, Solution};
use crate::report::{Event, Report, Sink, Stage, UnitReport, timed};
use crate::tensor::{Rows, Tensor};
use crate::{lower, onnx};
use rayon::ThreadPool;
use std::sync::Arc;
use std::time::Instant;

/// What [`quantize`] returns.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// The network with learned integers and grids, ready to be written.
    pub graph: Graph,
    /// The same network rounded to nearest on the first grids.
    pub nearest: Graph,
    /// The decisions both follow.
    pub plan: Plan,
    /// Integers of every weight, in the plan's order.
    pub weights: Vec<QuantizedWeight>,
    /// Grid of every site, in the plan's order.
    pub grids: Vec<Grid>,
    /// What was done; the caller adds file names, sizes and accuracy.
    pub report: Report,
}

/// Quantizes `graph` (simplified by [`super::prepare`]) as `recipe` asks, calibrating on `samples`.
pub fn quantize(graph: &Graph, recipe: &Recipe, samples: &dyn Samples, sink: &mut dyn Sink) -> Result<Quantized> {
    let pool = run::pool(recipe.method.threads)?;
    let shapes = run::shapes_of(samples)?;
    let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;
    let plan = crate::plan::plan(graph, &facts, recipe)?;
    let mut report = Report::new(recipe.method.name);
    (report.weight_bits, report.activation_bits) = (recipe.weights.bits, recipe.activations.bits);
    (report.seed, report.samples) = (recipe.method.seed, samples.len());

    let equalized = if recipe.activations.equalize_samples > 0 && !plan.sites.is_empty() {
        let (equalized, timing) = timed(sink, Stage::Equalize, None, |sink| {
            let few = samples::spread(samples, Some(recipe.activations.equalize_samples))?;
            equalize::equalize(graph, &facts, &plan, load(graph, &few, &pool)?, &pool, sink)
        })?;
        report.timings.push(timing);
        Some(equalized)
    } else {
        None
    };
    let graph = equalized.as_ref().unwrap_or(graph);
    let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;

    let count = recipe.activations.samples.min(samples.len());
    let ((mut grids, weight_grids), timing) = timed(sink, Stage::Calibrate, Some(count), |sink| {
        let grids = observe(graph, &plan, recipe, &shapes, samples, sink)?;
        Ok((grids, pool.install(|| calibrate::fit_weights(graph, &plan))?))
    })?;
    report.timings.push(timing);
    if recipe.activations.refine_samples > 0 && !grids.is_empty() {
        let ((), timing) = timed(sink, Stage::Refine, Some(grids.len()), |sink| {
            let few = samples::spread(samples, Some(recipe.activations.refine_samples))?;
            let inputs = load(graph, &few, &pool)?;
            refine::refine(graph, &facts, &plan, inputs, &pool, &mut grids, sink)
        })?;
        report.timings.push(timing);
    }
    let weights = calibrate::round_to_nearest(graph, &plan, &weight_grids)?;
    let nearest = write(graph, &plan, &weights, &Biases::new(), &grids, recipe)?;
    let (weights, biases, grids) = if recipe.method.resolved().learns {
        report.iterations = recipe.method.iterations;
        let job = Job { graph, facts: &facts, plan: &plan, recipe, pool: &pool, weight_grids: &weight_grids };
        let (learned, timing) = timed(sink, Stage::Reconstruct, None, |sink| {
            let inputs = load(graph, samples, &pool)?;
            job.reconstruct(inputs, weights, grids, &mut report.units, sink)
        })?;
        report.timings.push(timing);
        learned
    } else {
        (weights, Biases::new(), grids)
    };
    let graph = write(graph, &plan, &weights, &biases, &grids, recipe)?;
    Ok(Quantized { graph, nearest, plan, weights, grids, report })
}

/// All samples, per input of the graph.
fn load(graph: &Graph, samples: &dyn Samples, pool: &ThreadPool) -> Result<Cache> {
    use rayon::prelude::*;
    let all =
        pool.install(|| (0..samples.len()).into_par_iter().map(|i| samples.get(i)).collect::<Result<Vec<_>>>())?;
    Ok(graph.inputs.iter().copied().zip(run::rows(&all)?).collect())
}

/// First grids of all sites, from the float network.
fn observe(
    graph: &Graph,
    plan: &Plan,
    recipe: &Recipe,
    shapes: &[Vec<usize>],
    samples: &dyn Samples,
    sink: &mut dyn Sink,
) -> Result<Vec<Grid>> {
    if plan.sites.is_empty() {
        return Ok(Vec::new());
    }
    let network = Network::new(graph, shapes, plan.sites.iter().map(|s| s.value).collect())?;
    let some = samples::spread(samples, Some(recipe.activations.samples))?;
    let mut watch = Watch::new(plan);
    let stage = Stage::Calibrate;
    run::each(
        &some,
        network.chunk,
        recipe.method.threads,
        stage,
        sink,
        |inputs| network.run(inputs),
        |_, values| {
            for i in 0..values.first().map_or(0, Rows::len) {
                watch.observe_all(&values.iter().map(|rows| rows.row(i)).collect::<Vec<_>>());
            }
            Ok(())
        },
    )?;
    watch.fit(plan)
}

fn write(
    graph: &Graph,
    plan: &Plan,
    weights: &[QuantizedWeight],
    biases: &Biases,
    grids: &[Grid],
    recipe: &Recipe,
) -> Result<Graph> {
    let mut raised = graph.clone();
    for (&id, content) in biases {
        let bias = raised.value_mut(id);
        if let Some(old) = &bias.constant {
            let content: Vec<f64> = content.iter().map(|&v| f64::from(v)).collect();
            let new = Tensor::from_f64(old.dtype(), old.shape(), &content)?;
            (bias.constant, bias.origin) = (Some(Arc::new(new)), None);
        }
    }
    let opset = lower::required_opset(recipe.output.format, plan);
    if raised.opset < opset {
        onnx::raise_opset(&mut raised, opset)?;
    }
    lower::lower(&raised, plan, weights, grids, recipe.output.format)
}

/// Everything that the reconstruction of all units reads.
struct Job<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
    plan: &'a Plan,
    recipe: &'a Recipe,
    pool: &'a ThreadPool,
    weight_grids: &'a [Grid],
}

impl Job<'_> {
    /// Solves the units in order. Both streams advance through each unit once, when it is solved.
    fn reconstruct(
        &self,
        inputs: Cache,
        mut weights: Vec<QuantizedWeight>,
        mut grids: Vec<Grid>,
        reports: &mut Vec<UnitReport>,
        sink: &mut dyn Sink,
    ) -> Result<(Vec<QuantizedWeight>, Biases, Vec<Grid>)> {
        let units = &self.plan.units;
        let mut biases = Biases::new();
        let (mut float, mut quantized) = (inputs.clone(), inputs);
        let mut pace = Pace::new(self.graph, self.facts, units, self.recipe.method.iterations);
        for (number, unit) in units.iter().enumerate() {
            let compiled = Compiled::new(self.graph, self.facts, self.plan, unit, self.recipe.method.learn_biases)?;
            let targets = self.pool.install(|| compiled.float_outputs(&float))?;
            let next = if unit.layers.is_empty() {
                self.pool.install(|| compiled.quantized_outputs(&quantized, &weights, &biases, &grids))?
            } else {
                let start = Instant::now();
                let name = |l: &crate::plan::LayerId| self.plan.layers[l.0 as usize].name.clone();
                let layers: Vec<String> = unit.layers.iter().map(name).collect();
                sink.event(&Event::UnitStarted {
                    index: pace.index,
                    total: pace.work.len(),
                    name: unit.name.clone(),
                    layers: layers.len(),
                    iterations: pace.iterations,
                });
                let nearest =
                    self.pool.install(|| compiled.quantized_outputs(&quantized, &weights, &biases, &grids))?;
                let loss_before = compiled.loss(&nearest, &targets);
                drop(nearest);
                let problem = compiled.problem(self.weight_grids, &grids, &float, &quantized, targets.clone())?;
                let mut solution = self
                    .solve(&problem, number as u32, &mut pace, sink)
                    .map_err(|e| e.at(format!("unit `{}`", unit.name)))?;
                compiled.keep_biases(&mut solution, &mut biases);
                for weight in solution.weights {
                    let layer = weight.layer;
                    weights[layer] = weight;
                }
                for (site, grid) in compiled.sites.iter().zip(solution.grids) {
                    grids[site.0 as usize] = grid;
                }
                let next = self.pool.install(|| compiled.quantized_outputs(&quantized, &weights, &biases, &grids))?;
                let report = UnitReport {
                    name: unit.name.clone(),
                    layers,
                    loss_before,
                    loss_after: compiled.loss(&next, &targets),
                    iterations: pace.iterations,
                    seconds: start.elapsed().as_secs_f64(),
                };
                sink.event(&Event::UnitFinished { index: pace.index, unit: report.clone() });
                reports.push(report);
                pace.index += 1;
                next
            };
            compiled.store(&mut float, targets);
            compiled.store(&mut quantized, next);
            for cache in [&mut float, &mut quantized] {
                cache.retain(|v, _| units[number + 1..].iter().any(|u| u.inputs.contains(v)));
            }
        }
        Ok((weights, biases, grids))
    }

    fn solve(&self, problem: &Problem, unit: u32, pace: &mut Pace, sink: &mut dyn Sink) -> Result<Solution> {
        let method = &self.recipe.method;
        let effective = method.resolved();
        let settings = recon::Settings {
            iterations: method.iterations,
            rounding_lr: effective.rounding_lr,
            scale_lr: effective.scale_lr,
            lambda: method.lambda,
            warmup: method.warmup,
            beta_start: method.beta_start,
            beta_end: method.beta_end,
        };
        let draws = RandomDraws {
            seed: method.seed,
            unit,
            batch: method.batch,
            samples: problem.samples(),
            input_keep: effective.input_keep,
            activation_keep: effective.activation_keep,
        };
        let mut trainer = Pooled { pool: self.pool, trainer: self.pool.install(|| CpuTrainer::new(problem))? };
        let start = Instant::now();
        recon::solve(problem, &settings, &mut trainer, &draws, &mut |iteration, losses| {
            sink.event(&pace.event(iteration, losses.reconstruction, start.elapsed().as_secs_f64()));
            !sink.cancelled()
        })
    }
}

/// Multiply-adds that take as long as reading and writing one value, about.
const TRAFFIC: u64 = 50;

/// Estimates the time left from the work done so far.
struct Pace {
    /// Multiply-adds of an iteration's sample and what its memory traffic comes to, per unit to solve.
    work: Vec<f64>,
    /// Position among the units to solve.
    index: usize,
    iterations: usize,
}

impl Pace {
    fn new(graph: &Graph, facts: &Facts, units: &[Unit], iterations: usize) -> Self {
        let numel = |v| facts.get(v).map_or(0, |f| f.numel() as u64);
        let values = |u: &Unit| -> u64 {
            u.nodes.iter().flat_map(|&n| graph.node(n).outputs.iter().flatten().copied()).map(numel).sum()
        };
        let work = |u: &Unit| u.multiply_adds.saturating_add(TRAFFIC * values(u)).max(1) as f64;
        let solved = units.iter().filter(|u| !u.layers.is_empty());
        Pace { work: solved.map(work).collect(), index: 0, iterations }
    }

    fn event(&self, iteration: usize, loss: f64, seconds: f64) -> Event {
        let each = seconds / iteration as f64;
        let left = each * (self.iterations - iteration) as f64;
        let later: f64 = self.work[self.index + 1..].iter().sum();
        Event::UnitProgress {
            index: self.index,
            iteration,
            iterations: self.iterations,
            loss,
            iterations_per_second: 1.0 / each,
            unit_seconds_left: left,
            run_seconds_left: left + later / self.work[self.index] * each * self.iterations as f64,
        }
    }
}
