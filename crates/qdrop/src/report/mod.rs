//! Progress of a run ([`Event`], [`Sink`]) and its result ([`Report`]).
//!
//! Everything here is data; the caller decides whether and how to print it.

mod bits;
pub mod chart;
mod detail;
mod drawings;
mod html;
mod numbers;
mod oddity;
pub mod page;
mod pictures;
mod quality;
mod score;
mod table;
mod trials;

pub use detail::{Curve, Effect, FloatNode, Histogram, LayerReport, PlannedUnit, SiteGrid, SiteReport};
pub(crate) use numbers::{decibels, short};
pub use oddity::Oddity;
pub(crate) use pictures::base64;
pub use pictures::{Marked, Picture, album};
pub(crate) use quality::added;
pub use quality::{Loss, LossPlace, NearChance, OutputQuality, Prepared, Quality, Remark, Source};
pub use score::{Accuracy, ClassScore, Score};
pub use table::{Table, bytes, chosen_bits, count, duration, figure, metric, visible};
pub use trials::Trial;

use crate::error::{Error, Kind, Result};
use crate::plan::{Chosen, MethodName, Preset, Sensitivity};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// A stage of a run. Variants are in the order in which a run passes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stage {
    /// Reading the model file.
    Read,
    /// Simplifying the graph: constants and BatchNorm are folded.
    Simplify,
    /// Deciding layers, activation sites, bits and units.
    Plan,
    /// Opening and decoding samples.
    Load,
    /// Choosing channel factors, which bring the channels of an activation to a common width.
    #[serde(alias = "equalize")]
    Factors,
    /// Observing activations and fitting the first grids.
    Calibrate,
    /// Checking the first activation steps against the network's outputs, and correcting them.
    Refine,
    /// Correcting biases, so that the results of rounded layers keep their means.
    Correct,
    /// Measuring how the bits of each layer and activation alone affect the network's outputs.
    Sensitivity,
    /// Measuring how much the network's outputs depend on the outputs of each unit.
    Weigh,
    /// Learning the units one after the other.
    Reconstruct,
    /// Expressing the quantized network in operators of the target.
    Lower,
    /// Writing the model file.
    Write,
    /// Running a network over labelled samples.
    Evaluate,
    /// Comparing two networks value by value.
    Compare,
    /// Measuring speed.
    Bench,
}

impl Stage {
    /// The displayed name (`calibrate`).
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Read => "read",
            Stage::Simplify => "simplify",
            Stage::Plan => "plan",
            Stage::Load => "load samples",
            Stage::Calibrate => "calibrate",
            Stage::Factors => "choose factors",
            Stage::Refine => "refine steps",
            Stage::Correct => "correct biases",
            Stage::Sensitivity => "measure sensitivity",
            Stage::Weigh => "weigh outputs",
            Stage::Reconstruct => "reconstruct",
            Stage::Lower => "lower",
            Stage::Write => "write",
            Stage::Evaluate => "evaluate",
            Stage::Compare => "compare",
            Stage::Bench => "measure speed",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event of a run. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A stage begins.
    StageStarted {
        /// The stage.
        stage: Stage,
        /// Number of steps (samples, units), if known.
        total: Option<usize>,
    },
    /// A stage advanced; calibration and evaluation count their samples this way.
    StageProgress {
        /// The stage.
        stage: Stage,
        /// Number of steps done, at most `total`.
        done: usize,
        /// Number of all steps.
        total: usize,
    },
    /// A stage ended.
    StageFinished {
        /// The stage.
        stage: Stage,
        /// Wall-clock time that it took.
        seconds: f64,
    },
    /// Reconstruction of a unit begins.
    UnitStarted {
        /// Position among the units to be learned, from 0.
        index: usize,
        /// Number of units to be learned.
        total: usize,
        /// The unit's name.
        name: String,
        /// Number of its weight layers.
        layers: usize,
        /// Number of iterations planned.
        iterations: usize,
    },
    /// Reconstruction of a unit advanced.
    UnitProgress {
        /// Position among the units to be learned, from 0.
        index: usize,
        /// Iterations done.
        iteration: usize,
        /// Number of iterations planned.
        iterations: usize,
        /// Reconstruction loss of the last batch whose loss is known, in squared units of the unit's output.
        loss: f64,
        /// Speed in this unit.
        iterations_per_second: f64,
        /// Estimated time until this unit is done.
        unit_seconds_left: f64,
        /// Estimated time until the whole run is done.
        run_seconds_left: f64,
    },
    /// Reconstruction of a unit ended.
    UnitFinished {
        /// Position among the units to be learned, from 0.
        index: usize,
        /// Its result.
        unit: UnitReport,
    },
    /// The estimated duration of the run, reported before learning begins.
    Estimate {
        /// Time until the file can be written.
        seconds: f64,
    },
    /// A message for the user that is not an error.
    Note {
        /// One line, lowercase, without a final period.
        message: String,
    },
}

/// A receiver for the events of a run, which may also ask the run to stop.
pub trait Sink: Sync {
    /// Receives an event; called on the thread that drives the run.
    fn event(&mut self, event: &Event);

    /// Whether the run should stop as soon as possible, with [`crate::Kind::Interrupted`]. Called between batches, on
    /// any thread.
    fn cancelled(&self) -> bool {
        false
    }
}

/// A sink that ignores every event and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Sink for Silent {
    fn event(&mut self, _: &Event) {}
}

/// A sink that passes every event to a function, and cancels when a flag is set.
///
/// ```
/// use qdrop::report::{Event, Progress, Sink, Stage};
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// let (mut events, stop) = (Vec::new(), AtomicBool::new(false));
/// let mut progress = Progress::new(|event: &Event| events.push(event.clone())).stopped_by(&stop);
/// progress.event(&Event::StageStarted { stage: Stage::Read, total: None });
/// stop.store(true, Ordering::Relaxed);
/// assert!(progress.cancelled());
/// drop(progress);
/// assert_eq!(events.len(), 1);
/// ```
#[derive(Debug)]
pub struct Progress<'a, F> {
    each: F,
    stop: Option<&'a AtomicBool>,
}

impl<'a, F: FnMut(&Event) + Sync> Progress<'a, F> {
    /// A sink that calls `each` for every event.
    pub fn new(each: F) -> Self {
        Progress { each, stop: None }
    }

    /// Cancels the run when `stop` becomes true.
    #[must_use]
    pub fn stopped_by(mut self, stop: &'a AtomicBool) -> Self {
        self.stop = Some(stop);
        self
    }
}

impl<F: FnMut(&Event) + Sync> Sink for Progress<'_, F> {
    fn event(&mut self, event: &Event) {
        (self.each)(event);
    }

    fn cancelled(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

/// Runs `work` as the stage `stage`: reports its begin and end to `sink`, and returns the result with the time it took.
pub fn timed<T>(
    sink: &mut dyn Sink,
    stage: Stage,
    total: Option<usize>,
    work: impl FnOnce(&mut dyn Sink) -> Result<T>,
) -> Result<(T, Timing)> {
    let start = std::time::Instant::now();
    sink.event(&Event::StageStarted { stage, total });
    let result = Error::caught(|| work(sink)).map_err(|e| match e.kind() {
        Kind::Internal => e.at(format!("stage `{stage}`")),
        _ => e,
    })?;
    let seconds = start.elapsed().as_secs_f64();
    sink.event(&Event::StageFinished { stage, seconds });
    Ok((result, Timing { stage, seconds }))
}

/// The result of one unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitReport {
    /// The unit's name.
    pub name: String,
    /// Index in [`Report::plan`]; `None` for the whole network, which is tuned at the end, and for the activations of a unit
    /// whose weights are learned before.
    pub unit: Option<usize>,
    /// Names of its weight layers.
    pub layers: Vec<String>,
    /// Reconstruction loss over all calibration samples with nearest rounding on the first grids, in squared units
    /// of the unit's output.
    #[serde(deserialize_with = "detail::number")]
    pub loss_before: f64,
    /// The same loss after learning. Both with everything quantized, or with float activations where the method learns
    /// weights in that way.
    #[serde(deserialize_with = "detail::number")]
    pub loss_after: f64,
    /// Signal-to-noise ratio of its outputs with respect to the float network's, in dB, with all earlier units
    /// quantized as in the file and this unit as for `loss_before`; `None` without noise.
    pub snr_before: Option<f64>,
    /// The same ratio after learning.
    pub snr_after: Option<f64>,
    /// Iterations done; 0 if nothing was learned.
    pub iterations: usize,
    /// Iterations planned; a unit ends early once all its roundings are settled.
    pub planned: usize,
    /// Whether learning raised the loss, so that the earlier solution was kept.
    pub reverted: bool,
    /// The losses during learning.
    pub curve: Curve,
    /// Whether it was learned in an earlier run.
    pub resumed: bool,
    /// Time that it took in this run, in seconds.
    pub seconds: f64,
}

/// Time spent in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The stage.
    pub stage: Stage,
    /// Wall-clock time in seconds.
    pub seconds: f64,
}

impl Timing {
    /// Adds it to that of the same stage in `timings`, if there is one.
    pub(crate) fn add_to(self, timings: &mut Vec<Timing>) {
        match timings.iter_mut().find(|t| t.stage == self.stage) {
            Some(before) => before.seconds += self.seconds,
            None => timings.push(self),
        }
    }
}

/// The latency of the float network and of the written file in a runtime, which ran them in turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The runtime with its version: `ONNX Runtime 1.32.0`. The accuracy in the same report was measured in it too.
    pub runtime: String,
    /// Number of threads.
    pub threads: usize,
    /// Number of samples per run, above 0: 1, or the batch size to which the file is fixed.
    pub batch: usize,
    /// Processor time of a run of the float network, in milliseconds: the minimum over many runs.
    pub float_ms: f64,
    /// The same for the written file.
    pub result_ms: f64,
}

/// How bits were chosen layer by layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixedReport {
    /// The choice.
    pub chosen: Chosen,
    /// The measurements on which the choice is based.
    pub sensitivity: Sensitivity,
    /// Error of the outputs that the written file has on the samples measured: squared, as a share of their energy,
    /// summed over the outputs.
    pub reached_error: Option<f64>,
}

/// An encodings file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodingsFile {
    /// Its name.
    pub file: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The report of a run: what was done and measured, and everything that is needed to repeat it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// Version of this layout: [`Report::SCHEMA`].
    pub schema: u32,
    /// The model that was read, as the user named it.
    pub model: String,
    /// The file that was written, if any.
    pub output: Option<String>,
    /// The encodings file next to it, for targets that need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encodings: Option<EncodingsFile>,
    /// Version of the program.
    pub version: String,
    /// The command line, word by word; empty if there was none.
    pub command: Vec<String>,
    /// The recipe in TOML, with all values written out that the method and the preset decide.
    pub recipe: String,
    /// The method.
    pub method: MethodName,
    /// The preset, which sets defaults for the options that are not given.
    pub preset: Preset,
    /// Bits of weights (2 to 8, or 32 for float), without exceptions.
    pub weight_bits: u32,
    /// Bits of activations (2 to 8, 16, or 32 for float), without exceptions.
    pub activation_bits: u32,
    /// Seed for all random choices.
    pub seed: u64,
    /// Iterations per unit that were requested.
    pub iterations: usize,
    /// Number of calibration samples used.
    pub samples: usize,
    /// The plan: all units, in network order.
    pub plan: Vec<PlannedUnit>,
    /// Operators that stay float.
    pub float: Vec<FloatNode>,
    /// How bits were chosen layer by layer, if they were.
    pub mixed: Option<MixedReport>,
    /// Units that were learned, in network order; the last one is the whole network, if it was tuned.
    pub units: Vec<UnitReport>,
    /// Quantized weights, in network order.
    pub layers: Vec<LayerReport>,
    /// Quantized activations, in network order.
    pub sites: Vec<SiteReport>,
    /// Size of the file read, in bytes, external data included.
    pub bytes_before: Option<u64>,
    /// Size of the file written, in bytes, external data included.
    pub bytes_after: Option<u64>,
    /// Accuracy, if labelled samples were given.
    pub accuracy: Option<Accuracy>,
    /// Some of the samples with what was detected in them, for detectors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pictures: Vec<Picture>,
    /// Set if the accuracy of the float network is hardly better than guessing.
    #[serde(default)]
    pub near_chance: Option<NearChance>,
    /// How close the written file is to the float network, if that was measured.
    #[serde(default)]
    pub quality: Option<Quality>,
    /// Latency, if a runtime was given.
    #[serde(default)]
    pub latency: Option<Latency>,
    /// Estimated duration of the run, in seconds, made before learning began; `None` for short runs.
    pub estimate: Option<f64>,
    /// Time per stage, in the order of the run.
    pub timings: Vec<Timing>,
    /// Number of samples that were skipped because they could not be read.
    pub skipped: usize,
}

impl Report {
    /// Version of the layout that this library writes.
    pub const SCHEMA: u32 = 2;

    /// Wall-clock time of the run, in seconds, without the measurements on its result.
    pub fn quantizing_seconds(&self) -> f64 {
        let counts = |t: &&Timing| !matches!(t.stage, Stage::Compare | Stage::Evaluate);
        self.timings.iter().filter(counts).map(|t| t.seconds).sum()
    }

    /// A report that has only a method: no model, units or timings yet.
    pub fn new(method: MethodName) -> Self {
        Report {
            schema: Self::SCHEMA,
            model: String::new(),
            output: None,
            encodings: None,
            version: env!("CARGO_PKG_VERSION").into(),
            command: Vec::new(),
            recipe: String::new(),
            method,
            preset: Preset::default(),
            weight_bits: 32,
            activation_bits: 32,
            seed: 0,
            iterations: 0,
            samples: 0,
            plan: Vec::new(),
            float: Vec::new(),
            mixed: None,
            units: Vec::new(),
            layers: Vec::new(),
            sites: Vec::new(),
            bytes_before: None,
            bytes_after: None,
            accuracy: None,
            pictures: Vec::new(),
            near_chance: None,
            quality: None,
            latency: None,
            estimate: None,
            timings: Vec::new(),
            skipped: 0,
        }
    }

    /// Reads a report from JSON; in the result of a sweep's run, reads the report in it. It is an error if there is
    /// none, or if it has another layout.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
            report: Option<IgnoredAny>,
        }
        let none = |e| Error::data(format!("expected a report of a run in JSON: {e}"));
        let Head { schema, report } = serde_json::from_slice(text).map_err(none)?;
        let newest = if report.is_some() { Trial::SCHEMA } else { Self::SCHEMA };
        if schema != newest {
            let message = format!("expected a report of layout {newest}, got {schema}");
            return Err(Error::data(message).hint("use the version of qdrop that wrote it, or run again"));
        }
        match report {
            Some(_) => serde_json::from_slice(text).map(Trial::into_report).map_err(none),
            None => serde_json::from_slice(text).map_err(none),
        }
    }

    /// The report as JSON, on one line.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::internal(format!("no JSON: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_and_events_survive_json() {
        let unit = UnitReport {
            name: "layer1".into(),
            unit: Some(0),
            layers: vec!["conv1".into()],
            loss_before: 2.0,
            loss_after: 0.5,
            snr_before: Some(8.0),
            snr_after: None,
            iterations: 10,
            planned: 20,
            reverted: false,
            curve: Curve { iteration: vec![10], reconstruction: vec![1.0], rounding: vec![0.0], beta: vec![20.0] },
            resumed: false,
            seconds: 0.25,
        };
        let mut report = Report::new(MethodName::Qdrop);
        report.units.push(unit.clone());
        let text = report.to_json().unwrap();
        assert_eq!(Report::from_json(text.as_bytes()).unwrap(), report);
        report.units[0].seconds = 0.1 + 0.2;
        assert_eq!(Report::from_json(report.to_json().unwrap().as_bytes()).unwrap(), report);
        report.units[0].loss_after = f64::INFINITY;
        let strange = Report::from_json(report.to_json().unwrap().as_bytes()).unwrap();
        assert!(strange.units[0].loss_after.is_nan());
        let refusal = |text: &str| Report::from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(refusal("{\"schema\":1}").starts_with("expected a report of layout 2, got 1; use the version"));
        assert!(refusal("{\"schema\":2}").starts_with("expected a report of a run in JSON: missing field"));
        assert!(refusal("no").starts_with("expected a report of a run in JSON: "));
        let event = Event::UnitFinished { index: 0, unit };
        let text = serde_json::to_string(&event).unwrap();
        assert!(text.starts_with(r#"{"event":"unit_finished""#), "{text}");
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }

    #[test]
    fn timed_tells_begin_and_end() {
        struct Log(Vec<Event>);
        impl Sink for Log {
            fn event(&mut self, event: &Event) {
                self.0.push(event.clone());
            }
        }
        let mut log = Log(Vec::new());
        let (value, timing) = timed(&mut log, Stage::Plan, None, |_| Ok(7)).unwrap();
        assert_eq!((value, timing.stage), (7, Stage::Plan));
        assert_eq!(log.0.len(), 2);
        assert!(timed(&mut log, Stage::Plan, None, |_| Err::<(), _>(Error::data("no"))).is_err());
        assert_eq!(log.0.len(), 3, "a failed stage never finishes");
        let error = timed(&mut log, Stage::Plan, None, |_| -> Result<()> { panic!("{} too many", 1) }).unwrap_err();
        assert_eq!(error.to_string().split(';').next(), Some("stage `plan`: a panic: 1 too many"));
    }
}
