//! Reductions, ArgMax and ArgMin, Softmax.

use super::call::{Back, Call, Operands, Shaped};
use super::elementwise::to_integer;
use super::index::{self, each, strides};
use super::unary::{max, min};
use super::{Real, View};
use crate::error::{Error, Result};
use crate::graph::{Op, Reduction};
use crate::tensor::DType;

/// Which axes are reduced.
fn reduced(op: &Op, x: &Operands) -> Result<Vec<bool>> {
    let rank = x.need(0)?.shape.len();
    let mut mask = vec![false; rank];
    match op {
        Op::Reduce { noop_with_empty_axes, .. } => match x.ints(1)? {
            Some(list) if !list.is_empty() => {
                index::axes(&list, rank)?.into_iter().for_each(|a| mask[a] = true);
            }
            _ => mask.fill(!noop_with_empty_axes),
        },
        Op::ArgReduce { axis, .. } | Op::Softmax { axis, .. } | Op::Hardmax { axis } => {
            mask[index::axis(*axis, rank)?] = true
        }
        _ => return Err(Error::internal(format!("{} is no reduction", op.kind()))),
    }
    Ok(mask)
}

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let first = x.need(0)?;
    let mask = match op {
        // A scalar is its own only element.
        Op::Softmax { axis, .. } if first.shape.is_empty() && matches!(axis, -1 | 0) => Vec::new(),
        Op::Cumulate { .. } => {
            x.need(1)?;
            Vec::new()
        }
        _ => reduced(op, x)?,
    };
    let (keep, dtype) = match op {
        Op::Reduce { keepdims, .. } => (*keepdims, first.dtype),
        Op::ArgReduce { keepdims, .. } => {
            if let Some(k) = mask.iter().zip(first.shape).position(|(&m, &d)| m && d == 0) {
                return Err(Error::model(format!("axis {k} is empty and has no extreme element")));
            }
            (*keepdims, DType::I64)
        }
        _ => return Ok(vec![(first.dtype, first.shape.to_vec())]),
    };
    let dims = first.shape.iter().zip(&mask);
    let shape = dims.filter_map(|(&d, &m)| if !m { Some(d) } else { keep.then_some(1) }).collect();
    Ok(vec![(dtype, shape)])
}

/// For each axis of x the stride in the result, zero where reduced; and the number of elements in one group.
fn layout(shape: &[usize], mask: &[bool]) -> (Vec<usize>, usize) {
    let kept: Vec<usize> = shape.iter().zip(mask).map(|(&d, &m)| if m { 1 } else { d }).collect();
    let own = strides(&kept);
    let strides = own.iter().zip(mask).map(|(&s, &m)| if m { 0 } else { s }).collect();
    (strides, shape.iter().zip(mask).filter(|(_, m)| **m).map(|(d, _)| d).product())
}

/// `(outer, length, inner)` of one axis.
fn lane(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let x = call.x(0)?;
    match op {
        Op::Reduce { kind, .. } => {
            let mask = reduced(op, &call.sig)?;
            let mut y = reduce(*kind, &x, &mask, call.shape().iter().product());
            y.iter_mut().for_each(|v| *v = to_integer(x.dtype, *v));
            Ok(vec![y])
        }
        Op::ArgReduce { largest, axis, select_last_index, .. } => {
            let (outer, n, inner) = lane(x.shape, index::axis(*axis, x.shape.len())?);
            let mut y = Vec::with_capacity(outer * inner);
            for o in 0..outer {
                for i in 0..inner {
                    let at = |k: usize| x.data[(o * n + k) * inner + i];
                    let mut best = 0;
                    for k in 1..n {
                        let (a, b) = (at(k), at(best));
                        let better = if *largest { a > b } else { a < b };
                        if better || (*select_last_index && a == b) {
                            best = k;
                        }
                    }
                    y.push(R::of(best as f64));
                }
            }
            Ok(vec![y])
        }
        Op::Softmax { axis, log } => {
            let mut y = x.data.to_vec();
            let (outer, n, inner) = match x.shape {
                [] => (1, 1, 1),
                shape => lane(shape, index::axis(*axis, shape.len())?),
            };
            for o in 0..outer {
                for i in 0..inner {
                    let at = |k: usize| (o * n + k) * inner + i;
                    let top = (0..n).fold(R::neg_infinity(), |m, k| max(m, y[at(k)]));
                    let sum = (0..n).fold(R::zero(), |s, k| s + (y[at(k)] - top).exp());
                    for k in 0..n {
                        let v = y[at(k)] - top;
                        y[at(k)] = if *log { v - sum.ln() } else { v.exp() / sum };
                    }
                }
            }
            Ok(vec![y])
        }
        Op::Hardmax { axis } => {
            let (outer, n, inner) = lane(x.shape, index::axis(*axis, x.shape.len())?);
            let mut y = vec![R::zero(); x.data.len()];
            for o in (0..outer).filter(|_| n > 0) {
                for i in 0..inner {
                    let at = |k: usize| (o * n + k) * inner + i;
                    let best = (1..n).fold(0, |b, k| if x.data[at(k)] > x.data[at(b)] { k } else { b });
                    y[at(best)] = R::one();
                }
            }
            Ok(vec![y])
        }
        Op::Cumulate { product, exclusive, reverse } => {
            let mut y = vec![R::zero(); x.data.len()];
            let (outer, n, inner) = running(&x, call.x(1)?)?;
            for o in 0..outer {
                for i in 0..inner {
                    let mut sum = if *product { R::one() } else { R::zero() };
                    for k in 0..n {
                        let at = (o * n + if *reverse { n - 1 - k } else { k }) * inner + i;
                        let next = if *product { sum * x.data[at] } else { sum + x.data[at] };
                        y[at] = to_integer(x.dtype, if *exclusive { sum } else { next });
                        sum = to_integer(x.dtype, next);
                    }
                }
            }
            Ok(vec![y])
        }
        _ => Err(Error::internal(format!("{} is no reduction", op.kind()))),
    }
}

/// The lanes along the axis that `axis` holds.
fn running<R: Real>(x: &View<R>, axis: View<R>) -> Result<(usize, usize, usize)> {
    match axis.data {
        [a] => Ok(lane(x.shape, index::axis(a.f64() as i64, x.shape.len())?)),
        other => Err(Error::model(format!("the axis must be one number, got {}", other.len()))),
    }
}

/// Smallest and largest value of a type.
fn range<R: Real>(dtype: DType) -> (R, R) {
    match dtype.int_range() {
        Some((low, high)) => (R::of(low as f64), R::of(high as f64)),
        None if dtype == DType::Bool => (R::zero(), R::one()),
        None => (R::neg_infinity(), R::infinity()),
    }
}

fn reduce<R: Real>(kind: Reduction, x: &View<R>, mask: &[bool], len: usize) -> Vec<R> {
    use Reduction::*;
    let (low, high) = range(x.dtype);
    let (x, shape) = (x.data, x.shape);
    let (strides, group) = layout(shape, mask);
    let start = match kind {
        Max => low,
        Min => high,
        LogSumExp => R::neg_infinity(),
        Prod => R::one(),
        _ => R::zero(),
    };
    let mut y = vec![start; len];
    each(shape, [&strides], |i, [o]| {
        let v = x[i];
        y[o] = match kind {
            Sum | Mean | LogSum => y[o] + v,
            Max | LogSumExp => max(y[o], v),
            Min => min(y[o], v),
            Prod => y[o] * v,
            L1 => y[o] + v.abs(),
            L2 | SumSquare => y[o] + v * v,
        };
    });
    match kind {
        Mean => y.iter_mut().for_each(|v| *v /= R::of(group as f64)),
        L2 => y.iter_mut().for_each(|v| *v = v.sqrt()),
        LogSum => y.iter_mut().for_each(|v| *v = v.ln()),
        LogSumExp => {
            // Infinite maxima are not subtracted: inf - inf would be NaN.
            let shift = |m: R| if m.is_finite() { m } else { R::zero() };
            let mut sum = vec![R::zero(); len];
            each(shape, [&strides], |i, [o]| sum[o] += (x[i] - shift(y[o])).exp());
            y.iter_mut().zip(sum).for_each(|(v, s)| *v = shift(*v) + s.ln());
        }
        _ => {}
    }
    y
}

/// Equal extremes of a reduced group share the gradient.
pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    let (x, y, g) = (back.call.x(0)?, back.y()?, back.g()?);
    let mut dx = vec![R::zero(); x.data.len()];
    match op {
        Op::Reduce { kind, .. } => {
            let (strides, group) = layout(x.shape, &reduced(op, &back.call.sig)?);
            // What the slope needs of a group besides its result: ties, sum, or (zeros, product of the others).
            let mut extra = vec![R::zero(); y.data.len()];
            let mut rest = vec![R::one(); if *kind == Reduction::Prod { y.data.len() } else { 0 }];
            each(x.shape, [&strides], |i, [o]| match kind {
                Reduction::Max | Reduction::Min if x.data[i] == y.data[o] => extra[o] += R::one(),
                Reduction::LogSum => extra[o] += x.data[i],
                Reduction::Prod if x.data[i] == R::zero() => extra[o] += R::one(),
                Reduction::Prod => rest[o] *= x.data[i],
                _ => {}
            });
            each(x.shape, [&strides], |i, [o]| {
                let (x, y, zero, one) = (x.data[i], y.data[o], R::zero(), R::one());
                let sign = if x == zero { zero } else { x.signum() };
                let slope = match kind {
                    Reduction::Sum => one,
                    Reduction::Mean => one / R::of(group as f64),
                    Reduction::Max | Reduction::Min => {
                        if x == y {
                            one / extra[o]
                        } else {
                            zero
                        }
                    }
                    Reduction::Prod if extra[o] == zero => rest[o] / x,
                    Reduction::Prod => {
                        if x == zero && extra[o] == one {
                            rest[o]
                        } else {
                            zero
                        }
                    }
                    Reduction::L1 => sign,
                    Reduction::L2 => {
                        if y == zero {
                            zero
                        } else {
                            x / y
                        }
                    }
                    Reduction::SumSquare => x + x,
                    Reduction::LogSum => one / extra[o],
                    Reduction::LogSumExp => (x - y).exp(),
                };
                dx[i] = g[o] * slope;
            });
        }
        Op::Softmax { axis, log } => {
            let (outer, n, inner) = match x.shape {
                [] => (1, 1, 1),
                shape => lane(shape, index::axis(*axis, shape.len())?),
            };
            for o in 0..outer {
                for i in 0..inner {
                    let at = |k: usize| (o * n + k) * inner + i;
                    let weight = |k: usize| if *log { R::one() } else { y.data[at(k)] };
                    let sum = (0..n).fold(R::zero(), |s, k| s + g[at(k)] * weight(k));
                    for k in 0..n {
                        let (g, y) = (g[at(k)], y.data[at(k)]);
                        dx[at(k)] = if *log { g - y.exp() * sum } else { y * (g - sum) };
                    }
                }
            }
        }
        Op::Cumulate { product, exclusive, reverse } => {
            let (outer, n, inner) = running(&x, back.call.x(1)?)?;
            for o in 0..outer {
                for i in 0..inner {
                    let at = |k: usize| (o * n + if *reverse { n - 1 - k } else { k }) * inner + i;
                    for k in 0..n {
                        // The factor of x[k] in every later result; the product of the others by direct multiplication.
                        let mut factor = R::one();
                        if *product {
                            (0..k).for_each(|j| factor *= x.data[at(j)]);
                        }
                        for j in k..n {
                            if *product && j > k {
                                factor *= x.data[at(j)];
                            }
                            match exclusive {
                                true if j + 1 < n => dx[at(k)] += g[at(j + 1)] * factor,
                                true => {}
                                false => dx[at(k)] += g[at(j)] * factor,
                            }
                        }
                    }
                }
            }
        }
        // The gradient of Hardmax is 0.
        _ => {}
    }
    back.set(0, dx);
    Ok(())
}
