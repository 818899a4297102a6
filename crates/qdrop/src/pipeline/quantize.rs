//! The main job: from a simplified graph, a recipe and samples to a quantized graph.

use super::equalize;
use super::memory;
use super::padding::Padding;
use super::reconstruct::{Found, Job};
use super::record::{self, Seen};
use super::refine;
use super::run::{self, Network};
use super::samples;
use super::shapes::input_shapes;
use super::speed::Costs;
use super::unit::Biases;
use super::weigh::{self, Weights};
use super::work::WorkDir;
use crate::calibrate::{self, Watch};
use crate::data::Samples;
use crate::engine::facts::{self, Facts};
use crate::error::Result;
use crate::graph::Graph;
use crate::plan::{Plan, Recipe};
use crate::quant::{Grid, QuantizedWeight};
use crate::report::{Event, Report, Sink, Stage, timed};
use crate::tensor::{Rows, Shelf, Tensor};
use crate::{lower, onnx};
use std::sync::Arc;

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

/// Quantizes `graph` (simplified by [`super::prepare`]) as `recipe` asks, calibrating on `samples`. Every unit solved is
/// kept in `work`, from where another run takes it that would come to the same problem.
pub fn quantize(
    graph: &Graph,
    recipe: &Recipe,
    samples: &dyn Samples,
    work: Option<&WorkDir>,
    sink: &mut dyn Sink,
) -> Result<Quantized> {
    let effective = recipe.resolved();
    let pool = run::pool(recipe.method.threads)?;
    let shapes = run::shapes_of(samples)?;
    let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;
    let plan = crate::plan::plan(graph, &facts, recipe)?;
    recipe.notes().iter().for_each(|&note| sink.event(&Event::Note { message: note.into() }));
    let mut report = Report::new(recipe.method.name);
    (report.weight_bits, report.activation_bits) = (recipe.weights.bits, recipe.activations.bits);
    (report.seed, report.samples) = (recipe.method.seed, samples.len());
    (report.preset, report.recipe) = (recipe.method.preset, recipe.explicit().to_toml()?);
    (report.plan, report.float) = record::plan(graph, &plan);

    let room = memory::room(graph, &facts, &plan, recipe, samples.len(), samples.held_bytes())?;
    let temporary = std::env::temp_dir();
    let shelf = Shelf::new(room, work.map_or(temporary.as_path(), WorkDir::path), recipe.method.cache.precision());
    let padding = Padding::read(graph, &facts, recipe, samples)?;
    let costs = match effective.learns {
        true => {
            let (costs, timing) =
                timed(sink, Stage::Bench, None, |sink| Costs::new(graph, &facts, &plan, recipe, &pool, sink))?;
            report.timings.push(timing);
            report.estimate = costs.estimate(recipe, samples.len(), work.map_or(0, WorkDir::solutions));
            report.estimate.iter().for_each(|&seconds| sink.event(&Event::Estimate { seconds }));
            Some(costs)
        }
        false => None,
    };
    let mut equalized = None;
    let pairs = calibrate::layer_pairs(graph, &plan);
    if effective.equalize_samples > 0 && !pairs.is_empty() {
        let (equal, timing) = timed(sink, Stage::Equalize, Some(pairs.len()), |sink| {
            let few = samples::spread(samples, Some(effective.equalize_samples))?;
            equalize::equalize(graph, &facts, &plan, &pairs, run::load(graph, &few, &pool, &shelf)?, &pool, sink)
        })?;
        report.timings.push(timing);
        equalized = Some(equal);
    }
    let graph = equalized.as_ref().unwrap_or(graph);
    let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;

    let count = recipe.activations.samples.min(samples.len());
    let ((watch, first, weight_grids), timing) = timed(sink, Stage::Calibrate, Some(count), |sink| {
        let some = samples::spread(samples, Some(count))?;
        let few = Padding::read(graph, &facts, recipe, &some)?;
        let watch = observe(graph, &facts, &plan, recipe, &some, few.as_ref(), sink)?;
        let grids = watch.fit(&plan)?;
        Ok((watch, grids, pool.install(|| calibrate::fit_weights(graph, &plan))?))
    })?;
    let distributions = pool.install(|| watch.distributions());
    drop(watch);
    let mut seen = Seen { distributions, refined: first.clone(), first, effects: Vec::new() };
    report.timings.push(timing);
    if effective.refine_samples > 0 && !seen.first.is_empty() {
        let (effects, timing) = timed(sink, Stage::Refine, Some(seen.first.len()), |sink| {
            let few = samples::spread(samples, Some(effective.refine_samples))?;
            let inputs = run::load(graph, &few, &pool, &shelf)?;
            refine::refine(graph, &facts, &plan, inputs, &pool, &mut seen.refined, sink)
        })?;
        seen.effects = effects;
        report.timings.push(timing);
    }
    let weights = calibrate::round_to_nearest(graph, &plan, &weight_grids)?;
    let nearest = write(graph, &plan, &weights, &Biases::new(), &seen.refined, recipe)?;
    let mut found = Found { weights, biases: Biases::new(), grids: seen.refined.clone() };
    if let Some(costs) = &costs {
        report.iterations = effective.iterations;
        let weight_grids = &weight_grids;
        let mut loss_weights = Weights::new();
        if effective.weigh_outputs {
            let (found, timing) = timed(sink, Stage::Weigh, Some(samples.len()), |sink| {
                let inputs = run::load(graph, samples, &pool, &shelf)?;
                weigh::weigh(graph, &facts, &plan, &inputs, recipe.method.seed, &pool, sink)
            })?;
            report.timings.push(timing);
            loss_weights = found;
        }
        if let Some(padding) = &padding {
            padding.exclude(&facts, &plan, &mut loss_weights)?;
        }
        let (facts, plan, pool, shelf) = (&facts, &plan, &pool, &shelf);
        let job = Job { graph, facts, plan, recipe, pool, weight_grids, loss_weights, samples, shelf, costs, work };
        let (learned, timing) =
            timed(sink, Stage::Reconstruct, None, |sink| job.reconstruct(found, &mut report.units, sink))?;
        report.timings.push(timing);
        found = learned;
    }
    let Found { weights, biases, grids } = found;
    report.layers = pool.install(|| record::layers(graph, &plan, &weights, effective.learns))?;
    report.sites = pool.install(|| record::sites(graph, &plan, &seen, &grids));
    let graph = write(graph, &plan, &weights, &biases, &grids, recipe)?;
    Ok(Quantized { graph, nearest, plan, weights, grids, report })
}

/// What the float network computes at all sites from `samples`.
pub(super) fn observe(
    graph: &Graph,
    facts: &Facts,
    plan: &Plan,
    recipe: &Recipe,
    samples: &dyn Samples,
    padding: Option<&Padding>,
    sink: &mut dyn Sink,
) -> Result<Watch> {
    let mut watch = Watch::new(plan);
    if plan.sites.is_empty() {
        return Ok(watch);
    }
    let shapes = run::shapes_of(samples)?;
    let network = Network::new(graph, &shapes, plan.sites.iter().map(|s| s.value).collect(), recipe.method.threads)?;
    let stage = Stage::Calibrate;
    run::each(
        samples,
        network.chunk,
        recipe.method.threads,
        stage,
        sink,
        |inputs| network.run(inputs),
        |first, values| {
            for i in 0..values.first().map_or(0, Rows::len) {
                let mut rows = values.iter().map(|rows| rows.row(i)).collect::<Result<Vec<_>>>()?;
                for (site, row) in plan.sites.iter().zip(&mut rows) {
                    if let (Some(padding), Some(fact)) = (padding, facts.get(site.value)) {
                        *row = padding.real(&fact.shape, first + i, row)?.into_owned().into();
                    }
                }
                watch.observe_all(&rows.iter().map(|row| &**row).collect::<Vec<_>>());
            }
            Ok(())
        },
    )?;
    Ok(watch)
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
    let opset = lower::required_opset(recipe.output, plan);
    if raised.opset < opset {
        onnx::raise_opset(&mut raised, opset)?;
    }
    lower::lower(&raised, plan, weights, grids, recipe.output)
}
