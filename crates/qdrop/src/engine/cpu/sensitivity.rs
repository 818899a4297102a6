//! How much the outputs of a program depend on values inside it.

use super::code::Code;
use super::rounds::in_rounds;
use super::run::{Shared, Sums};
use super::{Frames, Threads, check};
use crate::engine::device::{OutputError, Progress, Values};
use crate::engine::philox::Stream;
use crate::engine::program::{Program, ProgramSite, Slot};
use crate::engine::train::{Keep, LossWeights};
use crate::error::Result;
use crate::tensor::Rows;

/// Least weight, as a share of the mean.
const LEAST: f32 = 0.01;

/// [`Device::sensitivity`](crate::engine::device::Device::sensitivity).
pub(super) fn sensitivity(
    threads: &Threads,
    program: &Program,
    inputs: &[Rows],
    outputs: &[OutputError],
    seed: u64,
    progress: Progress,
) -> Result<Vec<Option<LossWeights>>> {
    let groups = probe(
        (program, inputs, outputs, seed),
        threads,
        progress,
        || vec![None; program.sites.len()],
        |_: &mut Vec<Option<Squares>>, _, _| (),
        |squares, site, group| {
            let slot = &program.slots[program.sites[site.0]];
            squares[site.0] = Some(Squares::new(slot, group.outer(), group.samples(), group.all()));
        },
    )?;
    Ok(program.site_slots().map(|(site, slot)| weights(&program.slots[slot], site, &groups)).collect())
}

/// Runs groups of samples forwards in float, then backwards from random signs at the outputs, which count as `outputs`
/// says. Every group has a state that begins `fresh`; `values` is shown what each site holds, and then
/// `gradients` the gradient there. The states, in order of the groups.
pub(super) fn probe<T: Send>(
    (program, inputs, outputs, seed): (&Program, &[Rows], &[OutputError], u64),
    threads: &Threads,
    progress: Progress,
    fresh: impl Fn() -> T + Sync,
    values: impl Fn(&mut T, ProgramSite, Values) + Sync,
    gradients: impl Fn(&mut T, ProgramSite, Values) + Sync,
) -> Result<Vec<T>> {
    let code = Code::new(program, true)?;
    let n = inputs.first().map_or(0, Rows::len);
    check(&code, inputs, n)?;
    let frames = Frames::default();
    let keeps = vec![Keep::Nothing; program.sites.len()];
    let off = vec![None; program.sites.len()];
    let shared = Shared { code: &code, weights: &[], tiled: &[], sites: &off };
    let group = |first: usize| {
        let samples = (n - first).min(code.group);
        let channels = |site: ProgramSite| code.layouts[program.sites[site.0]].channels;
        let mut state = fresh();
        let mut frame = frames.take(&code, true);
        frame.feed(&code, inputs, first, samples)?;
        let mut tap = |site: ProgramSite, all: &[f32]| {
            values(&mut state, site, Values::new(all, samples, channels(site)));
            Ok(())
        };
        frame.forward(&shared, Some(&keeps), Some(&mut tap))?;
        for (output, &slot) in program.outputs.iter().enumerate() {
            let numel = code.layouts[slot].numel();
            let mut signs = vec![vec![0u8; numel]; samples];
            for (sample, signs) in signs.iter_mut().enumerate() {
                Stream::new(seed, u32::MAX, output as u32, 0).mask(first + sample, 0.5, signs);
            }
            let OutputError { size, weights } = &outputs[output];
            let mut factors = vec![Vec::new(); samples];
            for (sample, factors) in factors.iter_mut().enumerate() {
                weights.as_ref().map_or(Ok(()), |weights| weights.expand(first + sample, factors))?;
                factors.iter_mut().for_each(|f| *f = f.sqrt());
            }
            let size = 1.0 / size;
            frame.upstream(&shared, slot, |sample, range, values| {
                let signs = signs[sample][range.clone()].iter();
                values.iter_mut().zip(signs).for_each(|(v, &s)| *v = if s == 1 { size } else { -size });
                if !factors[sample].is_empty() {
                    values.iter_mut().zip(&factors[sample][range]).for_each(|(v, f)| *v *= f);
                }
            });
        }
        let mut watch = |site: ProgramSite, all: &[f32]| {
            gradients(&mut state, site, Values::new(all, samples, channels(site)));
        };
        frame.backward(&shared, &mut Sums { weights: &mut [], scales: &mut [], watch: Some(&mut watch) })?;
        frames.give(frame);
        Ok(state)
    };
    let firsts: Vec<usize> = (0..n).step_by(code.group).collect();
    let mut groups = Vec::with_capacity(firsts.len());
    in_rounds(threads, &firsts, group, |_, found| {
        groups.extend(found);
        progress(n.min(groups.len() * code.group))
    })?;
    Ok(groups)
}

/// Squares of the gradients of a group, summed.
#[derive(Debug, Clone)]
struct Squares {
    /// Per channel, over samples and positions.
    channels: Vec<f64>,
    /// Per sample and position, over channels.
    positions: Vec<f32>,
}

impl Squares {
    /// Of `gradient` [outer, samples, inner] of a value of `slot`.
    fn new(slot: &Slot, outer: usize, samples: usize, gradient: &[f32]) -> Self {
        let [_, count, behind] = slot.around_channels();
        let (inner, width) = (gradient.len() / samples / outer, slot.positions());
        let (mut channels, mut positions) = (vec![0.0; count], vec![0.0; samples * width]);
        for (row, line) in gradient.chunks_exact(inner.max(1)).enumerate() {
            let (o, sample) = (row / samples, row % samples);
            for (i, &g) in line.iter().enumerate() {
                let element = o * inner + i;
                let (c, p) = (element / behind % count, element / (count * behind) * behind + element % behind);
                channels[c] += f64::from(g) * f64::from(g);
                positions[sample * width + p] += g * g;
            }
        }
        Squares { channels, positions }
    }
}

/// The weights of `site` from what all groups found.
fn weights(slot: &Slot, site: ProgramSite, groups: &[Vec<Option<Squares>>]) -> Option<LossWeights> {
    let [outer, count, _] = slot.around_channels();
    let mut channels = vec![0.0; count];
    let mut positions = Vec::new();
    for squares in groups.iter().map(|g| &g[site.0]) {
        let squares = squares.as_ref()?;
        channels.iter_mut().zip(&squares.channels).for_each(|(c, s)| *c += s);
        positions.extend_from_slice(&squares.positions);
    }
    let samples = positions.len() / slot.positions();
    let channels: Vec<f32> = channels.iter().map(|&c| c as f32).collect();
    let (channels, positions) = (even(channels)?, even(positions)?);
    Some(LossWeights { channels, positions: Rows::new(samples, positions), outer })
}

/// `values` divided by their mean and not below [`LEAST`], if that can be done.
fn even(mut values: Vec<f32>) -> Option<Vec<f32>> {
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len().max(1) as f64;
    if !(mean.is_finite() && mean > 0.0) {
        return None;
    }
    values.iter_mut().for_each(|v| *v = ((f64::from(*v) / mean) as f32).max(LEAST));
    Some(values)
}
