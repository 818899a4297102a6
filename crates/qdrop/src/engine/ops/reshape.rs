//! Operators whose result is the operand's elements in the same order under another shape or name.

use super::Real;
use super::call::{Back, Call, Operands, Shaped};
use super::index;
use crate::error::{Error, Result};
use crate::graph::Op;
use crate::tensor::checked_numel;

/// The shape a Reshape to `target` gives.
fn reshape(shape: &[usize], target: &[i64], allowzero: bool) -> Result<Vec<usize>> {
    let bad = || {
        let error = Error::model(format!("cannot reshape {shape:?} to {target:?}"));
        match (shape.first(), target.first()) {
            // Networks are run one sample at a time.
            (Some(1), Some(&batch)) if batch > 1 => {
                error.hint(format!("if {batch} is a batch, export the network with a batch of 1 or an open batch axis"))
            }
            _ => error,
        }
    };
    let mut out = Vec::with_capacity(target.len());
    let mut unknown = None;
    for (k, &t) in target.iter().enumerate() {
        out.push(match t {
            0 if !allowzero => *shape.get(k).ok_or_else(bad)?,
            -1 if unknown.is_none() => {
                unknown = Some(k);
                1
            }
            t => usize::try_from(t).map_err(|_| bad())?,
        });
    }
    let (have, want) = (checked_numel(shape)?, checked_numel(&out)?);
    if let Some(k) = unknown {
        if want == 0 || !have.is_multiple_of(want) {
            return Err(bad());
        }
        out[k] = have / want;
    } else if have != want {
        return Err(bad());
    }
    Ok(out)
}

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let first = x.need(0)?;
    let shape = first.shape;
    let out = match op {
        Op::Identity => shape.to_vec(),
        Op::Reshape { allowzero } => reshape(shape, &x.need_ints(1)?, *allowzero)?,
        Op::Flatten { axis } => {
            let rank = shape.len() as i64;
            let at = if *axis == rank { shape.len() } else { index::axis(*axis, shape.len().max(1))? };
            let at = at.min(shape.len());
            vec![checked_numel(&shape[..at])?, checked_numel(&shape[at..])?]
        }
        Op::Squeeze => {
            let drop = match x.ints(1)? {
                None => (0..shape.len()).filter(|&k| shape[k] == 1).collect(),
                Some(list) => index::axes(&list, shape.len())?,
            };
            if let Some(&k) = drop.iter().find(|&&k| shape[k] != 1) {
                return Err(Error::model(format!("cannot squeeze axis {k} of shape {shape:?}, its size is not 1")));
            }
            (0..shape.len()).filter(|k| !drop.contains(k)).map(|k| shape[k]).collect()
        }
        Op::Unsqueeze => {
            let list = x.need_ints(1)?;
            let new = index::axes(&list, shape.len() + list.len())?;
            let mut rest = shape.iter();
            let dim = |k| if new.contains(&k) { Some(1) } else { rest.next().copied() };
            (0..shape.len() + list.len()).filter_map(dim).collect()
        }
        _ => return Err(Error::internal(format!("{} changes more than the shape", op.kind()))),
    };
    Ok(vec![(first.dtype, out)])
}

pub(super) fn forward<R: Real>(call: &Call<R>) -> Result<Vec<Vec<R>>> {
    Ok(vec![call.x(0)?.data.to_vec()])
}

pub(super) fn backward<R: Real>(back: &mut Back<R>) -> Result<()> {
    let g = back.g()?;
    back.set(0, g.to_vec());
    Ok(())
}
