//! Post-training quantization of ONNX networks to 2 to 8 bit weights and activations by QDrop
//! (Wei et al., "QDrop: Randomly Dropping Quantization for Extremely Low-bit Post-Training Quantization", ICLR 2022).
#![deny(missing_docs)]

pub mod calibrate;
pub mod data;
pub mod disk;
pub mod engine;
pub mod error;
pub mod eval;
pub mod graph;
pub mod lower;
pub mod onnx;
pub mod passes;
pub mod pipeline;
pub mod plan;
mod probe;
pub mod quant;
pub mod recon;
pub mod report;
pub mod runtime;
pub mod tensor;
mod work;

pub use error::{Error, Kind, Result};
