//! The main job: from a simplified graph, a recipe and samples to a quantized graph.

use super::detector;
use super::memory;
use super::memory::read_again;
use super::quantized::Quantized;
use super::record;
use super::written;
use crate::calibrate::{self, Watch};
use crate::data::{Samples, spread};
use crate::engine::device::{Device, beside, processors};
use crate::engine::facts::{self, Facts};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::lower::{self, Encodings};
use crate::onnx;
use crate::plan::{Chosen, Measure, Plan, Recipe, SiteId, Stripe, Target};
use crate::probe::{
    self, ActivationGrids, Calibration, Contents, Factored, Loaded, Measured, Observed, Padding, Weights, Widths,
    input_shapes,
};
use crate::quant::{Grid, QuantizedWeight};
use crate::recon::{self, Costs, Job, NetworkSolution};
use crate::report::{Event, MixedReport, Report, Sink, Stage, Timing, UnitReport, timed};
use crate::tensor::{Precision, RowStore, Tensor};
use crate::work::WorkDir;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// Activations that a note names one by one.
const NAMED: usize = 8;
/// More than one in so many activations that stay float are many.
const MANY: usize = 8;

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
    quantize_and_keep(Some(device), graph, recipe, (samples, false), work, sink).map(|done| done.0)
}

/// Solves the units of `share`, counted among those with layers, and keeps them in `work`, from where [`quantize`] takes
/// them. They must depend on the float network alone.
pub(crate) fn solve_share(
    device: Option<&dyn Device>,
    graph: &Graph,
    recipe: &Recipe,
    samples: &dyn Samples,
    (work, share): (&WorkDir, Stripe),
    sink: &mut dyn Sink,
) -> Result<Vec<UnitReport>> {
    recipe.solvable_apart()?;
    match run(device, graph, recipe, (samples, false), Some(work), Some(share), sink)? {
        Ended::Share(units) => Ok(units),
        Ended::Network(..) => Err(Error::internal("a share of the units became a network")),
    }
}

/// As [`quantize_on`], without a device on this machine's processors, with the samples of which those that were decoded are kept. Where they are `compared` afterwards,
/// those that [`super::quality()`] reads are among them; those that [`super::output_error`] reads always are.
pub(crate) fn quantize_and_keep<'s>(
    device: Option<&dyn Device>,
    graph: &Graph,
    recipe: &Recipe,
    (samples, compared): (&'s dyn Samples, bool),
    work: Option<&WorkDir>,
    sink: &mut dyn Sink,
) -> Result<(Quantized, Loaded<'s>)> {
    match run(device, graph, recipe, (samples, compared), work, None, sink)? {
        Ended::Network(done, loaded) => Ok((*done, loaded)),
        Ended::Share(_) => Err(Error::internal("all units were taken for a share")),
    }
}

/// What a run comes to.
enum Ended<'s> {
    /// The quantized network, and the samples that were decoded.
    Network(Box<Quantized>, Loaded<'s>),
    /// The units of a share.
    Share(Vec<UnitReport>),
}

/// A run from the samples to the quantized network, or to the solved units of its `share`.
fn run<'s>(
    device: Option<&dyn Device>,
    graph: &Graph,
    recipe: &Recipe,
    (samples, compared): (&'s dyn Samples, bool),
    work: Option<&WorkDir>,
    share: Option<Stripe>,
    sink: &mut dyn Sink,
) -> Result<Ended<'s>> {
    let own;
    let device: &dyn Device = match device {
        Some(device) => device,
        None => {
            own = processors(recipe.method.threads)?;
            &own
        }
    };
    let shapes = probe::shapes_of(samples)?;
    let network = Network::new(Cow::Borrowed(graph), BTreeSet::new(), recipe, &shapes)?;
    let mut again = if compared { network.compared(samples.len()) } else { BTreeSet::new() };
    if recipe.mixed.wanted() {
        again.extend(spread(samples.len(), Some(recipe.mixed.samples)));
    }
    let mut kept = read_again(recipe, samples.len());
    let more = again.difference(&kept).count() as u64 * network.sample_bytes();
    kept.extend(&again);
    let store = store(&network, recipe, (samples.len(), samples.held_bytes() + more), work, device)?;
    let report = report(recipe, samples.len())?;
    let with_float;
    let mut run = Run { device, recipe, samples, store: &store, work, share, sink, report };
    run.note(&network);
    let mut loaded = run.load(samples, &kept)?;
    let mut begun = run.begin(network, &loaded, &shapes, None)?;
    if let Some((recipe, message)) = begun.leave_float(run.recipe)? {
        let costs = begun.costs.take();
        drop(begun);
        run.sink.event(&Event::Note { message });
        with_float = recipe;
        (run.recipe, run.report.recipe) = (&with_float, with_float.explicit().to_toml()?);
        let network = Network::new(Cow::Borrowed(graph), BTreeSet::new(), run.recipe, &shapes)?;
        begun = run.begin(network, &loaded, &shapes, costs)?;
    }
    let Begun { network, bits, costs, watch, widths, kernel_grids } = begun;
    let (network, activations, chosen) = match bits {
        Bits::Given(activations) => (network, activations, None),
        Bits::Chosen(wanted) => {
            let chosen = run.choose(&network, &loaded, &watch, &wanted)?;
            let network = network.with(&chosen)?;
            // Grids were refined when bits were measured.
            let activations = chosen.measured.activation_grids(&watch, &network.plan)?;
            (network, activations, Some(chosen))
        }
    };
    drop(watch);
    let recipe = chosen.as_ref().map_or(run.recipe, |chosen| &chosen.recipe);
    let weight_grids = run.fit_weights(&network)?;
    let weights = calibrate::round_to_nearest(&network.graph, &network.plan, &weight_grids)?;
    let (weights, biases) = run.correct(&network, &loaded, weights, [&activations.refined, &kernel_grids])?;
    let nearest = NetworkSolution { weights, constants: biases, grids: activations.refined.clone() };
    if let (Some(_), Some(costs)) = (share, &costs) {
        run.learn(&network, recipe, (&mut loaded, &again), &weight_grids, nearest, costs)?;
        return Ok(Ended::Share(run.report.units));
    }
    let unlearned = match network.write(&nearest, &kernel_grids, recipe)? {
        (graph, Some(encodings)) => written::simulate(&graph, &encodings.to_json()?)?,
        (graph, None) => graph,
    };
    let found = match &costs {
        Some(costs) => run.learn(&network, recipe, (&mut loaded, &again), &weight_grids, nearest, costs)?,
        None => nearest,
    };
    let (graph, encodings) = network.write(&found, &kernel_grids, recipe)?;
    let mut report = run.report;
    let plan = &network.plan;
    let learns = recipe.resolved().learns;
    report.layers = beside(device, || record::layers(&network.graph, plan, &found.weights, learns))?;
    report.sites = beside(device, || record::sites(&network.graph, plan, &activations, &widths, &found.grids));
    report.mixed =
        chosen.map(|c| MixedReport { chosen: c.chosen, sensitivity: c.measured.sensitivity, reached_error: None });
    let cost = crate::plan::cost(&network.graph, &network.facts, plan);
    let NetworkSolution { weights, grids, .. } = found;
    let done = Quantized { graph, encodings, nearest: unlearned, plan: network.plan, cost, weights, grids, report };
    Ok(Ended::Network(Box::new(done), loaded))
}

/// The stages of [`quantize`] by `recipe`, in order, each once. Bits that are `chosen` already are not measured.
pub fn stages(recipe: &Recipe, chosen: bool) -> Vec<Stage> {
    let effective = recipe.resolved();
    let quantizes = recipe.activations.bits != 32 || !recipe.overrides.is_empty();
    let stages = [
        (Stage::Load, true),
        (Stage::Factors, effective.factor_samples > 0 && quantizes),
        (Stage::Bench, effective.learns),
        (Stage::Calibrate, true),
        (Stage::Refine, effective.refine_samples > 0 && quantizes),
        (Stage::Sensitivity, recipe.mixed.wanted() && !chosen),
        (Stage::Correct, effective.correct_samples > 0),
        (Stage::Weigh, effective.learns && effective.weigh_outputs),
        (Stage::Reconstruct, effective.learns),
    ];
    stages.into_iter().filter(|s| s.1).map(|s| s.0).collect()
}

/// A report of a run by `recipe` on so many `samples`, before it begins.
fn report(recipe: &Recipe, samples: usize) -> Result<Report> {
    let mut report = Report::new(recipe.method.name);
    (report.weight_bits, report.activation_bits) = (recipe.weights.bits, recipe.activations.bits);
    (report.seed, report.samples) = (recipe.method.seed, samples);
    (report.preset, report.recipe) = (recipe.method.preset, recipe.explicit().to_toml()?);
    Ok(report)
}

/// Where values of samples are put, within the memory that the recipe allows. Of samples there is their number, and the
/// bytes that they hold of their own.
fn store(
    network: &Network,
    recipe: &Recipe,
    samples: (usize, u64),
    work: Option<&WorkDir>,
    device: &dyn Device,
) -> Result<RowStore> {
    let Network { graph, facts, plan, .. } = network;
    let room = memory::room(graph, facts, plan, recipe, samples, device)?;
    let temporary = std::env::temp_dir();
    let directory = work.map_or(temporary.as_path(), WorkDir::path);
    Ok(RowStore::new(room, directory, recipe.method.cache.precision()))
}

/// A float network and how it is quantized.
struct Network<'a> {
    graph: Cow<'a, Graph>,
    facts: Facts,
    plan: Plan,
    /// Values whose channels are divided by factors.
    divided: BTreeSet<ValueId>,
}

/// Bits that were chosen.
struct ByMeasure {
    /// With the bits as exceptions.
    recipe: Recipe,
    chosen: Chosen,
    measured: Measured,
}

impl<'a> Network<'a> {
    fn new(graph: Cow<'a, Graph>, divided: BTreeSet<ValueId>, recipe: &Recipe, shapes: &[Vec<usize>]) -> Result<Self> {
        let facts = facts::infer(&graph, &input_shapes(&graph, Some(shapes))?)?;
        let plan = crate::plan::plan(&graph, &facts, recipe)?;
        Ok(Network { graph, facts, plan, divided })
    }

    /// Indices of those of `samples` calibration samples that are compared once the file is written.
    fn compared(&self, samples: usize) -> BTreeSet<usize> {
        let most = super::compared(&record::plan(&self.graph, &self.plan).0, samples);
        spread(samples, Some(most)).collect()
    }

    /// Bytes of one sample, decoded.
    fn sample_bytes(&self) -> u64 {
        self.graph.inputs.iter().filter_map(|&v| self.facts.get(v)).map(|f| 4 * f.numel() as u64).sum()
    }

    /// This, planned with the bits that were chosen.
    fn with(self, by: &ByMeasure) -> Result<Self> {
        let plan = crate::plan::plan(&self.graph, &self.facts, &by.recipe)?;
        let cost = crate::plan::cost(&self.graph, &self.facts, &plan);
        if cost != by.chosen.cost {
            return Err(Error::internal(format!("bits were chosen for {:?}, the plan costs {cost:?}", by.chosen.cost)));
        }
        if plan.kernel_sites != self.plan.kernel_sites {
            return Err(Error::internal("chosen bits moved quantizers of integer kernels"));
        }
        Ok(Network { plan, ..self })
    }

    /// The network as it is written with what was `found`, and the encodings that belong to it. Values that are divided by
    /// channel get names of their own there, so that nobody takes them for those of the float network.
    fn write(
        &self,
        found: &NetworkSolution,
        kernel_grids: &[Grid],
        recipe: &Recipe,
    ) -> Result<(Graph, Option<Encodings>)> {
        let mut raised = self.graph.clone().into_owned();
        for &id in &self.divided {
            raised.rename_value(id, &format!("{}_divided", self.graph.value(id).name));
        }
        for (&id, content) in &found.constants {
            let constant = raised.value_mut(id);
            if let Some(old) = &constant.constant {
                let content: Vec<f64> = content.iter().map(|&v| f64::from(v)).collect();
                let new = Tensor::from_f64(old.dtype(), old.shape(), &content)?;
                (constant.constant, constant.origin) = (Some(Arc::new(new)), None);
            }
        }
        let opset = lower::required_opset(recipe.output, &self.plan);
        if raised.opset < opset {
            onnx::raise_opset(&mut raised, opset)?;
        }
        let (plan, weights, grids) = (&self.plan, &found.weights, &found.grids);
        match recipe.output.target {
            Target::Qnn => {
                let version = recipe.output.encodings_version;
                let (graph, encodings) = lower::lower_qnn(&raised, plan, weights, grids, version)?;
                Ok((graph, Some(encodings)))
            }
            Target::Ort | Target::Openvino | Target::Tensorrt | Target::Qonnx => {
                Ok((lower::lower(&raised, plan, weights, grids, kernel_grids, recipe.output)?, None))
            }
        }
    }
}

/// A network with what calibration found out about it.
struct Begun<'a> {
    network: Network<'a>,
    bits: Bits,
    costs: Option<Costs>,
    watch: Watch,
    /// Per site the widths of its channels.
    widths: Vec<Widths>,
    kernel_grids: Vec<Grid>,
}

/// Where the bits of a network come from.
enum Bits {
    /// The recipe gives them; with them the activations have grids.
    Given(ActivationGrids),
    /// They are chosen by what must be measured for that.
    Chosen(Measure),
}

impl Begun<'_> {
    /// `recipe` with those activations left float that cost the outputs more than its limit and whose bits it does not name,
    /// and without a limit, so that it repeats the run; and a note that names them. `None` where there are none.
    fn leave_float(&self, recipe: &Recipe) -> Result<Option<(Recipe, String)>> {
        let Network { graph, facts, plan, .. } = &self.network;
        let (limit, Bits::Given(activations)) = (recipe.resolved().noise_limit, &self.bits) else { return Ok(None) };
        if limit == 0.0 || !probe::screened(&plan.sites) {
            return Ok(None);
        }
        let noise = |s: &SiteId| activations.effects.get(s.index()).copied().flatten().map_or(0.0, |effect| effect.1);
        let noisy: Vec<SiteId> = plan.site_ids().filter(|s| noise(s) > limit).collect();
        if noisy.is_empty() {
            return Ok(None);
        }
        let (recipe, left) = crate::plan::leave_float(graph, facts, recipe, plan, &noisy)?;
        let named: Vec<(&str, f64)> = left.iter().map(|s| (plan.site(*s).name.as_str(), noise(s))).collect();
        Ok((!left.is_empty()).then(|| (recipe, note_of_float(&named, plan.sites.len()))))
    }
}

/// The note that, of so many activations, those `named` stay float, with the noise of each.
fn note_of_float(named: &[(&str, f64)], all: usize) -> String {
    let mut loudest: Vec<usize> = (0..named.len()).collect();
    loudest.sort_by(|&a, &b| named[b].1.total_cmp(&named[a].1));
    loudest.truncate(NAMED);
    loudest.sort_unstable();
    let mut listed: Vec<String> =
        loudest.iter().map(|&i| format!("`{}` ({:.2} %)", named[i].0, named[i].1 * 100.0)).collect();
    if named.len() > NAMED {
        listed.push(format!("and {} more, which the report's recipe names", named.len() - NAMED));
    }
    let message = format!(
        "activations that stay float, and the noise that their bits would make of the outputs: {}; --noise-limit 0 \
         quantizes them",
        listed.join(", ")
    );
    match named.len() * MANY > all {
        false => message,
        true => format!(
            "{message}. These are {} of {all}, so that much of the network runs in float: see whether the samples are \
             prepared as the network expects, give the activations 16 bits (-a 16), or raise --noise-limit",
            named.len()
        ),
    }
}

/// What the stages of a run share.
struct Run<'a> {
    device: &'a dyn Device,
    recipe: &'a Recipe,
    samples: &'a dyn Samples,
    /// Where values of the samples are put.
    store: &'a RowStore,
    work: Option<&'a WorkDir>,
    /// The units that are solved, where others solve the rest.
    share: Option<Stripe>,
    sink: &'a mut dyn Sink,
    report: Report,
}

impl<'a> Run<'a> {
    /// Does `work` as `stage`; its time goes into the report.
    fn stage<T>(
        &mut self,
        stage: Stage,
        total: Option<usize>,
        work: impl FnOnce(&mut dyn Sink) -> Result<T>,
    ) -> Result<T> {
        let (value, timing) = timed(self.sink, stage, total, work)?;
        timing.add_to(&mut self.report.timings);
        Ok(value)
    }

    fn calibration<'n>(&self, network: &'n Network, samples: &'n dyn Samples) -> Calibration<'n>
    where
        'a: 'n,
    {
        let Network { graph, facts, plan, .. } = network;
        Calibration { graph, facts, plan, recipe: self.recipe, samples, device: self.device, store: self.store }
    }

    /// Says what the user should know before anything is done.
    fn note(&mut self, network: &Network) {
        let left = network.plan.note(&network.graph);
        let notes = self.recipe.notes().into_iter().map(str::to_string).chain(left);
        notes.for_each(|message| self.sink.event(&Event::Note { message }));
    }

    /// Decodes those of `samples` that more than one stage reads.
    fn load<'s>(&mut self, samples: &'s dyn Samples, kept: &BTreeSet<usize>) -> Result<Loaded<'s>> {
        let (device, store) = (self.device, self.store);
        self.stage(Stage::Load, Some(kept.len()), |sink| Loaded::new(samples, kept, device, store, sink))
    }

    /// `network` with factors of channels, where some lower the error.
    fn factor<'n>(&mut self, network: Network<'n>, loaded: &Loaded, shapes: &[Vec<usize>]) -> Result<Network<'n>> {
        let calibration = self.calibration(&network, loaded);
        let network = match calibration.factored(&mut self.report.timings, self.sink)? {
            Some(Factored { graph, divided }) => Network::new(Cow::Owned(graph), divided, self.recipe, shapes)?,
            None => network,
        };
        (self.report.plan, self.report.float) = record::plan(&network.graph, &network.plan);
        Ok(network)
    }

    /// What iterations cost, where the method learns; tells how long the run will take, with what is `wanted` measured.
    fn estimate(&mut self, network: &Network, wanted: Option<&Measure>) -> Result<Option<Costs>> {
        let (recipe, device) = (self.recipe, self.device);
        if !recipe.resolved().learns {
            return Ok(None);
        }
        let Network { graph, facts, plan, .. } = network;
        let tuning = recon::iterations(graph, facts, recipe, self.sink);
        let costs =
            self.stage(Stage::Bench, None, |sink| Costs::new(graph, facts, plan, recipe, tuning, device, sink))?;
        let solved = self.work.map_or(0, WorkDir::solutions);
        self.report.estimate = costs.estimate(recipe, self.samples.len(), solved, wanted, self.share);
        self.report.estimate.iter().for_each(|&seconds| self.sink.event(&Event::Estimate { seconds }));
        Ok(Some(costs))
    }

    /// `network` with channel factors, and what calibration finds out about it. What iterations cost may be `known` from the
    /// same units with other sites.
    fn begin<'n>(
        &mut self,
        network: Network<'n>,
        loaded: &Loaded,
        shapes: &[Vec<usize>],
        known: Option<Costs>,
    ) -> Result<Begun<'n>> {
        let recipe = self.recipe;
        let network = self.factor(network, loaded, shapes)?;
        let wanted = recipe.mixed.wanted().then(|| crate::plan::measure(&network.graph, &network.facts, recipe));
        let wanted = wanted.transpose()?;
        let learned = network.plan.units.iter().filter(|u| !u.layers.is_empty()).count();
        let costs = match known.filter(|costs| costs.units.len() == learned) {
            Some(costs) => Some(costs),
            None => self.estimate(&network, wanted.as_ref())?,
        };
        let observed = self.observe(&network, loaded)?;
        let kernel_grids = beside(self.device, || observed.kernel_grids(&network.plan))?;
        let Observed { sites: watch, widths, .. } = observed;
        let bits = match wanted {
            Some(wanted) => Bits::Chosen(wanted),
            None => Bits::Given(self.first_grids(&network, loaded, &watch)?),
        };
        Ok(Begun { network, bits, costs, watch, widths, kernel_grids })
    }

    /// What the quantized activations hold.
    fn observe(&mut self, network: &Network, loaded: &Loaded) -> Result<Observed> {
        let calibration = self.calibration(network, loaded);
        let count = self.recipe.activations.samples.min(self.samples.len());
        self.stage(Stage::Calibrate, Some(count), |sink| calibration.observe(sink))
    }

    /// Chooses bits within the recipe's target by measuring what is `wanted`.
    fn choose(&mut self, network: &Network, loaded: &Loaded, watch: &Watch, wanted: &Measure) -> Result<ByMeasure> {
        let precise = self.store.single();
        let calibration = Calibration { store: &precise, ..self.calibration(network, loaded) };
        let start = Instant::now();
        let measured = calibration.sensitivity(watch, wanted, None, self.work, self.sink)?;
        let timing = Timing { stage: Stage::Sensitivity, seconds: start.elapsed().as_secs_f64() };
        timing.add_to(&mut self.report.timings);
        let chosen = crate::plan::choose(&network.graph, &network.facts, self.recipe, &measured.sensitivity)?;
        let recipe = self.recipe.with(&chosen);
        self.report.recipe = recipe.explicit().to_toml()?;
        Ok(ByMeasure { recipe, chosen, measured })
    }

    /// The grid of every weight.
    fn fit_weights(&mut self, network: &Network) -> Result<Vec<Grid>> {
        let device = self.device;
        let fit = || calibrate::fit_weights(&network.graph, &network.plan);
        self.stage(Stage::Calibrate, None, |_| beside(device, fit))
    }

    /// First grids of activations, refined.
    fn first_grids(&mut self, network: &Network, loaded: &Loaded, watch: &Watch) -> Result<ActivationGrids> {
        let calibration = self.calibration(network, loaded);
        calibration.activation_grids(watch, &mut self.report.timings, self.sink)
    }

    /// `weights` with the steps that suit layers' results, and biases that keep the means of these, where nothing is learned.
    fn correct(
        &mut self,
        network: &Network,
        loaded: &Loaded,
        weights: Vec<QuantizedWeight>,
        [grids, kernel_grids]: [&[Grid]; 2],
    ) -> Result<(Vec<QuantizedWeight>, Contents)> {
        if self.recipe.resolved().correct_samples == 0 {
            return Ok((weights, Contents::new()));
        }
        let calibration = self.calibration(network, loaded);
        let layers = network.plan.layers.len();
        self.stage(Stage::Correct, Some(layers), |sink| calibration.corrected(weights, grids, kernel_grids, sink))
    }

    /// What learning makes of `nearest`. Of what is `loaded` the samples that are read `again` stay.
    fn learn(
        &mut self,
        network: &Network,
        recipe: &Recipe,
        (loaded, again): (&mut Loaded, &BTreeSet<usize>),
        weight_grids: &[Grid],
        nearest: NetworkSolution,
        costs: &Costs,
    ) -> Result<NetworkSolution> {
        let Network { graph, facts, plan, .. } = network;
        let (device, store, work, share) = (self.device, self.store, self.work, self.share);
        let effective = recipe.resolved();
        self.report.iterations = effective.iterations;
        let padding = Padding::read(graph, facts, recipe, loaded)?;
        let inputs = &loaded.inputs(graph, store)?;
        // In single precision they are what is learned from.
        if recipe.method.cache.precision() != Precision::Single {
            loaded.keep_only(again, store)?;
        }
        let mut loss_weights = Weights::new();
        if effective.weigh_outputs {
            loss_weights = self.stage(Stage::Weigh, Some(self.samples.len()), |sink| {
                let outputs = detector::output_weights(graph, facts, recipe, inputs, (device, store), sink)?;
                probe::weigh(graph, facts, plan, (inputs, &outputs), recipe.method.seed, device, sink)
            })?;
        }
        if let Some(padding) = &padding {
            padding.exclude(facts, plan, &mut loss_weights)?;
        }
        let job =
            Job { graph, facts, plan, recipe, device, weight_grids, loss_weights, inputs, store, costs, work, share };
        let mut units = Vec::new();
        let found = self.stage(Stage::Reconstruct, None, |sink| job.reconstruct(nearest, &mut units, sink))?;
        self.report.units = units;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_say_when_many_activations_stay_float() {
        let names: Vec<String> = (0..10).map(|i| format!("v{i}")).collect();
        let named = |n: usize| -> Vec<(&str, f64)> {
            names.iter().take(n).enumerate().map(|(i, name)| (name.as_str(), (i + 1) as f64 / 100.0)).collect()
        };
        let few = note_of_float(&named(2), 16);
        assert_eq!(
            few,
            "activations that stay float, and the noise that their bits would make of the outputs: `v0` (1.00 %), `v1` \
             (2.00 %); --noise-limit 0 quantizes them"
        );
        let many = note_of_float(&named(2), 15);
        assert!(many.starts_with(&few) && many.contains(". These are 2 of 15, so that "), "{many}");
        let long = note_of_float(&named(10), 100);
        assert!(long.contains("outputs: `v2` (3.00 %), `v3` "), "the worst of them: {long}");
        assert!(long.contains("`v9` (10.00 %), and 2 more, which the report's recipe names; "), "{long}");
    }
}
