//! Errors of the library as exceptions of the package.

use pyo3::prelude::*;
use qdrop::{Error, Kind};

/// The exception for `error`; the classes are those of `qdrop._errors`.
pub fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let kind = match error.kind() {
        Kind::Model => "model",
        Kind::Unsupported => "unsupported",
        Kind::Data => "data",
        Kind::Recipe => "recipe",
        Kind::Io => "io",
        Kind::Numeric => "numeric",
        Kind::Interrupted => "interrupted",
        _ => "internal",
    };
    let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<std::io::Error>());
    let errno = source.and_then(std::io::Error::raw_os_error);
    let made = py.import("qdrop._errors").and_then(|module| {
        module.call_method1("made", (kind, error.places().to_vec(), error.message(), error.advice(), errno))
    });
    made.map_or_else(|failure| failure, PyErr::from_value)
}
