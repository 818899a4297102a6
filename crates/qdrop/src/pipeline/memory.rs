//! Predicts how much memory a run will take, from the plan alone.

use crate::data::spreads;
use crate::engine::device::{Device, Footprint, processors};
use crate::engine::facts::{self, Facts, ValueFact};
use crate::engine::program::{Program, Region, around, compile};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op, ValueId};
use crate::plan::{FactorSite, Layer, Plan, Recipe, Unit, factor_sites};
use crate::probe::{self, Weights, input_shapes, screened};
use crate::quant::{Distribution, Observation};
use crate::recon::{Learned, Units};
use crate::report::bytes;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes of the program itself, its threads, and what the allocator keeps.
const BASE: u64 = 24 << 20;

/// Indices of those of `samples` calibration samples that more than one stage of a run by `recipe` reads.
pub(super) fn read_again(recipe: &Recipe, samples: usize) -> BTreeSet<usize> {
    if recipe.resolved().learns { (0..samples).collect() } else { spreads(samples, &recipe.few_samples()) }
}

/// Predicted memory, in bytes, in the stage that takes most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Number of calibration samples for which it is predicted.
    pub samples: usize,
    /// Constants of the network, float and quantized, and the weights of losses.
    pub network: u64,
    /// What the samples hold themselves, such as arrays, where it is known.
    pub held: u64,
    /// Values of samples that are kept in memory.
    pub caches: u64,
    /// Values of samples that exceed the recipe's limit and are kept in files.
    pub files: u64,
    /// Values of the samples being computed, rounding variables, gradients and optimisers.
    pub working: u64,
    /// Total memory, including the program.
    pub total: u64,
}

impl Memory {
    /// What a run takes when values of samples lie in files.
    fn least(&self) -> u64 {
        self.total - self.caches
    }
}

/// Predicts the memory that quantizing `graph`, `read` simplified, by `plan` takes with `samples` calibration samples,
/// which hold so many bytes of their own;
/// `sample_shapes` are those of one sample, one per graph input, without the batch axis.
pub fn memory(
    (read, graph): (&Graph, &Graph),
    plan: &Plan,
    recipe: &Recipe,
    sample_shapes: Option<&[Vec<usize>]>,
    (samples, held): (usize, u64),
) -> Result<Memory> {
    let facts = facts::infer(graph, &input_shapes(graph, sample_shapes)?)?;
    let device = &processors(recipe.method.threads)?;
    let stages = predict(graph, &facts, plan, recipe, samples, device)?;
    let beside = beside(read, graph);
    let room = room(graph, &facts, plan, recipe, (samples, beside + held), device)?;
    let beyond = |stage: &Memory| stage.caches.saturating_sub(room);
    let files = stages.iter().map(beyond).max().unwrap_or(0);
    let kept = |stage: &Memory| {
        let beyond = beyond(stage);
        let (network, total) = (stage.network + beside, stage.total - beyond + beside + held);
        Memory { held, files, network, total, caches: stage.caches - beyond, ..*stage }
    };
    stages.iter().map(kept).max_by_key(|m| m.total).ok_or_else(|| Error::internal("a run has no stages"))
}

/// Bytes of the constants of `read` that `graph`, made from it, does not share.
pub fn beside(read: &Graph, graph: &Graph) -> u64 {
    constants([graph, read].into_iter()) - constants([graph].into_iter())
}

/// Bytes of the constants of `graphs`; one that several of them share counts once.
fn constants<'a>(graphs: impl Iterator<Item = &'a Graph>) -> u64 {
    let all = graphs.flat_map(|g| &g.values).filter_map(|v| v.constant.as_ref());
    let all: BTreeMap<*const Tensor, u64> = all.map(|t| (Arc::as_ptr(t), size(t))).collect();
    all.values().sum()
}

fn size(tensor: &Tensor) -> u64 {
    (tensor.len() as u64).saturating_mul(tensor.dtype().bits() as u64) / 8
}

/// Bytes that values of samples may take in memory, for all to stay within the recipe's limit; all where it has none.
/// There are so many samples, which hold so many bytes of their own.
pub(super) fn room(
    graph: &Graph,
    facts: &Facts,
    plan: &Plan,
    recipe: &Recipe,
    (samples, held): (usize, u64),
    device: &dyn Device,
) -> Result<u64> {
    let Some(limit) = recipe.method.memory else { return Ok(u64::MAX) };
    let least =
        predict(graph, facts, plan, recipe, samples, device)?.iter().map(Memory::least).max().unwrap_or(0) + held;
    limit.0.checked_sub(least).ok_or_else(|| {
        let message = format!("a memory limit of {limit} is too small, {} are needed", bytes(least));
        Error::recipe(message).hint("allow more, or use fewer threads or smaller batches")
    })
}

/// What each stage takes.
struct Stages {
    samples: usize,
    network: u64,
    stages: Vec<Memory>,
}

impl Stages {
    fn add(&mut self, caches: u64, working: u64) {
        let (samples, network) = (self.samples, self.network);
        let total = BASE.saturating_add(network).saturating_add(caches).saturating_add(working);
        self.stages.push(Memory { samples, network, held: 0, caches, files: 0, working, total });
    }
}

fn predict(
    graph: &Graph,
    facts: &Facts,
    plan: &Plan,
    recipe: &Recipe,
    samples: usize,
    device: &dyn Device,
) -> Result<Vec<Memory>> {
    let method = &recipe.method;
    let effective = recipe.resolved();
    let values = |v: ValueId| facts.get(v).map_or(0, |f| (f.numel() * samples) as u64);
    let of = |v: ValueId| values(v) * method.cache.precision().bytes();
    let sum = |values: &mut dyn Iterator<Item = ValueId>| values.map(of).sum::<u64>();
    let needs = |program: &Program| device.footprint(program, samples, method.batch);

    let float = constants([graph].into_iter());
    let elements = |layer: &Layer| layer.shape.iter().product::<usize>() as u64;
    let integers: u64 = plan.layers.iter().map(elements).sum();
    // Integers of fewer than 8 bits lie packed in a written network.
    let packed: u64 = plan.layers.iter().map(|l| elements(l) * u64::from(l.grid.bits.min(8)) / 8).sum();
    let positions = |v: &ValueId| {
        let along = facts.get(*v).map_or(1, |f| around(&f.shape, f.channel_axis)[1]);
        4 * values(*v) / along.max(1) as u64
    };
    let positions: u64 = plan.units.iter().flat_map(|u| &u.outputs).map(positions).sum();
    let weighs = effective.learns && effective.weigh_outputs;
    let kept = plan.sites.len() as u64 * Distribution::MOST_BYTES;
    let factors = match effective.factor_samples {
        0 => Vec::new(),
        _ => factor_sites(graph, facts, plan, recipe.output.target).into_iter().flatten().collect(),
    };
    // What was read and simplified, until the constants have their factors.
    let mut stages = Stages { samples, network: float, stages: Vec::new() };

    let sites = plan.sites.iter().map(|s| (s.value, None)).collect();
    let region = Region { sites, ..probe::whole(graph, facts) };
    let whole = needs(&compile(graph, facts, &region)?)?;
    let inputs = sum(&mut graph.inputs.iter().copied());
    let ends = sum(&mut region.outputs.iter().copied());
    // Samples that are read again, as they are until learning begins; and those that are being decoded, several at a time.
    let entering: u64 = graph.inputs.iter().map(|&v| values(v)).sum::<u64>() / samples.max(1) as u64;
    let again = read_again(recipe, samples).len();
    let decoded = 4 * entering * again as u64;
    stages.add(decoded, 4 * entering * probe::SAMPLES.min(again) as u64);
    // A pass forward that stops at values, for channel factors and to refine steps: what later nodes read of the samples
    // at work.
    let passed =
        |few: usize, stops: &BTreeSet<ValueId>| 4 * most_held(graph, facts, &region, stops) * few.min(samples) as u64;
    stages.network += factored(graph, &factors);
    if !factors.is_empty() {
        let before = |s: &FactorSite| s.before.as_ref().map(|b| b.value);
        let stops =
            factors.iter().flat_map(|s| before(s).into_iter().chain(s.members.iter().map(|m| m.value))).collect();
        stages.add(decoded + passed(effective.factor_samples, &stops), whole.inference);
    }
    // Observing: a chunk of inputs, decoded and as rows, what is seen of each quantizer, and a sample of a value a thread.
    let quantizers = plan.sites.iter().chain(&plan.kernel_sites);
    let observed: BTreeSet<ValueId> = quantizers.map(|s| s.value).collect();
    let observed: Vec<ValueId> = observed.into_iter().collect();
    let most = |sites: usize| sites as u64 * Observation::MOST_BYTES;
    let watched = most(plan.sites.len());
    if !observed.is_empty() {
        let observing = compile(graph, facts, &probe::shown(graph, &observed))?;
        let chunk = probe::observed_at_once(device.inference(&observing)?.group(), device).min(samples) as u64;
        let largest = observed.iter().filter_map(|&v| facts.get(v)).map(ValueFact::numel).max().unwrap_or(0) as u64;
        let rooms = 4 * largest * device.parallel() as u64;
        let running = needs(&observing)?.inference + 8 * entering * chunk + rooms;
        stages.add(decoded, running + watched + most(plan.kernel_sites.len()));
    }
    stages.network += kept + integers;
    // Sites and layers are close to each other: as if a pass stopped behind every node.
    let everywhere = region.nodes.iter().flat_map(|&n| graph.node(n).outputs.iter().flatten().copied()).collect();
    if effective.refine_samples > 0 && !screened(&plan.sites) {
        stages.add(decoded + passed(effective.refine_samples, &everywhere), whole.inference + watched);
    }
    if effective.refine_samples > 0 && screened(&plan.sites) {
        // Screening: all activations of the samples at work, beside what gradients need.
        let seen: u64 = plan.sites.iter().map(|s| facts.get(s.value).map_or(0, |f| f.numel() as u64)).sum();
        let few = inputs / samples.max(1) as u64 * effective.refine_samples.min(samples) as u64;
        stages.add(decoded + few, whole.learning + 4 * seen * device.parallel() as u64 + watched);
    }
    if effective.correct_samples > 0 {
        // On half of the samples; rounded weights as real numbers, and a layer's operand and results for some samples.
        let few = effective.correct_samples.min(samples).div_ceil(2);
        let result = |&n: &NodeId| graph.node(n).output(0).and_then(|v| facts.get(v)).map_or(0, ValueFact::numel);
        let results = plan.layers.iter().flat_map(|l| &l.nodes).map(result);
        let most = results.map(|elements| elements * probe::chunk(elements, device).min(few)).max().unwrap_or(0);
        stages.add(decoded + passed(few, &everywhere), whole.inference + 4 * integers + 12 * most as u64);
    }
    let compared = compared(graph, facts, plan, device)?;
    // The network rounded to nearest.
    stages.network += packed;
    if effective.learns {
        stages.network += if weighs { positions } else { 0 };
        if weighs {
            stages.add(inputs, whole.learning + positions);
        }
        let (learn_biases, learn_factors) = (effective.learn_biases, effective.learn_weight_scales);
        let units = Units { graph, facts, plan, learn_biases, learn_factors, device };
        for (number, unit) in plan.units.iter().enumerate() {
            let compiled = units.compile(unit, &Weights::new(), None)?;
            let Footprint { inference, learning } = compiled.footprint(samples, method.batch, device)?;
            // Both streams share the network's inputs.
            let computed = |v: &ValueId| !graph.inputs.contains(v);
            let (read, left) =
                (sum(&mut unit.inputs.iter().copied().filter(computed)), sum(&mut unit.outputs.iter().copied()));
            let waiting = inputs + 2 * sum(&mut waiting(plan, number).into_iter());
            stages.add(2 * read + left + waiting, learning);
            stages.add(read + 2 * left + waiting, inference);
        }
        if effective.tune_iterations > 0 {
            let tuned = Learned::new(graph, facts, plan, &effective)?.region;
            let tuned = needs(&compile(graph, facts, &tuned)?)?;
            stages.add(inputs + ends, tuned.learning.max(tuned.inference) + float);
        }
        stages.network -= if weighs { positions } else { 0 };
    }
    // Measuring: the network that was written, and read back; its integers unpacked and as real numbers.
    stages.network += 2 * packed + if packed < integers { integers } else { 0 };
    stages.add(0, 4 * integers + compared);
    Ok(stages.stages)
}

/// Bytes of the constants of `graph` that get factors of channels at most.
fn factored(graph: &Graph, factors: &[FactorSite]) -> u64 {
    let layers = factors.iter().flat_map(|s| s.constants());
    let changed: BTreeSet<ValueId> = layers.chain(factors.iter().flat_map(|s| s.readers()).map(|r| r.weight)).collect();
    changed.iter().filter_map(|&v| graph.constant(v)).map(|t| size(t)).sum()
}

/// Bytes that comparing the written network with the float one takes, value by value if need be, without the weights.
fn compared(graph: &Graph, facts: &Facts, plan: &Plan, device: &dyn Device) -> Result<u64> {
    let values = graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied());
    let real = |v: &ValueId| facts.get(*v).is_some_and(|f| probe::is_real(f.dtype) && f.constant.is_none());
    let values: Vec<ValueId> = values.filter(real).collect();
    let elements: usize = values.iter().filter_map(|&v| facts.get(v)).map(ValueFact::numel).sum();
    let entering: usize = graph.inputs.iter().filter_map(|&v| facts.get(v)).map(ValueFact::numel).sum();
    let chunk = probe::chunk(elements, device);
    let program = compile(graph, facts, &probe::shown(graph, &values))?;
    let running = device.footprint(&program, chunk, 1)?.inference;
    // Constants that nodes unpack pass through operators that compute in double precision; tables stay integers.
    let table = |l: &&Layer| l.nodes.iter().all(|&n| matches!(graph.node(n).op, Op::Gather { .. }));
    let unpacked = plan.layers.iter().filter(|l| !table(l));
    let largest = unpacked.map(|l| l.shape.iter().product::<usize>()).max().unwrap_or(0);
    Ok((2 * running + 4 * (elements + 2 * entering) as u64 * chunk as u64).max(32 * largest as u64))
}

/// The most elements of one sample that a pass through the nodes of `region` holds at a time when it stops behind each of
/// the nodes that compute `stops`: there are only the values that later nodes read, those before the stop until all of
/// those behind it are there.
fn most_held(graph: &Graph, facts: &Facts, region: &Region, stops: &BTreeSet<ValueId>) -> u64 {
    let numel = |v: ValueId| facts.get(v).filter(|f| f.constant.is_none()).map_or(0, |f| f.numel() as u64);
    let mut last: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (at, &id) in region.nodes.iter().enumerate() {
        last.extend(graph.node(id).inputs.iter().flatten().map(|&v| (v, at)));
    }
    last.extend(region.outputs.iter().map(|&v| (v, usize::MAX)));
    let mut held: BTreeSet<ValueId> = graph.inputs.iter().filter(|v| last.contains_key(v)).copied().collect();
    let (mut size, mut made) = (held.iter().map(|&v| numel(v)).sum::<u64>(), Vec::new());
    let mut most = size;
    for (at, &id) in region.nodes.iter().enumerate() {
        let outputs = || graph.node(id).outputs.iter().flatten();
        made.extend(outputs());
        if !outputs().any(|v| stops.contains(v)) {
            continue;
        }
        let read_later = |v: &ValueId| last.get(v).is_some_and(|&l| l > at);
        made.retain(read_later);
        most = most.max(size + made.iter().map(|&v| numel(v)).sum::<u64>());
        held.extend(made.drain(..));
        held.retain(read_later);
        size = held.iter().map(|&v| numel(v)).sum();
    }
    most
}

/// Values computed before unit `number` that units after it read, and it does not read itself.
fn waiting(plan: &Plan, number: usize) -> BTreeSet<ValueId> {
    let made = |u: &Unit| u.outputs.clone();
    let known: BTreeSet<ValueId> = plan.units[..number].iter().flat_map(made).collect();
    let read = plan.units[number + 1..].iter().flat_map(|u| u.inputs.iter().copied());
    read.filter(|v| known.contains(v) && !plan.units[number].inputs.contains(v)).collect()
}
