//! The result of a run.

use super::model::Model;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::onnx;
use crate::pipeline::{self, Deployed, Quantized};
use crate::plan::Recipe;
use crate::report::{EncodingsFile, Report};
use crate::runtime::Library;
use std::path::{Path, PathBuf};

/// A quantized network with its [`Report`].
#[derive(Debug, Clone)]
pub struct QuantizedModel {
    done: Quantized,
    recipe: Recipe,
    report: Report,
}

impl QuantizedModel {
    pub(super) fn new(done: Quantized, recipe: Recipe, report: Report) -> Self {
        QuantizedModel { done, recipe, report }
    }

    /// Writes the network to `path` as an ONNX file, with an encodings file next to it if the target needs one. No
    /// partial file is ever left behind.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.done.save(path.as_ref())
    }

    /// The network as the bytes of an ONNX file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        onnx::to_bytes(&self.done.graph)
    }

    /// The network, read back, for evaluation and comparison.
    pub fn to_model(&self) -> Result<Model> {
        Model::from_bytes(&self.to_bytes()?)
    }

    /// The AIMET encodings as JSON; `None` unless the target needs them.
    pub fn encodings(&self) -> Result<Option<String>> {
        self.done.encodings.as_ref().map(|e| e.to_json()).transpose()
    }

    /// What was done and measured.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The recipe, with the bits that the run chose as overrides: it gives the same network again.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Size of the weights, in bytes, at their true bits.
    pub fn weight_bytes(&self) -> u64 {
        self.done.cost.weight_bytes
    }

    /// Converts into the report.
    pub fn into_report(self) -> Report {
        self.report
    }
}

/// A network that was written and read back.
pub(super) struct Written {
    /// The network as it computes, with encodings applied.
    pub graph: Graph,
    pub bytes: u64,
    /// The file, as the caller named it.
    pub output: Option<String>,
    pub encodings: Option<EncodingsFile>,
    path: Option<PathBuf>,
}

/// Writes what is `done` to `output`, or to memory, and reads it back.
pub(super) fn written(done: &Quantized, output: Option<&Path>) -> Result<Written> {
    let Some(output) = output else {
        let bytes = onnx::to_bytes(&done.graph)?;
        let graph = onnx::read_bytes(&bytes, None)?;
        let graph = match &done.encodings {
            Some(encodings) => pipeline::simulate(&graph, &encodings.to_json()?)?,
            None => graph,
        };
        return Ok(Written { graph, bytes: bytes.len() as u64, output: None, encodings: None, path: None });
    };
    done.save(output)?;
    let encodings = done.encodings.as_ref().map(|_| pipeline::encodings_path(output));
    let graph = pipeline::load_with(output, encodings.as_deref())?;
    let file = |path: &PathBuf| -> Result<EncodingsFile> {
        let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        Ok(EncodingsFile { file: path.display().to_string(), bytes })
    };
    Ok(Written {
        graph,
        bytes: onnx::size_on_disk(output)?,
        output: Some(output.display().to_string()),
        encodings: encodings.as_ref().map(file).transpose()?,
        path: Some(output.to_path_buf()),
    })
}

impl Written {
    /// The file in a runtime.
    pub fn deploy(&self, library: &Library, threads: usize) -> Result<Deployed> {
        match &self.path {
            Some(path) => Deployed::open(library, path, threads),
            None => Deployed::of_graph(library, &self.graph, "the quantized network", threads),
        }
    }
}
