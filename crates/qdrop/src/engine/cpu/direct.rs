//! Frequent operators of sequence networks on one sample, in vector instructions and without copies of operands.
//! Everything else runs by its specification, [`crate::engine::ops`], which this file agrees with to rounding.

use super::math::{erf, exp, sigmoid, sum, tanh, vectorized};
use super::matrix::{View, product};
use crate::graph::{Binary, Op, Unary};

/// What runs. Sizes are elements.
#[derive(Debug, Clone)]
pub(super) enum Direct {
    /// y = a ∘ b, where an operand shorter than y repeats.
    Binary(Binary),
    /// y = f(a).
    Unary(Unary),
    /// y = a in another shape.
    Copy,
    /// y's element at index i is a's at index `perm`(i); `shape` is y's, `strides` are a's in the order of y's axes.
    Transpose { shape: Vec<usize>, strides: Vec<usize> },
    /// Of rows of `n`.
    Softmax { n: usize },
    /// Of rows of `n`, operands x, scale, bias.
    LayerNorm { n: usize, epsilon: f32 },
    /// `batch` products of [m, k] and [k, n]; one right factor serves all where `one` is true.
    Product { batch: usize, one: bool, m: usize, k: usize, n: usize },
}

/// An operand as it is compiled: its shape, and whether it is of a float type.
pub(super) type Shape<'a> = (&'a [usize], bool);

impl Direct {
    /// The direct form of `op` with operands of these shapes and one result of shape `y`.
    pub fn of(op: &Op, operands: &[Option<Shape>], y: &[usize]) -> Option<Self> {
        let all: Vec<Shape> = operands.iter().copied().collect::<Option<_>>()?;
        if !all.iter().take(1).all(|s| s.1) || y.contains(&0) {
            return None;
        }
        let numel = |s: &[usize]| s.iter().product::<usize>();
        match (op, &all[..]) {
            (Op::Binary(b @ (Binary::Add | Binary::Sub | Binary::Mul | Binary::Div)), [(a, _), (b_, true)]) => {
                let whole = numel(a) == numel(y) || numel(b_) == numel(y);
                (whole && repeats(a, y) && repeats(b_, y)).then_some(Direct::Binary(*b))
            }
            (Op::Unary(u), [_]) => function(*u).then_some(Direct::Unary(*u)),
            (Op::Reshape { .. } | Op::Flatten { .. } | Op::Squeeze | Op::Unsqueeze | Op::Identity, [(a, _), ..]) => {
                (numel(a) == numel(y)).then_some(Direct::Copy)
            }
            (Op::Transpose { perm }, [(a, _)]) => {
                let strides = strides(a);
                let axis = |i: usize| match perm.is_empty() {
                    true => Some(a.len() - 1 - i),
                    false => perm.get(i).and_then(|&p| usize::try_from(p).ok()).filter(|&p| p < a.len()),
                };
                let strides = (0..a.len()).map(|i| axis(i).map(|p| strides[p])).collect::<Option<_>>()?;
                Some(Direct::Transpose { shape: y.to_vec(), strides })
            }
            (Op::Softmax { axis, log: false }, [(a, _)]) => {
                let last = *axis == -1 || *axis == a.len() as i64 - 1;
                last.then_some(Direct::Softmax { n: *a.last()? })
            }
            (Op::LayerNorm { axis, epsilon }, [(a, _), (scale, _), bias @ ..]) => {
                let last = *axis == -1 || *axis == a.len() as i64 - 1;
                let n = *a.last()?;
                let plain = numel(scale) == n && bias.iter().all(|b| numel(b.0) == n);
                (last && plain).then_some(Direct::LayerNorm { n, epsilon: *epsilon })
            }
            (Op::MatMul, [(a, _), (b, true)]) if a.len() >= 2 && b.len() >= 2 => {
                let ((ab, am), (bb, bm)) = (a.split_at(a.len() - 2), b.split_at(b.len() - 2));
                let (batch, one) = (numel(ab), numel(bb) == 1);
                let same = ab == bb || (one && numel(y) == batch * am[0] * bm[1]);
                same.then_some(Direct::Product { batch, one: one && batch > 1, m: am[0], k: am[1], n: bm[1] })
            }
            _ => None,
        }
    }

    /// Whether it may make NaN of numbers and infinities, as of a row that is masked as a whole.
    pub fn makes_nan(&self) -> bool {
        match self {
            Direct::Binary(op) => matches!(op, Binary::Sub | Binary::Div),
            Direct::Unary(op) => matches!(op, Unary::Log | Unary::Sqrt | Unary::Reciprocal),
            Direct::Softmax { .. } | Direct::LayerNorm { .. } => true,
            _ => false,
        }
    }

    /// Computes y from the operands `x`.
    pub fn forward(&self, x: &[&[f32]], y: &mut [f32]) {
        match self {
            Direct::Binary(op) => vectorized(
                #[inline(always)]
                || match op {
                    Binary::Add => both(x[0], x[1], y, |a, b| a + b),
                    Binary::Sub => both(x[0], x[1], y, |a, b| a - b),
                    Binary::Mul => both(x[0], x[1], y, |a, b| a * b),
                    _ => both(x[0], x[1], y, |a, b| a / b),
                },
            ),
            Direct::Unary(u) => apply(*u, x[0], y),
            Direct::Copy => y.copy_from_slice(x[0]),
            Direct::Transpose { shape, strides } => {
                moved(shape, strides, |to, from, n, step| match step {
                    1 => y[to..to + n].copy_from_slice(&x[0][from..from + n]),
                    _ => y[to..to + n].iter_mut().zip(x[0][from..].iter().step_by(step)).for_each(|(y, &x)| *y = x),
                });
            }
            Direct::Softmax { n } => x[0].chunks_exact(*n).zip(y.chunks_exact_mut(*n)).for_each(|(x, y)| softmax(x, y)),
            Direct::LayerNorm { n, epsilon } => {
                for (from, to) in x[0].chunks_exact(*n).zip(y.chunks_exact_mut(*n)) {
                    standardise(from, *epsilon, to);
                    let (scale, bias) = (x[1], x.get(2));
                    vectorized(
                        #[inline(always)]
                        || {
                            to.iter_mut().zip(scale).for_each(|(y, s)| *y *= s);
                            if let Some(bias) = bias {
                                to.iter_mut().zip(*bias).for_each(|(y, b)| *y += b);
                            }
                        },
                    );
                }
            }
            Direct::Product { .. } => self.products(|a, b, y_at| {
                product((&mut *y, y_at), false, (x[0], a), (x[1], b));
            }),
        }
    }

    /// The gradient of operand `i`, written into `dx`, for the operands `x`, the result y and its gradient `dy`.
    pub fn backward(&self, i: usize, x: &[&[f32]], y: &[f32], dy: &[f32], dx: &mut [f32]) {
        match self {
            Direct::Binary(op) => vectorized(
                #[inline(always)]
                || match (op, i) {
                    (Binary::Sub, 1) => folded(dx, dy, dy, dy, |g, _, _| -g),
                    (Binary::Add | Binary::Sub, _) => folded(dx, dy, dy, dy, |g, _, _| g),
                    (Binary::Mul, _) => folded(dx, dy, x[1 - i], dy, |g, o, _| g * o),
                    (_, 0) => folded(dx, dy, x[1], dy, |g, b, _| g / b),
                    (_, _) => folded(dx, dy, x[1], y, |g, b, y| -g * y / b),
                },
            ),
            Direct::Unary(u) => slope(*u, x[0], y, dy, dx),
            Direct::Copy => dx.copy_from_slice(dy),
            Direct::Transpose { shape, strides } => {
                moved(shape, strides, |to, from, n, step| match step {
                    1 => dx[from..from + n].copy_from_slice(&dy[to..to + n]),
                    _ => dx[from..].iter_mut().step_by(step).zip(&dy[to..to + n]).for_each(|(x, &y)| *x = y),
                });
            }
            Direct::Softmax { n } => {
                let rows = y.chunks_exact(*n).zip(dy.chunks_exact(*n)).zip(dx.chunks_exact_mut(*n));
                rows.for_each(|((y, g), dx)| {
                    vectorized(
                        #[inline(always)]
                        || {
                            let along = sum(y, g, |y, g| y * g) as f32;
                            dx.iter_mut().zip(y).zip(g).for_each(|((d, y), g)| *d = (g - along) * y);
                        },
                    );
                });
            }
            Direct::LayerNorm { n, epsilon } => {
                let mut z = vec![0.0; *n];
                let rows = x[0].chunks_exact(*n).zip(dy.chunks_exact(*n)).zip(dx.chunks_exact_mut(*n));
                for ((from, g), d) in rows {
                    let inverse = standardise(from, *epsilon, &mut z);
                    let (scale, z) = (&x[1][..*n], &z[..]);
                    vectorized(
                        #[inline(always)]
                        || {
                            d.iter_mut().zip(g).zip(scale).for_each(|((d, g), s)| *d = g * s);
                            let count = *n as f64;
                            let mean = (sum(d, z, |d, _| d) / count) as f32;
                            let along = (sum(d, z, |d, z| d * z) / count) as f32;
                            d.iter_mut().zip(z).for_each(|(d, z)| *d = (*d - mean - z * along) * inverse);
                        },
                    );
                }
            }
            Direct::Product { one, .. } => {
                let mut first = true;
                self.products(|a, b, at| {
                    let add = *one && !std::mem::take(&mut first);
                    match i {
                        0 => product((&mut *dx, a), false, (dy, at), (x[1], b.t())),
                        _ => product((&mut *dx, b), add, (x[0], a.t()), (dy, at)),
                    }
                });
            }
        }
    }

    /// Calls `f` with the places of each product's factors and result.
    fn products(&self, mut f: impl FnMut(View, View, View)) {
        let Direct::Product { batch, one, m, k, n } = *self else { return };
        for i in 0..batch {
            let right = if one { 0 } else { i };
            f(View::rows(i * m * k, m, k, k), View::rows(right * k * n, k, n, n), View::rows(i * m * n, m, n, n));
        }
    }
}

/// Whether `shape`, leading ones aside, is the end of `y`, so that its elements repeat along y.
fn repeats(shape: &[usize], y: &[usize]) -> bool {
    let ones = shape.iter().take_while(|&&d| d == 1).count();
    y.ends_with(&shape[ones..])
}

/// Distance between neighbours along each axis of a contiguous array.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// Calls `f` with the position in a contiguous result of `shape` and in the operand, the length and the operand's step
/// for every run along the last axis.
fn moved(shape: &[usize], strides: &[usize], mut f: impl FnMut(usize, usize, usize, usize)) {
    let Some((&n, outer)) = shape.split_last() else { return f(0, 0, 1, 1) };
    let step = strides[outer.len()];
    let mut index = vec![0; outer.len()];
    let (mut to, mut from) = (0, 0);
    loop {
        f(to, from, n, step);
        to += n;
        let mut axis = outer.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            from += strides[axis];
            if index[axis] < outer[axis] {
                break;
            }
            from -= index[axis] * strides[axis];
            index[axis] = 0;
        }
    }
}

#[inline(always)]
fn both(a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    let n = a.len().min(b.len());
    if a.len() == b.len() {
        y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = f(a, b));
    } else if let [b] = *b {
        y.iter_mut().zip(a).for_each(|(y, &a)| *y = f(a, b));
    } else if let [a] = *a {
        y.iter_mut().zip(b).for_each(|(y, &b)| *y = f(a, b));
    } else if b.len() == n {
        let rows = y.chunks_exact_mut(n).zip(a.chunks_exact(n));
        rows.for_each(|(y, a)| y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = f(a, b)));
    } else {
        let rows = y.chunks_exact_mut(n).zip(b.chunks_exact(n));
        rows.for_each(|(y, b)| y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = f(a, b)));
    }
}

/// dx = Σ f(dy, other, y) over the elements that one of dx goes to; `other` repeats where it is shorter than dy.
#[inline(always)]
fn folded(dx: &mut [f32], dy: &[f32], other: &[f32], y: &[f32], f: impl Fn(f32, f32, f32) -> f32) {
    let n = dx.len();
    if n == dy.len() {
        if other.len() == n {
            dx.iter_mut().zip(dy).zip(other).zip(y).for_each(|(((d, &g), &o), &y)| *d = f(g, o, y));
        } else if let [o] = *other {
            dx.iter_mut().zip(dy).zip(y).for_each(|((d, &g), &y)| *d = f(g, o, y));
        } else {
            let m = other.len();
            let rows = dx.chunks_exact_mut(m).zip(dy.chunks_exact(m)).zip(y.chunks_exact(m));
            rows.for_each(|((d, g), y)| {
                d.iter_mut().zip(g).zip(other).zip(y).for_each(|(((d, &g), &o), &y)| *d = f(g, o, y));
            });
        }
        return;
    }
    dx.fill(0.0);
    for (k, (g, y)) in dy.chunks_exact(n).zip(y.chunks_exact(n)).enumerate() {
        let o = if other.len() == dy.len() { &other[k * n..(k + 1) * n] } else { &other[..n] };
        dx.iter_mut().zip(g).zip(o).zip(y).for_each(|(((d, &g), &o), &y)| *d += f(g, o, y));
    }
}

fn softmax(x: &[f32], y: &mut [f32]) {
    // Below this an element is 0: smaller ones would not be normal numbers, which are slow.
    const LEAST: f32 = -80.0;
    vectorized(
        #[inline(always)]
        || {
            let most = x.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
            y.iter_mut().zip(x).for_each(|(y, &x)| {
                let e = exp(x - most);
                *y = if x - most > LEAST { e } else { 0.0 };
            });
            let total = sum(y, y, |v, _| v);
            let inverse = (1.0 / total) as f32;
            y.iter_mut().for_each(|y| *y *= inverse);
        },
    );
}

/// z = (x - mean) / sqrt(var + epsilon) of one row; returns 1 / sqrt(var + epsilon).
fn standardise(x: &[f32], epsilon: f32, z: &mut [f32]) -> f32 {
    vectorized(
        #[inline(always)]
        || {
            let count = x.len() as f64;
            let mean = (sum(x, x, |v, _| v) / count) as f32;
            z.iter_mut().zip(x).for_each(|(z, &x)| *z = x - mean);
            let variance = sum(z, z, |v, _| v * v) / count;
            let inverse = (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32;
            z.iter_mut().for_each(|z| *z *= inverse);
            inverse
        },
    )
}

/// Whether [`apply`] and [`slope`] know the function.
fn function(u: Unary) -> bool {
    matches!(
        u,
        Unary::Erf
            | Unary::Tanh
            | Unary::Sigmoid
            | Unary::Exp
            | Unary::Sqrt
            | Unary::Reciprocal
            | Unary::Neg
            | Unary::Relu
            | Unary::HardSwish
            | Unary::Gelu { .. }
    )
}

/// sqrt(1/2).
const HALF_ROOT: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// sqrt(2/π) and the cubic term of GELU's tanh form (Hendrycks and Gimpel 2016).
const GELU: (f32, f32) = (0.797_884_6, 0.044_715);

fn apply(u: Unary, x: &[f32], y: &mut [f32]) {
    #[inline(always)]
    fn each(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x));
    }
    vectorized(
        #[inline(always)]
        || match u {
            Unary::Erf => each(x, y, erf),
            Unary::Tanh => each(x, y, tanh),
            Unary::Sigmoid => each(x, y, sigmoid),
            Unary::Exp => each(x, y, exp),
            Unary::Sqrt => each(x, y, f32::sqrt),
            Unary::Reciprocal => each(x, y, |x| 1.0 / x),
            Unary::Neg => each(x, y, |x| -x),
            Unary::HardSwish => each(x, y, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            Unary::Gelu { tanh: false } => each(x, y, |x| 0.5 * x * (1.0 + erf(x * HALF_ROOT))),
            Unary::Gelu { tanh: true } => each(x, y, |x| 0.5 * x * (1.0 + tanh(GELU.0 * (x + GELU.1 * x * x * x)))),
            // NaN stays NaN.
            _ => each(x, y, |x| if x < 0.0 { 0.0 } else { x }),
        },
    );
}

/// dx = f'(x)·dy, y = f(x).
fn slope(u: Unary, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32]) {
    #[inline(always)]
    fn each(v: &[f32], dy: &[f32], dx: &mut [f32], f: impl Fn(f32) -> f32) {
        dx.iter_mut().zip(v).zip(dy).for_each(|((d, &v), &g)| *d = f(v) * g);
    }
    vectorized(
        #[inline(always)]
        || match u {
            Unary::Erf => each(x, dy, dx, |x| std::f32::consts::FRAC_2_SQRT_PI * exp(-x * x)),
            Unary::Tanh => each(y, dy, dx, |y| 1.0 - y * y),
            Unary::Sigmoid => each(y, dy, dx, |y| y * (1.0 - y)),
            Unary::Exp => each(y, dy, dx, |y| y),
            Unary::Sqrt => each(y, dy, dx, |y| 0.5 / y),
            Unary::Reciprocal => each(y, dy, dx, |y| -y * y),
            Unary::Neg => each(x, dy, dx, |_| -1.0),
            Unary::HardSwish => each(x, dy, dx, |x| {
                let inner = x / 3.0 + 0.5;
                if x < -3.0 {
                    0.0
                } else if x > 3.0 {
                    1.0
                } else {
                    inner
                }
            }),
            Unary::Gelu { tanh: false } => each(x, dy, dx, |x| {
                let density = 0.5 * GELU.0 * exp(-0.5 * x * x);
                0.5 * (1.0 + erf(x * HALF_ROOT)) + x * density
            }),
            Unary::Gelu { tanh: true } => each(x, dy, dx, |x| {
                let t = tanh(GELU.0 * (x + GELU.1 * x * x * x));
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * GELU.0 * (1.0 + 3.0 * GELU.1 * x * x)
            }),
            _ => each(x, dy, dx, |x| if x > 0.0 { 1.0 } else { 0.0 }),
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops;
    use crate::engine::philox::Stream;
    use crate::tensor::DType;

    fn noise(purpose: u32, n: usize) -> Vec<f32> {
        let level = |v: usize| v as f32 / (1 << 19) as f32 - 1.0;
        Stream::new(3, 1, purpose, 0).below(n, 1 << 20).into_iter().map(level).collect()
    }

    /// Holds the direct form against the specification in double precision: result and every gradient.
    fn check(op: Op, shapes: &[&[usize]], change: impl Fn(f32) -> f32) {
        let numel = |s: &[usize]| s.iter().product::<usize>();
        let x: Vec<Vec<f32>> = shapes
            .iter()
            .enumerate()
            .map(|(i, s)| noise(i as u32, numel(s)).into_iter().map(&change).collect())
            .collect();
        let wide: Vec<Vec<f64>> = x.iter().map(|x| x.iter().map(|&v| f64::from(v)).collect()).collect();
        let view = |(data, shape): (&'_ Vec<f64>, &&'_ [usize])| (data.clone(), shape.to_vec());
        let owned: Vec<(Vec<f64>, Vec<usize>)> = wide.iter().zip(shapes).map(view).collect();
        let views: Vec<Option<ops::View<f64>>> =
            owned.iter().map(|(data, shape)| Some(ops::View { dtype: DType::F32, shape, data })).collect();
        let want = ops::forward(&op, &views, 1).unwrap().remove(0);
        let operands: Vec<Option<Shape>> = shapes.iter().map(|s| Some((*s, true))).collect();
        let direct = Direct::of(&op, &operands, &want.shape).unwrap_or_else(|| panic!("{op:?} has no direct form"));
        let slices: Vec<&[f32]> = x.iter().map(Vec::as_slice).collect();
        let mut y = vec![f32::NAN; want.data.len()];
        direct.forward(&slices, &mut y);
        let near = |got: &[f32], want: &[f64], what: &str| {
            for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
                assert!((f64::from(g) - w).abs() < 1e-5 * w.abs().max(1.0), "{op:?} {what} {i}: {g} instead of {w}");
            }
        };
        near(&y, &want.data, "result");
        let dy = noise(99, y.len());
        let wide_dy: Vec<f64> = dy.iter().map(|&v| f64::from(v)).collect();
        let result = ops::View { dtype: DType::F32, shape: &want.shape, data: &want.data };
        let wanted = vec![true; shapes.len()];
        let found = ops::backward(&op, &views, &[result], &[Some(&wide_dy)], &wanted).unwrap();
        for (i, gradient) in found.iter().enumerate() {
            if matches!(op, Op::LayerNorm { .. }) && i > 0 {
                continue;
            }
            let mut dx = vec![f32::NAN; x[i].len()];
            direct.backward(i, &slices, &y, &dy, &mut dx);
            near(&dx, gradient.as_ref().unwrap(), "gradient");
        }
    }

    #[test]
    fn direct_forms_follow_the_specification() {
        let same = |v| v;
        let positive = |v: f32| v.abs() + 0.5;
        for b in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div] {
            for [a, c] in [
                [&[1, 3, 5][..], &[1, 3, 5][..]],
                [&[1, 3, 5], &[5]],
                [&[5], &[2, 3, 5]],
                [&[1, 2, 3, 4], &[1, 1, 3, 4]],
                [&[1, 2, 3, 4], &[1]],
                [&[], &[1, 2, 3, 4]],
            ] {
                check(Op::Binary(b), &[a, c], positive);
            }
        }
        for u in [
            Unary::Erf,
            Unary::Tanh,
            Unary::Sigmoid,
            Unary::Exp,
            Unary::Neg,
            Unary::Relu,
            Unary::HardSwish,
            Unary::Gelu { tanh: false },
            Unary::Gelu { tanh: true },
        ] {
            check(Op::Unary(u), &[&[1, 300]], |v| 5.0 * v);
        }
        // Where its pieces meet.
        check(Op::Unary(Unary::HardSwish), &[&[1, 300]], |v| if v < 0.0 { -3.0 } else { 3.0 });
        for u in [Unary::Sqrt, Unary::Reciprocal] {
            check(Op::Unary(u), &[&[1, 300]], positive);
        }
        for perm in [vec![0, 2, 1, 3], vec![0, 2, 3, 1], vec![3, 2, 1, 0], vec![], vec![0, 1, 2, 3]] {
            check(Op::Transpose { perm }, &[&[1, 3, 4, 5]], same);
        }
        check(Op::Softmax { axis: -1, log: false }, &[&[1, 2, 3, 70]], |v| 9.0 * v);
        check(Op::LayerNorm { axis: -1, epsilon: 1e-5 }, &[&[1, 3, 70], &[70], &[70]], same);
        check(Op::LayerNorm { axis: 2, epsilon: 1e-5 }, &[&[1, 3, 70], &[70]], same);
        check(Op::MatMul, &[&[1, 3, 4, 5], &[1, 3, 5, 6]], same);
        check(Op::MatMul, &[&[1, 3, 4, 5], &[5, 6]], same);
    }

    #[test]
    fn masked_elements_have_no_share() {
        let mut y = [f32::NAN; 4];
        Direct::Softmax { n: 4 }.forward(&[&[1.0, f32::MIN, 1.0, -1e4]], &mut y);
        assert_eq!(y, [0.5, 0.0, 0.5, 0.0]);
    }

    #[test]
    fn what_it_cannot_do_is_left_to_the_specification() {
        let of = |op: Op, shapes: &[&[usize]], y: &[usize]| {
            let operands: Vec<Option<Shape>> = shapes.iter().map(|s| Some((*s, true))).collect();
            Direct::of(&op, &operands, y).is_some()
        };
        assert!(!of(Op::Binary(Binary::Add), &[&[3, 1], &[1, 3]], &[3, 3]), "both repeat");
        assert!(!of(Op::Binary(Binary::Add), &[&[2, 3], &[2, 1]], &[2, 3]), "repeats inside");
        assert!(!of(Op::Softmax { axis: 1, log: false }, &[&[1, 2, 3]], &[1, 2, 3]), "not the last axis");
        assert!(!of(Op::MatMul, &[&[2, 3, 4], &[3, 2, 4, 5]], &[3, 2, 3, 5]), "other batches");
        assert!(!of(Op::Unary(Unary::Mish), &[&[2]], &[2]));
    }
}
