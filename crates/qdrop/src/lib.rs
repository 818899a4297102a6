//! Post-training quantization of ONNX networks to 2 to 8 bit weights and activations by QDrop
//! (Wei et al., "QDrop: Randomly Dropping Quantization for Extremely Low-bit Post-Training Quantization", ICLR 2022).
//!
//! A trained network and a few hundred samples without labels become a standard ONNX file whose weights *and* activations
//! have few bits. Roundings of weights and steps of activations are learned block by block, so that the outputs of each block
//! stay close to the float network's.
//!
//! # In a program
//!
//! A [`Model`] is a network from a file or from bytes, [`Samples`] are whatever gives tensors for its inputs (a [`Dataset`] is
//! a folder of images, a list, arrays or text), and a [`Quantizer`] makes a [`QuantizedModel`] of both:
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
//! A [`Recipe`] holds every option; it reads and writes TOML. Errors have a [`Kind`], places, and often advice
//! ([`Error::advice`]). Progress comes as [`report::Event`]s; a [`report::Sink`] may also stop a run, and a [`WorkDir`] lets
//! the next one go on from there. The folder `examples` of the package has whole programs.
//!
//! # What is stable
//!
//! The names at the root of this crate, and the modules [`data`], [`error`], [`plan`] (recipes), [`report`], [`runtime`] and
//! [`tensor`] as far as these names speak of them, change only with the version that semantic versioning demands. The other
//! modules are public for the project's own tools and tests; they may change in any release.
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
pub mod quantizer;
pub mod recon;
pub mod report;
pub mod runtime;
pub mod tensor;
mod work;

pub use data::Samples;
pub use error::{Error, Kind, Result};
pub use pipeline::{Bench, Deployed, Divergence, Memory, Pace, UnitSpeed, encodings_beside, pace, run_keys};
pub use plan::Recipe;
pub use quantizer::{CalibrationSet, Dataset, Model, Planned, QuantizedModel, Quantizer};
pub use work::WorkDir;
