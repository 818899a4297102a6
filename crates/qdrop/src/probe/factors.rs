//! Channels of activations brought together by factors, see `plan::factors` and `calibrate::factors`.

use super::calibration::Calibration;
use super::forward::ForwardPass;
use super::observe::above;
use super::padding::Padding;
use super::run;
use crate::calibrate::{self, Channels};
use crate::data::Subset;
use crate::engine::device::beside;
use crate::engine::program::around;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::plan::{self, FactorSite, Plan};
use crate::report::{Event, Sink, Stage, Timing, timed};
use crate::tensor::RowStore;
use std::collections::BTreeSet;

/// A network with factors of channels. Its node ids are new.
pub(crate) struct Factored {
    pub graph: Graph,
    /// Values whose channels are divided by factors.
    pub divided: BTreeSet<ValueId>,
}

/// What is observed for a site: one of its members, or what is quantized in front of it.
enum Part {
    Before,
    Member(usize),
}

/// The values to observe for `site`, which is the one `at` its place.
fn points((at, site): (usize, &FactorSite)) -> impl Iterator<Item = (ValueId, (ValueId, usize, Part))> {
    let before = site.before.iter().map(|b| (b.value, Part::Before));
    let members = site.members.iter().enumerate().map(|(i, m)| (m.value, Part::Member(i)));
    before.chain(members).map(move |(value, part)| (value, (value, at, part)))
}

/// What was observed for a site so far.
struct Seeing {
    members: Vec<Option<Channels>>,
    before: Option<Channels>,
}

impl Seeing {
    fn new(site: &FactorSite) -> Self {
        Seeing { members: vec![None; site.members.len()], before: None }
    }

    fn add(&mut self, part: Part, channels: Channels) {
        match part {
            Part::Before => self.before = Some(channels),
            Part::Member(i) => self.members[i] = Some(channels),
        }
    }

    /// All members and what is in front, once every member was observed.
    fn complete(&mut self) -> Option<(Vec<Channels>, Option<Channels>)> {
        let complete = self.members.iter().all(Option::is_some);
        complete.then(|| (std::mem::take(&mut self.members).into_iter().flatten().collect(), self.before.take()))
    }
}

impl Calibration<'_> {
    /// The network with factors of channels, where some lower the error.
    pub fn factored(&self, timings: &mut Vec<Timing>, sink: &mut dyn Sink) -> Result<Option<Factored>> {
        let few = self.recipe.resolved().factor_samples;
        if few == 0 {
            return Ok(None);
        }
        // By the bits for all: a recipe whose exceptions hold the bits that were chosen comes to the same factors.
        let plan = plan::plan_without_exceptions(self.graph, self.facts, self.recipe)?;
        let mine: BTreeSet<ValueId> = self.plan.sites.iter().map(|s| s.value).collect();
        let sites = plan::factor_sites(self.graph, self.facts, &plan, self.recipe.output.target);
        let sites: Vec<FactorSite> =
            sites.into_iter().flatten().filter(|s| s.members.iter().all(|m| mine.contains(&m.value))).collect();
        if sites.is_empty() {
            return Ok(None);
        }
        let (factored, timing) =
            timed(sink, Stage::Factors, Some(sites.len()), |sink| self.divided(&plan, &sites, few, sink))?;
        timings.push(timing);
        Ok(factored)
    }

    /// The network with the factors of those of `sites` that gain by them.
    fn divided(&self, plan: &Plan, sites: &[FactorSite], few: usize, sink: &mut dyn Sink) -> Result<Option<Factored>> {
        let few = Subset::spread(self.samples, Some(few))?;
        let padding = Padding::read(self.graph, self.facts, self.recipe, &few)?;
        let inputs = run::load(self.graph, &few, self.device, self.store, sink)?;
        let store = RowStore::memory();
        let mut forward = ForwardPass::new(self.graph, self.facts, inputs, self.device, &store);
        let mut seeing: Vec<Seeing> = sites.iter().map(Seeing::new).collect();
        let order = forward.order(sites.iter().enumerate().flat_map(points));
        let mut graph = self.graph.clone();
        let floors = plan::floors(self.graph, self.facts);
        let (mut chosen, mut divided, mut done) = (Vec::new(), BTreeSet::new(), 0);
        for (value, at, part) in order {
            run::go_on(sink)?;
            let site = &sites[at];
            let shape = &self.facts.require(self.graph, value)?.shape;
            let Some(rows) = forward.until(value, sink)? else { continue };
            let mut channels = Channels::new(site.channels);
            for (sample, row) in rows.iter().enumerate() {
                let row = row?;
                let real = match &padding {
                    Some(padding) => padding.real(value, shape, sample, &row)?,
                    None => row,
                };
                let real = above(real, shape, floors[value.0 as usize].as_ref());
                beside(self.device, || channels.observe(&real, around(shape, site.axis)[2], rows.len()));
            }
            seeing[at].add(part, channels);
            let Some((members, before)) = seeing[at].complete() else { continue };
            let factors = || calibrate::factors(&graph, plan, site, &members, before.as_ref());
            if let Some(factors) = beside(self.device, factors)? {
                calibrate::fold(&mut graph, site, &factors)?;
                divided.extend(&site.divided);
                let before = site.before.as_ref().filter(|_| factors.before.is_some());
                divided.extend(before.iter().flat_map(|b| &b.divided));
                chosen.push((site, factors));
            }
            done += 1;
            sink.event(&Event::StageProgress { stage: Stage::Factors, done, total: sites.len() });
        }
        if chosen.is_empty() {
            return Ok(None);
        }
        calibrate::insert(&mut graph, self.facts, &chosen)?;
        Ok(Some(Factored { graph, divided }))
    }
}
