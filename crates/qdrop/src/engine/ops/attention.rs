//! Attention and rotary position embedding. q: [B, H, L, D] or [B, L, H·D]; k and v likewise, with as many heads as q or
//! a divisor of that number.

use super::call::{Back, Call, Operands, Shaped};
use super::index::broadcast_strides;
use super::{Real, View};
use crate::error::{Error, Result};
use crate::graph::{Attention, Op};
use crate::tensor::DType;

/// Lengths beyond are cut off; keeps arithmetic of positions far from overflow.
const LENGTH_LIMIT: f64 = (1u64 << 50) as f64;

/// A tensor of heads: its sizes and the strides of batch, head, position and element.
#[derive(Debug, Clone, Copy)]
struct Heads {
    batch: usize,
    heads: usize,
    length: usize,
    size: usize,
    strides: [usize; 4],
}

impl Heads {
    /// How a tensor of `shape` holds its heads; one of rank 3 has `heads` of them.
    fn new(shape: &[usize], heads: i64) -> Result<Self> {
        let refuse = || Error::model(format!("shape {shape:?} does not hold {heads} heads"));
        match *shape {
            [batch, heads, length, size] => {
                let strides = [heads * length * size, length * size, size, 1];
                Ok(Heads { batch, heads, length, size, strides })
            }
            [batch, length, hidden] => {
                let heads = usize::try_from(heads).ok().filter(|&h| h > 0 && hidden.is_multiple_of(h));
                let heads = heads.ok_or_else(refuse)?;
                let size = hidden / heads;
                Ok(Heads { batch, heads, length, size, strides: [length * hidden, size, hidden, 1] })
            }
            _ => Err(refuse()),
        }
    }

    /// Offset of the first element at a position.
    fn at(&self, batch: usize, head: usize, position: usize) -> usize {
        batch * self.strides[0] + head * self.strides[1] + position * self.strides[2]
    }
}

/// The sizes of a call.
struct Plan {
    q: Heads,
    k: Heads,
    v: Heads,
    /// Positions of the cache.
    past: usize,
    /// Positions of the cache and the operands.
    keys: usize,
    rank: usize,
}

impl Plan {
    fn new(a: &Attention, x: &Operands) -> Result<Self> {
        let [q, k, v] = [x.need(0)?, x.need(1)?, x.need(2)?];
        let rank = q.shape.len();
        if k.shape.len() != rank || v.shape.len() != rank {
            return Err(Error::model(format!("ranks differ: {:?}, {:?} and {:?}", q.shape, k.shape, v.shape)));
        }
        let (qs, ks, vs) = (q.shape, k.shape, v.shape);
        let (q, k) = (Heads::new(qs, a.q_heads)?, Heads::new(ks, a.kv_heads)?);
        let v = Heads::new(vs, a.kv_heads)?;
        let grouped = k.heads > 0 && q.heads.is_multiple_of(k.heads);
        let alike = q.batch == k.batch && k.batch == v.batch && k.heads == v.heads && k.length == v.length;
        if !grouped || !alike || q.size != k.size {
            return Err(Error::model(format!(
                "shapes {qs:?}, {ks:?} and {vs:?} of query, key and value do not fit together"
            )));
        }
        let past = match (x.opt(4), x.opt(5)) {
            (None, None) => 0,
            (Some(pk), Some(pv)) => {
                let past = *pk.shape.get(2).unwrap_or(&0);
                x.expect_shape(4, &[k.batch, k.heads, past, k.size])?;
                x.expect_shape(5, &[k.batch, k.heads, past, v.size])?;
                if pv.dtype != pk.dtype || x.opt(6).is_some() {
                    return Err(Error::model(
                        "past keys and values must have one type, and cannot be combined with lengths",
                    ));
                }
                past
            }
            _ => return Err(Error::model("past keys and past values must be given together")),
        };
        x.expect_shape(6, &[q.batch])?;
        let keys = past.checked_add(k.length).ok_or_else(|| Error::model("too many keys"))?;
        let plan = Plan { q, k, v, past, keys, rank };
        if let Some(mask) = x.opt(3) {
            plan.mask_strides(mask.shape)?;
        }
        Ok(plan)
    }

    fn products(&self) -> [usize; 4] {
        [self.q.batch, self.q.heads, self.q.length, self.keys]
    }

    /// Strides of the mask along the products; its last axis may be short.
    fn mask_strides(&self, shape: &[usize]) -> Result<Vec<usize>> {
        let full = self.products();
        let short = shape.last().is_some_and(|&d| d <= self.keys);
        let lead = 4usize.checked_sub(shape.len()).filter(|_| short);
        let fits = lead.filter(|&l| (0..shape.len() - 1).all(|k| shape[k] == 1 || shape[k] == full[l + k]));
        let lead = fits.ok_or_else(|| Error::model(format!("mask {shape:?} does not fit products {full:?}")))?;
        let mut target = full.to_vec();
        target[3] = shape[shape.len() - 1];
        let mut strides = broadcast_strides(shape, &target);
        if shape[shape.len() - 1] == 1 && lead < 4 {
            strides[3] = 1;
        }
        Ok(strides)
    }
}

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let first = x.need(0)?;
    match op {
        Op::Attention(a) => {
            let p = Plan::new(a, x)?;
            let y = match p.rank {
                4 => vec![p.q.batch, p.q.heads, p.q.length, p.v.size],
                _ => {
                    let hidden = p.q.heads.checked_mul(p.v.size);
                    let hidden = hidden.ok_or_else(|| Error::model("the heads of the result are too large"))?;
                    vec![p.q.batch, p.q.length, hidden]
                }
            };
            let present = |size| vec![p.k.batch, p.k.heads, p.keys, size];
            let (kt, vt) = (x.need(1)?.dtype, x.need(2)?.dtype);
            Ok(vec![
                (first.dtype, y),
                (kt, present(p.k.size)),
                (vt, present(p.v.size)),
                (first.dtype, p.products().to_vec()),
            ])
        }
        _ => {
            Rotation::new(op, x)?;
            Ok(vec![(first.dtype, first.shape.to_vec())])
        }
    }
}

/// Keys or values with the cache before them: [B, H, keys, D].
fn present<R: Real>(past: Option<View<R>>, now: View<R>, heads: &Heads, past_len: usize) -> Vec<R> {
    let mut out = Vec::with_capacity(now.data.len() + past.map_or(0, |p| p.data.len()));
    for b in 0..heads.batch {
        for h in 0..heads.heads {
            if let Some(past) = past {
                out.extend_from_slice(
                    &past.data[(b * heads.heads + h) * past_len * heads.size..][..past_len * heads.size],
                );
            }
            for i in 0..heads.length {
                out.extend_from_slice(&now.data[heads.at(b, h, i)..][..heads.size]);
            }
        }
    }
    out
}

/// What one query's row goes through.
struct Row<R> {
    products: Vec<R>,
    capped: Vec<R>,
    biased: Vec<R>,
    weights: Vec<R>,
}

/// A call with everything in place to compute rows.
struct Run<'a, R> {
    a: &'a Attention,
    p: Plan,
    q: View<'a, R>,
    keys: Vec<R>,
    values: Vec<R>,
    mask: Option<(View<'a, R>, Vec<usize>)>,
    lengths: Option<View<'a, R>>,
    scale: R,
}

impl<'a, R: Real> Run<'a, R> {
    fn new(a: &'a Attention, call: &Call<'a, R>) -> Result<Self> {
        let p = Plan::new(a, &call.sig)?;
        let keys = present(call.opt(4), call.x(1)?, &p.k, p.past);
        let values = present(call.opt(5), call.x(2)?, &p.v, p.past);
        let mask = call.opt(3).map(|m| p.mask_strides(m.shape).map(|s| (m, s))).transpose()?;
        let scale = a.scale.map_or(1.0 / (p.q.size as f64).sqrt(), f64::from);
        Ok(Run { a, q: call.x(0)?, keys, values, mask, lengths: call.opt(6), scale: R::of(scale), p })
    }

    /// Offset of the mask's row, if there is a mask.
    fn mask_row(&self, b: usize, h: usize, i: usize) -> usize {
        self.mask.as_ref().map_or(0, |(_, s)| b * s[0] + h * s[1] + i * s[2])
    }

    /// First key and value of a query's head.
    fn group(&self, b: usize, h: usize) -> (usize, usize) {
        let kv = b * self.p.k.heads + h / (self.p.q.heads / self.p.k.heads);
        (kv * self.p.keys * self.p.k.size, kv * self.p.keys * self.p.v.size)
    }

    fn row(&self, b: usize, h: usize, i: usize) -> Row<R> {
        let (p, infinite) = (&self.p, R::neg_infinity());
        let (k0, _) = self.group(b, h);
        let q = &self.q.data[p.q.at(b, h, i)..][..p.q.size];
        let length = self.lengths.map(|l| l.data[b].f64().clamp(-LENGTH_LIMIT, LENGTH_LIMIT) as i64);
        let offset = length.map_or(p.past as i64, |l| l - p.q.length as i64);
        let [left, right] = self.a.window;
        let cap = R::of(self.a.softcap as f64);
        let dot = |j: usize| {
            let k = &self.keys[k0 + j * p.k.size..][..p.k.size];
            q.iter().zip(k).fold(R::zero(), |s, (&a, &b)| s + a * b) * self.scale
        };
        let bias = |j: usize| {
            let ahead = j as i64 - (i as i64 + offset);
            let hidden = (self.a.causal && ahead > 0)
                || (left >= 0 && ahead < -left)
                || (right >= 0 && ahead > right)
                || length.is_some_and(|l| j as i64 >= l);
            match &self.mask {
                _ if hidden => infinite,
                None => R::zero(),
                Some((m, _)) if j >= m.shape[m.shape.len() - 1] => infinite,
                Some((m, s)) => match (m.dtype, m.data[self.mask_row(b, h, i) + j * s[3]]) {
                    (DType::Bool, v) if v == R::zero() => infinite,
                    (DType::Bool, _) => R::zero(),
                    (_, v) => v,
                },
            }
        };
        let products: Vec<R> = (0..p.keys).map(dot).collect();
        let capped: Vec<R> =
            products.iter().map(|&v| if cap > R::zero() { (v / cap).tanh() * cap } else { v }).collect();
        let bias: Vec<R> = (0..p.keys).map(bias).collect();
        // A hidden key has no weight whatever its product is.
        let biased: Vec<R> =
            capped.iter().zip(&bias).map(|(&v, &b)| if b == infinite { infinite } else { v + b }).collect();
        let top = biased.iter().fold(infinite, |m, &v| super::unary::max(m, v));
        let mut weights = vec![R::zero(); p.keys];
        if top != infinite {
            weights.iter_mut().zip(&biased).for_each(|(w, &v)| *w = (v - top).exp());
            let sum = weights.iter().fold(R::zero(), |s, &w| s + w);
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        Row { products, capped, biased, weights }
    }

    /// Calls `f(batch, head, position)` for every query.
    fn each(&self, mut f: impl FnMut(usize, usize, usize)) {
        for b in 0..self.p.q.batch {
            for h in 0..self.p.q.heads {
                (0..self.p.q.length).for_each(|i| f(b, h, i));
            }
        }
    }

    /// How the result holds its heads.
    fn result(&self) -> Heads {
        let (h, l, d) = (self.p.q.heads, self.p.q.length, self.p.v.size);
        let strides = if self.p.rank == 4 { [h * l * d, l * d, d, 1] } else { [l * h * d, d, h * d, 1] };
        Heads { size: d, strides, ..self.p.q }
    }
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let Op::Attention(a) = op else {
        let rotation = Rotation::new(op, &call.sig)?;
        let (x, cos, sin) = (call.x(0)?, call.x(1)?, call.x(2)?);
        let mut y = x.data.to_vec();
        rotation.each(call.opt(3), |i, j, c| {
            let (a, b, cos, sin) = (x.data[i], x.data[j], cos.data[c], sin.data[c]);
            (y[i], y[j]) = (cos * a - sin * b, sin * a + cos * b);
        })?;
        return Ok(vec![y]);
    };
    let run = Run::new(a, call)?;
    let out = run.result();
    let mut y = vec![R::zero(); call.shape().iter().product()];
    let mut shown = Vec::new();
    run.each(|b, h, i| {
        let row = run.row(b, h, i);
        let (_, v0) = run.group(b, h);
        let y = &mut y[out.at(b, h, i)..][..out.size];
        for (j, &w) in row.weights.iter().enumerate().filter(|(_, w)| **w != R::zero()) {
            let v = &run.values[v0 + j * out.size..][..out.size];
            y.iter_mut().zip(v).for_each(|(y, &v)| *y += w * v);
        }
        if call.out.len() > 3 {
            shown.extend(match a.product {
                0 => row.products,
                1 => row.capped,
                2 => row.biased,
                _ => row.weights,
            });
        }
    });
    Ok(vec![y, run.keys, run.values, shown])
}

/// Gradients of an [`present`] given back to the cache and the operand.
fn divide<R: Real>(d: &[R], heads: &Heads, past: usize) -> (Vec<R>, Vec<R>) {
    let mut before = Vec::with_capacity(heads.batch * heads.heads * past * heads.size);
    let mut now = vec![R::zero(); heads.batch * heads.heads * heads.length * heads.size];
    let all = (past + heads.length) * heads.size;
    for b in 0..heads.batch {
        for h in 0..heads.heads {
            let d = &d[(b * heads.heads + h) * all..][..all];
            before.extend_from_slice(&d[..past * heads.size]);
            for i in 0..heads.length {
                now[heads.at(b, h, i)..][..heads.size].copy_from_slice(&d[(past + i) * heads.size..][..heads.size]);
            }
        }
    }
    (before, now)
}

pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    let zero = R::zero();
    let Op::Attention(a) = op else {
        let rotation = Rotation::new(op, &back.call.sig)?;
        let (x, cos, sin, g) = (back.call.x(0)?, back.call.x(1)?, back.call.x(2)?, back.g()?);
        let mut dx = g.to_vec();
        let (mut dc, mut ds) = (vec![zero; cos.data.len()], vec![zero; sin.data.len()]);
        rotation.each(back.call.opt(3), |i, j, c| {
            let (a, b, ga, gb) = (x.data[i], x.data[j], g[i], g[j]);
            dx[i] = cos.data[c] * ga + sin.data[c] * gb;
            dx[j] = cos.data[c] * gb - sin.data[c] * ga;
            dc[c] += a * ga + b * gb;
            ds[c] += a * gb - b * ga;
        })?;
        [dx, dc, ds].into_iter().enumerate().for_each(|(k, d)| back.set(k, d));
        return Ok(());
    };
    if back.gradients.get(3).is_some_and(|g| g.is_some()) {
        return Err(Error::unsupported("products of Attention as a result have no gradient"));
    }
    let run = Run::new(a, &back.call)?;
    let out = run.result();
    let zeros = vec![zero; back.call.shape().iter().product()];
    let g = back.gradients.first().copied().flatten().unwrap_or(&zeros);
    let given = |k: usize, n: usize| match back.gradients.get(k).copied().flatten() {
        Some(g) => g.to_vec(),
        None => vec![zero; n],
    };
    let mut dq = vec![zero; run.q.data.len()];
    let (mut dk, mut dv) = (given(1, run.keys.len()), given(2, run.values.len()));
    let mut dm = vec![zero; run.mask.as_ref().map_or(0, |(m, _)| m.data.len())];
    let cap = R::of(a.softcap as f64);
    run.each(|b, h, i| {
        let row = run.row(b, h, i);
        let (k0, v0) = run.group(b, h);
        let g = &g[out.at(b, h, i)..][..out.size];
        let (kd, vd) = (run.p.k.size, out.size);
        let dot = |j: usize| g.iter().zip(&run.values[v0 + j * vd..]).fold(zero, |s, (&g, &v)| s + g * v);
        let along: Vec<R> = (0..run.p.keys).map(dot).collect();
        let sum = along.iter().zip(&row.weights).fold(zero, |s, (&d, &w)| s + d * w);
        let first = run.p.q.at(b, h, i);
        for j in (0..run.p.keys).filter(|&j| row.weights[j] != zero) {
            dv[v0 + j * vd..][..vd].iter_mut().zip(g).for_each(|(d, &g)| *d += g * row.weights[j]);
            let mut d = row.weights[j] * (along[j] - sum);
            if let Some((_, s)) = &run.mask {
                dm[run.mask_row(b, h, i) + j * s[3]] += d;
            }
            if cap > zero {
                let t = row.capped[j] / cap;
                d *= R::one() - t * t;
            }
            d *= run.scale;
            for e in 0..kd {
                dq[first + e] += d * run.keys[k0 + j * kd + e];
                dk[k0 + j * kd + e] += d * run.q.data[first + e];
            }
        }
    });
    let ((pk, k), (pv, v)) = (divide(&dk, &run.p.k, run.p.past), divide(&dv, &run.p.v, run.p.past));
    [dq, k, v, dm, pk, pv].into_iter().enumerate().for_each(|(i, d)| back.set(i, d));
    Ok(())
}

/// Which elements of x: [B, H, L, D] or [B, L, H·D] are rotated together.
struct Rotation {
    x: Heads,
    /// Elements of a head that are rotated.
    dim: usize,
    interleaved: bool,
    /// Rows of the caches of cosines and sines, for positions; all of [B, L] without.
    rows: usize,
}

impl Rotation {
    fn new(op: &Op, x: &Operands) -> Result<Self> {
        let Op::RotaryEmbedding { interleaved, heads, dim } = op else {
            return Err(Error::internal(format!("{} does not rotate", op.kind())));
        };
        let (cos, sin) = (x.need(1)?, x.need(2)?);
        let h = Heads::new(x.need(0)?.shape, *heads)?;
        let dim = if *dim == 0 { Some(h.size) } else { usize::try_from(*dim).ok() };
        let dim = dim.filter(|&d| d <= h.size && d % 2 == 0);
        let dim = dim.ok_or_else(|| Error::model(format!("cannot rotate part of heads of size {}", h.size)))?;
        x.same_dtype([0, 1, 2])?;
        x.expect_shape(2, cos.shape)?;
        x.expect_shape(3, &[h.batch, h.length])?;
        let rows = match (x.opt(3), cos.shape) {
            (Some(_), &[rows, half]) if half == dim / 2 => rows,
            (None, &[b, l, half]) if [b, l, half] == [h.batch, h.length, dim / 2] => b * l,
            _ => return Err(Error::model(format!("caches {:?} and {:?} do not fit together", cos.shape, sin.shape))),
        };
        Ok(Rotation { x: h, dim, interleaved: *interleaved, rows })
    }

    /// Calls `f(first, second, entry of the caches)` for every pair.
    fn each<R: Real>(&self, positions: Option<View<R>>, mut f: impl FnMut(usize, usize, usize)) -> Result<()> {
        let half = self.dim / 2;
        for b in 0..self.x.batch {
            for i in 0..self.x.length {
                let at = b * self.x.length + i;
                let row = positions.map_or(at as f64, |p| p.data[at].f64());
                if !(row >= 0.0 && row < self.rows as f64) {
                    return Err(Error::model(format!("position {row} of {}", self.rows)));
                }
                for h in 0..self.x.heads {
                    let first = self.x.at(b, h, i);
                    for e in 0..half {
                        let (a, b) = if self.interleaved { (2 * e, 2 * e + 1) } else { (e, half + e) };
                        f(first + a, first + b, row as usize * half + e);
                    }
                }
            }
        }
        Ok(())
    }
}
