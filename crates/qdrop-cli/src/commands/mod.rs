//! One module per command: it checks the arguments, calls the library and prints the result to stdout.

pub mod bench;
pub mod compare;
pub mod completions;
pub mod demo;
pub mod eval;
pub mod inspect;
pub mod man;
pub mod plan;
pub mod quantize;
pub mod report;
pub mod sensitivity;
pub mod sweep;
