//! Factors that bring the channels of an activation together: chosen by what they do to the layers that read it, and
//! put into the network.
//!
//! With the range from -a_c to b_c that the grid of channel c would have alone, f_c = (w_c / median of all)^α, where w_c is
//! either a_c + b_c or max(b_c, a_c/r): what the common range must reach up so that it holds the channel, if it reaches r
//! times as far down. The larger α, the less the channels' widths differ and the more the weights that meet them do. Width
//! and α are those whose estimated error of the readers' outputs is least: Σ_c e_c·‖W_c‖² for the activation, e_c being
//! the mean squared error of channel c on the one grid all then share, and Σ_c m_c·‖Ŵ_c - W_c‖² for the weights, m_c
//! being the mean square of channel c and Ŵ the weights rounded to nearest. Errors are measured on samples other than
//! those that ranges are found on.
//!
//! Behind x·sigmoid(x), say, every channel reaches 0.28 down, however little it reaches up. Were all made equally wide, half
//! of the common range would lie below 0 for the sake of the smallest.
//!
//! Where a product of attention sums over the channels, w_c is the width of the one operand over that of the other, and the
//! error Σ_c e_c·m'_c + m_c·e'_c, the other's marked. Of the errors of values as much counts as shares of attention leave.

use super::{range_spec, worthwhile};
use crate::engine::facts::Facts;
use crate::engine::program::around;
use crate::error::{Error, Result};
use crate::graph::{Binary, Dim, Fact, Graph, Node, NodeId, Op, ValueId};
use crate::plan::{Carrier, FactorSite, Member, Pair, Plan, Reader};
use crate::quant::{Grid, Observation, RangeSpec, Search, fit, fit_weight, quantize_one};
use crate::tensor::{DType, Tensor};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The exponents that are tried.
const EXPONENTS: [f32; 4] = [0.25, 0.5, 0.75, 1.0];
/// Most that a channel's step may differ from the median, as a factor.
const MOST: f32 = 4096.0;
/// What the error must become smaller by, as a share of the readers' energy, where factors take time.
const WORTH_TIME: f64 = 2e-3;
/// Relative difference below which widths are the same.
const SAME: f32 = 0.01;
/// Most values of a channel that errors are measured on.
const KEPT: usize = 1024;

/// How the range of a channel is measured.
#[derive(Debug, Clone, Copy)]
enum Measure {
    /// From end to end.
    Whole,
    /// By what the common range must reach up where it reaches so much of that down.
    Down(f32),
}

/// The measures that are tried.
const MEASURES: [Measure; 5] =
    [Measure::Whole, Measure::Down(1.0), Measure::Down(0.5), Measure::Down(0.25), Measure::Down(0.125)];

impl Measure {
    /// Of a range as distances from 0 down and up.
    fn of(self, [down, up]: [f32; 2]) -> f32 {
        match self {
            Measure::Whole => down + up,
            Measure::Down(share) => up.max(down / share),
        }
    }
}

/// What was seen of the channels of an activation.
#[derive(Debug, Clone)]
pub struct Channels {
    /// Per channel, of every other sample: all values.
    seen: Vec<Observation>,
    /// Per channel: some of these values, and some of the other samples'.
    kept: Vec<[Vec<f32>; 2]>,
    /// Per channel: the largest value of every other sample, and of the others.
    most: Vec<[f32; 2]>,
    samples: usize,
}

impl Channels {
    /// Nothing seen yet of so many `channels`.
    pub fn new(channels: usize) -> Self {
        Channels {
            seen: vec![Observation::coarse(); channels],
            kept: vec![Default::default(); channels],
            most: vec![[0.0; 2]; channels],
            samples: 0,
        }
    }

    /// Takes in one sample of `total`: `values` with `inner` elements behind the axis of the channels.
    pub fn observe(&mut self, values: &[f32], inner: usize, total: usize) {
        let (channels, inner) = (self.seen.len(), inner.max(1));
        let half = self.samples % 2;
        self.samples += 1;
        let outer = values.len() / (channels * inner).max(1);
        // The same share of every sample.
        let stride = (outer * inner * total.div_ceil(2)).div_ceil(KEPT).max(1);
        let all = self.seen.par_iter_mut().zip(&mut self.kept).zip(&mut self.most).enumerate();
        all.for_each(|(c, ((seen, kept), most))| {
            let mut skip = 0;
            for o in 0..outer {
                let part = &values[(o * channels + c) * inner..][..inner];
                if half == 0 || total == 1 {
                    seen.observe(part);
                }
                for &v in part.iter().filter(|v| v.is_finite()) {
                    most[half] = v.max(most[half]);
                    if skip == 0 {
                        kept[half].push(v);
                        skip = stride;
                    }
                    skip -= 1;
                }
            }
        });
    }

    /// Values of channel `c` that steps are not found on, where there are any.
    fn held_out(&self, c: usize) -> &[f32] {
        let [first, second] = &self.kept[c];
        if second.is_empty() { first } else { second }
    }

    /// The range of the grid that each channel would have alone, as distances from 0 down and up; zeros for one in which
    /// nothing but zeros was seen.
    fn ranges(&self, spec: &RangeSpec) -> Result<Vec<[f32; 2]>> {
        let range = |seen: &Observation| {
            let zeros = seen.bounds().is_none_or(|b| b == (0.0, 0.0));
            let (low, high) = if zeros { (0.0, 0.0) } else { fit(seen, spec)?.range(0) };
            Ok([-low, high])
        };
        self.seen.par_iter().map(range).collect()
    }

    /// How wide each channel is next to the median of all, by every one of [`MEASURES`]; `None` where fewer than two
    /// channels were seen at work.
    fn widths(&self, spec: &RangeSpec) -> Result<Option<Vec<Vec<f32>>>> {
        let ranges = self.ranges(spec)?;
        let relative = |measure: Measure| {
            let sizes: Vec<f32> = ranges.iter().map(|&range| measure.of(range)).collect();
            let mut live: Vec<f32> = sizes.iter().copied().filter(|&s| s > 0.0).collect();
            if live.len() < 2 {
                return None;
            }
            live.sort_unstable_by(f32::total_cmp);
            let median = live[live.len() / 2];
            // A channel that was never seen at work is taken for a common one.
            let width = |&s: &f32| if s > 0.0 { (s / median).clamp(1.0 / MOST, MOST) } else { 1.0 };
            Some(sizes.iter().map(width).collect())
        };
        Ok(MEASURES.iter().map(|&measure| relative(measure)).collect())
    }

    /// Per channel: the share of errors of `values` that is left in the weighted means of values which these channels are.
    /// Shares p leave Σp² of the variance of independent values, so the ratio of the variances tells.
    fn left_of<'a>(&'a self, values: &'a Channels) -> impl Iterator<Item = f64> + 'a {
        let variance = |seen: &Channels, c: usize| {
            let center = mean(seen.held_out(c).iter().map(|&v| f64::from(v)));
            mean(seen.held_out(c).iter().map(|&v| (f64::from(v) - center).powi(2)))
        };
        (0..self.kept.len()).map(move |c| match variance(values, c) {
            all if all > 0.0 => (variance(self, c) / all).min(1.0),
            _ => 1.0,
        })
    }

    /// Mean square of each channel.
    fn squares(&self) -> Vec<f64> {
        (0..self.kept.len()).map(|c| mean(self.held_out(c).iter().map(|&v| f64::from(v).powi(2)))).collect()
    }

    /// Mean squared error of each channel, divided by its factor and then cut off at `cap`, on the one grid that fits all.
    fn errors(&self, factors: &[f32], spec: &RangeSpec, cap: Option<f32>) -> Result<Vec<f64>> {
        let mut all = Observation::coarse();
        for (kept, factor) in self.kept.iter().zip(factors) {
            all.observe(&kept[0].iter().map(|v| v / factor).collect::<Vec<f32>>());
        }
        let grid = fit(&all, spec)?;
        let error = |(c, &factor): (usize, &f32)| {
            let divided = |v: f32| cap.map_or(v / factor, |cap| (v / factor).min(cap));
            let squared = |&v: &f32| f64::from(rounded(divided(v), &grid) * factor - v).powi(2);
            mean(self.held_out(c).iter().map(squared))
        };
        Ok(factors.iter().enumerate().map(error).collect())
    }
}

fn rounded(x: f32, grid: &Grid) -> f32 {
    let (scale, zero_point) = (grid.scale[0], grid.zero_point[0]);
    (quantize_one(x, scale, zero_point, grid.qmin, grid.qmax) - zero_point) as f32 * scale
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1);
    values.sum::<f64>() / count as f64
}

/// Factors per channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// Of the activation.
    pub own: Vec<f32>,
    /// Of what is quantized in front of the function that makes it.
    pub before: Option<Vec<f32>>,
}

/// What is known of a member of a site while its factors are chosen.
struct Known<'a> {
    /// The activation.
    name: &'a str,
    seen: &'a Channels,
    spec: RangeSpec,
    /// Where the rectifier that makes it cuts off.
    cap: Option<f32>,
    /// Mean square of each channel.
    squares: Vec<f64>,
    weights: Vec<Meeting<'a>>,
}

impl<'a> Known<'a> {
    fn new(graph: &Graph, plan: &'a Plan, site: &FactorSite, member: &'a Member, seen: &'a Channels) -> Result<Self> {
        let meeting = |r: &'a Reader| Meeting::new(graph, plan, r, seen.seen.len());
        let cap = match site.carrier {
            Carrier::Layer { cap, .. } => cap,
            Carrier::Quantizer => None,
        };
        Ok(Known {
            cap,
            name: &plan.site(member.site).name,
            seen,
            spec: range_spec(&plan.site(member.site).grid),
            squares: seen.squares(),
            weights: member.readers.iter().map(meeting).collect::<Result<_>>()?,
        })
    }

    /// Where an error was met.
    fn place(&self, error: Error) -> Error {
        error.at(format!("activation `{}`", self.name))
    }

    /// Mean squared error of each channel, divided by its factor.
    fn errors(&self, factors: &[f32]) -> Result<Vec<f64>> {
        self.seen.errors(factors, &self.spec, self.cap).map_err(|e| self.place(e))
    }

    /// Estimated error of what reads it, where it has `factors` and its channels have `lost` before.
    fn error(&self, factors: &[f32], lost: &[f64]) -> Result<f64> {
        let mut errors = self.errors(factors)?;
        errors.iter_mut().zip(lost).for_each(|(e, l)| *e += l);
        self.weights.iter().map(|meeting| meeting.error(factors, &errors, &self.squares)).sum()
    }
}

/// How wide each channel is next to the others, over all of `known`: the geometric mean, or, where a product divides the one
/// and multiplies the other, how far apart they are. `None` where nothing tells.
fn common_widths(known: &[Known], pair: Option<&Pair>) -> Result<Option<Vec<Vec<f32>>>> {
    let each = known.iter().map(|k| k.seen.widths(&k.spec).map_err(|e| k.place(e)));
    let each = each.collect::<Result<Vec<_>>>()?;
    let told: Vec<Vec<Vec<f32>>> = each.into_iter().flatten().collect();
    let product = matches!(pair, Some(Pair::Sums { .. }));
    if told.is_empty() || product && told.len() != 2 {
        return Ok(None);
    }
    let common = |measure: usize| -> Vec<f32> {
        let of = |member: usize, c: usize| told[member][measure][c];
        let one = |c: usize| match product {
            true => (of(0, c) / of(1, c)).clamp(1.0 / MOST, MOST),
            false => ((0..told.len()).map(|m| of(m, c).ln()).sum::<f32>() / told.len() as f32).exp(),
        };
        (0..told[0][measure].len()).map(one).collect()
    };
    let mut found: Vec<Vec<f32>> = (0..MEASURES.len()).map(common).collect();
    // Where all channels lie on one side of 0, measures agree.
    found.dedup_by(|a, b| a.iter().zip(&*b).all(|(a, b)| (a / b - 1.0).abs() < SAME));
    Ok(Some(found))
}

/// Estimated error of all that reads the members of a site with `factors`, whose channels have `lost` before.
fn estimate(known: &[Known], pair: Option<&Pair>, factors: &[f32], lost: &[f64]) -> Result<f64> {
    match (pair, known) {
        (Some(Pair::Sums { .. }), [divided, multiplied]) => {
            let errors = [divided.errors(factors)?, multiplied.errors(&inverse(factors))?];
            let weighed = |of: &[f64], by: &[f64]| of.iter().zip(by).map(|(o, b)| o * b).sum::<f64>();
            let error = weighed(&errors[0], &multiplied.squares) + weighed(&divided.squares, &errors[1]);
            let energy = weighed(&divided.squares, &multiplied.squares);
            Ok(if energy > 0.0 { error / energy } else { 0.0 })
        }
        (Some(Pair::Keeps), [first, second]) => {
            let mut lost = first.errors(factors)?;
            lost.iter_mut().zip(second.seen.left_of(first.seen)).for_each(|(l, left)| *l *= left);
            second.error(factors, &lost)
        }
        _ => known.iter().map(|k| k.error(factors, lost)).sum(),
    }
}

fn inverse(factors: &[f32]) -> Vec<f32> {
    factors.iter().map(|f| 1.0 / f).collect()
}

/// The factors of the channels of `site`, of whose members `seen` tells, `before` of what is quantized in front of it;
/// `None` where none lowers the estimated error by a tenth.
pub fn factors(
    graph: &Graph,
    plan: &Plan,
    site: &FactorSite,
    seen: &[Channels],
    before: Option<&Channels>,
) -> Result<Option<Factors>> {
    let known = site.members.iter().zip(seen).map(|(m, seen)| Known::new(graph, plan, site, m, seen));
    let known: Vec<Known> = known.collect::<Result<_>>()?;
    let Some((widths, first)) = common_widths(&known, site.pair.as_ref())?.zip(known.first()) else {
        return Ok(None);
    };
    let place = |e| first.place(e);
    if !room(graph, site)? {
        return Ok(None);
    }
    let ones = vec![1.0; site.channels];
    let estimate = |factors: &[f32], lost: &[f64]| estimate(&known, site.pair.as_ref(), factors, lost);
    // What is lost in front of the function comes through it about as large as it is.
    let (mut lost, mut still_lost, mut own_before) = (vec![0.0; site.channels], vec![0.0; site.channels], None);
    if let Some((before, channels)) = site.before.as_ref().zip(before) {
        let spec = range_spec(&plan.kernel_site(before.kernel_site).grid);
        // The function weighs the sides of 0 differently, so the whole range is measured.
        let widths = channels.widths(&spec).map_err(place)?.and_then(|w| w.into_iter().next());
        if let Some(widths) = widths {
            lost = channels.errors(&ones, &spec, None).map_err(place)?;
            still_lost = channels.errors(&widths, &spec, None).map_err(place)?;
            own_before = Some(widths);
        }
    }
    let unfactored = estimate(&ones, &lost)?;
    let most = |samples: &[f32; 2]| if first.seen.samples > 1 { samples[0] } else { samples[0].max(samples[1]) };
    let some: Vec<f32> = first.seen.most.iter().map(most).collect();
    let all: Vec<f32> = first.seen.most.iter().map(|m| m[0].max(m[1])).collect();
    let candidates: Vec<(&Vec<f32>, f32)> =
        widths.iter().flat_map(|w| EXPONENTS.iter().map(move |&exponent| (w, exponent))).collect();
    let tried: Vec<(Vec<f32>, f64)> = candidates
        .par_iter()
        .map(|&(widths, exponent)| {
            let factors: Vec<f32> = widths.iter().map(|w| w.powf(exponent)).collect();
            let error = estimate(&below_cap(factors.clone(), first.cap, &some), &still_lost)?;
            Ok((below_cap(factors, first.cap, &all), error))
        })
        .collect::<Result<_>>()?;
    let best = tried.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
    let costs = if site.carrier == Carrier::Quantizer { WORTH_TIME } else { 0.0 };
    let best = best.filter(|(_, error)| worthwhile(unfactored, *error) && unfactored - error >= costs);
    Ok(best.map(|(own, _)| Factors { own, before: own_before }))
}

/// Whether constants of layers stay finite, whatever the factors that they are multiplied or divided by.
fn room(graph: &Graph, site: &FactorSite) -> Result<bool> {
    for id in site.constants().chain(site.readers().map(|r| r.weight)) {
        let tensor = graph.constant(id).ok_or_else(|| Error::internal("a layer's weight is not constant"))?;
        if tensor.to_f32()?.iter().any(|v| v.abs() > f32::MAX / MOST) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `factors` with which a rectifier's `cap`, which all channels share, cuts off nothing of what was seen (`most` a channel)
/// that it left, and all that it cut off: at most 1, as those of the widest channel and of channels that were not seen at
/// work.
fn below_cap(mut factors: Vec<f32>, cap: Option<f32>, most: &[f32]) -> Vec<f32> {
    let Some(cap) = cap else { return factors };
    let widest = factors.iter().fold(0.0, |w: f32, &f| w.max(f));
    let limited = |f: f32, most: f32| (f / widest).max(most / cap).clamp(1.0 / MOST, 1.0);
    factors.iter_mut().zip(most).for_each(|(f, &most)| *f = if most > 0.0 { limited(*f, most) } else { 1.0 });
    factors
}

/// How a layer's weight meets the channels of an activation.
struct Meeting<'a> {
    reader: &'a Reader,
    weight: Vec<f32>,
    shape: Vec<usize>,
    /// Grid of the weight; `None` where it stays float.
    grid: Option<(Option<usize>, RangeSpec)>,
    /// Per channel of the activation: the weights' squared norm.
    norms: Vec<f64>,
}

impl<'a> Meeting<'a> {
    fn new(graph: &Graph, plan: &Plan, reader: &'a Reader, channels: usize) -> Result<Self> {
        let tensor =
            graph.constant(reader.weight).ok_or_else(|| Error::internal("a layer's weight is not constant"))?;
        let (weight, shape) = (tensor.to_f32()?, tensor.shape().to_vec());
        let grid = reader.layer.map(|id| {
            let layer = plan.layer(id);
            let spec = &layer.grid;
            // The range of all values is found at once and tells how factors compare.
            (layer.axis, RangeSpec { bits: spec.bits, symmetric: spec.symmetric, search: Search::MinMax })
        });
        let mut norms = vec![0.0; channels];
        for (input, &w) in reader.input_channels(&shape).zip(&weight) {
            if let Some(c) = reader.channels[input] {
                norms[c] += f64::from(w).powi(2);
            }
        }
        Ok(Meeting { reader, weight, shape, grid, norms })
    }

    /// Estimated squared error of the layer's output as a share of its energy, where activations have `errors` and mean
    /// `squares` a channel.
    fn error(&self, factors: &[f32], errors: &[f64], squares: &[f64]) -> Result<f64> {
        let weighed = |of: &[f64]| of.iter().zip(&self.norms).map(|(e, n)| e * n).sum::<f64>();
        let mut error = weighed(errors);
        if let Some((axis, spec)) = &self.grid {
            let inputs: Vec<Option<usize>> =
                self.reader.input_channels(&self.shape).map(|input| self.reader.channels[input]).collect();
            let factor = |c: &Option<usize>| c.map_or(1.0, |c| factors[c]);
            let scaled: Vec<f32> = self.weight.iter().zip(&inputs).map(|(w, c)| w * factor(c)).collect();
            let grid = fit_weight(&scaled, &self.shape, *axis, spec)?;
            let real = grid.fake_quantize(&self.shape, &scaled)?;
            let noise = scaled.iter().zip(&real).zip(&inputs).filter_map(|((w, r), c)| {
                let c = (*c)?;
                Some(f64::from((w - r) / factors[c]).powi(2) * squares[c])
            });
            error += noise.sum::<f64>();
        }
        let energy = weighed(squares);
        Ok(if energy > 0.0 { error / energy } else { 0.0 })
    }
}

/// Multiplies the weights that read the channels of `site` by their factors and divides those of the layers that carry
/// them.
pub fn fold(graph: &mut Graph, site: &FactorSite, factors: &Factors) -> Result<()> {
    for reader in site.readers() {
        let factor = |input: usize| reader.channels[input].map_or(1.0, |c| f64::from(factors.own[c]));
        let shape = shape_of(graph, reader.weight)?;
        scale(graph, reader.weight, reader.input_channels(&shape).map(factor))?;
    }
    if let Carrier::Layer { constants, .. } = &site.carrier {
        divide(graph, constants, &factors.own)?;
    }
    if let Some(Pair::Sums { multiplied }) = &site.pair {
        divide(graph, multiplied, &inverse(&factors.own))?;
    }
    match (&site.before, &factors.before) {
        (Some(before), Some(factors)) => divide(graph, &before.constants, factors),
        _ => Ok(()),
    }
}

/// Divides the channels of `constants`, each with the axis that they lie along, by `factors`.
fn divide(graph: &mut Graph, constants: &[(ValueId, usize)], factors: &[f32]) -> Result<()> {
    for &(id, axis) in constants {
        let shape = shape_of(graph, id)?;
        let [_, along, inner] = around(&shape, axis);
        let factor = |i: usize| 1.0 / f64::from(factors[i / inner.max(1) % along.max(1)]);
        scale(graph, id, (0..shape.iter().product()).map(factor))?;
    }
    Ok(())
}

fn shape_of(graph: &Graph, id: ValueId) -> Result<Vec<usize>> {
    let tensor = graph.constant(id).ok_or_else(|| Error::internal("a layer's weight is not constant"))?;
    Ok(tensor.shape().to_vec())
}

/// Multiplies the elements of a constant by `factors`.
fn scale(graph: &mut Graph, id: ValueId, factors: impl Iterator<Item = f64>) -> Result<()> {
    let tensor = graph.constant(id).ok_or_else(|| Error::internal("a layer's weight is not constant"))?;
    let values: Vec<f64> = tensor.to_f64()?.iter().zip(factors).map(|(v, f)| v * f).collect();
    let scaled = Tensor::from_f64(tensor.dtype(), tensor.shape(), &values)?;
    let value = graph.value_mut(id);
    (value.constant, value.origin) = (Some(Arc::new(scaled)), None);
    Ok(())
}

/// Puts a Mul behind every value of `chosen` whose quantizer carries its factors, and one behind each that has factors only
/// until a function reads it. The shapes of values for one sample are in `facts`. Node ids change.
pub fn insert(graph: &mut Graph, facts: &Facts, chosen: &[(&FactorSite, Factors)]) -> Result<()> {
    let producers = graph.producers();
    let mut behind: BTreeMap<NodeId, Vec<Node>> = BTreeMap::new();
    for (site, factors) in chosen {
        let Some(&Member { value, ref axes, .. }) = site.members.first() else { continue };
        let rank = facts.require(graph, value)?.shape.len();
        let mut multiply = |value: ValueId, operands: &[(NodeId, usize)], what: &str, by: Vec<f32>| {
            let mut shape = vec![1; rank];
            axes.iter().for_each(|&a| shape[a] = site.channels);
            let name = format!("{}_{what}", graph.value(value).name);
            let by = graph.add_constant(&format!("{name}_by"), Tensor::f32(&shape, by));
            let dim = |a: usize| if axes.contains(&a) { Dim::Known(site.channels) } else { Dim::Unknown };
            let dims = Some((0..rank).map(dim).collect());
            let result = graph.add_value(&name, Fact { dtype: Some(DType::F32), shape: dims });
            operands.iter().for_each(|&(id, index)| graph.nodes[id.0 as usize].inputs[index] = Some(result));
            let producer = producers[value.0 as usize].ok_or_else(|| Error::internal("nothing makes the value"))?;
            let node = Node::new(name, Op::Binary(Binary::Mul), &[value, by], &[result]);
            behind.entry(producer).or_default().push(node);
            Ok::<(), Error>(())
        };
        if site.carrier == Carrier::Quantizer {
            multiply(value, &site.operands, "divided", inverse(&factors.own))?;
        }
        if let (Some(before), Some(factors)) = (&site.before, &factors.before) {
            multiply(before.value, &before.operands, "restored", factors.clone())?;
        }
    }
    let nodes = std::mem::take(&mut graph.nodes);
    for (i, node) in nodes.into_iter().enumerate() {
        graph.nodes.push(node);
        graph.nodes.extend(behind.remove(&NodeId(i as u32)).unwrap_or_default());
    }
    graph.check()
}
