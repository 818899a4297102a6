//! Operators that copy elements to other places: every one but GatherElements separates by axis, so it is a
//! [`Gather`]; its gradient adds back along the same table.

use super::call::{Back, Call, Operands, Shaped};
use super::index::{self, Gather, broadcast, broadcast_strides, check_unidirectional, strides};
use super::{Real, View};
use crate::error::{Error, Result};
use crate::graph::{Op, PadMode};
use crate::tensor::checked_numel;

/// Longest axis that is accepted; keeps index arithmetic far from overflow.
const LIMIT: i64 = 1 << 40;

/// Sizes of the parts of a Split.
fn split_sizes(op: &Op, x: &Operands, results: usize) -> Result<(usize, Vec<usize>)> {
    let Op::Split { axis } = op else { return Err(Error::internal("not a Split")) };
    let shape = x.need(0)?.shape;
    let axis = index::axis(*axis, shape.len())?;
    let size = shape[axis];
    let parts = match x.ints(1)? {
        Some(list) => {
            let parts: Option<Vec<usize>> = list.iter().map(|&v| usize::try_from(v).ok()).collect();
            let sum = |p: &Vec<usize>| p.iter().try_fold(0usize, |s, &v| s.checked_add(v));
            parts.filter(|p| p.len() == results && sum(p) == Some(size)).ok_or_else(|| {
                Error::model(format!("cannot split axis {axis} of size {size} into {results} parts of sizes {list:?}"))
            })?
        }
        None => {
            // Equal parts, the last one smaller if need be.
            let part = size.div_ceil(results.max(1));
            (0..results).map(|k| size.saturating_sub(k * part).min(part)).collect()
        }
    };
    Ok((axis, parts))
}

/// First index, step and number of elements that a Slice takes of each axis.
fn slices(x: &Operands) -> Result<Vec<(usize, i64, usize)>> {
    let shape = x.need(0)?.shape;
    let (starts, ends) = (x.need_ints(1)?, x.need_ints(2)?);
    let axes = x.ints(3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = x.ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(Error::model(format!(
            "starts, ends, axes and steps must have the same length, got {}, {}, {} and {}",
            starts.len(),
            ends.len(),
            axes.len(),
            steps.len()
        )));
    }
    let mut out: Vec<(usize, i64, usize)> = shape.iter().map(|&d| (0, 1, d)).collect();
    for (k, axis) in index::axes(&axes, shape.len())?.into_iter().enumerate() {
        let (size, step) = (shape[axis] as i64, steps[k]);
        if step == 0 {
            return Err(Error::model("a slice's step must not be 0"));
        }
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let clamp = |v: i64| if v < 0 { v.saturating_add(size) } else { v }.clamp(low, high);
        let (start, end) = (clamp(starts[k]).max(0), clamp(ends[k]));
        let span = if step > 0 { end - start } else { start - end };
        let count = if span <= 0 || size == 0 { 0 } else { (span as u64).div_ceil(step.unsigned_abs()) as usize };
        out[axis] = (start as usize, step, count);
    }
    Ok(out)
}

/// (begin, end) pads of each axis; negative ones crop.
fn pads(x: &Operands) -> Result<Vec<(i64, i64)>> {
    let rank = x.need(0)?.shape.len();
    let pads = x.need_ints(1)?;
    let axes = match x.ints(3)? {
        Some(list) => index::axes(&list, rank)?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() || pads.iter().any(|p| !(-LIMIT..=LIMIT).contains(p)) {
        return Err(Error::model(format!("expected {} pads of reasonable size, got {pads:?}", 2 * axes.len())));
    }
    let mut out = vec![(0, 0); rank];
    for (k, &a) in axes.iter().enumerate() {
        out[a] = (pads[k], pads[k + axes.len()]);
    }
    Ok(out)
}

/// Source index of position `i` (outside 0..n too) of an axis of size n > 0.
fn padded(mode: PadMode, i: i64, n: i64) -> usize {
    let source = match mode {
        PadMode::Constant if i < 0 || i >= n => return Gather::NONE,
        PadMode::Constant => i,
        PadMode::Edge => i.clamp(0, n - 1),
        PadMode::Wrap => i.rem_euclid(n),
        PadMode::Reflect if n == 1 => 0,
        PadMode::Reflect => {
            let i = i.rem_euclid(2 * (n - 1));
            if i < n { i } else { 2 * (n - 1) - i }
        }
    };
    source as usize
}

/// `block`, if it is a positive number that divides the sizes as it must.
fn block(block: i64, shape: &[usize], depth: bool) -> Result<usize> {
    let b = usize::try_from(block).ok().filter(|&b| b > 0 && block < 1 << 20);
    match (b, shape) {
        (Some(b), [_, c, h, w]) if (depth && c % (b * b) == 0) || (!depth && h % b == 0 && w % b == 0) => Ok(b),
        _ => Err(Error::model(format!("block size {block} does not fit shape {shape:?} of rank 4"))),
    }
}

fn permutation(perm: &[i64], rank: usize) -> Result<Vec<usize>> {
    if perm.is_empty() {
        return Ok((0..rank).rev().collect());
    }
    let p = index::axes(perm, rank)?;
    if p.len() != rank {
        return Err(Error::model(format!("perm {perm:?} must name all {rank} axes")));
    }
    Ok(p)
}

pub(super) fn infer(op: &Op, x: &Operands, results: usize) -> Result<Vec<Shaped>> {
    let first = x.need(0)?;
    let (dtype, shape) = (first.dtype, first.shape);
    let out = match op {
        Op::Concat { axis } => {
            x.same_dtype(0..x.count())?;
            let axis = index::axis(*axis, shape.len())?;
            let mut out = shape.to_vec();
            for i in 1..x.count() {
                let other = x.need(i)?.shape;
                let fits = other.len() == shape.len() && (0..shape.len()).all(|k| k == axis || other[k] == shape[k]);
                out[axis] = match out[axis].checked_add(*other.get(axis).unwrap_or(&0)) {
                    Some(sum) if fits => sum,
                    _ => {
                        return Err(Error::model(format!(
                            "cannot concatenate shapes {shape:?} and {other:?} along axis {axis}"
                        )));
                    }
                };
            }
            out
        }
        Op::Split { .. } => {
            let (axis, parts) = split_sizes(op, x, results)?;
            let part = |size: usize| {
                let mut s = shape.to_vec();
                s[axis] = size;
                (dtype, s)
            };
            return Ok(parts.into_iter().map(part).collect());
        }
        Op::Slice => slices(x)?.into_iter().map(|(_, _, count)| count).collect(),
        Op::Transpose { perm } => permutation(perm, shape.len())?.into_iter().map(|a| shape[a]).collect(),
        Op::Expand => {
            let target: Vec<usize> = x
                .need_ints(1)?
                .iter()
                .map(|&d| usize::try_from(d).map_err(|_| Error::model(format!("cannot expand to size {d}"))))
                .collect::<Result<_>>()?;
            broadcast([shape, &target])?
        }
        Op::Tile => {
            let repeats = x.need_ints(1)?;
            if repeats.len() != shape.len() {
                return Err(Error::model(format!("{} repeats for shape {shape:?}", repeats.len())));
            }
            let tile = |(&d, &r): (&usize, &i64)| usize::try_from(r).ok().and_then(|r| d.checked_mul(r));
            let sizes: Option<Vec<usize>> = shape.iter().zip(&repeats).map(tile).collect();
            sizes.ok_or_else(|| Error::model(format!("cannot repeat shape {shape:?} {repeats:?} times")))?
        }
        Op::Gather { axis } => {
            let axis = index::axis(*axis, shape.len())?;
            [&shape[..axis], x.need(1)?.shape, &shape[axis + 1..]].concat()
        }
        Op::GatherElements { axis } => {
            let axis = index::axis(*axis, shape.len())?;
            let indices = x.need(1)?.shape;
            let fits = indices.len() == shape.len() && (0..shape.len()).all(|k| k == axis || indices[k] <= shape[k]);
            if !fits {
                return Err(Error::model(format!("indices {indices:?} do not fit data {shape:?} along axis {axis}")));
            }
            indices.to_vec()
        }
        Op::Pad { mode } => {
            x.same_dtype([0, 2])?;
            let mut out = Vec::with_capacity(shape.len());
            for (&d, (b, e)) in shape.iter().zip(pads(x)?) {
                let size = i64::try_from(d).ok().filter(|&d| d <= LIMIT).map(|d| d + b + e);
                match size {
                    Some(s) if s >= 0 && (d > 0 || s == 0 || *mode == PadMode::Constant) => out.push(s as usize),
                    _ => return Err(Error::model(format!("cannot pad an axis of size {d} by {b} and {e}"))),
                }
            }
            out
        }
        Op::DepthToSpace { block: b, .. } => {
            let b = block(*b, shape, true)?;
            let grow = |d: usize| d.checked_mul(b).ok_or_else(|| Error::model(format!("size {d} times {b} overflows")));
            vec![shape[0], shape[1] / (b * b), grow(shape[2])?, grow(shape[3])?]
        }
        Op::SpaceToDepth { block: b } => {
            let b = block(*b, shape, false)?;
            let c = shape[1].checked_mul(b * b).ok_or_else(|| Error::model("too many channels"))?;
            vec![shape[0], c, shape[2] / b, shape[3] / b]
        }
        _ => return Err(Error::internal(format!("{} moves nothing", op.kind()))),
    };
    Ok(vec![(dtype, out)])
}

/// An index counted from the front.
pub(super) fn wrap_index<R: Real>(index: R, size: usize) -> Result<usize> {
    let i = index.f64();
    let i = if i < 0.0 { i + size as f64 } else { i };
    if i >= 0.0 && i < size as f64 {
        Ok(i as usize)
    } else {
        Err(Error::model(format!("index {} is out of range for size {size}", index.f64())))
    }
}

/// The gather of an operator with one result (or of part `part` of a Split).
fn gather<R: Real>(op: &Op, call: &Call<R>, part: usize) -> Result<Gather> {
    let x = call.x(0)?;
    let own = strides(x.shape);
    let out = &call.out[part].1;
    let permuted = |shape: &[usize], perm: &[usize]| {
        let s = strides(shape);
        let dims: Vec<usize> = perm.iter().map(|&a| shape[a]).collect();
        Gather::strided(&dims, &perm.iter().map(|&a| s[a]).collect::<Vec<_>>())
    };
    Ok(match op {
        Op::Split { .. } => {
            let (axis, parts) = split_sizes(op, &call.sig, call.out.len())?;
            let mut g = Gather::strided(out, &own);
            let first = parts[..part].iter().sum::<usize>() * own[axis];
            g.tables[axis].iter_mut().for_each(|entry| *entry += first);
            g
        }
        Op::Slice => {
            let table = |((start, step, count), &stride): ((usize, i64, usize), &usize)| {
                (0..count as i64).map(|i| (start as i64 + i * step) as usize * stride).collect()
            };
            Gather { tables: slices(&call.sig)?.into_iter().zip(&own).map(table).collect() }
        }
        Op::Transpose { perm } => permuted(x.shape, &permutation(perm, x.shape.len())?),
        Op::Expand => {
            check_unidirectional(x.shape, out)?;
            Gather::strided(out, &broadcast_strides(x.shape, out))
        }
        Op::Tile => {
            let table = |k: usize| (0..out[k]).map(|i| i % x.shape[k] * own[k]).collect();
            Gather { tables: (0..out.len()).map(table).collect() }
        }
        Op::Gather { axis } => {
            let axis = index::axis(*axis, x.shape.len())?;
            let mut g = Gather::strided(x.shape, &own);
            let entry = |&i: &R| wrap_index(i, x.shape[axis]).map(|i| i * own[axis]);
            g.tables[axis] = call.x(1)?.data.iter().map(entry).collect::<Result<_>>()?;
            g
        }
        Op::Pad { mode } => {
            let pads = pads(&call.sig)?;
            let table = |k: usize| {
                let n = x.shape[k] as i64;
                let entry = |i: usize| match padded(*mode, i as i64 - pads[k].0, n) {
                    Gather::NONE => Gather::NONE,
                    i => i * own[k],
                };
                (0..out[k]).map(entry).collect()
            };
            Gather { tables: (0..out.len()).map(table).collect() }
        }
        Op::DepthToSpace { block, dcr } => {
            let (b, [n, _, h, w]) = (*block as usize, dims4(x.shape)?);
            let c = out[1];
            match dcr {
                true => permuted(&[n, b, b, c, h, w], &[0, 3, 4, 1, 5, 2]),
                false => permuted(&[n, c, b, b, h, w], &[0, 1, 4, 2, 5, 3]),
            }
        }
        Op::SpaceToDepth { block } => {
            let (b, [n, c, h, w]) = (*block as usize, dims4(x.shape)?);
            permuted(&[n, c, h / b, b, w / b, b], &[0, 3, 5, 1, 2, 4])
        }
        _ => return Err(Error::internal(format!("{} is no gather", op.kind()))),
    })
}

fn dims4(shape: &[usize]) -> Result<[usize; 4]> {
    shape.try_into().map_err(|_| Error::internal("shape is not of rank 4"))
}

/// Source position of every element of a GatherElements.
pub(super) fn element_sources<R: Real>(axis: i64, x: &View<R>, indices: &View<R>) -> Result<Vec<usize>> {
    let axis = index::axis(axis, x.shape.len())?;
    let mut own = strides(x.shape);
    let stride = std::mem::replace(&mut own[axis], 0);
    let entries: Vec<usize> = indices.data.iter().map(|&i| wrap_index(i, x.shape[axis])).collect::<Result<_>>()?;
    let mut sources = vec![0; entries.len()];
    index::each(indices.shape, [&own], |o, [base]| sources[o] = base + entries[o] * stride);
    Ok(sources)
}

/// Calls `f(operand, offset in the operand, offset in the result, length)` for every piece of a Concat.
fn pieces<R: Real>(axis: i64, call: &Call<R>, mut f: impl FnMut(usize, usize, usize, usize)) -> Result<()> {
    let out = call.shape();
    let axis = index::axis(axis, out.len())?;
    let outer: usize = out[..axis].iter().product();
    let row: usize = out[axis..].iter().product();
    let mut start = 0;
    for i in 0..call.sig.count() {
        let len: usize = call.x(i)?.shape[axis..].iter().product();
        (0..outer).for_each(|o| f(i, o * len, o * row + start, len));
        start += len;
    }
    Ok(())
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let x = call.x(0)?;
    match op {
        Op::Concat { axis } => {
            let mut y = vec![R::zero(); call.shape().iter().product()];
            let data: Vec<&[R]> = (0..call.sig.count()).map(|i| call.x(i).map(|v| v.data)).collect::<Result<_>>()?;
            pieces(*axis, call, |i, from, to, len| y[to..][..len].copy_from_slice(&data[i][from..][..len]))?;
            Ok(vec![y])
        }
        Op::GatherElements { axis } => {
            let sources = element_sources(*axis, &x, &call.x(1)?)?;
            Ok(vec![sources.into_iter().map(|s| x.data[s]).collect()])
        }
        _ => {
            let fill = match op {
                Op::Pad { .. } => call.opt(2).and_then(|v| v.data.first().copied()).unwrap_or(R::zero()),
                _ => R::zero(),
            };
            (0..call.out.len()).map(|k| Ok(gather(op, call, k)?.forward(x.data, fill))).collect()
        }
    }
}

pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    let x = back.call.x(0)?;
    let mut dx = vec![R::zero(); x.data.len()];
    match op {
        Op::Concat { axis } => {
            let g = back.g()?;
            let mut d: Vec<Vec<R>> = (0..back.call.sig.count())
                .map(|i| back.call.x(i).map(|v| vec![R::zero(); v.data.len()]))
                .collect::<Result<_>>()?;
            pieces(*axis, &back.call, |i, from, to, len| d[i][from..][..len].copy_from_slice(&g[to..][..len]))?;
            d.into_iter().enumerate().for_each(|(i, d)| back.set(i, d));
            return Ok(());
        }
        Op::GatherElements { axis } => {
            let g = back.g()?;
            let sources = element_sources(*axis, &x, &back.call.x(1)?)?;
            sources.into_iter().zip(g).for_each(|(s, &g)| dx[s] += g);
        }
        _ => {
            for (k, g) in back.gradients.iter().enumerate() {
                if let Some(g) = g {
                    gather(op, &back.call, k)?.backward(g, &mut dx);
                }
            }
        }
    }
    if let Some(value) = back.call.opt(2).filter(|_| matches!(op, Op::Pad { .. }) && back.wants(2)) {
        let (g, mut sum) = (back.g()?, R::zero());
        gather(op, &back.call, 0)?.each(|o, source| {
            if source.is_none() {
                sum += g[o];
            }
        });
        let mut d = vec![R::zero(); value.data.len()];
        d.iter_mut().take(1).for_each(|d| *d = sum);
        back.set(2, d);
    }
    back.set(0, dx);
    Ok(())
}

/// Number of elements of `shape`, refused above the largest size any result may have.
pub(super) fn check_size(shape: &[usize]) -> Result<()> {
    if checked_numel(shape)? as u64 > LIMIT as u64 {
        return Err(Error::model(format!("a result of shape {shape:?} has more than 2^40 elements")));
    }
    Ok(())
}
