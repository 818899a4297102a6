//! Quantization from a program: the interface that the command line and sweeps use.
//!
//! A [`Model`] is a network. A [`Dataset`], or any other type that implements [`Samples`], provides tensors for it. A
//! [`Quantizer`] makes a [`QuantizedModel`] from both: the quantized network, which was written, read back and
//! measured, with its [`Report`].

mod dataset;
mod detections;
mod model;
mod result;

pub use dataset::{CalibrationSet, Dataset};
pub use model::{Model, Planned};
pub use result::QuantizedModel;

use crate::data::{Remembered, Samples, Subset, at_source, spread};
use crate::disk;
use crate::engine::device::Device;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::pipeline::{self, Checked, Deployed, Detected, Quantized};
use crate::plan::{MethodName, Preset, Recipe, Sensitivity, Stripe, Target, Task};
use crate::probe::{Loaded, shapes_of};
use crate::report::{
    Accuracy, Event, Latency, MixedReport, NearChance, Picture, Report, Score, Silent, Sink, Source, Stage, Timing,
    UnitReport, timed,
};
use crate::runtime::Library;
use crate::work::WorkDir;
use std::path::Path;

/// A builder for a run that quantizes a [`Model`]: set options, then call [`Quantizer::quantize`] or
/// [`Quantizer::quantize_to`].
///
/// ```
/// use qdrop::{Dataset, Model, Quantizer, Recipe, plan::Preset, report::Silent};
///
/// let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
/// let model = Model::open(format!("{examples}/network.onnx"))?;
/// let samples = Dataset::open(format!("{examples}/samples.npz"), &model, &Recipe::default(), None, &Silent)?;
/// let quantized = Quantizer::new(&model)
///     .weights(4)
///     .activations(4)
///     .preset(Preset::Fast)
///     .configure(|recipe| recipe.method.iterations = Some(20))
///     .evaluate_on(&samples)
///     .quantize(&samples)?;
/// let accuracy = quantized.report().accuracy.as_ref().unwrap();
/// assert!(accuracy.result.metrics["top1"] > 50.0);
/// let file: Vec<u8> = quantized.to_bytes()?;
/// assert!((file.len() as u64) < model.size());
/// # Ok::<(), qdrop::Error>(())
/// ```
pub struct Quantizer<'a> {
    model: &'a Model,
    recipe: Recipe,
    sensitivity: Option<Sensitivity>,
    evaluation: Option<&'a dyn Samples>,
    float_score: Option<Score>,
    measure_nearest: bool,
    unseen: Option<&'a dyn Samples>,
    runtime: Option<&'a Library>,
    work: Option<&'a WorkDir>,
    device: Option<&'a dyn Device>,
    sink: Option<&'a mut dyn Sink>,
    timings: Vec<Timing>,
}

impl<'a> Quantizer<'a> {
    /// A quantizer of `model` with the default recipe: QDrop, weights and activations of 4 bits.
    pub fn new(model: &'a Model) -> Self {
        Quantizer {
            model,
            recipe: Recipe::default(),
            sensitivity: None,
            evaluation: None,
            float_score: None,
            measure_nearest: true,
            unseen: None,
            runtime: None,
            work: None,
            device: None,
            sink: None,
            timings: Vec::new(),
        }
    }

    /// Replaces all options by those of `recipe`.
    #[must_use]
    pub fn recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = recipe;
        self
    }

    /// Changes options of the recipe with a function.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Recipe)) -> Self {
        change(&mut self.recipe);
        self
    }

    /// Sets the bits of weights: 2 to 8, or 32 for float.
    #[must_use]
    pub fn weights(self, bits: u32) -> Self {
        self.configure(|recipe| recipe.weights.bits = bits)
    }

    /// Sets the bits of activations: 2 to 8, 16, or 32 for float.
    #[must_use]
    pub fn activations(self, bits: u32) -> Self {
        self.configure(|recipe| recipe.activations.bits = bits)
    }

    /// Sets the method; the default is QDrop.
    #[must_use]
    pub fn method(self, method: MethodName) -> Self {
        self.configure(|recipe| recipe.method.name = method)
    }

    /// Sets the preset, which decides how long the run learns.
    #[must_use]
    pub fn preset(self, preset: Preset) -> Self {
        self.configure(|recipe| recipe.method.preset = preset)
    }

    /// Sets the seed for all random choices: the same seed gives the same file.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        self.configure(|recipe| recipe.method.seed = seed)
    }

    /// Sets the runtime that the file is for.
    #[must_use]
    pub fn target(self, target: Target) -> Self {
        self.configure(|recipe| recipe.output.target = target)
    }

    /// Chooses bits layer by layer from earlier measurements, for a recipe with a target for size or bit operations.
    /// Without this, the run measures by itself.
    #[must_use]
    pub fn sensitivity(mut self, measured: Sensitivity) -> Self {
        self.sensitivity = Some(measured);
        self
    }

    /// Sets the labelled samples on which the float network, nearest rounding and the result are measured.
    #[must_use]
    pub fn evaluate_on(mut self, samples: &'a dyn Samples) -> Self {
        self.evaluation = Some(samples);
        self
    }

    /// Sets the known score of the float network on the samples of [`Quantizer::evaluate_on`], which is then not
    /// measured again.
    #[must_use]
    pub fn float_score(mut self, score: Score) -> Self {
        self.float_score = Some(score);
        self
    }

    /// Sets whether nearest rounding is measured on the samples of [`Quantizer::evaluate_on`] too; the default is true.
    #[must_use]
    pub fn measure_nearest(mut self, measure: bool) -> Self {
        self.measure_nearest = measure;
        self
    }

    /// Sets samples that the run does not calibrate on, on which the outputs of the result are compared with those of
    /// the float network; they need no labels. Without them the run takes, in this order, the calibration samples that
    /// no stage reads, the samples of [`Quantizer::evaluate_on`], or all calibration samples.
    #[must_use]
    pub fn unseen(mut self, samples: &'a dyn Samples) -> Self {
        self.unseen = Some(samples);
        self
    }

    /// Measures accuracy in this runtime instead of the library's own engine, and also the latency of both networks.
    #[must_use]
    pub fn runtime(mut self, library: &'a Library) -> Self {
        self.runtime = Some(library);
        self
    }

    /// Keeps every finished unit in `work`; a later run with the same settings takes it from there instead of learning
    /// it again. The caller removes the directory once the result is saved.
    #[must_use]
    pub fn work_dir(mut self, work: &'a WorkDir) -> Self {
        self.work = Some(work);
        self
    }

    /// Runs calibration and learning on `device` instead of this machine's processors, which measure the result. The
    /// interface of devices may change in any release.
    #[must_use]
    pub fn device(mut self, device: &'a dyn Device) -> Self {
        self.device = Some(device);
        self
    }

    /// Reports progress to `sink`, which may also stop the run.
    #[must_use]
    pub fn progress(mut self, sink: &'a mut dyn Sink) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Adds the times of earlier stages that the caller measured, for the report.
    #[must_use]
    pub fn after(mut self, timings: Vec<Timing>) -> Self {
        self.timings = timings;
        self
    }

    /// The stages that the recipe asks for, in order, each once: events name them as they begin and end. A stage that
    /// finds nothing to do, such as choosing factors where no activation can have any, may be left out by the run.
    ///
    /// ```
    /// use qdrop::report::Stage;
    /// use qdrop::{Model, Quantizer, plan::MethodName};
    ///
    /// let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/network.onnx"))?;
    /// let stages = Quantizer::new(&model).method(MethodName::Rtn).stages();
    /// assert_eq!(stages.first(), Some(&Stage::Simplify));
    /// assert!(!stages.contains(&Stage::Reconstruct));
    /// # Ok::<(), qdrop::Error>(())
    /// ```
    pub fn stages(&self) -> Vec<Stage> {
        let mut stages = vec![Stage::Simplify];
        stages.extend(pipeline::stages(&self.recipe, self.sensitivity.is_some()));
        stages.extend([Stage::Write, Stage::Compare]);
        stages.extend(self.evaluation.map(|_| Stage::Evaluate));
        stages.extend(self.runtime.filter(|_| !stages.contains(&Stage::Bench)).map(|_| Stage::Bench));
        stages
    }

    /// Quantizes in memory. `calibration` are a few hundred samples, without labels, on which the run calibrates and
    /// from which it learns. Measurements are made on the network that [`QuantizedModel::to_bytes`] returns. The
    /// network must be smaller than 2 GiB.
    pub fn quantize(self, calibration: &dyn Samples) -> Result<QuantizedModel> {
        self.run(calibration, None)
    }

    /// Quantizes, and writes the file `output` before anything is measured, with an encodings file next to it if the
    /// target needs one. Measurements are made on the written file, read back.
    pub fn quantize_to(self, calibration: &dyn Samples, output: impl AsRef<Path>) -> Result<QuantizedModel> {
        self.run(calibration, Some(output.as_ref()))
    }

    /// Solves the units of `share`, keeps them in `work`, and stops: runs on several machines divide the units among
    /// themselves, and [`Quantizer::quantize`] with the same settings, samples and directory then finds all of them there.
    /// Units are counted in network order, those without layers left out. The result tells what was solved.
    ///
    /// It is an error if units depend on more than the float network: those of AdaRound and BRECQ do unless the recipe
    /// has `input_keep = 0`, and those of QDrop always do.
    pub fn solve_share(self, calibration: &dyn Samples, work: &WorkDir, share: Stripe) -> Result<Vec<UnitReport>> {
        let mut silent = Silent;
        let Quantizer { model, mut recipe, sensitivity, .. } = self;
        let sink = self.sink.unwrap_or(&mut silent);
        recipe.validate()?;
        enough(calibration, &recipe)?;
        let calibration = &Remembered::first(calibration);
        let shapes = shapes_of(calibration)?;
        let (graph, _) = simplified(model, &shapes, sink)?;
        if let Some(sensitivity) = sensitivity {
            recipe = recipe.with(&pipeline::choose(&graph, &recipe, &sensitivity, Some(&shapes))?);
        }
        let checked = Checked::new(&graph, &shapes, calibration)?.beside(pipeline::beside(model.graph(), &graph));
        pipeline::solve_share(self.device, &graph, &recipe, &checked, (work, share), sink)
    }

    fn run(self, calibration: &dyn Samples, output: Option<&Path>) -> Result<QuantizedModel> {
        let mut silent = Silent;
        let Quantizer { model, mut recipe, sensitivity, runtime, mut timings, work, .. } = self;
        let sink = self.sink.unwrap_or(&mut silent);
        recipe.validate()?;
        enough(calibration, &recipe)?;
        let calibration = &Remembered::first(calibration);
        let evaluation = self.evaluation.map(Remembered::first);
        let shapes = shapes_of(calibration)?;
        let (graph, timing) = simplified(model, &shapes, sink)?;
        timing.add_to(&mut timings);
        let mut mixed = None;
        if let Some(sensitivity) = sensitivity {
            let chosen = pipeline::choose(&graph, &recipe, &sensitivity, Some(&shapes))?;
            recipe = recipe.with(&chosen);
            mixed = Some(MixedReport { chosen, sensitivity, reached_error: None });
        }
        let checked = Checked::new(&graph, &shapes, calibration)?.beside(pipeline::beside(model.graph(), &graph));
        let unseen = self.unseen.filter(|samples| !samples.is_empty());
        let unseen = unseen.map(|samples| Checked::new(&graph, &shapes, samples)).transpose()?;
        let mut measuring = Measuring {
            model,
            graph: &graph,
            shapes: &shapes,
            calibration: &checked,
            unused: Vec::new(),
            unseen: unseen.as_ref().map(|samples| samples as &dyn Samples),
            evaluation: None,
            float_score: self.float_score,
            nearest: self.measure_nearest,
            runtime,
        };
        let evaluation = match &evaluation {
            Some(samples) => measuring.measurable(samples, &recipe, sink)?,
            None => None,
        };
        measuring.evaluation = evaluation.as_ref().map(|samples| samples as &dyn Samples);
        measuring.unused = pipeline::left_out(&recipe, checked.len());

        let samples = (&checked as &dyn Samples, measuring.compares_calibration());
        let (done, loaded) = pipeline::quantize_and_keep(self.device, &graph, &recipe, samples, work, sink)?;
        let mut report = done.report.clone();
        if let Some(now) = &report.mixed {
            recipe = recipe.with(&now.chosen);
        }
        report.mixed = report.mixed.or(mixed);
        for timing in std::mem::take(&mut report.timings) {
            timing.add_to(&mut timings);
        }
        let write = |_: &mut dyn Sink| result::written(&done, output);
        let (written, timing) = timed(sink, Stage::Write, None, write)?;
        timing.add_to(&mut timings);
        report.model = model.name();
        (report.bytes_before, report.bytes_after) = (Some(model.size()), Some(written.bytes));
        (report.output, report.encodings) = (written.output.clone(), written.encodings.clone());
        // What is measured is what was written.
        let simplified = pipeline::prepare(&written.graph, Some(&shapes))?;
        measuring.measure((&done, loaded), &written, &simplified, &recipe, (&mut report, &mut timings), sink)?;
        report.skipped = calibration.skipped() + measuring.evaluation.map_or(0, Samples::skipped);
        report.timings = timings;
        Ok(QuantizedModel::new(done, recipe, report))
    }
}

/// The network of `model` as a run wants it, for samples of these shapes.
fn simplified(model: &Model, shapes: &[Vec<usize>], sink: &mut dyn Sink) -> Result<(Graph, Timing)> {
    let prepare = |_: &mut dyn Sink| pipeline::prepare(model.graph(), Some(shapes)).map_err(|e| e.at(model.name()));
    timed(sink, Stage::Simplify, None, prepare)
}

/// That there are as many samples as an iteration draws.
fn enough(samples: &dyn Samples, recipe: &Recipe) -> Result<()> {
    let (len, batch) = (samples.len(), recipe.method.batch);
    if recipe.method.name != MethodName::Rtn && len < batch {
        let message = format!("expected at least as many calibration samples as a batch, {batch}, got {len}");
        let error = Error::data(message).hint("add samples, or lower --batch");
        return Err(at_source(samples, error));
    }
    Ok(())
}

/// What the result of a run is measured with.
struct Measuring<'r> {
    model: &'r Model,
    /// The float network, simplified.
    graph: &'r Graph,
    shapes: &'r [Vec<usize>],
    calibration: &'r Checked<'r>,
    /// Those of the calibration samples that no stage reads.
    unused: Vec<usize>,
    unseen: Option<&'r dyn Samples>,
    evaluation: Option<&'r dyn Samples>,
    float_score: Option<Score>,
    nearest: bool,
    runtime: Option<&'r Library>,
}

impl<'r> Measuring<'r> {
    /// `samples`, where answers for them can be had; an error where they do not fit the network's answers.
    fn measurable<'s>(
        &self,
        samples: &'s dyn Samples,
        recipe: &Recipe,
        sink: &mut dyn Sink,
    ) -> Result<Option<Checked<'s>>> {
        let task = recipe.input.task;
        let at = |e: Error| at_source(samples, e);
        match (pipeline::unknown_answer(self.graph, self.shapes, task)?, self.runtime) {
            (None, _) => model::check_answers(self.graph, self.shapes, samples, recipe)?,
            (Some(_), Some(library)) => self.model.deploy(library, 1)?.check(samples, task).map_err(at)?,
            (Some(name), None) => {
                let message = format!(
                    "accuracy is not measured: output `{name}` depends on an operator that cannot be run here; try \
                     `--runtime ort`"
                );
                sink.event(&Event::Note { message });
                return Ok(None);
            }
        }
        Checked::new(self.graph, &shapes_of(samples)?, samples).map(Some).map_err(at)
    }

    /// Measures the network that was `written`, `simplified`, and puts it into the report. `loaded` are the calibration
    /// samples as far as they were decoded.
    fn measure(
        &self,
        (done, loaded): (&Quantized, Loaded),
        written: &result::Written,
        simplified: &Graph,
        recipe: &Recipe,
        (report, timings): (&mut Report, &mut Vec<Timing>),
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let most = pipeline::compared(&report.plan, report.samples);
        let evaluation = self.evaluation.map(|samples| remembered(samples, most));
        let evaluation = evaluation.as_ref().map(|samples| samples as &dyn Samples);
        let ((), timing) = timed(sink, Stage::Compare, None, |sink| -> Result<()> {
            if let Some(mixed) = &mut report.mixed {
                mixed.sensitivity.model = self.model.name();
                let error = pipeline::output_error(self.graph, simplified, recipe, &loaded, sink)?;
                mixed.reached_error = Some(error);
            }
            self.quality(simplified, recipe, report, (&loaded, evaluation, most), sink)
        })?;
        drop(loaded);
        timing.add_to(timings);
        if let Some(samples) = evaluation {
            let ((accuracy, pictures), timing) = timed(sink, Stage::Evaluate, None, |sink| match self.runtime {
                Some(library) => {
                    self.accuracy_in(library, done, written, (samples, recipe), sink).map_err(after_writing)
                }
                None => self.accuracy(done, simplified, (samples, recipe), sink),
            })?;
            report.pictures = pictures;
            report.near_chance = self.near_chance(samples, recipe, &accuracy.float)?;
            report.accuracy = Some(accuracy);
            timing.add_to(timings);
        }
        if let Some(library) = self.runtime {
            let latency = |sink: &mut dyn Sink| self.latency(library, written, sink);
            let (latency, timing) = timed(sink, Stage::Bench, None, latency).map_err(after_writing)?;
            report.latency = Some(latency);
            timing.add_to(timings);
        }
        Ok(())
    }

    /// The distance of the outputs of `written` to the float network's.
    fn quality(
        &self,
        written: &Graph,
        recipe: &Recipe,
        report: &mut Report,
        (calibration, evaluation, most): (&dyn Samples, Option<&dyn Samples>, usize),
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let unused = Subset::new(self.calibration, self.unused.clone())?;
        let unused = remembered(&unused, most);
        let unseen = self.unseen.map(|samples| remembered(samples, most));
        let mut sources: Vec<(Source, &dyn Samples)> = Vec::new();
        sources.extend(unseen.as_ref().map(|samples| (Source::LeftOut, samples as &dyn Samples)));
        sources.push((Source::LeftOut, &unused));
        sources.extend(evaluation.filter(|e| !self.calibrated_on(*e)).map(|e| (Source::Evaluation, e)));
        sources.push((Source::Calibration, calibration));
        report.quality = Some(pipeline::quality(self.graph, written, recipe, report, &sources, sink)?);
        Ok(())
    }

    /// Whether the result is compared on samples that it was calibrated on, since there are no others.
    fn compares_calibration(&self) -> bool {
        self.unseen.is_none() && self.unused.is_empty() && self.evaluation.is_none_or(|e| self.calibrated_on(e))
    }

    /// Whether `samples` lie where the calibration samples lie.
    fn calibrated_on(&self, samples: &dyn Samples) -> bool {
        match (samples.source(), self.calibration.source()) {
            (Some(a), Some(b)) => disk::same_file(Path::new(&a), Path::new(&b)),
            _ => false,
        }
    }

    fn near_chance(&self, samples: &dyn Samples, recipe: &Recipe, float: &Score) -> Result<Option<NearChance>> {
        pipeline::near_chance(self.graph, samples, recipe, float)
    }

    /// Accuracy in the library's own engine.
    fn accuracy(
        &self,
        done: &Quantized,
        written: &Graph,
        (samples, recipe): (&dyn Samples, &Recipe),
        sink: &mut dyn Sink,
    ) -> Result<(Accuracy, Vec<Picture>)> {
        let (task, threads) = (recipe.input.task, recipe.method.threads);
        let mut networks = vec![written];
        networks.extend(self.nearest.then_some(&done.nearest));
        networks.extend(self.float_score.is_none().then_some(self.graph));
        if task == Some(Task::Coco) {
            return self.detected(pipeline::detect_all(&networks, samples, threads, sink)?, samples, sink);
        }
        Ok((self.accuracies(pipeline::measure_all(&networks, samples, task, threads, sink)?)?, Vec::new()))
    }

    /// The scores of what was `detected` in `samples`, and pictures of some.
    fn detected(
        &self,
        detected: Vec<Detected>,
        samples: &dyn Samples,
        sink: &mut dyn Sink,
    ) -> Result<(Accuracy, Vec<Picture>)> {
        let result = detected.first().ok_or_else(|| Error::internal("a network was not measured"))?;
        let float = detected.last().filter(|_| self.float_score.is_none());
        let pictures = detections::report_pictures(samples, (float, result), sink);
        Ok((self.accuracies(detected.into_iter().map(|d| d.score).collect())?, pictures))
    }

    /// The scores of the result, of nearest rounding and of the float network, as far as they were measured.
    fn accuracies(&self, scores: Vec<Score>) -> Result<Accuracy> {
        let mut scores = scores.into_iter();
        let mut next = || scores.next().ok_or_else(|| Error::internal("a network was not measured"));
        let result = next()?;
        let nearest = if self.nearest { Some(next()?) } else { None };
        let float = self.float_score.clone().map_or_else(next, Ok)?;
        Ok(Accuracy { float, nearest, result })
    }

    /// Accuracy in a runtime.
    fn accuracy_in(
        &self,
        library: &Library,
        done: &Quantized,
        written: &result::Written,
        (samples, recipe): (&dyn Samples, &Recipe),
        sink: &mut dyn Sink,
    ) -> Result<(Accuracy, Vec<Picture>)> {
        let (task, threads) = (recipe.input.task, recipe.method.threads);
        let mut files = vec![written.deploy(library, threads)?];
        if self.nearest {
            files.push(Deployed::of_graph(library, &done.nearest, "the network rounded to nearest", threads)?);
        }
        if self.float_score.is_none() {
            files.push(self.model.deploy(library, threads)?);
        }
        let files: Vec<&Deployed> = files.iter().collect();
        if task == Some(Task::Coco) {
            let samples = &Remembered::first(samples);
            return self.detected(pipeline::detect_deployed(&files, samples, sink)?, samples, sink);
        }
        Ok((self.accuracies(pipeline::measure_deployed(&files, samples, task, sink)?)?, Vec::new()))
    }

    /// Latency in a runtime of the float network and the result, on one thread and the first calibration sample.
    fn latency(&self, library: &Library, written: &result::Written, sink: &mut dyn Sink) -> Result<Latency> {
        const THREADS: usize = 1;
        let files = [self.model.deploy(library, THREADS)?, written.deploy(library, THREADS)?];
        let sample = self.calibration.get(0)?;
        let inputs = [files[0].batch_of(&sample)?, files[1].batch_of(&sample)?];
        let paces = pipeline::pace(&[(&files[0], &inputs[0]), (&files[1], &inputs[1])], sink)?;
        Ok(Latency {
            runtime: library.name(),
            threads: THREADS,
            batch: inputs[0].first().and_then(|t| t.shape().first()).copied().unwrap_or(1),
            float_ms: paces[0].processor_ms[0],
            result_ms: paces[1].processor_ms[0],
        })
    }
}

/// `samples`, at most `most` of which, spread over them, are compared and then read by others.
fn remembered(samples: &dyn Samples, most: usize) -> Remembered<'_> {
    Remembered::new(samples, spread(samples.len(), Some(most)))
}

/// `error` of a runtime, told when the file is there.
fn after_writing(error: Error) -> Error {
    let hint = "the file is written; `qdrop eval` without --runtime measures it in qdrop's own engine";
    if error.advice().is_none() { error.hint(hint) } else { error }
}
