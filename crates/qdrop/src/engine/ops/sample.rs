//! Samples at computed places: GridSample, RoiAlign.

use super::Real;
use super::call::{Back, Call, Operands, Shaped};
use super::unary::round_even;
use crate::error::{Error, Result};
use crate::graph::{Op, Outside, Sampling};

/// Most samples along one axis of a cell of RoiAlign.
const CELL_LIMIT: f64 = 4096.0;

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let (first, second) = (x.need(0)?, x.need(1)?);
    let shape = first.shape;
    let out = match op {
        Op::GridSample { .. } => {
            let spatial = shape.len().saturating_sub(2);
            let fits = (1..=3).contains(&spatial)
                && second.shape.len() == shape.len()
                && second.shape[0] == shape[0]
                && second.shape[spatial + 1] == spatial
                && !shape[2..].contains(&0);
            if !fits {
                return Err(Error::model(format!("grid {:?} does not fit input {shape:?}", second.shape)));
            }
            [&shape[..2], &second.shape[1..=spatial]].concat()
        }
        Op::RoiAlign { size, .. } => {
            x.need(2)?;
            let regions = *second.shape.first().unwrap_or(&0);
            x.expect_shape(1, &[regions, 4])?;
            x.expect_shape(2, &[regions])?;
            let size: Option<Vec<usize>> = size.iter().map(|&s| usize::try_from(s).ok().filter(|&s| s > 0)).collect();
            match (size, shape) {
                (Some(size), &[_, channels, h, w]) if h > 0 && w > 0 => vec![regions, channels, size[0], size[1]],
                _ => return Err(Error::model(format!("regions of input {shape:?} have no size"))),
            }
        }
        _ => return Err(Error::internal(format!("{} samples nothing", op.kind()))),
    };
    Ok(vec![(first.dtype, out)])
}

/// A place read along one axis: element (none outside), weight, slope of the weight by the coordinate.
type Tap<R> = (Option<usize>, R, R);

/// `x` reflected into low..=high, and the sign of the slope.
fn reflect<R: Real>(x: R, low: R, high: R) -> (R, R) {
    let range = high - low;
    if range <= R::zero() {
        return (low, R::zero());
    }
    let t = (x - low) % (range + range);
    let t = if t < R::zero() { t + range + range } else { t };
    if t <= range { (low + t, R::one()) } else { (high - (t - range), -R::one()) }
}

/// What is read along an axis of size `n` at the normalised coordinate `v`.
fn taps<R: Real>(op: &Op, v: R, n: usize) -> Result<Vec<Tap<R>>> {
    let Op::GridSample { mode, padding, align_corners } = op else { return Err(Error::internal("not a GridSample")) };
    let (one, size, half) = (R::one(), R::of(n as f64), R::of(0.5));
    let (mut x, mut slope) = match align_corners {
        true => ((v + one) * half * (size - one), half * (size - one)),
        false => (((v + one) * size - one) * half, half * size),
    };
    if !x.is_finite() {
        (x, slope) = (-one - one, R::zero());
    }
    let (low, high) = if *align_corners { (R::zero(), size - one) } else { (-half, size - half) };
    if *mode == Sampling::Nearest {
        x = round_even(x);
    }
    match padding {
        Outside::Border if x < low || x > high => {
            (x, slope) = (x.max(R::zero()).min(size - one), R::zero());
        }
        Outside::Reflection if x < low || x > high => {
            let (to, sign) = reflect(x, low, high);
            (x, slope) = (to, slope * sign);
        }
        _ => {}
    }
    let place = |i: R| {
        let inside = i >= R::zero() && i < size;
        match padding {
            _ if inside => Some(i.f64() as usize),
            Outside::Zeros => None,
            Outside::Border => Some(i.max(R::zero()).min(size - one).f64() as usize),
            Outside::Reflection => Some(reflect(i, low, high).0.max(R::zero()).min(size - one).f64() as usize),
        }
    };
    let base = x.floor();
    let t = x - base;
    let list = match mode {
        Sampling::Nearest => vec![(place(x.trunc()), one, R::zero())],
        Sampling::Linear => vec![(place(base), one - t, -slope), (place(base + one), t, slope)],
        Sampling::Cubic => {
            let a = R::of(-0.75);
            let c = |v: f64| R::of(v);
            let near = |d: R| {
                (
                    ((a + c(2.0)) * d - (a + c(3.0))) * d * d + one,
                    (c(3.0) * (a + c(2.0)) * d - c(2.0) * (a + c(3.0))) * d,
                )
            };
            let far = |d: R| {
                let value = ((a * d - c(5.0) * a) * d + c(8.0) * a) * d - c(4.0) * a;
                (value, (c(3.0) * a * d - c(10.0) * a) * d + c(8.0) * a)
            };
            let parts = [far(t + one), near(t), near(one - t), far(c(2.0) - t)];
            let entry = |(k, (w, d)): (usize, (R, R))| {
                (place(base + R::of(k as f64 - 1.0)), w, if k < 2 { d * slope } else { -d * slope })
            };
            parts.into_iter().enumerate().map(entry).collect()
        }
    };
    Ok(list)
}

/// Calls `f(offset in the plane, weights of the axes, slopes of the axes)` for every combination of taps that lies
/// inside; `strides` of the plane.
fn combine<R: Real>(taps: &[Vec<Tap<R>>], strides: &[usize], mut f: impl FnMut(usize, &[(R, R)])) {
    let total: usize = taps.iter().map(Vec::len).product();
    let mut parts = vec![(R::zero(), R::zero()); taps.len()];
    for c in 0..total {
        let (mut rest, mut at) = (c, Some(0));
        for (k, axis) in taps.iter().enumerate() {
            let (place, w, d) = axis[rest % axis.len()];
            rest /= axis.len();
            at = at.zip(place).map(|(at, p)| at + p * strides[k]);
            parts[k] = (w, d);
        }
        if let Some(at) = at {
            f(at, &parts);
        }
    }
}

/// A sample of RoiAlign: four elements of the plane with their weights.
type Sample<R> = [(usize, R); 4];

/// Calls `f(cell of the result, first element of the plane of x, samples of the cell)` for every cell and channel.
fn cells<R: Real>(op: &Op, call: &Call<R>, mut f: impl FnMut(usize, usize, &[Sample<R>])) -> Result<()> {
    let Op::RoiAlign { size, sampling_ratio, spatial_scale, half_pixel, .. } = op else {
        return Err(Error::internal("not a RoiAlign"));
    };
    let (x, rois, batch) = (call.x(0)?, call.x(1)?, call.x(2)?);
    let &[batches, channels, height, width] = x.shape else { return Err(Error::internal("not of rank 4")) };
    let scale = *spatial_scale as f64;
    let offset = if *half_pixel { 0.5 } else { 0.0 };
    let (ph, pw) = (size[0] as usize, size[1] as usize);
    for (r, roi) in rois.data.chunks_exact(4).enumerate() {
        let b = super::movement::wrap_index(batch.data[r], batches)?;
        let at = |k: usize| roi[k].f64() * scale - offset;
        let (start, end) = ([at(1), at(0)], [at(3), at(2)]);
        let least = if *half_pixel { f64::NEG_INFINITY } else { 1.0 };
        let extent = [0, 1].map(|k| (end[k] - start[k]).max(least));
        let bins = [extent[0] / ph as f64, extent[1] / pw as f64];
        let grid = bins.map(|bin| if *sampling_ratio > 0 { *sampling_ratio as f64 } else { bin.ceil() });
        if grid.iter().any(|g| !(*g <= CELL_LIMIT)) {
            return Err(Error::model(format!("region {r} is too large: {extent:?}")));
        }
        let grid = grid.map(|g| g.max(0.0) as usize);
        // (lower, upper, weight of the upper) along one axis; none outside.
        let axis = |k: usize, cell: usize, i: usize, n: usize| {
            let v = start[k] + cell as f64 * bins[k] + (i as f64 + 0.5) * bins[k] / grid[k] as f64;
            if !(-1.0..=n as f64).contains(&v) {
                return None;
            }
            let v = v.max(0.0);
            let low = v as usize;
            Some(if low + 1 >= n { (n - 1, n - 1, 0.0) } else { (low, low + 1, v - low as f64) })
        };
        for cell in 0..ph * pw {
            let mut samples = Vec::with_capacity(grid[0] * grid[1]);
            for i in 0..grid[0] * grid[1] {
                let y = axis(0, cell / pw, i / grid[1], height);
                let x = axis(1, cell % pw, i % grid[1], width);
                samples.push(match y.zip(x) {
                    None => [(0, R::zero()); 4],
                    Some(((y0, y1, ly), (x0, x1, lx))) => [
                        (y0 * width + x0, R::of((1.0 - ly) * (1.0 - lx))),
                        (y0 * width + x1, R::of((1.0 - ly) * lx)),
                        (y1 * width + x0, R::of(ly * (1.0 - lx))),
                        (y1 * width + x1, R::of(ly * lx)),
                    ],
                });
            }
            for c in 0..channels {
                f((r * channels + c) * ph * pw + cell, (b * channels + c) * height * width, &samples);
            }
        }
    }
    Ok(())
}

/// The weighted element that is the largest of all samples, and its number.
fn largest<R: Real>(plane: &[R], samples: &[Sample<R>]) -> Option<(usize, R, R)> {
    let all = samples.iter().flatten().map(|&(p, w)| (p, w, w * plane[p]));
    all.reduce(|best, next| if next.2 > best.2 { next } else { best })
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let (x, grid) = (call.x(0)?, call.x(1)?);
    let mut y = vec![R::zero(); call.shape().iter().product()];
    if let Op::RoiAlign { max, .. } = op {
        cells(op, call, |o, plane, samples| {
            let plane = &x.data[plane..];
            y[o] = match max {
                true => largest(plane, samples).map_or(R::zero(), |l| l.2),
                false => {
                    let sum = samples.iter().flatten().fold(R::zero(), |s, &(p, w)| s + w * plane[p]);
                    sum / R::of(samples.len().max(1) as f64)
                }
            };
        })?;
        return Ok(vec![y]);
    }
    let (channels, spatial) = (x.shape[1], &x.shape[2..]);
    let (plane, cells): (usize, usize) = (spatial.iter().product(), call.shape()[2..].iter().product());
    let strides = super::index::strides(spatial);
    for (k, v) in grid.data.chunks_exact(spatial.len()).enumerate() {
        let (n, cell) = (k / cells, k % cells);
        // The last number of a place belongs to the first axis.
        let taps: Vec<_> = v.iter().rev().zip(spatial).map(|(&v, &d)| taps(op, v, d)).collect::<Result<_>>()?;
        combine(&taps, &strides, |at, parts| {
            let w = parts.iter().fold(R::one(), |p, part| p * part.0);
            for c in n * channels..(n + 1) * channels {
                y[c * cells + cell] += w * x.data[c * plane + at];
            }
        });
    }
    Ok(vec![y])
}

pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    let (x, grid, g) = (back.call.x(0)?, back.call.x(1)?, back.g()?);
    let mut dx = vec![R::zero(); x.data.len()];
    if let Op::RoiAlign { max, .. } = op {
        // Regions have no gradient.
        cells(op, &back.call, |o, first, samples| match max {
            true => {
                if let Some((p, w, _)) = largest(&x.data[first..], samples) {
                    dx[first + p] += g[o] * w;
                }
            }
            false => {
                let share = g[o] / R::of(samples.len().max(1) as f64);
                samples.iter().flatten().for_each(|&(p, w)| dx[first + p] += share * w);
            }
        })?;
        back.set(0, dx);
        return Ok(());
    }
    let (channels, spatial) = (x.shape[1], &x.shape[2..]);
    let (plane, cells): (usize, usize) = (spatial.iter().product(), back.call.shape()[2..].iter().product());
    let strides = super::index::strides(spatial);
    let mut dg = vec![R::zero(); grid.data.len()];
    for (k, v) in grid.data.chunks_exact(spatial.len()).enumerate() {
        let (n, cell) = (k / cells, k % cells);
        let taps: Vec<_> = v.iter().rev().zip(spatial).map(|(&v, &d)| taps(op, v, d)).collect::<Result<_>>()?;
        combine(&taps, &strides, |at, parts| {
            let w = parts.iter().fold(R::one(), |p, part| p * part.0);
            let mut sum = R::zero();
            for c in n * channels..(n + 1) * channels {
                dx[c * plane + at] += w * g[c * cells + cell];
                sum += x.data[c * plane + at] * g[c * cells + cell];
            }
            for a in 0..parts.len() {
                let slope = (0..parts.len()).fold(sum, |p, b| p * if a == b { parts[b].1 } else { parts[b].0 });
                dg[k * parts.len() + parts.len() - 1 - a] += slope;
            }
        });
    }
    back.set(0, dx);
    back.set(1, dg);
    Ok(())
}
