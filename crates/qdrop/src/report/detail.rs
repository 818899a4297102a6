//! What a report holds about single units, layers and activation sites.

use super::Oddity;
use serde::{Deserialize, Deserializer, Serialize};

/// A number; JSON writes those that are not finite as null.
pub(super) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// A unit of the plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlannedUnit {
    /// Its name.
    pub name: String,
    /// Values that it reads.
    pub inputs: Vec<String>,
    /// Values that others read from it.
    pub outputs: Vec<String>,
    /// Operators in it.
    pub nodes: usize,
    /// Weights and biases, in elements.
    pub parameters: u64,
    /// Multiply-adds per sample.
    pub multiply_adds: u64,
}

/// An operator that stays float although it carries a weight or a product.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatNode {
    /// Its name.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// How losses went while a unit was learned: means over stretches of iterations, all lists of one length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The last iteration of each stretch, from 1.
    pub iteration: Vec<usize>,
    /// Reconstruction loss of the batches, in squared units of the unit's output.
    pub reconstruction: Vec<f64>,
    /// The rounding regulariser, with its weight; 0 during warm-up.
    pub rounding: Vec<f64>,
    /// Exponent of the regulariser.
    pub beta: Vec<f64>,
}

/// Values counted in bins of equal width.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Left end of the first bin.
    pub low: f64,
    /// Right end of the last bin.
    pub high: f64,
    /// Share of all values in each bin, 0 to 1.
    pub shares: Vec<f64>,
    /// Share of the values below the first bin.
    pub below: f64,
    /// Share of the values above the last bin.
    pub above: f64,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// A layer's weight and its rounding.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// The layer's name.
    pub name: String,
    /// Its unit: index in [`super::Report::plan`].
    pub unit: Option<usize>,
    /// Whether its rounding was to be learned.
    pub learned: bool,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Bits of the grid.
    pub bits: u32,
    /// Whether the grid's zero point is in its middle.
    pub symmetric: bool,
    /// Number of steps: channels, or 1 for the whole weight.
    pub channels: usize,
    /// Smallest, median and largest step.
    pub steps: [f64; 3],
    /// The weight in units of its steps, from the grid's smallest integer: a value of 1.5 lies half way between the
    /// integers 1 and 2.
    pub histogram: Histogram,
    /// Share of the elements that lie more than half a step outside the grid.
    pub clipped: f64,
    /// Channels, as many as there are steps, all of whose weights became 0 though some were not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vanished: usize,
    /// Share of the elements whose integer is not the nearest.
    pub moved: f64,
    /// Signal to noise of the rounded weight, in dB, with nearest rounding; `None` without noise.
    pub snr_nearest: Option<f64>,
    /// The same as written.
    pub snr: Option<f64>,
}

/// A grid of an activation and what it clips.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteGrid {
    /// The step, in units of the tensor.
    pub step: f64,
    /// The integer that stands for 0.
    pub zero_point: i32,
    /// The smallest number on the grid.
    pub low: f64,
    /// The largest number on the grid.
    pub high: f64,
    /// Share of the float network's values more than half a step below the grid.
    pub below: f64,
    /// Share of the float network's values more than half a step above the grid.
    pub above: f64,
}

/// Error of the network's outputs when a single activation is quantized in the float network, as a share of their
/// energy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// On the observer's grid.
    #[serde(deserialize_with = "number")]
    pub first: f64,
    /// On the grid with which learning began.
    #[serde(deserialize_with = "number")]
    pub refined: f64,
}

/// An activation site: the float network's values there, and the grids that it had.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteReport {
    /// Name of the quantized value.
    pub name: String,
    /// Its unit: index in [`super::Report::plan`].
    pub unit: Option<usize>,
    /// Operators that read it quantized; `None`: all.
    pub readers: Option<Vec<String>>,
    /// Bits of the grid.
    pub bits: u32,
    /// Whether the grid's zero point is in its middle.
    pub symmetric: bool,
    /// What is odd about the values seen, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oddity: Option<Oddity>,
    /// Channels, or features, with more than one value in the first samples.
    #[serde(default)]
    pub channels: u64,
    /// Those of them that are less than 1/256 as wide as the widest, which shares its step with them.
    #[serde(default)]
    pub narrow: u64,
    /// Number of values seen.
    pub values: u64,
    /// The smallest of them.
    pub min: f64,
    /// The largest of them.
    pub max: f64,
    /// Share of those that are exactly 0, which every grid holds.
    pub zeros: f64,
    /// The others.
    pub histogram: Histogram,
    /// The observer's grid.
    pub first: SiteGrid,
    /// The grid with which learning began.
    pub refined: SiteGrid,
    /// The grid in the file.
    pub learned: SiteGrid,
    /// What it does to the network's outputs, where that was measured.
    pub effect: Option<Effect>,
}
