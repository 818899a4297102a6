//! What the stages before learning read: a float network, its plan, samples.

use super::equalize;
use super::padding::Padding;
use super::record::Seen;
use super::run::{self, Network};
use super::{refine, samples};
use crate::calibrate::{self, Watch};
use crate::data::Samples;
use crate::engine::facts::Facts;
use crate::error::Result;
use crate::graph::Graph;
use crate::plan::{Plan, Recipe, Site};
use crate::quant::Grid;
use crate::report::{Sink, Stage, Timing, timed};
use crate::tensor::{Rows, Shelf};
use rayon::ThreadPool;

/// A network to be quantized and how.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub graph: &'a Graph,
    pub facts: &'a Facts,
    pub plan: &'a Plan,
    pub recipe: &'a Recipe,
    pub samples: &'a dyn Samples,
    pub pool: &'a ThreadPool,
    /// Where values of the samples are put.
    pub shelf: &'a Shelf,
}

/// What calibration saw.
pub(super) struct Observed {
    /// Of [`Plan::sites`].
    pub sites: Watch,
    /// Of [`Plan::kernel_sites`].
    pub kernel_sites: Watch,
}

impl Observed {
    /// The grids of the quantizers that integer kernels need, in the order of `plan`.
    pub fn kernel_grids(&self, plan: &Plan) -> Result<Vec<Grid>> {
        self.kernel_sites.fit(&kernel_plan(plan))
    }
}

/// A plan of the quantizers alone that integer kernels need.
fn kernel_plan(plan: &Plan) -> Plan {
    Plan { sites: plan.kernel_sites.clone(), ..Plan::default() }
}

impl Scene<'_> {
    /// The network with channels before depthwise layers at a common width, where there are any.
    pub fn equalized(&self, timings: &mut Vec<Timing>, sink: &mut dyn Sink) -> Result<Option<Graph>> {
        let few = self.recipe.resolved().equalize_samples;
        let pairs = calibrate::layer_pairs(self.graph, self.plan);
        if few == 0 || pairs.is_empty() {
            return Ok(None);
        }
        let (equal, timing) = timed(sink, Stage::Equalize, Some(pairs.len()), |sink| {
            let few = samples::spread(self.samples, Some(few))?;
            let inputs = run::load(self.graph, &few, self.pool, self.shelf)?;
            equalize::equalize(self.graph, self.facts, self.plan, &pairs, inputs, self.pool, sink)
        })?;
        timings.push(timing);
        Ok(Some(equal))
    }

    /// What the sites of the plan hold in the float network, and those of its integer kernels.
    pub fn observe(&self, sink: &mut dyn Sink) -> Result<Observed> {
        let of_kernels = kernel_plan(self.plan);
        let mut observed = Observed { sites: Watch::new(self.plan), kernel_sites: Watch::new(&of_kernels) };
        let sites: Vec<&Site> = self.plan.sites.iter().chain(&of_kernels.sites).collect();
        if sites.is_empty() {
            return Ok(observed);
        }
        let samples = samples::spread(self.samples, Some(self.recipe.activations.samples))?;
        let padding = Padding::read(self.graph, self.facts, self.recipe, &samples)?;
        let shapes = run::shapes_of(&samples)?;
        let threads = self.recipe.method.threads;
        let network = Network::new(self.graph, &shapes, sites.iter().map(|s| s.value).collect(), threads)?;
        run::each(
            &samples,
            network.chunk,
            threads,
            Stage::Calibrate,
            sink,
            |inputs| network.run(inputs),
            |first, values| {
                for i in 0..values.first().map_or(0, Rows::len) {
                    let mut rows = values.iter().map(|rows| rows.row(i)).collect::<Result<Vec<_>>>()?;
                    for (site, row) in sites.iter().zip(&mut rows) {
                        if let (Some(padding), Some(fact)) = (&padding, self.facts.get(site.value)) {
                            *row = padding.real(&fact.shape, first + i, row)?.into_owned().into();
                        }
                    }
                    let rows: Vec<&[f32]> = rows.iter().map(|row| &**row).collect();
                    let (of_sites, of_kernels) = rows.split_at(self.plan.sites.len());
                    observed.sites.observe_all(of_sites);
                    observed.kernel_sites.observe_all(of_kernels);
                }
                Ok(())
            },
        )?;
        Ok(observed)
    }

    /// What `watch` has seen of the sites, and their first grids, refined.
    pub fn seen(&self, watch: &Watch, timings: &mut Vec<Timing>, sink: &mut dyn Sink) -> Result<Seen> {
        let first = self.pool.install(|| watch.fit(self.plan))?;
        let distributions = self.pool.install(|| watch.distributions());
        let mut seen = Seen { distributions, refined: first.clone(), first, effects: Vec::new() };
        let few = self.recipe.resolved().refine_samples;
        if few > 0 && !seen.first.is_empty() {
            let (effects, timing) = timed(sink, Stage::Refine, Some(seen.first.len()), |sink| {
                let few = samples::spread(self.samples, Some(few))?;
                let inputs = run::load(self.graph, &few, self.pool, self.shelf)?;
                refine::refine(self.graph, self.facts, self.plan, inputs, self.pool, &mut seen.refined, sink)
            })?;
            seen.effects = effects;
            timings.push(timing);
        }
        Ok(seen)
    }
}
