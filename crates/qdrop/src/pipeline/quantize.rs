//! The main job: from a simplified graph, a recipe and samples to a quantized graph.

use super::memory;
use super::quantized::Quantized;
use super::record;
use super::samples::read_again;
use super::written;
use crate::calibrate;
use crate::data::Samples;
use crate::engine::device::{Device, beside, processors};
use crate::engine::facts::{self, Facts};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::lower::{self, Encodings};
use crate::onnx;
use crate::plan::{Chosen, Plan, Recipe, Target};
use crate::probe::{self, Factored, Loaded, Observed, Padding, Scene, Weights, input_shapes};
use crate::quant::{Grid, QuantizedWeight};
use crate::recon::{self, Biases, Costs, Found, Job};
use crate::report::{Event, MixedReport, Report, Sink, Stage, Timing, timed};
use crate::tensor::{Shelf, Tensor};
use crate::work::WorkDir;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// Quantizes `graph` (simplified by [`super::prepare`]) as `recipe` asks, calibrating on `samples`, with this machine's
/// processors. Every unit solved is kept in `work`, from where another run takes it that would come to the same problem.
pub fn quantize(
    graph: &Graph,
    recipe: &Recipe,
    samples: &dyn Samples,
    work: Option<&WorkDir>,
    sink: &mut dyn Sink,
) -> Result<Quantized> {
    quantize_on(&processors(recipe.method.threads)?, graph, recipe, samples, work, sink)
}

/// As [`quantize`], on another device.
pub fn quantize_on(
    device: &dyn Device,
    graph: &Graph,
    recipe: &Recipe,
    samples: &dyn Samples,
    work: Option<&WorkDir>,
    sink: &mut dyn Sink,
) -> Result<Quantized> {
    let effective = recipe.resolved();
    let shapes = probe::shapes_of(samples)?;
    let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;
    let plan = crate::plan::plan(graph, &facts, recipe)?;
    let left = plan.note(graph);
    let notes = recipe.notes().into_iter().map(str::to_string).chain(left);
    notes.for_each(|message| sink.event(&Event::Note { message }));
    let mut report = Report::new(recipe.method.name);
    (report.weight_bits, report.activation_bits) = (recipe.weights.bits, recipe.activations.bits);
    (report.seed, report.samples) = (recipe.method.seed, samples.len());
    (report.preset, report.recipe) = (recipe.method.preset, recipe.explicit().to_toml()?);

    let room = memory::room(graph, &facts, &plan, recipe, (samples.len(), samples.held_bytes()), device)?;
    let temporary = std::env::temp_dir();
    let directory = work.map_or(temporary.as_path(), WorkDir::path);
    let shelf = Shelf::new(room, directory, recipe.method.cache.precision());
    let kept = read_again(recipe, samples.len());
    let (loaded, timing) =
        timed(sink, Stage::Load, Some(kept.len()), |sink| Loaded::new(samples, &kept, device, &shelf, sink))?;
    report.timings.push(timing);
    let scene = Scene { graph, facts: &facts, plan: &plan, recipe, samples: &loaded, device, shelf: &shelf };
    let factored = scene.factored(&mut report.timings, sink)?;
    let (facts, plan) = match &factored {
        Some(Factored { graph, .. }) => {
            let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;
            let plan = crate::plan::plan(graph, &facts, recipe)?;
            (facts, plan)
        }
        None => (facts, plan),
    };
    let no_values = BTreeSet::new();
    let (graph, divided) = factored.as_ref().map_or((graph, &no_values), |f| (&f.graph, &f.divided));
    (report.plan, report.float) = record::plan(graph, &plan);
    let padding = Padding::read(graph, &facts, recipe, &loaded)?;
    let wanted = match recipe.mixed.wanted() {
        true => Some(crate::plan::measure(graph, &facts, recipe)?),
        false => None,
    };
    let solved = work.map_or(0, WorkDir::solutions);
    let costs = match effective.learns {
        true => {
            let tuning = recon::iterations(graph, &facts, recipe, sink);
            let (costs, timing) =
                timed(sink, Stage::Bench, None, |sink| Costs::new(graph, &facts, &plan, recipe, tuning, device, sink))?;
            report.timings.push(timing);
            report.estimate = costs.estimate(recipe, samples.len(), solved, wanted.as_ref());
            report.estimate.iter().for_each(|&seconds| sink.event(&Event::Estimate { seconds }));
            Some(costs)
        }
        false => None,
    };
    let scene = Scene { graph, facts: &facts, plan: &plan, recipe, samples: &loaded, device, shelf: &shelf };
    let count = recipe.activations.samples.min(samples.len());
    let (observed, timing) = timed(sink, Stage::Calibrate, Some(count), |sink| scene.observe(sink))?;
    report.timings.push(timing);
    let kernel_grids = beside(device, || observed.kernel_grids(&plan))?;
    let Observed { sites: watch, kernel_sites, widths } = observed;
    drop(kernel_sites);
    let mut mixed = None;
    if let Some(wanted) = &wanted {
        let precise = shelf.single();
        let start = Instant::now();
        let measured = Scene { shelf: &precise, ..scene }.sensitivity(&watch, wanted, work, sink)?;
        report.timings.push(Timing { stage: Stage::Sensitivity, seconds: start.elapsed().as_secs_f64() });
        let chosen = crate::plan::choose(graph, &facts, recipe, &measured.sensitivity)?;
        let recipe = recipe.with(&chosen);
        report.recipe = recipe.explicit().to_toml()?;
        mixed = Some((recipe, chosen, measured));
    }
    let (recipe, plan) = match &mixed {
        Some((recipe, chosen, _)) => (recipe, chosen_plan(graph, &facts, recipe, chosen, &plan)?),
        None => (recipe, plan.clone()),
    };
    let (weight_grids, timing) =
        timed(sink, Stage::Calibrate, None, |_| beside(device, || calibrate::fit_weights(graph, &plan)))?;
    report.timings.iter_mut().filter(|t| t.stage == timing.stage).for_each(|t| t.seconds += timing.seconds);
    let seen = match &mixed {
        // Grids were refined when bits were measured.
        Some((_, _, measured)) => measured.seen(&watch, &plan)?,
        None => scene.seen(&watch, &mut report.timings, sink)?,
    };
    drop(watch);
    let weights = calibrate::round_to_nearest(graph, &plan, &weight_grids)?;
    let grids = [&seen.refined[..], &kernel_grids];
    let nearest = match write(graph, divided, &plan, &weights, &Biases::new(), grids, recipe)? {
        (graph, Some(encodings)) => written::simulate(&graph, &encodings.to_json()?)?,
        (graph, None) => graph,
    };
    let mut found = Found { weights, biases: Biases::new(), grids: seen.refined.clone() };
    if let Some(costs) = &costs {
        report.iterations = effective.iterations;
        let weight_grids = &weight_grids;
        let inputs = loaded.inputs(graph, &shelf)?;
        drop(loaded);
        let mut loss_weights = Weights::new();
        if effective.weigh_outputs {
            let (found, timing) = timed(sink, Stage::Weigh, Some(samples.len()), |sink| {
                probe::weigh(graph, &facts, &plan, &inputs, recipe.method.seed, device, sink)
            })?;
            report.timings.push(timing);
            loss_weights = found;
        }
        if let Some(padding) = &padding {
            padding.exclude(&facts, &plan, &mut loss_weights)?;
        }
        let (facts, plan, shelf) = (&facts, &plan, &shelf);
        let job =
            Job { graph, facts, plan, recipe, device, weight_grids, loss_weights, inputs: &inputs, shelf, costs, work };
        let (learned, timing) =
            timed(sink, Stage::Reconstruct, None, |sink| job.reconstruct(found, &mut report.units, sink))?;
        report.timings.push(timing);
        found = learned;
    }
    let Found { weights, biases, grids } = found;
    report.layers = beside(device, || record::layers(graph, &plan, &weights, effective.learns))?;
    report.sites = beside(device, || record::sites(graph, &plan, &seen, &widths, &grids));
    let cost = crate::plan::cost(graph, &facts, &plan);
    let (graph, encodings) = write(graph, divided, &plan, &weights, &biases, [&grids, &kernel_grids], recipe)?;
    report.mixed = mixed.map(|(_, chosen, measured)| MixedReport {
        chosen,
        sensitivity: measured.sensitivity,
        reached_error: None,
    });
    Ok(Quantized { graph, encodings, nearest, plan, cost, weights, grids, report })
}

/// The plan of `graph` by `recipe`, which has the bits that were `chosen`.
fn chosen_plan(graph: &Graph, facts: &Facts, recipe: &Recipe, chosen: &Chosen, before: &Plan) -> Result<Plan> {
    let plan = crate::plan::plan(graph, facts, recipe)?;
    let cost = crate::plan::cost(graph, facts, &plan);
    if cost != chosen.cost {
        return Err(Error::internal(format!("bits were chosen for {:?}, the plan costs {cost:?}", chosen.cost)));
    }
    if plan.kernel_sites != before.kernel_sites {
        return Err(Error::internal("chosen bits moved quantizers of integer kernels"));
    }
    Ok(plan)
}

/// The network as it is written, with the encodings that belong to it. Those of its values that are `divided` by channel
/// get names of their own there, so that nobody takes them for those of the float network.
fn write(
    graph: &Graph,
    divided: &BTreeSet<ValueId>,
    plan: &Plan,
    weights: &[QuantizedWeight],
    biases: &Biases,
    [grids, kernel_grids]: [&[Grid]; 2],
    recipe: &Recipe,
) -> Result<(Graph, Option<Encodings>)> {
    let mut raised = graph.clone();
    for &id in divided {
        raised.rename_value(id, &format!("{}_divided", graph.value(id).name));
    }
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
    match recipe.output.target {
        Target::Qnn => {
            let version = recipe.output.encodings_version;
            let (graph, encodings) = lower::lower_qnn(&raised, plan, weights, grids, version)?;
            Ok((graph, Some(encodings)))
        }
        _ => Ok((lower::lower(&raised, plan, weights, grids, kernel_grids, recipe.output)?, None)),
    }
}
