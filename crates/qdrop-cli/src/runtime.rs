//! The runtime that a command names.

use crate::args::{InRuntime, RuntimeName};
use qdrop::Result;
use qdrop::runtime::Library;
use serde::Serialize;

/// A runtime as results show it.
#[derive(Debug, Serialize)]
pub struct View {
    /// Its name with the version.
    pub name: String,
    /// Its shared library.
    pub library: String,
}

impl View {
    /// What results show of `library`.
    pub fn of(library: &Library) -> Self {
        View { name: library.name(), library: library.path().display().to_string() }
    }
}

/// The library of the runtime that the options name; `None` without one.
pub fn library(options: &InRuntime) -> Result<Option<Library>> {
    match options.runtime {
        None => Ok(None),
        Some(RuntimeName::Ort) => Library::find(options.runtime_library.as_deref()).map(Some),
    }
}
