//! Element-wise functions of one tensor and their derivatives.

use super::Real;
use crate::graph::Unary;

/// Largest of two numbers; NaN if either is.
pub(super) fn max<R: Real>(a: R, b: R) -> R {
    if a.is_nan() || a > b { a } else { b }
}

/// Smallest of two numbers; NaN if either is.
pub(super) fn min<R: Real>(a: R, b: R) -> R {
    if a.is_nan() || a < b { a } else { b }
}

/// Rounds half to even.
pub(super) fn round_even<R: Real>(x: R) -> R {
    let two = R::one() + R::one();
    if (x - x.trunc()).abs() * two == R::one() { (x / two).round() * two } else { x.round() }
}

fn erf<R: Real>(x: R) -> R {
    R::of(libm::erf(x.f64()))
}

fn sigmoid<R: Real>(x: R) -> R {
    R::one() / (R::one() + (-x).exp())
}

fn softplus<R: Real>(x: R) -> R {
    max(x, R::zero()) + (-x.abs()).exp().ln_1p()
}

/// Argument of the tanh in the approximation of the Gaussian error linear unit, and its derivative.
fn gelu_inner<R: Real>(x: R) -> (R, R) {
    let c = R::of((2.0 / std::f64::consts::PI).sqrt());
    let a = R::of(0.044715);
    (c * (x + a * x * x * x), c * (R::one() + R::of(3.0) * a * x * x))
}

/// f(x).
pub(super) fn value<R: Real>(op: Unary, x: R) -> R {
    let (zero, one) = (R::zero(), R::one());
    let c = |v: f32| R::of(v as f64);
    match op {
        Unary::Relu => {
            if x < zero {
                zero
            } else {
                x
            }
        }
        Unary::Sigmoid => sigmoid(x),
        Unary::Tanh => x.tanh(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Reciprocal => x.recip(),
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => round_even(x),
        Unary::Sign => {
            if x == zero || x.is_nan() {
                x
            } else {
                x.signum()
            }
        }
        Unary::Erf => erf(x),
        Unary::HardSwish => x * max(zero, min(one, x / R::of(6.0) + R::of(0.5))),
        Unary::Softplus => softplus(x),
        Unary::Softsign => x / (one + x.abs()),
        Unary::Mish => x * softplus(x).tanh(),
        Unary::Not => {
            if x == zero {
                one
            } else {
                zero
            }
        }
        Unary::Tan => x.tan(),
        Unary::Asin => x.asin(),
        Unary::Acos => x.acos(),
        Unary::Atan => x.atan(),
        Unary::Sinh => x.sinh(),
        Unary::Cosh => x.cosh(),
        Unary::Asinh => x.asinh(),
        Unary::Acosh => x.acosh(),
        Unary::Atanh => x.atanh(),
        Unary::IsNan => {
            if x.is_nan() {
                one
            } else {
                zero
            }
        }
        Unary::IsInf { negative, positive } => {
            if (negative && x == R::neg_infinity()) || (positive && x == R::infinity()) { one } else { zero }
        }
        // In two's complement; unsigned types wrap it around.
        Unary::BitwiseNot => -x - one,
        Unary::Shrink { bias, lambd } => {
            if x < -c(lambd) {
                x + c(bias)
            } else if x > c(lambd) {
                x - c(bias)
            } else {
                zero
            }
        }
        Unary::Swish { alpha } => x * sigmoid(c(alpha) * x),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::LeakyRelu { alpha } => {
            if x < zero {
                c(alpha) * x
            } else {
                x
            }
        }
        Unary::Elu { alpha } => {
            if x < zero {
                c(alpha) * x.exp_m1()
            } else {
                x
            }
        }
        Unary::Celu { alpha } => {
            if x < zero {
                c(alpha) * (x / c(alpha)).exp_m1()
            } else {
                x
            }
        }
        Unary::Selu { alpha, gamma } => c(gamma) * if x < zero { c(alpha) * x.exp_m1() } else { x },
        Unary::ThresholdedRelu { alpha } => {
            if x > c(alpha) {
                x
            } else {
                zero
            }
        }
        Unary::HardSigmoid { alpha, beta } => max(zero, min(one, c(alpha) * x + c(beta))),
        Unary::Gelu { tanh: false } => R::of(0.5) * x * (one + erf(x * R::of(std::f64::consts::FRAC_1_SQRT_2))),
        Unary::Gelu { tanh: true } => R::of(0.5) * x * (one + gelu_inner(x).0.tanh()),
    }
}

/// df/dx at x, given y = f(x); zero for steps, one-sided at kinks as PyTorch chooses.
pub(super) fn slope<R: Real>(op: Unary, x: R, y: R) -> R {
    let (zero, one) = (R::zero(), R::one());
    let c = |v: f32| R::of(v as f64);
    match op {
        Unary::Relu => {
            if x > zero {
                one
            } else {
                zero
            }
        }
        Unary::Sigmoid => y * (one - y),
        Unary::Tanh => one - y * y,
        Unary::Exp => y,
        Unary::Log => x.recip(),
        Unary::Sqrt => R::of(0.5) / y,
        Unary::Reciprocal => -y * y,
        Unary::Neg => -one,
        Unary::Abs => value(Unary::Sign, x),
        Unary::Floor | Unary::Ceil | Unary::Round | Unary::Sign | Unary::Not => zero,
        Unary::IsNan | Unary::IsInf { .. } | Unary::BitwiseNot => zero,
        Unary::Tan => one + y * y,
        Unary::Asin => (one - x * x).sqrt().recip(),
        Unary::Acos => -(one - x * x).sqrt().recip(),
        Unary::Atan => (one + x * x).recip(),
        Unary::Sinh => x.cosh(),
        Unary::Cosh => x.sinh(),
        Unary::Asinh => (x * x + one).sqrt().recip(),
        Unary::Acosh => (x * x - one).sqrt().recip(),
        Unary::Atanh => (one - x * x).recip(),
        Unary::Shrink { lambd, .. } => {
            if x.abs() > c(lambd) {
                one
            } else {
                zero
            }
        }
        Unary::Swish { alpha } => {
            let s = sigmoid(c(alpha) * x);
            s + c(alpha) * x * s * (one - s)
        }
        Unary::Erf => R::of(std::f64::consts::FRAC_2_SQRT_PI) * (-x * x).exp(),
        Unary::HardSwish => {
            if x < R::of(-3.0) {
                zero
            } else if x <= R::of(3.0) {
                x / R::of(3.0) + R::of(0.5)
            } else {
                one
            }
        }
        Unary::Softplus => sigmoid(x),
        Unary::Softsign => (one + x.abs()).powi(-2),
        Unary::Mish => {
            let t = softplus(x).tanh();
            t + x * (one - t * t) * sigmoid(x)
        }
        Unary::Sin => x.cos(),
        Unary::Cos => -x.sin(),
        Unary::LeakyRelu { alpha } => {
            if x > zero {
                one
            } else {
                c(alpha)
            }
        }
        Unary::Elu { alpha } => {
            if x > zero {
                one
            } else {
                c(alpha) * x.exp()
            }
        }
        Unary::Celu { alpha } => {
            if x > zero {
                one
            } else {
                (x / c(alpha)).exp()
            }
        }
        Unary::Selu { alpha, gamma } => c(gamma) * if x > zero { one } else { c(alpha) * x.exp() },
        Unary::ThresholdedRelu { alpha } => {
            if x > c(alpha) {
                one
            } else {
                zero
            }
        }
        Unary::HardSigmoid { alpha, beta } => {
            let v = c(alpha) * x + c(beta);
            if v > zero && v < one { c(alpha) } else { zero }
        }
        Unary::Gelu { tanh: false } => {
            let density = (-x * x * R::of(0.5)).exp() * R::of(1.0 / (2.0 * std::f64::consts::PI).sqrt());
            R::of(0.5) * (one + erf(x * R::of(std::f64::consts::FRAC_1_SQRT_2))) + x * density
        }
        Unary::Gelu { tanh: true } => {
            let (u, du) = gelu_inner(x);
            let t = u.tanh();
            R::of(0.5) * (one + t) + R::of(0.5) * x * (one - t * t) * du
        }
    }
}
