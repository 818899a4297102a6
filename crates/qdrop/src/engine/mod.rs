//! Compiles a graph or a unit into a device-neutral program and runs it: `naive` (f64 loops, the specification) and
//! `cpu` (fast). Only this module holds `unsafe` or imports a matrix library.
//!
//! Every program describes one sample: leading batch dimension 1. Batches are stacked around it by the device.

pub mod channels;
pub mod cpu;
pub mod device;
mod fact;
pub mod facts;
pub mod heap;
pub mod naive;
pub mod ops;
pub mod philox;
pub mod program;
pub mod train;
