//! Normalisations of elements that do not lie side by side: by a norm along an axis, by mean and deviation over any axes.

use super::Real;
use super::call::{Back, Call};
use super::index::{self, each, strides};
use crate::error::{Error, Result};
use crate::graph::Op;

/// Added to a standard deviation.
const EPSILON: f64 = 1e-9;

/// For each axis of x the stride in a tensor where the normalised axes have size 1, that tensor's size, and the number
/// of elements normalised together.
fn groups(op: &Op, shape: &[usize]) -> Result<(Vec<usize>, usize, usize)> {
    let mut mask = vec![false; shape.len()];
    match op {
        Op::LpNorm { axis, .. } => mask[index::axis(*axis, shape.len())?] = true,
        Op::MeanVarianceNorm { axes } => index::axes(axes, shape.len())?.into_iter().for_each(|a| mask[a] = true),
        _ => return Err(Error::internal(format!("{} does not normalise lanes", op.kind()))),
    }
    let kept: Vec<usize> = shape.iter().zip(&mask).map(|(&d, &m)| if m { 1 } else { d }).collect();
    let own = strides(&kept).iter().zip(&mask).map(|(&s, &m)| if m { 0 } else { s }).collect();
    let count = shape.iter().zip(&mask).filter(|(_, m)| **m).map(|(d, _)| d).product();
    Ok((own, kept.iter().product(), count))
}

/// Mean (0 for a norm) and divisor of every group.
fn statistics<R: Real>(op: &Op, x: &[R], shape: &[usize]) -> Result<(Vec<usize>, Vec<R>, Vec<R>)> {
    let (own, len, count) = groups(op, shape)?;
    let (mut means, mut sums) = (vec![R::zero(); len], vec![R::zero(); len]);
    let count = R::of(count as f64);
    match op {
        Op::LpNorm { p, .. } => {
            each(shape, [&own], |i, [o]| sums[o] += if *p == 1 { x[i].abs() } else { x[i] * x[i] });
            if *p == 2 {
                sums.iter_mut().for_each(|v| *v = v.sqrt());
            }
        }
        _ => {
            each(shape, [&own], |i, [o]| means[o] += x[i] / count);
            each(shape, [&own], |i, [o]| sums[o] += (x[i] - means[o]) * (x[i] - means[o]) / count);
            sums.iter_mut().for_each(|v| *v = v.sqrt() + R::of(EPSILON));
        }
    }
    Ok((own, means, sums))
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let x = call.x(0)?;
    let (own, means, divisors) = statistics(op, x.data, x.shape)?;
    let mut y = vec![R::zero(); x.data.len()];
    each(x.shape, [&own], |i, [o]| {
        if divisors[o] != R::zero() {
            y[i] = (x.data[i] - means[o]) / divisors[o];
        }
    });
    Ok(vec![y])
}

pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    let (x, y, g) = (back.call.x(0)?, back.y()?, back.g()?);
    let zero = R::zero();
    let (own, means, divisors) = statistics(op, x.data, x.shape)?;
    let count = R::of(groups(op, x.shape)?.2 as f64);
    let (mut along, mut mean) = (vec![zero; divisors.len()], vec![zero; divisors.len()]);
    each(x.shape, [&own], |i, [o]| {
        along[o] += g[i] * y.data[i];
        mean[o] += g[i] / count;
    });
    let mut dx = vec![zero; x.data.len()];
    each(x.shape, [&own], |i, [o]| {
        if divisors[o] == zero {
            return;
        }
        let sign = if x.data[i] == zero { zero } else { x.data[i].signum() };
        dx[i] = match op {
            Op::LpNorm { p: 1, .. } => (g[i] - sign * along[o]) / divisors[o],
            Op::LpNorm { .. } => (g[i] - y.data[i] * along[o]) / divisors[o],
            _ => {
                let deviation = divisors[o] - R::of(EPSILON);
                let slope = if deviation == zero { zero } else { (x.data[i] - means[o]) / (deviation * count) };
                (g[i] - mean[o] - slope * along[o]) / divisors[o]
            }
        };
    });
    back.set(0, dx);
    Ok(())
}
