//! QuantizeLinear and DequantizeLinear: per tensor, per axis, and in blocks along an axis.

use super::Real;
use super::call::{Call, Operands, Shaped};
use super::index::{self, Gather, strides};
use super::unary::round_even;
use crate::error::{Error, Result};
use crate::graph::Op;
use crate::tensor::DType;

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let (first, scale) = (x.need(0)?, x.need(1)?);
    let zero = x.opt(2);
    let single = |shape: &[usize]| shape.len() <= 1 && shape.iter().all(|&d| d == 1);
    if let Some(z) = zero.filter(|z| z.shape != scale.shape && !(single(z.shape) && single(scale.shape))) {
        return Err(Error::model(format!("zero point has shape {:?}, scale {:?}", z.shape, scale.shape)));
    }
    let (integer, result) = match op {
        Op::QuantizeLinear { to, .. } => {
            let dtype = zero.map_or(to.unwrap_or(DType::U8), |z| z.dtype);
            if to.is_some_and(|to| to != dtype) {
                return Err(Error::model(format!("zero point is {dtype:?}, the result should be {to:?}")));
            }
            (dtype, dtype)
        }
        Op::DequantizeLinear { to, .. } => {
            if let Some(z) = zero.filter(|z| z.dtype != first.dtype) {
                return Err(Error::model(format!("zero point is {:?}, the input {:?}", z.dtype, first.dtype)));
            }
            (first.dtype, to.unwrap_or(scale.dtype))
        }
        _ => return Err(Error::internal(format!("{} does not quantize", op.kind()))),
    };
    if !integer.is_int() {
        return Err(Error::unsupported(format!("cannot quantize to elements of type {integer:?}")));
    }
    check(op, first.shape, scale.shape)?;
    Ok(vec![(result, first.shape.to_vec())])
}

/// Elements along the axis that share one entry of the scale, with the axis; `None` for one entry for the whole.
fn check(op: &Op, shape: &[usize], scale: &[usize]) -> Result<Option<(usize, usize)>> {
    let (Op::QuantizeLinear { axis, block, .. } | Op::DequantizeLinear { axis, block, .. }) = *op else {
        return Err(Error::internal(format!("{} does not quantize", op.kind())));
    };
    let refuse = || Error::model(format!("scale of shape {scale:?} does not fit input {shape:?} along axis {axis}"));
    if block == 0 && scale.iter().all(|&d| d == 1) && scale.len() <= 1 {
        return Ok(None);
    }
    let at = index::axis(axis, shape.len())?;
    if block == 0 && scale.len() == 1 && scale[0] == shape[at] {
        return Ok(Some((at, 1)));
    }
    let fits = scale.len() == shape.len()
        && (0..shape.len()).all(|k| k == at || scale[k] == shape[k])
        && scale[at] > 0
        && (block > 0 || shape[at].is_multiple_of(scale[at]));
    if let Some(block) = usize::try_from(block).ok().filter(|&b| b > 0) {
        // The last block may be smaller.
        return if fits && shape[at].div_ceil(block) == scale[at] { Ok(Some((at, block))) } else { Err(refuse()) };
    }
    if fits { Ok(Some((at, (shape[at] / scale[at]).max(1)))) } else { Err(refuse()) }
}

/// Where each element of x finds its scale.
fn layout(op: &Op, shape: &[usize], scale: &[usize]) -> Result<Gather> {
    let Some((at, block)) = check(op, shape, scale)? else {
        return Ok(Gather::strided(shape, &vec![0; shape.len()]));
    };
    let own = if scale.len() == 1 { (0..shape.len()).map(|k| usize::from(k == at)).collect() } else { strides(scale) };
    let mut g = Gather::strided(shape, &own);
    g.tables[at] = (0..shape[at]).map(|i| i / block * own[at]).collect();
    Ok(g)
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let (x, scale, zero) = (call.x(0)?, call.x(1)?, call.opt(2));
    let mut y = x.data.to_vec();
    let z = |k: usize| zero.map_or(R::zero(), |z| z.data[k]);
    match op {
        Op::QuantizeLinear { .. } => {
            let (low, high) = call.out[0].0.int_range().unwrap_or((0, 0));
            let (low, high) = (R::of(low as f64), R::of(high as f64));
            layout(op, x.shape, scale.shape)?.each(|i, k| {
                let k = k.unwrap_or(0);
                let v = round_even(x.data[i] / scale.data[k]) + z(k);
                y[i] = if v.is_nan() { z(k) } else { v.max(low).min(high) };
            });
        }
        Op::DequantizeLinear { .. } => layout(op, x.shape, scale.shape)?.each(|i, k| {
            let k = k.unwrap_or(0);
            y[i] = (x.data[i] - z(k)) * scale.data[k];
        }),
        _ => return Err(Error::internal(format!("{} does not quantize", op.kind()))),
    }
    Ok(vec![y])
}
