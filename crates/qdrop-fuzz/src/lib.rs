//! Fuzzing of everything that reads files from outside.
//!
//! A [`Target`] takes bytes and panics where a rule is broken: no input may cause a panic or an internal error, and what
//! was read can be written and read again. `fuzz` in the repository's root hands them to libFuzzer; the test of this
//! crate runs them on stable Rust, on inputs that each follow from a [`number`](mutated) and the [`seeds`].

mod json;
mod mutate;
mod rng;
mod seeds;
mod targets;
mod text;
mod wire;

pub use mutate::{Seeds, mutated};
pub use seeds::seeds;
pub use targets::Target;
