//! Metrics of networks.

use crate::plan::Task;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The accuracy of one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Number of samples measured; of questions if a sample is only a part of one.
    pub samples: usize,
    /// Metrics by name, in per cent: `top1` and `top5` for classes, or the metrics of a task (`accuracy`, `f1`).
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
    /// Each class alone, where the task has figures for it (segmentation).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassScore>,
}

/// How well the pixels of one class are found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Its number.
    pub class: usize,
    /// Intersection over union of its pixels in truth and prediction, in per cent.
    pub iou: f64,
    /// The part of its pixels that is found, in per cent; `None` where no pixel is of this class.
    pub recall: Option<f64>,
    /// Pixels of this class.
    pub pixels: u64,
}

impl Score {
    /// A score with `metrics` by name, measured on `samples` samples.
    pub fn new<'a>(samples: usize, metrics: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        let metrics = metrics.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        Score { samples, metrics, classes: Vec::new() }
    }

    /// The metrics as they are shown: those of detection in COCO's order, others by name.
    pub fn ordered(&self) -> impl Iterator<Item = (&str, f64)> {
        let known = Task::Coco.metrics();
        let first = known.iter().filter_map(|m| self.metrics.get_key_value(*m));
        let others = self.metrics.iter().filter(|(m, _)| !known.contains(&m.as_str()));
        first.chain(others).map(|(name, &value)| (name.as_str(), value))
    }
}

/// The accuracy of the float network and of the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// The float network.
    pub float: Score,
    /// Nearest rounding on the first grids, if it was measured.
    pub nearest: Option<Score>,
    /// The written file.
    pub result: Score,
}

impl Accuracy {
    /// The scores with their displayed names.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'static str, &Score)> {
        let nearest = self.nearest.as_ref().map(|n| ("nearest rounding", n));
        [("float", &self.float)].into_iter().chain(nearest).chain([("result", &self.result)])
    }
}
