//! Channels of activations brought together by factors, see `plan::factors` and `calibrate::factors`.

use super::calibration::Calibration;
use super::forward::ForwardPass;
use super::observe::above;
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
use std::borrow::Cow;
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

impl Part {
    /// The axes of the channels.
    fn axes<'s>(&self, site: &'s FactorSite) -> &'s [usize] {
        let member = if let Part::Member(i) = self { *i } else { 0 };
        site.members.get(member).map_or(&[], |m| &m.axes)
    }
}

/// `values` of `shape` with the channels along one axis, and how many elements lie behind that: those that lie along several
/// `axes` are brought together, one channel after the other.
fn together<'v>(values: Cow<'v, [f32]>, shape: &[usize], axes: &[usize]) -> (Cow<'v, [f32]>, usize) {
    if let &[axis] = axes {
        return (values, around(shape, axis)[2]);
    }
    let along = |&a: &usize| (around(shape, a)[2].max(1), shape[a]);
    let along: Vec<(usize, usize)> = axes.iter().map(along).collect();
    let channels: usize = along.iter().map(|(_, size)| size).product();
    let positions = values.len() / channels.max(1);
    let mut moved = vec![0.0; values.len()];
    let mut next: Vec<usize> = (0..channels).map(|c| c * positions).collect();
    for (i, &v) in values.iter().enumerate() {
        let channel = along.iter().fold(0, |c, &(inner, size)| c * size + i / inner % size);
        moved[next[channel]] = v;
        next[channel] += 1;
    }
    (Cow::Owned(moved), positions)
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
        timing.add_to(timings);
        Ok(factored)
    }

    /// The network with the factors of those of `sites` that gain by them.
    fn divided(&self, plan: &Plan, sites: &[FactorSite], few: usize, sink: &mut dyn Sink) -> Result<Option<Factored>> {
        let few = Subset::spread(self.samples, Some(few))?;
        let padding = self.padding(&few)?;
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
                let (real, shape) = match &padding {
                    Some(padding) => padding.real_part(value, shape, sample, &row)?,
                    None => (row, Cow::Borrowed(&shape[..])),
                };
                let real = above(real, &shape, floors[value.0 as usize].as_ref());
                let (real, inner) = together(real, &shape, part.axes(site));
                beside(self.device, || channels.observe(&real, inner, rows.len()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_along_several_axes_are_brought_together() {
        // Two heads of three positions of two features.
        let values: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let (moved, inner) = together(Cow::Borrowed(&values), &[1, 2, 3, 2], &[1, 3]);
        assert_eq!(inner, 3);
        assert_eq!(*moved, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0, 6.0, 8.0, 10.0, 7.0, 9.0, 11.0]);
        let (same, inner) = together(Cow::Borrowed(&values), &[1, 2, 3, 2], &[1]);
        assert_eq!((&*same, inner), (&values[..], 6));
    }
}
