//! First grids of activations, and what is known of them.

use super::calibration::Calibration;
use super::refine::{self, Effect};
use super::run;
use super::screen::screened;
use crate::calibrate::Watch;
use crate::data::Subset;
use crate::engine::device::beside;
use crate::error::Result;
use crate::quant::{Distribution, Grid};
use crate::report::{Sink, Stage, Timing, timed};

/// What was seen of the sites before anything was learned, one a site.
pub(crate) struct ActivationGrids {
    pub distributions: Vec<Distribution>,
    /// The observer's grids.
    pub first: Vec<Grid>,
    /// Empty where the first grids were not held against the network's outputs.
    pub effects: Vec<Effect>,
    /// The grids with which learning begins.
    pub refined: Vec<Grid>,
}

impl Calibration<'_> {
    /// What `watch` has seen of the sites, and their first grids, refined.
    pub fn activation_grids(
        &self,
        watch: &Watch,
        timings: &mut Vec<Timing>,
        sink: &mut dyn Sink,
    ) -> Result<ActivationGrids> {
        let first = beside(self.device, || watch.fit(self.plan))?;
        let distributions = beside(self.device, || watch.distributions());
        let mut activations = ActivationGrids { distributions, refined: first.clone(), first, effects: Vec::new() };
        let few = self.recipe.resolved().refine_samples;
        if few > 0 && !activations.first.is_empty() {
            let (effects, timing) = timed(sink, Stage::Refine, Some(activations.first.len()), |sink| {
                if screened(&self.plan.sites) {
                    return self.screen(few, watch, &mut activations.refined, sink);
                }
                let few = Subset::spread(self.samples, Some(few))?;
                let padding = self.padding(&few)?;
                let inputs = run::load(self.graph, &few, self.device, self.store, sink)?;
                let network = (self.graph, self.facts, self.plan);
                let inputs = (inputs, padding.as_ref());
                refine::refine(network, inputs, self.device, &mut activations.refined, sink)
            })?;
            activations.effects = effects;
            timing.add_to(timings);
        }
        Ok(activations)
    }
}
