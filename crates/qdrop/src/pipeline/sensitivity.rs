//! What quantizing one layer or activation alone does to the network's outputs.
//!
//! Weights are rounded to nearest, at 2 bits far from what learning reaches. Most of the difference is a shift of the
//! mean of each output channel, which learned roundings and biases take out. So for methods that learn, the shift is taken
//! out of the bias here too, where a layer has one (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2,
//! with measured means): what is left is a nearly constant multiple of what learned rounding leaves, whatever the layer
//! and the bits.

use super::deviation::Deviation;
use super::loaded::Loaded;
use super::padding::Padding;
use super::record::Seen;
use super::refine::Effect;
use super::run::Network;
use super::scene::Scene;
use super::shapes::input_shapes;
use super::shift::Shift;
use super::unit::{Cache, learned_biases};
use super::walk::{Change, Walk};
use super::work::{self, WorkDir};
use super::{memory, refine, run, samples};
use crate::calibrate::{self, Watch};
use crate::data::Samples;
use crate::engine::device::{beside, processors};
use crate::engine::facts;
use crate::engine::program::{Region, compile};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::plan::{BitError, Curve, GridSpec, Layer, LayerId, Measure, Mixed, Plan, Recipe, Sensitivity, Site};
use crate::quant::{Grid, QuantizedWeight};
use crate::report::{Event, Sink, Stage, timed};
use crate::tensor::{Precision, Rows, Shelf, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Steps that progress is told in.
const STEPS: usize = 100;

/// Measures every layer and activation of `graph` (simplified) that `recipe` quantizes, with each of its candidates, on
/// [`Mixed::samples`] of `samples`. First grids are fitted to as many as the recipe says. The caller names the model.
pub fn sensitivity(graph: &Graph, recipe: &Recipe, samples: &dyn Samples, sink: &mut dyn Sink) -> Result<Sensitivity> {
    let mixed = Mixed { size: None, bitops: None, ..recipe.mixed.clone() };
    let recipe = &Recipe { mixed, ..recipe.clone() };
    let device = &processors(recipe.method.threads)?;
    let shapes = run::shapes_of(samples)?;
    let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;
    let plan = &crate::plan::plan(graph, &facts, recipe)?;
    let room = memory::room(graph, &facts, plan, recipe, (samples.len(), samples.held_bytes()), device)?;
    let shelf = &Shelf::new(room, &std::env::temp_dir(), Precision::Single);
    let effective = recipe.resolved();
    let few =
        samples::spreads(samples.len(), &[effective.factor_samples, effective.refine_samples, recipe.mixed.samples]);
    let samples = &Loaded::new(samples, &few, device, shelf, sink)?;
    let scene = Scene { graph, facts: &facts, plan, recipe, samples, device, shelf };
    let mut timings = Vec::new();
    let factored = scene.factored(&mut timings, sink)?;
    let graph = factored.as_ref().map_or(graph, |f| &f.graph);
    let facts = &facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;
    let plan = &crate::plan::plan(graph, facts, recipe)?;
    let scene = Scene { graph, facts, plan, ..scene };
    let (observed, _) = timed(sink, Stage::Calibrate, None, |sink| scene.observe(sink))?;
    let watch = observed.sites;
    let all = recipe.mixed.bits();
    let wanted = Measure { layers: vec![all.clone(); plan.layers.len()], sites: vec![all; plan.sites.len()] };
    Ok(scene.sensitivity(&watch, &wanted, None, sink)?.sensitivity)
}

/// Squared error of the outputs of `written`, what `graph` (both simplified) became, as a share of their energy and summed
/// over the outputs of real numbers, on those of `samples` that sensitivities are measured on.
pub fn output_error(
    graph: &Graph,
    written: &Graph,
    recipe: &Recipe,
    samples: &dyn Samples,
    sink: &mut dyn Sink,
) -> Result<f64> {
    let few = samples::spread(samples, Some(recipe.mixed.samples))?;
    let shapes = run::shapes_of(&few)?;
    let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;
    // Outputs keep their order, values inside their names.
    let counterpart = |v: ValueId| match graph.outputs.iter().position(|&o| o == v) {
        Some(place) => written.outputs.get(place).copied(),
        None => written.value_ids().find(|&w| written.value(w).name == graph.value(v).name),
    };
    let pairs = run::ends(graph, &facts).into_iter().filter_map(|v| Some((v, counterpart(v)?)));
    let (float, quantized): (Vec<ValueId>, Vec<ValueId>) = pairs.unzip();
    let (device, count) = (&processors(recipe.method.threads)?, float.len());
    let networks = (Network::new(graph, &shapes, float, device)?, Network::new(written, &shapes, quantized, device)?);
    let mut deviation = Deviation::new(count);
    let both = |inputs: &[Vec<Tensor>]| Ok((networks.0.run(inputs)?, networks.1.run(inputs)?));
    let chunk = networks.0.chunk.min(networks.1.chunk);
    run::each(&few, 1..=chunk, device, Stage::Compare, sink, both, |_, (wanted, got)| {
        let rows = |rows: &Rows| rows.iter().map(|r| Ok(r?.into_owned())).collect::<Result<Vec<_>>>();
        let got = got.iter().map(|r| Ok(rows(r)?.concat())).collect::<Result<Vec<_>>>()?;
        deviation.add(0, &got, &wanted)
    })?;
    Ok(deviation.error())
}

/// Per layer or site, what its bits come to.
type Tries<T> = Vec<Vec<(u32, T)>>;

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Measured {
    pub sensitivity: Sensitivity,
    /// Refined first grids of the sites, with the bits that were measured.
    grids: Tries<First>,
}

/// A first grid of a site.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct First {
    grid: Grid,
    effect: Effect,
}

impl Measured {
    /// What `watch` has seen of the sites of `plan`, whose bits are among those measured, and their first grids.
    pub fn seen(&self, watch: &Watch, plan: &Plan) -> Result<Seen> {
        let first = |(site, tries): (&Site, &Vec<(u32, First)>)| {
            let found = tries.iter().find(|t| t.0 == site.grid.bits).map(|t| (t.1.grid.clone(), t.1.effect));
            found.ok_or_else(|| Error::internal(format!("`{}` was measured with other bits", site.name)))
        };
        let found = plan.sites.iter().zip(&self.grids).map(first).collect::<Result<Vec<_>>>()?;
        let (refined, effects) = found.into_iter().unzip();
        Ok(Seen { distributions: watch.distributions(), first: watch.fit(plan)?, refined, effects })
    }
}

impl Scene<'_> {
    /// Measures the bits that `wanted` lists, or finds in `work` that an earlier run did. `watch` has seen the sites.
    pub fn sensitivity(
        &self,
        watch: &Watch,
        wanted: &Measure,
        work: Option<&WorkDir>,
        sink: &mut dyn Sink,
    ) -> Result<Measured> {
        let outputs = run::ends(self.graph, self.facts);
        if outputs.is_empty() {
            return Err(Error::unsupported("the network has no output of real numbers, so nothing can be measured"));
        }
        let few = samples::spread(self.samples, Some(self.recipe.mixed.samples))?;
        let inputs = run::load(self.graph, &few, self.device, self.shelf, sink)?;
        let refining = samples::spread(self.samples, Some(self.recipe.resolved().refine_samples))?;
        let refining = run::load(self.graph, &refining, self.device, &Shelf::memory(), sink)?;
        let (weights, grids) =
            beside(self.device, || Ok::<_, Error>((self.tried_weights(wanted)?, self.tried_grids(watch, wanted)?)))?;

        let region = Region {
            nodes: run::behind(self.graph, &outputs),
            inputs: self.graph.inputs.clone(),
            outputs,
            ..Region::default()
        };
        let program = compile(self.graph, self.facts, &region)?;
        let names: Vec<&str> = self.plan.layers.iter().map(|l| self.graph.value(l.weight).name.as_str()).collect();
        let plan = (&self.plan.layers, names, &self.plan.sites, self.recipe.resolved().learns);
        let rows: Vec<&Rows> = inputs.values().chain(refining.values()).collect();
        let key = work::key_of(&(program, plan, &weights, &grids), &rows)?;
        if let Some(measured) = work.and_then(|work| work.found(&key, sink)) {
            return Ok(measured);
        }
        let grids = self.refined(grids, &refining, sink)?;
        let (sensitivity, _) =
            timed(sink, Stage::Sensitivity, Some(STEPS), |sink| self.walk(inputs, few.len(), &weights, &grids, sink))?;
        let measured = Measured { sensitivity, grids };
        work.map_or(Ok(()), |work| work.keep(&key, &measured))?;
        Ok(measured)
    }

    /// Every layer rounded to nearest on the grids of its bits.
    fn tried_weights(&self, wanted: &Measure) -> Result<Tries<QuantizedWeight>> {
        let mut tries = vec![Vec::new(); self.plan.layers.len()];
        for bits in all(&wanted.layers) {
            let with: Vec<usize> = (0..tries.len()).filter(|&l| wanted.layers[l].contains(&bits)).collect();
            let layers = with.iter().map(|&l| {
                let layer = self.plan.layers[l].clone();
                Layer { grid: GridSpec { bits, ..layer.grid }, ..layer }
            });
            let plan = Plan { layers: layers.collect(), ..Plan::default() };
            let rounded = calibrate::round_to_nearest(self.graph, &plan, &calibrate::fit_weights(self.graph, &plan)?)?;
            with.into_iter().zip(rounded).for_each(|(l, weight)| tries[l].push((bits, weight)));
        }
        Ok(tries)
    }

    /// First grids of every site with its bits.
    fn tried_grids(&self, watch: &Watch, wanted: &Measure) -> Result<Tries<First>> {
        let mut tries = vec![Vec::new(); self.plan.sites.len()];
        for bits in all(&wanted.sites) {
            let plan = Plan { sites: self.plan.sites.iter().map(|s| with(s, bits)).collect(), ..Plan::default() };
            for (s, grid) in watch.fit(&plan)?.into_iter().enumerate().filter(|(s, _)| wanted.sites[*s].contains(&bits))
            {
                tries[s].push((bits, First { grid, effect: None }));
            }
        }
        Ok(tries)
    }

    /// First grids as a run would refine them on `inputs`.
    fn refined(&self, mut tries: Tries<First>, inputs: &Cache, sink: &mut dyn Sink) -> Result<Tries<First>> {
        let most = tries.iter().map(Vec::len).max().unwrap_or(0);
        // A round takes one try of every site.
        for round in (0..most).filter(|_| inputs.values().any(|rows| !rows.is_empty())) {
            let open: Vec<usize> = (0..tries.len()).filter(|&s| tries[s].len() > round).collect();
            let sites = open.iter().map(|&s| with(&self.plan.sites[s], tries[s][round].0)).collect();
            let mut grids: Vec<Grid> = open.iter().map(|&s| tries[s][round].1.grid.clone()).collect();
            let plan = Plan { sites, ..Plan::default() };
            let (effects, _) = timed(sink, Stage::Refine, Some(open.len()), |sink| {
                refine::refine(self.graph, self.facts, &plan, inputs.clone(), self.device, &mut grids, sink)
            })?;
            let first = grids.into_iter().zip(effects).map(|(grid, effect)| First { grid, effect });
            open.into_iter().zip(first).for_each(|(s, first)| tries[s][round].1 = first);
        }
        Ok(tries)
    }

    /// Walks through the float network and measures layers and sites where they stand.
    fn walk(
        &self,
        inputs: Cache,
        samples: usize,
        weights: &Tries<QuantizedWeight>,
        grids: &Tries<First>,
        sink: &mut dyn Sink,
    ) -> Result<Sensitivity> {
        let (layers, sites) = (&self.plan.layers, &self.plan.sites);
        let few = samples::spread(self.samples, Some(samples))?;
        let padding = Padding::read(self.graph, self.facts, self.recipe, &few)?;
        let biases = self.biases()?;
        let classes = match run::ends(self.graph, self.facts)[..] {
            [one] if self.graph.outputs == [one] => {
                self.facts.get(one).is_some_and(|f| matches!(f.shape[..], [1, classes] if classes > 1))
            }
            _ => false,
        };
        let found = |bits: u32, deviation: &Deviation| {
            let error = Some(deviation.error()).filter(|e| e.is_finite()).unwrap_or(f64::MAX);
            BitError { bits, error, agreement: classes.then(|| deviation.agreement()) }
        };
        let mut walk = Walk::new(self.graph, self.facts, inputs, self.device, self.shelf);
        let wanted = walk.outputs()?;
        let at_layers = (0..layers.len()).filter_map(|l| Some((walk.until_reader(&layers[l].nodes)?, Item::Layer(l))));
        let at_sites = (0..sites.len()).filter_map(|s| Some((walk.until_known(sites[s].value)?, Item::Site(s))));
        let mut items: Vec<(usize, Item)> = at_layers.chain(at_sites).collect();
        items.sort_by_key(|item| item.0);
        let mut progress = Progress::new(&walk, &items, weights, grids);

        let mut of_layers = vec![Vec::new(); layers.len()];
        let mut of_sites = vec![Vec::new(); sites.len()];
        for &(position, item) in &items {
            walk.advance(position)?;
            match item {
                Item::Layer(l) => {
                    let (layer, bias) = (&layers[l], biases.get(&l));
                    let shift = |b| Shift::new(self.graph, self.facts, layer, b, &walk, padding.as_ref(), self.device);
                    let shift = bias.map(shift).transpose()?;
                    let changed = [layer.weight].into_iter().chain(shift.as_ref().map(|s| s.value));
                    let tail = walk.tail(Change::weights(changed.collect()))?;
                    for (bits, weight) in &weights[l] {
                        let mut contents = vec![weight.grid.dequantize_u8(&layer.shape, &weight.integers)?];
                        if let Some(shift) = &shift {
                            contents.push(shift.corrected(&contents[0])?);
                        }
                        let contents: Vec<&[f32]> = contents.iter().map(Vec::as_slice).collect();
                        of_layers[l].push(found(*bits, &walk.deviation(&tail, &contents, None, &wanted)?));
                        progress.tried(position, sink)?;
                    }
                }
                Item::Site(s) => {
                    let tail = walk.tail(Change::site(sites[s].value, sites[s].readers.clone()))?;
                    for (bits, first) in &grids[s] {
                        of_sites[s].push(found(*bits, &walk.deviation(&tail, &[], Some(&first.grid), &wanted)?));
                        progress.tried(position, sink)?;
                    }
                }
            }
        }
        let layer = |(layer, errors): (&Layer, Vec<BitError>)| Curve {
            name: layer.name.clone(),
            value: self.graph.value(layer.weight).name.clone(),
            elements: layer.shape.iter().product::<usize>() as u64,
            errors,
        };
        let site = |(site, errors): (&Site, Vec<BitError>)| Curve {
            name: site.name.clone(),
            value: site.name.clone(),
            elements: self.facts.get(site.value).map_or(0, |f| f.numel() as u64),
            errors,
        };
        Ok(Sensitivity {
            schema: Sensitivity::SCHEMA,
            model: String::new(),
            samples,
            biases_corrected: self.recipe.resolved().learns,
            layers: layers.iter().zip(of_layers).map(layer).collect(),
            activations: sites.iter().zip(of_sites).map(site).collect(),
        })
    }

    /// Biases that the method can learn, with their float content, by layer.
    fn biases(&self) -> Result<BTreeMap<usize, (ValueId, Vec<f32>)>> {
        if !self.recipe.resolved().learns {
            return Ok(BTreeMap::new());
        }
        let layers = (0..self.plan.layers.len() as u32).map(LayerId);
        let learned = learned_biases(self.graph, self.plan, layers)?;
        Ok(learned.into_iter().map(|(l, id, content)| (l.0 as usize, (id, content))).collect())
    }
}

/// How far measuring is. A try costs as much as nodes lie behind it.
struct Progress {
    nodes: usize,
    done: usize,
    total: usize,
}

impl Progress {
    fn new(walk: &Walk, items: &[(usize, Item)], weights: &Tries<QuantizedWeight>, grids: &Tries<First>) -> Self {
        let mut progress = Progress { nodes: walk.len(), done: 0, total: 0 };
        let cost = |&(position, item): &(usize, Item)| match item {
            Item::Layer(l) => progress.cost(position) * weights[l].len(),
            Item::Site(s) => progress.cost(position) * grids[s].len(),
        };
        progress.total = items.iter().map(cost).sum();
        progress
    }

    fn cost(&self, position: usize) -> usize {
        (self.nodes - position).max(1)
    }

    /// Tells `sink` of a try at `position`; an error when it asks to stop.
    fn tried(&mut self, position: usize, sink: &mut dyn Sink) -> Result<()> {
        self.done += self.cost(position);
        let done = STEPS * self.done / self.total;
        sink.event(&Event::StageProgress { stage: Stage::Sensitivity, done, total: STEPS });
        run::go_on(sink)
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
enum Item {
    Layer(usize),
    Site(usize),
}

/// `site` with other bits.
fn with(site: &Site, bits: u32) -> Site {
    Site { grid: GridSpec { bits, ..site.grid }, ..site.clone() }
}

/// All bits in `lists`, ascending.
fn all(lists: &[Vec<u32>]) -> BTreeSet<u32> {
    lists.iter().flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Checked, WorkDir, quantize};
    use super::*;
    use crate::graph::testing::{Builder, window};
    use crate::graph::{Node, Op, Unary};
    use crate::plan::MethodName;
    use crate::report::Silent;

    /// Images of noise, not around 0.
    struct Noise(usize);

    impl Samples for Noise {
        fn len(&self) -> usize {
            self.0
        }
        fn get(&self, index: usize) -> Result<Vec<Tensor>> {
            let pixel = |i: usize| ((i * 131 + index * 977 + i * i * 7) % 211) as f32 / 100.0 - 0.4;
            Ok(vec![Tensor::f32(&[3, 6, 6], (0..108).map(pixel).collect())])
        }
        fn label(&self, _: usize) -> Option<usize> {
            None
        }
        fn name(&self, index: usize) -> String {
            format!("noise {index}")
        }
    }

    /// Three convolutions with biases and a head.
    fn network() -> Graph {
        let mut b = Builder::new();
        let mut x = b.images(3, 6);
        for (i, cin) in [3, 8, 8].into_iter().enumerate() {
            let w = b.constant(&format!("conv{i}.weight"), &[8, cin, 3, 3]);
            let bias = b.constant(&format!("conv{i}.bias"), &[8]);
            let y = b.node(Op::Conv { window: window(vec![1; 4]), group: 1 }, &[x, w, bias]);
            x = b.relu(y);
        }
        let y = b.head(x, 8);
        b.finish(&[y])
    }

    fn recipe(method: MethodName) -> Recipe {
        let mut recipe = Recipe::default();
        (recipe.method.name, recipe.method.batch, recipe.method.iterations) = (method, 8, Some(5));
        recipe.mixed.samples = 16;
        recipe
    }

    #[test]
    fn errors_fall_with_bits_and_shifts_of_means_are_taken_out() {
        let graph = network();
        let measured = |method| sensitivity(&graph, &recipe(method), &Noise(24), &mut Silent).unwrap();
        let (corrected, plain) = (measured(MethodName::Qdrop), measured(MethodName::Rtn));
        assert_eq!((corrected.biases_corrected, plain.biases_corrected, corrected.samples), (true, false, 16));
        assert_eq!((corrected.layers.len(), corrected.activations.len()), (4, 3));
        for curve in corrected.layers.iter().chain(&plain.layers).chain(&corrected.activations) {
            assert_eq!(curve.errors.iter().map(|e| e.bits).collect::<Vec<_>>(), [2, 3, 4, 6, 8]);
            assert!(curve.error(2) > curve.error(4) && curve.error(4) > curve.error(8), "{curve:?}");
            assert!(curve.error(8).is_some_and(|e| e > 0.0 && e < 1e-2), "{curve:?}");
            assert!(curve.errors.iter().all(|e| e.agreement.is_some()), "a classifier");
        }
        let sum = |s: &Sensitivity| s.layers.iter().map(|l| l.error(3).unwrap()).sum::<f64>();
        assert!(sum(&corrected) < sum(&plain), "{} for {}", sum(&corrected), sum(&plain));
        // The head has no bias to correct.
        assert_eq!(corrected.layers[3], plain.layers[3]);
    }

    #[test]
    fn what_only_shifts_means_is_no_error() {
        // The outputs are means of channels.
        let mut b = Builder::new();
        let x = b.images(3, 6);
        let (w, bias) = (b.constant("conv.weight", &[8, 3, 3, 3]), b.constant("conv.bias", &[8]));
        let y = b.node(Op::Conv { window: window(vec![1; 4]), group: 1 }, &[x, w, bias]);
        let y = b.node(Op::GlobalAveragePool, &[y]);
        let graph = b.finish(&[y]);
        let error = |method| {
            let found = sensitivity(&graph, &recipe(method), &Noise(24), &mut Silent).unwrap();
            assert!(found.layers[0].errors[0].agreement.is_none(), "no classifier");
            found.layers[0].error(2).unwrap()
        };
        let (corrected, plain) = (error(MethodName::Qdrop), error(MethodName::Rtn));
        assert!(corrected < 0.05 * plain, "{corrected} for {plain}");
    }

    #[test]
    fn threads_change_nothing() {
        let with = |threads| {
            let mut recipe = recipe(MethodName::Qdrop);
            (recipe.method.threads, recipe.mixed.candidates) = (threads, vec![3, 8]);
            sensitivity(&network(), &recipe, &Noise(24), &mut Silent).unwrap()
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn a_network_that_ends_in_integers_cannot_be_measured() {
        let mut graph = network();
        let class = graph.add_value("class", Default::default());
        let op = Op::ArgReduce { largest: true, axis: 1, keepdims: false, select_last_index: false };
        graph.nodes.push(Node::new("argmax", op, &[graph.outputs[0]], &[class]));
        graph.outputs = vec![class];
        let error = sensitivity(&graph, &recipe(MethodName::Rtn), &Noise(8), &mut Silent).unwrap_err();
        assert!(error.message().contains("no output of real numbers"), "{error}");
    }

    #[test]
    fn what_no_output_depends_on_is_not_measured() {
        let mut graph = network();
        // The classes alone depend on the head; the output of real numbers stands before it.
        let class = graph.add_value("class", Default::default());
        let op = Op::ArgReduce { largest: true, axis: 1, keepdims: false, select_last_index: false };
        graph.nodes.push(Node::new("argmax", op, &[graph.outputs[0]], &[class]));
        let relu = graph.nodes.iter().rfind(|n| n.op == Op::Unary(Unary::Relu)).and_then(|n| n.output(0)).unwrap();
        graph.outputs = vec![class, relu];
        let found = sensitivity(&graph, &recipe(MethodName::Rtn), &Noise(8), &mut Silent).unwrap();
        assert!(found.layers[3].errors.is_empty() && found.layers[..3].iter().all(|l| l.errors.len() == 5));
    }

    /// Stages that began.
    #[derive(Default)]
    struct Stages(Vec<Stage>);

    impl Sink for Stages {
        fn event(&mut self, event: &Event) {
            if let Event::StageStarted { stage, .. } = event {
                self.0.push(*stage);
            }
        }
    }

    #[test]
    fn bits_are_chosen_within_the_target_and_measured_once() {
        let graph = network();
        let dir = tempfile::tempdir().unwrap();
        let mut recipe = recipe(MethodName::Qdrop);
        recipe.mixed.bitops = Some("w3a3".parse().unwrap());
        let noise = Noise(24);
        let samples = Checked::new(&graph, &[vec![3, 6, 6]], &noise).unwrap();
        let run = |recipe: &Recipe| {
            let work = WorkDir::open(dir.path()).unwrap();
            let mut stages = Stages::default();
            let done = quantize(&graph, recipe, &samples, Some(&work), &mut stages).unwrap();
            (done, stages.0.contains(&Stage::Sensitivity))
        };
        let (first, measured) = run(&recipe);
        let mixed = first.report.mixed.as_ref().unwrap();
        assert!(measured && mixed.chosen.cost.bit_operations <= mixed.chosen.most_bit_operations.unwrap());
        let shapes = [vec![1, 3, 6, 6]];
        let facts = facts::infer(&graph, &shapes).unwrap();
        assert_eq!(crate::plan::cost(&graph, &facts, &first.plan), mixed.chosen.cost);
        for (layer, weight) in first.plan.layers.iter().zip(&first.weights) {
            assert_eq!(weight.grid.bits(), layer.grid.bits);
        }
        assert!(output_error(&graph, &first.graph, &recipe, &samples, &mut Silent).unwrap() > 0.0);
        assert_eq!(output_error(&graph, &graph, &recipe, &samples, &mut Silent).unwrap(), 0.0);
        // Again: nothing is measured or learned, and the same comes out.
        let (again, measured) = run(&recipe);
        assert!(!measured && again.report.units.iter().all(|u| u.resumed));
        assert_eq!((&again.graph, &again.report.mixed), (&first.graph, &first.report.mixed));
        // The recipe with the choice repeats it.
        let (repeated, measured) = run(&recipe.with(&mixed.chosen));
        assert!(!measured && repeated.report.mixed.is_none() && repeated.graph == first.graph);
        // Other samples are another measurement.
        recipe.mixed.samples = 8;
        assert!(run(&recipe).1);
    }
}
