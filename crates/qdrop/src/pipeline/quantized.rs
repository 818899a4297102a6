//! What a run comes to.

use super::written::encodings_path;
use crate::disk;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::lower::Encodings;
use crate::onnx;
use crate::plan::{Cost, Plan};
use crate::quant::{Grid, QuantizedWeight};
use crate::report::Report;
use std::io::Write;
use std::path::Path;

/// What [`quantize`](super::quantize()) returns.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// The network with learned integers and grids, ready to be written.
    pub graph: Graph,
    /// Its grids by the names of its tensors, for targets that want them in a file of their own.
    pub encodings: Option<Encodings>,
    /// The same network rounded to nearest on the first grids, with quantizers for whatever has a grid.
    pub nearest: Graph,
    /// The decisions both follow.
    pub plan: Plan,
    /// What the plan costs where it runs.
    pub cost: Cost,
    /// Integers of every weight, in the plan's order.
    pub weights: Vec<QuantizedWeight>,
    /// Grid of every site, in the plan's order.
    pub grids: Vec<Grid>,
    /// What was done; the caller adds file names, sizes and accuracy.
    pub report: Report,
}

impl Quantized {
    /// Writes the network to `output` and its encodings, if it has any, beside it. Both files are whole or not there, and
    /// encodings of an earlier run never lie beside this network.
    pub fn save(&self, output: &Path) -> Result<()> {
        let Some(encodings) = &self.encodings else { return onnx::write(&self.graph, output) };
        let path = encodings_path(output);
        let at = |e: std::io::Error| Error::io(&path, e);
        let mut file = disk::temporary_file(disk::folder(&path)).map_err(at)?;
        file.write_all(encodings.to_json()?.as_bytes()).map_err(at)?;
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(at(e)),
            _ => {}
        }
        onnx::write(&self.graph, output)?;
        disk::put_in_place(file, &path).map_err(at)
    }
}
