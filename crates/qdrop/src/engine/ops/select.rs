//! Elements chosen or placed by their value or position: Compress, NonZero, NonMaxSuppression, OneHot, TopK, Trilu, EyeLike,
//! ReverseSequence.

use super::call::{Back, Call, Operands, Shaped};
use super::index;
use super::nms;
use super::{Real, View};
use crate::error::{Error, Result};
use crate::graph::Op;
use crate::tensor::DType;

/// The one number that operand `i` holds.
fn single(x: &Operands, i: usize) -> Result<f64> {
    x.need(i)?;
    match x.numbers(i)? {
        Some([v]) => Ok(*v),
        other => Err(Error::model(format!("operand {i} must be one number, got {}", other.map_or(0, <[f64]>::len)))),
    }
}

/// Where the condition of a Compress holds.
fn chosen(axis: Option<i64>, x: &Operands) -> Result<Vec<usize>> {
    let shape = x.need(0)?.shape;
    let limit = match axis {
        Some(a) => shape[index::axis(a, shape.len())?],
        None => shape.iter().product(),
    };
    x.need(1)?;
    let condition = x.numbers(1)?.unwrap_or_default();
    if condition.len() > limit {
        return Err(Error::model(format!("a condition of {} elements for {limit}", condition.len())));
    }
    Ok((0..condition.len()).filter(|&i| condition[i] != 0.0).collect())
}

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let first = x.need(0)?;
    let (dtype, shape) = (first.dtype, first.shape);
    let out = match op {
        Op::Compress { axis } => {
            let count = chosen(*axis, x)?.len();
            match axis {
                Some(a) => {
                    let mut out = shape.to_vec();
                    out[index::axis(*a, shape.len())?] = count;
                    out
                }
                None => vec![count],
            }
        }
        Op::NonZero => {
            let count = x.numbers(0)?.unwrap_or_default().iter().filter(|&&v| v != 0.0).count();
            return Ok(vec![(DType::I64, vec![shape.len(), count])]);
        }
        Op::NonMaxSuppression { centres } => {
            return Ok(vec![(DType::I64, vec![nms::selected(*centres, x, &|| Ok(()))?.len(), 3])]);
        }
        Op::OneHot { axis } => {
            let (depth, values) = (single(x, 1)?, x.need(2)?);
            if !(depth >= 0.0 && depth < (1u64 << 40) as f64) || values.shape != [2] {
                return Err(Error::model(format!("depth {depth} with values of shape {:?}", values.shape)));
            }
            let mut out = shape.to_vec();
            out.insert(index::axis(*axis, shape.len() + 1)?, depth as usize);
            return Ok(vec![(values.dtype, out)]);
        }
        Op::TopK { axis, .. } => {
            let (axis, k) = (index::axis(*axis, shape.len())?, single(x, 1)?);
            if !(k >= 0.0 && k <= shape[axis] as f64) {
                return Err(Error::model(format!("the first {k} of {} elements", shape[axis])));
            }
            let mut out = shape.to_vec();
            out[axis] = k as usize;
            return Ok(vec![(dtype, out.clone()), (DType::I64, out)]);
        }
        Op::Trilu { .. } if shape.len() < 2 => {
            return Err(Error::model(format!("a triangle needs rank 2 or more, got shape {shape:?}")));
        }
        Op::EyeLike { to, .. } => {
            if shape.len() != 2 {
                return Err(Error::model(format!("a diagonal needs rank 2, got shape {shape:?}")));
            }
            return Ok(vec![(to.unwrap_or(dtype), shape.to_vec())]);
        }
        Op::ReverseSequence { batch_axis, time_axis } => {
            if shape.len() < 2 || !matches!((batch_axis, time_axis), (0, 1) | (1, 0)) {
                return Err(Error::model(format!(
                    "batch axis {batch_axis} and time axis {time_axis} of shape {shape:?} must be 0 and 1"
                )));
            }
            x.need(1)?;
            x.expect_shape(1, &shape[*batch_axis as usize..][..1])?;
            shape.to_vec()
        }
        _ => shape.to_vec(),
    };
    Ok(vec![(dtype, out)])
}

/// Whether `a` comes before `b`; NaN counts as the largest number.
fn before<R: Real>(a: R, b: R, largest: bool) -> std::cmp::Ordering {
    let order = match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Greater,
        (false, true) => std::cmp::Ordering::Less,
        _ => a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal),
    };
    if largest { order.reverse() } else { order }
}

/// The element of x that every element of the result is, `None` for 0; with positions along the axis for a TopK.
fn sources<R: Real>(op: &Op, call: &Call<R>) -> Result<(Vec<Option<usize>>, Vec<usize>)> {
    let x = call.x(0)?;
    let lanes = |axis: usize| {
        let (outer, inner) = (&x.shape[..axis], &x.shape[axis + 1..]);
        (outer.iter().product::<usize>(), inner.iter().product::<usize>())
    };
    let mut out = Vec::with_capacity(call.shape().iter().product());
    let mut places = Vec::new();
    match op {
        Op::Compress { axis: None } => out.extend(chosen(None, &call.sig)?.into_iter().map(Some)),
        Op::Compress { axis: Some(a) } => {
            let axis = index::axis(*a, x.shape.len())?;
            let (chosen, (outer, inner)) = (chosen(Some(*a), &call.sig)?, lanes(axis));
            for o in 0..outer {
                for &k in &chosen {
                    let first = (o * x.shape[axis] + k) * inner;
                    out.extend((first..first + inner).map(Some));
                }
            }
        }
        Op::TopK { axis, largest, .. } => {
            let axis = index::axis(*axis, x.shape.len())?;
            let (n, k, (outer, inner)) = (x.shape[axis], call.shape()[axis], lanes(axis));
            out.resize(outer * k * inner, None);
            places.resize(out.len(), 0);
            for lane in 0..if k == 0 { 0 } else { outer * inner } {
                let (o, i) = (lane / inner, lane % inner);
                let at = |j: usize| (o * n + j) * inner + i;
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|&a, &b| before(x.data[at(a)], x.data[at(b)], *largest));
                for (r, &j) in order[..k].iter().enumerate() {
                    out[(o * k + r) * inner + i] = Some(at(j));
                    places[(o * k + r) * inner + i] = j;
                }
            }
        }
        Op::Trilu { upper } => {
            let diagonal = call.opt(1).and_then(|k| k.data.first().copied()).map_or(0, |k| k.f64() as i64);
            let (rows, columns) = (x.shape[x.shape.len() - 2].max(1), x.shape[x.shape.len() - 1].max(1));
            out.extend((0..x.data.len()).map(|i| {
                let over = (i % columns) as i64 - (i / columns % rows) as i64;
                let inside = if *upper { over >= diagonal } else { over <= diagonal };
                inside.then_some(i)
            }));
        }
        Op::ReverseSequence { batch_axis, .. } => {
            let (a, b) = (x.shape[0].max(1), x.shape[1].max(1));
            let rest = x.data.len() / (a * b);
            let lengths = call.x(1)?.data;
            for i in 0..a * b * usize::from(rest > 0) {
                let (row, column) = (i / b, i % b);
                let (batch, time) = if *batch_axis == 0 { (row, column) } else { (column, row) };
                let steps = if *batch_axis == 0 { b } else { a };
                let length = lengths[batch].f64();
                if !(0.0..=steps as f64).contains(&length) {
                    return Err(Error::model(format!("length {length} of a sequence of {steps}")));
                }
                let length = length as usize;
                let time = if time < length { length - 1 - time } else { time };
                let from = if *batch_axis == 0 { batch * b + time } else { time * b + batch };
                out.extend((from * rest..(from + 1) * rest).map(Some));
            }
        }
        _ => return Err(Error::internal(format!("{} selects nothing", op.kind()))),
    }
    Ok((out, places))
}

fn one_hot<R: Real>(axis: i64, call: &Call<R>) -> Result<Vec<R>> {
    let (x, values) = (call.x(0)?, call.x(2)?);
    let shape = call.shape();
    let axis = index::axis(axis, shape.len())?;
    let (depth, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>().max(1));
    let mut y = vec![values.data[0]; shape.iter().product()];
    for (i, v) in x.data.iter().enumerate() {
        let v = v.f64().trunc();
        let v = if v < 0.0 { v + depth as f64 } else { v };
        if v >= 0.0 && v < depth as f64 {
            y[(i / inner * depth + v as usize) * inner + i % inner] = values.data[1];
        }
    }
    Ok(y)
}

fn non_zero<R: Real>(x: &View<R>) -> Vec<R> {
    let found: Vec<usize> = (0..x.data.len()).filter(|&i| x.data[i] != R::zero()).collect();
    let own = index::strides(x.shape);
    let rows = own.iter().zip(x.shape);
    rows.flat_map(|(&s, &d)| found.iter().map(move |&i| R::of((i / s % d) as f64))).collect()
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let x = call.x(0)?;
    match op {
        Op::NonZero => Ok(vec![non_zero(&x)]),
        Op::NonMaxSuppression { centres } => {
            let rows = nms::selected(*centres, &call.sig, &|| Ok(()))?;
            Ok(vec![rows.into_iter().flatten().map(|i| R::of(i as f64)).collect()])
        }
        Op::OneHot { axis } => Ok(vec![one_hot(*axis, call)?]),
        Op::EyeLike { k, .. } => {
            let columns = x.shape[1].max(1);
            let on = |i: usize| (i % columns) as i64 - (i / columns) as i64 == *k;
            let n: usize = call.shape().iter().product();
            Ok(vec![(0..n).map(|i| if on(i) { R::one() } else { R::zero() }).collect()])
        }
        _ => {
            let (sources, places) = sources(op, call)?;
            let y = sources.into_iter().map(|s| s.map_or(R::zero(), |s| x.data[s])).collect();
            Ok(vec![y, places.into_iter().map(|p| R::of(p as f64)).collect()])
        }
    }
}

/// NonZero, NonMaxSuppression, OneHot and EyeLike have no gradient.
pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    if matches!(op, Op::NonZero | Op::NonMaxSuppression { .. } | Op::OneHot { .. } | Op::EyeLike { .. }) {
        return Ok(());
    }
    let (x, g) = (back.call.x(0)?, back.g()?);
    let mut dx = vec![R::zero(); x.data.len()];
    for (s, &g) in sources(op, &back.call)?.0.into_iter().zip(g) {
        if let Some(s) = s {
            dx[s] += g;
        }
    }
    back.set(0, dx);
    Ok(())
}
