//! Resize: each axis is resampled in turn by a list of weighted source elements per output position.

use super::Real;
use super::call::{Back, Call, Operands, Shaped};
use crate::error::{Error, Result};
use crate::graph::{Aspect, Coordinates, Interpolation, Nearest, Op, Resize};

/// Size of the result and scale of each axis.
fn sizes(resize: &Resize, x: &Operands) -> Result<Vec<(usize, f64)>> {
    let shape = x.need(0)?.shape;
    let given = |i: usize| Ok::<_, Error>(x.numbers(i)?.filter(|v| !v.is_empty()).map(<[f64]>::to_vec));
    let (values, by_scale) = match (given(2)?, given(3)?) {
        (Some(scales), None) => (scales, true),
        (None, Some(sizes)) => (sizes, false),
        _ => return Err(Error::model("exactly one of scales and sizes must be given")),
    };
    let axes = axes(resize, shape.len())?;
    if values.len() != axes.len() {
        return Err(Error::model(format!("{} scales or sizes for shape {shape:?}", values.len())));
    }
    let one = |(&v, &d): (&f64, &usize)| {
        let size = if by_scale { (d as f64 * v).floor() } else { v };
        if !(v > 0.0 && size >= 0.0 && size <= (1u64 << 40) as f64) || (d == 0 && size > 0.0) {
            return Err(Error::model(format!("cannot resize an axis of size {d} by {v}")));
        }
        Ok((size as usize, if by_scale { v } else { v / d.max(1) as f64 }))
    };
    let named: Vec<usize> = axes.iter().map(|&a| shape[a]).collect();
    let ratios = values.iter().zip(&named).map(|(v, &d)| v / d.max(1) as f64);
    let common = match resize.aspect {
        _ if by_scale => None,
        Aspect::Stretch => None,
        Aspect::NotLarger => ratios.reduce(f64::min),
        Aspect::NotSmaller => ratios.reduce(f64::max),
    };
    let mut out: Vec<(usize, f64)> = shape.iter().map(|&d| (d, 1.0)).collect();
    for (k, &axis) in axes.iter().enumerate() {
        out[axis] = match common {
            None => one((&values[k], &named[k]))?,
            Some(scale) => (one((&(named[k] as f64 * scale + 0.5).floor(), &named[k]))?.0, scale),
        };
    }
    Ok(out)
}

/// The axes that the operands speak of.
fn axes(resize: &Resize, rank: usize) -> Result<Vec<usize>> {
    if resize.axes.is_empty() { Ok((0..rank).collect()) } else { super::index::axes(&resize.axes, rank) }
}

fn settings(op: &Op) -> Result<&Resize> {
    match op {
        Op::Resize(resize) => Ok(resize),
        _ => Err(Error::internal("not a Resize")),
    }
}

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let dtype = x.need(0)?.dtype;
    Ok(vec![(dtype, sizes(settings(op)?, x)?.into_iter().map(|(size, _)| size).collect())])
}

/// Position on the input axis of size `input` that output position `o` of `output` reads.
fn coordinate(kind: Coordinates, o: usize, input: usize, output: usize, scale: f64) -> f64 {
    let (o, n) = (o as f64, input as f64);
    let half_pixel = (o + 0.5) / scale - 0.5;
    match kind {
        Coordinates::HalfPixel => half_pixel,
        Coordinates::PytorchHalfPixel => {
            if output > 1 {
                half_pixel
            } else {
                0.0
            }
        }
        Coordinates::HalfPixelSymmetric => {
            let adjustment = output as f64 / (scale * n);
            n / 2.0 * (1.0 - adjustment) + half_pixel
        }
        Coordinates::AlignCorners => {
            if output > 1 {
                o * (n - 1.0) / (output as f64 - 1.0)
            } else {
                0.0
            }
        }
        // A crop is given its own coordinates.
        Coordinates::Asymmetric | Coordinates::CropAndResize => o / scale,
    }
}

/// Source positions (not yet within the axis) and weights read at coordinate `at`.
fn taps(mode: Interpolation, at: f64) -> Vec<(i64, f64)> {
    let base = at.floor();
    let t = at - base;
    let i = base as i64;
    match mode {
        Interpolation::Nearest(round) => {
            let up = match round {
                Nearest::RoundPreferFloor => t > 0.5,
                Nearest::RoundPreferCeil => t >= 0.5,
                Nearest::Floor => false,
                Nearest::Ceil => t > 0.0,
            };
            vec![(i + i64::from(up), 1.0)]
        }
        Interpolation::Linear => vec![(i, 1.0 - t), (i + 1, t)],
        Interpolation::Cubic { coeff_a, .. } => {
            let a = coeff_a as f64;
            let near = |d: f64| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
            let far = |d: f64| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
            vec![(i - 1, far(1.0 + t)), (i, near(t)), (i + 1, near(1.0 - t)), (i + 2, far(2.0 - t))]
        }
    }
}

/// The same spread over the elements that one element of a smaller result stands for; weights are not yet normalised.
fn wide_taps(mode: Interpolation, at: f64, scale: f64) -> Vec<(i64, f64)> {
    let (reach, a) = match mode {
        Interpolation::Cubic { coeff_a, .. } => (2.0, coeff_a as f64),
        _ => (1.0, 0.0),
    };
    let weight = |d: f64| {
        let d = d.abs();
        match mode {
            Interpolation::Cubic { .. } if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            Interpolation::Cubic { .. } if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            Interpolation::Cubic { .. } => 0.0,
            _ => (1.0 - d).max(0.0),
        }
    };
    let (first, last) = ((at - reach / scale).ceil() as i64, (at + reach / scale).floor() as i64);
    (first..=last).map(|i| (i, weight((i as f64 - at) * scale))).collect()
}

/// Weighted sources of every output position of one axis; `None` when the axis stays as it is. Positions outside of a
/// crop `[start, end]` have no source.
fn axis_taps(
    resize: &Resize,
    input: usize,
    output: usize,
    scale: f64,
    crop: Option<[f64; 2]>,
) -> Option<Vec<Vec<(usize, f64)>>> {
    let (mode, kind) = (resize.mode, resize.coordinates);
    if input == output && scale == 1.0 && crop.is_none() {
        return None;
    }
    let drop_outside = matches!(mode, Interpolation::Cubic { exclude_outside: true, .. });
    let inside = |i: i64| i >= 0 && i < input as i64;
    let table = (0..output).map(|o| {
        let whole = input as f64 - 1.0;
        let at = match crop {
            Some([start, end]) if output > 1 => {
                start * whole + o as f64 * (end - start) * whole / (output as f64 - 1.0)
            }
            Some([start, end]) => (start + end) * whole / 2.0,
            None => coordinate(kind, o, input, output, scale),
        };
        if crop.is_some() && !(at >= 0.0 && at <= whole) {
            return Vec::new();
        }
        let wide = resize.antialias && scale < 1.0 && !matches!(mode, Interpolation::Nearest(_));
        let mut list = if wide { wide_taps(mode, at, scale) } else { taps(mode, at) };
        if wide && !drop_outside {
            let sum: f64 = list.iter().map(|t| t.1).sum();
            list.iter_mut().for_each(|t| t.1 /= sum);
        }
        if drop_outside {
            list.retain(|&(i, _)| inside(i));
            let sum: f64 = list.iter().map(|t| t.1).sum();
            list.iter_mut().for_each(|t| t.1 /= sum);
        }
        list.into_iter().map(|(i, w)| (i.clamp(0, input as i64 - 1) as usize, w)).collect()
    });
    Some(table.collect())
}

/// One axis to resample: its sizes around it, its size before, and the taps of every position after.
struct Pass {
    outer: usize,
    inner: usize,
    input: usize,
    taps: Vec<Vec<(usize, f64)>>,
}

fn passes<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Pass>> {
    let resize = settings(op)?;
    let mut shape = call.x(0)?.shape.to_vec();
    let named = axes(resize, shape.len())?;
    let region = call.opt(1).map_or(&[][..], |r| r.data);
    let crops = resize.coordinates == Coordinates::CropAndResize;
    if crops && region.len() != 2 * named.len() {
        return Err(Error::model(format!("a region of {} numbers for {} axes", region.len(), named.len())));
    }
    let mut out = Vec::new();
    for (axis, (size, scale)) in sizes(resize, &call.sig)?.into_iter().enumerate() {
        let input = std::mem::replace(&mut shape[axis], size);
        let place = named.iter().position(|&a| a == axis).filter(|_| crops);
        let crop = place.map(|k| [region[k].f64(), region[k + named.len()].f64()]);
        if let Some(taps) = axis_taps(resize, input, size, scale, crop) {
            let (outer, inner) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
            out.push(Pass { outer, inner, input, taps });
        }
    }
    Ok(out)
}

impl Pass {
    /// Calls `f(offset of the source row, offset of the result row, weight)`; rows are `inner` long.
    fn each<R: Real>(&self, mut f: impl FnMut(usize, usize, R)) {
        for o in 0..self.outer {
            for (k, taps) in self.taps.iter().enumerate() {
                let to = (o * self.taps.len() + k) * self.inner;
                for &(i, w) in taps {
                    f((o * self.input + i) * self.inner, to, R::of(w));
                }
            }
        }
    }

    /// Rows of the result without a source get `value`.
    fn outside<R: Real>(&self, result: &mut [R], value: R) {
        for (k, row) in result.chunks_exact_mut(self.inner.max(1)).enumerate() {
            if self.taps[k % self.taps.len()].is_empty() {
                row.fill(value);
            }
        }
    }

    /// `to[b..] += w · from[a..]` over a row.
    fn add<R: Real>(&self, from: &[R], a: usize, to: &mut [R], b: usize, w: R) {
        for (y, &x) in to[b..][..self.inner].iter_mut().zip(&from[a..][..self.inner]) {
            *y += w * x;
        }
    }
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let mut data = call.x(0)?.data.to_vec();
    for pass in passes(op, call)? {
        let mut next = vec![R::zero(); pass.outer * pass.taps.len() * pass.inner];
        pass.each(|from, to, w| pass.add(&data, from, &mut next, to, w));
        pass.outside(&mut next, R::of(settings(op)?.extrapolation as f64));
        data = next;
    }
    if call.out[0].0.is_int() {
        data.iter_mut().for_each(|v| *v = v.trunc());
    }
    Ok(vec![data])
}

pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    let mut g = back.g()?.to_vec();
    for pass in passes(op, &back.call)?.into_iter().rev() {
        let mut previous = vec![R::zero(); pass.outer * pass.input * pass.inner];
        pass.each(|from, to, w| pass.add(&g, to, &mut previous, from, w));
        g = previous;
    }
    back.set(0, g);
    Ok(())
}
