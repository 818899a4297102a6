//! Runs networks in ONNX Runtime.
//!
//! The shared library is loaded on demand: nothing is linked, and programs can be built and run without it. Any version
//! works, because only functions of the first version of the C interface are used; 1.17 to 1.32 have been run.
//!
//! ```no_run
//! use qdrop::runtime::{Library, Options, Session};
//! use qdrop::tensor::Tensor;
//! use std::path::Path;
//!
//! let library = Library::find(None)?;
//! let session = Session::new(&library, Path::new("model.onnx"), &Options::default())?;
//! let image = Tensor::f32(&[1, 3, 32, 32], vec![0.0; 3072]);
//! let outputs = session.run(&[("input", &image)])?;
//! # Ok::<(), qdrop::Error>(())
//! ```

#![allow(unsafe_code)]

mod api;
mod clock;
mod find;
mod library;
mod session;
#[cfg(test)]
mod tests;
mod value;

pub use clock::processor_seconds;
pub use library::Library;
pub use session::{Model, Options, Port, Session};
