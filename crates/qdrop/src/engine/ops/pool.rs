//! Pooling over windows of `x: [N, C, in...]`.

use super::call::{Back, Call, Operands, Shaped};
use super::window::{self, Axis, Run};
use super::{Real, View};
use crate::error::{Error, Result};
use crate::graph::{Op, Padding, Window};
use crate::tensor::DType;

fn axes(op: &Op, shape: &[usize]) -> Result<Vec<Axis>> {
    let minimum = if matches!(op, Op::GlobalAveragePool | Op::GlobalMaxPool | Op::GlobalLpPool { .. }) { 2 } else { 3 };
    if shape.len() < minimum {
        return Err(Error::model(format!("pooling needs an input of rank at least {minimum}, got shape {shape:?}")));
    }
    let spatial = &shape[2..];
    match op {
        Op::MaxPool { window, ceil_mode }
        | Op::AveragePool { window, ceil_mode, .. }
        | Op::LpPool { window, ceil_mode, .. } => window::resolve(window, spatial, None, *ceil_mode),
        _ => {
            let whole =
                Window { kernel: vec![], strides: vec![], dilations: vec![], padding: Padding::Explicit(vec![]) };
            window::resolve(&whole, spatial, Some(spatial), false)
        }
    }
}

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let x = x.need(0)?;
    let mut shape = x.shape[..x.shape.len().min(2)].to_vec();
    shape.extend(axes(op, x.shape)?.iter().map(|a| a.output));
    let mut out = vec![(x.dtype, shape.clone())];
    if matches!(op, Op::MaxPool { .. }) {
        out.push((DType::I64, shape));
    }
    Ok(out)
}

/// Windows of one plane.
struct Plan {
    runs: Vec<Run>,
    stride: usize,
    plane_x: usize,
    plane_y: usize,
    /// Divisor of each output position of an average.
    counts: Vec<usize>,
}

fn plan<R: Real>(op: &Op, x: &View<R>) -> Result<Plan> {
    let axes = axes(op, x.shape)?;
    let (plane_x, plane_y, _) = window::planes(&axes);
    let runs = window::runs(&axes);
    let mut counts = Vec::new();
    if let Op::AveragePool { count_include_pad: true, .. } = op {
        counts = vec![1; plane_y];
        let mut inner = plane_y;
        for a in &axes {
            inner /= a.output.max(1);
            for (i, c) in counts.iter_mut().enumerate() {
                *c = usize::saturating_mul(*c, a.covered((i / inner) % a.output));
            }
        }
    } else if matches!(op, Op::AveragePool { .. } | Op::GlobalAveragePool) {
        counts = vec![0; plane_y];
        for r in &runs {
            counts[r.output..][..r.len].iter_mut().for_each(|c| *c += 1);
        }
    }
    Ok(Plan { runs, stride: axes.last().map_or(1, |a| a.stride), plane_x, plane_y, counts })
}

impl Plan {
    /// The (x, y) plane offsets of every channel of every sample.
    fn planes<R: Real>(&self, x: &View<R>) -> impl Iterator<Item = (usize, usize)> + use<R> {
        let (px, py) = (self.plane_x, self.plane_y);
        (0..x.shape[0] * x.shape[1]).map(move |c| (c * px, c * py))
    }

    /// Maxima of the plane at `xo` and the positions within the plane where each occurs first.
    fn argmax<R: Real>(&self, x: &[R], xo: usize, best: &mut [R], at: &mut [usize]) {
        best.fill(R::neg_infinity());
        at.fill(usize::MAX);
        for r in &self.runs {
            for i in 0..r.len {
                let (o, p) = (r.output + i, r.input + i * self.stride);
                let v = x[xo + p];
                if at[o] == usize::MAX || v > best[o] || (v.is_nan() && !best[o].is_nan()) {
                    best[o] = v;
                    at[o] = p;
                }
            }
        }
    }
}

/// The exponent of a norm.
fn exponent(op: &Op) -> Option<i64> {
    match op {
        Op::LpPool { p, .. } | Op::GlobalLpPool { p } => Some(*p),
        _ => None,
    }
}

/// |x|^p.
fn power<R: Real>(x: R, p: i64) -> R {
    match p {
        0 => R::one(),
        1 => x.abs(),
        2 => x * x,
        _ => x.abs().powf(R::of(p as f64)),
    }
}

fn is_max(op: &Op) -> bool {
    matches!(op, Op::MaxPool { .. } | Op::GlobalMaxPool)
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let x = call.x(0)?;
    let plan = plan(op, &x)?;
    let mut y = vec![R::zero(); call.shape().iter().product()];
    let mut at = vec![0; plan.plane_y];
    let mut places = Vec::new();
    let norm = exponent(op);
    for (xo, yo) in plan.planes(&x) {
        let out = &mut y[yo..][..plan.plane_y];
        if is_max(op) {
            plan.argmax(x.data, xo, out, &mut at);
            if call.out.len() > 1 {
                places.extend(at.iter().map(|&p| R::of(xo.saturating_add(p) as f64)));
            }
            continue;
        }
        for r in &plan.runs {
            let input = x.data[xo + r.input..].iter().step_by(plan.stride);
            for (a, &b) in out[r.output..][..r.len].iter_mut().zip(input) {
                *a += norm.map_or(b, |p| power(b, p));
            }
        }
        if let Some(p) = norm {
            out.iter_mut().for_each(|v| *v = if p == 1 { *v } else { v.powf(R::of(1.0 / p as f64)) });
        }
        for (a, &c) in out.iter_mut().zip(&plan.counts) {
            *a /= R::of(c as f64);
        }
    }
    Ok(vec![y, places])
}

/// The maximum that comes first in row-major order of the window gets its gradient.
pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    let (x, g) = (back.call.x(0)?, back.g()?);
    let plan = plan(op, &x)?;
    let (y, norm) = (back.y()?, exponent(op));
    let mut dx = vec![R::zero(); x.data.len()];
    let mut best = vec![R::zero(); plan.plane_y];
    let mut at = vec![0; plan.plane_y];
    for (xo, yo) in plan.planes(&x) {
        let g = &g[yo..][..plan.plane_y];
        if is_max(op) {
            plan.argmax(x.data, xo, &mut best, &mut at);
            for (&p, &g) in at.iter().zip(g).filter(|(p, _)| **p != usize::MAX) {
                dx[xo + p] += g;
            }
            continue;
        }
        for r in &plan.runs {
            if let Some(p) = norm {
                for i in 0..r.len {
                    let (v, y) = (x.data[xo + r.input + i * plan.stride], y.data[yo + r.output + i]);
                    if v != R::zero() && y != R::zero() {
                        let slope = v.signum() * power(v.abs() / y, p - 1);
                        dx[xo + r.input + i * plan.stride] += g[r.output + i] * slope;
                    }
                }
                continue;
            }
            let input = dx[xo + r.input..].iter_mut().step_by(plan.stride);
            for (i, a) in input.take(r.len).enumerate() {
                *a += g[r.output + i] / R::of(plan.counts[r.output + i] as f64);
            }
        }
    }
    back.set(0, dx);
    Ok(())
}
