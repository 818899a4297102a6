//! Arithmetic of quantization grids: quantize, dequantize, range search, learned steps, soft rounding.
//!
//! A [`Grid`] maps a real x to the integer clip(round(x / scale) + zero_point, qmin, qmax), and that back to (integer -
//! zero_point) · scale. Rounding is half to even, after a division by the scale, not a multiplication by its
//! reciprocal. An [`Observation`] collects values, and a [`Distribution`] is a summary of them; [`fit`] and
//! [`fit_weight`] find grids for them. [`lsq`] and [`rounding`] contain the slow, obvious form of what is learned
//! afterwards.

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
