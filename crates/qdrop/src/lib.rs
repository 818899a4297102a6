//! Post-training quantization of ONNX networks to weights and activations of 2 to 8 bits by QDrop
//! (Wei et al., "QDrop: Randomly Dropping Quantization for Extremely Low-bit Post-Training Quantization", ICLR 2022).
//!
//! The library turns a trained network and a few hundred samples without labels into a standard ONNX file whose weights
//! *and* activations have few bits. It learns, block by block, how each weight is rounded and which steps (scales) the
//! activations have, so that the outputs of each block stay close to those of the float network.
//!
//! # In a program
//!
//! A [`Model`] is a network, read from a file or from bytes. [`Samples`] is the trait of everything that provides
//! tensors for its inputs; a [`Dataset`] implements it for a folder of images, a list, arrays or text. A [`Quantizer`]
//! makes a [`QuantizedModel`] from a model and samples:
//!
//! ```
//! use qdrop::plan::Preset;
//! use qdrop::report::Silent;
//! use qdrop::{Dataset, Model, Quantizer, Recipe};
//!
//! let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
//! let model = Model::open(format!("{examples}/network.onnx"))?;
//! let samples = Dataset::open(format!("{examples}/samples.npz"), &model, &Recipe::default(), None, &Silent)?;
//!
//! let quantized = Quantizer::new(&model)
//!     .weights(4)
//!     .activations(4)
//!     .preset(Preset::Fast)
//!     # .configure(|recipe| recipe.method.iterations = Some(20))
//!     .quantize(&samples)?;
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let output = directory.path().join("network.w4a4.onnx");
//! quantized.save(&output)?;
//! let quality = quantized.report().quality.as_ref().unwrap();
//! println!("outputs are {:?} dB from the float network's", quality.snr_db);
//! # assert!(quality.snr_db.unwrap() > 10.0);
//! # Ok::<(), qdrop::Error>(())
//! ```
//!
//! A [`Recipe`] holds all options and can be read from and written to TOML. Errors have a [`Kind`], the places where
//! they occurred, and often advice ([`Error::advice`]). Progress is reported as [`report::Event`]s to a
//! [`report::Sink`], which may also stop a run; with a [`WorkDir`] the next run continues from there. The folder
//! `examples` of the package contains complete programs.
//!
//! # Stability
//!
//! The names at the root of this crate follow semantic versioning, and so do the modules [`data`], [`error`], [`plan`]
//! (recipes), [`report`], [`runtime`] and [`tensor`] as far as the interfaces of those names use them. The other
//! modules are public for the project's own tools and tests and may change in any release.
#![deny(missing_docs)]

pub mod calibrate;
pub mod data;
pub mod disk;
pub mod engine;
pub mod error;
pub mod eval;
pub mod graph;
pub mod lower;
mod measure;
pub mod onnx;
pub mod passes;
pub mod pipeline;
pub mod plan;
mod prepare;
mod probe;
pub mod quant;
pub mod quantizer;
pub mod recon;
pub mod report;
pub mod runtime;
pub mod tensor;
mod work;

pub use data::Samples;
pub use error::{Error, Kind, Result};
pub use pipeline::{
    Answer, Bench, Deployed, Detected, Divergence, Drawing, Memory, Pace, UnitSpeed, encodings_beside, float_key, pace,
    run_keys,
};
pub use plan::Recipe;
pub use quantizer::{CalibrationSet, Dataset, Model, Planned, QuantizedModel, Quantizer};
pub use work::WorkDir;
