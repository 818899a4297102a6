//! Samples from files or from a program, for a network.

use super::model::Model;
use crate::data::{self, Coco, Collector, Limits, Prepare, Samples, Segmentation, Subset, Text, forward_labels};
use crate::engine::heap::installed;
use crate::error::{Error, Result};
use crate::plan::{Recipe, Task};
use crate::report::Sink;
use crate::tensor::Tensor;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Samples from a path (images, arrays or text), prepared for a network as the `input` section of a recipe says, or samples
/// that a program handed over one by one ([`Dataset::collector`]).
///
/// ```
/// use qdrop::report::Silent;
/// use qdrop::{Dataset, Model, Recipe, Samples};
///
/// let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
/// let model = Model::open(format!("{examples}/network.onnx"))?;
/// let calibration = Dataset::open(format!("{examples}/samples.npz"), &model, &Recipe::default(), None, &Silent)?;
/// assert_eq!(calibration.get(0)?[0].shape(), [3, 12, 12]);
/// # Ok::<(), qdrop::Error>(())
/// ```
pub struct Dataset {
    samples: Subset<Box<dyn Samples + Send + Sync>>,
    path: Option<PathBuf>,
}

impl Dataset {
    /// Opens `path` for the inputs of `model`, prepared as `recipe.input` says: at most `limit` samples, spread over
    /// the set (for SQuAD, the windows of at most `limit` questions). Unpacked, they may take the memory that the
    /// recipe allows, or else what the machine has. Opening stops when `sink` cancels.
    pub fn open(
        path: impl AsRef<Path>,
        model: &Model,
        recipe: &Recipe,
        limit: Option<usize>,
        sink: &dyn Sink,
    ) -> Result<Self> {
        Self::open_part(path.as_ref(), model, recipe, (limit, false), sink)
    }

    /// As [`Dataset::open`]; with the `rest` of a set, to which the samples within the `limit` give the length of texts and
    /// the canvas of images.
    fn open_part(
        path: &Path,
        model: &Model,
        recipe: &Recipe,
        (limit, rest): (Option<usize>, bool),
        sink: &dyn Sink,
    ) -> Result<Self> {
        let beside = |path: &Path| path.parent().map(Path::to_path_buf).unwrap_or_default();
        if let Some(task) = recipe.input.task.filter(|&t| path.is_dir() && t != Task::Segmentation) {
            let (what, hint) = match task {
                Task::Coco => ("an annotation file", "give it with --data, and the folder with --images"),
                Task::Squad => ("a file of texts", "give one of its .json files"),
                _ => ("a file of texts", "give one of its .tsv, .csv or .jsonl files"),
            };
            let error = Error::data(format!("task `{task}`: expected {what}, got a folder"));
            return Err(error.at(path.display()).hint(hint));
        }
        let inputs = model.inputs();
        let model = model.path().map(beside).unwrap_or_default();
        let stopped = || sink.cancelled();
        let limits = limits(recipe, &stopped);
        let samples = match Text::resolve(&recipe.input, &[&model, &beside(path)])? {
            Some(text) => Subset::spread(data::open_text_part(path, &text, &inputs, (limit, rest), &limits)?, None)?,
            None => {
                let prepare = Prepare::resolve(&recipe.input)?.for_inputs(&inputs);
                let chosen = limit.filter(|_| !rest);
                let found = match (Coco::resolve(&recipe.input)?, Segmentation::resolve(&recipe.input)) {
                    (Some(coco), _) => data::open_coco(path, &coco, &prepare, chosen, &limits)?,
                    (_, Some(labels)) => data::open_segmentation(path, &labels, &prepare, limit, &limits)?,
                    (None, None) => data::open_part(path, &prepare, limit, &limits)?,
                };
                if found.is_empty() {
                    return Err(Error::data("expected samples, found none").at(path.display()));
                }
                Subset::spread(data::fit(found, &inputs).map_err(|e| e.at(path.display()))?, chosen)?
            }
        };
        Ok(Dataset { samples, path: Some(path.to_path_buf()) })
    }

    /// Opens the images of the annotation file at `path` (COCO) without a network, so that they and what was detected in them
    /// can be looked at. Of `recipe.input`, `images` and `skip_bad` count.
    pub fn annotated(path: impl AsRef<Path>, recipe: &Recipe) -> Result<Self> {
        let path = path.as_ref();
        let coco = Coco { images: recipe.input.images.as_ref().map(PathBuf::from), detector: None };
        // Images of any sizes.
        let prepare = Prepare { pad_multiple: Some(1), skip_bad: recipe.input.skip_bad, ..Prepare::default() };
        let found = data::open_coco(path, &coco, &prepare, None, &limits(recipe, &|| false))?;
        Ok(Dataset { samples: Subset::spread(found, None)?, path: Some(path.to_path_buf()) })
    }

    /// Opens values of a network that another program recorded in the `.npz` file at `path`: one array per value, with
    /// the value's name, and one entry per sample.
    pub fn recorded(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let recipe = Recipe::default();
        let found = data::open(path, &Prepare::resolve(&recipe.input)?, &limits(&recipe, &|| false))?;
        Ok(Dataset { samples: Subset::spread(found, None)?, path: Some(path.to_path_buf()) })
    }

    /// What gathers samples for `model` that the program makes one by one; [`Dataset::from`] then makes a set of them. As many
    /// as fit into a quarter of the machine's memory stay in memory, and none if the recipe limits the memory of a run; the
    /// others are kept in a temporary file.
    pub fn collector(model: &Model, recipe: &Recipe) -> Result<Collector> {
        let memory = match recipe.method.memory {
            Some(_) => 0,
            None => installed().map_or(UNKNOWN, |bytes| bytes / 4),
        };
        Collector::new(&model.inputs(), &recipe.input, memory)
    }
}

/// Memory, in bytes, that collected samples may take where the machine's is not known.
const UNKNOWN: u64 = 2 << 30;

impl From<Collector> for Dataset {
    fn from(collector: Collector) -> Self {
        let set = collector.into_set();
        let count = set.len();
        Dataset { samples: Subset::first(Box::new(set), count), path: None }
    }
}

impl Samples for Dataset {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        self.samples.get(index)
    }

    forward_labels!(samples);

    fn input_names(&self) -> Option<Vec<String>> {
        self.samples.input_names()
    }

    fn source(&self) -> Option<String> {
        self.path.as_ref().map(|path| path.display().to_string())
    }
}

/// The part of the machine's memory that images may take which need not stay in memory.
const SPARE: u64 = 16;

fn limits<'a>(recipe: &Recipe, stopped: &'a (dyn Fn() -> bool + Sync)) -> Limits<'a> {
    let (allowed, installed) = (recipe.method.memory.map(|m| m.0), installed());
    let spare = if allowed.is_none() { installed.unwrap_or(0) / SPARE } else { 0 };
    Limits { memory: allowed.or(installed).unwrap_or(u64::MAX), spare, stopped }
}

/// Calibration samples chosen from a set, and the rest of the set, which is left for measuring.
pub struct CalibrationSet {
    set: Dataset,
    /// Indices of the samples that are used.
    used: Vec<usize>,
}

impl CalibrationSet {
    /// Opens `path` as [`Dataset::open`] does, and chooses as many samples as `recipe.input.samples` says, spread over
    /// the set; all samples if it is not set.
    pub fn open(path: impl AsRef<Path>, model: &Model, recipe: &Recipe, sink: &dyn Sink) -> Result<Self> {
        let limit = recipe.input.samples;
        let set = Dataset::open_part(path.as_ref(), model, recipe, (limit, true), sink)?;
        Ok(Self::choose(set, limit))
    }

    /// At most `limit` samples of `set`, spread over it; all without a limit.
    pub fn choose(set: Dataset, limit: Option<usize>) -> Self {
        let used = data::spread(set.len(), limit).collect();
        CalibrationSet { set, used }
    }

    /// The samples that are used.
    pub fn used(&self) -> Result<Subset<&Dataset>> {
        Subset::new(&self.set, self.used.clone())
    }

    /// The samples of the set that are not used.
    pub fn left_out(&self) -> Result<Box<dyn Samples + '_>> {
        let used: BTreeSet<usize> = self.used.iter().copied().collect();
        let others = (0..self.set.len()).filter(|i| !used.contains(i)).collect();
        Ok(Box::new(Subset::new(&self.set, others)?))
    }
}
