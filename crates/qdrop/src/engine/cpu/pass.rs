//! One pass over activations: sum of two operands, activation function, fake quantization and dropping together.

use super::math::{RUN, sum, vectorized};
use crate::engine::fused::Act;
use crate::engine::ops::Array;
use crate::engine::train::Keep;
use crate::quant::Grid;

/// The grid of a site, ready to be applied: y = s·clamp(round(x/s), low, high).
#[derive(Debug, Clone, Copy)]
pub(super) struct Quantizer {
    pub scale: f32,
    pub low: f32,
    pub high: f32,
}

impl Quantizer {
    pub fn new(grid: &Grid) -> Self {
        let z = grid.zero_point[0];
        Quantizer { scale: grid.scale[0], low: (grid.qmin - z) as f32, high: (grid.qmax - z) as f32 }
    }
}

/// y = drop(quantize(act(x + other))), for inference: no traces are left.
pub(super) fn infer(act: Act, quantizer: Option<Quantizer>, x: &[f32], other: Option<&[f32]>, y: &mut [f32]) {
    let n = y.len();
    let x = &x[..n];
    vectorized(
        #[inline(always)]
        || match act {
            Act::None => infer_by(|v| v, quantizer, x, other, y),
            Act::Relu => infer_by(|v| Act::Relu.apply(v), quantizer, x, other, y),
            Act::Clip(..) => infer_by(|v| act.apply(v), quantizer, x, other, y),
        },
    );
}

#[inline(always)]
fn infer_by(apply: impl Fn(f32) -> f32, quantizer: Option<Quantizer>, x: &[f32], other: Option<&[f32]>, y: &mut [f32]) {
    match (other, quantizer) {
        (None, None) => y.iter_mut().zip(x).for_each(|(y, &x)| *y = apply(x)),
        (Some(o), None) => y.iter_mut().zip(x).zip(o).for_each(|((y, &x), &o)| *y = apply(x + o)),
        (None, Some(q)) => y.iter_mut().zip(x).for_each(|(y, &x)| *y = quantized(apply(x), q)),
        (Some(o), Some(q)) => y.iter_mut().zip(x).zip(o).for_each(|((y, &x), &o)| *y = quantized(apply(x + o), q)),
    }
}

#[inline(always)]
pub(super) fn quantized(a: f32, q: Quantizer) -> f32 {
    (a / q.scale).round_ties_even().max(q.low).min(q.high) * q.scale
}

/// y as [`infer`] gives it where `mask` keeps, act(x + other) elsewhere. `trace` holds x and receives ∂y/∂s; `mask`
/// holds the keep mask (not read where `keep` is not [`Keep::Masked`]) and receives whether the gradient passes to x.
pub(super) fn forward(
    act: Act,
    quantizer: Option<(Quantizer, Keep)>,
    trace: &mut [f32],
    other: Option<&[f32]>,
    mask: &mut [u8],
    y: &mut [f32],
) {
    vectorized(
        #[inline(always)]
        || {
            if let Some(o) = other {
                trace.iter_mut().zip(o).for_each(|(t, &o)| *t += o);
            }
            match act {
                Act::None => by_quantizer(|v| v, |_| true, quantizer, trace, mask, y),
                Act::Relu => by_quantizer(|v| Act::Relu.apply(v), |v| Act::Relu.open(v), quantizer, trace, mask, y),
                Act::Clip(..) => by_quantizer(|v| act.apply(v), |v| act.open(v), quantizer, trace, mask, y),
            }
        },
    );
}

#[inline(always)]
fn by_quantizer(
    apply: impl Fn(f32) -> f32,
    open: impl Fn(f32) -> bool,
    quantizer: Option<(Quantizer, Keep)>,
    trace: &mut [f32],
    mask: &mut [u8],
    y: &mut [f32],
) {
    let n = y.len();
    let (trace, mask) = (&mut trace[..n], &mut mask[..n]);
    match quantizer {
        None | Some((_, Keep::Nothing)) => {
            for i in 0..n {
                let v = trace[i];
                y[i] = apply(v);
                mask[i] = u8::from(open(v));
                trace[i] = 0.0;
            }
        }
        Some((q, keep)) => {
            if keep == Keep::All {
                mask.fill(1);
            }
            for i in 0..n {
                let v = trace[i];
                let a = apply(v);
                let t = a / q.scale;
                let r = t.round_ties_even();
                let c = r.max(q.low).min(q.high);
                let inside = (r >= q.low) & (r <= q.high);
                let kept = mask[i] != 0;
                y[i] = if kept { c * q.scale } else { a };
                let slope = if inside { r - t } else { c };
                trace[i] = if kept { slope } else { 0.0 };
                mask[i] = u8::from(open(v) & (inside | !kept));
            }
        }
    }
}

/// Turns the gradient of y into the gradient of x in place and returns the sum for the step, from what [`forward`]
/// left.
pub(super) fn backward(gradient: &mut [f32], trace: &[f32], mask: &[u8], site: bool) -> f64 {
    vectorized(
        #[inline(always)]
        || {
            let mut step = 0.0;
            // In runs, so that the second loop finds in the cache what the first one read.
            for ((g, t), m) in gradient.chunks_mut(RUN).zip(trace.chunks(RUN)).zip(mask.chunks(RUN)) {
                if site {
                    step += sum(g, &t[..g.len()], |g, t| g * t);
                }
                g.iter_mut().zip(m).for_each(|(g, &m)| *g = select(m, *g, 0.0));
            }
            step
        },
    )
}

/// `a` where `mask` is 1, `b` where it is 0, without a branch.
#[inline(always)]
fn select(mask: u8, a: f32, b: f32) -> f32 {
    let all = u32::from(mask).wrapping_neg();
    f32::from_bits((a.to_bits() & all) | (b.to_bits() & !all))
}

/// x of a batch position: `quantized` where the mask keeps, `float` elsewhere.
pub(super) fn mix(keep: Keep, mask: &[u8], quantized: &[f32], float: &[f32], x: &mut [f32]) {
    match keep {
        Keep::All => x.copy_from_slice(quantized),
        Keep::Nothing => x.copy_from_slice(float),
        Keep::Masked => vectorized(
            #[inline(always)]
            || {
                let parts = x.iter_mut().zip(mask).zip(quantized).zip(float);
                parts.for_each(|(((x, &m), &q), &f)| *x = select(m, q, f));
            },
        ),
    }
}

/// Puts 0 for NaN, so that what padding holds while learning reaches no gradient.
pub(super) fn clean(values: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || values.iter_mut().for_each(|v| *v = if v.is_nan() { 0.0 } else { *v }),
    );
}

/// `arrays`, when learning with 0 for NaN.
pub(super) fn numbers(learn: bool, mut arrays: Vec<Array<f32>>) -> Vec<Array<f32>> {
    if learn {
        arrays.iter_mut().for_each(|a| clean(&mut a.data));
    }
    arrays
}

/// y - target; 0 where the target is no number.
#[inline(always)]
fn error(y: f32, target: f32) -> f32 {
    if target.abs() < f32::INFINITY { y - target } else { 0.0 }
}

/// Σ weight·(y - target)², and y becomes factor·weight·(y - target); without `weights` all are 1. Elements whose target is
/// NaN or infinite do not count.
pub(super) fn loss(y: &mut [f32], target: &[f32], weights: Option<&[f32]>, factor: f32) -> f64 {
    vectorized(
        #[inline(always)]
        || {
            let target = &target[..y.len()];
            let Some(weights) = weights else {
                let total = sum(y, target, |y, t| error(y, t) * error(y, t));
                y.iter_mut().zip(target).for_each(|(y, &t)| *y = factor * error(*y, t));
                return total;
            };
            y.iter_mut().zip(target).for_each(|(y, &t)| *y = error(*y, t));
            let total = sum(y, weights, |d, w| w * d * d);
            y.iter_mut().zip(weights).for_each(|(y, &w)| *y *= factor * w);
            total
        },
    )
}
