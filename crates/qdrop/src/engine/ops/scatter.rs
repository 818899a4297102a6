//! Elements at positions that indices name: GatherND, ScatterElements, ScatterND.

use super::call::{Back, Call, Operands, Shaped};
use super::movement::{element_sources, wrap_index};
use super::unary::{max, min};
use super::{Real, View};
use crate::error::{Error, Result};
use crate::graph::{Op, Scatter};

/// Number of leading axes that x and indices share, and of axes that an index names behind them.
fn named(op: &Op, shape: &[usize], indices: &[usize]) -> Result<(usize, usize)> {
    let batch = if let Op::GatherNd { batch_dims } = op { *batch_dims } else { 0 };
    let refuse =
        || Error::model(format!("indices of shape {indices:?} do not fit shape {shape:?} with {batch} batch axes"));
    let batch = usize::try_from(batch).map_err(|_| refuse())?;
    let k = *indices.last().ok_or_else(refuse)?;
    let fits = batch < indices.len() && batch < shape.len().max(1) && k <= shape.len().saturating_sub(batch);
    if !fits || indices[..batch] != shape[..batch] {
        return Err(refuse());
    }
    Ok((batch, k))
}

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let (first, indices) = (x.need(0)?, x.need(1)?);
    let shape = first.shape;
    if !indices.dtype.is_int() {
        return Err(Error::model(format!("indices must be integers, got {:?}", indices.dtype)));
    }
    let slices = || {
        let (batch, k) = named(op, shape, indices.shape)?;
        Ok::<_, Error>([&indices.shape[..indices.shape.len() - 1], &shape[batch + k..]].concat())
    };
    let out = match op {
        Op::GatherNd { .. } => slices()?,
        Op::ScatterNd { .. } => {
            x.same_dtype([0, 2])?;
            x.need(2)?;
            x.expect_shape(2, &slices()?)?;
            shape.to_vec()
        }
        Op::ScatterElements { axis, .. } => {
            let axis = super::index::axis(*axis, shape.len())?;
            x.same_dtype([0, 2])?;
            x.need(2)?;
            x.expect_shape(2, indices.shape)?;
            let fits = indices.shape.len() == shape.len();
            if !fits || (0..shape.len()).any(|k| k != axis && indices.shape[k] > shape[k]) {
                return Err(Error::model(format!("indices {:?} do not fit data {shape:?}", indices.shape)));
            }
            shape.to_vec()
        }
        _ => return Err(Error::internal(format!("{} names no positions", op.kind()))),
    };
    Ok(vec![(first.dtype, out)])
}

/// The position in x of every gathered or updating element.
fn positions<R: Real>(op: &Op, x: &View<R>, indices: &View<R>) -> Result<Vec<usize>> {
    if let Op::ScatterElements { axis, .. } = op {
        return element_sources(*axis, x, indices);
    }
    let (batch, k) = named(op, x.shape, indices.shape)?;
    let own = super::index::strides(x.shape);
    let slice: usize = x.shape[batch + k..].iter().product();
    let batches: usize = x.shape[..batch].iter().product();
    let rows: usize = indices.shape[..indices.shape.len() - 1].iter().product();
    let (whole, part) = (x.data.len() / batches.max(1), rows / batches.max(1));
    let mut out = Vec::with_capacity(rows.saturating_mul(slice));
    for row in 0..rows {
        let mut at = row / part.max(1) * whole;
        for (j, &i) in indices.data[row * k..][..k].iter().enumerate() {
            at += wrap_index(i, x.shape[batch + j])? * own[batch + j];
        }
        out.extend(at..at + slice);
    }
    Ok(out)
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let x = call.x(0)?;
    let positions = positions(op, &x, &call.x(1)?)?;
    let (Op::ScatterElements { reduction, .. } | Op::ScatterNd { reduction }) = op else {
        return Ok(vec![positions.into_iter().map(|p| x.data[p]).collect()]);
    };
    let mut y = x.data.to_vec();
    for (p, &u) in positions.into_iter().zip(call.x(2)?.data) {
        let joined = match reduction {
            Scatter::Replace => u,
            Scatter::Add => y[p] + u,
            Scatter::Mul => y[p] * u,
            Scatter::Max => max(y[p], u),
            Scatter::Min => min(y[p], u),
        };
        y[p] = super::elementwise::to_integer(x.dtype, joined);
    }
    Ok(vec![y])
}

/// Of several replacements of one element the last counts; equal extremes share their gradient.
pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    let (x, g) = (back.call.x(0)?, back.g()?);
    let (zero, one) = (R::zero(), R::one());
    let positions = positions(op, &x, &back.call.x(1)?)?;
    let (Op::ScatterElements { reduction, .. } | Op::ScatterNd { reduction }) = op else {
        let mut dx = vec![zero; x.data.len()];
        positions.into_iter().zip(g).for_each(|(p, &g)| dx[p] += g);
        back.set(0, dx);
        return Ok(());
    };
    let (u, y) = (back.call.x(2)?, back.y()?);
    let mut dx = g.to_vec();
    let mut du: Vec<R> = positions.iter().map(|&p| g[p]).collect();
    match reduction {
        Scatter::Add => {}
        Scatter::Replace => {
            for (d, &p) in du.iter_mut().zip(&positions).rev() {
                // What was set to zero here belongs to a later update.
                *d = std::mem::replace(&mut dx[p], zero);
            }
        }
        Scatter::Mul => {
            // Product of the factors that are not 0, and the number of the others.
            let mut rest: Vec<R> = x.data.iter().map(|&v| if v == zero { one } else { v }).collect();
            let mut zeros: Vec<usize> = x.data.iter().map(|&v| usize::from(v == zero)).collect();
            for (&p, &u) in positions.iter().zip(u.data) {
                if u == zero {
                    zeros[p] += 1;
                } else {
                    rest[p] *= u;
                }
            }
            let others = |p: usize, v: R| match zeros[p] {
                0 => rest[p] / v,
                1 if v == zero => rest[p],
                _ => zero,
            };
            dx.iter_mut().enumerate().for_each(|(p, d)| *d *= others(p, x.data[p]));
            du.iter_mut().enumerate().for_each(|(i, d)| *d *= others(positions[i], u.data[i]));
        }
        Scatter::Max | Scatter::Min => {
            let mut ties: Vec<R> = x.data.iter().zip(y.data).map(|(a, b)| if a == b { one } else { zero }).collect();
            for (&p, &u) in positions.iter().zip(u.data) {
                if u == y.data[p] {
                    ties[p] += one;
                }
            }
            let share = |p: usize, v: R| if v == y.data[p] { one / ties[p] } else { zero };
            dx.iter_mut().enumerate().for_each(|(p, d)| *d *= share(p, x.data[p]));
            du.iter_mut().enumerate().for_each(|(i, d)| *d *= share(positions[i], u.data[i]));
        }
    }
    back.set(0, dx);
    back.set(2, du);
    Ok(())
}
