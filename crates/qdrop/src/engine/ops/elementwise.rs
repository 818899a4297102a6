//! Element-wise functions: of one tensor, of broadcast tensors, Clip, Where and Cast.

use super::call::{Back, Call, Operands, Shaped};
use super::index::{broadcast, broadcast_strides, each};
use super::unary::{max, min, slope, value};
use super::{Real, View};
use crate::error::{Error, Result};
use crate::graph::{Binary, Op, Unary, Variadic};
use crate::tensor::DType;
use half::{bf16, f16};

pub(super) fn infer(op: &Op, x: &Operands) -> Result<Vec<Shaped>> {
    let first = x.need(0)?;
    let all = || (0..x.count()).map(|i| x.need(i).map(|o| o.shape)).collect::<Result<Vec<_>>>();
    let shape = match op {
        Op::Unary(_) | Op::Clip | Op::Cast { .. } | Op::CastLike => first.shape.to_vec(),
        Op::Binary(_) => broadcast([first.shape, x.need(1)?.shape])?,
        Op::Where => broadcast([first.shape, x.need(1)?.shape, x.need(2)?.shape])?,
        _ => broadcast(all()?)?,
    };
    let dtype = match op {
        Op::Unary(Unary::IsNan | Unary::IsInf { .. }) => DType::Bool,
        Op::Unary(Unary::BitwiseNot) => expect_int(x, 0)?,
        Op::Binary(Binary::BitwiseAnd | Binary::BitwiseOr | Binary::BitwiseXor | Binary::BitShift { .. }) => {
            x.same_dtype([0, 1])?;
            expect_int(x, 0)?
        }
        Op::Unary(Unary::Not) => expect_bool(x, 0)?,
        Op::Binary(Binary::And | Binary::Or | Binary::Xor) => {
            expect_bool(x, 0)?;
            expect_bool(x, 1)?
        }
        Op::Binary(Binary::Pow) => first.dtype,
        Op::Binary(b) => {
            x.same_dtype([0, 1])?;
            if is_comparison(*b) { DType::Bool } else { first.dtype }
        }
        Op::Variadic(_) => {
            x.same_dtype(0..x.count())?;
            first.dtype
        }
        Op::Clip => {
            x.same_dtype([0, 1, 2])?;
            for i in [1, 2] {
                if let Some(o) = x.opt(i).filter(|o| o.shape.iter().any(|&d| d != 1)) {
                    return Err(Error::model(format!("operand {i} must be a scalar, got shape {:?}", o.shape)));
                }
            }
            first.dtype
        }
        Op::Where => {
            expect_bool(x, 0)?;
            x.same_dtype([1, 2])?;
            x.need(1)?.dtype
        }
        Op::Cast { to } => {
            return infer_cast(first.dtype, *to, shape);
        }
        Op::CastLike => return infer_cast(first.dtype, x.need(1)?.dtype, shape),
        _ => first.dtype,
    };
    Ok(vec![(dtype, shape)])
}

fn infer_cast(from: DType, to: DType, shape: Vec<usize>) -> Result<Vec<Shaped>> {
    let computed = |d: DType| d.is_int() || d == DType::Bool || FLOATS.contains(&d);
    if let Some(bad) = [from, to].into_iter().find(|&d| !computed(d)) {
        return Err(Error::unsupported(format!("cannot compute with elements of type {bad:?}")));
    }
    Ok(vec![(to, shape)])
}

const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

fn expect_bool(x: &Operands, i: usize) -> Result<DType> {
    match x.need(i)?.dtype {
        DType::Bool => Ok(DType::Bool),
        other => Err(Error::model(format!("operand {i} must be Bool, got {other:?}"))),
    }
}

fn expect_int(x: &Operands, i: usize) -> Result<DType> {
    match x.need(i)?.dtype {
        dtype if dtype.is_int() => Ok(dtype),
        other => Err(Error::model(format!("operand {i} must be an integer, got {other:?}"))),
    }
}

fn is_comparison(op: Binary) -> bool {
    use Binary::*;
    matches!(op, Equal | Less | LessOrEqual | Greater | GreaterOrEqual)
}

/// Remainder with the sign of the divisor.
fn modulo<R: Real>(a: R, b: R) -> R {
    let r = a % b;
    if r != R::zero() && (r < R::zero()) != (b < R::zero()) { r + b } else { r }
}

/// A function of bits, in two's complement of any width.
fn bitwise<R: Real>(op: Binary, a: R, b: R) -> R {
    let (a, b) = (a.f64() as i128, b.f64() as i128);
    R::of(match op {
        Binary::BitwiseAnd => a & b,
        Binary::BitwiseOr => a | b,
        Binary::BitwiseXor => a ^ b,
        _ => 0,
    } as f64)
}

/// `a` shifted by `b` bits in type `dtype`; a count outside of the type's width shifts everything out.
fn shift<R: Real>(left: bool, dtype: DType, a: R, b: R) -> R {
    let (a, b) = (a.f64() as i128, b.f64() as i128);
    let inside = (0..dtype.bits() as i128).contains(&b);
    R::of(match (left, inside) {
        // What leaves the type is cut off where the result is brought back to it.
        (true, true) => (a & ((1 << (dtype.bits() as i128 - b)) - 1)) << b,
        (true, false) => 0,
        (false, true) => a >> b,
        (false, false) => a >> 127,
    } as f64)
}

fn binary<R: Real>(op: Binary, a: R, b: R) -> R {
    let (zero, one) = (R::zero(), R::one());
    let truth = |t: bool| if t { one } else { zero };
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Pow => a.powf(b),
        Binary::PRelu => {
            if a < zero {
                a * b
            } else {
                a
            }
        }
        Binary::Mod { fmod: true } => a % b,
        Binary::Mod { fmod: false } => modulo(a, b),
        Binary::Equal => truth(a == b),
        Binary::Less => truth(a < b),
        Binary::LessOrEqual => truth(a <= b),
        Binary::Greater => truth(a > b),
        Binary::GreaterOrEqual => truth(a >= b),
        Binary::And => truth(a != zero && b != zero),
        Binary::Or => truth(a != zero || b != zero),
        Binary::Xor => truth((a != zero) != (b != zero)),
        Binary::BitwiseAnd | Binary::BitwiseOr | Binary::BitwiseXor => bitwise(op, a, b),
        Binary::BitShift { .. } => zero,
    }
}

/// Derivatives with respect to both operands, given the result.
fn binary_slopes<R: Real>(op: Binary, a: R, b: R, y: R) -> (R, R) {
    let (zero, one) = (R::zero(), R::one());
    match op {
        Binary::Add => (one, one),
        Binary::Sub => (one, -one),
        Binary::Mul => (b, a),
        Binary::Div => (b.recip(), -y / b),
        Binary::Pow => {
            let da = if b == zero { zero } else { b * a.powf(b - one) };
            let db = if a == zero && b >= zero { zero } else { y * a.ln() };
            (da, db)
        }
        Binary::PRelu => {
            if a > zero {
                (one, zero)
            } else {
                (b, a)
            }
        }
        Binary::Mod { fmod: true } => (one, -(a / b).trunc()),
        Binary::Mod { fmod: false } => (one, -(a / b).floor()),
        _ => (zero, zero),
    }
}

/// Brings a number to what integer type `dtype` can hold: fraction dropped, wrapped around; others unchanged.
pub(super) fn to_integer<R: Real>(dtype: DType, x: R) -> R {
    let Some((low, high)) = dtype.int_range() else { return x };
    if !x.is_finite() {
        return R::zero();
    }
    let (x, size) = (x.trunc(), (high - low + 1) as f64);
    if x.f64() >= low as f64 && x.f64() <= high as f64 {
        return x;
    }
    R::of((x.f64() - low as f64).rem_euclid(size) + low as f64)
}

fn cast<R: Real>(from: DType, to: DType, x: R) -> R {
    match to {
        DType::Bool => {
            if x == R::zero() {
                x.abs()
            } else {
                R::one()
            }
        }
        DType::F32 if from == DType::F64 => R::of(x.f64() as f32 as f64),
        DType::F16 if from != to => R::of(f16::from_f64(x.f64()).to_f64()),
        DType::BF16 if from != to => R::of(bf16::from_f64(x.f64()).to_f64()),
        _ => match to.int_range() {
            None => x,
            Some(_) if !from.is_float() => to_integer(to, x),
            Some(_) if x.is_nan() => R::zero(),
            // ONNX keeps the low bits in types narrower than a byte; elsewhere overflow is undefined and saturates.
            Some(_) if to.bits() < 8 => to_integer(to, x),
            Some((low, high)) => x.trunc().max(R::of(low as f64)).min(R::of(high as f64)),
        },
    }
}

/// Calls `f(o, [ia, ib])` for every element o of `shape` with the elements of a and b it is made of.
fn pairs(shape: &[usize], a: &[usize], b: &[usize], f: impl FnMut(usize, [usize; 2])) {
    each(shape, [&broadcast_strides(a, shape), &broadcast_strides(b, shape)], f);
}

fn combine<R: Real>(shape: &[usize], a: View<R>, b: View<R>, f: impl Fn(R, R) -> R) -> Vec<R> {
    if a.shape == shape && b.shape == shape {
        return a.data.iter().zip(b.data).map(|(&a, &b)| f(a, b)).collect();
    }
    let mut y = vec![R::zero(); shape.iter().product()];
    pairs(shape, a.shape, b.shape, |o, [i, j]| y[o] = f(a.data[i], b.data[j]));
    y
}

fn scalar<R: Real>(x: Option<View<R>>, default: R) -> R {
    x.and_then(|v| v.data.first().copied()).unwrap_or(default)
}

pub(super) fn forward<R: Real>(op: &Op, call: &Call<R>) -> Result<Vec<Vec<R>>> {
    let x = call.x(0)?;
    let shape = call.shape();
    let mut y = match op {
        Op::Unary(u) => x.data.iter().map(|&v| value(*u, v)).collect(),
        Op::Binary(Binary::BitShift { left }) => combine(shape, x, call.x(1)?, |a, c| shift(*left, x.dtype, a, c)),
        Op::Binary(b) => combine(shape, x, call.x(1)?, |a, c| binary(*b, a, c)),
        Op::Clip => {
            let (low, high) = (scalar(call.opt(1), R::neg_infinity()), scalar(call.opt(2), R::infinity()));
            x.data.iter().map(|&v| min(max(v, low), high)).collect()
        }
        Op::Where => {
            let (a, b) = (call.x(1)?, call.x(2)?);
            let strides = [x, a, b].map(|v| broadcast_strides(v.shape, shape));
            let mut y = vec![R::zero(); shape.iter().product()];
            each(shape, [&strides[0], &strides[1], &strides[2]], |o, [c, i, j]| {
                y[o] = if x.data[c] != R::zero() { a.data[i] } else { b.data[j] };
            });
            y
        }
        Op::Cast { .. } | Op::CastLike => {
            let to = call.out[0].0;
            x.data.iter().map(|&v| cast(x.dtype, to, v)).collect()
        }
        Op::Variadic(kind) => {
            let zero = [R::zero()];
            let nothing = View { dtype: x.dtype, shape: &[], data: &zero };
            let mut y = combine(shape, x, nothing, |a, _| a);
            for i in 1..call.sig.count() {
                let b = call.x(i)?;
                let a = View { dtype: x.dtype, shape, data: &y };
                y = match kind {
                    Variadic::Min => combine(shape, a, b, min),
                    Variadic::Max => combine(shape, a, b, max),
                    Variadic::Sum | Variadic::Mean => combine(shape, a, b, |a, b| a + b),
                };
            }
            if *kind == Variadic::Mean {
                let n = R::of(call.sig.count() as f64);
                y.iter_mut().for_each(|v| *v /= n);
            }
            y
        }
        _ => return Err(Error::internal(format!("{} is not element-wise", op.kind()))),
    };
    let dtype = call.out[0].0;
    if dtype.is_int() && !matches!(op, Op::Cast { .. } | Op::CastLike | Op::Where) {
        y.iter_mut().for_each(|v| *v = to_integer(dtype, *v));
    }
    Ok(vec![y])
}

/// Equal extremes of a Min or Max share the gradient; Clip passes it within its closed range.
pub(super) fn backward<R: Real>(op: &Op, back: &mut Back<R>) -> Result<()> {
    let (x, y, g) = (back.call.x(0)?, back.y()?, back.g()?);
    let zeros = |v: &View<R>| vec![R::zero(); v.data.len()];
    match op {
        Op::Unary(u) => {
            let dx = (0..g.len()).map(|i| g[i] * slope(*u, x.data[i], y.data[i])).collect();
            back.set(0, dx);
        }
        Op::Cast { .. } | Op::CastLike => back.set(0, g.to_vec()),
        Op::Clip => {
            let low = scalar(back.call.opt(1), R::neg_infinity());
            let high = scalar(back.call.opt(2), R::infinity());
            let sum = |side: &dyn Fn(R) -> bool| {
                vec![x.data.iter().zip(g).filter(|(x, _)| side(**x)).fold(R::zero(), |s, (_, &g)| s + g)]
            };
            let dx = x.data.iter().zip(g).map(|(&x, &g)| if x >= low && x <= high { g } else { R::zero() }).collect();
            let (below, above) = (sum(&|x| x < low && low <= high), sum(&|x| x > high || low > high));
            back.set(0, dx);
            back.set(1, below);
            back.set(2, above);
        }
        Op::Binary(kind) => {
            let b = back.call.x(1)?;
            let (mut da, mut db) = (zeros(&x), zeros(&b));
            pairs(y.shape, x.shape, b.shape, |o, [i, j]| {
                let (sa, sb) = binary_slopes(*kind, x.data[i], b.data[j], y.data[o]);
                da[i] += g[o] * sa;
                db[j] += g[o] * sb;
            });
            back.set(0, da);
            back.set(1, db);
        }
        Op::Where => {
            let (a, b) = (back.call.x(1)?, back.call.x(2)?);
            let strides = [x, a, b].map(|v| broadcast_strides(v.shape, y.shape));
            let (mut da, mut db) = (zeros(&a), zeros(&b));
            each(y.shape, [&strides[0], &strides[1], &strides[2]], |o, [c, i, j]| {
                if x.data[c] != R::zero() {
                    da[i] += g[o];
                } else {
                    db[j] += g[o];
                }
            });
            back.set(1, da);
            back.set(2, db);
        }
        Op::Variadic(kind) => {
            let n = back.call.sig.count();
            let extreme = matches!(kind, Variadic::Min | Variadic::Max);
            let mut ties = vec![R::zero(); if extreme { g.len() } else { 0 }];
            let same = |a: R, b: R| a == b || (a.is_nan() && b.is_nan());
            for i in (0..n).filter(|_| extreme) {
                let v = back.call.x(i)?;
                each(y.shape, [&broadcast_strides(v.shape, y.shape)], |o, [k]| {
                    if same(v.data[k], y.data[o]) {
                        ties[o] += R::one();
                    }
                });
            }
            for i in 0..n {
                let v = back.call.x(i)?;
                let mut d = zeros(&v);
                each(y.shape, [&broadcast_strides(v.shape, y.shape)], |o, [k]| match kind {
                    Variadic::Sum => d[k] += g[o],
                    Variadic::Mean => d[k] += g[o] / R::of(n as f64),
                    _ if same(v.data[k], y.data[o]) => d[k] += g[o] / ties[o],
                    _ => {}
                });
                back.set(i, d);
            }
        }
        _ => return Err(Error::internal(format!("{} is not element-wise", op.kind()))),
    }
    Ok(())
}
