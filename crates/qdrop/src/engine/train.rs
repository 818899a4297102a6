//! Learning on a device: what a unit learns from, one iteration as plain data, and the interface of devices.

pub use super::choices::{Choices, Draws, Keep, Purpose, RandomDraws};

use super::program::Program;
use crate::error::Result;
use crate::quant::{Grid, LayerId};
use crate::tensor::Rows;
use serde::{Deserialize, Serialize};

/// A weight whose rounding is learned.
#[derive(Debug, Clone, Serialize)]
pub struct Weight {
    /// The layer, in the plan.
    pub layer: LayerId,
    /// Float content.
    pub float: Vec<f32>,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Its grid.
    pub grid: Grid,
}

/// A bias that is learned with the weight of its layer, in units of that weight's step.
#[derive(Debug, Clone, Serialize)]
pub struct Bias {
    /// The layer, in the plan.
    pub layer: LayerId,
    /// Float content.
    pub float: Vec<f32>,
    /// Step of the weight, per element.
    pub step: Vec<f32>,
}

/// A constant that is learned up to a scale per channel: a weight whose integers are decided, by its steps, or what divides
/// the channels of an activation.
#[derive(Debug, Clone, Serialize)]
pub struct Scaled {
    /// Per element what its scale multiplies: of a weight the integer less the zero point.
    pub base: Vec<f32>,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Axis of the channels; `None` for one scale.
    pub axis: Option<usize>,
    /// First scales.
    pub scale: Vec<f32>,
}

impl Scaled {
    /// The elements with `scale`.
    pub fn content(&self, scale: &[f32]) -> Vec<f32> {
        let mut content = self.base.clone();
        self.for_each(&mut content, |values, c| values.iter_mut().for_each(|v| *v *= scale[c]));
        content
    }

    /// Calls `f` with every stretch of `values` that lies in one channel, and the number of that channel.
    pub(super) fn for_each(&self, values: &mut [f32], mut f: impl FnMut(&mut [f32], usize)) {
        let inner = self.axis.map_or(values.len(), |axis| self.shape[axis + 1..].iter().product());
        let stretches = values.chunks_mut(inner.max(1)).enumerate();
        stretches.for_each(|(i, stretch)| f(stretch, i % self.scale.len()));
    }
}

/// One unit with everything it is solved from. What is listed per site is in the order of the program's sites; a unit has
/// no other numbers for them.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The unit's program; its weights are `weights`, then `biases`, then `scaled`, its sites `grids`.
    pub program: Program,
    /// Weights to round.
    pub weights: Vec<Weight>,
    /// Biases to learn; empty where they stay as they are.
    pub biases: Vec<Bias>,
    /// Constants of which scales are learned.
    pub scaled: Vec<Scaled>,
    /// First grids of the sites.
    pub grids: Vec<Grid>,
    /// Per site: what the learning rate of its step is multiplied by.
    pub scale_rates: Vec<f64>,
    /// Inputs in the float network, per input of the program.
    pub float_inputs: Vec<Rows>,
    /// Inputs in the network quantized so far, per input of the program.
    pub quantized_inputs: Vec<Rows>,
    /// Outputs of the float network, per output of the program.
    pub targets: Vec<Rows>,
    /// Per output of the program: what its elements weigh in the loss; `None`: all the same.
    pub loss_weights: Vec<Option<LossWeights>>,
}

/// What the elements of an output weigh in the loss: the weight of their channel times that of their position.
#[derive(Debug, Clone)]
pub struct LossWeights {
    /// One a channel.
    pub channels: Vec<f32>,
    /// One an element of a channel, for every sample.
    pub positions: Rows,
    /// Positions in front of the channels; the others are behind.
    pub outer: usize,
}

impl LossWeights {
    /// Weights of the elements of `sample`, in their order, into `row`.
    pub fn expand(&self, sample: usize, row: &mut Vec<f32>) -> Result<()> {
        let positions = &*self.positions.row(sample)?;
        row.clear();
        for inner in positions.chunks((positions.len() / self.outer.max(1)).max(1)) {
            self.channels.iter().for_each(|&c| row.extend(inner.iter().map(|&p| c * p)));
        }
        Ok(())
    }
}

impl Problem {
    /// Number of calibration samples.
    pub fn samples(&self) -> usize {
        self.targets.first().map_or(0, Rows::len)
    }
}

/// One iteration.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// Its number, from 1.
    pub iteration: usize,
    /// The random choices.
    pub choices: Choices<'a>,
    /// Weight of the rounding regulariser; 0 during warm-up.
    pub lambda: f64,
    /// Exponent of the regulariser.
    pub beta: f64,
    /// Learning rate of the rounding variables.
    pub rounding_lr: f64,
    /// Learning rate of the biases, in units of their weights' steps.
    pub bias_lr: f64,
    /// Learning rate of the steps of sites; 0 leaves them as they are.
    pub scale_lr: f64,
    /// Learning rate of the scales of [`Problem::scaled`], as a share of each.
    pub scaled_lr: f64,
    /// Regulariser, summed over all weights and without `lambda`, below which the roundings are settled: where it is so
    /// low before the update of an iteration whose `lambda` is above 0, this update is the last. `None`: never.
    pub settled_below: Option<f64>,
}

/// Losses of one iteration, before its update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// Σ over the channel axis of the squared difference, mean over the rest.
    pub reconstruction: f64,
    /// Together with the weighted regulariser.
    pub total: f64,
}

/// Where the time of all iterations of a trainer went so far, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Times {
    /// Mixing, masks, forward passes, losses.
    pub forward: f64,
    /// Backward passes.
    pub backward: f64,
    /// Roundings, biases, steps and their optimisers.
    pub update: f64,
}

/// The losses of a trainer that nobody has read yet, and whether its roundings are settled.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    unread: Vec<Losses>,
    settled: bool,
}

impl Record {
    /// Notes the losses of `step`.
    pub fn note(&mut self, losses: Losses, step: &Step) {
        // 1 - |2h-1|^β is 0 where h is 0 or 1: so this is the number of weights that are neither, and less.
        let undecided = (losses.total - losses.reconstruction) / step.lambda;
        self.settled |= step.lambda > 0.0 && step.settled_below.is_some_and(|least| undecided < least);
        self.unread.push(losses);
    }

    /// Whether further steps change nothing.
    pub fn settled(&self) -> bool {
        self.settled
    }

    /// As [`Trainer::losses`].
    pub fn read(&mut self) -> Vec<Losses> {
        std::mem::take(&mut self.unread)
    }
}

/// A device that learns one unit: it holds the rounding variables, the steps and the state of their optimisers (Adam
/// with β 0.9 and 0.999, ε 1e-8).
pub trait Trainer {
    /// One iteration: forward, backward, update. It need not be done when this returns. Nothing happens once the
    /// roundings are settled ([`Step::settled_below`]).
    fn step(&mut self, step: &Step) -> Result<()>;

    /// The losses of all iterations since they were last read, in order: one for each step that did something.
    fn losses(&mut self) -> Result<Vec<Losses>>;

    /// Rounding variables so far, per weight.
    fn alpha(&self) -> Vec<Vec<f32>>;

    /// Biases so far.
    fn biases(&self) -> Vec<Vec<f32>>;

    /// Scales of the scaled constants so far.
    fn scaled(&self) -> Vec<Vec<f32>>;

    /// Grids of the sites with their steps so far.
    fn grids(&self) -> Vec<Grid>;

    /// Where the time went, where that is measured.
    fn times(&self) -> Times {
        Times::default()
    }
}
