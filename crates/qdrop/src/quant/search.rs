//! From observed values to a grid.
//!
//! The MSE search tries 100 ranges times all zero points and keeps the first with the smallest mean |x̂ - x|^2.4. All
//! zero points of one range share the multiples of one step δ, and 0 is always one of them. So the two sides of 0 are
//! independent: a side's error is that of rounding the values below its clip point k·δ (a prefix sum, the same for
//! every zero point) plus that of clipping the values above. The second part is a convex function of the clip point
//! alone; tangents at a few points bound it from below, and only candidates that the bound does not rule out are
//! looked at: of a range, the zero points around the one with the least bound. The result is that of the full scan.
//!
//! Grids of 16 bits are finer than what an [`Observation`] keeps. For them values within the range count as evenly
//! spread between two integers, and since clipping is convex, bisection finds the zero point.

use super::{Grid, Observation, STEP_OF_ZEROS, qmax_of};
use crate::error::{Error, Kind, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How many ranges the MSE search tries.
pub const RANGES: usize = 100;

/// How a range is found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Search {
    /// Smallest mean |x̂ - x|^2.4 over [`RANGES`] ranges, and every zero point where values lie on both sides of 0.
    Mse,
    /// From the smallest to the largest value.
    MinMax,
    /// From the quantile 100 - p to the quantile p, in percent, above 50 up to 100.
    Percentile(f64),
}

/// What grid to fit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RangeSpec {
    /// 2 to 8, or 16 for activations; the grid is `0..=2^bits - 1`.
    pub bits: u32,
    /// Zero point fixed at 2^(bits-1).
    pub symmetric: bool,
    /// How the range is found.
    pub search: Search,
}

/// Largest integer of the grids whose zero points are all tried.
const SCANNED: i32 = 255;

/// Mean of |u|^2.4 over u from -1/2 to 1/2: 2^-2.4 / 3.4.
const SPREAD: f64 = 0.055_724_87;

/// On which side of 0 a tensor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Positive,
    Negative,
    Both,
}

impl Sign {
    fn of((low, high): (f32, f32)) -> Self {
        match (low >= 0.0, high <= 0.0) {
            (true, _) => Sign::Positive,
            (_, true) => Sign::Negative,
            _ => Sign::Both,
        }
    }
}

/// The grid for a whole tensor. An error when nothing or something not finite was observed.
pub fn fit(seen: &Observation, spec: &RangeSpec) -> Result<Grid> {
    let sign = Sign::of(seen.range()?);
    let (scale, zero_point) = fit_one(seen, sign, spec)?;
    Grid::per_tensor(spec.bits, scale, zero_point)
}

/// The grid for `weight` (row-major, of `shape`): one entry per index of `axis`, or one for all. Whether values are
/// one-sided is decided on the whole weight, as the official search does. Channels are fitted in parallel.
pub fn fit_weight(weight: &[f32], shape: &[usize], axis: Option<usize>, spec: &RangeSpec) -> Result<Grid> {
    if crate::tensor::checked_numel(shape)? != weight.len() || axis.is_some_and(|a| a >= shape.len()) {
        return Err(Error::internal(format!("axis {axis:?} of shape {shape:?} for {} elements", weight.len())));
    }
    let mut bounds = (f32::INFINITY, f32::NEG_INFINITY);
    for &v in weight {
        if !v.is_finite() {
            return Err(Error::new(Kind::Numeric, format!("expected finite weights, got {v}")));
        }
        bounds = (bounds.0.min(v), bounds.1.max(v));
    }
    let sign = Sign::of(bounds);
    let Some(axis) = axis else {
        let mut seen = Observation::new();
        seen.observe(weight);
        let (scale, zero_point) = fit_one(&seen, sign, spec)?;
        return Grid::per_tensor(spec.bits, scale, zero_point);
    };
    let (channels, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let entries: Vec<(f32, i32)> = (0..channels)
        .into_par_iter()
        .map(|c| {
            let rows = weight.chunks(inner.max(1)).skip(c).step_by(channels);
            let channel: Vec<f32> = rows.flatten().copied().collect();
            let mut seen = Observation::new();
            seen.observe(&channel);
            fit_one(&seen, sign, spec)
        })
        .collect::<Result<_>>()?;
    let (scale, zero_point) = entries.into_iter().unzip();
    Grid::per_channel(spec.bits, scale, zero_point, axis)
}

fn fit_one(seen: &Observation, sign: Sign, spec: &RangeSpec) -> Result<(f32, i32)> {
    let qmax = qmax_of(spec.bits)?;
    let range = seen.range()?;
    let range = (f64::from(range.0), f64::from(range.1));
    let range = match spec.search {
        Search::MinMax => range,
        Search::Percentile(p) => percentile(seen, p)?,
        Search::Mse => search(seen, range, sign, qmax, spec.symmetric).unwrap_or(range),
    };
    Ok(entry_for(range, qmax, spec.symmetric))
}

/// Step and zero point for a range, widened to hold 0.
fn entry_for((low, high): (f64, f64), qmax: i32, symmetric: bool) -> (f32, i32) {
    let (low, high) = (low.min(0.0), high.max(0.0));
    if symmetric {
        let step = (high.max(-low) / (f64::from(qmax) / 2.0)) as f32;
        return (positive(step), (qmax + 1) / 2);
    }
    let step = positive(((high - low) / f64::from(qmax)) as f32);
    // An infinite quotient saturates in the conversion.
    (step, (-(low as f32 / step).round_ties_even() as i32).clamp(0, qmax))
}

/// `step` as a step that floats hold with all their digits, however small the values are that it is for.
fn positive(step: f32) -> f32 {
    if step > 0.0 { step.max(f32::MIN_POSITIVE) } else { STEP_OF_ZEROS }
}

fn percentile(seen: &Observation, p: f64) -> Result<(f64, f64)> {
    if !(p > 50.0 && p <= 100.0) {
        return Err(Error::recipe(format!("percentile must be above 50 and at most 100, got {p}")));
    }
    let values = seen.weighted();
    // The rank r of n values is the smallest value with at least r values at or below it.
    let at = |q: f64| {
        let rank = ((q / 100.0 * seen.count() as f64).ceil() as u64).clamp(1, seen.count());
        let mut below = 0;
        values.iter().find(|v| {
            below += v.1;
            below >= rank
        })
    };
    Ok((at(100.0 - p).map_or(0.0, |v| v.0), at(p).map_or(0.0, |v| v.0)))
}

/// |u|^2.4 and u^1.4 for u ≥ 0, to a relative 1e-6: three Newton steps on u^(-1/5), no division, so that loops over it
/// become vector code.
#[inline(always)]
fn powers(u: f32) -> (f32, f32) {
    let bits = u.to_bits();
    // bits / 5 as a sum of shifts; the constant centres the first guess.
    let mut z = f32::from_bits(ROOT - ((bits >> 3) + (bits >> 4) + (bits >> 7) + (bits >> 8)));
    for _ in 0..3 {
        let z2 = z * z;
        z *= 1.2 - 0.2 * (u * z) * (z2 * z2);
    }
    let uz = u * z;
    let u14 = uz * uz * z;
    (u14 * u, u14)
}

/// See [`powers`].
const ROOT: u32 = 1_277_100_000;

/// Values on one side of 0 as distances from 0, ascending, with how often each occurs; and a lower bound of the
/// clipping error.
struct Side {
    x: Vec<f32>,
    w: Vec<f32>,
    /// Clipping error and its slope at the clip points j·reach/[`NODES`].
    nodes: Vec<(f64, f64)>,
    reach: f32,
    /// Rounding errors of the first m values, in units of the step at hand.
    prefix: Vec<f64>,
    scratch: Vec<f32>,
}

const NODES: usize = 32;

/// Keeps float32 errors of a bound from ruling out the best candidate.
const SLACK: f64 = 1.0 - 1e-5;

impl Side {
    fn new(points: impl Iterator<Item = (f64, u64)>) -> Self {
        let (x, w): (Vec<f32>, Vec<f32>) = points.map(|(x, n)| (x as f32, n as f32)).filter(|p| p.0 > 0.0).unzip();
        let reach = x.last().copied().unwrap_or(0.0);
        let mut side = Side { nodes: Vec::new(), reach, prefix: vec![0.0; x.len() + 1], scratch: Vec::new(), x, w };
        side.nodes = (0..=NODES).map(|j| side.clipping(reach * j as f32 / NODES as f32)).collect();
        side
    }

    fn below(&self, clip: f32) -> usize {
        if clip >= self.reach { self.x.len() } else { self.x.partition_point(|&x| x <= clip) }
    }

    /// Σ w·(x - clip)^2.4 over x > clip, and its derivative to `clip`.
    fn clipping(&self, clip: f32) -> (f64, f64) {
        let from = self.below(clip);
        let (mut value, mut slope) = (0f64, 0f64);
        for (xs, ws) in self.x[from..].chunks(64).zip(self.w[from..].chunks(64)) {
            let (mut a, mut b) = (0f32, 0f32);
            for (&x, &w) in xs.iter().zip(ws) {
                let (p, q) = powers(x - clip);
                a += w * p;
                b += w * q;
            }
            value += f64::from(a);
            slope += f64::from(b);
        }
        (value, -2.4 * slope)
    }

    /// A lower bound of [`Side::clipping`]: the higher of the tangents at the two nearest nodes.
    fn clipping_bound(&self, clip: f32) -> f64 {
        if clip >= self.reach {
            return 0.0;
        }
        let position = clip / self.reach * NODES as f32;
        let j = (position as usize).min(NODES - 1);
        let tangent = |j: usize| {
            let (value, slope) = self.nodes[j];
            value + slope * f64::from(clip - self.reach * j as f32 / NODES as f32)
        };
        tangent(j).max(tangent(j + 1)).max(0.0) * SLACK
    }

    /// Fills the prefix sums of |x/δ - round(x/δ)|^2.4.
    fn round_all(&mut self, step: f32) {
        // Adding and taking away 2^23 rounds half to even; x/δ stays far below 2^22.
        const HALF_EVEN: f32 = 8_388_608.0;
        let errors = self.x.iter().zip(&self.w).map(|(&x, &w)| {
            let t = x / step;
            w * powers((t - ((t + HALF_EVEN) - HALF_EVEN)).abs()).0
        });
        self.scratch.clear();
        self.scratch.extend(errors);
        let mut sum = 0f64;
        for (slot, &e) in self.prefix[1..].iter_mut().zip(&self.scratch) {
            sum += f64::from(e);
            *slot = sum;
        }
    }

    fn rounding(&self, clip: f32) -> f64 {
        self.prefix[self.below(clip)]
    }
}

/// Where in `range` a convex function is least.
fn lowest(range: &std::ops::RangeInclusive<i32>, f: impl Fn(i32) -> f64) -> i32 {
    let (mut low, mut high) = (*range.start(), *range.end());
    while low < high {
        let middle = low + (high - low) / 2;
        let (here, next) = (f(middle), f(middle + 1));
        if here == next && here == 0.0 {
            return middle;
        }
        if here <= next {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The best range, in units of the values; `None` where all are 0.
fn search(seen: &Observation, range: (f64, f64), sign: Sign, qmax: i32, symmetric: bool) -> Option<(f64, f64)> {
    let (low, high) = (range.0.min(0.0), range.1.max(0.0));
    let one_sided = symmetric || sign != Sign::Both;
    let width = if one_sided { high.max(-low) } else { high - low };
    if width <= 0.0 {
        return None;
    }
    // Multiplication by a power of two changes no decision and keeps powers within float32.
    let unit = 2f64.powi(-(width.log2().floor().clamp(-140.0, 128.0) as i32));
    let values = seen.weighted();
    let mut below = Side::new(values.iter().rev().map(|&(x, n)| (-x * unit, n)));
    let mut above = Side::new(values.iter().map(|&(x, n)| (x * unit, n)));

    let levels = if symmetric { qmax as f32 / 2.0 } else { qmax as f32 };
    let zero_points = match sign {
        _ if symmetric => (qmax + 1) / 2..=(qmax + 1) / 2,
        Sign::Positive => 0..=0,
        Sign::Negative => qmax..=qmax,
        Sign::Both => 0..=qmax,
    };
    let scaled = (width * unit) as f32;
    let step_of = |i: usize| scaled / RANGES as f32 * i as f32 / levels;
    let range_of = |i: usize, zero: i32| {
        let step = f64::from(step_of(i)) / unit;
        let high = step * f64::from(levels);
        if symmetric { (-high, high) } else { (f64::from(-zero) * step, f64::from(qmax - zero) * step) }
    };
    let least = f64::from(f32::MIN_POSITIVE) * unit;
    if qmax > SCANNED {
        let (first, last) = zero_points.into_inner();
        return fine(&below, &above, (first, last), qmax, least, step_of).map(|(i, zero)| range_of(i, zero));
    }
    let mut best: Option<(f64, usize, i32)> = None;
    for i in (1..=RANGES).rev() {
        let step = step_of(i);
        let clips = |zero: i32| (zero as f32 * step, (qmax - zero) as f32 * step);
        let bound = |below: &Side, above: &Side, zero: i32| {
            let (a, b) = clips(zero);
            below.clipping_bound(a) + above.clipping_bound(b)
        };
        let ruled_out = |bound: f64, best: &Option<(f64, usize, i32)>| best.is_some_and(|b| bound > b.0);
        // The bound is convex in the zero point, so those that are not ruled out lie side by side around its least.
        let middle = lowest(&zero_points, |zero| bound(&below, &above, zero));
        if ruled_out(bound(&below, &above, middle), &best) {
            continue;
        }
        below.round_all(step);
        above.round_all(step);
        let power = f64::from(step).powf(2.4);
        let mut more = |zero: i32| {
            let least = bound(&below, &above, zero);
            if ruled_out(least, &best) {
                return false;
            }
            let (a, b) = clips(zero);
            let rounding = (below.rounding(a) + above.rounding(b)) * power;
            if ruled_out(rounding * SLACK + least, &best) {
                return true;
            }
            let score = rounding + below.clipping(a).0 + above.clipping(b).0;
            // Of equal scores the smallest range and zero point win.
            if best.is_none_or(|b| score < b.0 || (score == b.0 && (i, zero) < (b.1, b.2))) {
                best = Some((score, i, zero));
            }
            true
        };
        let _ = (*zero_points.start()..=middle).rev().all(&mut more);
        let _ = (middle + 1..=*zero_points.end()).all(&mut more);
    }
    best.map(|(_, i, zero)| range_of(i, zero))
}

/// The range and the zero point, from `first` to `last`, of a grid too fine for a scan; `None` when every step would be
/// below `least`.
fn fine(
    below: &Side,
    above: &Side,
    (first, last): (i32, i32),
    qmax: i32,
    least: f64,
    step_of: impl Fn(usize) -> f32,
) -> Option<(usize, i32)> {
    let count: f64 = below.w.iter().chain(&above.w).map(|&w| f64::from(w)).sum();
    let mut best: Option<(f64, usize, i32)> = None;
    for i in (1..=RANGES).rev() {
        let step = step_of(i);
        if f64::from(step) < least {
            break;
        }
        let clipping = |zero: f32| {
            let (a, b) = (below.clipping(zero * step), above.clipping((qmax as f32 - zero) * step));
            (a.0 + b.0, a.1 - b.1)
        };
        let (mut low, mut high) = (first, last);
        while low < high {
            let middle = low + (high - low) / 2;
            if clipping(middle as f32 + 0.5).1 >= 0.0 { high = middle } else { low = middle + 1 }
        }
        let clipped = clipping(low as f32).0;
        // Smaller ranges clip more.
        if best.is_some_and(|b| clipped > b.0) {
            break;
        }
        let score = clipped + count * SPREAD * f64::from(step).powf(2.4);
        if best.is_none_or(|b| score <= b.0) {
            best = Some((score, i, low));
        }
    }
    best.map(|(_, i, zero)| (i, zero))
}

#[cfg(test)]
#[path = "search_tests.rs"]
pub(super) mod tests;
