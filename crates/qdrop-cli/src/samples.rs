//! Samples as commands need them: opened, fitted to the network's inputs, cut to a number.

use qdrop::data::{self, InputSpec, Limits, Prepare, Samples, Subset, Text};
use qdrop::engine::heap::installed;
use qdrop::graph::{Dim, Graph, ValueId};
use qdrop::pipeline;
use qdrop::plan::{Recipe, Task};
use qdrop::report::Sink;
use qdrop::tensor::DType;
use qdrop::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// A sample set from the outside world.
pub type Source = Subset<Box<dyn Samples + Send + Sync>>;

/// Opens `path` for the inputs of `graph`, which was read from `model`, prepared as `recipe` says; at most `limit`
/// samples, for SQuAD the windows of at most so many questions. Unpacked they may take the memory that the recipe allows, or
/// else that the machine has.
pub fn open(
    path: &Path,
    recipe: &Recipe,
    model: &Path,
    graph: &Graph,
    limit: Option<usize>,
    sink: &dyn Sink,
) -> Result<Source> {
    let beside = |path: &Path| path.parent().map(Path::to_path_buf).unwrap_or_default();
    if let Some(task) = recipe.input.task.filter(|_| path.is_dir()) {
        let what = if task == Task::Squad { "one of its .json files" } else { "one of its .tsv, .csv or .jsonl files" };
        let error = Error::data(format!("task `{task}`: expected a file of texts, got a folder"));
        return Err(error.at(path.display()).hint(format!("give {what}")));
    }
    if let Some(text) = Text::resolve(&recipe.input, &[&beside(model), &beside(path)])? {
        return pipeline::spread(data::open_text(path, &text, &inputs(graph), limit)?, None);
    }
    let found = data::open(path, &Prepare::resolve(&recipe.input)?, &limits(recipe, &|| sink.cancelled()))?;
    if found.is_empty() {
        return Err(Error::data("expected samples, found none").at(path.display()));
    }
    let fitted = data::fit(found, &inputs(graph)).map_err(|e| e.at(path.display()))?;
    pipeline::spread(fitted, limit)
}

fn limits<'a>(recipe: &Recipe, stopped: &'a (dyn Fn() -> bool + Sync)) -> Limits<'a> {
    let memory = recipe.method.memory.map(|m| m.0).or_else(installed).unwrap_or(u64::MAX);
    Limits { memory, stopped }
}

/// Samples to calibrate on, chosen from a set.
pub struct Calibration {
    set: Source,
    /// Indices of those that are used.
    used: Vec<usize>,
    /// Of a set of texts, those that are not.
    others: Option<Subset<Source>>,
}

/// Opens `path` as [`open`] does and chooses those samples that `recipe` wants.
pub fn calibration(path: &Path, recipe: &Recipe, model: &Path, graph: &Graph, sink: &dyn Sink) -> Result<Calibration> {
    let limit = recipe.input.samples;
    let Some(task) = recipe.input.task else {
        let set = open(path, recipe, model, graph, None, sink)?;
        let used = data::spread(set.len(), limit).collect();
        return Ok(Calibration { set, used, others: None });
    };
    // How long samples are follows from the texts that are used.
    let set = open(path, recipe, model, graph, limit, sink)?;
    // A question of SQuAD is several windows.
    let used: Vec<usize> = data::spread(set.len(), limit).collect();
    let others = match (limit, set.is_empty() || task == Task::Squad) {
        (Some(limit), false) => {
            let mut recipe = recipe.clone();
            recipe.input.max_length = shapes(&set)?.first().and_then(|s| s.first().copied());
            let all = open(path, &recipe, model, graph, None, sink)?;
            let chosen: BTreeSet<usize> = data::spread(all.len(), Some(limit)).collect();
            let others = (0..all.len()).filter(|i| !chosen.contains(i)).collect();
            Some(Subset::new(all, others)?)
        }
        _ => None,
    };
    Ok(Calibration { set, used, others })
}

impl Calibration {
    /// The samples that are used.
    pub fn used(&self) -> Result<Subset<&Source>> {
        Subset::new(&self.set, self.used.clone())
    }

    /// The samples of the set that are not used.
    pub fn left_out(&self) -> Result<Box<dyn Samples + '_>> {
        if let Some(others) = &self.others {
            return Ok(Box::new(others));
        }
        let used: BTreeSet<usize> = self.used.iter().copied().collect();
        let others = (0..self.set.len()).filter(|i| !used.contains(i)).collect();
        Ok(Box::new(Subset::new(&self.set, others)?))
    }
}

/// Values recorded in the `.npz` file at `path`, one entry per sample.
pub fn recorded(path: &Path) -> Result<Source> {
    let recipe = Recipe::default();
    pipeline::spread(data::open(path, &Prepare::resolve(&recipe.input)?, &limits(&recipe, &|| false))?, None)
}

/// That `graph` and every one of `samples` fit what is to be measured.
pub fn check(graph: &Graph, shapes: &[Vec<usize>], samples: &dyn Samples, recipe: &Recipe) -> Result<()> {
    match recipe.input.task {
        Some(task) => pipeline::check_task(graph, shapes, samples, task),
        None => pipeline::check_labels(graph, shapes, samples),
    }
}

/// Shapes of one sample, without batch axis.
pub fn shapes(samples: &dyn Samples) -> Result<Vec<Vec<usize>>> {
    if samples.is_empty() {
        return Err(Error::data("expected samples, got none"));
    }
    Ok(samples.get(0)?.iter().map(|t| t.shape().to_vec()).collect())
}

/// What the network declares about its inputs, batch axis left out; samples may have one of 1 too.
fn inputs(graph: &Graph) -> Vec<InputSpec> {
    let size = |dim: &Dim| match dim {
        Dim::Known(n) => Some(*n),
        _ => None,
    };
    let spec = |(&id, axis): (&ValueId, Option<usize>)| {
        let value = graph.value(id);
        let mut shape: Vec<Option<usize>> = value.fact.shape.as_deref().unwrap_or_default().iter().map(size).collect();
        let whole = shape.clone();
        // An axis of 1 in front may be missing where the file says nothing of a batch.
        let axis = axis.or((shape.first() == Some(&Some(1))).then_some(0)).filter(|&a| a < shape.len());
        axis.map(|axis| shape.remove(axis));
        let spec = InputSpec::new(&value.name, value.fact.dtype.unwrap_or(DType::F32), shape);
        let one = |(i, d): (usize, Option<usize>)| if Some(i) == axis { d.or(Some(1)) } else { d };
        if axis.is_some() { spec.or(whole.into_iter().enumerate().map(one).collect::<Vec<_>>()) } else { spec }
    };
    graph.inputs.iter().zip(graph.batch_axes()).map(spec).collect()
}
