//! What a run leaves on disk: a network, for some targets with encodings beside it; and both read back as what they
//! mean.

use crate::error::{Error, Kind, Result};
use crate::graph::Graph;
use crate::lower::{self, Encodings};
use crate::onnx;
use crate::plan::{Output, Recipe, Target};
use std::path::{Path, PathBuf};

/// Where the encodings of the network at `output` lie: `out.encodings.json` beside `out.onnx`.
pub fn encodings_path(output: &Path) -> PathBuf {
    let mut name = output.file_stem().map_or_else(|| "model".into(), std::ffi::OsStr::to_os_string);
    name.push(".encodings.json");
    output.with_file_name(name)
}

/// The file of encodings that a run by `recipe` writes beside `output`, if its target has one.
pub fn encodings_beside(output: &Path, recipe: &Recipe) -> Option<PathBuf> {
    (recipe.output.target == Target::Qnn).then(|| encodings_path(output))
}

/// The network at `model` as it computes with the file of `encodings`, if there is one: what the encodings name is
/// quantized for all that read it.
pub fn load_with(model: &Path, encodings: Option<&Path>) -> Result<Graph> {
    let graph = onnx::read(model)?;
    let Some(path) = encodings else { return Ok(graph) };
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let text = String::from_utf8(text).map_err(|_| {
        Error::new(Kind::Data, "encodings: expected JSON, got bytes that are not UTF-8").at(path.display())
    })?;
    simulate(&graph, &text).map_err(|e| e.at(path.display()))
}

/// `graph` with quantizers where the encodings in `text` want them.
pub(crate) fn simulate(graph: &Graph, text: &str) -> Result<Graph> {
    let (plan, grids) = Encodings::read(text, graph)?;
    let output = Output::default();
    let opset = lower::required_opset(output, &plan);
    let mut graph = graph.clone();
    if graph.opset < opset {
        onnx::raise_opset(&mut graph, opset)?;
    }
    lower::lower(&graph, &plan, &[], &grids, &[], output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_lie_beside_their_network() {
        assert_eq!(encodings_path(Path::new("a/n.w4a8.qnn.onnx")), Path::new("a/n.w4a8.qnn.encodings.json"));
        assert_eq!(encodings_path(Path::new("model")), Path::new("model.encodings.json"));
        let mut recipe = Recipe::default();
        assert_eq!(encodings_beside(Path::new("n.onnx"), &recipe), None);
        recipe.output.target = Target::Qnn;
        assert_eq!(encodings_beside(Path::new("n.onnx"), &recipe).as_deref(), Some(Path::new("n.encodings.json")));
    }
}
