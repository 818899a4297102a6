//! A network that can be planned, quantized, evaluated and compared.

use crate::data::{InputSpec, Remembered, Samples, at_source};
use crate::error::{Error, Result};
use crate::eval::Difference;
use crate::eval::detect::Detector;
use crate::graph::{Dim, Graph, ValueId};
use crate::onnx;
use crate::pipeline::{self, Answer, Bench, Checked, Deployed, Detected, Divergence, Memory};
use crate::plan::{Chosen, Cost, FactorSite, Plan, Recipe, Sensitivity, Stripe, Task};
use crate::probe::shapes_of;
use crate::report::{Score, Sink};
use crate::runtime::Library;
use crate::tensor::DType;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of a network that was not read from a file.
const UNNAMED: &str = "model";

/// A network, read from an ONNX file or from bytes.
///
/// ```
/// use qdrop::Model;
///
/// let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/network.onnx");
/// let model = Model::open(path)?;
/// let input = &model.inputs()[0];
/// assert_eq!((input.name.as_str(), &input.shape[..]), ("image", &[Some(3), Some(12), Some(12)][..]));
/// assert_eq!(model.outputs(), ["scores"]);
/// # Ok::<(), qdrop::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Model {
    graph: Graph,
    path: Option<PathBuf>,
    bytes: u64,
    /// Whether it differs from its file.
    changed: bool,
}

/// What quantizing a [`Model`] with a [`Recipe`] would do.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Planned {
    /// The simplified network that the plan refers to.
    pub graph: Graph,
    /// The recipe, with the chosen bits as overrides.
    pub recipe: Recipe,
    /// Layers, quantizers and reconstruction units.
    pub plan: Plan,
    /// Size of the weights, and number of bit operations.
    pub cost: Cost,
    /// How bits were chosen, if sensitivities were given.
    pub chosen: Option<Chosen>,
    /// Memory that the run is predicted to take.
    pub memory: Memory,
    /// How the channels of activations may get factors, or why they may not, by the quantized value; empty if the recipe
    /// wants no factors.
    pub factors: BTreeMap<ValueId, std::result::Result<FactorSite, &'static str>>,
    /// How the outputs are read where they are those of a detector, as far as their shapes tell; `None` for other networks,
    /// and with a task other than `coco`.
    pub detector: Option<Detector>,
}

impl Model {
    /// Reads the ONNX file at `path`, external data included.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, None)
    }

    /// Like [`Model::open`], but with the quantizers that an AIMET encodings file specifies.
    pub fn open_with(path: impl AsRef<Path>, encodings: Option<&Path>) -> Result<Self> {
        let path = path.as_ref();
        let graph = pipeline::load_with(path, encodings)?;
        let (bytes, changed) = (onnx::size_on_disk(path)?, encodings.is_some());
        Ok(Model { graph, path: Some(path.to_path_buf()), bytes, changed })
    }

    /// Reads an ONNX model from memory. `bytes` must contain its weights; external data is not read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let graph = onnx::read_bytes(bytes, None)?;
        Ok(Model { graph, path: None, bytes: bytes.len() as u64, changed: false })
    }

    /// A network of which only what `file`, in a runtime, declares of its inputs and outputs is known: enough to open
    /// samples for it and to measure `file` by [`Model::evaluate_deployed`]. Nothing of this library reads the file.
    pub fn declared_by(file: &Deployed) -> Self {
        Model { graph: file.face(), path: Some(file.path().to_path_buf()), bytes: 0, changed: false }
    }

    /// Fixes the input `name`, or the open size `name` of inputs, to `values`: one number for all elements, or one
    /// number per element. It is an error if nothing has this name, or if the numbers do not fit.
    pub fn fix(mut self, name: &str, values: &[f64]) -> Result<Self> {
        pipeline::fix(&mut self.graph, name, values).map_err(|e| e.at(self.name()))?;
        self.changed = true;
        Ok(self)
    }

    /// Like [`Model::fix`], but does nothing if nothing is called `name`: an input that was fixed before quantization
    /// no longer exists in the quantized network.
    pub fn fix_known(self, name: &str, values: &[f64]) -> Result<Self> {
        let symbol = |d: &Dim| matches!(d, Dim::Symbol(s) if s == name);
        let named = |&v: &ValueId| {
            let value = self.graph.value(v);
            value.name == name || value.fact.shape.iter().flatten().any(symbol)
        };
        if self.graph.inputs.iter().any(named) { self.fix(name, values) } else { Ok(self) }
    }

    /// Its name in errors and reports: the path from which it was read, as it was given.
    pub fn name(&self) -> String {
        self.path.as_deref().map_or_else(|| UNNAMED.into(), |p| p.display().to_string())
    }

    /// The file from which it was read, if any.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Size, in bytes, of the file from which it was read, external data included, or of the bytes.
    pub fn size(&self) -> u64 {
        self.bytes
    }

    /// What a sample must contain for each input, in order: its name, type, and shape without the batch axis.
    pub fn inputs(&self) -> Vec<InputSpec> {
        let size = |dim: &Dim| match dim {
            Dim::Known(n) => Some(*n),
            _ => None,
        };
        let spec = |(&id, axis): (&ValueId, Option<usize>)| {
            let value = self.graph.value(id);
            let dims = value.fact.shape.as_deref().unwrap_or_default();
            let mut shape: Vec<Option<usize>> = dims.iter().map(size).collect();
            let whole = shape.clone();
            // An axis of 1 in front may be missing where the file says nothing of a batch.
            let axis = axis.or((shape.first() == Some(&Some(1))).then_some(0)).filter(|&a| a < shape.len());
            axis.map(|axis| shape.remove(axis));
            let spec = InputSpec::new(&value.name, value.fact.dtype.unwrap_or(DType::F32), shape);
            let one = |(i, d): (usize, Option<usize>)| if Some(i) == axis { d.or(Some(1)) } else { d };
            if axis.is_some() { spec.or(whole.into_iter().enumerate().map(one).collect::<Vec<_>>()) } else { spec }
        };
        self.graph.inputs.iter().zip(self.graph.batch_axes()).map(spec).collect()
    }

    /// The shapes of one sample, without the batch axis, for inputs with the shapes `whole`.
    pub fn sample_shapes(&self, whole: &[Vec<usize>]) -> Vec<Vec<usize>> {
        pipeline::sample_shapes(&self.graph, whole)
    }

    /// Names of the outputs, in order.
    pub fn outputs(&self) -> Vec<&str> {
        self.graph.outputs.iter().map(|&v| self.graph.value(v).name.as_str()).collect()
    }

    /// The network as it was read. The graph's interface may change in any release.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What quantizing with `recipe` and `samples` calibration samples would do, before any data is read.
    ///
    /// `sample_shapes` are the shapes of one sample, one per input, without the batch axis; with `None` they are those
    /// that the file declares. If the recipe has a target for size or bit operations, bits are chosen from what was
    /// `measured`.
    pub fn plan(
        &self,
        recipe: &Recipe,
        measured: Option<&Sensitivity>,
        sample_shapes: Option<&[Vec<usize>]>,
        samples: usize,
    ) -> Result<Planned> {
        self.plan_with(recipe, measured, sample_shapes, (samples, 0))
    }

    /// As [`Model::plan`], for these calibration samples: as many, of their shapes, and with the memory that they hold
    /// themselves, such as arrays.
    pub fn plan_for(
        &self,
        recipe: &Recipe,
        measured: Option<&Sensitivity>,
        calibration: &dyn Samples,
    ) -> Result<Planned> {
        let shapes = shapes_of(calibration)?;
        self.plan_with(recipe, measured, Some(&shapes), (calibration.len(), calibration.held_bytes()))
    }

    fn plan_with(
        &self,
        recipe: &Recipe,
        measured: Option<&Sensitivity>,
        sample_shapes: Option<&[Vec<usize>]>,
        samples: (usize, u64),
    ) -> Result<Planned> {
        let made = || -> Result<Planned> {
            let graph = pipeline::prepare(&self.graph, sample_shapes)?;
            let chosen = measured.map(|m| pipeline::choose(&graph, recipe, m, sample_shapes)).transpose()?;
            let recipe = chosen.as_ref().map_or_else(|| recipe.clone(), |chosen| recipe.with(chosen));
            let plan = pipeline::plan(&graph, &recipe, sample_shapes)?;
            let cost = pipeline::cost(&graph, &plan, sample_shapes)?;
            let memory = pipeline::memory((&self.graph, &graph), &plan, &recipe, sample_shapes, samples)?;
            let factors = pipeline::factor_sites(&graph, &recipe, sample_shapes)?;
            let detector = detector(&graph, &recipe, sample_shapes)?;
            Ok(Planned { graph, recipe, plan, cost, chosen, memory, factors, detector })
        };
        made().map_err(|e| e.at(self.name()))
    }

    /// Multiply-adds of one sample in the layers that can be quantized; `sample_shapes` as in [`Model::plan`].
    pub fn multiply_adds(&self, sample_shapes: Option<&[Vec<usize>]>) -> Result<u64> {
        let graph = pipeline::prepare(&self.graph, sample_shapes)?;
        let plan = pipeline::plan(&graph, &Recipe::default(), sample_shapes)?;
        Ok(plan.units.iter().map(|u| u.multiply_adds).sum())
    }

    /// Checks, before data is read, that `recipe` can be applied, if the file declares the sizes of its inputs.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        if pipeline::declared_shapes(&self.graph).is_none() || pipeline::several_at_once(&self.graph) {
            return Ok(());
        }
        let planned = pipeline::prepare(&self.graph, None).and_then(|graph| pipeline::plan(&graph, recipe, None));
        planned.map(drop).map_err(|e| e.at(self.name()))
    }

    /// Measures accuracy on labelled `samples`: the metrics of the recipe's task, or else top-1 and top-5, in per cent.
    pub fn evaluate(&self, samples: &dyn Samples, recipe: &Recipe, sink: &mut dyn Sink) -> Result<Score> {
        let samples = &Remembered::first(samples);
        let (graph, shapes) = self.prepared(samples)?;
        check_answers(&graph, &shapes, samples, recipe)?;
        let checked = Checked::new(&graph, &shapes, samples)?;
        pipeline::measure(&graph, &checked, recipe.input.task, recipe.method.threads, sink)
    }

    /// As [`Model::evaluate`], of `file`, which this network is in a runtime.
    pub fn evaluate_deployed(
        &self,
        file: &Deployed,
        samples: &dyn Samples,
        recipe: &Recipe,
        sink: &mut dyn Sink,
    ) -> Result<Score> {
        let samples = &Remembered::first(samples);
        let checked = Checked::new(&self.graph, &shapes_of(samples)?, samples)?;
        let task = recipe.input.task;
        file.check(&checked, task).map_err(|e| at_source(samples, e))?;
        file.measure(&checked, task, sink)
    }

    /// What the network, a detector, finds in annotated images (task `coco` of the recipe), with its figures.
    pub fn detect(&self, samples: &dyn Samples, recipe: &Recipe, sink: &mut dyn Sink) -> Result<Detected> {
        let samples = &Remembered::first(samples);
        let (graph, shapes) = self.prepared(samples)?;
        pipeline::check_task(&graph, &shapes, samples, Task::Coco).map_err(|e| at_source(samples, e))?;
        let checked = Checked::new(&graph, &shapes, samples)?;
        only(pipeline::detect_all(&[&graph], &checked, recipe.method.threads, sink)?)
    }

    /// As [`Model::detect`], of `file`, which this network is in a runtime.
    pub fn detect_deployed(&self, file: &Deployed, samples: &dyn Samples, sink: &mut dyn Sink) -> Result<Detected> {
        let samples = &Remembered::first(samples);
        let checked = Checked::new(&self.graph, &shapes_of(samples)?, samples)?;
        file.check(&checked, Some(Task::Coco)).map_err(|e| at_source(samples, e))?;
        only(pipeline::detect_deployed(&[file], &checked, sink)?)
    }

    /// Runs the network on every sample and calls `each` with the sample's index and all outputs, for metrics of your own.
    /// With `threads` 0 all cores are used.
    pub fn answers(
        &self,
        samples: &dyn Samples,
        threads: usize,
        sink: &mut dyn Sink,
        each: impl FnMut(usize, &[Answer<'_>]) -> Result<()>,
    ) -> Result<()> {
        let samples = &Remembered::first(samples);
        let (graph, shapes) = self.prepared(samples)?;
        pipeline::outputs(&graph, &Checked::new(&graph, &shapes, samples)?, threads, sink, each)
    }

    /// As [`Model::answers`], of `file`, which this network is in a runtime.
    pub fn answers_deployed(
        &self,
        file: &Deployed,
        samples: &dyn Samples,
        sink: &mut dyn Sink,
        each: impl FnMut(usize, &[Answer<'_>]) -> Result<()>,
    ) -> Result<()> {
        let samples = &Remembered::first(samples);
        let (graph, shapes) = self.prepared(samples)?;
        pipeline::outputs_deployed(file, &graph, &Checked::new(&graph, &shapes, samples)?, sink, each)
    }

    /// Compares each value of this network with the value of the same name in `other`, over `samples`, without their
    /// padding. Of `recipe`, `input` (how samples are prepared) and the number of threads count.
    pub fn compare(
        &self,
        other: &Model,
        samples: &dyn Samples,
        recipe: &Recipe,
        sink: &mut dyn Sink,
    ) -> Result<Vec<Difference>> {
        let samples = &Remembered::first(samples);
        let (graph, shapes) = self.prepared(samples)?;
        let other = pipeline::prepare(&other.graph, Some(&shapes)).map_err(|e| e.at(other.name()))?;
        pipeline::compare(&graph, &other, &Checked::new(&graph, &shapes, samples)?, recipe, sink)
    }

    /// Like [`Model::compare`], but with values that another program `recorded`: one entry per sample, with tensors
    /// named after the network's values.
    pub fn compare_recorded(
        &self,
        recorded: &dyn Samples,
        samples: &dyn Samples,
        recipe: &Recipe,
        sink: &mut dyn Sink,
    ) -> Result<Vec<Difference>> {
        let samples = &Remembered::first(samples);
        let (graph, shapes) = self.prepared(samples)?;
        pipeline::compare_recorded(&graph, recorded, &Checked::new(&graph, &shapes, samples)?, recipe, sink)
    }

    /// Like [`Model::compare`], but with `file` in a runtime.
    pub fn compare_deployed(
        &self,
        file: &Deployed,
        samples: &dyn Samples,
        recipe: &Recipe,
        sink: &mut dyn Sink,
    ) -> Result<Divergence> {
        let samples = &Remembered::first(samples);
        let (graph, shapes) = self.prepared(samples)?;
        pipeline::divergence(&graph, file, &Checked::new(&graph, &shapes, samples)?, recipe, sink)
    }

    /// Measures on `samples` how the bits of each layer and activation, one at a time, affect the network's outputs; with a
    /// `share`, only of those that it holds, for [`Sensitivity::merge`].
    pub fn sensitivity(
        &self,
        samples: &dyn Samples,
        recipe: &Recipe,
        share: Option<Stripe>,
        sink: &mut dyn Sink,
    ) -> Result<Sensitivity> {
        let samples = &Remembered::first(samples);
        let (graph, shapes) = self.prepared(samples)?;
        let found = pipeline::sensitivity(&graph, recipe, &Checked::new(&graph, &shapes, samples)?, share, sink)?;
        Ok(Sensitivity { model: self.name(), ..found })
    }

    /// Measures how fast this machine learns the network's units with `recipe`, on random input; `sample_shapes` as in
    /// [`Model::plan`].
    pub fn bench(&self, recipe: &Recipe, sample_shapes: Option<&[Vec<usize>]>, sink: &mut dyn Sink) -> Result<Bench> {
        let graph = pipeline::prepare(&self.graph, sample_shapes);
        let bench = graph.and_then(|graph| pipeline::bench(&graph, recipe, sample_shapes, sink));
        bench.map_err(|e| e.at(self.name()))
    }

    /// Loads the network in a runtime, at its default optimisation level.
    pub fn deploy(&self, library: &Library, threads: usize) -> Result<Deployed> {
        match &self.path {
            Some(path) if !self.changed => Deployed::open(library, path, threads),
            _ => Deployed::of_graph(library, &self.graph, &self.name(), threads),
        }
    }

    /// The simplified network for `samples`, and their shapes.
    fn prepared(&self, samples: &dyn Samples) -> Result<(Graph, Vec<Vec<usize>>)> {
        let shapes = shapes_of(samples)?;
        let graph = pipeline::prepare(&self.graph, Some(&shapes)).map_err(|e| e.at(self.name()))?;
        Ok((graph, shapes))
    }
}

/// The detector that `graph` is. With a family that the recipe names, an error where it is not that one.
fn detector(graph: &Graph, recipe: &Recipe, shapes: Option<&[Vec<usize>]>) -> Result<Option<Detector>> {
    if recipe.input.task.is_some_and(|task| task != Task::Coco) {
        return Ok(None);
    }
    match &recipe.input.detector {
        Some(family) => pipeline::recognise(graph, shapes, Some(family.parse()?)).map(Some),
        None => Ok(pipeline::recognise(graph, shapes, None).ok()),
    }
}

fn only(detected: Vec<Detected>) -> Result<Detected> {
    detected.into_iter().next().ok_or_else(|| Error::internal("a network was not measured"))
}

/// Checks that `graph` has the outputs that `recipe` measures, and that each of `samples` has a label or target.
pub(super) fn check_answers(
    graph: &Graph,
    shapes: &[Vec<usize>],
    samples: &dyn Samples,
    recipe: &Recipe,
) -> Result<()> {
    let checked = match recipe.input.task {
        Some(task) => pipeline::check_task(graph, shapes, samples, task),
        None => pipeline::check_labels(graph, shapes, samples),
    };
    checked.map_err(|e| at_source(samples, e))
}
