//! Matrix products.

use super::Real;
use super::call::{Back, Call, Operands, Shaped};
use super::index::{broadcast, broadcast_strides, check_unidirectional, each};
use crate::error::{Error, Result};
use crate::graph::Op;

/// A matrix inside a slice: row and column stride.
#[derive(Clone, Copy)]
struct Mat {
    row: usize,
    col: usize,
}

impl Mat {
    fn rows(columns: usize) -> Self {
        Mat { row: columns, col: 1 }
    }

    fn t(self) -> Self {
        Mat { row: self.col, col: self.row }
    }

    /// The matrix of `columns` columns, or its transpose.
    fn new(columns: usize, transposed: bool) -> Self {
        if transposed { Mat::rows(columns).t() } else { Mat::rows(columns) }
    }
}

/// c[m, n] += a[m, k] · b[k, n]; c is dense.
fn product<R: Real>([m, k, n]: [usize; 3], (a, la): (&[R], Mat), (b, lb): (&[R], Mat), c: &mut [R]) {
    if m * k * n == 0 {
        return;
    }
    for (i, row) in c.chunks_exact_mut(n).take(m).enumerate() {
        if lb.col == 1 {
            for p in 0..k {
                let x = a[i * la.row + p * la.col];
                for (c, &y) in row.iter_mut().zip(&b[p * lb.row..][..n]) {
                    *c += x * y;
                }
            }
        } else {
            for (j, c) in row.iter_mut().enumerate() {
                let mut sum = R::zero();
                for p in 0..k {
                    sum += a[i * la.row + p * la.col] * b[p * lb.row + j * lb.col];
                }
                *c += sum;
            }
        }
    }
}

/// [m, k, n] of a Gemm.
fn gemm_sizes(a: &[usize], b: &[usize], trans_a: bool, trans_b: bool) -> Result<[usize; 3]> {
    let ([a0, a1], [b0, b1]) = (a, b) else {
        return Err(Error::model(format!("Gemm multiplies matrices, got shapes {a:?} and {b:?}")));
    };
    let (m, k) = if trans_a { (*a1, *a0) } else { (*a0, *a1) };
    let (k2, n) = if trans_b { (*b1, *b0) } else { (*b0, *b1) };
    if k != k2 {
        return Err(Error::model(format!("inner sizes differ: {k} and {k2} of shapes {a:?} and {b:?}")));
    }
    Ok([m, k, n])
}

/// A matmul with 1-dimensional operands made matrices.
struct MatMul {
    sizes: [usize; 3],
    batch: Vec<usize>,
    /// Offset of the operands' matrices per batch axis, in matrices.
    strides_a: Vec<usize>,
    strides_b: Vec<usize>,
    shape: Vec<usize>,
}

fn matmul(a: &[usize], b: &[usize]) -> Result<MatMul> {
    let (a2, b2) = match (a, b) {
        ([], _) | (_, []) => return Err(Error::model(format!("matmul of a scalar: shapes {a:?} and {b:?}"))),
        _ => (
            if a.len() == 1 { vec![1, a[0]] } else { a.to_vec() },
            if b.len() == 1 { vec![b[0], 1] } else { b.to_vec() },
        ),
    };
    let (batch_a, ma) = a2.split_at(a2.len() - 2);
    let (batch_b, mb) = b2.split_at(b2.len() - 2);
    if ma[1] != mb[0] {
        return Err(Error::model(format!("inner sizes differ: {} and {} of shapes {a:?} and {b:?}", ma[1], mb[0])));
    }
    let batch = broadcast([batch_a, batch_b])?;
    let mut shape = batch.clone();
    if a.len() > 1 {
        shape.push(ma[0]);
    }
    if b.len() > 1 {
        shape.push(mb[1]);
    }
    Ok(MatMul {
        sizes: [ma[0], ma[1], mb[1]],
        strides_a: broadcast_strides(batch_a, &batch),
        strides_b: broadcast_strides(batch_b, &batch),
        batch,
        shape,
    })
}

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let (a, b) = (x.need(0)?, x.need(1)?);
    x.same_dtype([0, 1, 2])?;
    let shape = match op {
        Op::Gemm { trans_a, trans_b, .. } => {
            let [m, _, n] = gemm_sizes(a.shape, b.shape, *trans_a, *trans_b)?;
            if let Some(c) = x.opt(2) {
                check_unidirectional(c.shape, &[m, n])?;
            }
            vec![m, n]
        }
        _ => matmul(a.shape, b.shape)?.shape,
    };
    Ok(vec![(a.dtype, shape)])
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let (a, b) = (call.x(0)?, call.x(1)?);
    let mut y = vec![R::zero(); call.shape().iter().product()];
    if let Op::Gemm { alpha, beta, trans_a, trans_b } = *op {
        let sizes = gemm_sizes(a.shape, b.shape, trans_a, trans_b)?;
        let (la, lb) = (Mat::new(a.shape[1], trans_a), Mat::new(b.shape[1], trans_b));
        product(sizes, (a.data, la), (b.data, lb), &mut y);
        if alpha != 1.0 {
            y.iter_mut().for_each(|v| *v *= R::of(alpha as f64));
        }
        if let Some(c) = call.opt(2) {
            let beta = R::of(beta as f64);
            each(call.shape(), [&broadcast_strides(c.shape, call.shape())], |o, [i]| y[o] += beta * c.data[i]);
        }
        return Ok(vec![y]);
    }
    let mm = matmul(a.shape, b.shape)?;
    let [m, k, n] = mm.sizes;
    each(&mm.batch, [&mm.strides_a, &mm.strides_b], |o, [ia, ib]| {
        let (a, b) = (&a.data[ia * m * k..][..m * k], &b.data[ib * k * n..][..k * n]);
        product(mm.sizes, (a, Mat::rows(k)), (b, Mat::rows(n)), &mut y[o * m * n..][..m * n]);
    });
    Ok(vec![y])
}

pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    let (a, b, g) = (back.call.x(0)?, back.call.x(1)?, back.g()?);
    let mut da = vec![R::zero(); if back.wants(0) { a.data.len() } else { 0 }];
    let mut db = vec![R::zero(); if back.wants(1) { b.data.len() } else { 0 }];
    if let Op::Gemm { alpha, beta, trans_a, trans_b } = *op {
        let [m, k, n] = gemm_sizes(a.shape, b.shape, trans_a, trans_b)?;
        let (la, lb, lg) = (Mat::new(a.shape[1], trans_a), Mat::new(b.shape[1], trans_b), Mat::rows(n));
        if back.wants(0) {
            match trans_a {
                false => product([m, n, k], (g, lg), (b.data, lb.t()), &mut da),
                true => product([k, n, m], (b.data, lb), (g, lg.t()), &mut da),
            }
        }
        if back.wants(1) {
            match trans_b {
                false => product([k, m, n], (a.data, la.t()), (g, lg), &mut db),
                true => product([n, m, k], (g, lg.t()), (a.data, la), &mut db),
            }
        }
        da.iter_mut().chain(db.iter_mut()).for_each(|v| *v *= R::of(alpha as f64));
        if let Some(c) = back.call.opt(2).filter(|_| back.wants(2)) {
            let mut dc = vec![R::zero(); c.data.len()];
            let beta = R::of(beta as f64);
            each(&[m, n], [&broadcast_strides(c.shape, &[m, n])], |o, [i]| dc[i] += beta * g[o]);
            back.set(2, dc);
        }
    } else {
        let mm = matmul(a.shape, b.shape)?;
        let [m, k, n] = mm.sizes;
        let (wants_a, wants_b) = (back.wants(0), back.wants(1));
        each(&mm.batch, [&mm.strides_a, &mm.strides_b], |o, [ia, ib]| {
            let g = &g[o * m * n..][..m * n];
            let (ra, rb) = (ia * m * k..(ia + 1) * m * k, ib * k * n..(ib + 1) * k * n);
            if wants_a {
                product([m, n, k], (g, Mat::rows(n)), (&b.data[rb.clone()], Mat::rows(n).t()), &mut da[ra.clone()]);
            }
            if wants_b {
                product([k, m, n], (&a.data[ra], Mat::rows(k).t()), (g, Mat::rows(n)), &mut db[rb]);
            }
        });
    }
    back.set(0, da);
    back.set(1, db);
    Ok(())
}
