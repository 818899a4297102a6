//! One module per command: checks, the library's verbs in order, the result on stdout.

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
