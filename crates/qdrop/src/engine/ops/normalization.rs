//! Batch, instance, layer and local response normalisation.

use super::call::{Back, Call, Operands, Shaped};
use super::index::{self, broadcast_strides, check_unidirectional, each};
use super::{Real, View};
use crate::error::{Error, Result};
use crate::graph::Op;
use crate::tensor::DType;

/// Largest channel window of a local response normalisation.
const LRN_LIMIT: i64 = 1 << 24;

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let first = x.need(0)?;
    let minimum = match op {
        Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::LpNorm { .. } | Op::MeanVarianceNorm { .. } => 1,
        Op::InstanceNorm { .. } => 3,
        _ => 2,
    };
    if first.shape.len() < minimum {
        return Err(Error::model(format!("input must have rank {minimum} or more, got shape {:?}", first.shape)));
    }
    match op {
        Op::BatchNorm { .. } => (1..5).try_for_each(|i| x.need(i).and(x.expect_shape(i, &first.shape[1..2])))?,
        Op::GroupNorm { groups, .. } => {
            let channels = first.shape[1];
            if *groups < 1 || !(channels as i64).unsigned_abs().is_multiple_of(groups.unsigned_abs()) {
                return Err(Error::model(format!("{channels} channels cannot be divided into {groups} groups")));
            }
            (1..3).try_for_each(|i| x.need(i).and(x.expect_shape(i, &first.shape[1..2])))?
        }
        Op::LpNorm { axis, .. } => {
            index::axis(*axis, first.shape.len())?;
        }
        Op::MeanVarianceNorm { axes } => {
            index::axes(axes, first.shape.len())?;
        }
        Op::InstanceNorm { .. } => (1..3).try_for_each(|i| x.need(i).and(x.expect_shape(i, &first.shape[1..2])))?,
        Op::LayerNorm { axis, .. } | Op::RmsNorm { axis, .. } => {
            index::axis(*axis, first.shape.len())?;
            check_unidirectional(x.need(1)?.shape, first.shape)?;
            if let Some(bias) = x.opt(2) {
                check_unidirectional(bias.shape, first.shape)?;
            }
        }
        Op::Lrn { size, .. } if *size < 1 || *size > LRN_LIMIT => {
            return Err(Error::model(format!("size must lie in 1..={LRN_LIMIT}, got {size}")));
        }
        _ => {}
    }
    let mut out = vec![(first.dtype, first.shape.to_vec())];
    if let Op::LayerNorm { axis, .. } = op {
        // Mean and 1 / standard deviation of every row.
        let axis = index::axis(*axis, first.shape.len())?;
        let rows: Vec<usize> = (0..first.shape.len()).map(|k| if k < axis { first.shape[k] } else { 1 }).collect();
        out.extend([(DType::F32, rows.clone()), (DType::F32, rows)]);
    }
    Ok(out)
}

/// Strides that read a per-channel vector along x.
fn channel_strides(rank: usize) -> Vec<usize> {
    (0..rank).map(|k| usize::from(k == 1)).collect()
}

/// Normalised runs of memory.
struct RowsOf<R> {
    /// Elements of a run.
    n: usize,
    epsilon: R,
    /// Whether the mean is taken off first.
    centred: bool,
    /// Strides of scale and bias.
    scale: Vec<usize>,
    bias: Vec<usize>,
}

/// The runs of instance, group, layer and root-mean-square normalisation, which differ only in these.
fn rows<R: Real>(op: &Op, call: &Call<R>) -> Result<RowsOf<R>> {
    let x = call.x(0)?;
    Ok(match op {
        Op::InstanceNorm { epsilon } => {
            let scale = channel_strides(x.shape.len());
            let n = x.shape[2..].iter().product();
            RowsOf { n, epsilon: R::of(*epsilon as f64), centred: true, bias: scale.clone(), scale }
        }
        Op::GroupNorm { groups, epsilon } => {
            let scale = channel_strides(x.shape.len());
            let n = x.shape[1..].iter().product::<usize>() / *groups as usize;
            RowsOf { n, epsilon: R::of(*epsilon as f64), centred: true, bias: scale.clone(), scale }
        }
        Op::LayerNorm { axis, epsilon } | Op::RmsNorm { axis, epsilon } => {
            let scale = broadcast_strides(call.x(1)?.shape, x.shape);
            let bias = call.opt(2).map_or(vec![0; x.shape.len()], |b| broadcast_strides(b.shape, x.shape));
            let n = x.shape[index::axis(*axis, x.shape.len())?..].iter().product();
            RowsOf { n, epsilon: R::of(*epsilon as f64), centred: matches!(op, Op::LayerNorm { .. }), scale, bias }
        }
        _ => return Err(Error::internal(format!("{} does not normalise rows", op.kind()))),
    })
}

/// (x - mean) / sqrt(var + epsilon) of every row, the mean (0 where rows are not centred) and 1 / sqrt(var + epsilon)
/// per row.
fn standardise<R: Real>(x: &[R], rows: &RowsOf<R>) -> [Vec<R>; 3] {
    let RowsOf { n, epsilon, .. } = *rows;
    let mut out = x.to_vec();
    let (mut means, mut inverse) = (Vec::new(), Vec::new());
    if n == 0 {
        return [out, means, inverse];
    }
    let count = R::of(n as f64);
    for row in out.chunks_exact_mut(n) {
        let mean = match rows.centred {
            true => row.iter().fold(R::zero(), |s, &v| s + v) / count,
            false => R::zero(),
        };
        row.iter_mut().for_each(|v| *v -= mean);
        let var = row.iter().fold(R::zero(), |s, &v| s + v * v) / count;
        let inv = (var + epsilon).sqrt().recip();
        row.iter_mut().for_each(|v| *v *= inv);
        means.push(mean);
        inverse.push(inv);
    }
    [out, means, inverse]
}

/// bias + alpha/size · (sum of squares over the channel window) for every element.
fn lrn_base<R: Real>(x: &View<R>, alpha: f32, bias: f32, size: i64) -> Vec<R> {
    let mut base = vec![R::of(bias as f64); x.data.len()];
    let factor = R::of(alpha as f64 / size as f64);
    lrn_windows(x.shape, size, |o, i| base[o] += factor * x.data[i] * x.data[i]);
    base
}

/// Calls `f(o, i)` for every element o and element i in its channel window.
fn lrn_windows(shape: &[usize], size: i64, mut f: impl FnMut(usize, usize)) {
    let (channels, plane) = (shape[1], shape[2..].iter().product::<usize>());
    let (before, after) = ((size as usize - 1) / 2, (size as usize - 1).div_ceil(2));
    for n in 0..shape[0] {
        for c in 0..channels {
            for k in c.saturating_sub(before)..(c + after + 1).min(channels) {
                for p in 0..plane {
                    f((n * channels + c) * plane + p, (n * channels + k) * plane + p);
                }
            }
        }
    }
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let x = call.x(0)?;
    match op {
        Op::BatchNorm { epsilon } => {
            let [scale, bias, mean, var] = [call.x(1)?, call.x(2)?, call.x(3)?, call.x(4)?];
            let mut y = x.data.to_vec();
            let epsilon = R::of(*epsilon as f64);
            each(x.shape, [&channel_strides(x.shape.len())], |i, [c]| {
                let inv = (var.data[c] + epsilon).sqrt().recip();
                y[i] = (x.data[i] - mean.data[c]) * inv * scale.data[c] + bias.data[c];
            });
            Ok(vec![y])
        }
        Op::LpNorm { .. } | Op::MeanVarianceNorm { .. } => super::lanes::forward(op, call),
        Op::InstanceNorm { .. } | Op::GroupNorm { .. } | Op::LayerNorm { .. } | Op::RmsNorm { .. } => {
            let rows = rows(op, call)?;
            let [mut y, means, inverse] = standardise(x.data, &rows);
            let (scale, bias) = (call.x(1)?, call.opt(2));
            each(x.shape, [&rows.scale, &rows.bias], |i, [s, b]| {
                y[i] = y[i] * scale.data[s] + bias.map_or(R::zero(), |v| v.data[b]);
            });
            Ok(vec![y, means, inverse])
        }
        Op::Lrn { alpha, beta, bias, size } => {
            let base = lrn_base(&x, *alpha, *bias, *size);
            let beta = R::of(*beta as f64);
            Ok(vec![x.data.iter().zip(base).map(|(&x, b)| x / b.powf(beta)).collect()])
        }
        _ => Err(Error::internal(format!("{} is no normalisation", op.kind()))),
    }
}

pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    if back.gradients.iter().skip(1).any(|g| g.is_some()) {
        return Err(Error::unsupported(format!("means and deviations of {} have no gradient", op.kind())));
    }
    if matches!(op, Op::LpNorm { .. } | Op::MeanVarianceNorm { .. }) {
        return super::lanes::backward(op, back);
    }
    let (x, g) = (back.call.x(0)?, back.g()?);
    let zero = R::zero();
    let mut dx = vec![zero; x.data.len()];
    match op {
        Op::BatchNorm { epsilon } => {
            let [scale, mean, var] = [back.call.x(1)?, back.call.x(3)?, back.call.x(4)?];
            let epsilon = R::of(*epsilon as f64);
            let mut d = [1, 2, 3, 4].map(|_| vec![zero; scale.data.len()]);
            each(x.shape, [&channel_strides(x.shape.len())], |i, [c]| {
                let inv = (var.data[c] + epsilon).sqrt().recip();
                let centred = x.data[i] - mean.data[c];
                dx[i] = g[i] * scale.data[c] * inv;
                d[0][c] += g[i] * centred * inv;
                d[1][c] += g[i];
                d[2][c] -= g[i] * scale.data[c] * inv;
                d[3][c] -= g[i] * scale.data[c] * centred * inv * inv * inv * R::of(0.5);
            });
            d.into_iter().enumerate().for_each(|(k, d)| back.set(k + 1, d));
        }
        Op::InstanceNorm { .. } | Op::GroupNorm { .. } | Op::LayerNorm { .. } | Op::RmsNorm { .. } => {
            let rows = rows(op, &back.call)?;
            let [z, _, inverse] = standardise(x.data, &rows);
            let scale = back.call.x(1)?;
            let mut ds = vec![zero; scale.data.len()];
            let mut db = vec![zero; back.call.opt(2).map_or(1, |b| b.data.len())];
            // dx holds the gradient of z until the rows are finished below.
            each(x.shape, [&rows.scale, &rows.bias], |i, [s, b]| {
                dx[i] = g[i] * scale.data[s];
                ds[s] += g[i] * z[i];
                db[b] += g[i];
            });
            if rows.n > 0 {
                let n = rows.n;
                let count = R::of(n as f64);
                for ((d, z), inv) in dx.chunks_exact_mut(n).zip(z.chunks_exact(n)).zip(inverse) {
                    let mean = match rows.centred {
                        true => d.iter().fold(zero, |s, &v| s + v) / count,
                        false => zero,
                    };
                    let along = d.iter().zip(z).fold(zero, |s, (&d, &z)| s + d * z) / count;
                    d.iter_mut().zip(z).for_each(|(d, &z)| *d = (*d - mean - z * along) * inv);
                }
            }
            back.set(1, ds);
            back.set(2, db);
        }
        Op::Lrn { alpha, beta, bias, size } => {
            let base = lrn_base(&x, *alpha, *bias, *size);
            let (beta, factor) = (R::of(*beta as f64), R::of(2.0 * *alpha as f64 / *size as f64));
            let through: Vec<R> =
                (0..g.len()).map(|o| g[o] * x.data[o] * beta * factor * base[o].powf(-beta - R::one())).collect();
            dx.iter_mut().enumerate().for_each(|(i, d)| *d = g[i] * base[i].powf(-beta));
            lrn_windows(x.shape, *size, |o, i| dx[i] -= through[o] * x.data[i]);
        }
        _ => return Err(Error::internal(format!("{} is no normalisation", op.kind()))),
    }
    back.set(0, dx);
    Ok(())
}
