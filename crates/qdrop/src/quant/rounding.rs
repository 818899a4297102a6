//! Learned rounding (AdaRound): the specification that faster engines are compared with.
//!
//! A weight w with step s and zero point z becomes s·(clip(⌊w/s⌋ + h(α) + z, qmin, qmax) - z), where
//! h(α) = clip(1.2·sigmoid(α) - 0.1, 0, 1) moves between rounding down (0) and up (1). Slices are row-major, of the
//! weight's `shape`.

use super::{Grid, LayerId, QuantizedWeight};
use crate::error::{Error, Result};

/// Upper end to which the sigmoid is stretched.
pub const ZETA: f32 = 1.1;
/// Lower end to which the sigmoid is stretched.
pub const GAMMA: f32 = -0.1;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The rectified sigmoid, 0 to 1.
pub fn h(alpha: f32) -> f32 {
    ((ZETA - GAMMA) * sigmoid(alpha) + GAMMA).clamp(0.0, 1.0)
}

/// Derivative of [`h`]: 0 where the clip is active.
pub fn h_derivative(alpha: f32) -> f32 {
    let p = sigmoid(alpha);
    let stretched = (ZETA - GAMMA) * p + GAMMA;
    if (0.0..=1.0).contains(&stretched) { (ZETA - GAMMA) * p * (1.0 - p) } else { 0.0 }
}

/// The α for which h(α) = w/s - ⌊w/s⌋.
pub fn alpha_init(w: &[f32], shape: &[usize], grid: &Grid) -> Result<Vec<f32>> {
    grid.map_entries(shape, w, |&v, s, _| {
        let t = v / s;
        let rest = t - t.floor();
        -((ZETA - GAMMA) / (rest - GAMMA) - 1.0).ln()
    })
}

/// Soft weights s·(clip(⌊w/s⌋ + h(α) + z, qmin, qmax) - z).
pub fn soft(w: &[f32], alpha: &[f32], shape: &[usize], grid: &Grid) -> Result<Vec<f32>> {
    same_length(w, alpha)?;
    let (low, high) = (grid.qmin as f32, grid.qmax as f32);
    let pairs: Vec<(f32, f32)> = w.iter().copied().zip(alpha.iter().copied()).collect();
    grid.map_entries(shape, &pairs, |&(v, a), s, z| {
        let z = z as f32;
        (((v / s).floor() + h(a) + z).clamp(low, high) - z) * s
    })
}

/// Decided integers: clip(⌊w/s⌋ + [α ≥ 0] + z, qmin, qmax). The grid must lie within 0..=255.
pub fn harden(layer: LayerId, w: &[f32], alpha: &[f32], shape: &[usize], grid: &Grid) -> Result<QuantizedWeight> {
    same_length(w, alpha)?;
    let pairs: Vec<(f32, f32)> = w.iter().copied().zip(alpha.iter().copied()).collect();
    let integers = grid.map_entries(shape, &pairs, |&(v, a), s, z| {
        let up = i32::from(a >= 0.0);
        ((v / s).floor() as i32).saturating_add(up + z).clamp(grid.qmin, grid.qmax)
    })?;
    finish(layer, integers, grid)
}

/// Integers by rounding to nearest. The grid must lie within 0..=255.
pub fn nearest(layer: LayerId, w: &[f32], shape: &[usize], grid: &Grid) -> Result<QuantizedWeight> {
    finish(layer, grid.quantize(shape, w)?, grid)
}

fn finish(layer: LayerId, integers: Vec<i32>, grid: &Grid) -> Result<QuantizedWeight> {
    if grid.qmin < 0 || grid.qmax > 255 {
        return Err(Error::internal(format!("weight grid {}..={} does not fit bytes", grid.qmin, grid.qmax)));
    }
    Ok(QuantizedWeight { layer, grid: grid.clone(), integers: integers.into_iter().map(|q| q as u8).collect() })
}

/// Gradient of [`soft`] to α for the gradient `upstream` of the soft weights: s·h'(α)·upstream where neither clip is
/// active, else 0.
pub fn grad_alpha(w: &[f32], alpha: &[f32], upstream: &[f32], shape: &[usize], grid: &Grid) -> Result<Vec<f32>> {
    same_length(w, alpha)?;
    same_length(w, upstream)?;
    let (low, high) = (grid.qmin as f32, grid.qmax as f32);
    let triples: Vec<[f32; 3]> = (0..w.len()).map(|i| [w[i], alpha[i], upstream[i]]).collect();
    grid.map_entries(shape, &triples, |&[v, a, g], s, z| {
        let q = (v / s).floor() + h(a) + z as f32;
        if (low..=high).contains(&q) { g * s * h_derivative(a) } else { 0.0 }
    })
}

/// Regulariser Σ(1 - |2h(α)-1|^β), which pushes h to 0 or 1.
pub fn regulariser(alpha: &[f32], beta: f32) -> f64 {
    alpha.iter().map(|&a| 1.0 - f64::from((2.0 * h(a) - 1.0).abs().powf(beta))).sum()
}

/// Gradient of [`regulariser`] to α: -2β·|2h-1|^(β-1)·sign(2h-1)·h'(α); 0 at 2h = 1.
pub fn regulariser_gradient(alpha: &[f32], beta: f32) -> Vec<f32> {
    let one = |a: f32| {
        let d = 2.0 * h(a) - 1.0;
        if d == 0.0 { 0.0 } else { -2.0 * beta * d.abs().powf(beta - 1.0) * d.signum() * h_derivative(a) }
    };
    alpha.iter().map(|&a| one(a)).collect()
}

fn same_length(a: &[f32], b: &[f32]) -> Result<()> {
    if a.len() == b.len() {
        return Ok(());
    }
    Err(Error::internal(format!("expected {} elements, got {}", a.len(), b.len())))
}
