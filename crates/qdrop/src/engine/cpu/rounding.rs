//! The fused pass over a weight whose rounding is learned: lanes' gradients summed, chained to α, regulariser, Adam,
//! next soft weight. [`crate::quant::rounding`] is its specification.

use super::math::{exp, ln, sigmoid, vectorized};
use crate::engine::optimiser::{Adam, Moments};
use crate::engine::train::{Step, Weight};
use crate::error::Result;
use crate::quant::rounding::{GAMMA, ZETA, alpha_init};
use rayon::prelude::*;

/// Elements of a piece that one thread takes.
const PIECE: usize = 8192;

/// A weight with its rounding variables, optimiser state and present soft content.
#[derive(Debug, Clone)]
pub(super) struct Rounding {
    pub alpha: Vec<f32>,
    /// s·clip(base + h(α), low, high).
    pub soft: Vec<f32>,
    moments: Moments,
    /// ⌊w/s⌋.
    base: Vec<f32>,
    /// Step, least and largest integer minus zero point of each element.
    scale: Vec<f32>,
    low: Vec<f32>,
    high: Vec<f32>,
}

impl Rounding {
    pub fn new(weight: &Weight) -> Result<Self> {
        let alpha = alpha_init(&weight.float, &weight.shape, &weight.grid)?;
        let n = alpha.len();
        let grid = &weight.grid;
        let (mut base, mut scale) = (vec![0.0; n], vec![0.0; n]);
        let (mut low, mut high, mut soft) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        for (i, channel) in grid.channels(&weight.shape)?.enumerate() {
            let (s, z) = (grid.scale[channel], grid.zero_point[channel]);
            (base[i], scale[i]) = ((weight.float[i] / s).floor(), s);
            (low[i], high[i]) = ((grid.qmin - z) as f32, (grid.qmax - z) as f32);
            soft[i] = s * (base[i] + h(sigmoid(alpha[i]))).max(low[i]).min(high[i]);
        }
        Ok(Rounding { moments: Moments::new(n), alpha, soft, base, scale, low, high })
    }

    /// One update from the gradients of the soft weight, `lanes` summed in order. Returns the regulariser before it.
    pub fn update(&mut self, lanes: &[&[f32]], step: &Step) -> f64 {
        let adam = Adam::new(step.rounding_lr, step.iteration);
        let constants = Constants { lambda: step.lambda as f32, beta: step.beta as f32, adam };
        let (base, scale, low, high) = (&self.base, &self.scale, &self.low, &self.high);
        let states = self.alpha.par_chunks_mut(PIECE).zip(self.soft.par_chunks_mut(PIECE));
        let moments = self.moments.m.par_chunks_mut(PIECE).zip(self.moments.v.par_chunks_mut(PIECE));
        let pieces = states.zip(moments).enumerate().map(|(i, ((alpha, soft), (m, v)))| {
            let at = i * PIECE..i * PIECE + alpha.len();
            let mut gradient = [0f32; PIECE];
            let gradient = &mut gradient[..alpha.len()];
            for lane in lanes {
                gradient.iter_mut().zip(&lane[at.clone()]).for_each(|(g, &l)| *g += l);
            }
            let fixed = (&base[at.clone()], &scale[at.clone()], &low[at.clone()], &high[at]);
            piece(constants, gradient, fixed, alpha, soft, m, v)
        });
        pieces.collect::<Vec<f64>>().iter().sum()
    }
}

#[derive(Clone, Copy)]
struct Constants {
    lambda: f32,
    beta: f32,
    adam: Adam<f32>,
}

/// The rectified sigmoid of p = sigmoid(α).
#[inline(always)]
fn h(p: f32) -> f32 {
    ((ZETA - GAMMA) * p + GAMMA).clamp(0.0, 1.0)
}

type Fixed<'a> = (&'a [f32], &'a [f32], &'a [f32], &'a [f32]);

fn piece(
    c: Constants,
    gradient: &mut [f32],
    fixed: Fixed,
    alpha: &mut [f32],
    soft: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
) -> f64 {
    vectorized(
        #[inline(always)]
        || {
            let n = gradient.len();
            let (base, scale, low, high) = (&fixed.0[..n], &fixed.1[..n], &fixed.2[..n], &fixed.3[..n]);
            let (alpha, soft, m, v) = (&mut alpha[..n], &mut soft[..n], &mut m[..n], &mut v[..n]);
            // The first loop leaves the gradient of α in `gradient` and the regulariser's term in `soft`.
            for i in 0..n {
                let p = sigmoid(alpha[i]);
                let stretched = (ZETA - GAMMA) * p + GAMMA;
                let hard = stretched.clamp(0.0, 1.0);
                let slope = if stretched == hard { (ZETA - GAMMA) * p * (1.0 - p) } else { 0.0 };
                let q = base[i] + hard;
                let inside = (q >= low[i]) & (q <= high[i]);
                gradient[i] = if inside { gradient[i] * scale[i] * slope } else { 0.0 };
                if c.lambda > 0.0 {
                    let d = 2.0 * hard - 1.0;
                    let size = d.abs();
                    let power = exp((c.beta - 1.0) * ln(size.max(1e-30)));
                    let power = if size > 1e-30 { power } else { 0.0 };
                    soft[i] = 1.0 - power * size;
                    let sign = if d < 0.0 { -1.0 } else { 1.0 };
                    gradient[i] += c.lambda * (-2.0 * c.beta * power * sign * slope);
                }
            }
            let regulariser = if c.lambda > 0.0 { super::math::sum(soft, soft, |r, _| r) } else { 0.0 };
            for i in 0..n {
                alpha[i] -= c.adam.change(&mut m[i], &mut v[i], gradient[i]);
                soft[i] = scale[i] * (base[i] + h(sigmoid(alpha[i]))).max(low[i]).min(high[i]);
            }
            regulariser
        },
    )
}
