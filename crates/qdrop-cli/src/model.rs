//! The model as commands need it: read, with what `--fix` and `--shape` say of its inputs.

use crate::args::{Fix, Shape};
use qdrop::graph::{Dim, Graph, Value};
use qdrop::pipeline::{self, Deployed};
use qdrop::runtime::Library;
use qdrop::{Error, Result};
use std::path::Path;

impl Shape {
    /// The shapes typed, as shapes of one sample of `graph`; `None` where none were.
    pub fn of_samples(&self, graph: &Graph) -> Result<Option<Vec<Vec<usize>>>> {
        if self.shapes.is_empty() {
            return Ok(None);
        }
        for (&input, shape) in graph.inputs.iter().zip(&self.shapes) {
            let value = graph.value(input);
            let Some(dims) = value.fact.shape.as_ref().filter(|d| d.len() != shape.len()) else { continue };
            let list = |dims: &mut dyn Iterator<Item = String>| dims.collect::<Vec<_>>().join(",");
            let got = list(&mut shape.iter().map(usize::to_string));
            let message = format!("--shape: the input has {} axes, got {got}", dims.len());
            let error = Error::data(message).at(format!("input `{}`", value.name));
            return Err(if dims.len() == shape.len() + 1 {
                error.hint(format!("begin with the batch: --shape 1,{got}"))
            } else {
                error.hint("give one size for each axis, batch first; the option once per input, in order")
            });
        }
        Ok(Some(pipeline::sample_shapes(graph, &self.shapes)))
    }
}

impl Fix {
    /// The network at `path` with what is fixed.
    pub fn load(&self, path: &Path) -> Result<Graph> {
        let mut graph = pipeline::load(path)?;
        self.values
            .iter()
            .try_for_each(|(name, values)| pipeline::fix(&mut graph, name, values))
            .map_err(|e| e.at(path.display()))?;
        Ok(graph)
    }

    /// Fixes in `graph` whatever it has of what is fixed: a written file lacks it.
    pub fn apply_known(&self, graph: &mut Graph) -> Result<()> {
        let inputs = graph.inputs.iter().map(|&v| graph.value(v));
        let named = |v: &Value| -> Vec<String> {
            let symbol = |d: &Dim| if let Dim::Symbol(s) = d { Some(s.clone()) } else { None };
            std::iter::once(v.name.clone()).chain(v.fact.shape.iter().flatten().filter_map(symbol)).collect()
        };
        let known: Vec<String> = inputs.flat_map(named).collect();
        let mut wanted = self.values.iter().filter(|(name, _)| known.contains(name));
        wanted.try_for_each(|(name, values)| pipeline::fix(graph, name, values))
    }

    /// The file at `path` in a runtime, with what is fixed.
    pub fn open(&self, library: &Library, path: &Path, threads: usize) -> Result<Deployed> {
        if self.values.is_empty() {
            return Deployed::open(library, path, threads);
        }
        let mut graph = pipeline::load(path)?;
        self.apply_known(&mut graph)?;
        Deployed::of_graph(library, &graph, &path.display().to_string(), threads)
    }
}
