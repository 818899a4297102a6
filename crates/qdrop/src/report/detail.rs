//! The parts of a report about single units, layers and activation sites.

use super::Oddity;
use serde::{Deserialize, Deserializer, Serialize};

/// Reads a number; numbers that are not finite are null in JSON.
pub(super) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// A unit of the plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlannedUnit {
    /// Its name.
    pub name: String,
    /// Names of the values that it reads.
    pub inputs: Vec<String>,
    /// Names of its values that others read.
    pub outputs: Vec<String>,
    /// Number of operators in it.
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
    /// Why it stays float.
    pub reason: String,
}

/// The losses while a unit was learned: means over intervals of iterations. All lists have the same length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The last iteration of each interval, counted from 1.
    pub iteration: Vec<usize>,
    /// Reconstruction loss of the batches, in squared units of the unit's output.
    pub reconstruction: Vec<f64>,
    /// The rounding regulariser times its weight; 0 during warm-up.
    pub rounding: Vec<f64>,
    /// Exponent β of the regulariser.
    pub beta: Vec<f64>,
}

/// A histogram with bins of equal width.
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

/// The weight of a layer and its rounding.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// The layer's name.
    pub name: String,
    /// Its unit, as an index in [`super::Report::plan`].
    pub unit: Option<usize>,
    /// Whether its rounding is learned.
    pub learned: bool,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Bits of the grid.
    pub bits: u32,
    /// Whether the grid's zero point is in its middle.
    pub symmetric: bool,
    /// Number of steps (scales): one per channel, or 1 for the whole weight.
    pub channels: usize,
    /// Smallest, median and largest step.
    pub steps: [f64; 3],
    /// Histogram of the weight in units of its steps, counted from the smallest integer of the grid: a value of 1.5 is
    /// halfway between the integers 1 and 2.
    pub histogram: Histogram,
    /// Share of the elements that are more than half a step outside the grid.
    pub clipped: f64,
    /// Number of channels (each with a step) whose weights all became 0 although not all of them were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vanished: usize,
    /// Share of the elements whose integer is not the nearest one.
    pub moved: f64,
    /// Signal-to-noise ratio of the weight with nearest rounding, in dB; `None` without noise.
    pub snr_nearest: Option<f64>,
    /// The same ratio for the weight in the file.
    pub snr: Option<f64>,
}

/// A grid of an activation, and the shares of the values that it clips.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteGrid {
    /// The step (scale), in units of the tensor.
    pub step: f64,
    /// The zero point: the integer that represents 0.
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

/// The error of the network's outputs, as a share of their energy, when a single activation is quantized in the float
/// network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// On the observer's grid.
    #[serde(deserialize_with = "number")]
    pub first: f64,
    /// On the grid with which learning began.
    #[serde(deserialize_with = "number")]
    pub refined: f64,
}

/// An activation site: a quantized activation, with the float network's values there and its grids.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteReport {
    /// Name of the quantized value.
    pub name: String,
    /// Its unit, as an index in [`super::Report::plan`].
    pub unit: Option<usize>,
    /// Operators that read the quantized value; `None` if all do.
    pub readers: Option<Vec<String>>,
    /// Bits of the grid.
    pub bits: u32,
    /// Whether the grid's zero point is in its middle.
    pub symmetric: bool,
    /// Something odd about the values seen, if there is anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oddity: Option<Oddity>,
    /// Number of channels, or features, that have more than one value in the first samples.
    #[serde(default)]
    pub channels: u64,
    /// How many of them are less than 1/256 as wide as the widest, with which they share a step.
    #[serde(default)]
    pub narrow: u64,
    /// Number of values seen.
    pub values: u64,
    /// The smallest of them.
    pub min: f64,
    /// The largest of them.
    pub max: f64,
    /// Share of the values that are exactly 0, which every grid contains.
    pub zeros: f64,
    /// Histogram of the other values.
    pub histogram: Histogram,
    /// The observer's grid.
    pub first: SiteGrid,
    /// The grid with which learning began.
    pub refined: SiteGrid,
    /// The grid in the file.
    pub learned: SiteGrid,
    /// Its effect on the network's outputs, if that was measured.
    pub effect: Option<Effect>,
}
