//! QuantizeLinear and DequantizeLinear: per tensor, per axis, and in blocks along an axis; QONNX's Quant.

use super::Real;
use super::call::{Call, Operands, Shaped};
use super::index::{self, Gather, broadcast_strides, check_unidirectional, strides};
use super::unary::round_even;
use crate::error::{Error, Result};
use crate::graph::{Op, Rounding};
use crate::tensor::DType;

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    if let Op::Quant { .. } = op {
        return quant_infer(x);
    }
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
    if let Op::Quant { signed, narrow, rounding } = *op {
        return quant(signed, narrow, rounding, call);
    }
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

fn quant_infer(x: &Operands) -> Result<Vec<Shaped>> {
    let first = x.need(0)?;
    for i in 0..4 {
        let operand = x.need(i)?;
        check_unidirectional(operand.shape, first.shape)?;
        if !(operand.dtype.is_float() || i == 3) {
            return Err(Error::unsupported(format!("operand {i} has type {:?}, expected float", operand.dtype)));
        }
    }
    Ok(vec![(first.dtype, first.shape.to_vec())])
}

/// As in the definition of QONNX: clipped before it is rounded.
fn quant<R: Real>(signed: bool, narrow: bool, rounding: Rounding, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let (x, scale, zero, bits) = (call.x(0)?, call.x(1)?, call.x(2)?, call.x(3)?);
    let whole = |b: &&R| **b >= R::of(2.0) && **b <= R::of(32.0) && b.fract() == R::zero();
    if let Some(bad) = bits.data.iter().find(|b| !whole(b)) {
        let got = bad.to_f64().unwrap_or(f64::NAN);
        return Err(Error::unsupported(format!("expected a whole number of bits from 2 to 32, got {got}")));
    }
    let one = R::one();
    let ends = |bits: &R| {
        let half = R::of(2.0).powf(*bits - one);
        let cut = if narrow { one } else { R::zero() };
        if signed { (cut - half, half - one) } else { (R::zero(), half + half - one - cut) }
    };
    let limits: Vec<(R, R)> = bits.data.iter().map(ends).collect();
    let half = R::of(0.5);
    let round = |v: R| match rounding {
        Rounding::HalfEven => round_even(v),
        Rounding::HalfUp => v.signum() * (v.abs() + half).floor(),
        Rounding::HalfDown => v.signum() * (v.abs() - half).ceil(),
        Rounding::Ceil => v.ceil(),
        Rounding::Floor => v.floor(),
        Rounding::Up => v.signum() * v.abs().ceil(),
        Rounding::Down => v.trunc(),
    };
    let mut y = x.data.to_vec();
    let [s, z, b] = [scale, zero, bits].map(|operand| broadcast_strides(operand.shape, x.shape));
    index::each(x.shape, [&s, &z, &b], |i, [s, z, b]| {
        let (scale, zero, (low, high)) = (scale.data[s], zero.data[z], limits[b]);
        let v = x.data[i] / scale + zero;
        let v = if v > high { high } else { v };
        let v = if v < low { low } else { v };
        y[i] = (round(v) - zero) * scale;
    });
    Ok(vec![y])
}
