//! Arithmetic of quantization grids: quantize, dequantize, range search, learned steps, soft rounding.
//!
//! A [`Grid`] maps real x to the integer clip(round(x / scale) + zero_point, qmin, qmax) and back to
//! (integer - zero_point) · scale. Rounding is half to even; division, not multiplication by a reciprocal.
//! [`Observation`] collects values, a [`Distribution`] is what is kept of them, [`fit`] and [`fit_weight`] find grids for
//! them, [`lsq`] and [`rounding`] hold the slow, obvious form of what is learned afterwards.

mod distribution;
mod grid;
pub mod lsq;
mod observe;
pub mod rounding;
mod search;

pub use distribution::Distribution;
pub use grid::*;
pub use observe::*;
pub use search::*;

#[cfg(test)]
mod golden;
