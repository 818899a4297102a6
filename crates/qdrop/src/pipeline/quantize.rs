//! The main job: from a simplified graph, a recipe and samples to a quantized graph.

use super::run::{self, Network};
use super::shapes::input_shapes;
use crate::calibrate::{self, Watch};
use crate::data::Samples;
use crate::engine::facts::{self, Facts};
use crate::engine::naive::{self, Settings as Run};
use crate::engine::program::{self, Program, Region};
use crate::error::{Error, Kind, Result};
use crate::graph::{Graph, ValueId};
use crate::plan::{MethodName, Plan, Recipe, SiteId, Unit};
use crate::quant::{Grid, QuantizedWeight};
use crate::recon::{self, Draw, Problem, Weight};
use crate::report::{Event, Report, Sink, Stage, UnitReport};
use crate::{lower, onnx};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::time::Instant;

/// What [`quantize`] returns.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// The network with learned integers and grids, ready to be written.
    pub graph: Graph,
    /// The same grids with nearest rounding.
    pub nearest: Graph,
    /// The decisions both follow.
    pub plan: Plan,
    /// What was done; the caller adds file names, sizes and accuracy.
    pub report: Report,
}

/// Values of one stream (float or quantized) that units still to come read: per value, per sample.
type Cache = BTreeMap<ValueId, Vec<Vec<f32>>>;

/// Quantizes `graph` (simplified by [`super::prepare`]) as `recipe` asks, calibrating on `samples`.
pub fn quantize(graph: &Graph, recipe: &Recipe, samples: &dyn Samples, sink: &mut dyn Sink) -> Result<Quantized> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(recipe.method.threads).build();
    let pool = pool.map_err(|e| Error::new(Kind::Io, format!("cannot start threads: {e}")))?;
    let shapes = run::shapes_of(samples)?;
    let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;
    let plan = crate::plan::plan(graph, &facts, recipe)?;
    let mut report = Report::new(recipe.method.name);
    (report.weight_bits, report.activation_bits) = (recipe.weights.bits, recipe.activations.bits);
    let mut grids = observe(graph, &plan, recipe, &shapes, samples, sink)?;
    let weight_grids = pool.install(|| calibrate::fit_weights(graph, &plan))?;
    let mut weights = calibrate::round_to_nearest(graph, &plan, &weight_grids)?;
    let nearest = write(graph, &plan, &weights, &grids, recipe)?;
    if recipe.method.name != MethodName::Rtn {
        let mut float: Cache = BTreeMap::new();
        for i in 0..samples.len() {
            for (&v, tensor) in graph.inputs.iter().zip(samples.get(i)?) {
                float.entry(v).or_default().push(tensor.to_f32()?);
            }
        }
        let mut quantized = float.clone();
        let total = plan.units.iter().filter(|u| !u.layers.is_empty()).count();
        let mut index = 0;
        for (number, unit) in plan.units.iter().enumerate() {
            let (program, sites) = compile(graph, &facts, &plan, unit)?;
            let float_weights = contents(graph, unit, &plan)?;
            let no_site = vec![None; sites.len()];
            let every: Vec<Grid> = sites.iter().map(|s| grids[s.0 as usize].clone()).collect();
            let advance = |cache: &Cache, w: &[Vec<f32>], g: &[Grid], keep: &[Option<Vec<bool>>]| {
                pool.install(|| outputs(&program, unit, cache, Run { weights: w, grids: g, keep }, samples.len()))
            };
            let targets = advance(&float, &float_weights, &every, &no_site)?;
            if !unit.layers.is_empty() {
                let problem = Problem {
                    weights: (unit.layers.iter().zip(float_weights))
                        .map(|(l, float)| {
                            let l = l.0 as usize;
                            Weight {
                                layer: l,
                                float,
                                shape: plan.layers[l].shape.clone(),
                                grid: weight_grids[l].clone(),
                            }
                        })
                        .collect(),
                    grids: every.clone(),
                    float_inputs: gather(&float, &unit.inputs, samples.len())?,
                    quantized_inputs: gather(&quantized, &unit.inputs, samples.len())?,
                    targets,
                    program: program.clone(),
                };
                let settings = settings(recipe, number as u32);
                let names = unit.layers.iter().map(|l| plan.layers[l.0 as usize].name.clone()).collect::<Vec<_>>();
                sink.event(&Event::UnitStarted {
                    index,
                    total,
                    name: unit.name.clone(),
                    layers: names.len(),
                    iterations: settings.iterations,
                });
                let start = Instant::now();
                let before = distance(
                    &problem,
                    &advance(&quantized, &dequantized(&weights, unit, &plan)?, &every, &on(&sites))?,
                );
                let solution = {
                    let sink = &mut *sink;
                    let mut progress = |iteration: usize, loss: f64| {
                        let speed = iteration as f64 / start.elapsed().as_secs_f64();
                        let left = (settings.iterations - iteration) as f64 / speed;
                        let run_seconds_left = left + (total - index - 1) as f64 * settings.iterations as f64 / speed;
                        sink.event(&Event::UnitProgress {
                            index,
                            iteration,
                            iterations: settings.iterations,
                            loss,
                            iterations_per_second: speed,
                            unit_seconds_left: left,
                            run_seconds_left,
                        });
                        !sink.cancelled()
                    };
                    let mut last = Vec::new();
                    let result = pool.install(|| {
                        recon::solve(
                            &problem,
                            &settings,
                            |i| Draw::random(&problem, &settings, i),
                            |i, l| {
                                last.push((i, l));
                                true
                            },
                        )
                    });
                    if let Some(&(i, l)) = last.last() {
                        if !progress(i, l) {
                            return Err(Error::new(Kind::Interrupted, "stopped on request"));
                        }
                    }
                    result.map_err(|e| e.at(format!("unit `{}`", unit.name)))?
                };
                for weight in solution.weights {
                    let l = weight.layer;
                    weights[l] = weight;
                }
                for (site, grid) in sites.iter().zip(solution.grids) {
                    grids[site.0 as usize] = grid;
                }
                let learned: Vec<Grid> = sites.iter().map(|s| grids[s.0 as usize].clone()).collect();
                let after = distance(
                    &problem,
                    &advance(&quantized, &dequantized(&weights, unit, &plan)?, &learned, &on(&sites))?,
                );
                let unit_report = UnitReport {
                    name: unit.name.clone(),
                    layers: names,
                    loss_before: before,
                    loss_after: after,
                    iterations: settings.iterations,
                    seconds: start.elapsed().as_secs_f64(),
                };
                sink.event(&Event::UnitFinished { index, unit: unit_report.clone() });
                report.units.push(unit_report);
                index += 1;
            }
            let learned: Vec<Grid> = sites.iter().map(|s| grids[s.0 as usize].clone()).collect();
            let next = advance(&quantized, &dequantized(&weights, unit, &plan)?, &learned, &on(&sites))?;
            let truth = advance(&float, &contents(graph, unit, &plan)?, &every, &no_site)?;
            store(&mut quantized, unit, next);
            store(&mut float, unit, truth);
            for cache in [&mut float, &mut quantized] {
                cache.retain(|v, _| plan.units[number + 1..].iter().any(|u| u.inputs.contains(v)));
            }
        }
    }
    let graph = write(graph, &plan, &weights, &grids, recipe)?;
    Ok(Quantized { graph, nearest, plan, report })
}

fn settings(recipe: &Recipe, unit: u32) -> recon::Settings {
    let m = &recipe.method;
    let qdrop = m.name == MethodName::Qdrop;
    recon::Settings {
        iterations: m.iterations,
        batch: m.batch,
        rounding_lr: m.rounding_lr,
        scale_lr: m.scale_lr,
        lambda: m.lambda,
        warmup: m.warmup,
        beta_start: m.beta_start,
        beta_end: m.beta_end,
        input_keep: m.input_keep.unwrap_or(if qdrop { 0.5 } else { 0.0 }),
        activation_keep: m.activation_keep.unwrap_or(if qdrop { 0.5 } else { 0.0 }),
        learn_scales: m.learn_scales.unwrap_or(qdrop),
        seed: m.seed,
        unit,
    }
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
    let first = crate::data::Subset::first(samples, recipe.activations.samples.min(samples.len()));
    let mut watch = Watch::new(plan);
    run::each(
        &first,
        recipe.method.threads,
        Stage::Calibrate,
        sink,
        |_, inputs| network.run(&inputs),
        |_, values| {
            watch.observe_all(&values.iter().map(Vec::as_slice).collect::<Vec<_>>());
            Ok(())
        },
    )?;
    watch.fit(plan)
}

fn write(graph: &Graph, plan: &Plan, weights: &[QuantizedWeight], grids: &[Grid], recipe: &Recipe) -> Result<Graph> {
    let mut raised = graph.clone();
    let opset = lower::required_opset(recipe.output.format, plan);
    if raised.opset < opset {
        onnx::raise_opset(&mut raised, opset)?;
    }
    lower::lower(&raised, plan, weights, grids, recipe.output.format)
}

/// The unit's program with all sites on values it computes or reads for itself.
fn compile(graph: &Graph, facts: &Facts, plan: &Plan, unit: &Unit) -> Result<(Program, Vec<SiteId>)> {
    let mut sites = unit.sites.clone();
    for (i, site) in plan.sites.iter().enumerate() {
        let read_here = |r: &Vec<_>| r.iter().any(|(n, _)| unit.nodes.contains(n));
        let id = SiteId(i as u32);
        if !sites.contains(&id) && unit.inputs.contains(&site.value) && site.readers.as_ref().is_some_and(read_here) {
            sites.push(id);
        }
    }
    let region = Region {
        nodes: unit.nodes.clone(),
        inputs: unit.inputs.clone(),
        outputs: unit.outputs.clone(),
        weights: unit.layers.iter().map(|l| plan.layers[l.0 as usize].weight).collect(),
        sites: sites
            .iter()
            .map(|s| (plan.sites[s.0 as usize].value, plan.sites[s.0 as usize].readers.clone()))
            .collect(),
    };
    Ok((program::compile(graph, facts, &region)?, sites))
}

fn contents(graph: &Graph, unit: &Unit, plan: &Plan) -> Result<Vec<Vec<f32>>> {
    let content = |l: &crate::plan::LayerId| match graph.constant(plan.layers[l.0 as usize].weight) {
        Some(tensor) => tensor.to_f32(),
        None => Err(Error::internal(format!("weight of `{}` is not constant", plan.layers[l.0 as usize].name))),
    };
    unit.layers.iter().map(content).collect()
}

fn dequantized(weights: &[QuantizedWeight], unit: &Unit, plan: &Plan) -> Result<Vec<Vec<f32>>> {
    let one = |l: &crate::plan::LayerId| {
        let w = &weights[l.0 as usize];
        w.grid
            .dequantize(&plan.layers[l.0 as usize].shape, &w.integers.iter().map(|&i| i32::from(i)).collect::<Vec<_>>())
    };
    unit.layers.iter().map(one).collect()
}

/// Every site on, nothing dropped.
fn on(sites: &[SiteId]) -> Vec<Option<Vec<bool>>> {
    vec![Some(Vec::new()); sites.len()]
}

fn gather(cache: &Cache, values: &[ValueId], n: usize) -> Result<Vec<Vec<Vec<f32>>>> {
    let row = |i: usize| {
        let one = |v: &ValueId| {
            cache.get(v).map(|rows| rows[i].clone()).ok_or_else(|| Error::internal("value is not cached"))
        };
        values.iter().map(one).collect()
    };
    (0..n).map(row).collect()
}

fn outputs(program: &Program, unit: &Unit, cache: &Cache, run: Run<f32>, n: usize) -> Result<Vec<Vec<Vec<f32>>>> {
    let inputs = gather(cache, &unit.inputs, n)?;
    let one = |inputs: Vec<Vec<f32>>| {
        let tape = naive::forward(program, run, inputs)?;
        Ok(tape.outputs(program).map(<[f32]>::to_vec).collect())
    };
    inputs.into_par_iter().map(one).collect()
}

fn store(cache: &mut Cache, unit: &Unit, rows: Vec<Vec<Vec<f32>>>) {
    for row in rows {
        for (&v, value) in unit.outputs.iter().zip(row) {
            cache.entry(v).or_default().push(value);
        }
    }
}

/// Mean reconstruction loss of `rows` against the targets.
fn distance(problem: &Problem, rows: &[Vec<Vec<f32>>]) -> f64 {
    let mut sum = 0.0;
    for (row, target) in rows.iter().zip(&problem.targets) {
        for ((y, t), &slot) in row.iter().zip(target).zip(&problem.program.outputs) {
            sum += recon::loss(y, t, &problem.program.slots[slot].shape, rows.len()).0;
        }
    }
    sum
}
