//! The model as commands need it: read, with what `--fix` and `--shape` say of its inputs.

use crate::args::{Fix, Shape};
use qdrop::runtime::Library;
use qdrop::{Deployed, Error, Model, Result};
use std::path::Path;

impl Shape {
    /// The shapes typed, as shapes of one sample of `model`; `None` where none were.
    pub fn of_samples(&self, model: &Model) -> Result<Option<Vec<Vec<usize>>>> {
        if self.shapes.is_empty() {
            return Ok(None);
        }
        let graph = model.graph();
        for (&input, shape) in graph.inputs.iter().zip(&self.shapes) {
            let value = graph.value(input);
            let Some(dims) = value.fact.shape.as_ref().filter(|d| d.len() != shape.len()) else { continue };
            let list = |dims: &mut dyn Iterator<Item = String>| dims.collect::<Vec<_>>().join(",");
            let got = list(&mut shape.iter().map(usize::to_string));
            let message = format!("--shape: the input has {} axes, got {got}", dims.len());
            let error = Error::data(message).at(format!("input `{}`", value.name));
            return Err(if dims.len() == shape.len() + 1 {
                error.hint(format!("put the batch first: --shape 1,{got}"))
            } else {
                error.hint("give one size per axis, batch first; repeat the option for each input, in order")
            });
        }
        Ok(Some(model.sample_shapes(&self.shapes)))
    }
}

impl Fix {
    /// The network at `path` with what is fixed.
    pub fn load(&self, path: &Path) -> Result<Model> {
        self.values.iter().try_fold(Model::open(path)?, |model, (name, values)| model.fix(name, values))
    }

    /// `model` with whatever it has of what is fixed: a written file lacks it.
    pub fn apply_known(&self, model: Model) -> Result<Model> {
        self.values.iter().try_fold(model, |model, (name, values)| model.fix_known(name, values))
    }

    /// The file at `path` in a runtime, with what is fixed.
    pub fn open(&self, library: &Library, path: &Path, threads: usize) -> Result<Deployed> {
        if self.values.is_empty() {
            return Deployed::open(library, path, threads);
        }
        self.apply_known(Model::open(path)?)?.deploy(library, threads)
    }
}
