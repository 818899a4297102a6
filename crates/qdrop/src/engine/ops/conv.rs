//! Convolution of any spatial rank and its transpose.
//!
//! Both are made of three bilinear forms over `x: [N, G·I, in...]`, `w: [G·O, I, kernel...]` and `y: [N, G·O, out...]`:
//! each accumulates into one of the three from the other two. A transposed convolution swaps x and y.

use super::call::{Back, Call, Operands, Shaped};
use super::window::{self, Axis, Run};
use super::{Real, View};
use crate::error::{Error, Result};
use crate::graph::Op;

/// Sizes of a convolution.
struct Shape {
    batch: usize,
    groups: usize,
    /// Channels of x in one group.
    inputs: usize,
    /// Channels of y in one group.
    outputs: usize,
    /// Elements of x's plane, y's plane and the kernel.
    plane_x: usize,
    plane_y: usize,
    taps: usize,
    /// Step along the last axis of x from one output to the next.
    stride: usize,
    runs: Vec<Run>,
}

impl Shape {
    /// Calls `f` with the offsets of every (x plane, y plane, kernel) triple that meets.
    fn each(&self, mut f: impl FnMut(usize, usize, usize)) {
        for n in 0..self.batch {
            for g in 0..self.groups {
                for o in 0..self.outputs {
                    let oc = g * self.outputs + o;
                    let y = (n * self.groups * self.outputs + oc) * self.plane_y;
                    for i in 0..self.inputs {
                        let x = ((n * self.groups + g) * self.inputs + i) * self.plane_x;
                        f(x, y, (oc * self.inputs + i) * self.taps);
                    }
                }
            }
        }
    }

    /// y += conv(x, w).
    fn to_y<R: Real>(&self, x: &[R], w: &[R], y: &mut [R]) {
        self.each(|xo, yo, wo| {
            for r in &self.runs {
                let weight = w[wo + r.tap];
                let out = &mut y[yo + r.output..][..r.len];
                let input = &x[xo + r.input..];
                if self.stride == 1 {
                    for (a, &b) in out.iter_mut().zip(&input[..r.len]) {
                        *a += weight * b;
                    }
                } else {
                    for (a, &b) in out.iter_mut().zip(input.iter().step_by(self.stride)) {
                        *a += weight * b;
                    }
                }
            }
        });
    }

    /// x += the transpose of conv(·, w) applied to y.
    fn to_x<R: Real>(&self, y: &[R], w: &[R], x: &mut [R]) {
        self.each(|xo, yo, wo| {
            for r in &self.runs {
                let weight = w[wo + r.tap];
                let out = &y[yo + r.output..][..r.len];
                let input = &mut x[xo + r.input..];
                if self.stride == 1 {
                    for (a, &b) in input[..r.len].iter_mut().zip(out) {
                        *a += weight * b;
                    }
                } else {
                    for (a, &b) in input.iter_mut().step_by(self.stride).zip(out) {
                        *a += weight * b;
                    }
                }
            }
        });
    }

    /// w += correlation of x and y.
    fn to_w<R: Real>(&self, x: &[R], y: &[R], w: &mut [R]) {
        self.each(|xo, yo, wo| {
            for r in &self.runs {
                let out = &y[yo + r.output..][..r.len];
                let mut sum = R::zero();
                for (&a, &b) in x[xo + r.input..].iter().step_by(self.stride).zip(out) {
                    sum += a * b;
                }
                w[wo + r.tap] += sum;
            }
        });
    }
}

/// Geometry of a Conv or ConvTranspose, and the channel counts of x and of the result.
pub(in crate::engine) fn geometry(op: &Op, x: &[usize], w: &[usize]) -> Result<(Vec<Axis>, usize, usize)> {
    let rank = x.len();
    if rank < 3 || w.len() != rank {
        return Err(Error::model(format!(
            "input and weight must have the same rank, of at least 3, got shapes {x:?} and {w:?}"
        )));
    }
    let groups = |group: i64| match usize::try_from(group) {
        Ok(g) if g > 0 && x[1].is_multiple_of(g) && w[0].is_multiple_of(g) => Ok(g),
        _ => Err(Error::model(format!(
            "group must be positive and divide {} input channels and {} rows of the weight, got {group}",
            x[1], w[0]
        ))),
    };
    match op {
        Op::Conv { window, group } => {
            let g = groups(*group)?;
            if w[1] != x[1] / g {
                return Err(Error::model(format!(
                    "weight {w:?} reads {} channels per group, the input {x:?} has {} in {g} groups",
                    w[1],
                    x[1] / g
                )));
            }
            Ok((window::resolve(window, &x[2..], Some(&w[2..]), false)?, g, w[0]))
        }
        Op::ConvTranspose { window, group, output_padding, output_shape } => {
            let g = groups(*group)?;
            if w[0] != x[1] {
                return Err(Error::model(format!("weight {w:?} reads {} channels, the input has {}", w[0], x[1])));
            }
            let outputs =
                w[1].checked_mul(g).ok_or_else(|| Error::model(format!("{} channels in {g} groups", w[1])))?;
            let axes = window::resolve_transposed(window, &x[2..], &w[2..], output_padding, output_shape)?;
            Ok((axes, g, outputs))
        }
        _ => Err(Error::internal(format!("{} is no convolution", op.kind()))),
    }
}

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    x.same_dtype([0, 1, 2])?;
    let (input, weight) = (x.need(0)?, x.need(1)?);
    let (axes, _, channels) = geometry(op, input.shape, weight.shape)?;
    x.expect_shape(2, &[channels])?;
    let mut shape = vec![input.shape[0], channels];
    let transposed = matches!(op, Op::ConvTranspose { .. });
    shape.extend(axes.iter().map(|a| if transposed { a.input } else { a.output }));
    Ok(vec![(input.dtype, shape)])
}

fn shape<R: Real>(op: &Op, x: &View<R>, w: &View<R>) -> Result<Shape> {
    let (axes, groups, channels) = geometry(op, x.shape, w.shape)?;
    let (inputs, outputs) = match op {
        Op::ConvTranspose { .. } => (channels / groups, x.shape[1] / groups),
        _ => (x.shape[1] / groups, channels / groups),
    };
    let (plane_x, plane_y, taps) = window::planes(&axes);
    let stride = axes.last().map_or(1, |a| a.stride);
    Ok(Shape { batch: x.shape[0], groups, inputs, outputs, plane_x, plane_y, taps, stride, runs: window::runs(&axes) })
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let (x, w) = (call.x(0)?, call.x(1)?);
    let s = shape(op, &x, &w)?;
    let dims = call.shape();
    let plane: usize = dims[2..].iter().product();
    let mut y = vec![R::zero(); dims.iter().product()];
    if let Some(b) = call.opt(2)
        && plane > 0
    {
        for (k, p) in y.chunks_exact_mut(plane).enumerate() {
            p.fill(b.data[k % dims[1]]);
        }
    }
    match op {
        Op::ConvTranspose { .. } => s.to_x(x.data, w.data, &mut y),
        _ => s.to_y(x.data, w.data, &mut y),
    }
    Ok(vec![y])
}

pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    let (x, w, g) = (back.call.x(0)?, back.call.x(1)?, back.g()?);
    let s = shape(op, &x, &w)?;
    let transposed = matches!(op, Op::ConvTranspose { .. });
    if back.wants(0) {
        let mut dx = vec![R::zero(); x.data.len()];
        if transposed {
            s.to_y(g, w.data, &mut dx);
        } else {
            s.to_x(g, w.data, &mut dx);
        }
        back.set(0, dx);
    }
    if back.wants(1) {
        let mut dw = vec![R::zero(); w.data.len()];
        if transposed {
            s.to_w(g, x.data, &mut dw);
        } else {
            s.to_w(x.data, g, &mut dw);
        }
        back.set(1, dw);
    }
    if back.wants(2) {
        let dims = back.call.shape();
        let plane: usize = dims[2..].iter().product();
        let mut db = vec![R::zero(); dims[1]];
        if plane > 0 {
            for (k, p) in g.chunks_exact(plane).enumerate() {
                db[k % dims[1]] += p.iter().fold(R::zero(), |a, &b| a + b);
            }
        }
        back.set(2, db);
    }
    Ok(())
}
