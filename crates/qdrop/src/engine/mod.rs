//! Compiles a graph or a unit into a device-independent program and runs it on a device: `naive` (loops in f64, the
//! specification) or `cpu` (fast). Apart from `runtime`, only this module contains `unsafe` code.
//!
//! A program describes one sample, with a leading batch dimension of 1. The device runs batches of samples.
//!
//! What every device needs lies in front of them: `fused` recognises the operations that devices have kernels for, `lives`
//! says when their values are needed, `batching` how samples may be put together around an operator, `choices` holds the
//! random choices, and `optimiser` the update rules.

mod batching;
pub mod channels;
mod choices;
pub mod cpu;
pub mod device;
mod fact;
pub mod facts;
mod fused;
pub mod heap;
mod lives;
pub mod naive;
pub mod ops;
mod optimiser;
pub mod philox;
pub mod program;
pub mod stepwise;
pub mod train;
