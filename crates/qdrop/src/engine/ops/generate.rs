//! Operators that make numbers from shapes or from a few scalars.

use super::Real;
use super::call::{Call, Operands, Shaped};
use crate::error::{Error, Result};
use crate::graph::Op;
use crate::tensor::DType;

/// The dimensions a Shape with `start` and `end` reports.
pub(super) fn dims(shape: &[usize], start: i64, end: Option<i64>) -> &[usize] {
    let n = shape.len() as i64;
    let clamp = |v: i64| if v < 0 { v.saturating_add(n) } else { v }.clamp(0, n) as usize;
    let (start, end) = (clamp(start), clamp(end.unwrap_or(n)));
    &shape[start.min(end)..end]
}

/// Number of elements of a Range.
fn range_len(x: &Operands) -> Result<usize> {
    let mut scalars = [0.0; 3];
    for (i, s) in scalars.iter_mut().enumerate() {
        x.need(i)?;
        *s = match x.numbers(i)? {
            Some([v]) => *v,
            other => return Err(Error::model(format!("operand {i} must be one number, got {other:?}"))),
        };
    }
    let [start, limit, delta] = scalars;
    let n = ((limit - start) / delta).ceil().max(0.0);
    if delta == 0.0 || !n.is_finite() || n > (1u64 << 40) as f64 {
        return Err(Error::model(format!("no finite range from {start} to {limit} by {delta}")));
    }
    Ok(n as usize)
}

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let one = match op {
        Op::Shape { start, end } => (DType::I64, vec![dims(x.need(0)?.shape, *start, *end).len()]),
        Op::Size => {
            x.need(0)?;
            (DType::I64, vec![])
        }
        Op::ConstantOfShape { value } => {
            if value.len() != 1 {
                return Err(Error::model(format!("the value must be one element, got shape {:?}", value.shape())));
            }
            let size = |&d: &i64| usize::try_from(d).map_err(|_| Error::model(format!("negative size {d}")));
            (value.dtype(), x.need_ints(0)?.iter().map(size).collect::<Result<_>>()?)
        }
        Op::Range => {
            x.same_dtype([0, 1, 2])?;
            (x.need(0)?.dtype, vec![range_len(x)?])
        }
        _ => return Err(Error::internal(format!("{} generates nothing", op.kind()))),
    };
    Ok(vec![one])
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let n: usize = call.shape().iter().product();
    Ok(vec![match op {
        Op::Shape { start, end } => dims(call.x(0)?.shape, *start, *end).iter().map(|&d| R::of(d as f64)).collect(),
        Op::Size => vec![R::of(call.x(0)?.data.len() as f64)],
        Op::ConstantOfShape { value } => vec![value.to_f64()?.first().map_or(R::zero(), |&v| R::of(v)); n],
        Op::Range => {
            let (start, delta) = (call.x(0)?.data[0], call.x(2)?.data[0]);
            (0..n).map(|i| start + R::of(i as f64) * delta).collect()
        }
        _ => return Err(Error::internal(format!("{} generates nothing", op.kind()))),
    }])
}
