//! What activations hold in the float network, for their first grids.

use super::calibration::Calibration;
use super::finite::{Finite, Strange};
use super::run;
use crate::calibrate::Watch;
use crate::data::{Samples, Subset};
use crate::engine::device::{Device, Values};
use crate::engine::program::{ProgramSite, around, compile};
use crate::error::Result;
use crate::graph::ValueId;
use crate::plan::{self, Floor, Plan, Site};
use crate::quant::{Grid, Observation};
use crate::report::{Event, Sink, Stage};
use crate::tensor::{RowStore, Rows};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Groups of samples a thread that are observed between two looks at the sink.
const TOGETHER: usize = 4;

/// Samples on which channels are told apart.
const CHANNEL_SAMPLES: usize = 32;

/// Samples that are observed between two looks at the sink, where so many run together at most.
pub(crate) fn observed_at_once(group: usize, device: &dyn Device) -> usize {
    (TOGETHER * group * device.parallel()).min(run::SAMPLES)
}

/// `values` of `shape` with none below `floor`.
pub(crate) fn above<'a>(values: Cow<'a, [f32]>, shape: &[usize], floor: Option<&Floor>) -> Cow<'a, [f32]> {
    match floor {
        Some(floor) => {
            let mut values = values.into_owned();
            floor.raise(shape, &mut values);
            Cow::Owned(values)
        }
        None => values,
    }
}

/// What was seen of a value so far.
#[derive(Default)]
struct Seeing {
    values: Observation,
    channels: Widths,
    /// Samples in which some elements are NaN or infinite.
    strange: BTreeSet<usize>,
    /// The samples with the smallest and the largest value.
    extremes: [Option<usize>; 2],
}

impl Seeing {
    /// Takes in `values`; `holder` says which sample holds one of them.
    fn see(&mut self, values: &[f32], holder: impl Fn(f32) -> Option<usize>) {
        let before = self.values.bounds();
        self.values.observe(values);
        let Some((low, high)) = self.values.bounds() else { return };
        if before.is_none_or(|b| low < b.0) {
            self.extremes[0] = holder(low);
        }
        if before.is_none_or(|b| high > b.1) {
            self.extremes[1] = holder(high);
        }
    }
}

/// Those of `values` that are not finite in all samples that were `seen`.
fn strange<'s>(values: &[ValueId], seen: &'s mut [Mutex<Seeing>]) -> Vec<Strange<'s>> {
    let seen = seen.iter_mut().map(|s| s.get_mut().unwrap_or_else(PoisonError::into_inner));
    let strange = values.iter().zip(seen).filter(|(_, s)| !s.strange.is_empty());
    strange.map(|(&value, s)| Strange { value, elements: s.values.not_finite(), samples: &s.strange }).collect()
}

/// The smallest and the largest value of each channel of an activation, on a few samples.
#[derive(Debug, Clone, Default)]
pub(crate) struct Widths(Vec<[f32; 2]>);

impl Widths {
    /// How many times as wide as a narrow channel the widest is at least. On 8 bits a narrow one becomes a number or two.
    const NARROW: f32 = 256.0;

    /// Takes in one sample of `shape`, whose channels lie along `axis`.
    fn observe(&mut self, sample: &[f32], shape: &[usize], axis: usize) {
        let [_, along, inner] = around(shape, axis);
        self.0.resize(along, [f32::INFINITY, f32::NEG_INFINITY]);
        for (i, &v) in sample.iter().enumerate().filter(|(_, v)| v.is_finite()) {
            let [low, high] = &mut self.0[i / inner.max(1) % along];
            (*low, *high) = (low.min(v), high.max(v));
        }
    }

    /// How many channels hold more than one number, and how many of those are narrow beside the widest.
    pub fn narrow(&self) -> [u64; 2] {
        let widths: Vec<f32> = self.0.iter().map(|[low, high]| high - low).filter(|w| *w > 0.0).collect();
        let widest = widths.iter().copied().fold(0.0, f32::max);
        let narrow = widths.iter().filter(|&&w| w < widest / Self::NARROW).count();
        [widths.len() as u64, narrow as u64]
    }
}

/// What calibration saw.
pub(crate) struct Observed {
    /// Of [`Plan::sites`].
    pub sites: Watch,
    /// Of [`Plan::kernel_sites`].
    pub kernel_sites: Watch,
    /// Of [`Plan::sites`].
    pub widths: Vec<Widths>,
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

impl Calibration<'_> {
    /// What the sites of the plan hold in the float network, and those of its integer kernels.
    pub fn observe(&self, sink: &mut dyn Sink) -> Result<Observed> {
        let quantizers: Vec<&Site> = self.plan.sites.iter().chain(&self.plan.kernel_sites).collect();
        if quantizers.is_empty() {
            let [sites, kernel_sites] = [Watch::new(self.plan), Watch::new(self.plan)];
            return Ok(Observed { sites, kernel_sites, widths: Vec::new() });
        }
        let samples = Subset::spread(self.samples, Some(self.recipe.activations.samples))?;
        let padding = self.padding(&samples)?;
        // A value may have several sites, for different readers.
        let mut sites: BTreeMap<ValueId, Vec<usize>> = BTreeMap::new();
        quantizers.iter().enumerate().for_each(|(i, s)| sites.entry(s.value).or_default().push(i));
        let values: Vec<ValueId> = sites.keys().copied().collect();
        run::computable(self.graph, self.facts, &values)?;
        let ready = self.device.inference(&compile(self.graph, self.facts, &run::shown(self.graph, &values))?)?;
        let floors = plan::floors(self.graph, self.facts);
        let shapes: Vec<_> = values.iter().map(|&v| self.facts.require(self.graph, v)).collect::<Result<_>>()?;
        let mut finite = Finite::new(self, &samples);
        let mut seen: Vec<Mutex<Seeing>> = values.iter().map(|_| Mutex::default()).collect();
        // Room for one sample of a value, as many as threads.
        let rooms: Mutex<Vec<Vec<f32>>> = Mutex::default();
        let free = || rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let chunk = observed_at_once(ready.group(), self.device);
        let indices: Vec<usize> = (0..samples.len()).collect();
        for some in indices.chunks(chunk) {
            let before = some[0];
            let part = Subset::new(&samples, some.to_vec())?;
            let inputs = run::load(self.graph, &part, self.device, &RowStore::memory(), sink)?;
            run::go_on(sink)?;
            let inputs: Vec<Rows> = self.graph.inputs.iter().map(|v| inputs[v].clone()).collect();
            let asked: &dyn Sink = sink;
            let see = |ProgramSite(value): ProgramSite, first: usize, group: Values| {
                run::go_on(asked)?;
                let mut seen = seen[value].lock().unwrap_or_else(PoisonError::into_inner);
                let first = before + first;
                let floor = floors[values[value].0 as usize].as_ref();
                let mut row = free().pop().unwrap_or_default();
                for sample in (0..group.samples()).take_while(|sample| first + sample < CHANNEL_SAMPLES) {
                    group.sample(sample, &mut row);
                    seen.channels.observe(&row, &shapes[value].shape, shapes[value].channel_axis);
                }
                if padding.is_none() && floor.is_none() {
                    let strange = seen.values.not_finite();
                    seen.see(group.all(), |v| group.holder(v).map(|sample| first + sample));
                    if seen.values.not_finite() > strange {
                        for sample in 0..group.samples() {
                            group.sample(sample, &mut row);
                            if row.iter().any(|v| !v.is_finite()) {
                                seen.strange.insert(first + sample);
                            }
                        }
                    }
                } else {
                    let shape = &shapes[value].shape;
                    for sample in 0..group.samples() {
                        group.sample(sample, &mut row);
                        let (real, shape) = match &padding {
                            Some(padding) => padding.real_part(values[value], shape, first + sample, &row)?,
                            None => (Cow::Borrowed(&row[..]), Cow::Borrowed(&shape[..])),
                        };
                        if real.iter().any(|v| !v.is_finite()) {
                            seen.strange.insert(first + sample);
                        }
                        seen.see(&above(real, &shape, floor), |_| Some(first + sample));
                    }
                }
                free().push(row);
                Ok(())
            };
            ready.watch(&inputs, &see)?;
            finite.check(before, &inputs, &strange(&values, &mut seen), sink)?;
            let done = before + some.len();
            sink.event(&Event::StageProgress { stage: Stage::Calibrate, done, total: samples.len() });
        }
        finite.note(&strange(&values, &mut seen), sink);
        let seen: Vec<Seeing> =
            seen.into_iter().map(|s| s.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        let mut all = vec![Default::default(); quantizers.len()];
        let mut widths = vec![Widths::default(); quantizers.len()];
        for (sites, seen) in sites.values().zip(seen) {
            let Seeing { values, extremes, channels, .. } = seen;
            for &site in sites {
                all[site] = (values.clone(), extremes);
                widths[site] = channels.clone();
            }
        }
        widths.truncate(self.plan.sites.len());
        let of_kernels = all.split_off(self.plan.sites.len());
        Ok(Observed { sites: Watch::of(all), kernel_sites: Watch::of(of_kernels), widths })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_narrow_beside_the_widest() {
        let mut widths = Widths::default();
        // Channels: 0 to 512, -1 to 0.9, one number, 1 to 4, no number.
        widths.observe(&[0.0, 512.0, -1.0, 0.5, 7.0, 7.0, 1.0, 4.0, f32::NAN, f32::INFINITY], &[1, 5, 2], 1);
        widths.observe(&[9.0, 9.0, 0.9, 0.9, 7.0, 7.0, 2.0, 2.0, f32::NAN, f32::NAN], &[1, 5, 2], 1);
        assert_eq!(widths.narrow(), [3, 1]);
        assert_eq!(Widths::default().narrow(), [0, 0]);
    }
}
