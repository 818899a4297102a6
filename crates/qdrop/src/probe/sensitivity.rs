//! What quantizing one layer or activation alone does to the network's outputs.
//!
//! Weights are rounded to nearest, at 2 bits far from what learning reaches. Most of the difference is a shift of the
//! mean of each output channel, which learned roundings and biases take out, or corrected biases where nothing is learned.
//! So the shift is taken out of the bias here too, where a layer has one ([`super::shift`]): what is left is a nearly
//! constant multiple of what learned rounding leaves, whatever the layer and the bits.

use super::calibration::Calibration;
use super::deviation::Deviation;
use super::forward::{Change, ForwardPass};
use super::grids::ActivationGrids;
use super::padding::Padding;
use super::refine::{self, Effect};
use super::run::{self, Cache};
use super::screen::SCREENED_BITS;
use super::shift::Shift;
use crate::calibrate::{self, Watch};
use crate::data::{Samples, Subset};
use crate::engine::device::beside;
use crate::engine::program::compile;
use crate::error::{Error, Result};
use crate::graph::ValueId;
use crate::plan::{
    BitError, Curve, GridSpec, Layer, LayerId, Measure, Plan, Recipe, Sensitivity, Share, Site, SiteId, Stripe,
    learned_biases,
};
use crate::quant::{Grid, QuantizedWeight};
use crate::report::{Event, Sink, Stage, timed};
use crate::tensor::{RowStore, Rows};
use crate::work::{self, Kept, MEASURED, WorkDir};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Steps that progress is told in.
const STEPS: usize = 100;

/// Share of a channel's squared error from which on its mean is taken out of the bias: results of which a few differ much
/// stay as they are.
const SHARE: f64 = 0.1;

/// Per layer or site, what its bits come to.
type Tries<T> = Vec<Vec<(u32, T)>>;

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
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
    pub fn activation_grids(&self, watch: &Watch, plan: &Plan) -> Result<ActivationGrids> {
        let first = |(site, tries): (&Site, &Vec<(u32, First)>)| {
            let found = tries.iter().find(|t| t.0 == site.grid.bits).map(|t| (t.1.grid.clone(), t.1.effect));
            found.ok_or_else(|| Error::internal(format!("`{}` was measured with other bits", site.name)))
        };
        let found = plan.sites.iter().zip(&self.grids).map(first).collect::<Result<Vec<_>>>()?;
        let (refined, effects) = found.into_iter().unzip();
        Ok(ActivationGrids { distributions: watch.distributions(), first: watch.fit(plan)?, refined, effects })
    }
}

impl Calibration<'_> {
    /// Measures the bits that `wanted` lists, of all layers and sites or of a `share`. The whole is found in `work` where an
    /// earlier run measured it. `watch` has seen the sites.
    pub fn sensitivity(
        &self,
        watch: &Watch,
        wanted: &Measure,
        share: Option<Stripe>,
        work: Option<&WorkDir>,
        sink: &mut dyn Sink,
    ) -> Result<Measured> {
        let region = run::whole(self.graph, self.facts);
        if region.outputs.is_empty() {
            return Err(Error::unsupported("the network has no output of real numbers, so nothing can be measured"));
        }
        let few = Subset::spread(self.samples, Some(self.recipe.mixed.samples))?;
        let inputs = run::load(self.graph, &few, self.device, self.store, sink)?;
        let refining = Subset::spread(self.samples, Some(self.recipe.resolved().refine_samples))?;
        let padding = self.padding(&refining)?;
        let refining = run::load(self.graph, &refining, self.device, &RowStore::memory(), sink)?;
        let (weights, grids) =
            beside(self.device, || Ok::<_, Error>((self.tried_weights(wanted)?, self.tried_grids(watch, wanted)?)))?;

        let program = compile(self.graph, self.facts, &region)?;
        let names: Vec<&str> = self.plan.layers.iter().map(|l| self.graph.value(l.weight).name.as_str()).collect();
        let plan = (&self.plan.layers, names, &self.plan.sites, corrects(self.recipe));
        let rows: Vec<&Rows> = inputs.values().chain(refining.values()).collect();
        let key = work::key_of(&(Sensitivity::SCHEMA, program, plan, &weights, &grids), &rows)?;
        let work = work.filter(|_| share.is_none());
        if let Some(measured) = work.and_then(|work| work.found(&key, sink)) {
            return Ok(measured);
        }
        let grids = self.refined(grids, share, watch, (&refining, padding.as_ref()), sink)?;
        let (mut sensitivity, _) = timed(sink, Stage::Sensitivity, Some(STEPS), |sink| {
            self.forward(inputs, few.len(), share, &weights, &grids, sink)
        })?;
        let (layers, activations) = (self.plan.layers.len(), self.plan.sites.len());
        sensitivity.share = share.map(|stripe| Share { stripe, layers, activations, key: key.to_hex().to_string() });
        let measured = Measured { sensitivity, grids };
        work.map_or(Ok(()), |work| work.keep(&key, &measured))?;
        Ok(measured)
    }

    /// Every layer rounded to nearest on the grids of its bits.
    fn tried_weights(&self, wanted: &Measure) -> Result<Tries<QuantizedWeight>> {
        let mut tries = vec![Vec::new(); self.plan.layers.len()];
        for bits in all(&wanted.layers) {
            let with: Vec<LayerId> =
                self.plan.layer_ids().filter(|l| wanted.layers[l.index()].contains(&bits)).collect();
            let layers = with.iter().map(|&l| {
                let layer = self.plan.layer(l).clone();
                Layer { grid: GridSpec { bits, ..layer.grid }, ..layer }
            });
            let plan = Plan { layers: layers.collect(), ..Plan::default() };
            // These number their layers in this plan, and the key of what was kept holds the numbers.
            let rounded = calibrate::round_to_nearest(self.graph, &plan, &calibrate::fit_weights(self.graph, &plan)?)?;
            with.into_iter().zip(rounded).for_each(|(l, weight)| tries[l.index()].push((bits, weight)));
        }
        Ok(tries)
    }

    /// First grids of every site with its bits.
    fn tried_grids(&self, watch: &Watch, wanted: &Measure) -> Result<Tries<First>> {
        let mut tries = vec![Vec::new(); self.plan.sites.len()];
        for bits in all(&wanted.sites) {
            let plan = Plan { sites: self.plan.sites.iter().map(|s| with(s, bits)).collect(), ..Plan::default() };
            for (s, grid) in plan.site_ids().zip(watch.fit(&plan)?) {
                if wanted.sites[s.index()].contains(&bits) {
                    tries[s.index()].push((bits, First { grid, effect: None }));
                }
            }
        }
        Ok(tries)
    }

    /// First grids as a run would refine them, on `inputs`: sites are screened where that is what a run with any choice of
    /// these bits does, else those of `share` are refined.
    fn refined(
        &self,
        mut tries: Tries<First>,
        share: Option<Stripe>,
        watch: &Watch,
        (inputs, padding): (&Cache, Option<&Padding>),
        sink: &mut dyn Sink,
    ) -> Result<Tries<First>> {
        let most = tries.iter().map(Vec::len).max().unwrap_or(0);
        let bits = tries.iter().flatten().map(|t| t.0);
        let screens = bits.min().is_some_and(|bits| bits >= SCREENED_BITS);
        // A round takes one try of every site; screening looks at all sites at once, and at the last try of those without
        // another.
        for round in (0..most).filter(|_| inputs.values().any(|rows| !rows.is_empty())) {
            let open: Vec<SiteId> = self
                .plan
                .site_ids()
                .filter(|s| screens || is_in(share, s.index()) && tries[s.index()].len() > round)
                .collect();
            let of = |&s: &SiteId| tries[s.index()].get(round).or(tries[s.index()].last()).map(|t| (s, t));
            let (sites, mut grids): (Vec<Site>, Vec<Grid>) =
                open.iter().filter_map(of).map(|(s, t)| (with(self.plan.site(s), t.0), t.1.grid.clone())).unzip();
            let plan = Plan { sites, ..Plan::default() };
            let (effects, _) = timed(sink, Stage::Refine, Some(open.len()), |sink| match screens {
                true => {
                    let few = self.recipe.resolved().refine_samples;
                    Calibration { plan: &plan, ..*self }.screen(few, watch, &mut grids, sink)
                }
                false => {
                    let inputs = (inputs.clone(), padding);
                    refine::refine((self.graph, self.facts, &plan), inputs, self.device, &mut grids, sink)
                }
            })?;
            for (s, (grid, effect)) in open.into_iter().zip(grids.into_iter().zip(effects)) {
                if let Some(slot) = tries[s.index()].get_mut(round) {
                    slot.1 = First { grid, effect };
                }
            }
        }
        Ok(tries)
    }

    /// Runs the float network forward once and measures the layers and sites of `share` where they stand.
    fn forward(
        &self,
        inputs: Cache,
        samples: usize,
        share: Option<Stripe>,
        weights: &Tries<QuantizedWeight>,
        grids: &Tries<First>,
        sink: &mut dyn Sink,
    ) -> Result<Sensitivity> {
        let (layers, sites) = (&self.plan.layers, &self.plan.sites);
        let few = Subset::spread(self.samples, Some(samples))?;
        let padding = self.padding(&few)?;
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
        let mut forward = ForwardPass::new(self.graph, self.facts, inputs, self.device, self.store);
        let wanted = forward.outputs(padding.as_ref(), sink)?;
        let layer = |l: LayerId| Some((forward.until_reader(&self.plan.layer(l).nodes)?, Item::Layer(l)));
        let site = |s: SiteId| Some((forward.until_known(self.plan.site(s).value)?, Item::Site(s)));
        let at_layers = self.plan.layer_ids().filter(|l| is_in(share, l.index())).filter_map(layer);
        let at_sites = self.plan.site_ids().filter(|s| is_in(share, s.index())).filter_map(site);
        let mut items: Vec<(usize, Item)> = at_layers.chain(at_sites).collect();
        items.sort_by_key(|item| item.0);
        let mut progress = Progress::new(&forward, &items, weights, grids);

        let mut of_layers = vec![Vec::new(); layers.len()];
        let mut of_sites = vec![Vec::new(); sites.len()];
        for &(position, item) in &items {
            forward.advance(position, sink)?;
            match item {
                Item::Layer(l) => {
                    let layer = self.plan.layer(l);
                    let correction = match biases.get(&l) {
                        Some(bias) => self.correction(layer, bias, &forward, padding.as_ref())?,
                        None => None,
                    };
                    let changed = [layer.weight].into_iter().chain(correction.as_ref().map(|c| c.shift.bias));
                    let tail = forward.tail(Change::weights(changed.collect()))?;
                    for (bits, weight) in &weights[l.index()] {
                        let mut contents = vec![weight.grid.dequantize_u8(&layer.shape, &weight.integers)?];
                        if let Some(correction) = &correction {
                            contents.push(correction.bias(&contents[0], sink)?);
                        }
                        let contents: Vec<&[f32]> = contents.iter().map(Vec::as_slice).collect();
                        of_layers[l.index()]
                            .push(found(*bits, &forward.deviation(&tail, &contents, None, &wanted, sink)?));
                        progress.tried(position, sink)?;
                    }
                }
                Item::Site(s) => {
                    let site = self.plan.site(s);
                    let tail = forward.tail(Change::site(site.value, site.readers.clone()))?;
                    for (bits, first) in &grids[s.index()] {
                        of_sites[s.index()]
                            .push(found(*bits, &forward.deviation(&tail, &[], Some(&first.grid), &wanted, sink)?));
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
            biases_corrected: corrects(self.recipe),
            share: None,
            layers: shared(share, layers.iter().zip(of_layers)).map(layer).collect(),
            activations: shared(share, sites.iter().zip(of_sites)).map(site).collect(),
        })
    }

    /// What takes the shift of the mean out of `bias` when the weight of `layer`, before which `forward` stands, changes.
    fn correction<'a>(
        &'a self,
        layer: &Layer,
        bias: &'a (ValueId, Vec<f32>),
        forward: &'a ForwardPass,
        padding: Option<&'a Padding>,
    ) -> Result<Option<Correction<'a>>> {
        let shift = Shift::new(self.graph, self.facts, layer, bias, self.device)?;
        let Some((shift, float)) = shift.zip(self.graph.constant(layer.weight)) else { return Ok(None) };
        let Some(values) = forward.value(shift.operand.0) else { return Ok(None) };
        Ok(Some(Correction { shift, values, padding, float: float.to_f32()? }))
    }

    /// Biases that take shifts of means out in a run, with their float content, by layer.
    fn biases(&self) -> Result<BTreeMap<LayerId, (ValueId, Vec<f32>)>> {
        if !corrects(self.recipe) {
            return Ok(BTreeMap::new());
        }
        let learned = learned_biases(self.graph, self.plan, self.plan.layer_ids())?;
        Ok(learned.into_iter().map(|(l, id, content)| (l, (id, content))).collect())
    }
}

/// Whether what is at `position` is in `share`; without one, everything is.
fn is_in(share: Option<Stripe>, position: usize) -> bool {
    share.is_none_or(|share| share.contains(position))
}

/// Those of `items` that are in `share`.
fn shared<T>(share: Option<Stripe>, items: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    items.enumerate().filter(move |(i, _)| is_in(share, *i)).map(|(_, item)| item)
}

/// Whether a run by `recipe` takes the shifts of means that rounding causes out of biases, by learning or at once.
fn corrects(recipe: &Recipe) -> bool {
    let effective = recipe.resolved();
    effective.learns || effective.correct_samples > 0
}

/// A layer's bias while other contents of its weight are tried.
struct Correction<'a> {
    shift: Shift<'a>,
    values: &'a Rows,
    padding: Option<&'a Padding>,
    /// Float content of the weight.
    float: Vec<f32>,
}

impl Correction<'_> {
    /// The bias with which the means of the results stay as they are when the weight is `content`.
    fn bias(&self, content: &[f32], sink: &dyn Sink) -> Result<Vec<f32>> {
        let errors = self.shift.errors(&self.float, &[content], self.values, None, self.padding, sink)?;
        Ok(self.shift.corrected(&errors[0], SHARE))
    }
}

/// How far measuring is. A try costs as much as nodes lie behind it.
struct Progress {
    nodes: usize,
    done: usize,
    total: usize,
}

impl Progress {
    fn new(
        forward: &ForwardPass,
        items: &[(usize, Item)],
        weights: &Tries<QuantizedWeight>,
        grids: &Tries<First>,
    ) -> Self {
        let mut progress = Progress { nodes: forward.len(), done: 0, total: 0 };
        let cost = |&(position, item): &(usize, Item)| match item {
            Item::Layer(l) => progress.cost(position) * weights[l.index()].len(),
            Item::Site(s) => progress.cost(position) * grids[s.index()].len(),
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
    Layer(LayerId),
    Site(SiteId),
}

/// `site` with other bits.
fn with(site: &Site, bits: u32) -> Site {
    Site { grid: GridSpec { bits, ..site.grid }, ..site.clone() }
}

/// All bits in `lists`, ascending.
fn all(lists: &[Vec<u32>]) -> BTreeSet<u32> {
    lists.iter().flatten().copied().collect()
}

impl Kept for Measured {
    const EXTENSION: &str = MEASURED;
}
