//! A file in a runtime: what it declares, what it answers for samples, and what a task measures about it.

use super::accuracy::{answering, check_answers, only, scores};
use super::detection::{self, Detected};
use super::images;
use super::open::{Answer, Given, answers, batched};
use super::samples::{Checked, check_classes};
use super::segmentation;
use crate::data::{Remembered, Samples};
use crate::disk;
use crate::engine::device::processors;
use crate::engine::facts;
use crate::error::{Error, Kind, Result};
use crate::graph::{Dim, Fact, Graph, ValueId};
use crate::onnx;
use crate::plan::Task;
use crate::probe::{Answering, go_on, input_shapes, shapes_of};
use crate::report::{Event, Score, Silent, Sink, Stage};
use crate::runtime::{Library, Options, Session};
use crate::tensor::{DType, Rows, Tensor};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Elements of input that one run takes at most, about.
const RUN: usize = 1 << 21;
/// Samples that one run takes at most.
const SAMPLES: usize = 32;

/// A file that is loaded in a runtime. This library's own engine is not involved, so files with operators that it
/// cannot run can be measured too.
pub struct Deployed {
    session: Session,
    path: PathBuf,
    /// What errors and notes call it.
    name: String,
    threads: usize,
    /// Samples of a run where the file fixes them.
    batch: Option<usize>,
    /// The inputs and outputs, without a node.
    face: Graph,
    /// Where the session's file lies when it is a copy; it goes after the session.
    _copy: Option<TempDir>,
}

impl Deployed {
    /// Loads the file at `path` in `library`, with its default optimisations; with `threads` 0 the runtime chooses
    /// their number. It is an error if the runtime refuses the file, or if its inputs expect different numbers of
    /// samples.
    pub fn open(library: &Library, path: &Path, threads: usize) -> Result<Self> {
        let session = Session::new(library, path, &Options { threads, ..Options::default() })?;
        let face = face(&session);
        let mut batch = None;
        for (input, axis) in session.inputs().iter().zip(face.batch_axes()) {
            let dims = input.fact.shape.as_deref().unwrap_or_default();
            let Some(Dim::Known(n)) = axis.and_then(|axis| dims.get(axis)) else { continue };
            if batch.is_some_and(|b| b != *n) || *n == 0 {
                let message = format!("expected inputs with the same number of samples, got {n}");
                return Err(Error::unsupported(message).at(format!("input `{}`", input.name)).at(path.display()));
            }
            batch = Some(*n);
        }
        let name = path.display().to_string();
        Ok(Deployed { session, path: path.to_path_buf(), name, threads, batch, face, _copy: None })
    }

    /// Like [`Deployed::open`], but for `graph`, which is written to a temporary file; errors call it `name`.
    pub fn of_graph(library: &Library, graph: &Graph, name: &str, threads: usize) -> Result<Self> {
        let dir = disk::temporary_folder()
            .map_err(|e| Error::new(Kind::Io, format!("cannot make a directory for a copy: {e}")))?;
        let path = dir.path().join("model.onnx");
        onnx::write(graph, &path)?;
        let file = Self::open(library, &path, threads).map_err(|e| e.at(name))?;
        Ok(Deployed { _copy: Some(dir), name: name.to_string(), ..file })
    }

    /// The runtime.
    pub fn library(&self) -> &Library {
        self.session.library()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The requested number of threads; 0 leaves the choice to the runtime.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Names of the outputs.
    pub fn outputs(&self) -> Vec<&str> {
        self.session.outputs().iter().map(|p| p.name.as_str()).collect()
    }

    /// A graph of inputs and outputs as the runtime declares them, without a node, for whatever asks what samples must
    /// look like.
    pub fn face(&self) -> Graph {
        self.face.clone()
    }

    /// That the answers for `samples` are those that `task` asks for, or scores of classes without a task, and that
    /// every sample has what its answer is held against. The first sample is run.
    pub fn check(&self, samples: &dyn Samples, task: Option<Task>) -> Result<()> {
        let first = || self.alone(&samples.get(0)?, &Silent);
        match task {
            Some(Task::Coco) => return images::check_outputs::<detection::Tally>(&first()?, samples),
            Some(Task::Segmentation) => return images::check_outputs::<segmentation::Tally>(&first()?, samples),
            _ => {}
        }
        let shapes = shapes_of(samples)?;
        let names = self.outputs();
        let wanted: Vec<&str> = answering(&names, task)?.into_iter().map(|i| names[i]).collect();
        let sizes: Vec<usize> =
            self.rows(&[samples.get(0)?], &wanted, self.batch.unwrap_or(1), &Silent)?.iter().map(Rows::width).collect();
        match task {
            Some(task) => check_answers(&sizes, &shapes, samples, task),
            None => check_classes(sizes[0], samples),
        }
    }

    /// The metrics of `task` on `samples`, as [`super::measure()`] has them for this library's own engine. Several
    /// samples are run at a time where the file leaves their number open; `sink` is told where the runtime then refuses
    /// to.
    pub fn measure(&self, samples: &dyn Samples, task: Option<Task>, sink: &mut dyn Sink) -> Result<Score> {
        measure_deployed(&[self], samples, task, sink).and_then(only)
    }

    /// This, asked for the outputs `wanted` of samples like the `first`.
    fn asked<'a>(&'a self, wanted: Vec<&'a str>, first: Vec<Tensor>, sink: &mut dyn Sink) -> Result<Asked<'a>> {
        let elements: usize = first.iter().map(Tensor::len).sum();
        let mut batch = self.batch.unwrap_or((RUN / elements.max(1)).clamp(1, SAMPLES));
        if !self.stacks(&first) {
            batch = 1;
        }
        if self.batch.is_none() && batch > 1 {
            let pair = [first.clone(), first];
            if let Err(error) = self.rows(&pair, &wanted, 2, sink) {
                go_on(sink)?;
                // Where one alone is refused as well, the error is another.
                self.rows(&pair[..1], &wanted, 1, sink)?;
                let message = format!("`{}` can only run one sample at a time: {error}", self.name);
                sink.event(&Event::Note { message });
                batch = 1;
            }
        }
        Ok(Asked { deployed: self, wanted, batch })
    }

    /// The outputs `wanted` of `samples`, run by `batch`; the last run is filled up where the file fixes its size.
    pub(super) fn rows(
        &self,
        samples: &[Vec<Tensor>],
        wanted: &[&str],
        batch: usize,
        sink: &dyn Sink,
    ) -> Result<Vec<Rows>> {
        let stacks = samples.first().is_some_and(|sample| self.stacks(sample));
        let batch = if stacks { batch } else { 1 };
        let mut all: Vec<Vec<f32>> = vec![Vec::new(); wanted.len()];
        let mut widths: Vec<Option<usize>> = vec![None; wanted.len()];
        for some in samples.chunks(batch) {
            let n = self.batch.filter(|_| stacks).unwrap_or(some.len());
            let filled: Vec<&[Tensor]> = (0..n).map(|i| some[i.min(some.len() - 1)].as_slice()).collect();
            let inputs = self.joined(&filled)?;
            let outputs = self.run(&inputs, wanted, sink)?;
            for (k, output) in outputs.iter().enumerate() {
                let at = |e: Error| e.at(format!("output `{}`", wanted[k])).at(&self.name);
                if n > 1 && output.shape().first() != Some(&n) {
                    let message = format!("expected {n} samples along the first axis, got shape {:?}", output.shape());
                    return Err(at(Error::unsupported(message)));
                }
                let values = output.to_f32().map_err(at)?;
                let width = values.len() / n;
                let want = *widths[k].get_or_insert(width);
                if want != width {
                    let message = format!("expected {want} elements for every sample, got {width}");
                    return Err(at(Error::unsupported(message)));
                }
                all[k].extend_from_slice(&values[..width * some.len()]);
            }
        }
        Ok(all.into_iter().map(|data| Rows::new(samples.len(), data)).collect())
    }

    /// Whether samples like this lie side by side along the first axis of every input.
    pub(super) fn stacks(&self, sample: &[Tensor]) -> bool {
        let declared = |i: usize| self.face.value(self.face.inputs[i]).fact.shape.as_ref().map(Vec::len);
        let mut inputs = sample.iter().zip(self.face.batch_axes()).enumerate();
        inputs.all(|(i, (tensor, axis))| axis == Some(0) && declared(i).is_none_or(|rank| rank == tensor.rank() + 1))
    }

    /// `samples` as inputs of one run.
    pub(super) fn joined(&self, samples: &[&[Tensor]]) -> Result<Vec<Tensor>> {
        let inputs = self.face.inputs.len();
        if let Some(sample) = samples.iter().find(|s| s.len() != inputs) {
            let message = format!("the network has {inputs} inputs, the sample has {}", sample.len());
            return Err(Error::data(message));
        }
        if let [sample] = samples {
            let one = |(i, t): (usize, &Tensor)| t.clone().reshaped(&self.face.input_shape(i, t.shape()));
            return sample.iter().enumerate().map(one).collect();
        }
        if samples.first().is_some_and(|sample| !self.stacks(sample)) {
            let message =
                format!("expected samples along the first axis of every input, got {} at once", samples.len());
            return Err(Error::unsupported(message).at(&self.name));
        }
        (0..inputs).map(|i| Tensor::stack(&samples.iter().map(|s| &s[i]).collect::<Vec<_>>())).collect()
    }

    /// The outputs `wanted` of one run on whole `inputs`, in the order of the file's; the run ends when `sink` asks to stop.
    pub(super) fn run(&self, inputs: &[Tensor], wanted: &[&str], sink: &dyn Sink) -> Result<Vec<Tensor>> {
        let found = self.session.run_unless(&self.named(inputs), wanted, &|| sink.cancelled());
        found.map_err(|e| if e.kind() == Kind::Interrupted { e } else { e.at(&self.name) })
    }

    /// As [`Self::run`], without anything beside the run that would take time.
    pub(super) fn measured(&self, inputs: &[Tensor], wanted: &[&str]) -> Result<Vec<Tensor>> {
        self.session.run_for(&self.named(inputs), wanted).map_err(|e| e.at(&self.name))
    }

    /// All outputs for one sample, in the order of the file's.
    fn alone(&self, sample: &[Tensor], sink: &dyn Sink) -> Result<Vec<Given>> {
        let n = self.batch.filter(|_| self.stacks(sample)).unwrap_or(1);
        let outputs = self.run(&self.joined(&vec![sample; n])?, &self.outputs(), sink)?;
        let one = |(name, output): (&str, Tensor)| {
            let at = |e: Error| e.at(format!("output `{name}`")).at(&self.name);
            let mut shape = output.shape().to_vec();
            if n > 1 && shape.first() != Some(&n) {
                let message = format!("expected {n} samples along the first axis, got shape {shape:?}");
                return Err(at(Error::unsupported(message)));
            }
            if n > 1 {
                shape[0] = 1;
            }
            let mut values = output.to_f32().map_err(at)?;
            values.truncate(values.len() / n);
            let integer = matches!(output.dtype(), DType::I32 | DType::I64);
            Ok(Given { name: name.to_string(), shape, integer, values })
        };
        self.outputs().into_iter().zip(outputs).map(one).collect()
    }

    fn named<'a>(&'a self, inputs: &'a [Tensor]) -> Vec<(&'a str, &'a Tensor)> {
        self.session.inputs().iter().map(|p| p.name.as_str()).zip(inputs).collect()
    }

    /// The axis along which samples lie side by side, for each input.
    pub(super) fn batch_axes(&self) -> Vec<Option<usize>> {
        self.face.batch_axes()
    }

    /// What the inputs declare.
    pub(super) fn inputs(&self) -> impl Iterator<Item = (&str, &Fact)> {
        self.session.inputs().iter().map(|p| (p.name.as_str(), &p.fact))
    }

    /// Samples of a run where the file fixes them.
    pub(super) fn batch(&self) -> Option<usize> {
        self.batch
    }
}

/// As [`Deployed::measure`], for several files at once: every sample is decoded once.
pub fn measure_deployed(
    files: &[&Deployed],
    samples: &dyn Samples,
    task: Option<Task>,
    sink: &mut dyn Sink,
) -> Result<Vec<Score>> {
    if samples.is_empty() {
        return Err(Error::data("expected samples, got none"));
    }
    let samples = &Remembered::first(samples);
    match task {
        Some(Task::Coco) => {
            return Ok(detect_deployed(files, samples, sink)?.into_iter().map(|d| d.score).collect());
        }
        Some(Task::Segmentation) => {
            // Maps are large, so each sample is run alone.
            let run = |file: usize, sample: &[Tensor], sink: &dyn Sink| files[file].alone(sample, sink);
            return images::measure_each::<segmentation::Tally>(files.len(), samples, &run, sink);
        }
        _ => {}
    }
    let mut asked = Vec::new();
    for file in files {
        let names = file.outputs();
        let wanted = answering(&names, task)?.into_iter().map(|i| names[i]).collect();
        asked.push(file.asked(wanted, samples.get(0)?, sink)?);
    }
    let asked: Vec<&dyn Answering> = asked.iter().map(|a| a as &dyn Answering).collect();
    let faces: Vec<&Graph> = files.iter().map(|file| &file.face).collect();
    let threads = files.first().map_or(0, |file| file.threads);
    scores((&faces, &asked), samples, task, &processors(threads)?, sink)
}

/// What several files detect in annotated images: every image is decoded once.
pub fn detect_deployed(files: &[&Deployed], samples: &dyn Samples, sink: &mut dyn Sink) -> Result<Vec<Detected>> {
    // The number of boxes may differ from sample to sample, so each is run alone.
    let run = |file: usize, sample: &[Tensor], sink: &dyn Sink| files[file].alone(sample, sink);
    images::measure_each::<detection::Tally>(files.len(), samples, &run, sink)
}

/// As [`super::outputs`], of `file`, which `graph` (simplified) is in a runtime.
pub fn outputs_deployed(
    file: &Deployed,
    graph: &Graph,
    samples: &Checked,
    sink: &mut dyn Sink,
    mut take: impl FnMut(usize, &[Answer<'_>]) -> Result<()>,
) -> Result<()> {
    let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes_of(samples)?))?)?;
    let batched = batched(graph, &facts);
    let total = samples.len();
    // The sizes of outputs may differ from sample to sample, so each is run alone.
    for index in 0..total {
        go_on(sink)?;
        let outputs = file.alone(&samples.get(index)?, sink)?;
        take(index, &answers(&outputs, &batched))?;
        sink.event(&Event::StageProgress { stage: Stage::Evaluate, done: index + 1, total });
    }
    Ok(())
}

/// The inputs and outputs of `session`, without a node.
fn face(session: &Session) -> Graph {
    let mut graph = Graph { opset: onnx::NEWEST_OPSET, ..Graph::default() };
    let mut add = |name: &str, fact: &Fact| -> ValueId { graph.add_value(name, fact.clone()) };
    let inputs = session.inputs().iter().map(|p| add(&p.name, &p.fact)).collect();
    let outputs = session.outputs().iter().map(|p| add(&p.name, &p.fact)).collect();
    (graph.inputs, graph.outputs) = (inputs, outputs);
    graph
}

/// A file in a runtime, asked for some of its outputs.
struct Asked<'a> {
    deployed: &'a Deployed,
    wanted: Vec<&'a str>,
    /// Samples of a run.
    batch: usize,
}

impl Answering for Asked<'_> {
    fn chunk(&self) -> RangeInclusive<usize> {
        // Samples are prepared on as many threads.
        let threads = if self.deployed.threads == 0 { rayon::current_num_threads() } else { self.deployed.threads };
        let chunk = threads.next_multiple_of(self.batch);
        chunk..=chunk
    }

    fn run(&self, samples: &[Vec<Tensor>], sink: &dyn Sink) -> Result<Vec<Rows>> {
        self.deployed.rows(samples, &self.wanted, self.batch, sink)
    }
}
