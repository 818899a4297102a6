//! First grids at 8 bits: which of them are worth refining, found for all at once.
//!
//! Where every activation has 8 bits, nearly all grids are as good as any other. What each site costs the network's
//! outputs, on its grid and on wider and narrower ones, is estimated for all sites in one pass forwards and one
//! backwards. Only a site that costs much and would cost less on another step is measured, and its step is changed
//! only where samples that did not choose the step agree.

use super::calibration::Calibration;
use super::forward::ForwardPass;
use super::padding::Padding;
use super::refine::{Effect, Measuring};
use super::run::{self, Cache};
use crate::calibrate::{self, Watch};
use crate::data::{Samples, Subset};
use crate::engine::device::OutputError;
use crate::engine::program::{Region, compile};
use crate::error::{Kind, Result};
use crate::graph::ValueId;
use crate::plan::{Site, SiteId};
use crate::quant::Grid;
use crate::report::{Event, Sink, Stage};
use crate::tensor::Rows;
use std::collections::BTreeSet;
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

/// Bits from which on sites are screened.
pub(super) const SCREENED_BITS: u32 = 8;
/// Share of the error of all sites, below which a site is left alone.
const SHARE: f64 = 0.05;
/// What the estimate must be divided by on another step for a site to be measured.
const PROMISING: f64 = 1.1;
/// How often a step is divided and multiplied by √2 for the estimates.
const TRIED: (i32, i32) = (4, 2);
/// Samples on which sites are measured where they cannot be estimated.
const FEW: usize = 4;

/// Whether refining should screen the sites first.
pub(crate) fn screened(sites: &[Site]) -> bool {
    sites.iter().all(|s| s.grid.bits >= SCREENED_BITS)
}

/// What is known of a site before its step is changed.
#[derive(Debug, Clone, Copy)]
struct Guess {
    /// Distance of the outputs when it alone is quantized, about.
    error: f64,
    /// Whether another step may be better.
    promising: bool,
}

impl Calibration<'_> {
    /// Refines `grids` (one a site, in the plan's order) where that matters, on `few` samples. `watch` has seen the sites.
    pub(crate) fn screen(
        &self,
        few: usize,
        watch: &Watch,
        grids: &mut [Grid],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Effect>> {
        let chosen = Subset::spread(self.samples, Some(few))?;
        let inputs = run::load(self.graph, &chosen, self.device, self.store, sink)?;
        let padding = self.padding(&chosen)?;
        let padding = padding.as_ref();
        let guesses = self.guess(&inputs, padding, grids, sink)?;
        let total: f64 = guesses.iter().flatten().map(|g| g.error).sum();
        let mut effects: Vec<Effect> = guesses.iter().map(|g| g.map(|g| (g.error, g.error))).collect();
        let worth = |g: &Option<Guess>| g.is_some_and(|g| g.promising && g.error >= SHARE * total);
        let open: Vec<SiteId> = self.plan.site_ids().filter(|id| worth(&guesses[id.index()])).collect();
        if open.is_empty() {
            return Ok(effects);
        }

        let halves = [0, 1].map(|half| (half..chosen.len()).step_by(2).collect::<Vec<_>>());
        let [choose, confirm] = halves.each_ref().map(|half| run::part(&inputs, half));
        let of = |half: &[usize]| padding.map(|p| p.part(half)).transpose();
        let mut choose = self.measuring(choose?, of(&halves[0])?.as_ref(), sink)?;
        let mut confirm = self.measuring(confirm?, of(&halves[1])?.as_ref(), sink)?;
        let order = choose.0.order(open.iter().map(|&id| (self.plan.site(id).value, id)));
        for (done, &id) in order.iter().enumerate() {
            run::go_on(sink)?;
            let site = self.plan.site(id);
            let place = |e: crate::Error| e.at(format!("activation `{}`", site.name));
            let (grid, effect) = (&mut grids[id.index()], &mut effects[id.index()]);
            let refined = choose.refined(site, grid, sink).map_err(place)?;
            *effect = Some((refined.before, refined.before));
            if refined.grid != *grid && self.confirmed(id, [grid, &refined.grid], &mut confirm, watch, sink)? {
                *effect = Some((refined.before, refined.after));
                *grid = refined.grid;
            }
            sink.event(&Event::StageProgress { stage: Stage::Refine, done: done + 1, total: order.len() });
        }
        Ok(effects)
    }

    /// Whether samples that did not choose the second of two grids of site `id` agree that it is better.
    fn confirmed(
        &self,
        id: SiteId,
        grids: [&Grid; 2],
        others: &mut Measuring,
        watch: &Watch,
        sink: &mut dyn Sink,
    ) -> Result<bool> {
        let site = self.plan.site(id);
        let [before, after] = others.distances(site, grids, sink)?;
        if !calibrate::worthwhile(before, after) {
            return Ok(false);
        }
        if grids[1].scale[0] >= grids[0].scale[0] {
            return Ok(true);
        }
        // A narrower range must cost nothing on the samples that need the whole of it.
        let observed = Subset::spread(self.samples, Some(self.recipe.activations.samples))?;
        let extremes: BTreeSet<usize> = watch.extremes(id).into_iter().flatten().collect();
        if extremes.is_empty() {
            return Ok(false);
        }
        let held = Subset::new(observed, extremes.into_iter().collect())?;
        let padding = self.padding(&held)?;
        let inputs = run::load(self.graph, &held, self.device, self.store, sink)?;
        let [before, after] = self.measuring(inputs, padding.as_ref(), sink)?.distances(site, grids, sink)?;
        Ok(after <= before)
    }

    /// What each site costs on its grid; none where it reaches no output of real numbers.
    fn guess(
        &self,
        inputs: &Cache,
        padding: Option<&Padding>,
        grids: &[Grid],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Option<Guess>>> {
        match self.estimates(inputs, padding, grids, sink) {
            Err(error) if error.kind() == Kind::Unsupported => self.measured(inputs, padding, grids, sink),
            other => other,
        }
    }

    /// Estimates for all sites at once.
    fn estimates(
        &self,
        inputs: &Cache,
        padding: Option<&Padding>,
        grids: &[Grid],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Option<Guess>>> {
        let rows: Vec<Rows> = self.graph.inputs.iter().map(|v| inputs[v].clone()).collect();
        let region = run::whole(self.graph, self.facts);
        let float = self.device.inference(&compile(self.graph, self.facts, &region)?)?;
        let counted = |&v: &ValueId| match padding {
            Some(padding) => padding.weights(v, self.facts.require(self.graph, v)?),
            None => Ok(None),
        };
        let weights = region.outputs.iter().map(counted).collect::<Result<Vec<_>>>()?;
        let energies = run::energies(float, &rows, (f64::from(f32::MIN_POSITIVE), &weights), sink)?;
        let output = |(weights, energy): (_, (f64, usize))| OutputError { size: energy.0.sqrt() as f32, weights };
        let outputs: Vec<OutputError> = weights.into_iter().zip(energies).map(output).collect();
        // A program has one quantizer a value.
        let made: BTreeSet<ValueId> =
            region.nodes.iter().flat_map(|&n| self.graph.node(n).outputs.iter().flatten()).copied().collect();
        let reached = |v: &ValueId| made.contains(v) || self.graph.inputs.contains(v);
        let mut met = BTreeSet::new();
        let mut first = |value: ValueId| reached(&value) && met.insert(value);
        let sites: Vec<SiteId> = self.plan.site_ids().filter(|&id| first(self.plan.site(id).value)).collect();
        let of = |site: &Site| (site.value, site.readers.clone());
        let region = Region { sites: sites.iter().map(|&id| of(self.plan.site(id))).collect(), ..region };
        let program = compile(self.graph, self.facts, &region)?;
        let tried = |grid: &Grid| {
            let down = (1..=TRIED.0).map(|k| calibrate::scaled(grid, FRAC_1_SQRT_2.powi(k)));
            let up = (1..=TRIED.1).map(|k| calibrate::scaled(grid, SQRT_2.powi(k)));
            std::iter::once(grid.clone()).chain(down).chain(up).collect::<Vec<Grid>>()
        };
        let tried: Vec<Vec<Grid>> = sites.iter().map(|id| tried(&grids[id.index()])).collect();
        let mut progress = |_| run::go_on(sink);
        let seed = self.recipe.method.seed;
        let found = self.device.influence(&program, &rows, &outputs, &tried, seed, &mut progress)?;
        let mut guesses = vec![None; grids.len()];
        for (id, errors) in sites.into_iter().zip(found) {
            let Some(error) = errors.as_ref().map(|e| e[0]).filter(|e| e.is_finite()) else { continue };
            let least = errors.iter().flatten().copied().fold(error, f64::min);
            guesses[id.index()] = Some(Guess { error, promising: PROMISING * least <= error });
        }
        Ok(guesses)
    }

    /// The distance of each site, measured on very few samples.
    fn measured(
        &self,
        inputs: &Cache,
        padding: Option<&Padding>,
        grids: &[Grid],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Option<Guess>>> {
        let n = inputs.values().next().map_or(0, Rows::len);
        let few: Vec<usize> = (0..n.min(FEW)).collect();
        let padding = padding.map(|p| p.part(&few)).transpose()?;
        let mut forward = self.measuring(run::part(inputs, &few)?, padding.as_ref(), sink)?;
        let mut guesses = vec![None; grids.len()];
        for id in forward.0.order(self.plan.site_ids().map(|id| (self.plan.site(id).value, id))) {
            run::go_on(sink)?;
            let [error] = forward.distances(self.plan.site(id), [&grids[id.index()]], sink)?;
            guesses[id.index()] = error.is_finite().then_some(Guess { error, promising: true });
        }
        Ok(guesses)
    }

    fn measuring(&self, inputs: Cache, padding: Option<&Padding>, sink: &dyn Sink) -> Result<Measuring<'_>> {
        Measuring::new(ForwardPass::new(self.graph, self.facts, inputs, self.device, self.store), padding, sink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;
    use crate::data::testing::{Placed, corner};
    use crate::engine::device::processors;
    use crate::engine::facts;
    use crate::graph::testing::Builder;
    use crate::graph::{Dim, Fact, Graph, Node, Op, Unary};
    use crate::plan::{GridSpec, Observer, Plan, Recipe};
    use crate::report::Silent;
    use crate::tensor::{DType, RowStore, Tensor};

    const SAMPLES: usize = 256;

    /// The step that y = relu(x)·w begins with and the one it comes to, when `first` is x's first column and `weight` what
    /// it counts.
    fn steps(first: impl Fn(usize) -> f32, weight: f32) -> (f32, f32) {
        let mut g = Graph { opset: 17, ..Graph::default() };
        let shape = Some(vec![Dim::Symbol("n".into()), Dim::Known(4)]);
        let x = g.add_value("x", Fact { dtype: Some(DType::F32), shape });
        let w = g.add_constant("w", Tensor::f32(&[4, 2], vec![weight, 0.0, 1.0, -1.0, 0.5, 0.25, -1.0, 1.0]));
        let [r, y] = ["r", "y"].map(|n| g.add_value(n, Fact::default()));
        g.nodes =
            vec![Node::new("relu", Op::Unary(Unary::Relu), &[x], &[r]), Node::new("y", Op::MatMul, &[r, w], &[y])];
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        let grid = GridSpec { bits: 8, symmetric: false, observer: Observer::MinMax, percentile: 99.99 };
        let sites = vec![Site { name: "r".into(), value: r, readers: None, grid }];
        let plan = Plan { sites, ..Plan::default() };
        let rest = |i: usize| [(i % 8) as f32 / 7.0, (i % 5) as f32 / 4.0, (i % 3) as f32 / 2.0];
        let row = |i: usize| [&[first(i)][..], &rest(i)].concat();
        let samples = data::testing::samples(&[4], (0..SAMPLES).flat_map(row).collect(), None);
        let facts = facts::infer(&g, &[vec![1, 4]]).unwrap();
        let (recipe, device, store) = (Recipe::default(), processors(2).unwrap(), RowStore::memory());
        let calibration = Calibration {
            graph: &g,
            facts: &facts,
            plan: &plan,
            recipe: &recipe,
            samples: &samples,
            device: &device,
            store: &store,
        };
        let watch = calibration.observe(&mut Silent).unwrap();
        let activations = calibration.activation_grids(&watch.sites, &mut Vec::new(), &mut Silent).unwrap();
        assert!(activations.effects[0].is_some_and(|(first, refined)| refined <= first), "{:?}", activations.effects);
        (activations.first[0].scale[0], activations.refined[0].scale[0])
    }

    /// Guesses for the sites of two pointwise convolutions on images of which `rows` of 8 rows show something; the others hold
    /// huge values; and the errors as they are measured.
    fn guesses(rows: usize, geometry: bool) -> Vec<(Guess, f64)> {
        const N: usize = 64;
        let mut b = Builder::new();
        let x = b.input("x", [1, 3, 8, 4].map(Dim::Known).to_vec());
        let a = b.conv_relu("a", x, 3, 4, 1);
        let y = b.conv_relu("b", a, 4, 2, 1);
        let graph = b.finish(&[y]);
        let facts = facts::infer(&graph, &[vec![1, 3, 8, 4]]).unwrap();
        let grid = GridSpec { bits: 8, symmetric: false, observer: Observer::MinMax, percentile: 99.99 };
        let site = |value| Site { name: String::new(), value, readers: None, grid };
        let plan = Plan { sites: [x, a].map(site).to_vec(), ..Plan::default() };
        let value = |i: usize| {
            let small = (i * 7919 % 997) as f32 / 997.0;
            if i / 4 % 8 < rows { small } else { 300.0 * small }
        };
        let inner = data::testing::samples(&[3, 8, 4], (0..N * 96).map(value).collect(), None);
        let samples = Placed { inner, geometries: vec![corner(if geometry { rows } else { 8 }, 4, [8, 4]); N] };
        let (recipe, device, store) = (Recipe::default(), processors(1).unwrap(), RowStore::memory());
        let (graph, facts, plan, recipe) = (&graph, &facts, &plan, &recipe);
        let calibration = Calibration { graph, facts, plan, recipe, samples: &samples, device: &device, store: &store };
        let grids = [0.004, 0.02].map(|step| Grid::per_tensor(8, step, 0).unwrap());
        let inputs = run::load(graph, &samples, &device, &store, &mut Silent).unwrap();
        let padding = calibration.padding(&samples).unwrap();
        assert_eq!(padding.is_some(), geometry);
        let guess = calibration.guess(&inputs, padding.as_ref(), &grids, &mut Silent).unwrap();
        let mut measuring = calibration.measuring(inputs, padding.as_ref(), &Silent).unwrap();
        let sites = plan.sites.iter().zip(&grids);
        let measured = sites.map(|(site, grid)| measuring.distances(site, [grid], &Silent).unwrap()[0]);
        guess.into_iter().flatten().zip(measured).collect()
    }

    #[test]
    fn estimates_do_not_count_padding() {
        let inside = guesses(5, true);
        for (guess, measured) in &inside {
            // One draw of signs a sample: a fifth off is usual with these 64.
            assert!((0.5..2.0).contains(&(guess.error / measured)), "{guess:?} against {measured}");
        }
        // The grids suit the images, not their padding. That another step would be no better is known by the estimate alone.
        for ((inside, _), (all, _)) in inside.iter().zip(guesses(5, false)) {
            assert!(all.error > 100.0 * inside.error, "{all:?} against {inside:?}");
        }
        assert!(!inside[0].0.promising, "{inside:?}");
    }

    #[test]
    fn values_that_matter_to_nobody_do_not_set_the_step() {
        let (first, refined) = steps(|_| 600.0, 0.0);
        assert!(refined < first / 64.0, "{first} became {refined}");
    }

    #[test]
    fn a_rare_value_that_matters_keeps_its_range() {
        let rare = (0..SAMPLES).find(|&i| data::spread(SAMPLES, Some(32)).all(|chosen| chosen != i)).unwrap();
        let (first, refined) = steps(|i| if i == rare { 600.0 } else { 0.0 }, 1.0);
        assert_eq!(first, refined);
    }
}
