//! Einsum and Det.

use super::Real;
use super::call::{Back, Call, Operands, Shaped};
use super::index::strides;
use crate::error::{Error, Result};
use crate::graph::Op;

/// Most products an Einsum may sum.
const LIMIT: usize = 1 << 40;

/// An equation with the sizes of its axes known.
struct Plan {
    /// Sizes of the axes of the result, then of those summed over.
    sizes: Vec<usize>,
    /// Number of axes of the result.
    kept: usize,
    /// Per operand its stride along every axis.
    strides: Vec<Vec<usize>>,
}

/// The axes a term names in an operand of rank `rank`; those of an ellipsis count from the back, as negative numbers.
fn labels(term: &str, rank: Option<usize>) -> Result<Vec<i32>> {
    let refuse = || Error::model(format!("cannot read `{term}` in the equation"));
    let letters = |part: &str| -> Result<Vec<i32>> {
        part.chars().map(|c| if c.is_ascii_alphabetic() { Ok(c as i32) } else { Err(refuse()) }).collect()
    };
    let Some((head, tail)) = term.split_once("...") else { return letters(term) };
    let (head, tail) = (letters(head)?, letters(tail)?);
    let dots = rank.unwrap_or(0).checked_sub(head.len() + tail.len()).ok_or_else(refuse)?;
    Ok(head.into_iter().chain((1..=dots as i32).rev().map(|k| -k)).chain(tail).collect())
}

fn plan(equation: &str, x: &Operands) -> Result<Plan> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = equation.split_once("->").map_or((equation.as_str(), None), |(l, r)| (l, Some(r)));
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != x.count() {
        return Err(Error::model(format!("equation `{equation}` has {} terms, got {}", terms.len(), x.count())));
    }
    let mut named: Vec<Vec<i32>> = Vec::new();
    let mut sizes: Vec<(i32, usize)> = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        let shape = x.need(i)?.shape;
        let list = labels(term, Some(shape.len()))?;
        if list.len() != shape.len() {
            return Err(Error::model(format!("`{term}` names {} axes of shape {shape:?}", list.len())));
        }
        for (&l, &d) in list.iter().zip(shape) {
            match sizes.iter_mut().find(|s| s.0 == l) {
                None => sizes.push((l, d)),
                Some(s) if s.1 == d || d == 1 => {}
                Some(s) if s.1 == 1 => s.1 = d,
                Some(s) => return Err(Error::model(format!("an axis of `{equation}` has sizes {} and {d}", s.1))),
            }
        }
        named.push(list);
    }
    let dots = sizes.iter().map(|s| -s.0).max().unwrap_or(0).max(0);
    let out = match right {
        Some(term) => {
            let letters = term.chars().filter(char::is_ascii_alphabetic).count();
            labels(term, Some(letters + if term.contains("...") { dots as usize } else { 0 }))?
        }
        None => {
            let once = |l: i32| named.iter().flatten().filter(|&&n| n == l).count() == 1;
            let mut single: Vec<i32> = sizes.iter().map(|s| s.0).filter(|&l| l > 0 && once(l)).collect();
            single.sort_unstable();
            (1..=dots).rev().map(|k| -k).chain(single).collect()
        }
    };
    let mut order = out.clone();
    order.extend(sizes.iter().map(|s| s.0).filter(|l| !out.contains(l)));
    let size = |l: &i32| {
        let found = sizes.iter().find(|s| s.0 == *l).map(|s| s.1);
        found.ok_or_else(|| Error::model(format!("the result of `{equation}` has an axis that no operand has")))
    };
    let twice = (1..out.len()).any(|k| out[..k].contains(&out[k]));
    let plan_sizes: Vec<usize> = order.iter().map(size).collect::<Result<_>>()?;
    let total = plan_sizes.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= LIMIT);
    if twice || total.is_none() {
        return Err(Error::model(format!("equation `{equation}` repeats an axis or sums over too many elements")));
    }
    let mut all = Vec::new();
    for (i, list) in named.iter().enumerate() {
        let shape = x.need(i)?.shape;
        let own = strides(shape);
        let along = |l: &i32| (0..list.len()).filter(|&k| list[k] == *l && shape[k] > 1).map(|k| own[k]).sum();
        all.push(order.iter().map(along).collect());
    }
    Ok(Plan { sizes: plan_sizes, kept: out.len(), strides: all })
}

impl Plan {
    /// Calls `f(element of the result, elements of the operands)` for every product.
    fn each(&self, mut f: impl FnMut(usize, &[usize])) {
        if self.sizes.contains(&0) {
            return;
        }
        let summed: usize = self.sizes[self.kept..].iter().product();
        let mut index = vec![0usize; self.sizes.len()];
        let mut at = vec![0usize; self.strides.len()];
        let mut count = 0;
        loop {
            f(count / summed, &at);
            count += 1;
            let mut a = index.len();
            loop {
                if a == 0 {
                    return;
                }
                a -= 1;
                index[a] += 1;
                at.iter_mut().zip(&self.strides).for_each(|(at, s)| *at += s[a]);
                if index[a] < self.sizes[a] {
                    break;
                }
                at.iter_mut().zip(&self.strides).for_each(|(at, s)| *at -= s[a] * index[a]);
                index[a] = 0;
            }
        }
    }
}

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let first = x.need(0)?;
    let shape = match op {
        Op::Einsum { equation } => {
            x.same_dtype(0..x.count())?;
            let plan = plan(equation, x)?;
            plan.sizes[..plan.kept].to_vec()
        }
        _ => match first.shape {
            [batch @ .., n, m] if n == m => batch.to_vec(),
            shape => return Err(Error::model(format!("determinants need square matrices, got shape {shape:?}"))),
        },
    };
    Ok(vec![(first.dtype, shape)])
}

/// Determinant of the n×n matrix `a`, which is destroyed.
fn determinant<R: Real>(a: &mut [R], n: usize) -> R {
    let mut product = R::one();
    for k in 0..n {
        let pivot = (k..n).fold(k, |best, i| if a[i * n + k].abs() > a[best * n + k].abs() { i } else { best });
        if a[pivot * n + k] == R::zero() {
            return R::zero();
        }
        if pivot != k {
            (0..n).for_each(|j| a.swap(k * n + j, pivot * n + j));
            product = -product;
        }
        product *= a[k * n + k];
        for i in k + 1..n {
            let factor = a[i * n + k] / a[k * n + k];
            for j in k..n {
                let v = a[k * n + j];
                a[i * n + j] -= factor * v;
            }
        }
    }
    product
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let x = call.x(0)?;
    let mut y = vec![R::zero(); call.shape().iter().product()];
    if let Op::Einsum { equation } = op {
        let data: Vec<&[R]> = (0..call.sig.count()).map(|i| call.x(i).map(|v| v.data)).collect::<Result<_>>()?;
        plan(equation, &call.sig)?.each(|o, at| {
            y[o] += data.iter().zip(at).fold(R::one(), |p, (d, &i)| p * d[i]);
        });
        y.iter_mut().for_each(|v| *v = super::elementwise::to_integer(x.dtype, *v));
        return Ok(vec![y]);
    }
    let n = x.shape[x.shape.len() - 1];
    for (k, y) in y.iter_mut().enumerate() {
        *y = determinant(&mut x.data[k * n * n..][..n * n].to_vec(), n);
    }
    Ok(vec![y])
}

pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    let (x, g) = (back.call.x(0)?, back.g()?);
    if let Op::Einsum { equation } = op {
        let count = back.call.sig.count();
        let data: Vec<&[R]> = (0..count).map(|i| back.call.x(i).map(|v| v.data)).collect::<Result<_>>()?;
        let mut d: Vec<Vec<R>> = data.iter().map(|v| vec![R::zero(); v.len()]).collect();
        let wanted: Vec<usize> = (0..count).filter(|&i| back.wants(i)).collect();
        plan(equation, &back.call.sig)?.each(|o, at| {
            for &i in &wanted {
                let others = (0..count).filter(|&k| k != i).fold(g[o], |p, k| p * data[k][at[k]]);
                d[i][at[i]] += others;
            }
        });
        d.into_iter().enumerate().for_each(|(i, d)| back.set(i, d));
        return Ok(());
    }
    // The cofactors, which exist for singular matrices too.
    let n = x.shape[x.shape.len() - 1];
    let mut dx = vec![R::zero(); x.data.len()];
    for (p, d) in dx.iter_mut().enumerate() {
        let (k, row, column) = (p / (n * n), p / n % n, p % n);
        let rest = (0..n * n).filter(|i| i / n != row && i % n != column);
        let mut minor: Vec<R> = rest.map(|i| x.data[k * n * n + i]).collect();
        let sign = if (row + column) % 2 == 0 { R::one() } else { -R::one() };
        *d = g[k] * sign * determinant(&mut minor, n - 1);
    }
    back.set(0, dx);
    Ok(())
}
